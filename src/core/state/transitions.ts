/**
 * The only makers of a new NodeState. Each is named for what has happened, takes the state as it was, and asserts what its
 * caller promised: a broken promise ends the process before it can be written down.
 */
import { assert } from "../../lib/assert.ts";
import { addressesOfCidr4, cidr4Contains, printCidr4, type Cidr4, type Ipv4 } from "../../lib/ip.ts";
import type { Instant } from "../../lib/time.ts";
import type { AttachmentId, Eni, EniId, ForeignEni, PoolAddress, SecurityGroupId } from "../model/eni.ts";
import type { Instance } from "../model/instance.ts";
import type { SandboxId } from "../model/sandbox.ts";
import type { Allocation, EniCreation, InDoubt, LooseEni, NodeState, Obstacle } from "./node-state.ts";

/** A node that knows its instance and nothing else yet. */
export function nodeBegan(instance: Instance): NodeState {
  return {
    instance,
    enis: new Map(),
    foreign: [],
    loose: new Map(),
    allocations: new Map(),
    resting: new Map(),
    creation: null,
    inDoubt: null,
    obstacles: [],
    waiting: 0,
    schedulable: true,
  };
}

// --- Sandboxes and their addresses -------------------------------------------------------------------------------------

/** A sandbox holds an address now. The address was warm, or has cooled down by `now`. */
export function addressAllocated(state: NodeState, allocation: Allocation, now: Instant): NodeState {
  const address = addressOf(state, allocation.eni, allocation.ip);
  const free = address.kind === "warm" || (address.kind === "cooling" && address.until <= now);
  assert(free, `${allocation.ip} is ${address.kind}, and was given to ${allocation.id}`);
  assert(!state.allocations.has(allocation.id), `${allocation.id} has an address already`);
  const next = withAddress(state, allocation.eni, {
    ip: address.ip,
    by: address.by,
    kind: "allocated",
    sandbox: allocation.id,
  });
  return { ...next, allocations: withEntry(state.allocations, allocation.id, allocation) };
}

/** The sandbox is gone; its address rests until `until`, since packets for it may still be on their way. */
export function addressReleased(state: NodeState, id: SandboxId, until: Instant): NodeState {
  const allocation = state.allocations.get(id);
  assert(allocation !== undefined, `${id} has no address to release`);
  const next = { ...state, allocations: withoutEntry(state.allocations, id) };
  const eni = state.enis.get(allocation.eni);
  const address = eni?.addresses.get(allocation.ip);
  if (address === undefined) return withRest(next, allocation.eni, allocation.ip, until); // EC2 took the address, or its ENI, away while the pod still ran.
  assert(address.kind === "allocated" && address.sandbox === id, `${allocation.ip} is not held by ${id}`);
  return withAddress(next, allocation.eni, { ip: address.ip, by: address.by, kind: "cooling", until });
}

/**
 * A sandbox found at start (in the checkpoint, in libcni's cache or in the kernel) holds its address, whatever we thought of it.
 * The address may be one that EC2 does not list: the allocation is kept all the same, so that nobody else is given it. EC2 may also
 * have it on another ENI by now: the allocation follows it, and so do the pod's packets.
 */
export function allocationRecovered(state: NodeState, allocation: Allocation): NodeState {
  const eni = [...state.enis.values()].find(({ addresses }) => addresses.has(allocation.ip));
  const settled = eni === undefined ? allocation : movedTo(eni, allocation);
  const next = { ...state, allocations: withEntry(state.allocations, allocation.id, settled) };
  const address = eni?.addresses.get(allocation.ip);
  if (address === undefined) return next;
  assert(
    address.kind !== "allocated" || address.sandbox === allocation.id,
    `${allocation.ip} is held by two sandboxes`,
  );
  return withAddress(next, settled.eni, {
    ip: address.ip,
    by: address.by,
    kind: "allocated",
    sandbox: allocation.id,
  });
}

/** At start: an address rests on, from the checkpoint's deadline. */
export function coolingRecovered(state: NodeState, eni: EniId, ip: Ipv4, until: Instant): NodeState {
  const address = state.enis.get(eni)?.addresses.get(ip);
  if (address === undefined) return withRest(state, eni, ip, until);
  if (address.kind !== "warm") return state;
  return withAddress(state, eni, { ip, by: address.by, kind: "cooling", until });
}

