/** AssignPrivateIpAddresses and UnassignPrivateIpAddresses: secondary addresses and /28 prefixes of an ENI. */
import { type Ipv4, networkOf } from "../../lib/ip.ts";
import { err, ok, type Result } from "../../lib/result.ts";
import {
  addressesLimitExceeded,
  cannotMovePrimary,
  cannotUnassignPrimary,
  type Failure,
  moreThanOneGiven,
  moveNotAllowed,
  noneGiven,
  notAssigned,
  notYoursToManage,
  prefixesNeedNitro,
} from "../failures.ts";
import { carriesPrefixes, UNATTACHED_SLOTS } from "../instance-types.ts";
import { list, type Parameters, required, truth, wholeNumber } from "../parameters.ts";
import { type Addresses, isBlockFree, isTaken, PREFIX_LENGTH } from "../subnet-space.ts";
import {
  addressesAssigned,
  addressesUnassigned,
  type Eni,
  ownerOf,
  slotsUsed,
  subnetOf,
  type World,
} from "../world.ts";
import { changed, find, type Operation } from "./operation.ts";
import { checkInside, parseIps, parsePrefixes, place } from "./placement.ts";

const ASSIGN_INPUTS = [
  "PrivateIpAddress",
  "SecondaryPrivateIpAddressCount",
  "Ipv4Prefix",
  "Ipv4PrefixCount",
] as const;

/** Answers only what is newly assigned: an address that this ENI had already is no news. */
export const assignPrivateIpAddresses: Operation = {
  effect: "write",
  parameters: ["NetworkInterfaceId", "AllowReassignment", ...ASSIGN_INPUTS],
  notEmulated: [],
  run(call) {
    const { parameters } = call;
    const id = required(parameters, "NetworkInterfaceId");
    if (!id.ok) return id;
    const ask = readAsk(parameters);
    if (!ask.ok) return ask;
    const allowReassignment = truth(parameters, "AllowReassignment");
    if (!allowReassignment.ok) return allowReassignment;
    const found = find(call.world.enis, "eni", id.value);
    if (!found.ok) return found;
    const eni = found.value;
    if (eni.managedBy !== null) return err(notYoursToManage());

    const explicit = {
      ips: ask.value.explicit.ips.filter((ip) => !eni.secondaries.includes(ip)),
      prefixes: ask.value.explicit.prefixes.filter((prefix) => !eni.prefixes.includes(prefix)),
    };
    const { ipCount, prefixCount } = ask.value;
    const newSlots = explicit.ips.length + explicit.prefixes.length + ipCount + prefixCount;
    const room = checkRoom(call.world, eni, newSlots, explicit.prefixes.length + prefixCount > 0);
    if (!room.ok) return room;
    const { space } = subnetOf(call.world, eni.subnetId);
    const inside = checkInside(space, explicit);
    if (!inside.ok) return inside;
    const freed = takeFromOthers(call.world, eni, explicit, allowReassignment.value === true);
    if (!freed.ok) return freed;
    const placed = place(subnetOf(freed.value, eni.subnetId).space, explicit, { ipCount, prefixCount }, call);
    if (!placed.ok) return placed;

    return changed(addressesAssigned(freed.value, eni.id, placed.value), {
      networkInterfaceId: eni.id,
      assignedPrivateIpAddressesSet: placed.value.ips.map((privateIpAddress) => ({ privateIpAddress })),
      assignedIpv4PrefixSet: placed.value.prefixes.map((prefix) => ({
        ipv4Prefix: `${prefix}/${PREFIX_LENGTH}`,
      })),
    });
  },
};

