/**
 * Our one nft table, as a value and as the text of one transaction. It is loaded at start and when policy changes (the VPC gains a CIDR,
 * a setting changes); every ENI slot of the instance type is in it from the beginning, so neither a pod nor an attach touches it.
 *
 * Three marks meet here. The low six bits of the packet mark number the ENI by which a pod's packet leaves. MAIN_MARK on a packet sends
 * it by the primary ENI instead. MAIN_MARK on a connection remembers that it came to the node's own address.
 */
import { assert } from "../../lib/assert.ts";
import { type Cidr4, cidr4Overlap, compareIpv4, type Ipv4, printCidr4 } from "../../lib/ip.ts";
import type { Instance, InstanceLimits } from "../model/instance.ts";
import {
  ENI_MARK_MASK,
  eniGroup,
  type EniNumber,
  eniNumber,
  GROUP_BASE,
  GROUP_LAST,
  IPVLAN_GROUP_BASE,
  IPVLAN_GROUP_LAST,
  PACKET_FILTER_TABLE,
  POD_RETURN_TEXT,
} from "./names.ts";
import type { PlumbingSettings } from "./settings.ts";

export type PacketFilter = {
  readonly primaryLink: string;
  readonly enis: readonly EniNumber[]; // One a slot of the instance type, whether an ENI is there or not.
  readonly mainMark: number;
  readonly nodePort: boolean;
  /** The node's address, where ipvlan pods are or may come; null where there are none. */
  readonly ipvlan: Ipv4 | null;
  readonly snat: {
    readonly to: Ipv4; // The primary ENI's own address.
    readonly ports: "prng" | "hashrandom" | "none";
    /** Destinations that see the pod's own address: the VPC's CIDRs and excluded ones. Sorted, none inside another. */
    readonly localCidrs: readonly Cidr4[];
  } | null;
};

/**
 * The table for this instance. `primaryLink` is the name of the primary ENI's link as the kernel has it now. `ipvlan`: pods of that path
 * are on the node, or new ones may come; a node that never has any is spared two lines.
 */
export function packetFilter(
  instance: Pick<Instance, "limits" | "primaryIp" | "vpcCidrs">,
  primaryLink: string,
  settings: PlumbingSettings,
  ipvlan = settings.dataPath === "ipvlan",
): PacketFilter {
  const { mainMark, nodePort, snat } = settings;
  assert(
    mainMark > 0 && (mainMark & ENI_MARK_MASK) === 0,
    "the connection mark keeps clear of the ENI's number",
  );
  return {
    primaryLink,
    enis: eniNumbers(instance.limits),
    mainMark,
    nodePort,
    ipvlan: ipvlan ? instance.primaryIp : null,
    snat: snat && {
      to: instance.primaryIp,
      ports: snat.ports,
      localCidrs: outermost([...instance.vpcCidrs, ...snat.excludedCidrs]),
    },
  };
}

function eniNumbers(limits: InstanceLimits): readonly EniNumber[] {
  return limits.networkCards.flatMap(({ enis }, networkCard) =>
    Array.from({ length: enis }, (_, deviceIndex) => eniNumber({ networkCard, deviceIndex }, limits)).filter(
      (number) => number !== null,
    ),
  );
}

/** Sorted, and without those that lie in another: nft refuses overlapping elements of an interval set. */
function outermost(cidrs: readonly Cidr4[]): readonly Cidr4[] {
  const kept: Cidr4[] = [];
  for (const cidr of [...cidrs].sort((left, right) => left.prefixLength - right.prefixLength)) {
    if (!kept.some((wider) => cidr4Overlap(wider, cidr))) kept.push(cidr);
  }
  return kept.sort((left, right) => compareIpv4(left.network, right.network));
}

/**
 * Input for one `nft -f -`: the old table goes and the new one comes in a single transaction, so no packet sees neither. The first line
 * makes the second valid where there was no table yet. Written for nft 1.0.6, which cannot OR a map's result into a mark (hence a
 * verdict map and a chain an ENI) and wants a newline before each brace.
 */
