/**
 * What a sandbox needs in ipvlan mode: a slave of its ENI's link, by which it talks to the VPC past the node's stack, and an unnumbered veth
 * to its node, by which all else goes: probes, the node's own traffic, Services, and what leaves the VPC with the node's address.
 *
 * One law keeps connections whole: what came by one link is answered by it. Marks inside the pod hold it (pod-filter.ts).
 */
import { assert } from "../../lib/assert.ts";
import { type Cidr4, ipv4, type Ipv4 } from "../../lib/ip.ts";
import type { Eni, Mac } from "../model/eni.ts";
import type { Instance, InstanceLimits } from "../model/instance.ts";
import type { Allocation } from "../state/node-state.ts";
import { gatewayOf } from "./eni-host.ts";
import {
  eniNumber,
  hostLinkAlias,
  ipvlanGroup,
  MAIN_TABLE,
  POD_ENI_MARK,
  POD_ENI_TABLE,
  POD_NODE_MARK,
  POD_NODE_TABLE,
  POD_RETURN_TEXT,
  POD_RULE_ENI_PRIORITY,
  POD_RULE_NODE_PRIORITY,
  POD_RULE_PASSING_PRIORITY,
  PODS_TABLE,
  podTable,
  podVethName,
  RULE_RETURN_PRIORITY,
  slaveBirthName,
} from "./names.ts";
import { DEFAULT_ROUTE, rule } from "./node-host.ts";
import type { KernelObject, SandboxPlumbing } from "./object.ts";
import { LOOPBACK_MTU } from "./routed.ts";

/** What an ipvlan pod was plumbed with, as it was then: written down, since the VPC may gain a CIDR while the pod runs. */
export type IpvlanPath = {
  readonly parentMac: Mac; // The ENI's.
  readonly subnet: Cidr4; // The ENI's; its router is at the first address + 1.
  readonly nodeIp: Ipv4; // The primary ENI's own address: how the pod knows its node.
  readonly vpcCidrs: readonly Cidr4[];
};

/** The path of a pod that comes now. */
export function ipvlanPathOf(
  eni: Pick<Eni, "mac" | "subnetCidr">,
  instance: Pick<Instance, "primaryIp" | "vpcCidrs">,
): IpvlanPath {
  return {
    parentMac: eni.mac,
    subnet: eni.subnetCidr,
    nodeIp: instance.primaryIp,
    vpcCidrs: instance.vpcCidrs,
  };
}

const POD_RETURN = ipv4(POD_RETURN_TEXT);

/**
 * The plumbing of one allocation. Its ENI must have a number (`eniNumber`). `routed`: addresses of routed pods on the same ENI, which are
 * reached through the node. Such a route that outlives its pod does no harm: the node sends back into the pod what is not its own.
 */
