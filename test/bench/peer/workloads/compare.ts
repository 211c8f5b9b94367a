/** Workloads of pods over virtual hours, each served twice: who waits, what lies idle, what EC2 is asked, and what that costs. */
import { POOL_SETTINGS_DEFAULT, type PoolSettings } from "../../../../src/core/pool/targets.ts";
import { seededRandom } from "../../../../src/lib/random.ts";
import { HOUR_MS, MINUTE_MS } from "../../../../src/lib/time.ts";
import { VirtualClock } from "../../../../src/sim/clock.ts";
import { WORKLOAD_NAMES, type WorkloadName } from "../../../../src/sim/workload.ts";
import { rounded } from "../../statistics.ts";
import { createBerth } from "./berth.ts";
import { createCloud } from "./cloud.ts";
import { createIncumbent } from "./incumbent.ts";
import type { NodePool, PoolOptions } from "./pool.ts";
import { type PodLife, PODS_MAX, traceOf } from "./trace.ts";

export type Outcome = {
  readonly waitingShare: number; // Of all pods, those that had no address at once.
  readonly idle: number; // Addresses that nobody has, over time.
  readonly callsPerHour: number;
  readonly price: number; // An hour: 3600 × idle + 600 × calls.
};

export type WorkloadFigure = {
  readonly name: WorkloadName;
  readonly setting: string;
  readonly ours: Outcome;
  readonly peer: Outcome;
  readonly holds: boolean; // No more of our pods wait.
};

const M5_4XLARGE = { enis: 8, addressesPerEni: 30 };
const SETTINGS: readonly { readonly name: string; readonly settings: Partial<PoolSettings> }[] = [
  { name: "WARM_ENI_TARGET=1", settings: {} },
  { name: "WARM_IP_TARGET=5", settings: { warmIpTarget: 5 } },
  { name: "WARM_IP_TARGET=2 MINIMUM_IP_TARGET=20", settings: { warmIpTarget: 2, minimumIpTarget: 20 } },
  { name: "ENABLE_PREFIX_DELEGATION=true WARM_PREFIX_TARGET=1", settings: { prefixDelegation: true } },
];
const SEEDS = 20;
const HOURS = 8;
const BOOT_MS = 2 * MINUTE_MS;

/** Means over the seeds. */
export function compareWorkloads({ quick }: { readonly quick: boolean }): readonly WorkloadFigure[] {
  const seeds = Array.from({ length: quick ? 2 : SEEDS }, (_, at) => `seed-${at}`);
  return SETTINGS.flatMap(({ name: setting, settings }) =>
    WORKLOAD_NAMES.map((name) => {
      const each = seeds.map((seed) => {
        const trace = traceOf(name, seed, HOURS);
        const options = { seed, settings: { ...POOL_SETTINGS_DEFAULT, ...settings }, trace };
        return { ours: play(createBerth, options), peer: play(createIncumbent, options) };
      });
      const ours = meanOf(each.map((both) => both.ours));
      const peer = meanOf(each.map((both) => both.peer));
      return { name, setting, ours, peer, holds: ours.waitingShare <= peer.waitingShare };
    }),
  );
}

type Played = { readonly seed: string; readonly settings: PoolSettings; readonly trace: readonly PodLife[] };

function play(create: (options: PoolOptions) => NodePool, { seed, settings, trace }: Played): Outcome {
  const clock = new VirtualClock();
  const cloud = createCloud(seed);
  const random = seededRandom(`${seed}/policy`);
  const pool = create({ clock, cloud, random, settings, limits: M5_4XLARGE, podsMax: PODS_MAX });
  while (clock.fire(BOOT_MS)); // Both pools have come to rest when the first pods come.
  const callsBefore = cloud.calls();
  let waited = 0;
  for (const { name, startMs, endMs } of trace) {
    clock.after(startMs, () => {
      let atOnce = false;
      pool.add(name, () => (atOnce = true));
      if (!atOnce) waited += 1;
    });
    clock.after(endMs, () => pool.del(name));
  }
  const end = BOOT_MS + HOURS * HOUR_MS;
  let idleMs = 0; // Address-milliseconds.
  let [at, idle] = [BOOT_MS, pool.held() - pool.assigned()];
  while (clock.fire(end)) {
    idleMs += idle * (clock.now - at);
    at = clock.now;
    idle = pool.held() - pool.assigned();
  }
  idleMs += idle * (end - at);
  const meanIdle = idleMs / (end - BOOT_MS);
  const callsPerHour = (cloud.calls() - callsBefore) / HOURS;
  return {
    waitingShare: trace.length === 0 ? 0 : waited / trace.length,
    idle: meanIdle,
    callsPerHour,
    price: 3_600 * meanIdle + 600 * callsPerHour,
  };
}

function meanOf(outcomes: readonly Outcome[]): Outcome {
  const mean = (pick: (outcome: Outcome) => number): number =>
    rounded(outcomes.reduce((sum, each) => sum + pick(each), 0) / outcomes.length);
  return {
    waitingShare: mean(({ waitingShare }) => waitingShare),
    idle: mean(({ idle }) => idle),
    callsPerHour: mean(({ callsPerHour }) => callsPerHour),
    price: mean(({ price }) => price),
  };
}