// --- EC2's addresses and prefixes --------------------------------------------------------------------------------------

/**
 * EC2 has put these on the ENI. Known ones, and the ENI's own address, are left as they are (LocalStack lists all it has).
 * An address is on one ENI: this is the latest news, so another ENI that we believed to have it has lost it. What is put on an ENI
 * that is leaving goes with it, and is not taken up.
 */
export function addressesAssigned(state: NodeState, id: EniId, ips: readonly Ipv4[]): NodeState {
  const eni = eniOf(state, id);
  if (eni.phase.kind === "leaving") return withoutAddresses(state, id, ips);
  return withNewAddresses(state, eni, ips, "secondary");
}

export function prefixesAssigned(state: NodeState, id: EniId, prefixes: readonly Cidr4[]): NodeState {
  const eni = eniOf(state, id);
  const known = new Set(eni.prefixes.map(printCidr4));
  const own = [...state.enis.values()].filter((each) => each.id === id || !lacksLink(each));
  const added = prefixes.filter(
    (prefix) =>
      !known.has(printCidr4(prefix)) && !own.some(({ primaryIp }) => cidr4Contains(prefix, primaryIp)),
  );
  const ips = added.flatMap((prefix) => [...addressesOfCidr4(prefix)]);
  // One of them may be ours by itself, as we believe: EC2 took it without our knowing, and has now given it back as part of a prefix.
  const addresses = new Map(eni.addresses);
  for (const ip of ips) {
    const address = addresses.get(ip);
    if (address !== undefined) addresses.set(ip, { ...address, by: "prefix" });
  }
  if (eni.phase.kind === "leaving") return withoutAddresses(state, id, ips);
  return withNewAddresses(state, { ...eni, addresses, prefixes: [...eni.prefixes, ...added] }, ips, "prefix");
}

/** Chosen for going back to EC2: no sandbox can be given them any more. Said before the call is made, and again before a repeat. */
export function addressesLeaving(state: NodeState, id: EniId, ips: readonly Ipv4[]): NodeState {
  return withAddresses(state, id, ips, (address) => {
    assert(address.kind !== "allocated", `${address.ip} is held by a sandbox and cannot leave`);
    return { ip: address.ip, by: address.by, kind: "leaving" };
  });
}

/** EC2 refused to take them: they may be given out again. */
export function addressesStayed(state: NodeState, id: EniId, ips: readonly Ipv4[]): NodeState {
  return withAddresses(state, id, ips, (address) => {
    return address.kind === "leaving" ? { ip: address.ip, by: address.by, kind: "warm" } : address;
  });
}

/** How late a call without an answer may still be done. */
export const LATE_CALL_MS = 60_000;

/**
 * EC2 was asked to take them and did not answer. It may do so late: were one of them taken, assigned to us again, and in a pod by then, that pod
 * would lose it. So whatever comes back of them rests until `until`.
 */
export function unassignDoubted(
  state: NodeState,
  id: EniId,
  ips: readonly Ipv4[],
  until: Instant,
): NodeState {
  return ips.reduce((next, ip) => withRest(next, id, ip, until), state);
}

/** EC2 has taken them, or does not list them any more. An allocation of one of them stays on record: its pod may still run. */
export function addressesGone(state: NodeState, id: EniId, ips: readonly Ipv4[]): NodeState {
  const eni = eniOf(state, id);
  const addresses = new Map(eni.addresses);
  let next = state;
  for (const ip of ips) {
    const address = addresses.get(ip);
    if (address?.kind === "cooling") next = withRest(next, id, ip, address.until); // EC2's view may be old: it may come back.
    addresses.delete(ip);
  }
  return withEni(next, { ...eni, addresses });
}

export function prefixesLeaving(state: NodeState, id: EniId, prefixes: readonly Cidr4[]): NodeState {
  return addressesLeaving(state, id, addressesWithin(eniOf(state, id), prefixes));
}

export function prefixesStayed(state: NodeState, id: EniId, prefixes: readonly Cidr4[]): NodeState {
  return addressesStayed(state, id, addressesWithin(eniOf(state, id), prefixes));
}

