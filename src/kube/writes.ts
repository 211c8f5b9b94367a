/** The few things that a node writes to the API server: Events, and one annotation of its pods. Nothing waits for them. */
import type { EventToWrite } from "../core/cluster/events.ts";
import { POD_IPS_ANNOTATION, type PodSeen } from "../core/model/cluster.ts";
import type { Result } from "../lib/result.ts";
import type { KubeClient } from "./client.ts";
import type { KubeError } from "./errors.ts";

export type ClusterWriter = {
  /** `at` is the wall clock's time, RFC 3339; `suffix` makes the event's name its own. */
  readonly event: (
    event: EventToWrite,
    at: string,
    suffix: string,
    signal: AbortSignal,
  ) => Promise<Result<unknown, KubeError>>;
  /** A pod of the same name and another uid is refused by the server (409). */
  readonly annotate: (pod: PodSeen, ips: string, signal: AbortSignal) => Promise<Result<unknown, KubeError>>;
};

export function createClusterWriter(client: KubeClient, nodeName: string): ClusterWriter {
  return {
    async event(event, at, suffix, signal) {
      const { kind, namespace, name, uid } = event.about;
      const home = namespace === "" ? "default" : namespace; // Where kubelet's events about a Node are, too.
      const body = {
        apiVersion: "v1",
        kind: "Event",
        metadata: { name: `${name.slice(0, 200)}.${suffix}`, namespace: home },
        involvedObject: {
          apiVersion: "v1",
          kind,
          name,
          uid: kind === "Node" ? name : uid, // As kubelet does: `kubectl describe node` looks by name.
          ...(namespace === "" ? {} : { namespace }),
        },
        type: event.type,
        reason: event.reason,
        message: event.message,
        firstTimestamp: at,
        lastTimestamp: at,
        count: 1,
        source: { component: "berth", host: nodeName },
        reportingComponent: "berth",
        reportingInstance: nodeName,
      };
      return await client.ask(
        { method: "POST", path: `/api/v1/namespaces/${encodeURIComponent(home)}/events`, body },
        signal,
      );
    },
    async annotate(pod, ips, signal) {
      const path = `/api/v1/namespaces/${encodeURIComponent(pod.namespace)}/pods/${encodeURIComponent(pod.name)}`;
      const body = { metadata: { uid: pod.uid, annotations: { [POD_IPS_ANNOTATION]: ips } } };
      return await client.ask(
        { method: "PATCH", path, contentType: "application/merge-patch+json", body },
        signal,
      );
    },
  };
}
