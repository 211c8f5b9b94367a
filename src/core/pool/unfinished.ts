/** What was begun and not ended, because an answer was lost or the daemon died: it is asked for again before anything new. */
import type { PoolAction } from "../model/action.ts";
import type { NodeState } from "../state/node-state.ts";
import { cidr4Contains } from "../../lib/ip.ts";

/** Null when nothing is left over. Leaving addresses and ENIs are never given out, so asking again is always safe. */
export function unfinishedAction(state: NodeState): PoolAction | null {
  for (const eni of state.enis.values()) {
    if (eni.phase.kind === "leaving")
      return { kind: "detach-eni", eni: eni.id, attachmentId: eni.attachmentId };
    const leaving = [...eni.addresses.values()].filter((address) => address.kind === "leaving");
    const ips = leaving.filter((address) => address.by === "secondary").map((address) => address.ip);
    if (ips.length > 0) return { kind: "unassign-addresses", eni: eni.id, ips };
    const prefixes = eni.prefixes.filter((prefix) =>
      leaving.some((address) => address.by === "prefix" && cidr4Contains(prefix, address.ip)),
    );
    if (prefixes.length > 0) return { kind: "unassign-prefixes", eni: eni.id, prefixes };
  }
  return null;
}
