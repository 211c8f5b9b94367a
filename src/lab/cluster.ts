/** Some nodes on one fabric: an emulated VPC with its EC2 and IMDS, served from inside the VPC, and a namespace for each instance. */
import { mkdirSync, rmSync } from "node:fs";
import type { RequestListener } from "node:http";
import { createServer } from "node:http";
import { join } from "node:path";
import { createEc2Server } from "../emulator/ec2-server.ts";
import { createEmulator, type Emulator, type EmulatorOptions } from "../emulator/emulator.ts";
import { attachFabric } from "../emulator/fabric/attach.ts";
import { createFabric, type Fabric } from "../emulator/fabric/fabric.ts";
import { cidr4, ipv4 } from "../lib/ip.ts";
import { createNode, type LabNode } from "./node.ts";
import { inNetns } from "./processes.ts";

export type ClusterOptions = {
  readonly prefix?: string;
  readonly nodes: readonly {
    readonly name: string;
    readonly type: string;
    readonly secondaryCount?: number;
    readonly prefixCount?: number; // /28s that the launch template gave the primary ENI.
    readonly settings?: Readonly<Record<string, string>>;
  }[];
  readonly settings?: Readonly<Record<string, string>>; // Of every daemon.
  readonly emulator?: EmulatorOptions;
  readonly subnetCidr?: string;
  readonly folder?: string;
  readonly bundle?: string; // Another build of the daemon than the one for production.
};

export type Cluster = {
  readonly emulator: Emulator;
  readonly fabric: Fabric;
  readonly nodes: readonly LabNode[];
  readonly subnetId: string;
  readonly close: () => Promise<void>;
};

const VPC_CIDR = "10.0.0.0/16";
const PORT = 80;

export async function createCluster(options: ClusterOptions): Promise<Cluster> {
  const { prefix = "lab-", folder = "/run/berth-lab", subnetCidr = "10.0.0.0/20" } = options;
  mkdirSync(folder, { recursive: true });
  const emulator = createEmulator({ profile: "instant", ...options.emulator });
  const { vpcId } = emulator.seed.vpc({ cidrs: [VPC_CIDR] });
  const subnetId = emulator.seed.subnet({ vpcId, cidr: subnetCidr });
  const client = { ip: ipv4("10.0.200.10"), subnetCidr: cidr4("10.0.200.0/24") };
  const fabric = await createFabric({ prefix, vpcCidrs: [cidr4(VPC_CIDR)], client });
  const failures: string[] = [];
  const detach = attachFabric(emulator, fabric, (failure, event) =>
    failures.push(`${event.kind}: ${String(failure)}`),
  );

  const instances = options.nodes.map(({ type, secondaryCount = 0, prefixCount = 0 }) =>
    emulator.seed.launch({ type, subnetId, secondaryCount, prefixCount }),
  );
  for (const [at, { instanceId }] of instances.entries())
    await fabric.addNode({ instanceId, netns: `${prefix}${options.nodes[at]?.name}` });
  await fabric.settled();

  const router = `/run/netns/${fabric.vpc.netns}`;
  const byPrimary = new Map(instances.map(({ primary, instanceId }) => [primary as string, instanceId]));
  const imds = emulator.imdsHandler(
    (asked) => byPrimary.get((asked.socket.remoteAddress ?? "").replace(/^::ffff:/, "")) ?? null,
  );
  // One port serves both: which one is meant is told by the address that was asked.
  const ec2 = createEc2Server(emulator);
  const both: RequestListener = (asked, answer) => {
    const own = (asked.socket.localAddress ?? "").replace(/^::ffff:/, "");
    if (own === fabric.vpc.imdsAddress) imds(asked, answer);
    else ec2.emit("request", asked, answer);
  };
  const server = createServer(both);
  const listening = new Promise<void>((resolve, reject) => {
    server.once("listening", resolve).once("error", reject);
  });
  inNetns(router, () => server.listen(PORT));
  await listening;

  const nodes = options.nodes.map(({ name, settings = {} }, at) =>
    createNode({
      name: `${prefix}${name}`,
      instanceId: instances[at]?.instanceId ?? "",
      folder: join(folder, name),
      ec2Url: `http://${fabric.vpc.ec2Address}`,
      imdsUrl: `http://${fabric.vpc.imdsAddress}`,
      settings: { ...options.settings, ...settings },
      ...(options.bundle === undefined ? {} : { bundle: options.bundle }),
    }),
  );
  return {
    emulator,
    fabric,
    nodes,
    subnetId,
    close: async () => {
      await Promise.all(nodes.map(async (node) => await node.stopDaemon("SIGKILL")));
      await Promise.all(nodes.map(async (node) => await node.runtime.close()));
      detach();
      server.closeAllConnections();
      server.close();
      await emulator.close();
      await fabric.close();
      rmSync(folder, { recursive: true, force: true });
      if (failures.length > 0) throw new Error(`the fabric fell behind the world: ${failures.join("; ")}`);
    },
  };
}
