/**
 * Start: four truths become one NodeState. EC2 says which ENIs and addresses there are, the checkpoint who got which, the kernel
 * what is plumbed, the runtime (libcni's cache, living namespaces) who is still there. An address is given out again only when
 * nothing speaks for its old owner; what nobody owns is listed for removal.
 */
import { addressesOfCidr4, type Cidr4, cidr4Contains, type Ipv4 } from "../../lib/ip.ts";
import { after, type Instant, instant, type WallTime } from "../../lib/time.ts";
import type { EniSeen } from "../model/ec2.ts";
import type { Eni, EniId, Mac, PoolAddress, SubnetId } from "../model/eni.ts";
import type { Instance, InstanceLimits } from "../model/instance.ts";
import { sandboxId, sandboxKeyOf, type NetnsRef, type SandboxId, type SandboxKey } from "../model/sandbox.ts";
import {
  eniNumber,
  hostLinkAlias,
  hostLinkName,
  isGroupOfEni,
  isIpvlanGroup,
  isOurGroup,
  PODS_TABLE,
  ROUTE_PROTOCOL,
  sandboxMac,
} from "../plumbing/names.ts";
import { ipvlanPathOf, type IpvlanPath } from "../plumbing/ipvlan.ts";
import type { HostSeen, LinkSeen } from "../plumbing/object.ts";
import type { DataPath } from "../plumbing/settings.ts";
import type { Allocation, EniCreation, LooseEni, NodeState } from "../state/node-state.ts";
import {
  addressReleased,
  addressesLeaving,
  allocationRecovered,
  callInDoubt,
  coolingRecovered,
  eniAttached,
  eniCreationBegan,
  foreignEnisSeen,
  LATE_CALL_MS,
  looseEniFound,
  nodeBegan,
  unassignDoubted,
} from "../state/transitions.ts";
import { DESCRIPTION_PREFIX } from "../model/eni-names.ts";
import { detachable, ownerOf } from "./classify.ts";
import { foreignEnis } from "./drift.ts";

/** What the checkpoint tells: our own truth, and how far to trust it. */
export type Remembered = {
  readonly instanceId?: string | null; // Whose record it is; null or absent in one that does not say.
  readonly sameBoot: boolean; // False: the machine has booted since; every namespace it speaks of is gone.
  readonly allocations: readonly Allocation[];
  readonly cooling: readonly { readonly eni: EniId; readonly ip: Ipv4; readonly until: Instant }[]; // Of this boot's clock.
  readonly leaving: readonly { readonly eni: EniId; readonly ips: readonly Ipv4[] }[];
  readonly loose: readonly LooseEni[];
  readonly creation: EniCreation | null;
};

/** A sandbox that libcni's cache lists, with its namespace where the path still leads to one. */
export type CachedSandbox = {
  readonly key: SandboxKey;
  readonly ips: readonly Ipv4[];
  readonly netns: NetnsRef | null;
};

export type Truths = {
  readonly instance: Instance;
  readonly enis: readonly EniSeen[];
  readonly subnetCidrs: ReadonlyMap<SubnetId, Cidr4>;
  readonly remembered: Remembered | null; // Null: no checkpoint, or one that cannot be trusted.
  readonly host: HostSeen;
  readonly cached: readonly CachedSandbox[];
  readonly netnsLives: (netns: NetnsRef) => boolean;
};

export type RecoverSettings = {
  readonly manageUntagged: boolean;
  readonly cooldownMs: number;
  readonly podMtu: number;
  readonly hostLinkPrefix: string;
  readonly dataPath?: DataPath; // Of new pods; routed when not given.
};

export type Recovered = {
  readonly state: NodeState;
  /** Sandboxes that the checkpoint does not know: they are written down before anything is plumbed for them. */
  readonly found: number;
  /** For the log: one line each, what was found and what was made of it. */
  readonly notes: readonly {
    readonly what: string;
    readonly sandbox?: SandboxId;
    readonly ip?: Ipv4;
    readonly eni?: EniId;
  }[];
};

