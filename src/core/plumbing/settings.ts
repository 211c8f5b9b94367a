/** What an operator's settings say about plumbing. `config` fills it; nothing here reads an environment. */
import type { Cidr4 } from "../../lib/ip.ts";

/** How a pod is joined to its node and its ENI. */
export type DataPath = "routed" | "ipvlan";

export type PlumbingSettings = {
  /** BERTH_DATA_PATH: of new pods. A running pod keeps the path that it was plumbed with (its allocation knows). */
  readonly dataPath: DataPath;
  readonly eniMtu: number; // AWS_VPC_ENI_MTU, bytes.
  readonly hostLinkPrefix: string; // AWS_VPC_K8S_CNI_VETHPREFIX, 4 characters at most.
  /** AWS_VPC_K8S_CNI_CONNMARK: one bit or more, outside of ENI_MARK_MASK. */
  readonly mainMark: number;
  /** AWS_VPC_CNI_NODE_PORT_SUPPORT: connections that came to the node's address are answered from it. */
  readonly nodePort: boolean;
  /** Null under AWS_VPC_K8S_CNI_EXTERNALSNAT: pods then leave the VPC by their own ENI, with their own address. */
  readonly snat: {
    readonly ports: "prng" | "hashrandom" | "none"; // AWS_VPC_K8S_CNI_RANDOMIZESNAT
    readonly excludedCidrs: readonly Cidr4[]; // AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS
  } | null;
  readonly externalServiceCidrs: readonly Cidr4[]; // AWS_EXTERNAL_SERVICE_CIDRS
};

/** Marks are needed by two features; either keeps them (a shared rule went with the first in aws/amazon-vpc-cni-k8s#2025). */
export function marksAreUsed(settings: PlumbingSettings): boolean {
  return settings.nodePort || settings.snat !== null;
}
