import { expect, test } from "vitest";
import type { InstanceLimits } from "../../../src/core/model/instance.ts";
import { chooseAddress } from "../../../src/core/pool/choose.ts";
import { planPool } from "../../../src/core/pool/plan.ts";
import type { NodeState } from "../../../src/core/state/node-state.ts";
import { instant } from "../../../src/lib/time.ts";
import { bootedNode, keyOf, podsStart, settingsOf, settle } from "../../support/pool-world.ts";

const NOW = instant(1_000_000);
const LARGEST: InstanceLimits = { addressesPerEni: 50, networkCards: [{ enis: 15 }], nitro: true };

/** Fresh values, as after transitions on every ENI: nothing is counted from memory. */
function recounted(state: NodeState): NodeState {
  return { ...state, enis: new Map([...state.enis].map(([id, eni]) => [id, { ...eni }])) };
}

function medianMs(work: () => void): number {
  for (let i = 0; i < 50; i += 1) work();
  const times = Array.from({ length: 51 }, () => {
    const began = performance.now();
    work();
    return performance.now() - began;
  });
  return times.sort((a, b) => a - b)[25] ?? Infinity;
}

// How long they take is in the bench; here only what would be a mistake of a whole order shows.
test("planning 15 ENIs of 50 addresses takes milliseconds at most, and choosing an address far less", () => {
  const settings = settingsOf({ warmIpTarget: 100 });
  const start = settle(bootedNode(LARGEST), settingsOf({ warmEniTarget: 15 }), NOW).state;
  const state = podsStart(start, settings, NOW, 500);
  expect(state.enis.size).toBe(15);
  const planMs = medianMs(() => planPool(recounted(state), settings, NOW));
  expect(planMs).toBeLessThan(10);
  expect(medianMs(() => chooseAddress(state, keyOf("new"), settings, NOW))).toBeLessThan(planMs);
});
