/** What EC2 says now against what we believe: a list of differences, each a flat value. What to do about one is decided with time. */
import { cidr4Contains, printCidr4, type Cidr4, type Ipv4 } from "../../lib/ip.ts";
import type { EniSeen } from "../model/ec2.ts";
import type { AttachmentId, Eni, EniId, ForeignEni, SecurityGroupId } from "../model/eni.ts";
import type { NodeState } from "../state/node-state.ts";
import { detachable, ownerOf, type OwnerRules } from "./classify.ts";

export type Drift = { readonly key: string } /** On the instance and ours to manage, but unknown to us. */ & (
  | { readonly kind: "eni-unknown"; readonly seen: EniSeen }
  /** Its tags or its attachment's id are not what we believed: somebody changed them, or IMDS alone told us of it. */
  | {
      readonly kind: "owner-differs";
      readonly eni: EniId;
      readonly detachable: boolean;
      readonly attachmentId: AttachmentId;
    }
  /** It is in our care, and is another's by now: tagged no_manage, or known from IMDS alone until now. */
  | { readonly kind: "eni-foreign"; readonly eni: EniId; readonly reason: ForeignEni["reason"] }
  /** We believe it attached; EC2 does not list it here. */
  | { readonly kind: "eni-missing"; readonly eni: EniId }
  | { readonly kind: "address-unknown"; readonly eni: EniId; readonly ip: Ipv4 }
  | { readonly kind: "address-missing"; readonly eni: EniId; readonly ip: Ipv4; readonly believed: string }
  | { readonly kind: "prefix-unknown"; readonly eni: EniId; readonly prefix: Cidr4 }
  | {
      readonly kind: "prefix-missing";
      readonly eni: EniId;
      readonly prefix: Cidr4;
      readonly believed: string; // "leaving" when all of it is, "allocated" when a sandbox holds one of it; else "free".
    }
  /** The ENI would outlive its instance. */
  | { readonly kind: "outlives-instance"; readonly eni: EniId; readonly attachment: AttachmentId }
  /** Its security groups are not the primary ENI's (or the configured ones). */
  | { readonly kind: "groups-differ"; readonly eni: EniId; readonly wanted: readonly SecurityGroupId[] }
);

/** `seen` is every ENI that EC2 lists on this instance. `wantedGroups` are those that our secondary ENIs should have. */
export function findDrift(
  state: NodeState,
  seen: readonly EniSeen[],
  options: { readonly manageUntagged: boolean; readonly wantedGroups: readonly SecurityGroupId[] },
): Drift[] {
  const drifts: Drift[] = [];
  const rules = { manageUntagged: options.manageUntagged, limits: state.instance.limits };
  const listed = new Set(seen.map((each) => each.id));
  for (const each of seen) {
    const eni = state.enis.get(each.id);
    if (eni === undefined) {
      const status = each.attachment?.status;
      // EC2 gives an ENI's own address to another once it is deleted: the one that has its link here is the later one.
      const past = [...state.enis.values()].some(
        ({ primaryIp, phase }) => primaryIp === each.primaryIp && phase.kind === "ready",
      );
      const usable =
        !past && ownerOf(each, rules).kind === "ours" && (status === "attached" || status === "attaching");
      if (usable) drifts.push({ kind: "eni-unknown", key: `eni-unknown ${each.id}`, seen: each });
      continue;
    }
    drifts.push(...ownerDrift(state, eni, each, rules), ...addressDrift(eni, each));
    if (eni.role === "primary" || !detachable(each, state.instance.id)) continue;
    if (each.attachment?.deleteOnTermination === false) {
      drifts.push({
        kind: "outlives-instance",
        key: `outlives-instance ${each.id}`,
        eni: each.id,
        attachment: each.attachment.id,
      });
    }
    if (!sameGroups(each.securityGroups, options.wantedGroups)) {
      drifts.push({
        kind: "groups-differ",
        key: `groups-differ ${each.id}`,
        eni: each.id,
        wanted: options.wantedGroups,
      });
    }
  }
  for (const eni of state.enis.values()) {
    if (!listed.has(eni.id)) drifts.push({ kind: "eni-missing", key: `eni-missing ${eni.id}`, eni: eni.id });
  }
  return drifts;
}

function ownerDrift(state: NodeState, eni: Eni, seen: EniSeen, rules: OwnerRules): Drift[] {
  const drifts: Drift[] = [];
  if (seen.attachment === null) return [];
  const owner = ownerOf(seen, rules);
  if (owner.kind === "foreign") {
    drifts.push({ kind: "eni-foreign", key: `eni-foreign ${eni.id}`, eni: eni.id, reason: owner.reason });
  }
  const mine = eni.role === "secondary" && detachable(seen, state.instance.id);
  const attachmentId = seen.attachment.id;
  if (mine !== eni.detachable || attachmentId !== eni.attachmentId) {
    const key = `owner-differs ${eni.id}`;
    drifts.push({ kind: "owner-differs", key, eni: eni.id, detachable: mine, attachmentId });
  }
  return drifts;
}

function addressDrift(eni: Eni, seen: EniSeen): Drift[] {
  const drifts: Drift[] = [];
  const ips = new Set(seen.secondaryIps);
  for (const ip of ips) {
    if (!eni.addresses.has(ip))
      drifts.push({ kind: "address-unknown", key: `address-unknown ${ip} ${eni.id}`, eni: eni.id, ip });
  }
  for (const address of eni.addresses.values()) {
    if (address.by === "prefix" || ips.has(address.ip)) continue;
    const key = `address-missing ${address.ip} ${eni.id}`;
    drifts.push({ kind: "address-missing", key, eni: eni.id, ip: address.ip, believed: address.kind });
  }
  const known = new Set(eni.prefixes.map(printCidr4));
  const listed = new Set(seen.prefixes.map(printCidr4));
  for (const prefix of seen.prefixes) {
    const text = printCidr4(prefix);
    if (!known.has(text))
      drifts.push({ kind: "prefix-unknown", key: `prefix-unknown ${text} ${eni.id}`, eni: eni.id, prefix });
  }
  for (const prefix of eni.prefixes) {
    const text = printCidr4(prefix);
    if (listed.has(text)) continue;
    const key = `prefix-missing ${text} ${eni.id}`;
    drifts.push({ kind: "prefix-missing", key, eni: eni.id, prefix, believed: believedOf(eni, prefix) });
  }
  return drifts;
}

function believedOf(eni: Eni, prefix: Cidr4): string {
  const inside = [...eni.addresses.values()].filter((address) => cidr4Contains(prefix, address.ip));
  if (inside.some((address) => address.kind === "allocated")) return "allocated";
  return inside.every((address) => address.kind === "leaving") ? "leaving" : "free";
}

/** ENIs on the instance that are not ours to touch. They take up slots. */
export function foreignEnis(seen: readonly EniSeen[], rules: OwnerRules): ForeignEni[] {
  return seen.flatMap((each) => {
    const owner = ownerOf(each, rules);
    if (owner.kind === "ours" || each.attachment === null) return [];
    return [{ id: each.id, mac: each.mac, slot: each.attachment.slot, reason: owner.reason }];
  });
}

function sameGroups(left: readonly SecurityGroupId[], right: readonly SecurityGroupId[]): boolean {
  return left.length === right.length && left.every((group) => right.includes(group));
}
