/**
 * The rows of the matrix, and what is right for each: the source address that the other side must see, or that no answer may come.
 * Written before any run; each line says why a VPC and Kubernetes want it so. Nothing here knows how a node does it.
 */
import type { Protocol } from "../probes.ts";
import type { Column } from "./columns.ts";

/**
 * Who is there. Node 1 has pods on its primary ENI (`primary-pod`, `primary-neighbour`) and on a secondary one (`pod`, `neighbour`); node 2
 * has `remote` on a secondary ENI and `remote-primary` on its primary one. `second-address` is node 1 by its secondary ENI's own address.
 * `client` is a host of the VPC, `peer` one of a peered VPC, `outside` one on the internet, `imds` the metadata service.
 */
export const PLACES = [
  "node",
  "other-node",
  "primary-pod",
  "primary-neighbour",
  "pod",
  "neighbour",
  "remote",
  "remote-primary",
  "client",
  "peer",
  "outside",
  "second-address",
  "imds",
] as const;
export type PlaceName = (typeof PLACES)[number];

/** A Service by its one endpoint; `…-local` keeps the client's address (externalTrafficPolicy Local). */
export const SERVICES = {
  "to-pod": "pod",
  "to-pod-local": "pod",
  "to-primary-pod": "primary-pod",
  "to-primary-pod-local": "primary-pod",
  "to-remote": "remote",
  "to-outside": "outside",
} as const satisfies Record<string, PlaceName>;
export type ServiceName = keyof typeof SERVICES;

export type Target =
  | { readonly kind: "place"; readonly place: PlaceName }
  /** The address that the internet knows: of a node, or one that was given to a pod alone. */
  | { readonly kind: "public-address"; readonly place: "node" | "neighbour" }
  | { readonly kind: "cluster-ip"; readonly service: ServiceName }
  | {
      readonly kind: "node-port";
      readonly service: ServiceName;
      readonly from: "inside" | "internet";
    };

/** Whom the other side sees, or nothing at all. */
export type Seen = "asker" | "node" | "node-public" | "gateway" | "nobody";

export type Flow = {
  readonly name: string;
  readonly from: PlaceName;
  readonly to: Target;
  readonly protocols: readonly Protocol[];
  readonly seen: Seen | ((column: Column) => Seen);
  readonly why: string;
  readonly bytes?: number; // There and back; ICMP: in one piece.
  readonly asAddressOf?: PlaceName; // The asker uses an address that is not its own.
};

const ALL = ["tcp", "udp", "icmp"] as const;
const PORTS = ["tcp", "udp"] as const;

const at = (place: PlaceName): Target => ({ kind: "place", place });
const service = (name: ServiceName): Target => ({ kind: "cluster-ip", service: name });
const nodePort = (name: ServiceName, from: "inside" | "internet"): Target => ({
  kind: "node-port",
  service: name,
  from,
});

/** What leaves the VPC: translated on the node, or by a gateway that knows nothing of pods. */
const offVpc = ({ snat }: Column): Seen => (snat === "node" ? "node-public" : "gateway");
const native = "pods of a VPC talk with their own addresses";