export function prefixesGone(state: NodeState, id: EniId, prefixes: readonly Cidr4[]): NodeState {
  const next = addressesGone(state, id, addressesWithin(eniOf(state, id), prefixes));
  const eni = eniOf(next, id);
  const gone = new Set(prefixes.map(printCidr4));
  return withEni(next, { ...eni, prefixes: eni.prefixes.filter((prefix) => !gone.has(printCidr4(prefix))) });
}

// --- ENIs --------------------------------------------------------------------------------------------------------------

/** Saved before CreateNetworkInterface is sent, so that the ENI is found whatever becomes of the answer. */
export function eniCreationBegan(state: NodeState, creation: EniCreation): NodeState {
  assert(state.creation === null, "one ENI is created at a time");
  return { ...state, creation };
}

/** EC2 answered: the ENI exists and hangs on nothing yet. */
export function eniCreated(state: NodeState, loose: LooseEni): NodeState {
  return { ...state, creation: null, loose: withEntry(state.loose, loose.id, loose) };
}

/** EC2 refused, or it is known that nothing came of it. */
export function eniCreationFailed(state: NodeState): NodeState {
  return { ...state, creation: null };
}

/** An ENI of ours is on this instance. Its addresses are in it already; they are given out once its link is up. */
export function eniAttached(state: NodeState, eni: Eni): NodeState {
  assert(!state.enis.has(eni.id), `${eni.id} is attached already`);
  const loose = withoutEntry(state.loose, eni.id);
  const empty = { ...eni, addresses: new Map(), prefixes: [] };
  const single = [...eni.addresses.values()].filter(({ by }) => by === "secondary").map(({ ip }) => ip);
  // Its own address may have been a pool address of another ENI until now, by what we knew, or another one's own.
  const alone = withoutFormerOwners({ ...state, loose }, [eni.primaryIp], ({ role }) => role === "secondary");
  const known = withoutAddresses(alone, eni.id, [eni.primaryIp]);
  return prefixesAssigned(withNewAddresses(known, empty, single, "secondary"), eni.id, eni.prefixes);
}

/** Its link is there and plumbed. */
export function eniReady(state: NodeState, id: EniId): NodeState {
  return withEni(state, { ...eniOf(state, id), phase: { kind: "ready" } });
}

/** Its link has gone while EC2 still calls it attached. Its addresses wait for the link to come back. */
export function eniLinkLost(state: NodeState, id: EniId, since: Instant): NodeState {
  return withEni(state, { ...eniOf(state, id), phase: { kind: "awaiting-link", since } });
}

/**
 * Chosen for detaching: no sandbox can be given an address of it any more. Said before the call is made, and again before a repeat.
 * Its addresses leave with it: that is what the checkpoint remembers, should the answer never come.
 */
export function eniLeaving(state: NodeState, id: EniId, since: Instant): NodeState {
  const eni = eniOf(state, id);
  assert(eni.role === "secondary" && eni.detachable, `${id} is not ours to detach`);
  const next = addressesLeaving(state, id, [...eni.addresses.keys()]);
  return withEni(next, { ...eniOf(next, id), phase: { kind: "leaving", since } });
}

/** EC2 refused to detach it: it and its addresses may be used again. */
export function eniStayed(state: NodeState, id: EniId): NodeState {
  const next = addressesStayed(state, id, [...eniOf(state, id).addresses.keys()]);
  return withEni(next, { ...eniOf(next, id), phase: { kind: "ready" } });
}

/** EC2 is taking it off this instance, or has; it is to be deleted, and until then it is ours. */
export function eniDetached(
  state: NodeState,
  id: EniId,
  attachmentId: AttachmentId | null,
  since: Instant,
): NodeState {
  const next = { ...state, enis: withoutEntry(state.enis, id) };
  return { ...next, loose: withEntry(next.loose, id, { id, attachmentId, since }) };
}

/** A loose ENI was found that we did not know: ours by its tags. */
export function looseEniFound(state: NodeState, loose: LooseEni): NodeState {
  return { ...state, loose: withEntry(state.loose, loose.id, loose) };
}

/** EC2 has deleted it, or does not know it. */
export function eniDeleted(state: NodeState, id: EniId): NodeState {
  return { ...state, loose: withoutEntry(state.loose, id), enis: withoutEntry(state.enis, id) };
}

/** What EC2 says of its tags and its attachment: whether we may detach it, and by which id. IMDS knows neither. */
export function eniOwnerSeen(
  state: NodeState,
  id: EniId,
  owner: { readonly detachable: boolean; readonly attachmentId: AttachmentId },
): NodeState {
  return withEni(state, { ...eniOf(state, id), ...owner });
}

