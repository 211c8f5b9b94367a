/** Which pods' annotations should tell their address (ANNOTATE_POD_IP), by what is and what should be: a write that was lost is made later. */
import type { ClusterSeen, PodSeen } from "../model/cluster.ts";
import type { Allocation } from "../state/node-state.ts";
import { nameOf } from "./demand.ts";

export type AnnotationWrite = { readonly pod: PodSeen; readonly ips: string };

/** In one round; the next round goes on. */
export const ANNOTATIONS_A_ROUND = 20;

/**
 * The annotation of a pod that has an address of ours tells it; that of a finished pod that has none any more is emptied, as the incumbent
 * does on DEL. A pod on its way out is left alone: it is gone before anybody could read it.
 */
export function planAnnotations(
  pods: ClusterSeen["pods"],
  allocations: ReadonlyMap<unknown, Allocation>,
): readonly AnnotationWrite[] {
  const ipOf = new Map<string, string>();
  for (const { pod, ip } of allocations.values()) if (pod !== null) ipOf.set(nameOf(pod), ip);
  const writes: AnnotationWrite[] = [];
  for (const pod of pods?.values() ?? []) {
    if (pod.hostNetwork || pod.leaving) continue;
    const ip = pod.finished ? undefined : ipOf.get(nameOf(pod));
    if (ip !== undefined && pod.annotatedIps !== ip) writes.push({ pod, ips: ip });
    const stale = pod.finished && (pod.annotatedIps ?? "") !== "" && !ipOf.has(nameOf(pod));
    if (stale) writes.push({ pod, ips: "" });
    if (writes.length >= ANNOTATIONS_A_ROUND) break;
  }
  return writes;
}
