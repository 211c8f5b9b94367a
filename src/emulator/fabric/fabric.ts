/**
 * Turns what a world says (instances, ENIs, addresses) into packets on one machine: a VPC router that checks sources, an internet
 * gateway, an outside host and a VPC client, each a network namespace. The world may be the emulator's or any other; it says when.
 */
import { assert } from "../../lib/assert.ts";
import { type Cidr4, ipv4, type Ipv4, ipv4Plus, printCidr4 } from "../../lib/ip.ts";
import type { EniAddresses, LinkUp } from "../events.ts";
import {
  addressSteps,
  EC2_ADDRESS,
  groundSteps,
  IMDS_ADDRESS,
  type Namespaces,
  natGatewaySteps,
  nodeSteps,
  publicAddressSteps,
  sourceCheckSteps,
  unwireSteps,
  type Wire,
  wireSteps,
} from "./recipe.ts";
import { type Act, readFrom, runChanges, type Step } from "./run.ts";

export type FabricOptions = {
  readonly prefix: string; // Of all namespaces' names.
  readonly vpcCidrs: readonly Cidr4[];
  /** A host in the VPC that is no node of ours, in a subnet of its own or the world's; null for none. */
  readonly client?: { readonly ip: Ipv4; readonly subnetCidr: Cidr4 } | null;
  readonly outsideIp?: Ipv4; // A host on the internet; 198.51.100.10 by default. Its neighbour .1 is the gateway.
  readonly firstPublicIp?: Ipv4; // Nodes get public addresses from here on; 203.0.113.10 by default.
  readonly imdsHopLimit?: number; // 1 by default: pods cannot reach IMDS.
};

/** An attached ENI whose link is there. */
export type AttachedEni = Pick<
  LinkUp,
  | "eniId"
  | "instanceId"
  | "mac"
  | "networkCardIndex"
  | "deviceIndex"
  | "primary"
  | "subnetCidr"
  | "sourceDestCheck"
  | keyof EniAddresses
>;

/** Frames that the router refused, by who sent them. `ip` is the source address in the packet, or the sender's in an ARP message. */
export type SpoofedFrame = {
  readonly eniId: string;
  readonly family: "ip" | "arp";
  readonly mac: string;
  readonly ip: string;
  readonly count: number;
};

export type Fabric = {
  readonly vpc: { readonly netns: string; readonly imdsAddress: string; readonly ec2Address: string };
  readonly igw: { readonly netns: string };
  readonly outside: { readonly netns: string; readonly ip: Ipv4 };
  readonly client: { readonly netns: string; readonly ip: Ipv4 } | null;
  /**
   * Makes the instance's namespace, as its OS leaves it after boot; links that are up already come into it. Its primary ENI gets a public
   * address unless `publicIp` is null.
   */
  readonly addNode: (node: {
    readonly instanceId: string;
    readonly netns: string;
    readonly publicIp?: Ipv4 | null;
  }) => Promise<void>;
  /** The instance is gone, its links and its namespace with it. */
  readonly removeNode: (instanceId: string) => Promise<void>;
  /** The link appears in the instance's namespace, or waits for `addNode`. */
  readonly linkUp: (eni: AttachedEni) => Promise<void>;
  readonly linkDown: (eniId: string) => Promise<void>;
  /** All that the ENI has now, the primary address included. Of an ENI without link: nothing is done, its link brings them. */
  readonly addressesChanged: (eniId: string, addresses: EniAddresses) => Promise<void>;
  readonly sourceDestCheckChanged: (eniId: string, enabled: boolean) => Promise<void>;
  /** An Elastic IP of any address in the VPC, a pod's too: the world reaches it there, and it leaves as that. */
  readonly mapPublicIp: (pair: { readonly privateIp: Ipv4; readonly publicIp: Ipv4 }) => Promise<void>;
  /** Addresses of the CIDR that have no public one leave as `publicIp`, as by the route table of a private subnet. */
  readonly natGateway: (gateway: { readonly cidr: Cidr4; readonly publicIp: Ipv4 }) => Promise<void>;
  /** The public address of the instance's primary ENI. */
  readonly publicIpOf: (instanceId: string) => Ipv4 | null;
  readonly spoofedFrames: () => Promise<readonly SpoofedFrame[]>;
  /** Packets for the internet from addresses that have no public one. */
  readonly unmappedPackets: () => Promise<number>;
  /** Resolves when all that was asked for so far has been done. */
  readonly settled: () => Promise<void>;
  /** Takes all namespaces away that the fabric made, nodes included. Processes in them lose their network. May be called twice. */
  readonly close: () => Promise<void>;
};

type FabricNode = { readonly netns: string; readonly publicIp: Ipv4 | null };
type Port = {
  readonly eni: AttachedEni;
  readonly wire: Wire;
  readonly cidrs: ReadonlySet<string>;
  readonly mapped: boolean;
};

