/**
 * Pods that are bound to this node and have no address yet: they raise what the pool wants before their ADD comes, so that a burst finds
 * its addresses assigned. A wish, not a promise: those that do not come are forgotten, and no number that the API server tells can make a
 * node take more than a node's worth.
 */
import { after, type Instant, MINUTE_MS } from "../../lib/time.ts";
import type { ClusterSeen, PodSeen } from "../model/cluster.ts";
import type { Allocation } from "../state/node-state.ts";

/** A pod whose ADD has not come by then waits for a volume or a secret that may never come. When it comes, the warm pool serves it. */
export const EXPECT_MS = 5 * MINUTE_MS;
/** No EC2 instance runs more pods than some 250 (EKS's own limit) to any good end. */
export const EXPECTED_MAX = 256;

/** By uid: when the pod was first seen without an address; null once it had one, for then its next ADD is not to be foreseen. */
export type ExpectedPods = ReadonlyMap<string, Instant | null>;

/** False for what never asks us: host-network pods, finished ones, those on their way out, and those that have an address. */
export function wantsAddress(pod: PodSeen): boolean {
  return !pod.hostNetwork && !pod.finished && !pod.leaving && pod.ips.length === 0;
}

/**
 * What is expected now. Holds an entry for no pod that is not in `pods`, so it is as bounded as they are. Pods of the same name follow one
 * another in a StatefulSet: an allocation for the name counts for either, which at worst serves one pod from the warm pool.
 */
export function expectPods(
  before: ExpectedPods,
  pods: ClusterSeen["pods"],
  allocations: ReadonlyMap<unknown, Allocation>,
  now: Instant,
): ExpectedPods {
  if (pods === null) return before;
  const served = podNames(allocations);
  const expected = new Map<string, Instant | null>();
  for (const pod of pods.values()) {
    if (!wantsAddress(pod)) continue;
    const since = before.get(pod.uid);
    expected.set(pod.uid, since === null || served.has(nameOf(pod)) ? null : (since ?? now));
  }
  return expected;
}

/** How many addresses that makes, and when the first of them is given up; null when none will be. */
export function expectedCount(
  expected: ExpectedPods,
  now: Instant,
): { readonly count: number; readonly until: Instant | null } {
  let count = 0;
  let until: Instant | null = null;
  for (const since of expected.values()) {
    if (since === null || now >= after(since, EXPECT_MS)) continue;
    count += 1;
    const end = after(since, EXPECT_MS);
    if (until === null || end < until) until = end;
  }
  return { count: Math.min(count, EXPECTED_MAX), until };
}

export function podNames(allocations: ReadonlyMap<unknown, Allocation>): ReadonlySet<string> {
  const names = new Set<string>();
  for (const { pod } of allocations.values()) if (pod !== null) names.add(nameOf(pod));
  return names;
}

export function nameOf(pod: { readonly namespace: string; readonly name: string }): string {
  return `${pod.namespace}/${pod.name}`;
}
