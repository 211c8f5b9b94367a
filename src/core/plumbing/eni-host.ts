/**
 * What an attached ENI needs in the host's namespace. The primary ENI keeps what the OS gave it; a secondary one gets a table of its
 * own and two rules that lead there. Pods are not seen here: their packets carry the ENI's number as a mark.
 */
import { assert } from "../../lib/assert.ts";
import { ipv4Plus, type Ipv4 } from "../../lib/ip.ts";
import type { Eni, Mac } from "../model/eni.ts";
import type { InstanceLimits } from "../model/instance.ts";
import { ENI_MARK_MASK, eniNumber, eniTable, RULE_ENI_ADDRESS_PRIORITY, RULE_ENI_PRIORITY } from "./names.ts";
import { DEFAULT_ROUTE, rule } from "./node-host.ts";
import type { KernelObject, LinkSeen } from "./object.ts";

/** Kinds of link that take the MAC of the link below them, so that a MAC alone would find two. */
const COPIES_MAC: ReadonlySet<string> = new Set(["vlan", "ipvlan", "macvlan", "bridge", "bond"]);

/** The link of an ENI, by its MAC: names change within milliseconds of a hot plug (cilium/cilium#43203). Null when it is not there (yet). */
export function linkOfEni(links: readonly LinkSeen[], mac: Mac): LinkSeen | null {
  return links.find((link) => link.mac === mac && !(link.kind !== null && COPIES_MAC.has(link.kind))) ?? null;
}

/** The VPC's router answers at the first address of each subnet + 1. */
export function gatewayOf(eni: Pick<Eni, "subnetCidr">): Ipv4 {
  return ipv4Plus(eni.subnetCidr.network, 1);
}

/**
 * The objects of one ENI whose link is called `link`, in the order they can be made.
 *
 * The address is `noprefixroute`: the connected route would draw the node's own traffic to the subnet away from the primary ENI, and
 * comes back with each link-up. Without any address the link would take nothing in, however loose rp_filter is. Table T knows the gateway only, so neighbours of the subnet are never asked for by ARP.
 * The ENI must have a number (`eniNumber`), that is a slot that its instance type has.
 */
export function eniObjects(
  eni: Pick<Eni, "role" | "slot" | "subnetCidr" | "primaryIp">,
  link: string,
  limits: InstanceLimits,
  mtu: number,
): readonly KernelObject[] {
  const device: KernelObject = { kind: "link", name: link, mtu, up: true, group: null };
  if (eni.role === "primary") return [device];

  const number = eniNumber(eni.slot, limits);
  assert(number !== null, "a secondary ENI that we manage has a number");
  const table = eniTable(eni.slot);
  const gateway = gatewayOf(eni);
  const viaLink = { kind: "route", table, link, onlink: false, mtu: null } as const;
  return [
    device,
    {
      kind: "address",
      link,
      ip: eni.primaryIp,
      prefixLength: eni.subnetCidr.prefixLength,
      noPrefixRoute: true,
    },
    { ...viaLink, destination: { ip: gateway, prefixLength: 32 }, gateway: null, scope: "link" },
    { ...viaLink, destination: DEFAULT_ROUTE, gateway, scope: "global" },
    rule({ priority: RULE_ENI_PRIORITY, mark: { value: number, mask: ENI_MARK_MASK }, table }),
    rule({ priority: RULE_ENI_ADDRESS_PRIORITY, from: { ip: eni.primaryIp, prefixLength: 32 }, table }),
  ];
}
