/**
 * Everything that the pretend account owns, as one immutable value: VPCs, subnets, security groups, ENIs, instances. Each transition makes
 * a new world and asserts what must hold of it. It refuses nothing politely: whether a caller may do something is decided in operations/.
 */
import { assert } from "../lib/assert.ts";
import { type Cidr4, type Ipv4, networkOf } from "../lib/ip.ts";
import type { WallTime } from "../lib/time.ts";
import { type InstanceType, instanceTypes } from "./instance-types.ts";
import {
  type Addresses,
  emptySpace,
  giveBack,
  offsetOf,
  PREFIX_LENGTH,
  type SubnetSpace,
  take,
} from "./subnet-space.ts";

export type Tags = Readonly<Record<string, string>>;

export type Vpc = {
  readonly serial: number;
  readonly id: string;
  readonly cidrs: readonly Cidr4[];
  readonly tags: Tags;
};

export type Subnet = {
  readonly serial: number;
  readonly id: string;
  readonly vpcId: string;
  readonly availabilityZone: string;
  readonly space: SubnetSpace;
  readonly reservations: readonly CidrReservation[];
  readonly tags: Tags;
};

export type CidrReservation = {
  readonly id: string;
  readonly cidr: Cidr4;
  readonly type: "prefix" | "explicit";
  readonly description: string;
};

export type SecurityGroup = {
  readonly serial: number;
  readonly id: string;
  readonly vpcId: string;
  readonly name: string;
  readonly description: string;
  readonly tags: Tags;
};

export type Attachment = {
  readonly id: string;
  readonly instanceId: string;
  readonly deviceIndex: number;
  readonly networkCardIndex: number;
  readonly status: "attaching" | "attached" | "detaching";
  readonly deleteOnTermination: boolean;
  readonly attachedAt: WallTime;
};

export type Eni = {
  readonly serial: number;
  readonly id: string;
  readonly subnetId: string;
  readonly description: string;
  readonly interfaceType: "interface" | "efa" | "efa-only" | "trunk" | "branch";
  readonly mac: string;
  readonly groupIds: readonly string[];
  readonly primary: Ipv4;
  readonly secondaries: readonly Ipv4[];
  /** First addresses of /28 blocks. */
  readonly prefixes: readonly Ipv4[];
  readonly status: "pending" | "available" | "in-use";
  readonly attachment: Attachment | null;
  readonly sourceDestCheck: boolean;
  /** The AWS service that owns it; such an ENI may be looked at but not managed by us. */
  readonly managedBy: string | null;
  readonly tags: Tags;
};

export type InstanceState = "pending" | "running" | "shutting-down" | "terminated" | "stopping" | "stopped";

export type Instance = {
  readonly serial: number;
  readonly id: string;
  readonly type: InstanceType;
  readonly state: InstanceState;
  readonly subnetId: string;
  readonly imageId: string;
  readonly launchedAt: WallTime;
  /** Name of the instance role whose credentials IMDS serves; null when there is none. */
  readonly role: string | null;
  readonly tags: Tags;
};

/** What an idempotent call answered, by action and client token. */
export type RememberedCall = { readonly fingerprint: string; readonly answer: unknown };

export type World = {
  readonly accountId: string;
  readonly region: string;
  /** Grows with each id made, so that deleted ids never return. */
  readonly serial: number;
  /** Makes the ids of two seeds differ. */
  readonly salt: number;
  readonly vpcs: ReadonlyMap<string, Vpc>;
  readonly subnets: ReadonlyMap<string, Subnet>;
  readonly groups: ReadonlyMap<string, SecurityGroup>;
  readonly enis: ReadonlyMap<string, Eni>;
  readonly instances: ReadonlyMap<string, Instance>;
  readonly remembered: ReadonlyMap<string, RememberedCall>;
};

const REMEMBERED_COUNT_MAX = 2_000;

export function emptyWorld(options: { accountId: string; region: string; salt: number }): World {
  const none = new Map<never, never>();
  return {
    ...options,
    serial: 0,
    vpcs: none,
    subnets: none,
    groups: none,
    enis: none,
    instances: none,
    remembered: none,
  };
}

/** A fresh id such as `eni-0f3c...`, 17 hex digits as EC2's, and the world in which it is spent. */
export function newId(world: World, kind: string): [World, string] {
  const serial = world.serial + 1;
  // Both halves are one-to-one in the serial, so no id comes twice.
  const high = mix32(serial ^ world.salt);
  const low = mix32(Math.imul(serial, 0x9e37_79b1) ^ Math.imul(world.salt, 0x85eb_ca6b));
  return [{ ...world, serial }, `${kind}-0${hex8(high)}${hex8(low)}`];
}

