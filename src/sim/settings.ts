/** The operator's settings of one node, drawn from its seed, and drawn again when somebody changes them between two starts. */
import type { AgentSettings } from "../agent/ports.ts";
import { POOL_SETTINGS_DEFAULT, type PoolSettings } from "../core/pool/targets.ts";
import { randomInteger, type Random } from "../lib/random.ts";
import { MINUTE_MS, SECOND_MS } from "../lib/time.ts";

export type NodeSettings = { readonly agent: AgentSettings; readonly pool: PoolSettings };

/** Instance types that differ in what matters: ENIs, addresses an ENI. */
const TYPES = ["t3.medium", "m5.large", "m5.xlarge", "m5.2xlarge", "m5.4xlarge"] as const;

export function drawInstanceType(chance: Random): string {
  return TYPES[Math.floor(chance() * TYPES.length)] ?? "m5.large";
}

export function drawSettings(chance: Random): NodeSettings {
  const cooldownMs = chance() < 0.8 ? 30 * SECOND_MS : randomInteger(chance, 5, 120) * SECOND_MS;
  const pool: PoolSettings = { ...POOL_SETTINGS_DEFAULT, cooldownMs, ...drawTargets(chance) };
  const agent: AgentSettings = {
    cooldownMs,
    plumbing: {
      dataPath: "routed",
      eniMtu: 9_001,
      hostLinkPrefix: "eni",
      mainMark: 0x80,
      nodePort: true,
      snat: chance() < 0.8 ? { ports: "prng", excludedCidrs: [] } : null,
      externalServiceCidrs: [],
    },
    podMtu: 9_001,
    repairIntervalMs: 30 * SECOND_MS,
    sweepIntervalMs: 5 * MINUTE_MS,
    refillIntervalMs: 5 * SECOND_MS,
    leakGraceMs: 5 * MINUTE_MS,
    obstacleMs: 60 * SECOND_MS,
    provisioning: true,
    deleteLeakedEnis: true,
    manageUntagged: chance() < 0.5,
    podSubnets: [],
    podSecurityGroups: [],
  };
  return { agent, pool };
}

/** One of the incumbent's four ways to size the pool. */
function drawTargets(chance: Random): Partial<PoolSettings> {
  const way = chance();
  if (way < 0.3) return { warmEniTarget: chance() < 0.8 ? 1 : 0 };
  if (way < 0.6)
    return {
      warmIpTarget: randomInteger(chance, 1, 10),
      minimumIpTarget: chance() < 0.5 ? randomInteger(chance, 5, 30) : null,
    };
  if (way < 0.8) return { prefixDelegation: true, warmPrefixTarget: 1 };
  return {
    prefixDelegation: true,
    warmIpTarget: randomInteger(chance, 2, 8),
    minimumIpTarget: randomInteger(chance, 4, 20),
  };
}
