/** The lab that the matrix is run in: two nodes with pods on both ENIs, hosts in, beside and outside the VPC, and answers everywhere. */
import { cidr4, ipv4 } from "../../lib/ip.ts";
import { createCluster, type Cluster } from "../cluster.ts";
import { addHost } from "../hosts.ts";
import { printKubeProxy, REMOVE_KUBE_PROXY, type KubeProxyMode, type Service } from "../kube-proxy.ts";
import type { LabNode } from "../node.ts";
import { listen, type Listener } from "../probes.ts";
import { must } from "../processes.ts";
import type { Column } from "./columns.ts";
import { PLACES, SERVICES, type PlaceName, type ServiceName } from "./flows.ts";

export const PORT = 8_080;
const POD_PUBLIC_IP = "203.0.113.200";
const GATEWAY_PUBLIC_IP = "203.0.113.250";

export type Place = { readonly netns: string; readonly ip: string };

export type Stage = {
  readonly cluster: Cluster;
  readonly places: Readonly<Record<PlaceName, Place>>;
  readonly publicIps: { readonly node: string; readonly neighbour: string; readonly gateway: string };
  readonly clusterIpOf: (service: ServiceName) => string;
  readonly nodePortOf: (service: ServiceName) => number;
  /** Loads the rules into both nodes; null takes them away. */
  readonly loadKubeProxy: (mode: KubeProxyMode | null) => Promise<void>;
  readonly close: () => Promise<void>;
};

export async function setStage(
  column: Pick<Column, "instanceType" | "podsPerNode" | "settings" | "snat">,
  options: { readonly prefix?: string } = {},
): Promise<Stage> {
  const { prefix = "mx-" } = options;
  const cluster = await createCluster({
    prefix,
    nodes: [
      { name: "n1", type: column.instanceType },
      { name: "n2", type: column.instanceType },
    ],
    settings: column.settings,
    subnetCidr: "10.0.0.0/22",
    folder: `/run/berth-${prefix}`,
  });
  try {
    return await furnish(cluster, column, prefix);
  } catch (cause) {
    await cluster.close();
    throw cause;
  }
}

/** Everything but the cluster itself. */
async function furnish(
  cluster: Cluster,
  column: Pick<Column, "podsPerNode">,
  prefix: string,
): Promise<Stage> {
  const [first, second] = cluster.nodes;
  const { fabric } = cluster;
  if (first === undefined || second === undefined || fabric.client === null)
    throw new Error("the lab is not as asked for");
  const peer = await addHost(fabric, {
    netns: `${prefix}peer`,
    ip: "172.31.5.10",
    subnetCidr: "172.31.5.0/24",
  });
  await fabric.natGateway({ cidr: cidr4("10.0.0.0/16"), publicIp: ipv4(GATEWAY_PUBLIC_IP) });

  await Promise.all([first.startDaemon(), second.startDaemon()]);
  const [mine, theirs] = await Promise.all(
    [first, second].map(async (node) => await startPods(node, column.podsPerNode)),
  );
  const places: Record<PlaceName, Place> = {
    node: { netns: first.netns, ip: ownAddressOf(cluster, first, 0) },
    "other-node": { netns: second.netns, ip: ownAddressOf(cluster, second, 0) },
    "primary-pod": nth(mine?.primary, 0),
    "primary-neighbour": nth(mine?.primary, 1),
    pod: nth(mine?.secondary, 0),
    neighbour: nth(mine?.secondary, 1),
    remote: nth(theirs?.secondary, 0),
    "remote-primary": nth(theirs?.primary, 0),
    client: { netns: `/run/netns/${fabric.client.netns}`, ip: fabric.client.ip },
    peer,
    outside: { netns: `/run/netns/${fabric.outside.netns}`, ip: fabric.outside.ip },
    "second-address": { netns: first.netns, ip: ownAddressOf(cluster, first, 1) },
    imds: { netns: `/run/netns/${fabric.vpc.netns}`, ip: fabric.vpc.imdsAddress },
  };
  await fabric.mapPublicIp({ privateIp: ipv4(places.neighbour.ip), publicIp: ipv4(POD_PUBLIC_IP) });
  const listeners: Listener[] = [];
  for (const netns of new Set(PLACES.map((name) => places[name].netns)))
    listeners.push(await listen(netns, PORT));

  const services = Object.keys(SERVICES) as ServiceName[]; // Object.keys forgets the keys' type.
  const clusterIpOf = (service: ServiceName): string => `172.20.0.${10 + services.indexOf(service)}`;
  const nodePortOf = (service: ServiceName): number => 30_080 + services.indexOf(service);
  const onNode = (name: PlaceName, node: "node" | "other-node"): boolean =>
    node === "node"
      ? ["pod", "neighbour", "primary-pod", "primary-neighbour"].includes(name)
      : name.startsWith("remote");
  const described = (node: "node" | "other-node"): readonly Service[] =>
    services.map((name) => ({
      name,
      clusterIp: clusterIpOf(name),
      port: PORT,
      nodePort: nodePortOf(name),
      external: name.endsWith("-local") ? "local" : "cluster",
      endpoints: [{ ip: places[SERVICES[name]].ip, port: PORT, onThisNode: onNode(SERVICES[name], node) }],
    }));
  return {
    cluster,
    places,
    publicIps: {
      node: fabric.publicIpOf(first.instanceId) ?? "none",
      neighbour: POD_PUBLIC_IP,
      gateway: GATEWAY_PUBLIC_IP,
    },
    clusterIpOf,
    nodePortOf,
    loadKubeProxy: async (mode) => {
      for (const name of ["node", "other-node"] as const) {
        const { netns, ip } = places[name];
        const input = mode === null ? REMOVE_KUBE_PROXY : printKubeProxy(mode, described(name), ip);
        await must(["nft", "-f", "-"], { netns, input });
      }
    },
    close: async () => {
      for (const listener of listeners) listener.close();
      await cluster.close();
    },
  };
}

/** Pods by the ENI that their addresses came from; every one of them must have started. */
async function startPods(
  node: LabNode,
  count: number,
): Promise<{ readonly primary: readonly Place[]; readonly secondary: readonly Place[] }> {
  const pods = await node.runtime.makeSandboxes(Array.from({ length: count }, (_, at) => `pod-${at}`));
  const placed = await Promise.all(
    pods.map(async (pod) => {
      const { ip, error } = await node.runtime.call("ADD", pod);
      if (ip === null) throw new Error(`a pod of ${node.name} did not start: ${error?.msg ?? "no reason"}`);
      return { netns: pod.netns, ip };
    }),
  );
  const { enis } = await node.state();
  const roleOf = (ip: string): string | undefined =>
    enis.find((eni) => eni.addresses.some((address) => address.ip === ip))?.role;
  return {
    primary: placed.filter(({ ip }) => roleOf(ip) === "primary"),
    secondary: placed.filter(({ ip }) => roleOf(ip) === "secondary"),
  };
}

function nth(places: readonly Place[] | undefined, at: number): Place {
  const place = places?.[at];
  if (place === undefined) throw new Error("too few pods are on one of the ENIs");
  return place;
}

/** The address that an ENI has for itself. */
function ownAddressOf(cluster: Cluster, node: LabNode, deviceIndex: number): string {
  for (const eni of cluster.emulator.world().enis.values()) {
    if (eni.attachment?.instanceId === node.instanceId && eni.attachment.deviceIndex === deviceIndex)
      return eni.primary;
  }
  throw new Error(`${node.name} has no ENI at index ${deviceIndex}`);
}
