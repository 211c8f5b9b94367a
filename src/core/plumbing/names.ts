/**
 * Every name and number that we write into the kernel: link names, groups, tables, rule priorities, mark bits, protocol.
 * One place, so that they can be read beside the AWS VPC CNI's (its pkg/networkutils) and never collide.
 */
import type { EniSlot, Mac } from "../model/eni.ts";
import type { InstanceLimits } from "../model/instance.ts";
import type { SandboxId } from "../model/sandbox.ts";
import type { Brand } from "../../lib/brand.ts";
import { type Ipv4, ipv4ToNumber } from "../../lib/ip.ts";

/** rtm_protocol and FRA_PROTOCOL of all routes and rules that we make; user values begin at 5 (rtnetlink.h). */
export const ROUTE_PROTOCOL = 0x62;

export const MAIN_TABLE = 254;
/** Holds one /32 route a pod, and nothing else. AWS VPC CNI uses 101 and up for branch ENIs, never 100. */
export const PODS_TABLE = 100;

export const RULE_PODS_PRIORITY = 512; // Everything looks for a local pod first.
export const RULE_MAIN_PRIORITY = 1_024; // Marked MAIN_MARK: leave by the primary ENI.
export const RULE_EXTERNAL_SERVICE_PRIORITY = 1_535; // AWS_EXTERNAL_SERVICE_CIDRS
export const RULE_ENI_PRIORITY = 1_536; // Marked with an ENI's number: leave by that ENI.
export const RULE_RETURN_PRIORITY = 1_537; // Came from an ipvlan pod and is to leave by that pod's ENI: back into the pod.
export const RULE_ENI_ADDRESS_PRIORITY = 32_765; // From an ENI's own address: leave by that ENI.

/** The low six bits of the packet mark number the ENI; 0 is the primary one, which uses the main table. */
export const ENI_MARK_MASK = 0x3f;

/** The link group of a pod's host link is GROUP_BASE + the number of its ENI. Groups 1000 to 1999 are ours. */
export const GROUP_BASE = 1_001;
export const GROUP_LAST = 1_999;
/** The same for host links of ipvlan pods, which the packet filter treats apart. */
export const IPVLAN_GROUP_BASE = 1_201;
export const IPVLAN_GROUP_LAST = 1_299;

/** Our one nft table, of family inet. */
export const PACKET_FILTER_TABLE = "berth";

export const POD_GATEWAY_TEXT = "169.254.1.1";

/** An ipvlan pod as the next hop of what goes back into it. One for all pods, so that the packet filter knows such packets by it. */
export const POD_RETURN_TEXT = "169.254.1.2";

/** Inside an ipvlan pod, whose namespace is its own: two tables, three rules, and two bits of its packet marks and connection marks. */
export const POD_NODE_TABLE = 101; // To the node.
export const POD_ENI_TABLE = 102; // By the pod's own ENI.
export const POD_RULE_PASSING_PRIORITY = 512; // Came from the node, for somebody else.
export const POD_RULE_NODE_PRIORITY = 513; // Answers what came from the node.
export const POD_RULE_ENI_PRIORITY = 514; // Answers what came by the ENI.
export const POD_NODE_MARK = 0x40; // Istio's marks in a pod, 0x539, keep clear of both.
export const POD_ENI_MARK = 0x80;

/** An ENI slot's number on its instance, counted through the network cards: 0 is the primary ENI's. */
export type EniNumber = Brand<number, "EniNumber">;

/** Null for a slot beyond 63: the mark has six bits. No instance type known today has more. */
export function eniNumber(slot: EniSlot, limits: InstanceLimits): EniNumber | null {
  let before = 0;
  for (const [card, { enis }] of limits.networkCards.entries()) {
    if (card === slot.networkCard) {
      const number = before + slot.deviceIndex;
      return slot.deviceIndex < enis && number <= ENI_MARK_MASK ? (number as EniNumber) : null;
    }
    before += enis;
  }
  return null;
}

/** The routing table of a secondary ENI. AWS VPC CNI gives the same numbers to the same ENI on cards above 0. */
export function eniTable(slot: EniSlot): number {
  return 10_000 + 100 * slot.networkCard + slot.deviceIndex;
}

export function eniGroup(number: EniNumber): number {
  return GROUP_BASE + number;
}

export function ipvlanGroup(number: EniNumber): number {
  return IPVLAN_GROUP_BASE + number;
}

/** Is this the group of host links of that ENI's pods, of whatever path? */
export function isGroupOfEni(group: number, number: EniNumber): boolean {
  return group === eniGroup(number) || group === ipvlanGroup(number);
}

/** Is this the group of an ipvlan pod's host link? */
export function isIpvlanGroup(group: number): boolean {
  return group >= IPVLAN_GROUP_BASE && group <= IPVLAN_GROUP_LAST;
}

/**
 * The table of one ipvlan pod: its address as a number. Addresses of a VPC begin at 10.0.0.0, far above every table that people number, and
 * no two pods of a node have one, so nothing is searched and no two ADDs can race for a number.
 */
export function podTable(ip: Ipv4): number {
  return ipv4ToNumber(ip);
}

/** The pod's end of the pair that joins an ipvlan pod to its node. */
export function podVethName(id: SandboxId, ifName: string): string {
  return ifName === "eth0" ? "veth0" : `veth${sandboxHash(id).slice(0, 8)}`;
}

/** What an ipvlan slave is called before it gets its name inside the pod; no other link of the host or the pod is called so. */
export function slaveBirthName(id: SandboxId): string {
  return `ipv${sandboxHash(id).slice(0, 11)}`;
}

/** Group 1000 is no ENI's: links on their way out may be gathered there. */
export function isOurGroup(group: number): boolean {
  return group >= GROUP_BASE - 1 && group <= GROUP_LAST;
}

/** FNV-1a over the UTF-16 code units, twice with different offsets: 64 bits, as 16 hexadecimal digits. */
export function sandboxHash(id: SandboxId): string {
  const fnv = (offset: number): string => {
    let hash = offset;
    for (let i = 0; i < id.length; i += 1) hash = Math.imul(hash ^ id.charCodeAt(i), 0x0100_0193);
    hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
    return ((hash ^ (hash >>> 16)) >>> 0).toString(16).padStart(8, "0");
  };
  return fnv(0x811c_9dc5) + fnv(0x1b87_3593);
}

/** AWS_VPC_K8S_CNI_VETHPREFIX (4 at most) and 11 hexadecimal digits. Derived from the sandbox and not from its pod: a recreated pod's new sandbox may come before the old one is gone. */
export function hostLinkName(prefix: string, id: SandboxId): string {
  return `${prefix}${sandboxHash(id).slice(0, 11)}`;
}

/** Locally administered and unicast; given at creation, so that udev leaves it alone (aws/amazon-vpc-cni-k8s#2103). */
export function sandboxMac(end: "host" | "pod", id: SandboxId): Mac {
  const digits = sandboxHash(id);
  const first = end === "host" ? "0a" : "0e";
  return [first, ...[0, 2, 4, 6, 8].map((at) => digits.slice(at + 2, at + 4))].join(":") as Mac;
}

/** The alias of a host link: the sandbox id, or its hash where it is longer than the kernel's 255 bytes. */
export function hostLinkAlias(id: SandboxId): string {
  return id.length <= 255 ? id : `#${sandboxHash(id)}`;
}
