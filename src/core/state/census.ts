/** Counts of what the node holds, by ENI and whole, at one instant. Planner, metrics and CLI read the same ones, so they cannot disagree. */
import { networkOf, type Ipv4 } from "../../lib/ip.ts";
import { byNumber, inTurn, sorted, type Compare } from "../../lib/order.ts";
import type { Instant } from "../../lib/time.ts";
import type { Eni, EniSlot } from "../model/eni.ts";
import type { NodeState } from "./node-state.ts";

/** Addresses by state. A cooling one whose time is over counts as warm; a warm one on an ENI without a link counts as coming. */
export type AddressCounts = {
  readonly warm: number; // May be given to a sandbox now.
  readonly coming: number; // Free, on an ENI whose link is awaited.
  readonly allocated: number;
  readonly cooling: number;
  readonly leaving: number; // With those of a leaving ENI that no sandbox holds.
  readonly total: number;
};

export type EniCensus = AddressCounts & {
  readonly eni: Eni;
  readonly freeSecondaries: number; // Part of warm + coming: addresses that EC2 assigned one by one.
  readonly freePrefixes: number; // Wholly free /28s, coming ones included.
  readonly prefixes: number;
  readonly slots: number; // What EC2 lets this ENI carry beside its own address: an address or a prefix each.
  readonly slotsUsed: number;
  readonly nextCooledAt: Instant | null; // When the next cooling address has rested.
};

export type Census = AddressCounts & {
  readonly at: Instant;
  readonly enis: readonly EniCensus[]; // By network card, then device index.
  readonly freePrefixes: number;
  readonly prefixes: number;
  readonly slots: number;
  readonly slotsUsed: number;
  readonly waiting: number;
};

export function takeCensus(state: NodeState, now: Instant): Census {
  const slots = state.instance.limits.addressesPerEni - 1;
  const inOrder = sorted(state.enis.values(), bySlot);
  const enis = inOrder.map((eni) => eniCensus(eni, slots, now));
  const sum = (read: (each: EniCensus) => number): number =>
    enis.reduce((whole, each) => whole + read(each), 0);
  return {
    at: now,
    enis,
    warm: sum((each) => each.warm),
    coming: sum((each) => each.coming),
    allocated: sum((each) => each.allocated),
    cooling: sum((each) => each.cooling),
    leaving: sum((each) => each.leaving),
    total: sum((each) => each.total),
    freePrefixes: sum((each) => each.freePrefixes),
    prefixes: sum((each) => each.prefixes),
    slots: sum((each) => each.slots),
    slotsUsed: sum((each) => each.slotsUsed),
    waiting: state.waiting,
  };
}

/** The primary ENI first; two ENIs are never equal, so that no map's order can show through. */
export const bySlot: Compare<{ readonly slot: EniSlot }> = inTurn(
  byNumber((eni) => eni.slot.networkCard),
  byNumber((eni) => eni.slot.deviceIndex),
);

/** One ENI's counts. `slots` is the instance type's addresses an ENI, less the ENI's own. */
export function eniCensus(eni: Eni, slots: number, now: Instant): EniCensus {
  const tally = tallyOf(eni);
  const rested = tally.cooling.filter((each) => each.until <= now);
  const free = tally.warm + rested.length;
  const freeSecondaries = tally.warmSecondaries + rested.filter((each) => each.secondary).length;
  const leavingEni = eni.phase.kind === "leaving";
  const cooling = tally.cooling.length - rested.length;
  return {
    eni,
    warm: eni.phase.kind === "ready" ? free : 0,
    coming: eni.phase.kind === "awaiting-link" ? free : 0,
    allocated: tally.allocated,
    cooling: leavingEni ? 0 : cooling,
    leaving: tally.leaving + (leavingEni ? free + cooling : 0),
    total: eni.addresses.size,
    freeSecondaries: leavingEni ? 0 : freeSecondaries,
    freePrefixes: leavingEni ? 0 : tally.freePrefixesSince.filter((since) => since <= now).length,
    prefixes: eni.prefixes.length,
    slots,
    slotsUsed: tally.secondaries + eni.prefixes.length,
    nextCooledAt: tally.cooling[rested.length]?.until ?? null,
  };
}

/** What does not change with time. Kept by the ENI's value: a change makes a new one, so an unchanged ENI is counted once. */
type Tally = {
  readonly warm: number;
  readonly warmSecondaries: number;
  readonly allocated: number;
  readonly leaving: number;
  readonly secondaries: number;
  readonly cooling: readonly { readonly until: Instant; readonly secondary: boolean }[]; // Soonest first.
  readonly freePrefixesSince: readonly number[]; // Of each prefix that is or will be wholly free.
};

const tallies = new WeakMap<Eni, Tally>();

function tallyOf(eni: Eni): Tally {
  const known = tallies.get(eni);
  if (known !== undefined) return known;
  const tally = countAddresses(eni);
  tallies.set(eni, tally);
  return tally;
}

function countAddresses(eni: Eni): Tally {
  let [warm, warmSecondaries, allocated, leaving, secondaries] = [0, 0, 0, 0, 0];
  const cooling: { until: Instant; secondary: boolean }[] = [];
  const freeSince = new Map<Ipv4, number>(eni.prefixes.map((prefix) => [prefix.network, -Infinity]));
  for (const address of eni.addresses.values()) {
    const secondary = address.by === "secondary";
    if (secondary) secondaries += 1;
    let since = Infinity;
    switch (address.kind) {
      case "warm":
        since = -Infinity;
        warm += 1;
        if (secondary) warmSecondaries += 1;
        break;
      case "allocated":
        allocated += 1;
        break;
      case "cooling":
        since = address.until;
        cooling.push({ until: address.until, secondary });
        break;
      case "leaving":
        leaving += 1;
        break;
    }
    if (secondary) continue;
    const network = networkOf(address.ip, 28);
    const before = freeSince.get(network);
    if (before !== undefined) freeSince.set(network, Math.max(before, since));
  }
  cooling.sort(byNumber((each) => each.until));
  const freePrefixesSince = [...freeSince.values()].filter((since) => since < Infinity);
  return { warm, warmSecondaries, allocated, leaving, secondaries, cooling, freePrefixesSince };
}
