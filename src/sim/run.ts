/** One seed, from a cluster's first minute to the end of its grace time; and what came of it. */
import { randomInteger } from "../lib/random.ts";
import { HOUR_MS } from "../lib/time.ts";
import { eniCountMax } from "../core/model/instance.ts";
import type { CheckerName, Violation } from "./checkers.ts";
import type { FaultName, FaultProfile } from "./faults.ts";
import { limitsSeenBy } from "./ec2.ts";
import { checkHealed } from "./healed.ts";
import { befall, heal, TICK_MS } from "./misfortunes.ts";
import type { SimNode } from "./node.ts";
import { Sim } from "./sim.ts";
import { beginWorkload, WORKLOAD_NAMES, type WorkloadName } from "./workload.ts";

export type RunOptions = {
  readonly seed: string;
  readonly hours: number;
  readonly profile: FaultProfile;
  readonly without?: ReadonlySet<FaultName>;
  readonly fromMs?: number; // No fault before.
  readonly nodes?: number; // Drawn from the seed when not given.
  readonly workload?: WorkloadName;
  readonly tracing?: boolean;
  /** Lets everything run that is ready to: one turn of the host's event loop. */
  readonly turn: () => Promise<void>;
};

export type RunReport = {
  readonly seed: string;
  readonly nodeHours: number;
  readonly steps: number;
  readonly adds: ReadonlyMap<string, number>;
  readonly removals: ReadonlyMap<string, number>;
  readonly faults: ReadonlyMap<FaultName, number>;
  readonly checkers: ReadonlyMap<CheckerName, number>;
  readonly violations: readonly Violation[];
  readonly leaks: number;
  readonly ec2Calls: number;
  readonly trace: readonly string[];
};

/** How long after the last fault belief and truth must have met, and nothing may be left over. */
export const GRACE_HOURS = 3;
/** More timers than this at one instant is a loop that does not pace itself. */
const STEPS_AT_ONE_INSTANT = 20_000;

export async function runSeed(options: RunOptions): Promise<RunReport> {
  const { seed, hours, profile, without = new Set<FaultName>(), fromMs = 0, tracing = false } = options;
  const nodeCount = options.nodes ?? nodesOf(seed);
  const sim = new Sim({ seed, profile, without, fromMs, tracing, nodeCount });
  const end = hours * HOUR_MS;
  for (const node of sim.nodes) {
    node.start();
    befall(sim, node);
    work(sim, node, end, options.workload);
    tick(sim, node);
  }
  const steps = { count: 0 };
  await pass(sim, end, steps, options.turn);
  let leaks = 0;
  if (sim.checks.violations.length === 0) {
    heal(sim);
    sim.trace("faults are over");
    await pass(sim, end + GRACE_HOURS * HOUR_MS, steps, options.turn);
    if (sim.checks.violations.length === 0) leaks = checkHealed(sim);
  }
  sim.engine.close();
  return {
    seed,
    nodeHours: hours * nodeCount,
    steps: steps.count,
    adds: sim.added,
    removals: sim.removals,
    faults: sim.faults.counts,
    checkers: sim.checks.counts,
    violations: sim.checks.violations,
    leaks,
    ec2Calls: sim.nodes.reduce((sum, { watch }) => sum + watch.callCount, 0),
    trace: sim.lines,
  };
}

/** Half of the seeds are one node alone; the others show what nodes do to one another. */
function nodesOf(seed: string): number {
  let hash = 0;
  for (let at = 0; at < seed.length; at += 1) hash = (Math.imul(hash, 31) + seed.charCodeAt(at)) | 0;
  return [1, 2, 1, 3][hash & 3] ?? 1;
}

/** Time passes until `end`, or until a checker has found something. */
async function pass(
  sim: Sim,
  end: number,
  steps: { count: number },
  turn: () => Promise<void>,
): Promise<void> {
  const { clock, checks, nodes } = sim;
  await turn();
  let [at, here] = [clock.now, 0];
  while (checks.violations.length === 0 && clock.fire(end)) {
    await turn();
    steps.count += 1;
    for (const node of nodes) node.watch.afterStep();
    here = clock.now === at ? here + 1 : 0;
    at = clock.now;
    if (here > STEPS_AT_ONE_INSTANT)
      checks.look("no-broken-promise", `a loop does not pace itself at ${at} ms`);
  }
}

function work(sim: Sim, node: SimNode, end: number, given: WorkloadName | undefined): void {
  const chance = sim.faults.source("workload", node.name);
  const name = given ?? WORKLOAD_NAMES[randomInteger(chance, 0, WORKLOAD_NAMES.length - 1)] ?? "mixed";
  const limits = limitsSeenBy(sim.engine, node.instanceId);
  const capacity = limits === null ? 10 : eniCountMax(limits) * (limits.addressesPerEni - 1);
  sim.trace(
    `${node.name} ${node.instanceId} workload ${name} capacity ${capacity} ${JSON.stringify(node.settings.pool)}`,
  );
  // Kubernetes binds no more pods to a node than it may have: a few beyond what it has addresses for, so that limits are met.
  const most = Math.min(capacity + 2, 110);
  const { runtime } = node;
  beginWorkload(name, {
    clock: sim.clock,
    chance,
    most: Math.floor(most * 0.8),
    going: () => !node.gone && sim.clock.now < end,
    pods: {
      start: (lifeMs) => {
        if (runtime.pods.size < most) runtime.startPod(lifeMs);
      },
      count: () => runtime.pods.size,
      end: (count, afterMs) => void sim.clock.after(afterMs, () => runtime.endOldest(count)),
    },
  });
}

function tick(sim: Sim, node: SimNode): void {
  sim.clock.after(TICK_MS, () => {
    node.watch.tick();
    if (!node.gone) tick(sim, node);
  });
}