export function ipvlanPlumbing(
  allocation: Pick<
    Allocation,
    "id" | "key" | "ip" | "eniSlot" | "hostLink" | "hostMac" | "podMac" | "mtu"
  > & {
    readonly ipvlan: IpvlanPath;
  },
  limits: InstanceLimits,
  routed: readonly Ipv4[] = [],
): SandboxPlumbing {
  const { id, ip, hostLink, hostMac, podMac, mtu, ipvlan } = allocation;
  const { nodeIp, subnet } = ipvlan;
  const number = eniNumber(allocation.eniSlot, limits);
  assert(number !== null, "addresses are given out only on an ENI with a number");
  const slave = allocation.key.ifName;
  const veth = podVethName(id, slave);
  const alias = hostLinkAlias(id);
  const gateway = gatewayOf({ subnetCidr: subnet });
  const viaNode = { destination: DEFAULT_ROUTE, gateway: nodeIp, scope: "global", link: veth } as const;
  const viaRouter = { destination: DEFAULT_ROUTE, gateway, scope: "global", link: slave } as const;
  const onLink = { gateway: null, scope: "link" } as const;
  const connected = { ip: subnet.network, prefixLength: subnet.prefixLength };

  const pod: readonly KernelObject[] = [
    { kind: "link", name: "lo", mtu: LOOPBACK_MTU, up: true, group: null },
    { kind: "link", name: veth, mtu, up: true, group: null, forwards: true },
    { kind: "link", name: slave, mtu, up: true, group: null, forwards: true },
    { kind: "address", link: slave, ip, prefixLength: subnet.prefixLength, noPrefixRoute: false },
    // A link without any address takes a loose rp_filter for a strict one (net/ipv4/fib_frontend.c, no_addr), and a pod inherits the node's:
    // a client that keeps its address, or another pod behind a ClusterIP, would be a martian. Never a source, so the pod shows only its own.
    { kind: "address", link: veth, ip: POD_RETURN, prefixLength: 32, noPrefixRoute: false, scope: "host" },
    // Permanent on both ends: under kube-proxy's ipvs mode the node answers no ARP for an address of another link (kubernetes/kubernetes#71555).
    { kind: "neighbour", link: veth, ip: nodeIp, mac: hostMac },
    route(MAIN_TABLE, { ...onLink, destination: { ip: nodeIp, prefixLength: 32 }, link: veth }),
    ...ipvlan.vpcCidrs
      .filter(({ network, prefixLength }) => !isSame({ network, prefixLength }, subnet))
      .map(({ network, prefixLength }) =>
        route(MAIN_TABLE, { ...viaRouter, destination: { ip: network, prefixLength } }),
      ),
    ...routed.map((other) => route(MAIN_TABLE, { ...viaNode, destination: { ip: other, prefixLength: 32 } })),
    route(MAIN_TABLE, viaNode),
    route(POD_NODE_TABLE, viaNode),
    route(POD_ENI_TABLE, { ...onLink, destination: connected, link: slave }),
    route(POD_ENI_TABLE, viaRouter),
    rule({ priority: POD_RULE_PASSING_PRIORITY, iif: veth, table: POD_ENI_TABLE }),
    rule({
      priority: POD_RULE_NODE_PRIORITY,
      mark: { value: POD_NODE_MARK, mask: POD_NODE_MARK },
      table: POD_NODE_TABLE,
    }),
    rule({
      priority: POD_RULE_ENI_PRIORITY,
      mark: { value: POD_ENI_MARK, mask: POD_ENI_MARK },
      table: POD_ENI_TABLE,
    }),
  ];
  const host: readonly KernelObject[] = [
    { kind: "neighbour", link: hostLink, ip, mac: podMac },
    { kind: "neighbour", link: hostLink, ip: POD_RETURN, mac: podMac },
    route(PODS_TABLE, { ...onLink, destination: { ip, prefixLength: 32 }, link: hostLink }),
    {
      ...route(podTable(ip), {
        destination: DEFAULT_ROUTE,
        gateway: POD_RETURN,
        scope: "global",
        link: hostLink,
      }),
      onlink: true,
    },
    rule({ priority: RULE_RETURN_PRIORITY, iif: hostLink, table: podTable(ip) }),
  ];
  return {
    pair: {
      hostName: hostLink,
      hostMac,
      group: ipvlanGroup(number),
      alias,
      podName: veth,
      podMac,
      hostMtu: mtu,
      podMtu: mtu,
    },
    slave: { name: slave, bornAs: slaveBirthName(id), parentMac: ipvlan.parentMac, mtu, alias },
    filter: { slave, veth, ip },
    pod,
    host,
  };
}

type Route = Extract<KernelObject, { kind: "route" }>;

function route(table: number, given: Pick<Route, "destination" | "gateway" | "scope" | "link">): Route {
  return { kind: "route", table, onlink: false, mtu: null, ...given };
}

function isSame(left: Cidr4, right: Cidr4): boolean {
  return left.network === right.network && left.prefixLength === right.prefixLength;
}
