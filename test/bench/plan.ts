/** The planner's own time for the largest common node: 15 ENIs of 50 addresses, two thirds of them in use. */
import { planPool } from "../../src/core/pool/plan.ts";
import type { NodeState } from "../../src/core/state/node-state.ts";
import { instant } from "../../src/lib/time.ts";
import { bootedNode, podsStart, settingsOf, settle } from "../support/pool-world.ts";
import { sleep } from "./stage.ts";
import { median, quantile, rounded } from "./statistics.ts";

export type Plan = { readonly medianMs: number; readonly p99Ms: number; readonly count: number };

const NOW = instant(1_000_000);
const LIMITS = { addressesPerEni: 50, networkCards: [{ enis: 15 }], nitro: true };
/** Short series with a rest before each, so that a busy machine takes the processor between them rather than within. */
const SERIES = 20;
const PLANS = 200;

export async function measurePlan(): Promise<Plan> {
  const settings = settingsOf({ warmIpTarget: 100 });
  const full = settle(bootedNode(LIMITS), settingsOf({ warmEniTarget: 15 }), NOW).state;
  const state = podsStart(full, settings, NOW, 500);
  const series: number[][] = [];
  for (let at = -2; at < SERIES; at += 1) {
    await sleep(10);
    const times: number[] = [];
    for (let plan = 0; plan < PLANS; plan += 1) {
      const fresh = recounted(state);
      const began = performance.now();
      planPool(fresh, settings, NOW);
      times.push(performance.now() - began);
    }
    if (at >= 0) series.push(times); // The first two warm up.
  }
  return {
    medianMs: rounded(median(series.flat())),
    p99Ms: rounded(median(series.map((times) => quantile(times, 0.99)))),
    count: SERIES * PLANS,
  };
}

/** Fresh values, as after a transition on every ENI: nothing is counted from memory. */
function recounted(state: NodeState): NodeState {
  return { ...state, enis: new Map([...state.enis].map(([id, eni]) => [id, { ...eni }])) };
}
