/** What a scrape of the metrics looks at. */
import type { Agent } from "../agent/agent.ts";
import { ruleOf } from "../core/pool/targets.ts";
import type { NodeLook } from "../telemetry/node-gauges.ts";

export function lookOf(agent: Agent): NodeLook {
  const { state } = agent.cell;
  const rule = ruleOf(agent.pool, state.instance.limits);
  return {
    state,
    now: agent.ports.time.now(),
    maxEni: agent.pool.maxEni,
    prefixDelegation: rule.unit === "prefix",
    target: { warmAddresses: rule.warm, minimumAddresses: rule.minimum, warmPrefixes: rule.warmPrefixes },
  };
}