export function printPacketFilter(filter: PacketFilter): string {
  const { primaryLink, mainMark, nodePort, ipvlan, snat } = filter;
  const main = hex(mainMark);
  const clear = hex(~ENI_MARK_MASK >>> 0);
  const fromPods = `iifgroup ${GROUP_BASE}-${GROUP_LAST}`; // By group and not by name: running pods keep theirs when the prefix setting changes.
  const blocks: string[][] = [];

  if (snat !== null) {
    blocks.push([
      "set local_cidrs {",
      "  type ipv4_addr",
      "  flags interval",
      ...(snat.localCidrs.length === 0
        ? []
        : [`  elements = { ${snat.localCidrs.map(printCidr4).join(", ")} }`]),
      "}",
    ]);
  }
  blocks.push(["counter spoofed {", "}"]);
  blocks.push(
    ...filter.enis.map((number) => [
      `chain eni${number} {`,
      `  meta mark set meta mark & ${clear}${number === 0 ? "" : ` | ${hex(number)}`}`,
      "}",
    ]),
  );
  blocks.push([
    "map eni_of_group {",
    "  type devgroup : verdict",
    `  elements = { ${filter.enis.map((number) => `${eniGroup(number)} : jump eni${number}`).join(", ")} }`,
    "}",
  ]);
  if (nodePort) {
    blocks.push([
      "# Before DNAT: what comes to the node's own address is answered by the primary ENI, whichever pod answers.",
      "chain entry {",
      "  type filter hook prerouting priority -150; policy accept;",
      `  iifname "${primaryLink}" fib daddr . iif type local ct mark set ct mark | ${main}`,
      `  ${fromPods} ct mark & ${main} == ${main} meta mark set meta mark | ${main}`,
      "}",
    ]);
  }
  blocks.push([
    "# After DNAT: the destination is the real one.",
    "chain leave {",
    "  type filter hook prerouting priority -90; policy accept;",
    // A connection that went back into its pod and left by its ENI is answered through the pod, with the other side's address.
    ...(ipvlan === null
      ? []
      : [`  iifgroup ${IPVLAN_GROUP_BASE}-${IPVLAN_GROUP_LAST} ct direction reply ct status snat accept`]),
    `  ${fromPods} meta nfproto ipv4 fib saddr . iif oif 0 counter name spoofed drop`,
    ...(snat === null
      ? []
      : [
          // Replies to clients outside that reached the pod itself leave as they came: original direction only (aws/amazon-vpc-cni-k8s#1392).
          `  ${fromPods} ct direction original ip daddr != @local_cidrs fib daddr type != local meta mark set meta mark | ${main}`,
        ]),
    `  ${fromPods} meta mark & ${main} == 0 iifgroup vmap @eni_of_group`,
    "}",
  ]);
  if (ipvlan !== null) {
    blocks.push([
      "# Back into its pod goes only what the pod sent: with the node's address, or the pod would take its own for a forged one.",
      "chain return_to_pod {",
      "  type nat hook postrouting priority srcnat; policy accept;",
      `  oifgroup ${IPVLAN_GROUP_BASE}-${IPVLAN_GROUP_LAST} rt ip nexthop ${POD_RETURN_TEXT} snat ip to ${ipvlan}`,
      "}",
    ]);
  }
  if (snat !== null) {
    const ports = { prng: " fully-random", hashrandom: " random", none: "" }[snat.ports];
    blocks.push([
      "chain source {",
      "  type nat hook postrouting priority srcnat; policy accept;",
      `  oifname "${primaryLink}" ip daddr != @local_cidrs fib saddr type != local snat ip to ${snat.to}${ports}`,
      "}",
    ]);
  }

  const table = `table inet ${PACKET_FILTER_TABLE}`;
  const body = blocks.map((lines) => lines.map((line) => `  ${line}`).join("\n")).join("\n\n");
  return `${table}\ndelete ${table}\n${table} {\n${body}\n}\n`;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
