/** Config → the plain settings that other rooms define for themselves. */
import type { PoolSettings } from "../core/pool/targets.ts";
import type { Config } from "./settings.ts";

/** What the planner goes by. */
export function poolSettings(config: Config): PoolSettings {
  const { warmEniTarget, warmIpTarget, minimumIpTarget, warmPrefixTarget, prefixDelegation } = config;
  const { prefixFallback } = config;
  const { maxEni, maxPods, cooldownMs, eniLifeMinMs, linkWaitMs, manageNonSchedulable, provisioning } =
    config;
  const { podsOnPrimary, allNetworkCards, podSubnets, podSecurityGroups } = config;
  return {
    warmEniTarget,
    warmIpTarget,
    minimumIpTarget,
    warmPrefixTarget,
    prefixDelegation,
    prefixFallback,
    maxEni,
    maxPods,
    cooldownMs,
    eniLifeMinMs,
    linkWaitMs,
    manageNonSchedulable,
    provisioning,
    podsOnPrimary,
    allNetworkCards,
    podSubnets,
    podSecurityGroups,
    expectedPods: 0, // The API server's to tell.
  };
}

/** What the plumbing planner goes by: the shape of core/plumbing's PlumbingSettings, which this room does not import. */
export function plumbingSettings(config: Config) {
  return {
    dataPath: config.dataPath,
    eniMtu: config.eniMtu,
    hostLinkPrefix: config.hostLinkPrefix,
    mainMark: config.connmark,
    nodePort: config.nodePortSupport,
    snat: config.externalSnat
      ? null
      : { ports: config.randomizeSnat, excludedCidrs: config.excludeSnatCidrs },
    externalServiceCidrs: config.externalServiceCidrs,
  };
}

/** What the agent's walks and loops go by: the shape of the agent's AgentSettings, which this room does not import. */
export function agentSettings(config: Config) {
  const { cooldownMs, podMtu, repairIntervalMs, sweepIntervalMs, refillIntervalMs, leakGraceMs } = config;
  const { obstacleMs, provisioning, deleteLeakedEnis, manageUntagged, podSubnets, podSecurityGroups } =
    config;
  return {
    cooldownMs,
    plumbing: plumbingSettings(config),
    podMtu,
    repairIntervalMs,
    sweepIntervalMs,
    refillIntervalMs,
    leakGraceMs,
    obstacleMs,
    provisioning,
    deleteLeakedEnis,
    manageUntagged,
    podSubnets,
    podSecurityGroups,
  };
}
