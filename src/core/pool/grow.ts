/** Where new addresses come from: an ENI with room before a new ENI, and what to tell when there is no way. */
import { inTurn, byNumber, sorted } from "../../lib/order.ts";
import type { PoolAction } from "../model/action.ts";
import type { SubnetId } from "../model/eni.ts";
import { bySlot, type EniCensus } from "../state/census.ts";
import { lastAddressesOf, mostTelling, operationBlock, subnetBlock, type Block } from "./obstacles.ts";
import { freePrefixesOf, freeSecondariesOf } from "./parts.ts";
import { freeSlot } from "./slots.ts";
import { fallbackAddresses, PREFIX_SIZE, type Shortage, type Unit } from "./targets.ts";
import { countsOn, mayChange, type PoolView } from "./view.ts";

export type Growth =
  | { readonly kind: "act"; readonly action: PoolAction; readonly reason: string }
  | { readonly kind: "blocked"; readonly block: Block };

/** The next step towards an end of the shortage. Only asked while there is one. */
export function planGrowth(view: PoolView, shortage: Shortage): Growth {
  const blocks: Block[] = [];
  const why = reasonOf(view, shortage);
  const candidates = enisWithRoom(view);
  const denied = candidates.length === 0 ? null : operationBlock(view.obstacles, "assign-addresses");
  if (denied !== null) blocks.push(denied);
  else {
    for (const each of candidates) {
      const block = subnetBlock(view.obstacles, each.eni.subnetId, view.rule.unit);
      if (block === null) return { kind: "act", action: assignOn(view, each, shortage), reason: why };
      blocks.push(block);
    }
    const single = planSingles(view, candidates, blocks);
    if (single !== null) return { kind: "act", action: single, reason: `${why}; no /28 is free` };
    const last = maySplit(view) ? planLast(view, candidates) : null;
    if (last !== null) return { kind: "act", action: last, reason: `${why}; the subnet's last addresses` };
  }
  // A throttled or failing EC2 would not take the five calls of a new ENI better than the one of an assignment.
  if (denied !== null && denied.reason !== "access-denied") return { kind: "blocked", block: denied };
  const conversion = candidates.length === 0 ? planConversion(view, shortage) : null;
  if (conversion !== null) return { kind: "act", action: conversion, reason: `${why}; making room` };
  return planAttach(view, shortage, why, blocks);
}

/** ENIs that can carry more, those with a link first, then the primary one (it stays in any case), then the fullest. */
function enisWithRoom(view: PoolView): EniCensus[] {
  const usable = view.census.enis.filter(
    (each) =>
      each.slotsUsed < each.slots && mayChange(each.eni) && countsOn(each.eni, view.settings, view.now),
  );
  return sorted(
    usable,
    inTurn(
      byNumber((each) => (each.eni.phase.kind === "ready" ? 0 : 1)),
      byNumber((each) => (each.eni.role === "primary" ? 0 : 1)),
      byNumber((each) => -each.allocated),
      (left, right) => bySlot(left.eni, right.eni),
    ),
  );
}

function assignOn(view: PoolView, each: EniCensus, shortage: Shortage): PoolAction {
  const room = each.slots - each.slotsUsed;
  if (view.rule.unit === "prefix") {
    return { kind: "assign-prefixes", eni: each.eni.id, count: Math.min(shortage.prefixes, room) };
  }
  return { kind: "assign-addresses", eni: each.eni.id, count: addressesFor(view, shortage, room) };
}

/** Single addresses may be asked for: always where they are the unit, else where the operator lets them stand in for prefixes. */
function maySplit({ rule, settings }: PoolView): boolean {
  return rule.unit === "address" || settings.prefixFallback === "addresses";
}

/** What is short, or, where the pool grows by whole ENIs, all that the ENI can carry and the node may have. */
function addressesFor(view: PoolView, shortage: Shortage, room: number): number {
  const { rule, stock } = view;
  if (!rule.wholeEnis) return Math.min(shortage.addresses, room);
  return Math.min(room, rule.addressCountMax - stock.allocated - stock.free);
}

/**
 * A fragmented subnet may have single addresses though no aligned /28. Pods that wait get them, so that they need not fail;
 * the spare stays as it is until a /28 is free again.
 */
function planSingles(
  view: PoolView,
  candidates: readonly EniCensus[],
  blocks: readonly Block[],
): PoolAction | null {
  if (!maySplit(view) || !blocks.some((block) => block.reason === "prefixes-exhausted")) return null;
  const count = fallbackAddresses(view.rule, view.stock, view.state.waiting);
  const each = candidates.find(({ eni }) => subnetBlock(view.obstacles, eni.subnetId, "address") === null);
  if (count === 0 || each === undefined) return null;
  return {
    kind: "assign-addresses",
    eni: each.eni.id,
    count: Math.min(count, each.slots - each.slotsUsed),
  };
}

/** A subnet that refused many addresses may have some. Pods that wait get those; they are not taken to be kept ready. */
function planLast(view: PoolView, candidates: readonly EniCensus[]): PoolAction | null {
  const needed = neededNow(view);
  for (const { eni, slots, slotsUsed } of candidates) {
    const count = Math.min(needed, lastAddressesOf(view.obstacles, eni.subnetId), slots - slotsUsed);
    if (count > 0) return { kind: "assign-addresses", eni: eni.id, count };
  }
  return null;
}