/** All or nothing: one address that the ENI has not refuses the whole call. */
export const unassignPrivateIpAddresses: Operation = {
  effect: "write",
  parameters: ["NetworkInterfaceId", "PrivateIpAddress", "Ipv4Prefix"],
  notEmulated: [],
  run(call) {
    const { parameters } = call;
    const id = required(parameters, "NetworkInterfaceId");
    if (!id.ok) return id;
    const ips = parseIps(list(parameters, "PrivateIpAddress"));
    if (!ips.ok) return ips;
    const prefixes = parsePrefixes(list(parameters, "Ipv4Prefix"));
    if (!prefixes.ok) return prefixes;
    if (ips.value.length === 0 && prefixes.value.length === 0)
      return err(noneGiven(["privateIpAddressSet", "ipv4PrefixSet"]));
    if (ips.value.length > 0 && prefixes.value.length > 0)
      return err(moreThanOneGiven(["privateIpAddressSet", "ipv4PrefixSet"]));
    const found = find(call.world.enis, "eni", id.value);
    if (!found.ok) return found;
    const eni = found.value;
    if (eni.managedBy !== null) return err(notYoursToManage());
    if (ips.value.includes(eni.primary)) return err(cannotUnassignPrimary(eni.primary));
    const has =
      ips.value.every((ip) => eni.secondaries.includes(ip)) &&
      prefixes.value.every((prefix) => eni.prefixes.includes(prefix));
    if (!has) return err(notAssigned(eni.id));
    return changed(addressesUnassigned(call.world, eni.id, { ips: ips.value, prefixes: prefixes.value }), {
      return: true,
    });
  },
};

type Ask = { readonly explicit: Addresses; readonly ipCount: number; readonly prefixCount: number };

function readAsk(parameters: Parameters): Result<Ask, Failure> {
  const given = ASSIGN_INPUTS.filter((name) =>
    [...parameters.keys()].some((key) => key === name || key.startsWith(`${name}.`)),
  );
  const names = ["privateIpAddressSet", "secondaryPrivateIpAddressCount", "ipv4PrefixSet", "ipv4PrefixCount"];
  if (given.length === 0) return err(noneGiven(names));
  if (given.length > 1) return err(moreThanOneGiven(names));
  const ips = parseIps(list(parameters, "PrivateIpAddress"));
  if (!ips.ok) return ips;
  const prefixes = parsePrefixes(list(parameters, "Ipv4Prefix"));
  if (!prefixes.ok) return prefixes;
  const ipCount = wholeNumber(parameters, "SecondaryPrivateIpAddressCount", 1);
  if (!ipCount.ok) return ipCount;
  const prefixCount = wholeNumber(parameters, "Ipv4PrefixCount", 1);
  if (!prefixCount.ok) return prefixCount;
  return ok({
    explicit: { ips: ips.value, prefixes: prefixes.value },
    ipCount: ipCount.value ?? 0,
    prefixCount: prefixCount.value ?? 0,
  });
}

function checkRoom(world: World, eni: Eni, newSlots: number, prefixes: boolean): Result<null, Failure> {
  const type =
    eni.attachment === null ? null : (world.instances.get(eni.attachment.instanceId)?.type ?? null);
  if (prefixes && type !== null && !carriesPrefixes(type)) return err(prefixesNeedNitro(type.name));
  return slotsUsed(eni) + newSlots > (type?.ipv4SlotsPerEni ?? UNATTACHED_SLOTS)
    ? err(addressesLimitExceeded())
    : ok(null);
}

/**
 * The world after `explicit` was taken off the ENIs that have it now. Only whole secondary addresses and whole prefixes move, and only when
 * the caller allows it; primary addresses never do.
 */
function takeFromOthers(
  world: World,
  eni: Eni,
  explicit: Addresses,
  allowed: boolean,
): Result<World, Failure> {
  const { space } = subnetOf(world, eni.subnetId);
  const stuck: string[] = [];
  let next = world;
  for (const ip of explicit.ips.filter((ip) => isTaken(space, ip))) {
    const owner = ownerOf(world, eni.subnetId, ip);
    if (owner !== null && allowed && owner.primary === ip) return err(cannotMovePrimary());
    if (owner === null || !allowed || !owner.secondaries.includes(ip) || owner.id === eni.id) stuck.push(ip);
    else next = addressesUnassigned(next, owner.id, { ips: [ip], prefixes: [] });
  }
  for (const prefix of explicit.prefixes.filter((prefix) => !isBlockFree(space, prefix))) {
    const owner = ownerOfPrefix(world, eni.subnetId, prefix);
    if (owner === null || !allowed) stuck.push(`${prefix}/${PREFIX_LENGTH}`);
    else next = addressesUnassigned(next, owner.id, { ips: [], prefixes: [prefix] });
  }
  return stuck.length > 0 ? err(moveNotAllowed(stuck)) : ok(next);
}

function ownerOfPrefix(world: World, subnetId: string, prefix: Ipv4): Eni | null {
  const owner = ownerOf(world, subnetId, networkOf(prefix, PREFIX_LENGTH));
  return owner?.prefixes.includes(prefix) === true ? owner : null;
}
