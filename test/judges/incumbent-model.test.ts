// The bench's model of the AWS VPC CNI's warm pool is held to the same rows as the real daemon in aws-vpc-cni.test.ts, and so is the way in
// which the bench drives our own planner: what both compare is then what both would do.
import { describe, expect, test } from "vitest";
import { POOL_SETTINGS_DEFAULT, type PoolSettings } from "../../src/core/pool/targets.ts";
import { seededRandom } from "../../src/lib/random.ts";
import { MINUTE_MS, SECOND_MS } from "../../src/lib/time.ts";
import { VirtualClock } from "../../src/sim/clock.ts";
import { createBerth } from "../bench/peer/workloads/berth.ts";
import { createCloud } from "../bench/peer/workloads/cloud.ts";
import { createIncumbent } from "../bench/peer/workloads/incumbent.ts";
import type { NodePool, PoolOptions } from "../bench/peer/workloads/pool.ts";
import { WARM_POOL_ROWS } from "./warm-pool-rows.ts";

const M5_XLARGE = { enis: 4, addressesPerEni: 15 };

function settingsOf(env: Readonly<Record<string, string>>): PoolSettings {
  const number = (name: string): number | null => (env[name] === undefined ? null : Number(env[name]));
  return {
    ...POOL_SETTINGS_DEFAULT,
    warmEniTarget: number("WARM_ENI_TARGET") ?? 1,
    warmIpTarget: number("WARM_IP_TARGET"),
    minimumIpTarget: number("MINIMUM_IP_TARGET"),
    warmPrefixTarget: number("WARM_PREFIX_TARGET") ?? 1,
    prefixDelegation: env["ENABLE_PREFIX_DELEGATION"] === "true",
    maxEni: number("MAX_ENI"),
  };
}

function start(
  create: (options: PoolOptions) => NodePool,
  settings: PoolSettings,
  limits = M5_XLARGE,
): { readonly clock: VirtualClock; readonly pool: NodePool } {
  const clock = new VirtualClock();
  const options = {
    clock,
    cloud: createCloud("row", "instant"),
    random: seededRandom("row"),
    settings,
    limits,
  };
  return { clock, pool: create({ ...options, podsMax: 110 }) };
}

function pass({ clock }: { readonly clock: VirtualClock }, ms: number): void {
  const end = clock.now + ms;
  while (clock.fire(end));
}

describe.each([
  { name: "the incumbent's model", create: createIncumbent },
  { name: "our planner as the bench drives it", create: createBerth },
])("$name", ({ create }) => {
  test.each(WARM_POOL_ROWS)("holds $holds with $settings", ({ settings, holds }) => {
    const node = start(create, settingsOf(settings));
    pass(node, 5 * MINUTE_MS);
    expect(node.pool.shape()).toMatchObject(holds);
  });
});

test("the incumbent's model grows and shrinks as the real daemon did on the same steps", () => {
  const node = start(createIncumbent, POOL_SETTINGS_DEFAULT, { enis: 8, addressesPerEni: 30 });
  pass(node, 1);
  expect(node.pool.shape()).toMatchObject({ enis: 1, addresses: 29 });
  let [refused, served] = [0, 0];
  for (let pod = 0; pod < 100; pod += 1) {
    let atOnce = false;
    node.pool.add(`pod-${pod}`, () => {
      atOnce = true;
      served += 1;
    });
    if (!atOnce) refused += 1;
  }
  expect(refused).toBe(71);
  pass(node, MINUTE_MS);
  expect(served).toBe(100);
  expect(node.pool.shape()).toMatchObject({ enis: 4, addresses: 116 });
  for (let pod = 0; pod < 100; pod += 1) node.pool.del(`pod-${pod}`);
  pass(node, 29 * SECOND_MS);
  expect(node.pool.shape().enis).toBe(4); // Its addresses still rest.
  pass(node, 3 * MINUTE_MS);
  expect(node.pool.shape()).toMatchObject({ enis: 1, addresses: 29 });
});
