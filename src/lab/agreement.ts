/** Do the cloud, the kernel and the daemon say the same of one node? Each difference is a line. */
import { addressesOfCidr4 } from "../lib/ip.ts";
import type { Cluster } from "./cluster.ts";
import type { LabNode } from "./node.ts";
import { must } from "./processes.ts";

/** What EC2 has on the instance against what the daemon believes. */
export async function ec2Differences(cluster: Cluster, node: LabNode): Promise<readonly string[]> {
  const state = await node.state();
  const believed = new Map(
    state.enis.map((eni) => [
      eni.id,
      eni.addresses
        .map((address) => address.ip)
        .sort()
        .join(" "),
    ]),
  );
  const actual = new Map(
    [...cluster.emulator.world().enis.values()]
      .filter((eni) => eni.attachment?.instanceId === node.instanceId && eni.interfaceType === "interface")
      .map((eni) => [
        eni.id,
        [
          ...eni.secondaries,
          ...eni.prefixes.flatMap((network) => [...addressesOfCidr4({ network, prefixLength: 28 })]),
        ]
          .sort()
          .join(" "),
      ]),
  );
  const ids = new Set([...believed.keys(), ...actual.keys()]);
  return [...ids].flatMap((id) =>
    believed.get(id) === actual.get(id)
      ? []
      : [
          `${id}: the daemon has [${believed.get(id) ?? "nothing"}], EC2 has [${actual.get(id) ?? "nothing"}]`,
        ],
  );
}

/** Host routes of the pods' table against the daemon's allocations, and each pod's link with its alias. */
export async function kernelDifferences(node: LabNode): Promise<readonly string[]> {
  const { allocations } = await node.state();
  const routes = await jsonOf<{ dst?: string; dev?: string }>(
    ["ip", "-j", "route", "show", "table", "100"],
    node.netns,
  );
  const links = await jsonOf<{ ifname?: string; ifalias?: string }>(
    ["ip", "-j", "link", "show", "type", "veth"],
    node.netns,
  );
  const routed = new Set(routes.map((route) => route.dst ?? ""));
  const aliases = new Set(links.flatMap((link) => (link.ifalias === undefined ? [] : [link.ifalias])));
  return [
    ...allocations.filter(({ ip }) => !routed.has(ip)).map(({ id, ip }) => `${id}: no route to ${ip}`),
    ...allocations.filter(({ id }) => !aliases.has(id)).map(({ id }) => `${id}: no link with its alias`),
    ...[...routed]
      .filter((ip) => !allocations.some((allocation) => allocation.ip === ip))
      .map((ip) => `route to ${ip}, which no sandbox has`),
    ...[...aliases]
      .filter((id) => !allocations.some((allocation) => allocation.id === id))
      .map((id) => `link of ${id}, which has no address`),
  ];
}

async function jsonOf<T>(command: readonly string[], netns: string): Promise<readonly T[]> {
  const text = await must(command, { netns });
  return text.trim() === "" ? [] : (JSON.parse(text) as readonly T[]); // iproute2 prints a list; an absent table prints nothing.
}