export function recoverNode(
  truths: Truths,
  settings: RecoverSettings,
  now: Instant,
  wallNow: WallTime,
): Recovered {
  const notes: Recovered["notes"][number][] = [];
  const rules = { manageUntagged: settings.manageUntagged, limits: truths.instance.limits };
  let state = nodeBegan(truths.instance);
  const enis = withoutThePast(truths.enis, truths.host);
  for (const seen of enis) {
    // Somebody tagged it away from us while pods run on it: they keep what they have, and so it stays in our care until they end.
    const eni = bearsPods(seen, truths)
      ? eniAsSeen(seen, truths, now)
      : eniFromSeen(seen, truths, settings.manageUntagged, now);
    if (eni !== null) state = eniAttached(state, eni);
    else state = detachingFound(state, seen, now);
  }
  state = foreignEnisSeen(
    state,
    foreignEnis(enis, rules).filter(({ id }) => !state.enis.has(id)),
  );
  const remembered = ownRecord(truths.remembered, truths.instance);
  if (remembered !== truths.remembered)
    notes.push({ what: "the checkpoint is of another instance; it is not used" });
  const known = new Set(remembered?.allocations.map(({ id }) => id));
  const { alive, older } = everySandbox(
    truths,
    remembered,
    rebuiltAllocations(truths, state, settings, wallNow),
  );
  for (const allocation of alive) {
    state = allocationRecovered(state, allocation);
    const { id, ip } = allocation;
    const dead = remembered !== null && known.has(id) && isDead(allocation, remembered, truths);
    if (dead) {
      state = addressReleased(state, id, restFrom(remembered, settings, now));
      notes.push({ what: "sandbox is gone; address released", sandbox: id, ip });
    } else if (!known.has(id)) {
      notes.push({ what: "sandbox found that the checkpoint does not know; address kept", sandbox: id, ip });
    }
  }
  if (remembered !== null) state = restOfMemory(state, remembered, settings, now);
  if (older || (remembered === null && hadEarlierLife(truths)))
    state = allCooling(state, after(now, settings.cooldownMs));
  else if (remembered?.sameBoot !== true) state = allCooling(state, instant(settings.cooldownMs)); // Since the boot nobody had one.
  return { state, found: alive.filter(({ id }) => !known.has(id)).length, notes };
}

/**
 * A lagging view can hold an ENI that is deleted, or addresses that were taken from one. EC2 never moves an ENI's own address while the ENI
 * exists, so where two lay claim to one, the ENI whose link the kernel has is right.
 */
function withoutThePast(listed: readonly EniSeen[], { links }: HostSeen): readonly EniSeen[] {
  const macs = new Set(links.map(({ mac }) => mac));
  const standing = new Map(
    listed
      .filter(({ mac }) => macs.has(mac))
      .flatMap(({ id, primaryIp }) => (primaryIp === null ? [] : [[primaryIp, id]])),
  );
  const isPast = (id: EniId, ip: Ipv4): boolean => (standing.get(ip) ?? id) !== id;
  return listed
    .filter(({ id, primaryIp }) => primaryIp === null || !isPast(id, primaryIp))
    .map((seen) => ({
      ...seen,
      secondaryIps: seen.secondaryIps.filter((ip) => !isPast(seen.id, ip)),
      prefixes: seen.prefixes.filter((prefix) =>
        [...standing].every(([ip, id]) => id === seen.id || !cidr4Contains(prefix, ip)),
      ),
    }));
}

/** A link of ours is in the group of its slot. */
function bearsPods({ attachment }: EniSeen, { host, instance }: Truths): boolean {
  const number = attachment === null ? null : eniNumber(attachment.slot, instance.limits);
  return number !== null && host.links.some((link) => isOurs(link) && isGroupOfEni(link.group, number));
}

/** A node made from another's image has that one's checkpoint: its sandboxes are not here, and its loose ENIs not ours to delete. */
export function ownRecord(remembered: Remembered | null, instance: Pick<Instance, "id">): Remembered | null {
  const owner = remembered?.instanceId ?? null;
  return owner === null || owner === instance.id ? remembered : null;
}