/** Needs the right to make namespaces, a private or writable /run/netns, and the tools `ip`, `nft` and `nsenter`. Throws where they fail. */
export async function createFabric(options: FabricOptions): Promise<Fabric> {
  const { prefix, vpcCidrs, client = null, outsideIp = ipv4("198.51.100.10"), imdsHopLimit = 1 } = options;
  const names: Namespaces = { vpc: `${prefix}vpc`, igw: `${prefix}igw`, world: `${prefix}world` };
  const firstPublicIp = options.firstPublicIp ?? ipv4("203.0.113.10");

  const nodes = new Map<string, FabricNode>(); // By instance.
  const ports = new Map<string, Port>(); // By ENI, of those whose link is there.
  const waiting = new Map<string, AttachedEni>(); // Up, says the world, on an instance that has no namespace yet.
  const owners = new Map<string, string>(); // By CIDR, the ENI to which the router sends it.
  const enisByPort = new Map<string, string>(); // Also of ENIs that are gone: what they sent is still counted.
  let publicCount = 0;

  // One process at a time makes the changes that came meanwhile, in the order in which they were asked for.
  let queue: { readonly steps: readonly Step[]; readonly done: (failure: string | null) => void }[] = [];
  let working: Promise<void> | null = null;
  const enqueue = async (steps: readonly Step[]): Promise<void> => {
    if (steps.length === 0) return;
    const outcome = new Promise<string | null>((done) => queue.push({ steps, done }));
    working ??= drain();
    const failure = await outcome;
    if (failure !== null) throw new Error(`the fabric could not follow the world: ${failure}`);
  };
  const drain = async (): Promise<void> => {
    await Promise.resolve(); // What is asked for in the same breath goes into the same process.
    while (queue.length > 0) {
      const batch = queue;
      queue = [];
      const failures = await runChanges(batch.map(({ steps }) => steps)).catch((cause: unknown) =>
        batch.map(() => String(cause)),
      );
      for (const [at, { done }] of batch.entries()) done(failures[at] ?? null);
    }
    working = null;
  };

  const settled = async (): Promise<void> => {
    await working;
    if (working !== null) await settled();
  };

  const route = (port: Port, cidrs: ReadonlySet<string>): readonly Step[] => {
    const { eniId } = port.eni;
    const added = [...cidrs].filter((cidr) => !port.cidrs.has(cidr));
    const gone = [...port.cidrs].filter((cidr) => !cidrs.has(cidr));
    const routes = gone.filter((cidr) => owners.get(cidr) === eniId); // Others have moved: their route is another ENI's now.
    for (const cidr of routes) owners.delete(cidr);
    for (const cidr of added) owners.set(cidr, eniId);
    ports.set(eniId, { ...port, cidrs });
    return addressSteps(names, port.wire, added, { routes, owned: gone });
  };

  const wireUp = (eni: AttachedEni, node: FabricNode): readonly Step[] => {
    const { eniId, networkCardIndex, deviceIndex, mac, primary, subnetCidr } = eni;
    const isPrimary = networkCardIndex === 0 && deviceIndex === 0;
    const wire: Wire = {
      port: `p${enisByPort.size}`,
      link: `eth${networkCardIndex * 100 + deviceIndex}`,
      mac,
      primary,
      subnetCidr,
    };
    enisByPort.set(wire.port, eniId);
    const port: Port = { eni, wire, cidrs: new Set(), mapped: isPrimary && node.publicIp !== null };
    const steps = [
      ...wireSteps(names, node.netns, wire, isPrimary ? "primary" : "secondary"),
      ...route(port, cidrsOf(eni)),
      ...(eni.sourceDestCheck ? [] : sourceCheckSteps(names, wire.port, false)),
    ];
    if (!port.mapped || node.publicIp === null) return steps;
    return [...steps, ...publicAddressSteps(names, "add", { privateIp: primary, publicIp: node.publicIp })];
  };

  const wireDown = (port: Port): readonly Step[] => {
    const { eni, wire, cidrs } = port;
    for (const cidr of cidrs) if (owners.get(cidr) === eni.eniId) owners.delete(cidr);
    ports.delete(eni.eniId);
    const publicIp = nodes.get(eni.instanceId)?.publicIp ?? null;
    const steps = [
      ...unwireSteps(names, wire.port),
      ...addressSteps(names, wire, [], { routes: [], owned: [...cidrs] }), // Routes went with the link.
    ];
    if (!port.mapped || publicIp === null) return steps;
    return [...steps, ...publicAddressSteps(names, "delete", { privateIp: eni.primary, publicIp })];
  };

  const fabric: Fabric = {
    vpc: { netns: names.vpc, imdsAddress: IMDS_ADDRESS, ec2Address: EC2_ADDRESS },
    igw: { netns: names.igw },
    outside: { netns: names.world, ip: outsideIp },
    client: client && { netns: `${prefix}client`, ip: client.ip },
    addNode: async ({ instanceId, netns, publicIp = ipv4Plus(firstPublicIp, publicCount) }) => {
      assert(!nodes.has(instanceId), "an instance has one namespace");
      if (publicIp !== null) publicCount += 1;
      const node: FabricNode = { netns, publicIp };
      nodes.set(instanceId, node);
      const steps = [...nodeSteps(netns)];
      for (const eni of waiting.values()) {
        if (eni.instanceId !== instanceId) continue;
        waiting.delete(eni.eniId);
        steps.push(...wireUp(eni, node));
      }
      await enqueue(steps);
    },
    removeNode: async (instanceId) => {
      const node = nodes.get(instanceId);
      for (const eni of waiting.values()) if (eni.instanceId === instanceId) waiting.delete(eni.eniId);
      if (node === undefined) return;
      const steps = [...ports.values()].filter(({ eni }) => eni.instanceId === instanceId).flatMap(wireDown);
      nodes.delete(instanceId);
      await enqueue([...steps, { netns: null, acts: [{ kind: "ip", lines: [`netns del ${node.netns}`] }] }]);
    },
    linkUp: async (eni) => {
      if (ports.has(eni.eniId)) return; // Told twice.
      const node = nodes.get(eni.instanceId);
      if (node === undefined) waiting.set(eni.eniId, eni);
      else await enqueue(wireUp(eni, node));
    },
    linkDown: async (eniId) => {
      waiting.delete(eniId);
      const port = ports.get(eniId);
      if (port !== undefined) await enqueue(wireDown(port));
    },
    addressesChanged: async (eniId, addresses) => {
      const waits = waiting.get(eniId);
      if (waits !== undefined) waiting.set(eniId, { ...waits, ...addresses });
      const port = ports.get(eniId);
      if (port !== undefined) await enqueue(route(port, cidrsOf(addresses)));
    },
    sourceDestCheckChanged: async (eniId, enabled) => {
      const waits = waiting.get(eniId);
      if (waits !== undefined) waiting.set(eniId, { ...waits, sourceDestCheck: enabled });
      const port = ports.get(eniId);
      if (port !== undefined) await enqueue(sourceCheckSteps(names, port.wire.port, enabled));
    },
    mapPublicIp: (pair) => enqueue(publicAddressSteps(names, "add", pair)),
    natGateway: (gateway) => enqueue(natGatewaySteps(names, gateway)),
    publicIpOf: (instanceId) => nodes.get(instanceId)?.publicIp ?? null,
    spoofedFrames: async () => {
      const [ip, arp] = await Promise.all([
        readFrom(names.vpc, ["nft", "-j", "list", "set", "ip", "vpc", "dropped"]),
        readFrom(names.vpc, ["nft", "-j", "list", "set", "arp", "vpc", "dropped"]),
      ]);
      return [...spoofedFrames("ip", ip, enisByPort), ...spoofedFrames("arp", arp, enisByPort)];
    },
    unmappedPackets: async () => {
      const text = await readFrom(names.igw, ["nft", "-j", "list", "counter", "ip", "igw", "unmapped"]);
      return Number(/"packets": *(\d+)/.exec(text)?.[1]);
    },
    settled,
    close: async () => {
      await settled();
      const acts = [...Object.values(names), ...[...nodes.values()].map((node) => node.netns)].map(
        (netns): Act => ({ kind: "ip-if-there", line: `netns del ${netns}` }),
      );
      nodes.clear();
      ports.clear();
      waiting.clear();
      await enqueue([{ netns: null, acts }]);
    },
  };

  await enqueue(groundSteps({ names, vpcCidrs, outsideIp, imdsHopLimit }));
  if (client !== null) {
    const { ip, subnetCidr } = client;
    const slot = { networkCardIndex: 0, deviceIndex: 0, sourceDestCheck: true };
    const addresses = { primary: ip, ips: [ip], prefixes: [] };
    await fabric.linkUp({
      eniId: CLIENT,
      instanceId: CLIENT,
      mac: "0a:ff:00:00:00:01",
      subnetCidr,
      ...slot,
      ...addresses,
    });
    await fabric.addNode({ instanceId: CLIENT, netns: `${prefix}client`, publicIp: null });
  }
  return fabric;
}

function cidrsOf({ ips, prefixes }: EniAddresses): ReadonlySet<string> {
  return new Set([...ips.map((ip) => `${ip}/32`), ...prefixes.map(printCidr4)]);
}

const CLIENT = "client"; // In place of the ids of its instance and its ENI.

/** Reads `nft -j list set` of a set whose elements are a port, a MAC, an address and a counter. */
function spoofedFrames(
  family: "ip" | "arp",
  json: string,
  enisByPort: ReadonlyMap<string, string>,
): readonly SpoofedFrame[] {
  // The shape of libnftables-json(5); whatever nft leaves out reads as no frames.
  const { nftables } = JSON.parse(json) as {
    nftables: {
      set?: {
        elem?: { elem: { val: { concat: [string, string, string] }; counter?: { packets: number } } }[];
      };
    }[];
  };
  return nftables.flatMap(({ set }) =>
    (set?.elem ?? []).map(({ elem }) => {
      const [port, mac, ip] = elem.val.concat;
      return { eniId: enisByPort.get(port) ?? port, family, mac, ip, count: elem.counter?.packets ?? 0 };
    }),
  );
}
