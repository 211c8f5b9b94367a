/** What the API server tells of this node, as plain values. The room `kube` makes them; nothing here is known to be true, only to have been said. */

/** One pod that is bound to this node. */
export type PodSeen = {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly hostNetwork: boolean;
  readonly finished: boolean; // Its phase is Succeeded or Failed: no sandbox is made for it any more.
  readonly leaving: boolean; // It has a deletion timestamp.
  readonly ips: readonly string[]; // status.podIPs: empty until kubelet has told of its sandbox.
  readonly annotatedIps: string | null; // The annotation `vpc.amazonaws.com/pod-ips`; null where there is none.
};

/** Our own Node object. */
export type NodeSeen = {
  readonly uid: string;
  readonly name: string;
  readonly unschedulable: boolean; // spec.unschedulable, or the taint that stands for it.
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>; // Of eniConfig keys alone.
  readonly podCapacity: number | null; // status.capacity.pods, kubelet's max-pods.
};

/** ENIConfig (crd.k8s.amazonaws.com/v1alpha1): where the ENIs of a node's pods come from. */
export type EniConfigSeen = {
  readonly uid: string;
  readonly name: string;
  readonly subnet: string | null;
  readonly securityGroups: readonly string[];
};

/** CNINode (vpcresources.k8s.aws/v1alpha1), named as its node. */
export type CniNodeSeen = {
  readonly uid: string;
  readonly name: string;
  readonly features: readonly { readonly name: string; readonly value: string }[];
};

/** Everything that was said last. Null: nothing was ever said of it. What an API server that is away said last still stands. */
export type ClusterSeen = {
  readonly pods: ReadonlyMap<string, PodSeen> | null; // By uid.
  readonly node: NodeSeen | null;
  readonly eniConfigs: ReadonlyMap<string, EniConfigSeen> | null;
  readonly cniNode: CniNodeSeen | null;
};

export const NOTHING_SEEN: ClusterSeen = { pods: null, node: null, eniConfigs: null, cniNode: null };

/** The incumbent's annotation, which Calico and others read. */
export const POD_IPS_ANNOTATION = "vpc.amazonaws.com/pod-ips";