/**
 * The checkpoint's sandboxes, and those that we see beside them: a checkpoint can be older than the truth (a disk that lied, a restore),
 * and a pod that runs must keep its address whatever the file says. Where both claim one address, the kernel's word is newer.
 * `older`: the kernel has what the checkpoint lacks, so it lacks releases too, and no address is known to have rested.
 */
function everySandbox(
  truths: Truths,
  remembered: Remembered | null,
  found: readonly Allocation[],
): { readonly alive: readonly Allocation[]; readonly older: boolean } {
  if (remembered === null) return { alive: found, older: false };
  const known = new Set(remembered.allocations.map(({ id }) => id));
  const links = new Set(truths.host.links.map(({ name }) => name));
  const unknown = found.filter(({ id }) => !known.has(id));
  const linked = unknown.filter(({ hostLink }) => links.has(hostLink));
  const claimed = new Set(linked.map(({ ip }) => ip));
  const kept = remembered.allocations.filter(({ ip }) => !claimed.has(ip));
  const held = new Set(kept.map(({ ip }) => ip));
  // Even a link without a route, or without a name, tells of a sandbox after the last line of the file.
  const aliases = new Set(remembered.allocations.map(({ id }) => hostLinkAlias(id)));
  const older = truths.host.links.some((link) => isOurs(link) && !aliases.has(link.alias ?? ""));
  return { alive: [...kept, ...unknown.filter(({ ip }) => !held.has(ip))], older };
}

/** Of a boot before, no packet is on its way any more that left before this one began. */
function restFrom(remembered: Remembered, settings: RecoverSettings, now: Instant): Instant {
  return remembered.sameBoot ? after(now, settings.cooldownMs) : instant(settings.cooldownMs);
}

/** We died between asking EC2 to detach it and writing that down: it is still to be deleted. */
function detachingFound(state: NodeState, seen: EniSeen, now: Instant): NodeState {
  const { id, attachment } = seen;
  if (attachment === null || (attachment.status !== "detaching" && attachment.status !== "detached"))
    return state;
  if (!detachable(seen, state.instance.id) || !seen.description.startsWith(DESCRIPTION_PREFIX)) return state;
  return looseEniFound(state, { id, attachmentId: attachment.id, since: now });
}

/** Null for an ENI that is not ours to manage, or not (or no longer) attached. */
export function eniFromSeen(
  seen: EniSeen,
  known: { readonly instance: Instance; readonly subnetCidrs: ReadonlyMap<SubnetId, Cidr4> },
  manageUntagged: boolean,
  now: Instant,
): Eni | null {
  const rules = { manageUntagged, limits: known.instance.limits };
  return ownerOf(seen, rules).kind === "foreign" ? null : eniAsSeen(seen, known, now);
}

function eniAsSeen(
  seen: EniSeen,
  known: { readonly instance: Instance; readonly subnetCidrs: ReadonlyMap<SubnetId, Cidr4> },
  now: Instant,
): Eni | null {
  const attachment = seen.attachment;
  const subnetCidr = known.subnetCidrs.get(seen.subnetId);
  if (attachment === null || attachment.status === "detaching" || attachment.status === "detached")
    return null;
  if (seen.primaryIp === null || subnetCidr === undefined) return null;
  const primary = seen.mac === known.instance.primaryMac;
  const warm = (ip: Ipv4, by: PoolAddress["by"]): [Ipv4, PoolAddress] => [ip, { ip, by, kind: "warm" }];
  const addresses = new Map([
    ...seen.secondaryIps.map((ip) => warm(ip, "secondary")),
    ...seen.prefixes.flatMap((prefix) => [...addressesOfCidr4(prefix)].map((ip) => warm(ip, "prefix"))),
  ]);
  return {
    id: seen.id,
    mac: seen.mac,
    role: primary ? "primary" : "secondary",
    slot: attachment.slot,
    attachmentId: attachment.id,
    subnetId: seen.subnetId,
    subnetCidr,
    securityGroups: seen.securityGroups,
    primaryIp: seen.primaryIp,
    detachable: !primary && detachable(seen, known.instance.id),
    phase: { kind: "awaiting-link", since: now },
    attachedAt: now,
    prefixes: seen.prefixes,
    addresses,
  };
}