/** A locally administered unicast MAC, like EC2's. */
export function macOf(world: World, serial: number): string {
  const hex = hex8(mix32(serial ^ Math.imul(world.salt, 0xc2b2_ae35)));
  return [
    "0a",
    hex8(world.salt).slice(0, 2),
    hex.slice(0, 2),
    hex.slice(2, 4),
    hex.slice(4, 6),
    hex.slice(6, 8),
  ].join(":");
}

// ---- readers ----

export function attachmentsOf(
  world: World,
  instanceId: string,
): readonly (Eni & { readonly attachment: Attachment })[] {
  const found: (Eni & { readonly attachment: Attachment })[] = [];
  for (const eni of world.enis.values()) {
    if (eni.attachment?.instanceId === instanceId) found.push({ ...eni, attachment: eni.attachment });
  }
  return found.sort(
    (left, right) =>
      left.attachment.networkCardIndex - right.attachment.networkCardIndex ||
      left.attachment.deviceIndex - right.attachment.deviceIndex,
  );
}

export function eniOfAttachment(world: World, attachmentId: string): Eni | null {
  for (const eni of world.enis.values()) if (eni.attachment?.id === attachmentId) return eni;
  return null;
}

/** The ENI that has `ip`, itself or inside a prefix, in that subnet. */
export function ownerOf(world: World, subnetId: string, ip: Ipv4): Eni | null {
  const block = networkOf(ip, PREFIX_LENGTH);
  for (const eni of world.enis.values()) {
    if (eni.subnetId !== subnetId) continue;
    if (eni.primary === ip || eni.secondaries.includes(ip) || eni.prefixes.includes(block)) return eni;
  }
  return null;
}

/** Address slots in use: one an address, one a prefix. */
export function slotsUsed(eni: Eni): number {
  return 1 + eni.secondaries.length + eni.prefixes.length;
}

export function subnetOf(world: World, subnetId: string): Subnet {
  return known(world.subnets.get(subnetId), subnetId);
}

// ---- transitions ----

export function vpcCreated(world: World, vpc: Omit<Vpc, "serial">): World {
  return { ...world, vpcs: added(world.vpcs, { ...vpc, serial: world.serial }) };
}

/** The VPC gained or lost CIDR blocks; its first one stays. */
export function vpcCidrsChanged(world: World, id: string, cidrs: readonly Cidr4[]): World {
  const vpc = world.vpcs.get(id);
  assert(vpc !== undefined, `${id} is known`);
  return { ...world, vpcs: new Map(world.vpcs).set(id, { ...vpc, cidrs }) };
}

export function subnetCreated(
  world: World,
  subnet: {
    readonly id: string;
    readonly vpcId: string;
    readonly availabilityZone: string;
    readonly cidr: Cidr4;
    readonly tags: Tags;
  },
): World {
  const { cidr, ...rest } = subnet;
  return {
    ...world,
    subnets: added(world.subnets, {
      ...rest,
      serial: world.serial,
      space: emptySpace(cidr),
      reservations: [],
    }),
  };
}

export function groupCreated(world: World, group: Omit<SecurityGroup, "serial">): World {
  return { ...world, groups: added(world.groups, { ...group, serial: world.serial }) };
}

/** An empty subnet goes. */
export function subnetDeleted(world: World, subnetId: string): World {
  for (const eni of world.enis.values()) assert(eni.subnetId !== subnetId, "a deleted subnet holds no ENI");
  const subnets = new Map(world.subnets);
  subnets.delete(subnetId);
  return { ...world, subnets };
}

/** A group that no ENI has goes. */
export function groupDeleted(world: World, groupId: string): World {
  for (const eni of world.enis.values())
    assert(!eni.groupIds.includes(groupId), "a deleted group is on no ENI");
  const groups = new Map(world.groups);
  groups.delete(groupId);
  return { ...world, groups };
}