export function eniGroupsChanged(
  state: NodeState,
  id: EniId,
  securityGroups: readonly SecurityGroupId[],
): NodeState {
  return withEni(state, { ...eniOf(state, id), securityGroups });
}

export function foreignEnisSeen(state: NodeState, foreign: readonly ForeignEni[]): NodeState {
  return { ...state, foreign };
}

// --- What stands in the way, and what is not known ---------------------------------------------------------------------

/** Replaces an obstacle of the same kind and object. */
export function obstacleMet(state: NodeState, obstacle: Obstacle): NodeState {
  const others = state.obstacles.filter((each) => obstacleKey(each) !== obstacleKey(obstacle));
  return { ...state, obstacles: [...others, obstacle] };
}

/** What a successful `operation` proves: nothing stands in its way. Others stay, for their count of attempts; they are over at `until`. */
export function obstaclesCleared(state: NodeState, operation: string): NodeState {
  const left = state.obstacles.filter((each) => !("operation" in each && each.operation === operation));
  return left.length === state.obstacles.length ? state : { ...state, obstacles: left };
}

export function callInDoubt(state: NodeState, inDoubt: InDoubt): NodeState {
  return { ...state, inDoubt };
}

/** EC2 was observed since: what we believe is what it said. */
export function doubtResolved(state: NodeState): NodeState {
  return { ...state, inDoubt: null };
}

export function waitingChanged(state: NodeState, waiting: number): NodeState {
  assert(waiting >= 0, "fewer than no ADDs are waiting");
  return { ...state, waiting };
}

export function schedulableChanged(state: NodeState, schedulable: boolean): NodeState {
  return { ...state, schedulable };
}

export function instanceChanged(state: NodeState, instance: Instance): NodeState {
  return { ...state, instance };
}

// --- Helpers -----------------------------------------------------------------------------------------------------------

function eniOf(state: NodeState, id: EniId): Eni {
  const eni = state.enis.get(id);
  assert(eni !== undefined, `${id} is not on this instance`);
  return eni;
}

function addressOf(state: NodeState, id: EniId, ip: Ipv4): PoolAddress {
  const address = eniOf(state, id).addresses.get(ip);
  assert(address !== undefined, `${ip} is not on ${id}`);
  return address;
}

/**
 * EC2 never moves an ENI's own address while the ENI exists: one that had an address which is another's now is gone, and a lagging view showed
 * it to us. It goes the way of what is to be deleted, for should it exist after all, it is leaked. Allocations stay on record: their pods may
 * still run.
 */
function withoutFormerOwners(
  state: NodeState,
  ips: readonly Ipv4[],
  isFormer: (eni: Eni) => boolean,
): NodeState {
  const claimed = new Set(ips);
  const former = [...state.enis.values()].filter((eni) => claimed.has(eni.primaryIp) && isFormer(eni));
  return former.reduce((next, { id, detachable, phase, attachmentId, attachedAt }) => {
    const emptied = addressesGone(next, id, [...eniOf(next, id).addresses.keys()]);
    if (!detachable) return { ...emptied, enis: withoutEntry(emptied.enis, id) };
    return eniDetached(emptied, id, attachmentId, phase.kind === "ready" ? attachedAt : phase.since);
  }, state);
}

/** The others stand by the kernel's word: whoever lists their own address for another ENI has an older view, or draws twice as LocalStack does. */
const lacksLink = (eni: Eni): boolean => eni.role === "secondary" && eni.phase.kind !== "ready";