/** Two truths must agree that a sandbox of the checkpoint is dead: its namespace is gone, and so is its link or its cache entry. */
function isDead(allocation: Allocation, remembered: Remembered, truths: Truths): boolean {
  if (!remembered.sameBoot) return true;
  if (truths.netnsLives(allocation.netns)) return false;
  const linked = truths.host.links.some((link) => link.name === allocation.hostLink);
  if (isUnknown(allocation.netns)) return !linked; // Its namespace says nothing, but a veth dies with either end.
  const cached = truths.cached.some((each) => sandboxId(each.key) === allocation.id);
  if (allocation.plumbedBy !== undefined) return !cached; // Its links are another plugin's.
  return !linked || !cached;
}

/**
 * Without a checkpoint: whoever has a link and a route of ours holds that address; whoever is in libcni's cache with a living
 * namespace does too, even when somebody removed the link.
 */
function rebuiltAllocations(
  truths: Truths,
  state: NodeState,
  settings: RecoverSettings,
  wallNow: WallTime,
): Allocation[] {
  const cached = new Map(truths.cached.map((each) => [sandboxId(each.key), each]));
  const found = new Map<SandboxId, Allocation>();
  const enis = [...state.enis.values()];
  const add = (key: SandboxKey, ip: Ipv4, netns: NetnsRef, plumbedFor: Home | null, path: DataPath): void => {
    const owner = enis.find((eni) => eni.addresses.has(ip)) ?? plumbedFor;
    if (owner === null || found.has(sandboxId(key))) return;
    if ([...found.values()].some((other) => other.ip === ip)) return; // A stale cache entry beside the link of today.
    const allocation = rebuilt(key, ip, netns, owner, settings, wallNow);
    const ipvlan = path === "ipvlan" ? { ipvlan: rebuiltPath(owner, ip, state) } : {};
    found.set(sandboxId(key), { ...allocation, ...ipvlan });
  };
  for (const link of truths.host.links.filter(isOurs)) {
    const key = sandboxKeyOf(link.alias ?? "");
    const route = truths.host.routes.find((each) => each.table === PODS_TABLE && each.link === link.name);
    if (key === null || route === undefined) continue;
    // EC2's view may be old. The link's group tells the ENI all the same, and a pod that runs must not lose its link.
    const plumbedFor = homeOf(link.group, enis, truths.instance.limits);
    add(
      key,
      route.destination.ip,
      cached.get(sandboxId(key))?.netns ?? UNKNOWN_NETNS,
      plumbedFor,
      isIpvlanGroup(link.group) ? "ipvlan" : "routed",
    );
  }
  for (const each of truths.cached) {
    const [ip] = each.ips;
    if (each.netns !== null && ip !== undefined)
      add(each.key, ip, each.netns, null, settings.dataPath ?? "routed"); // No link tells; so it gets what a new pod would.
  }
  return [...found.values()];
}

/**
 * Of an ENI that nobody lists we know neither MAC nor subnet. What the host holds for the pod does not depend on them, so the pod goes on;
 * only CHECK finds it different.
 */
function rebuiltPath(owner: Eni | Home, ip: Ipv4, { instance }: NodeState): IpvlanPath {
  if ("mac" in owner) return ipvlanPathOf(owner, instance);
  const unknown = { mac: "00:00:00:00:00:00" as Mac, subnetCidr: { network: ip, prefixLength: 32 } };
  return ipvlanPathOf(unknown, instance);
}

/** Where a sandbox's packets leave. */
type Home = Pick<Eni, "id" | "slot">;

/**
 * The ENI that a link's group names, also when nobody lists it: EC2 may not answer and IMDS be of some minutes ago, but the pod runs. Once it is
 * listed, the allocation moves to it.
 */