export function reservationsChanged(
  world: World,
  subnetId: string,
  reservations: readonly CidrReservation[],
): World {
  const subnet = subnetOf(world, subnetId);
  const blocksOf = (type: CidrReservation["type"]): ReadonlySet<number> => {
    const blocks = new Set<number>();
    for (const { cidr } of reservations.filter((reservation) => reservation.type === type)) {
      const first = offsetOf(subnet.space, cidr.network);
      for (let offset = first; offset < first + 2 ** (32 - cidr.prefixLength); offset += 1)
        blocks.add(offset >> 4);
    }
    return blocks;
  };
  const space = { ...subnet.space, prefixOnly: blocksOf("prefix"), explicitOnly: blocksOf("explicit") };
  return withSubnet(world, { ...subnet, reservations, space });
}

export function instanceLaunched(world: World, instance: Omit<Instance, "serial">): World {
  return { ...world, instances: added(world.instances, { ...instance, serial: world.serial }) };
}

export function instanceStateChanged(world: World, instanceId: string, state: InstanceState): World {
  const instance = known(world.instances.get(instanceId), instanceId);
  return { ...world, instances: new Map(world.instances).set(instanceId, { ...instance, state }) };
}

/** The last of an instance: it is `terminated`, its DeleteOnTermination ENIs are deleted, the others are `available`. */
export function instanceTerminated(world: World, instanceId: string): World {
  let next = instanceStateChanged(world, instanceId, "terminated");
  for (const eni of attachmentsOf(world, instanceId)) {
    next = eniDetached(next, eni.id);
    if (eni.attachment.deleteOnTermination) next = eniDeleted(next, eni.id);
  }
  return next;
}

/** A new ENI, unattached. Its addresses are taken from its subnet. */
export function eniCreated(
  world: World,
  eni: Omit<Eni, "serial" | "attachment" | "status" | "mac"> & { readonly mac?: string },
): World {
  const mac = eni.mac ?? macOf(world, world.serial);
  const created: Eni = { ...eni, mac, serial: world.serial, attachment: null, status: "pending" };
  return withSpace({ ...world, enis: added(world.enis, created) }, eni.subnetId, (space) =>
    take(space, addressesOf(created)),
  );
}

/** From now on describes say `available`. */
export function eniAvailable(world: World, eniId: string): World {
  const eni = eniOf(world, eniId);
  return eni.status === "pending" ? withEni(world, { ...eni, status: "available" }) : world;
}

export function eniDeleted(world: World, eniId: string): World {
  const eni = eniOf(world, eniId);
  assert(eni.attachment === null, "an attached ENI is not deleted");
  const enis = new Map(world.enis);
  enis.delete(eniId);
  return withSpace({ ...world, enis }, eni.subnetId, (space) => giveBack(space, addressesOf(eni)));
}

export function eniAttaching(world: World, eniId: string, attachment: Omit<Attachment, "status">): World {
  const eni = eniOf(world, eniId);
  assert(eni.attachment === null, "an ENI has one attachment at most");
  const instance = known(world.instances.get(attachment.instanceId), attachment.instanceId);
  const others = attachmentsOf(world, attachment.instanceId).map((other) => other.attachment);
  const sameCard = others.filter((other) => other.networkCardIndex === attachment.networkCardIndex);
  assert(others.length < instance.type.eniCountMax, "attachments stay within the instance type's limit");
  assert(
    sameCard.length < (instance.type.networkCards[attachment.networkCardIndex] ?? 0),
    "a network card holds its own limit",
  );
  assert(
    !sameCard.some((other) => other.deviceIndex === attachment.deviceIndex),
    "a device index is used once a card",
  );
  assert(slotsUsed(eni) <= instance.type.ipv4SlotsPerEni, "an attached ENI fits its instance type");
  return withEni(world, { ...eni, status: "in-use", attachment: { ...attachment, status: "attaching" } });
}

export function eniAttached(world: World, eniId: string): World {
  return withAttachment(world, eniId, (attachment) => ({ ...attachment, status: "attached" }));
}

export function eniDetaching(world: World, eniId: string): World {
  return withAttachment(world, eniId, (attachment) => ({ ...attachment, status: "detaching" }));
}

export function eniDetached(world: World, eniId: string): World {
  const eni = eniOf(world, eniId);
  assert(eni.attachment !== null, "only an attached ENI is detached");
  return withEni(world, { ...eni, status: "available", attachment: null });
}

export function deleteOnTerminationSet(world: World, eniId: string, deleteOnTermination: boolean): World {
  return withAttachment(world, eniId, (attachment) => ({ ...attachment, deleteOnTermination }));
}

export function eniChanged(
  world: World,
  eniId: string,
  change: Partial<Pick<Eni, "description" | "groupIds" | "sourceDestCheck" | "managedBy" | "interfaceType">>,
): World {
  return withEni(world, { ...eniOf(world, eniId), ...change });
}

