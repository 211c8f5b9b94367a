/** Machines of the fabric that are no nodes of ours: in a second CIDR of the VPC, or behind a peering connection. */
import type { Fabric } from "../emulator/fabric/fabric.ts";
import { cidr4, ipv4 } from "../lib/ip.ts";

export type Host = { readonly netns: string; readonly ip: string };

/** A host with one address and no public one. The router knows the way to it and back, as route tables and peerings would. */
export async function addHost(
  fabric: Fabric,
  host: { readonly netns: string; readonly ip: string; readonly subnetCidr: string },
): Promise<Host> {
  const primary = ipv4(host.ip);
  const mac = `0a:fe:${host.ip
    .split(".")
    .map((part) => Number(part).toString(16).padStart(2, "0"))
    .join(":")}`;
  await fabric.linkUp({
    eniId: host.netns,
    instanceId: host.netns,
    mac,
    networkCardIndex: 0,
    deviceIndex: 0,
    subnetCidr: cidr4(host.subnetCidr),
    sourceDestCheck: true,
    primary,
    ips: [primary],
    prefixes: [],
  });
  await fabric.addNode({ instanceId: host.netns, netns: host.netns, publicIp: null });
  return { netns: `/run/netns/${host.netns}`, ip: host.ip };
}