function homeOf(group: number, enis: readonly Eni[], limits: InstanceLimits): Home | null {
  const slot = slotOf(group, limits);
  if (slot === null) return null;
  const known = enis.find((eni) => eniNumber(eni.slot, limits) === eniNumber(slot, limits));
  return known ?? { id: UNKNOWN_ENI, slot };
}

const UNKNOWN_ENI = "eni-unknown" as EniId; // No id of EC2's has this form.

function slotOf(group: number, limits: InstanceLimits): Eni["slot"] | null {
  for (const [networkCard, { enis }] of limits.networkCards.entries()) {
    for (let deviceIndex = 0; deviceIndex < enis; deviceIndex += 1) {
      const number = eniNumber({ networkCard, deviceIndex }, limits);
      if (number !== null && isGroupOfEni(group, number)) return { networkCard, deviceIndex };
    }
  }
  return null;
}

/** Of a sandbox whose link we found, but neither checkpoint nor cache entry. It is dead once the link is. */
const UNKNOWN_NETNS: NetnsRef = { path: "", device: 0, inode: 0 };

/** Nobody ever told us the namespace: that it cannot be found proves nothing. */
export function isUnknown(netns: NetnsRef): boolean {
  return netns.path === "";
}

function rebuilt(
  key: SandboxKey,
  ip: Ipv4,
  netns: NetnsRef,
  eni: Home,
  settings: RecoverSettings,
  wallNow: WallTime,
): Allocation {
  const id = sandboxId(key);
  return {
    id,
    key,
    pod: null,
    netns,
    ip,
    eni: eni.id,
    eniSlot: eni.slot,
    hostLink: hostLinkName(settings.hostLinkPrefix, id),
    hostMac: sandboxMac("host", id),
    podMac: sandboxMac("pod", id),
    mtu: settings.podMtu,
    requestId: "",
    since: wallNow,
  };
}

function restOfMemory(
  state: NodeState,
  remembered: Remembered,
  settings: RecoverSettings,
  now: Instant,
): NodeState {
  let next = state;
  for (const { eni, ip, until } of remembered.cooling) {
    next = coolingRecovered(next, eni, ip, remembered.sameBoot ? until : restFrom(remembered, settings, now));
  }
  for (const { eni, ips } of remembered.leaving) {
    const of = next.enis.get(eni)?.addresses;
    const still = ips.filter((ip) => of?.get(ip)?.kind === "warm" || of?.get(ip)?.kind === "cooling");
    if (next.enis.has(eni)) next = addressesLeaving(next, eni, still);
    next = unassignDoubted(next, eni, ips, after(now, LATE_CALL_MS)); // EC2 may have been asked, and the answer died with us.
  }
  for (const loose of remembered.loose) {
    if (next.enis.has(loose.id)) continue;
    next = looseEniFound(next, { ...loose, since: remembered.sameBoot ? loose.since : now }); // Each boot has its own clock.
  }
  if (remembered.creation !== null) {
    next = callInDoubt(eniCreationBegan(next, remembered.creation), {
      operation: "CreateNetworkInterface",
      eni: null,
      since: now,
    });
  }
  return next;
}

/** In this boot, as far as traces tell. */
function hadEarlierLife({ cached, host }: Truths): boolean {
  const ofOurs = ({ protocol }: { readonly protocol: number }): boolean => protocol === ROUTE_PROTOCOL;
  return cached.length > 0 || host.links.some(isOurs) || host.rules.some(ofOurs) || host.routes.some(ofOurs);
}

/** Who used which address of late is not known, so all rest. */
function allCooling(state: NodeState, until: Instant): NodeState {
  let next = state;
  for (const eni of state.enis.values()) {
    for (const ip of eni.addresses.keys()) next = coolingRecovered(next, eni.id, ip, until);
  }
  return next;
}

/** A veth in one of our groups; one without alias was left by a crash between its creation and its naming. */
function isOurs(link: LinkSeen): boolean {
  return link.kind === "veth" && isOurGroup(link.group);
}