export const FLOWS: readonly Flow[] = [
  // Pods, nodes and each other.
  {
    name: "pod → pod, same node, same ENI",
    from: "pod",
    to: at("neighbour"),
    protocols: ALL,
    seen: "asker",
    why: native,
  },
  {
    name: "pod → pod, same node, both on the primary ENI",
    from: "primary-pod",
    to: at("primary-neighbour"),
    protocols: ALL,
    seen: "asker",
    why: native,
  },
  {
    name: "pod → pod, same node, other ENI",
    from: "pod",
    to: at("primary-pod"),
    protocols: ALL,
    seen: "asker",
    why: native,
  },
  {
    name: "pod → pod, other node",
    from: "pod",
    to: at("remote"),
    protocols: ALL,
    seen: "asker",
    why: native,
  },
  {
    name: "pod on the primary ENI → pod, other node",
    from: "primary-pod",
    to: at("remote"),
    protocols: ALL,
    seen: "asker",
    why: native,
  },
  {
    name: "pod → pod on the primary ENI, other node",
    from: "pod",
    to: at("remote-primary"),
    protocols: ALL,
    seen: "asker",
    why: native,
  },
  { name: "pod → own node", from: "pod", to: at("node"), protocols: ALL, seen: "asker", why: native },
  {
    name: "pod on the primary ENI → own node",
    from: "primary-pod",
    to: at("node"),
    protocols: ALL,
    seen: "asker",
    why: native,
  },
  { name: "pod → other node", from: "pod", to: at("other-node"), protocols: ALL, seen: "asker", why: native },
  {
    name: "node → own pod",
    from: "node",
    to: at("pod"),
    protocols: ALL,
    seen: "asker",
    why: "kubelet probes with the node's address",
  },
  {
    name: "node → own pod on the primary ENI",
    from: "node",
    to: at("primary-pod"),
    protocols: ALL,
    seen: "asker",
    why: "kubelet probes with the node's address",
  },
  {
    name: "other node → pod",
    from: "other-node",
    to: at("pod"),
    protocols: ALL,
    seen: "asker",
    why: "the API server's side of webhooks, and node agents, see pods like that",
  },

  // Out of the VPC and in again.
  {
    name: "pod → outside",
    from: "pod",
    to: at("outside"),
    protocols: ALL,
    seen: offVpc,
    why: "only a node's own address has a public one; with external SNAT the gateway translates",
  },
  {
    name: "pod on the primary ENI → outside",
    from: "primary-pod",
    to: at("outside"),
    protocols: ALL,
    seen: offVpc,
    why: "only a node's own address has a public one; with external SNAT the gateway translates",
  },
  {
    name: "node → outside",
    from: "node",
    to: at("outside"),
    protocols: ALL,
    seen: "node-public",
    why: "the node's own traffic is not ours",
  },
  {
    name: "outside → pod with a public address of its own",
    from: "outside",
    to: { kind: "public-address", place: "neighbour" },
    protocols: ALL,
    seen: "asker",
    why: "a load balancer with IP targets keeps the client's address; the reply must leave by the pod's ENI (#1392)",
  },
  {
    name: "load balancer in the VPC → pod address",
    from: "client",
    to: at("pod"),
    protocols: ALL,
    seen: "asker",
    why: "IP targets on secondary ENIs are reached by the VPC itself",
  },
  {
    name: "load balancer in the VPC → pod on the primary ENI",
    from: "client",
    to: at("primary-pod"),
    protocols: ALL,
    seen: "asker",
    why: "IP targets are reached by the VPC itself",
  },
  {
    name: "pod → host in the VPC",
    from: "pod",
    to: at("client"),
    protocols: ALL,
    seen: "asker",
    why: "security groups and databases of the VPC see pods",
  },
  {
    name: "VPC peer → pod",
    from: "peer",
    to: at("pod"),
    protocols: ALL,
    seen: "asker",
    why: "a reply goes as the request came, whatever the peer's CIDR (#777)",
  },
  {
    name: "pod → VPC peer",
    from: "pod",
    to: at("peer"),
    protocols: ALL,
    seen: ({ snat }) => (snat === "node" ? "node" : "asker"),
    why: "a peer is outside the VPC's CIDRs: translated unless excluded, and never by a gateway",
  },

  // Large packets.
  {
    name: "pod → pod, other node, as large as the MTU",
    from: "pod",
    to: at("remote"),
    protocols: ["icmp"],
    bytes: 8_973,
    seen: "asker",
    why: "9001 bytes with headers: jumbo frames are the point of ENIs' MTU",
  },
  {
    name: "pod → pod, other node, one byte beyond the MTU in one piece",
    from: "pod",
    to: at("remote"),
    protocols: ["icmp"],
    bytes: 8_974,
    seen: "nobody",
    why: "it may not be fragmented and does not fit; the sender is told at once",
  },
  {
    name: "pod → pod, same node, as large as the MTU",
    from: "pod",
    to: at("neighbour"),
    protocols: ["icmp"],
    bytes: 8_973,
    seen: "asker",
    why: "the pods' links carry what ENIs carry",
  },
  {
    name: "pod → pod, other node, far beyond the MTU",
    from: "pod",
    to: at("remote"),
    protocols: PORTS,
    bytes: 30_000,
    seen: "asker",
    why: "TCP cuts into segments; a UDP datagram is fragmented and put together again",
  },
  {
    name: "pod → pod, same node, far beyond the MTU",
    from: "pod",
    to: at("primary-pod"),
    protocols: PORTS,
    bytes: 30_000,
    seen: "asker",
    why: "TCP cuts into segments; a UDP datagram is fragmented and put together again",
  },
  {
    name: "pod → outside, beyond the internet's MTU",
    from: "pod",
    to: at("outside"),
    protocols: PORTS,
    bytes: 5_000,
    seen: offVpc,
    why: "1500 bytes out there: the router's ICMP error must find its way back to the pod",
  },
  {
    name: "pod → outside, beyond the internet's MTU in one piece",
    from: "pod",
    to: at("outside"),
    protocols: ["icmp"],
    bytes: 1_473,
    seen: "nobody",
    why: "it may not be fragmented and does not fit",
  },
  {
    name: "outside → pod with a public address, beyond the internet's MTU",
    from: "outside",
    to: { kind: "public-address", place: "neighbour" },
    protocols: PORTS,
    bytes: 5_000,
    seen: "asker",
    why: "the answer is cut to what the path carries",
  },

  {
    name: "client in the VPC → secondary ENI's own address",
    from: "client",
    to: at("second-address"),
    protocols: ["tcp", "icmp"],
    seen: "asker",
    why: "an address that the VPC knows answers, by the ENI that has it (#1327)",
  },
  {
    name: "node → IMDS",
    from: "node",
    to: at("imds"),
    protocols: ALL,
    seen: "asker",
    why: "the daemon and the OS live by it",
  },

  // What must not be.
  {
    name: "pod → IMDS",
    from: "pod",
    to: at("imds"),
    protocols: ["tcp", "icmp"],
    seen: "nobody",
    why: "its answers live for one hop, so that pods cannot take the node's credentials",
  },
  {
    name: "pod on the primary ENI → IMDS",
    from: "primary-pod",
    to: at("imds"),
    protocols: ["icmp"],
    seen: "nobody",
    why: "its answers live for one hop, so that pods cannot take the node's credentials",
  },
  {
    name: "pod with its neighbour's address → other node",
    from: "pod",
    to: at("other-node"),
    protocols: ["icmp"],
    asAddressOf: "neighbour",
    seen: "nobody",
    why: "two addresses of one ENI look alike to the VPC, so the node itself must stop it",
  },
  {
    name: "pod with an address of another ENI → other node",
    from: "pod",
    to: at("other-node"),
    protocols: ["icmp"],
    asAddressOf: "primary-pod",
    seen: "nobody",
    why: "stopped on the node, before the VPC's source check counts it",
  },

  // Services: kube-proxy's rules decide where to, ours by which way.
  {
    name: "pod → ClusterIP, endpoint on the same node",
    from: "primary-pod",
    to: service("to-pod"),
    protocols: PORTS,
    seen: "asker",
    why: "within the cluster the endpoint sees the pod",
  },
  {
    name: "pod → ClusterIP, endpoint on the other node",
    from: "pod",
    to: service("to-remote"),
    protocols: PORTS,
    seen: "asker",
    why: "within the cluster the endpoint sees the pod",
  },
  {
    name: "pod on the primary ENI → ClusterIP, endpoint on the other node",
    from: "primary-pod",
    to: service("to-remote"),
    protocols: PORTS,
    seen: "asker",
    why: "within the cluster the endpoint sees the pod",
  },
  {
    name: "pod → ClusterIP, endpoint outside the VPC",
    from: "pod",
    to: service("to-outside"),
    protocols: PORTS,
    seen: offVpc,
    why: "judged by where it goes after DNAT, not by the ClusterIP (#3563)",
  },
  {
    name: "pod on the primary ENI → ClusterIP, endpoint outside the VPC",
    from: "primary-pod",
    to: service("to-outside"),
    protocols: PORTS,
    seen: offVpc,
    why: "judged by where it goes after DNAT, not by the ClusterIP (#3563)",
  },
  {
    name: "pod → ClusterIP that leads to itself",
    from: "pod",
    to: service("to-pod"),
    protocols: PORTS,
    seen: "node",
    why: "a pod's answer to itself would not pass the node, so kube-proxy masquerades",
  },
  {
    name: "node → ClusterIP, endpoint on the node",
    from: "node",
    to: service("to-pod"),
    protocols: PORTS,
    seen: "asker",
    why: "the node's programs use Services, too",
  },
  {
    name: "node → ClusterIP, endpoint on the other node",
    from: "node",
    to: service("to-remote"),
    protocols: PORTS,
    seen: "asker",
    why: "the node's programs use Services, too",
  },
  {
    name: "node → ClusterIP, endpoint outside the VPC",
    from: "node",
    to: service("to-outside"),
    protocols: PORTS,
    seen: "node-public",
    why: "the node's programs use Services, too",
  },
  {
    name: "outside → NodePort, pod on a secondary ENI",
    from: "outside",
    to: nodePort("to-pod", "internet"),
    protocols: PORTS,
    seen: "node",
    why: "policy Cluster masquerades; the reply must leave by the primary ENI (#75)",
  },
  {
    name: "outside → NodePort, pod on a secondary ENI, client address kept",
    from: "outside",
    to: nodePort("to-pod-local", "internet"),
    protocols: PORTS,
    seen: "asker",
    why: "policy Local: the pod sees the client, and the reply still leaves by the primary ENI (#75)",
  },
  {
    name: "outside → NodePort, pod on the primary ENI",
    from: "outside",
    to: nodePort("to-primary-pod", "internet"),
    protocols: PORTS,
    seen: "node",
    why: "policy Cluster masquerades",
  },
  {
    name: "outside → NodePort, pod on the primary ENI, client address kept",
    from: "outside",
    to: nodePort("to-primary-pod-local", "internet"),
    protocols: PORTS,
    seen: "asker",
    why: "policy Local: the pod sees the client",
  },
  {
    name: "outside → NodePort, pod on the other node",
    from: "outside",
    to: nodePort("to-remote", "internet"),
    protocols: PORTS,
    seen: "node",
    why: "policy Cluster masquerades, so that the other node's answer comes back this way",
  },
  {
    name: "client in the VPC → NodePort, pod on a secondary ENI",
    from: "client",
    to: nodePort("to-pod", "inside"),
    protocols: PORTS,
    seen: "node",
    why: "policy Cluster masquerades",
  },
  {
    name: "client in the VPC → NodePort, pod on a secondary ENI, client address kept",
    from: "client",
    to: nodePort("to-pod-local", "inside"),
    protocols: PORTS,
    seen: "asker",
    why: "policy Local: the pod sees the client, though the VPC could carry the reply by either ENI",
  },
  {
    name: "VPC peer → NodePort, pod on a secondary ENI, client address kept",
    from: "peer",
    to: nodePort("to-pod-local", "inside"),
    protocols: PORTS,
    seen: "asker",
    why: "policy Local, from outside the VPC's CIDRs",
  },
  {
    name: "client in the VPC → NodePort, pod on the other node",
    from: "client",
    to: nodePort("to-remote", "inside"),
    protocols: PORTS,
    seen: "node",
    why: "policy Cluster masquerades",
  },
  {
    name: "pod → NodePort of its node, pod on the other ENI",
    from: "primary-pod",
    to: nodePort("to-pod", "inside"),
    protocols: PORTS,
    seen: "node",
    why: "policy Cluster masquerades for pods, too",
  },
  {
    name: "pod on the other node → NodePort, client address kept",
    from: "remote",
    to: nodePort("to-pod-local", "inside"),
    protocols: PORTS,
    seen: "asker",
    why: "policy Local: the pod sees the other pod",
  },
];

export function needsServices(flow: Flow): boolean {
  return flow.to.kind === "cluster-ip" || flow.to.kind === "node-port";
}
