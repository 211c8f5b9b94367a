/** What must hold of every plan, whatever the node, the settings and the moment. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { PoolAction } from "../../../src/core/model/action.ts";
import { isFree } from "../../../src/core/pool/cooldown.ts";
import { planPool } from "../../../src/core/pool/plan.ts";
import { enisOverLimit } from "../../../src/core/pool/slots.ts";
import { ruleOf, type PoolSettings } from "../../../src/core/pool/targets.ts";
import { viewOf } from "../../../src/core/pool/view.ts";
import { takeCensus } from "../../../src/core/state/census.ts";
import { checkInvariants } from "../../../src/core/state/invariants.ts";
import type { NodeState } from "../../../src/core/state/node-state.ts";
import { cidr4Contains } from "../../../src/lib/ip.ts";
import { after, HOUR_MS, instant, type Instant } from "../../../src/lib/time.ts";
import { arbNodeState, arbPoolSettings, NOW } from "../../support/arbitraries.ts";
import { applyAction, printAction } from "../../support/pool-world.ts";

const LATER = after(NOW, 24 * HOUR_MS); // Every obstacle, rest and youth is over.

/** Every plan from the state on, each applied; ends at the first hold. Fails when there is none within the steps. */
function walk(
  state: NodeState,
  settings: PoolSettings,
  now: Instant,
  see: (state: NodeState, action: PoolAction) => void,
): NodeState {
  let current = state;
  const seen: string[] = [];
  for (let step = 0; step < 60; step += 1) {
    const plan = planPool(current, settings, now);
    if (plan.kind === "hold") return current;
    seen.push(printAction(plan.action));
    see(current, plan.action);
    current = applyAction(current, plan.action, now);
  }
  throw new Error(`no hold after ${seen.length} steps: ${seen.join("; ")}`);
}

test("generated nodes are sound", () => {
  fc.assert(
    fc.property(arbNodeState, (state) => {
      expect(checkInvariants(state)).toEqual([]);
    }),
  );
});

test("only free addresses and wholly free prefixes are given back, never the primary ENI, never one in use or too young", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, (state, settings) => {
      walk(state, settings, NOW, (before, action) => {
        if (action.kind === "attach-eni") return;
        const eni = before.enis.get(action.eni);
        const addresses = [...(eni?.addresses.values() ?? [])];
        switch (action.kind) {
          case "unassign-addresses":
            for (const ip of action.ips) {
              const address = eni?.addresses.get(ip);
              expect(address !== undefined && address.by === "secondary" && isFree(address, NOW)).toBe(true);
            }
            break;
          case "unassign-prefixes":
            for (const prefix of action.prefixes) {
              const inside = addresses.filter((address) => cidr4Contains(prefix, address.ip));
              expect(inside.length === 16 && inside.every((address) => isFree(address, NOW))).toBe(true);
            }
            break;
          case "detach-eni":
            expect(eni).toMatchObject({ role: "secondary", attachmentId: action.attachmentId });
            expect(eni?.phase.kind).not.toBe("leaving");
            expect(NOW - (eni?.attachedAt ?? NOW)).toBeGreaterThanOrEqual(settings.eniLifeMinMs);
            for (const address of addresses)
              expect(isFree(address, NOW) || address.kind === "leaving").toBe(true);
            break;
          case "assign-addresses":
          case "assign-prefixes":
          case "delete-eni":
            break;
        }
      });
    }),
  );
});

test("plans come to a hold, each step leaves a sound node, and what was given back is not asked for again", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, fc.constantFrom(NOW, LATER), (state, settings, now) => {
      let shrunk: PoolAction | null = null;
      walk(state, settings, now, (before, action) => {
        expect(checkInvariants(before)).toEqual([]);
        const grows = action.kind.startsWith("assign") || action.kind === "attach-eni";
        // Making room for the other unit is the one shrinking that growing follows; a lowered MAX_ENI takes ENIs first of all.
        if (grows && shrunk !== null) throw new Error(`${printAction(shrunk)}, then ${printAction(action)}`);
        const counts = takeCensus(before, now);
        const mixed = counts.enis.some((each) => each.prefixes > 0 && each.slotsUsed > each.prefixes);
        const other =
          ruleOf(settings, state.instance.limits).unit === "prefix"
            ? counts.enis.some((each) => each.freeSecondaries > 0)
            : counts.prefixes > 0;
        if (!grows && !mixed && !other && enisOverLimit(before, settings) <= 0) shrunk = action;
      });
    }),
    { numRuns: 300 },
  );
});