export function addressesAssigned(world: World, eniId: string, what: Addresses): World {
  const eni = eniOf(world, eniId);
  const next = {
    ...eni,
    secondaries: [...eni.secondaries, ...what.ips],
    prefixes: [...eni.prefixes, ...what.prefixes],
  };
  const instance = eni.attachment === null ? null : world.instances.get(eni.attachment.instanceId);
  assert(
    !instance || slotsUsed(next) <= instance.type.ipv4SlotsPerEni,
    "an ENI's addresses stay within its instance type's limit",
  );
  return withSpace(withEni(world, next), eni.subnetId, (space) => take(space, what));
}

export function addressesUnassigned(world: World, eniId: string, what: Addresses): World {
  const eni = eniOf(world, eniId);
  assert(
    what.ips.every((ip) => eni.secondaries.includes(ip)),
    "only secondary addresses are unassigned",
  );
  assert(
    what.prefixes.every((prefix) => eni.prefixes.includes(prefix)),
    "only the ENI's own prefixes are unassigned",
  );
  const next = {
    ...eni,
    secondaries: eni.secondaries.filter((ip) => !what.ips.includes(ip)),
    prefixes: eni.prefixes.filter((prefix) => !what.prefixes.includes(prefix)),
  };
  return withSpace(withEni(world, next), eni.subnetId, (space) => giveBack(space, what));
}

/** Sets and removes tags of any resource that carries them. `id` is known. */
export function tagsChanged(world: World, id: string, change: (tags: Tags) => Tags): World {
  const retag = <T extends { readonly tags: Tags }>(map: ReadonlyMap<string, T>): ReadonlyMap<string, T> => {
    const found = known(map.get(id), id);
    return new Map(map).set(id, { ...found, tags: change(found.tags) });
  };
  if (world.enis.has(id)) return { ...world, enis: retag(world.enis) };
  if (world.instances.has(id)) return { ...world, instances: retag(world.instances) };
  if (world.subnets.has(id)) return { ...world, subnets: retag(world.subnets) };
  if (world.groups.has(id)) return { ...world, groups: retag(world.groups) };
  return { ...world, vpcs: retag(world.vpcs) };
}

/** Keeps an idempotent call's answer. The oldest are forgotten: EC2 keeps tokens for a day, which no test of ours outlives. */
export function callRemembered(world: World, key: string, call: RememberedCall): World {
  const remembered = new Map(world.remembered).set(key, call);
  const oldest = remembered.size > REMEMBERED_COUNT_MAX ? remembered.keys().next().value : undefined;
  if (oldest !== undefined) remembered.delete(oldest);
  return { ...world, remembered };
}

export function typeNamed(name: string): InstanceType | null {
  return instanceTypes().get(name) ?? null;
}

function addressesOf(eni: Eni): Addresses {
  return { ips: [eni.primary, ...eni.secondaries], prefixes: eni.prefixes };
}

function eniOf(world: World, eniId: string): Eni {
  return known(world.enis.get(eniId), eniId);
}

function withEni(world: World, eni: Eni): World {
  return { ...world, enis: new Map(world.enis).set(eni.id, eni) };
}

function withAttachment(world: World, eniId: string, change: (attachment: Attachment) => Attachment): World {
  const eni = eniOf(world, eniId);
  assert(eni.attachment !== null, `${eniId} is attached`);
  return withEni(world, { ...eni, attachment: change(eni.attachment) });
}

function withSubnet(world: World, subnet: Subnet): World {
  return { ...world, subnets: new Map(world.subnets).set(subnet.id, subnet) };
}

function withSpace(world: World, subnetId: string, change: (space: SubnetSpace) => SubnetSpace): World {
  const subnet = subnetOf(world, subnetId);
  return withSubnet(world, { ...subnet, space: change(subnet.space) });
}

function added<T extends { readonly id: string }>(
  map: ReadonlyMap<string, T>,
  entity: T,
): ReadonlyMap<string, T> {
  assert(!map.has(entity.id), `${entity.id} is new`);
  return new Map(map).set(entity.id, entity);
}

function known<T>(value: T | undefined, id: string): T {
  assert(value !== undefined, `${id} is known`);
  return value;
}

/** A one-to-one scramble of 32 bits (xor-shifts and odd multipliers can be undone). */
function mix32(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0_aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a_2d97);
  return (x ^ (x >>> 15)) >>> 0;
}

function hex8(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}
