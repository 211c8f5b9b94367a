import { expect, test } from "vitest";
import { instanceLimits } from "../../../src/core/model/instance-limits.ts";
import { maxPodsOf } from "../../../src/core/pool/max-pods.ts";
import { POOL_SETTINGS_DEFAULT, type PoolSettings } from "../../../src/core/pool/targets.ts";

function maxPods(type: string, settings: Partial<PoolSettings> = {}, cap: number | null = null): number {
  const limits = instanceLimits(type);
  if (limits === null) throw new Error(`${type} is not in the table`);
  return maxPodsOf(limits, { ...POOL_SETTINGS_DEFAULT, ...settings }, cap);
}

// As in AWS's table eni-max-pods.txt, and as its max-pods-calculator counts.
test.each([
  ["m5.large", {}, null, 29],
  ["t3.small", {}, null, 11],
  ["c5.4xlarge", {}, null, 234],
  ["m5.large", { podsOnPrimary: false }, null, 20],
  ["m5.large", { prefixDelegation: true }, null, 434],
  ["m5.large", { prefixDelegation: true }, 110, 110],
  ["m4.large", { prefixDelegation: true }, null, 20], // Not Nitro: no prefixes.
  ["m5.large", { maxEni: 2 }, null, 20],
  ["m5.large", { maxPods: 10 }, null, 12],
] as const)("%s with %j and a cap of %s has room for %i pods", (type, settings, cap, count) => {
  expect(maxPods(type, settings, cap)).toBe(count);
});
