/** What must hold of every NodeState. For the simulation after each step, for `doctor`, and for tests of the transitions. */
import { cidr4Contains, cidr4Overlap, cidr4Size, type Cidr4, type Ipv4, printCidr4 } from "../../lib/ip.ts";
import type { Eni, EniId, EniSlot } from "../model/eni.ts";
import { sandboxId } from "../model/sandbox.ts";
import type { NodeState } from "./node-state.ts";

/**
 * Each sentence is one broken invariant; empty when the state is sound. All of them are looked at, not only the first.
 *
 * Limits are those of the instance type as we know them: with a table that is too old, EC2 itself can put a node beyond them.
 */
export function checkInvariants(state: NodeState): string[] {
  return [
    ...[...state.enis].flatMap(([id, eni]) => checkEni(id, eni, state.instance.limits.addressesPerEni - 1)),
    ...checkPlaces(state),
    ...checkAddressesTogether(state),
    ...checkAllocations(state),
    ...checkRest(state),
  ];
}

/** One ENI by itself. */
function checkEni(id: EniId, eni: Eni, slots: number): string[] {
  const broken: string[] = [];
  if (eni.id !== id) broken.push(`${eni.id} is filed under ${id}`);
  if (!cidr4Contains(eni.subnetCidr, eni.primaryIp)) {
    broken.push(`${id}: its own address ${eni.primaryIp} is outside ${printCidr4(eni.subnetCidr)}`);
  }
  const atHome = eni.slot.networkCard === 0 && eni.slot.deviceIndex === 0;
  if ((eni.role === "primary") !== atHome) broken.push(`${id}: ${eni.role} at ${printSlot(eni.slot)}`);
  if (eni.role === "primary" && eni.phase.kind === "leaving")
    broken.push(`${id}: the primary ENI is leaving`);
  const used =
    [...eni.addresses.values()].filter((address) => address.by === "secondary").length + eni.prefixes.length;
  if (used > slots) broken.push(`${id}: ${used} addresses and prefixes where ${slots} are allowed`);
  return [...broken, ...checkPrefixes(eni), ...checkAddresses(eni)];
}

function checkPrefixes(eni: Eni): string[] {
  const broken: string[] = [];
  for (const prefix of eni.prefixes) {
    const name = `${eni.id}: prefix ${printCidr4(prefix)}`;
    if (prefix.prefixLength !== 28) broken.push(`${name} is no /28`);
    else if (Number(prefix.network.split(".")[3]) % 16 !== 0) broken.push(`${name} is not aligned`);
    if (!cidr4Contains(eni.subnetCidr, prefix.network)) broken.push(`${name} is outside its subnet`);
    if (cidr4Contains(prefix, eni.primaryIp)) broken.push(`${name} holds the ENI's own address`);
    const inside = [...eni.addresses.values()].filter((address) => cidr4Contains(prefix, address.ip));
    const by = inside.filter((address) => address.by === "prefix").length;
    if (by !== cidr4Size(prefix)) broken.push(`${name} has ${by} of its ${cidr4Size(prefix)} addresses`);
    if (by !== inside.length) broken.push(`${name} holds single addresses`);
  }
  return broken;
}

function checkAddresses(eni: Eni): string[] {
  const broken: string[] = [];
  for (const [ip, address] of eni.addresses) {
    if (address.ip !== ip) broken.push(`${eni.id}: ${address.ip} is filed under ${ip}`);
    if (ip === eni.primaryIp) broken.push(`${eni.id}: its own address ${ip} is in the pool`);
    if (!cidr4Contains(eni.subnetCidr, ip)) broken.push(`${eni.id}: ${ip} is outside its subnet`);
    if (address.by === "prefix" && !eni.prefixes.some((prefix) => cidr4Contains(prefix, ip))) {
      broken.push(`${eni.id}: ${ip} is of a prefix that it does not have`);
    }
    if (address.kind === "allocated" && eni.phase.kind === "leaving") {
      broken.push(`${eni.id} is leaving while ${address.sandbox} holds ${ip}`);
    }
  }
  return broken;
}

