/** Everything that must hold of a world, counted anew. */
import { assert } from "../lib/assert.ts";
import { cidr4Size, networkOf } from "../lib/ip.ts";
import { countFree, isReserved, offsetOf, PREFIX_LENGTH, PREFIX_SIZE } from "./subnet-space.ts";
import { attachmentsOf, slotsUsed, subnetOf, type World } from "./world.ts";

/**
 * Checks a world from nothing: one owner an address, nothing reserved handed out, prefixes aligned and disjoint, true free counters,
 * attachments within limits. The transitions assert the same step by step and cheaply; this is for tests and simulations.
 */
export function checkWorld(world: World): void {
  const owners = new Set<string>();
  const own = (what: string): void => {
    assert(!owners.has(what), `${what} is on one ENI only`);
    owners.add(what);
  };
  const taken = new Map<string, number>();
  for (const eni of world.enis.values()) {
    const { id: subnetId, space } = subnetOf(world, eni.subnetId);
    const singles = [eni.primary, ...eni.secondaries];
    for (const ip of singles) {
      own(`${subnetId} ${ip}`);
      assert(!isReserved(space, ip), `${ip} is not reserved`);
    }
    for (const prefix of eni.prefixes) {
      own(`${subnetId} ${prefix}/${PREFIX_LENGTH}`);
      assert(offsetOf(space, prefix) % PREFIX_SIZE === 0, `${prefix} is aligned`);
    }
    taken.set(subnetId, (taken.get(subnetId) ?? 0) + singles.length + PREFIX_SIZE * eni.prefixes.length);
    if (eni.attachment !== null) {
      own(
        `${eni.attachment.instanceId} card ${eni.attachment.networkCardIndex} device ${eni.attachment.deviceIndex}`,
      );
    }
  }
  for (const eni of world.enis.values()) {
    for (const ip of [eni.primary, ...eni.secondaries]) {
      const inPrefix = owners.has(`${eni.subnetId} ${networkOf(ip, PREFIX_LENGTH)}/${PREFIX_LENGTH}`);
      assert(!inPrefix, `${ip} is not inside a prefix`);
    }
  }
  for (const { id, space } of world.subnets.values()) {
    const free = cidr4Size(space.cidr) - 5 - (taken.get(id) ?? 0);
    assert(space.freeCount === free && countFree(space) === free, `${id}'s free counter is true`);
  }
  for (const { id, type } of world.instances.values()) {
    const enis = attachmentsOf(world, id);
    assert(enis.length <= type.eniCountMax, `${id} has no more ENIs than its type allows`);
    assert(
      enis.every((eni) => slotsUsed(eni) <= type.ipv4SlotsPerEni),
      `no ENI of ${id} has more addresses than its type allows`,
    );
  }
}
