/** What the host needs for an address whose pod another plugin plumbs, with us as its IPAM: routing policy alone, no link and no route. */
import type { Allocation } from "../state/node-state.ts";
import { eniTable, MAIN_TABLE, RULE_ENI_PRIORITY, RULE_PODS_PRIORITY } from "./names.ts";
import { rule } from "./node-host.ts";
import type { KernelObject } from "./object.ts";

/**
 * Rules of one delegated address, in the order they can be made.
 *
 * The other plugin puts its route to the pod into the main table, which pods of ours on a secondary ENI do not look at: the first rule leads
 * there. Its links are in no group of ours, so the packet filter marks nothing that comes from them: on a secondary ENI the second
 * rule does by the source address what the mark does for our own pods, or the VPC would drop what leaves by the primary ENI.
 */
export function delegatedObjects({
  ip,
  eniSlot,
}: Pick<Allocation, "ip" | "eniSlot">): readonly KernelObject[] {
  const own = { ip, prefixLength: 32 };
  const towards = rule({ priority: RULE_PODS_PRIORITY, to: own, table: MAIN_TABLE });
  if (eniSlot.networkCard === 0 && eniSlot.deviceIndex === 0) return [towards];
  return [towards, rule({ priority: RULE_ENI_PRIORITY, from: own, table: eniTable(eniSlot) })];
}