/** Where ENIs sit: each in a slot of its own, no more on a card than it takes, each known in one way only. */
function checkPlaces(state: NodeState): string[] {
  const broken: string[] = [];
  const takenBy = new Map<string, string>();
  const macs = new Map<string, EniId>();
  const counts = state.instance.limits.networkCards.map(() => 0);
  const ours = [...state.enis.values()];
  for (const eni of [...ours, ...state.foreign]) {
    const slot = printSlot(eni.slot);
    const other = takenBy.get(slot);
    if (other !== undefined) broken.push(`${eni.id} and ${other} are both at ${slot}`);
    takenBy.set(slot, eni.id);
    const twin = macs.get(eni.mac);
    if (twin !== undefined) broken.push(`${eni.id} and ${twin} have the MAC ${eni.mac}`);
    macs.set(eni.mac, eni.id);
    const count = counts[eni.slot.networkCard];
    if (count === undefined) broken.push(`${eni.id} is at ${slot}, a card that the instance has not`);
    else counts[eni.slot.networkCard] = count + 1;
  }
  for (const [card, { enis }] of state.instance.limits.networkCards.entries()) {
    const count = counts[card] ?? 0;
    if (count > enis) broken.push(`card ${card} carries ${count} ENIs where ${enis} are allowed`);
  }
  const primaries = ours.filter((eni) => eni.role === "primary");
  if (primaries.length > 1) broken.push(`${primaries.map((eni) => eni.id).join(" and ")} are both primary`);
  for (const { id } of state.foreign) {
    if (state.enis.has(id)) broken.push(`${id} is ours and foreign`);
  }
  for (const [id, loose] of state.loose) {
    if (loose.id !== id) broken.push(`${loose.id} is filed under ${id} among the loose ones`);
    if (state.enis.has(id)) broken.push(`${id} is attached and loose`);
  }
  return broken;
}

/** No address on two ENIs, no ENI's own address in another's pool, no two prefixes over the same addresses. */
function checkAddressesTogether(state: NodeState): string[] {
  const broken: string[] = [];
  const owner = new Map<Ipv4, EniId>();
  for (const eni of state.enis.values()) {
    for (const ip of [eni.primaryIp, ...eni.addresses.keys()]) {
      const other = owner.get(ip);
      if (other !== undefined && other !== eni.id) broken.push(`${ip} is on ${other} and on ${eni.id}`);
      owner.set(ip, eni.id);
    }
  }
  const prefixes: { readonly eni: EniId; readonly prefix: Cidr4 }[] = [];
  for (const eni of state.enis.values()) {
    for (const prefix of eni.prefixes) {
      const other = prefixes.find((each) => cidr4Overlap(each.prefix, prefix));
      if (other !== undefined) broken.push(`${printCidr4(prefix)} is on ${other.eni} and on ${eni.id}`);
      prefixes.push({ eni: eni.id, prefix });
    }
  }
  return broken;
}

/** An allocation and its address say the same. EC2 may have taken the address away under a running pod: then only the record is left. */
function checkAllocations(state: NodeState): string[] {
  const broken: string[] = [];
  const holders = new Map<Ipv4, string>();
  for (const [id, allocation] of state.allocations) {
    if (allocation.id !== id || sandboxId(allocation.key) !== id)
      broken.push(`${allocation.id} is filed under ${id}`);
    const other = holders.get(allocation.ip);
    if (other !== undefined) broken.push(`${allocation.ip} is given to ${other} and to ${id}`);
    holders.set(allocation.ip, id);
    const eni = state.enis.get(allocation.eni);
    if (eni === undefined) continue;
    if (printSlot(eni.slot) !== printSlot(allocation.eniSlot)) {
      broken.push(
        `${id} was plumbed for ${printSlot(allocation.eniSlot)}, but ${eni.id} is at ${printSlot(eni.slot)}`,
      );
    }
    const address = eni.addresses.get(allocation.ip);
    if (address === undefined) continue;
    if (address.kind !== "allocated") broken.push(`${id} holds ${address.ip}, which is ${address.kind}`);
    else if (address.sandbox !== id)
      broken.push(`${id} holds ${address.ip}, which is held by ${address.sandbox}`);
  }
  for (const eni of state.enis.values()) {
    for (const address of eni.addresses.values()) {
      if (address.kind !== "allocated") continue;
      const allocation = state.allocations.get(address.sandbox);
      if (allocation?.ip === address.ip && allocation.eni === eni.id) continue;
      broken.push(
        `${address.ip} on ${eni.id} is held by ${address.sandbox}, of which there is no such record`,
      );
    }
  }
  return broken;
}

function checkRest(state: NodeState): string[] {
  const broken: string[] = [];
  if (!Number.isInteger(state.waiting) || state.waiting < 0) broken.push(`${state.waiting} ADDs are waiting`);
  const keys = new Set<string>();
  for (const obstacle of state.obstacles) {
    const key = `${obstacle.kind} ${"subnetId" in obstacle ? obstacle.subnetId : obstacle.operation}`;
    if (keys.has(key)) broken.push(`${key} stands twice among the obstacles`);
    keys.add(key);
  }
  return broken;
}

function printSlot(slot: EniSlot): string {
  return `card ${slot.networkCard} index ${slot.deviceIndex}`;
}