test("growth keeps to the limits of the instance, of MAX_ENI and of max pods", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, (state, settings) => {
      const end = walk(state, settings, NOW, (before, action) => {
        if (action.kind === "attach-eni") {
          expect(enisOverLimit(before, settings)).toBeLessThan(0);
          expect(action.addressCount + action.prefixCount).toBeGreaterThan(0);
        }
        if (action.kind === "assign-addresses" || action.kind === "assign-prefixes")
          expect(action.count).toBeGreaterThan(0);
        if (action.kind === "attach-eni" || action.kind.startsWith("assign")) {
          const { stock } = viewOf(before, settings, NOW);
          expect(stock.allocated + stock.free).toBeLessThan(settings.maxPods ?? Infinity);
        }
      });
      expect(checkInvariants(end)).toEqual([]); // Slots and cards: the limits of the instance type.
    }),
  );
});

test("whatever stands in the way is not asked for before its time", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, (state, settings) => {
      walk(state, settings, NOW, (before, action) => {
        for (const obstacle of before.obstacles) {
          if (obstacle.until <= NOW) continue;
          if ("operation" in obstacle) {
            const calls: Record<PoolAction["kind"], string> = {
              "assign-addresses": "AssignPrivateIpAddresses",
              "assign-prefixes": "AssignPrivateIpAddresses",
              "unassign-addresses": "UnassignPrivateIpAddresses",
              "unassign-prefixes": "UnassignPrivateIpAddresses",
              "attach-eni": "CreateNetworkInterface AttachNetworkInterface",
              "detach-eni": "DetachNetworkInterface",
              "delete-eni": "DeleteNetworkInterface",
            };
            expect(calls[action.kind]).not.toContain(obstacle.operation);
          } else {
            const subnet =
              action.kind === "attach-eni"
                ? action.subnetId
                : action.kind.startsWith("assign")
                  ? before.enis.get(action.eni)?.subnetId
                  : null;
            const prefixes =
              action.kind === "assign-prefixes" || (action.kind === "attach-eni" && action.prefixCount > 0);
            if (obstacle.kind === "subnet-exhausted" || prefixes) expect(subnet).not.toBe(obstacle.subnetId);
          }
        }
      });
    }),
  );
});

test("the order in which ENIs came into the map does not show in the plan", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, (state, settings) => {
      const turned = { ...state, enis: new Map([...state.enis].toReversed()) };
      expect(planPool(turned, settings, NOW)).toEqual(planPool(state, settings, NOW));
    }),
  );
});

test("a hold stays the same until the instant that it names", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, fc.nat({ max: 100 }), (state, settings, percent) => {
      const rested = walk(state, settings, NOW, () => undefined);
      const hold = planPool(rested, settings, NOW);
      if (hold.kind !== "hold") throw new Error("walk ends at a hold");
      expect(hold.retryAt ?? Infinity).toBeGreaterThan(NOW);
      const end = hold.retryAt ?? LATER;
      const between = instant(NOW + Math.floor(((end - 1 - NOW) * percent) / 100));
      const later = planPool(rested, settings, between);
      // With provisioning off, what is forbidden may be another thing by then; it stays forbidden.
      if (settings.provisioning) expect(later).toEqual(hold);
      else expect(later).toMatchObject({ kind: "hold", reason: hold.reason });
    }),
    { numRuns: 300 },
  );
});

test("with nothing in the way every waiting ADD has an address at the hold, or is told of a limit", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, (state, settings) => {
      const able = { ...settings, provisioning: true };
      const rested = walk({ ...state, schedulable: true, obstacles: [] }, able, LATER, () => undefined);
      const { stock } = viewOf(rested, able, LATER);
      const hold = planPool(rested, able, LATER);
      if (stock.free + stock.otherFree >= rested.waiting) return;
      expect(hold).toMatchObject({ kind: "hold" });
      if (hold.kind === "hold") expect(["eni-limit", "max-pods", "cooling"]).toContain(hold.reason);
    }),
  );
});
