/** The kinds that a node looks at, each kept by an informer, put together as one ClusterSeen. */
import { type ClusterSeen, NOTHING_SEEN } from "../core/model/cluster.ts";
import type { KubeClient } from "./client.ts";
import { decodeCniNode, decodeEniConfig, decodeNode, decodePod } from "./decode.ts";
import { type InformerPorts, keepInformed, type Resource } from "./informer.ts";

export type ClusterWatch = {
  /** What was said last. */
  readonly seen: () => ClusterSeen;
  /** Ends when the signal that it was begun with is aborted. */
  readonly ended: Promise<void>;
};

/** `onChange` comes once for many changes that arrive together. */
export function watchCluster(
  client: KubeClient,
  nodeName: string,
  ports: InformerPorts,
  onChange: () => void,
  signal: AbortSignal,
): ClusterWatch {
  let seen: ClusterSeen = NOTHING_SEEN;
  const makers = new Map<string, () => Partial<ClusterSeen>>();
  /** Copied once for many changes: a picture that somebody holds never changes under their hands. */
  const changed = (kind: string, make: () => Partial<ClusterSeen>): void => {
    makers.set(kind, make);
    if (makers.size > 1) return;
    setImmediate(() => {
      for (const made of makers.values()) seen = { ...seen, ...made() };
      makers.clear();
      if (!signal.aborted) onChange();
    });
  };
  const keep = async <T>(
    resource: Resource<T>,
    take: (items: ReadonlyMap<string, T>) => void,
  ): Promise<void> => await keepInformed(client, resource, ports, take, signal);
  const byName = { fieldSelector: `metadata.name=${nodeName}` };
  const ended = Promise.all([
    keep(
      {
        name: "pods",
        path: "/api/v1/pods",
        query: { fieldSelector: `spec.nodeName=${nodeName}` },
        decode: decodePod,
      },
      (pods) => changed("pods", () => ({ pods: new Map(pods) })),
    ),
    // A Node that was deleted and made again is another object of the same name.
    keep({ name: "nodes", path: "/api/v1/nodes", query: byName, decode: decodeNode }, (nodes) =>
      changed("nodes", () => ({ node: [...nodes.values()].at(-1) ?? null })),
    ),
    keep(
      {
        name: "eniconfigs",
        path: "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs",
        query: {},
        decode: decodeEniConfig,
      },
      (eniConfigs) => changed("eniconfigs", () => ({ eniConfigs: new Map(eniConfigs) })),
    ),
    keep(
      {
        name: "cninodes",
        path: "/apis/vpcresources.k8s.aws/v1alpha1/cninodes",
        query: byName,
        decode: decodeCniNode,
      },
      (nodes) => changed("cninodes", () => ({ cniNode: [...nodes.values()].at(-1) ?? null })),
    ),
  ]).then(() => undefined);
  return { seen: () => seen, ended };
}
