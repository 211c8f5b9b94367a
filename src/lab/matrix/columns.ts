/** The columns of the matrix: how a node may be set up. A new data path is one more column, and what differs for it in flows.ts. */
import type { KubeProxyMode } from "../kube-proxy.ts";

export type Column = {
  readonly mode: string;
  readonly settings: Readonly<Record<string, string>>;
  /** Chosen so that few pods are enough to fill the primary ENI. */
  readonly instanceType: string;
  readonly podsPerNode: number;
  readonly kubeProxy: KubeProxyMode | null; // Null: none runs, and no flow goes to a Service.
  readonly snat: "node" | "gateway";
  /** Run in the guest kernel, since many machines have no ipvlan. */
  readonly guest?: true;
};

/** Three ENIs of three secondary addresses: pods 1 to 3 are on the primary ENI, 4 and 5 on the next. */
const singles = {
  instanceType: "t3.small",
  podsPerNode: 5,
  settings: { WARM_IP_TARGET: "1", MINIMUM_IP_TARGET: "6" },
} as const;

/** Two ENIs with room for one /28 each: pods 1 to 16 are on the primary ENI, 17 and 18 on the other. */
const prefixes = {
  instanceType: "t3.micro",
  podsPerNode: 18,
  settings: { ENABLE_PREFIX_DELEGATION: "true", MINIMUM_IP_TARGET: "18" },
} as const;

const ipvlan = { ...singles, settings: { ...singles.settings, BERTH_DATA_PATH: "ipvlan" } } as const;

export const COLUMNS: readonly Column[] = [
  { mode: "routed", ...singles, kubeProxy: null, snat: "node" },
  { mode: "kube-proxy-iptables-nft", ...singles, kubeProxy: "iptables-nft", snat: "node" },
  { mode: "kube-proxy-nftables", ...singles, kubeProxy: "nftables", snat: "node" },
  { mode: "prefixes", ...prefixes, kubeProxy: "nftables", snat: "node" },
  {
    mode: "external-snat",
    ...singles,
    settings: { ...singles.settings, AWS_VPC_K8S_CNI_EXTERNALSNAT: "true" },
    kubeProxy: "iptables-nft",
    snat: "gateway",
  },
  { mode: "ipvlan", ...ipvlan, kubeProxy: "nftables", snat: "node", guest: true },
  { mode: "ipvlan-iptables-nft", ...ipvlan, kubeProxy: "iptables-nft", snat: "node", guest: true },
  {
    mode: "ipvlan-external-snat",
    ...ipvlan,
    settings: { ...ipvlan.settings, AWS_VPC_K8S_CNI_EXTERNALSNAT: "true" },
    kubeProxy: "nftables",
    snat: "gateway",
    guest: true,
  },
];

/** Columns that one lab can serve one after the other: they differ in what kube-proxy loads, and in nothing of ours. */
export function sameLab(left: Column, right: Column): boolean {
  return (
    left.instanceType === right.instanceType &&
    left.podsPerNode === right.podsPerNode &&
    JSON.stringify(left.settings) === JSON.stringify(right.settings)
  );
}

/** Whether any of the modes (all, when not given) wants the guest kernel. */
export function needsGuest(modes: readonly string[]): boolean {
  return COLUMNS.some(({ mode, guest }) => guest === true && (modes.length === 0 || modes.includes(mode)));
}
