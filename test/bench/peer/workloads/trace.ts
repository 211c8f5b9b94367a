/** Pods that come to a node and go, drawn once for a seed: the same for whoever serves them. */
import { seededRandom } from "../../../../src/lib/random.ts";
import { HOUR_MS } from "../../../../src/lib/time.ts";
import { VirtualClock } from "../../../../src/sim/clock.ts";
import { WORKLOADS, type WorkloadName } from "../../../../src/sim/workload.ts";

/** Milliseconds from the node's boot. */
export type PodLife = { readonly name: string; readonly startMs: number; readonly endMs: number };

/** What Kubernetes binds to a node at most. */
export const PODS_MAX = 110;

/** At the workload's own pace; pods that outlive the trace end with it. In the order of their starts. */
export function traceOf(workload: WorkloadName, seed: string, hours: number): readonly PodLife[] {
  const clock = new VirtualClock();
  const end = hours * HOUR_MS;
  const living = new Map<string, number>(); // Start by name; a Map keeps the order.
  const ended: PodLife[] = [];
  const finish = (name: string): void => {
    const startMs = living.get(name);
    if (startMs === undefined) return;
    living.delete(name);
    ended.push({ name, startMs, endMs: Math.max(clock.now, startMs + 1) });
  };
  let made = 0;
  WORKLOADS[workload].begin(
    {
      clock,
      chance: seededRandom(`${seed}/${workload}`),
      going: () => clock.now < end,
      most: PODS_MAX,
      pods: {
        start: (lifeMs) => {
          if (living.size >= PODS_MAX) return;
          made += 1;
          const name = `pod-${made}`;
          living.set(name, clock.now);
          clock.after(lifeMs, () => finish(name));
        },
        count: () => living.size,
        end: (count, afterMs) => {
          const oldest = [...living.keys()].slice(0, count);
          clock.after(afterMs, () => oldest.forEach(finish));
        },
      },
    },
    1,
  );
  while (clock.fire(end));
  for (const name of [...living.keys()]) finish(name);
  return ended.sort((a, b) => a.startMs - b.startMs);
}
