/** Generators for properties. What they make is valid by construction: it is made by the production transitions. */
import * as fc from "fast-check";
import type { EniId } from "../../src/core/model/eni.ts";
import type { InstanceLimits } from "../../src/core/model/instance.ts";
import type { PoolSettings } from "../../src/core/pool/targets.ts";
import type { NodeState, Obstacle } from "../../src/core/state/node-state.ts";
import {
  addressAllocated,
  addressesAssigned,
  addressesLeaving,
  addressReleased,
  eniAttached,
  eniLeaving,
  eniReady,
  foreignEnisSeen,
  looseEniFound,
  obstacleMet,
  prefixesAssigned,
  prefixesLeaving,
} from "../../src/core/state/transitions.ts";
import { cidr4Contains } from "../../src/lib/ip.ts";
import { after, instant, type Instant } from "../../src/lib/time.ts";
import {
  allocationOf,
  bootedNode,
  eniAt,
  freshAddresses,
  freshPrefixes,
  settingsOf,
  SUBNET_A,
  SUBNET_B,
} from "./pool-world.ts";

/** Every generated state is of this instant: some cooling has ended by then, some not; some ENIs are young, some not. */
export const NOW: Instant = instant(1_000_000);

export const arbLimits: fc.Arbitrary<InstanceLimits> = fc.record({
  addressesPerEni: fc.integer({ min: 2, max: 16 }),
  networkCards: fc.array(fc.record({ enis: fc.integer({ min: 1, max: 5 }) }), { minLength: 1, maxLength: 2 }),
  nitro: fc.boolean(),
});

const arbTarget = fc.option(fc.integer({ min: 0, max: 40 }), { nil: null });

export const arbPoolSettings: fc.Arbitrary<PoolSettings> = fc
  .record({
    warmEniTarget: fc.integer({ min: 0, max: 4 }),
    warmIpTarget: arbTarget,
    minimumIpTarget: arbTarget,
    warmPrefixTarget: fc.option(fc.integer({ min: 0, max: 4 }), { nil: null }),
    prefixDelegation: fc.boolean(),
    maxEni: fc.option(fc.integer({ min: 1, max: 6 }), { nil: null }),
    maxPods: fc.option(fc.integer({ min: 1, max: 110 }), { nil: null }),
    manageNonSchedulable: fc.boolean(),
    provisioning: fc.constantFrom(true, true, true, false),
    podsOnPrimary: fc.constantFrom(true, true, true, false),
    allNetworkCards: fc.boolean(),
    podSubnets: fc.constantFrom([], [SUBNET_A], [SUBNET_B], [SUBNET_A, SUBNET_B]),
  })
  .map(settingsOf);

/** One ENI's worth of choices. Counts are wishes: what does not fit the limits is left out. */
const arbEniPlan = fc.record({
  subnet: fc.constantFrom(SUBNET_A, SUBNET_B),
  phase: fc.constantFrom("ready", "ready", "ready", "awaiting-link", "leaving"),
  singles: fc.integer({ min: 0, max: 15 }),
  prefixes: fc.integer({ min: 0, max: 4 }),
  ageMs: fc.integer({ min: 0, max: 200_000 }),
  /** By address: w(arm), a(llocated), c(ooling), r(ested), l(eaving). */
  fates: fc.array(fc.constantFrom("w", "w", "w", "a", "a", "c", "r", "l"), { minLength: 1, maxLength: 20 }),
});

export const arbObstacle: fc.Arbitrary<Obstacle> = fc
  .record({
    kind: fc.constantFrom("subnet-exhausted", "prefixes-exhausted", "throttled", "access-denied", "failing"),
    subnetId: fc.constantFrom(SUBNET_A, SUBNET_B),
    operation: arbOperation(),
    until: arbSoon(),
  })
  .map(({ kind, subnetId, operation, until }): Obstacle => {
    if (kind === "subnet-exhausted" || kind === "prefixes-exhausted") return { kind, subnetId, until };
    if (kind === "failing") return { kind, operation, detail: "InternalError", attempt: 0, until };
    return { kind, operation, attempt: 0, until };
  });

