import { expect, test } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { configOfNode, NODE_SETTING_KEYS, parseNodePools, poolOf } from "../../src/config/node-settings.ts";
import { rowOf } from "../../src/config/settings.ts";

const ENVIRONMENT = { WARM_IP_TARGET: "5", MAX_ENI: "3" };

function nodeOf(
  pools: string,
  labels: Record<string, string>,
  environment: Record<string, string> = ENVIRONMENT,
) {
  const base = loadConfig(environment);
  const parsed = parseNodePools(pools);
  if (!base.ok || !parsed.ok) throw new Error("the test's own settings are wrong");
  return configOfNode(environment, base.value, parsed.value, labels);
}

const POOLS = JSON.stringify({
  pools: [
    {
      name: "batch",
      nodeLabels: { role: "batch" },
      settings: { WARM_IP_TARGET: 20, MINIMUM_IP_TARGET: "30" },
    },
    { name: "quiet", settings: { WARM_IP_TARGET: "1" } },
  ],
});

test("the environment is the base, a pool goes over it, a label of the node over both, and each value tells where it is from", () => {
  const node = nodeOf(POOLS, { role: "batch", "berth.internal/MINIMUM_IP_TARGET": "40" });
  expect(node.problems).toEqual([]);
  expect(node.loaded.config).toMatchObject({ warmIpTarget: 20, minimumIpTarget: 40, maxEni: 3 });
  expect(node.origins).toMatchObject({
    WARM_IP_TARGET: "pool batch",
    MINIMUM_IP_TARGET: "node label",
    MAX_ENI: "environment",
    WARM_ENI_TARGET: "default",
  });
});

test("a node is in the pool that it names, or in the first whose labels it has, or in none", () => {
  const parsed = parseNodePools(POOLS);
  const pools = parsed.ok ? parsed.value : [];
  expect(poolOf(pools, { role: "batch", "berth.internal/pool": "quiet" })?.name).toBe("quiet");
  expect(poolOf(pools, { role: "batch" })?.name).toBe("batch");
  expect(poolOf(pools, {})).toBeNull();
  expect(nodeOf(POOLS, { "berth.internal/pool": "nowhere" }).problems).toEqual([
    "the node names the pool nowhere, and there is none of that name",
  ]);
});

test("what is wrong is left out and told, and the rest of the pool stands", () => {
  const pools = JSON.stringify({
    pools: [
      {
        name: "odd",
        nodeLabels: {},
        settings: {
          WARM_IP_TARGET: "many",
          MINIMUM_IP_TARGET: "12",
          BERTH_RUN_DIRECTORY: "/tmp",
          NO_SUCH: "1",
        },
      },
    ],
  });
  const node = nodeOf(pools, {});
  expect(node.loaded.config).toMatchObject({ warmIpTarget: 5, minimumIpTarget: 12 });
  expect(node.problems).toEqual([
    'pool odd: WARM_IP_TARGET is "many", allowed is an integer from 0; 0 is off',
    "pool odd: BERTH_RUN_DIRECTORY cannot be set for one node",
    "pool odd: NO_SUCH cannot be set for one node",
  ]);
});

test("settings of a node that contradict one another are left out as a whole", () => {
  const labels = {
    "berth.internal/ENABLE_PREFIX_DELEGATION": "true",
    "berth.internal/WARM_PREFIX_TARGET": "0",
  };
  const node = nodeOf(`{"pools":[]}`, labels, {});
  expect(node.loaded.config.prefixDelegation).toBe(false);
  expect(node.origins["ENABLE_PREFIX_DELEGATION"]).toBe("default");
  expect(node.problems.join()).toContain("left out");
});

test("a file that is no pools says where it is wrong", () => {
  expect(parseNodePools("{")).toMatchObject({ ok: false, error: expect.stringContaining("no JSON") });
  expect(parseNodePools(`{"pools":[{"name":"UPPER","settings":{}}]}`)).toMatchObject({
    ok: false,
    error: expect.stringContaining("pools.0.name"),
  });
});

test("each setting that a node may have of its own can be a label's key", () => {
  for (const key of NODE_SETTING_KEYS) expect(rowOf(key).name).toMatch(/^[A-Za-z0-9][-A-Za-z0-9_.]{0,62}$/);
});