/** Addresses for those who wait, and none to spare. */
function neededNow({ rule, stock, state }: PoolView): number {
  const room = Math.max(0, rule.addressCountMax - stock.allocated - stock.free - stock.otherFree);
  return Math.min(Math.max(0, state.waiting - stock.free - stock.otherFree), room);
}

/**
 * All slots are taken, some by free addresses of the other mode (prefix delegation was switched while the node ran): these
 * give way, as far as nobody waits for them.
 */
function planConversion(view: PoolView, shortage: Shortage): PoolAction | null {
  const { rule, stock, state, now } = view;
  const toSpare = stock.free + stock.otherFree - state.waiting;
  if (view.cordoned || operationBlock(view.obstacles, "unassign-addresses") !== null) return null;
  for (const { eni } of view.census.enis) {
    if (eni.phase.kind !== "ready" || !mayChange(eni) || !countsOn(eni, view.settings, now)) continue;
    if (subnetBlock(view.obstacles, eni.subnetId, rule.unit) !== null) continue;
    if (rule.unit === "prefix") {
      const ips = freeSecondariesOf(eni, now).slice(0, Math.max(0, Math.min(shortage.prefixes, toSpare)));
      if (ips.length > 0) return { kind: "unassign-addresses", eni: eni.id, ips };
    } else {
      const count = Math.max(0, Math.min(shortage.addresses, Math.floor(toSpare / PREFIX_SIZE)));
      const prefixes = freePrefixesOf(eni, now).slice(0, count);
      if (prefixes.length > 0) return { kind: "unassign-prefixes", eni: eni.id, prefixes };
    }
  }
  return null;
}

function planAttach(view: PoolView, shortage: Shortage, why: string, blocks: Block[]): Growth {
  const blocked = (block: Block | null): Growth => ({
    kind: "blocked",
    block: mostTelling(block === null ? blocks : [...blocks, block]),
  });
  if (view.cordoned) {
    return blocked({ reason: "cordoned", detail: "no ENI is attached to a cordoned node" });
  }
  const slot = freeSlot(view.state, view.settings);
  if (slot === null) {
    return blocked({ reason: "eni-limit", detail: eniLimitDetail(view) });
  }
  const denied = operationBlock(view.obstacles, "attach-eni");
  if (denied !== null) return blocked(denied);
  const { podSubnets, podSecurityGroups } = view.settings;
  const subnets = podSubnets.length > 0 ? podSubnets : [view.state.instance.primarySubnet];
  const securityGroups =
    podSecurityGroups.length > 0 ? podSecurityGroups : view.state.instance.securityGroups;
  const room = view.state.instance.limits.addressesPerEni - 1;
  const attach = (subnetId: SubnetId, unit: Unit, addresses: number): Growth => {
    const count = Math.min(room, unit === "prefix" ? shortage.prefixes : addresses);
    const counts =
      unit === "prefix" ? { addressCount: 0, prefixCount: count } : { addressCount: count, prefixCount: 0 };
    return {
      kind: "act",
      action: { kind: "attach-eni", slot, subnetId, securityGroups, ...counts },
      reason: why,
    };
  };
  for (const subnetId of subnets) {
    const block = subnetBlock(view.obstacles, subnetId, view.rule.unit);
    if (block === null) return attach(subnetId, view.rule.unit, addressesFor(view, shortage, room));
    blocks.push(block);
  }
  if (!maySplit(view)) return blocked(null);
  const single = subnets.find((subnetId) => subnetBlock(view.obstacles, subnetId, "address") === null);
  const count = fallbackAddresses(view.rule, view.stock, view.state.waiting);
  if (single !== undefined && count > 0) return attach(single, "address", count);
  for (const subnetId of subnets) {
    const last = Math.min(neededNow(view), lastAddressesOf(view.obstacles, subnetId) - 1); // The ENI itself needs one.
    if (last > 0) return attach(subnetId, "address", last);
  }
  return blocked(null);
}

function eniLimitDetail(view: PoolView): string {
  const { state, settings } = view;
  const foreign = state.foreign.length === 0 ? "" : `, ${state.foreign.length} of them not ours`;
  const cap = settings.maxEni === null ? "" : `, MAX_ENI=${settings.maxEni}`;
  const count = state.enis.size + state.foreign.length;
  return `all ENIs are full and ${state.instance.type} takes no more (${count} attached${foreign}${cap})`;
}

function reasonOf(view: PoolView, shortage: Shortage): string {
  const { waiting } = view.state;
  const { expected } = view.rule;
  const short = shortage.prefixes > 0 ? `${shortage.prefixes} prefixes` : `${shortage.addresses} addresses`;
  const held = `${view.stock.free} free, ${view.stock.allocated} allocated, ${view.stock.cooling} cooling`;
  return `${short} short: ${waiting === 0 ? "" : `${waiting} ADDs wait, `}${expected === 0 ? "" : `${expected} more pods are bound, `}${view.rule.source}, ${held}`;
}