/** A node as it may be at NOW: ENIs, addresses in all states, foreign and loose ENIs, obstacles, waiting ADDs. */
export const arbNodeState: fc.Arbitrary<NodeState> = fc
  .record({
    limits: arbLimits,
    enis: fc.array(arbEniPlan, { minLength: 1, maxLength: 6 }),
    foreign: fc.integer({ min: 0, max: 1 }),
    loose: fc.integer({ min: 0, max: 1 }),
    obstacles: fc.array(arbObstacle, { maxLength: 2 }),
    waiting: fc.integer({ min: 0, max: 40 }),
    schedulable: fc.constantFrom(true, true, true, false),
  })
  .map(({ limits, enis, foreign, loose, obstacles, waiting, schedulable }) => {
    const slots = limits.networkCards.flatMap((card, networkCard) =>
      Array.from({ length: card.enis }, (_, deviceIndex) => ({ networkCard, deviceIndex })),
    );
    const usable = slots.filter((slot) => slot.deviceIndex > 0);
    let state = bootedNode(limits);
    state = furnish(state, "eni-0" as EniId, enis[0], limits);
    for (const plan of enis.slice(1)) {
      const slot = usable.shift();
      if (slot === undefined) break;
      const eni = eniAt(state, slot, plan.subnet, after(NOW, -plan.ageMs));
      state = furnish(eniReady(eniAttached(state, eni), eni.id), eni.id, plan, limits);
      if (plan.phase === "awaiting-link") state = withPhase(state, eni.id, plan.ageMs);
      const held = [...(state.enis.get(eni.id)?.addresses.values() ?? [])];
      if (plan.phase === "leaving" && held.every((address) => address.kind !== "allocated")) {
        state = eniLeaving(state, eni.id, NOW);
      }
    }
    const spare = usable.shift();
    if (foreign > 0 && spare !== undefined) {
      const { id, mac, slot } = eniAt(state, spare, SUBNET_A, NOW);
      state = foreignEnisSeen(state, [{ id, mac, slot, reason: "no-manage" }]);
    }
    if (loose > 0) state = looseEniFound(state, { id: "eni-loose" as EniId, attachmentId: null, since: NOW });
    for (const obstacle of obstacles) state = obstacleMet(state, obstacle);
    return { ...state, waiting, schedulable };
  });

function furnish(
  state: NodeState,
  id: EniId,
  plan: { singles: number; prefixes: number; fates: readonly string[] } | undefined,
  limits: InstanceLimits,
): NodeState {
  const eni = state.enis.get(id);
  if (plan === undefined || eni === undefined) return state;
  const slots = limits.addressesPerEni - 1;
  const prefixes = limits.nitro ? Math.min(plan.prefixes, slots) : 0;
  const singles = Math.min(plan.singles, slots - prefixes);
  let next = prefixesAssigned(state, id, freshPrefixes(state, eni.subnetId, prefixes));
  next = addressesAssigned(next, id, freshAddresses(next, eni.subnetId, singles));
  let turn = 0;
  for (const { ip, by } of next.enis.get(id)?.addresses.values() ?? []) {
    const fate = plan.fates[turn % plan.fates.length] ?? "w";
    turn += 1;
    if (fate === "l" && by === "secondary") next = addressesLeaving(next, id, [ip]);
    if (fate !== "a" && fate !== "c" && fate !== "r") continue;
    const allocation = allocationOf(`${id}-${turn}`, eni, ip);
    next = addressAllocated(next, allocation, NOW);
    if (fate === "c") next = addressReleased(next, allocation.id, after(NOW, 1 + ((turn * 997) % 30_000)));
    if (fate === "r") next = addressReleased(next, allocation.id, after(NOW, -turn));
  }
  // A prefix leaves as a whole, so only one that nobody holds can.
  const leavable = next.enis
    .get(id)
    ?.prefixes.find((prefix) =>
      [...(next.enis.get(id)?.addresses.values() ?? [])].every(
        (address) => !cidr4Contains(prefix, address.ip) || address.kind === "warm",
      ),
    );
  return plan.fates[0] === "l" && leavable !== undefined ? prefixesLeaving(next, id, [leavable]) : next;
}

function withPhase(state: NodeState, id: EniId, ageMs: number): NodeState {
  const eni = state.enis.get(id);
  if (eni === undefined) return state;
  const phase = { kind: "awaiting-link", since: after(NOW, -ageMs) } as const;
  return { ...state, enis: new Map(state.enis).set(id, { ...eni, phase }) };
}

function arbOperation(): fc.Arbitrary<string> {
  return fc.constantFrom(
    "AssignPrivateIpAddresses",
    "UnassignPrivateIpAddresses",
    "CreateNetworkInterface",
    "AttachNetworkInterface",
    "DetachNetworkInterface",
  );
}

function arbSoon(): fc.Arbitrary<Instant> {
  return fc.integer({ min: -10_000, max: 120_000 }).map((ms) => after(NOW, ms));
}
