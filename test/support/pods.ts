/** A pod as the API server tells of it: bound to this node, and nothing known of it yet. */
import type { PodSeen } from "../../src/core/model/cluster.ts";

export function pod(name: string, parts: Partial<PodSeen> = {}): PodSeen {
  return {
    uid: `uid-${name}`,
    namespace: "default",
    name,
    hostNetwork: false,
    finished: false,
    leaving: false,
    ips: [],
    annotatedIps: null,
    ...parts,
  };
}