/** The ENI as given, with these addresses beside those it has. `ips` that it has already, or that are an ENI's own, change nothing. */
function withNewAddresses(
  state: NodeState,
  eni: Eni,
  ips: readonly Ipv4[],
  by: PoolAddress["by"],
): NodeState {
  const known = withoutFormerOwners(state, ips, (each) => each.id !== eni.id && lacksLink(each));
  const own = new Set([eni, ...known.enis.values()].map(({ primaryIp }) => primaryIp));
  const added = ips.filter((ip) => !own.has(ip) && !eni.addresses.has(ip));
  if (added.length === 0) return withEni(known, eni);
  const holders = new Map([...known.allocations.values()].map((each) => [each.ip, each]));
  const addresses = new Map(eni.addresses);
  const allocations = new Map(known.allocations);
  for (const ip of added) {
    // Warm, unless a sandbox holds it already: EC2's view can lag behind the checkpoint's. Rest goes on wherever the address is.
    const holder = holders.get(ip);
    const before = [...known.enis.values()].find((each) => each.addresses.has(ip))?.addresses.get(ip);
    if (holder !== undefined) {
      addresses.set(ip, { ip, by, kind: "allocated", sandbox: holder.id });
      allocations.set(holder.id, movedTo(eni, holder));
      continue;
    }
    const until = before?.kind === "cooling" ? before.until : known.resting.get(ip)?.until;
    addresses.set(ip, until === undefined ? { ip, by, kind: "warm" } : { ip, by, kind: "cooling", until });
  }
  const rest = { ...withoutAddresses(known, eni.id, added), allocations };
  return withEni({ ...rest, resting: withoutEntries(rest.resting, added) }, { ...eni, addresses });
}

/** Other ENIs than `keeper` lose these addresses, and the prefixes that they are part of. */
function withoutAddresses(state: NodeState, keeper: EniId, ips: readonly Ipv4[]): NodeState {
  let next = state;
  for (const eni of state.enis.values()) {
    if (eni.id === keeper) continue;
    const lost = ips.filter((ip) => eni.addresses.has(ip));
    if (lost.length === 0) continue;
    const prefixes = eni.prefixes.filter((prefix) => lost.some((ip) => cidr4Contains(prefix, ip)));
    next = addressesGone(prefixesGone(next, eni.id, prefixes), eni.id, lost);
  }
  return next;
}

/** Bounded: what is forgotten first was released first, and has rested longest. */
const RESTING_MAX = 1_024;

function withRest(state: NodeState, eni: EniId, ip: Ipv4, until: Instant): NodeState {
  const resting = new Map(state.resting);
  resting.delete(ip);
  resting.set(ip, { eni, until });
  const oldest = resting.size > RESTING_MAX ? resting.keys().next().value : undefined;
  if (oldest !== undefined) resting.delete(oldest);
  return { ...state, resting };
}

function movedTo(eni: Eni, allocation: Allocation): Allocation {
  return allocation.eni === eni.id ? allocation : { ...allocation, eni: eni.id, eniSlot: eni.slot };
}

function addressesWithin(eni: Eni, prefixes: readonly Cidr4[]): Ipv4[] {
  return [...eni.addresses.keys()].filter((ip) => prefixes.some((prefix) => cidr4Contains(prefix, ip)));
}

function withAddress(state: NodeState, id: EniId, address: PoolAddress): NodeState {
  const eni = eniOf(state, id);
  return withEni(state, { ...eni, addresses: withEntry(eni.addresses, address.ip, address) });
}

function withAddresses(
  state: NodeState,
  id: EniId,
  ips: readonly Ipv4[],
  change: (address: PoolAddress) => PoolAddress,
): NodeState {
  const eni = eniOf(state, id);
  const addresses = new Map(eni.addresses);
  for (const ip of ips) {
    const address = addresses.get(ip);
    if (address !== undefined) addresses.set(ip, change(address));
  }
  return withEni(state, { ...eni, addresses });
}

function withEni(state: NodeState, eni: Eni): NodeState {
  return { ...state, enis: withEntry(state.enis, eni.id, eni) };
}

function withEntry<K, V>(map: ReadonlyMap<K, V>, key: K, value: V): ReadonlyMap<K, V> {
  return new Map(map).set(key, value);
}

function withoutEntry<K, V>(map: ReadonlyMap<K, V>, key: K): ReadonlyMap<K, V> {
  if (!map.has(key)) return map;
  const next = new Map(map);
  next.delete(key);
  return next;
}

function withoutEntries<K, V>(map: ReadonlyMap<K, V>, keys: readonly K[]): ReadonlyMap<K, V> {
  return keys.some((key) => map.has(key)) ? new Map([...map].filter(([key]) => !keys.includes(key))) : map;
}

function obstacleKey(obstacle: Obstacle): string {
  return "subnetId" in obstacle
    ? `${obstacle.kind} ${obstacle.subnetId}`
    : `${obstacle.kind} ${obstacle.operation}`;
}
