/** The planner's own time for the largest common node: 15 ENIs of 50 addresses, two thirds of them in use. */
import { planPool } from "../../src/core/pool/plan.ts";
import type { NodeState } from "../../src/core/state/node-state.ts";
import { instant } from "../../src/lib/time.ts";
import { bootedNode, podsStart, settingsOf, settle } from "../support/pool-world.ts";
import { quantile, rounded } from "./statistics.ts";

export type Plan = { readonly medianMs: number; readonly p99Ms: number; readonly count: number };

const NOW = instant(1_000_000);
const LIMITS = { addressesPerEni: 50, networkCards: [{ enis: 15 }], nitro: true };
const COUNT = 2_000;

export function measurePlan(): Plan {
  const settings = settingsOf({ warmIpTarget: 100 });
  const full = settle(bootedNode(LIMITS), settingsOf({ warmEniTarget: 15 }), NOW).state;
  const state = podsStart(full, settings, NOW, 500);
  const times: number[] = [];
  for (let i = -200; i < COUNT; i += 1) {
    const fresh = recounted(state);
    const began = performance.now();
    planPool(fresh, settings, NOW);
    if (i >= 0) times.push(performance.now() - began);
  }
  return {
    medianMs: rounded(quantile(times, 0.5)),
    p99Ms: rounded(quantile(times, 0.99)),
    count: COUNT,
  };
}

/** Fresh values, as after a transition on every ENI: nothing is counted from memory. */
function recounted(state: NodeState): NodeState {
  return { ...state, enis: new Map([...state.enis].map(([id, eni]) => [id, { ...eni }])) };
}
