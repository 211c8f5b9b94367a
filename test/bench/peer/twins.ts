/**
 * Ours and the incumbent on twin nodes: same type, same VPC, same EC2, one machine, and never both at work at once. Each node has its
 * daemon alone, since two pools on one instance would take from each other.
 */
import { join } from "node:path";
import { type Cluster, createCluster, type ClusterOptions } from "../../../src/lab/cluster.ts";
import { type LabNode, SHIM, waitUntil } from "../../../src/lab/node.ts";
import type { Pod } from "../../../src/lab/runtime.ts";
import { type ApiServer, startApiServer } from "../../judges/api-server.ts";
import { type AwsNode, createAwsNode } from "../../judges/aws-node.ts";
import { createCnitool } from "../../judges/cnitool.ts";
import type { PeerPrograms } from "../../judges/peer-programs.ts";
import type { Verb } from "../contestants.ts";
import { socketOpens } from "../daemon.ts";
import { createLauncher, type Finished, type Job, type Launcher } from "../launcher.ts";
import type { Bench } from "../stage.ts";

export type PeerBench = Bench & { readonly programs: PeerPrograms };

type Settings = Readonly<Record<string, string>>;

export type Twin = {
  readonly node: LabNode;
  readonly launcher: Launcher;
  /** Milliseconds from spawn until the plugin's socket takes a connection. */
  readonly start: (settings?: Settings) => Promise<number>;
  /** Milliseconds from the signal to the process's end. */
  readonly stop: (signal: "SIGTERM" | "SIGKILL") => Promise<number>;
  readonly pid: () => number;
  readonly job: (verb: Verb, pod: Pod) => Job;
  /** The same by libcni: through cnitool. For `cnitoolLauncher`. */
  readonly cnitoolJob: (verb: Verb, pod: Pod) => Job;
  readonly cnitoolLauncher: Launcher;
  /** Takes note of an ADD's result, which its DEL is given. */
  readonly served: (pod: Pod, finished: Finished) => void;
};

export type Twins = {
  readonly cluster: Cluster;
  readonly apiServer: ApiServer;
  /** As many as asked for, each as fresh as an instance that has just booted. */
  readonly pairs: readonly { readonly ours: Twin; readonly peer: Twin }[];
  /** Resolves when EC2 says that the twin's node holds so many or more, and has said so for a while. */
  readonly heldBy: (
    twin: Twin,
    least: { readonly addresses?: number; readonly prefixes?: number },
  ) => Promise<void>;
};

export type TwinOptions = {
  readonly name: string;
  readonly type: string;
  readonly pairs: number;
  readonly settings: Settings;
  readonly emulator: NonNullable<ClusterOptions["emulator"]>;
  readonly podsMax?: number; // What a node's kubelet says that it takes.
};

const NETWORK = "berth";
/** As EKS has it for this type, so that the incumbent fills all ENIs when told to. */
const PODS_MAX = 234;

export async function withTwins<T>(
  bench: PeerBench,
  options: TwinOptions,
  play: (twins: Twins) => Promise<T>,
): Promise<T> {
  const { name, type, settings, emulator, podsMax = PODS_MAX } = options;
  const folder = `/run/berth-bench/${name}`;
  const numbers = Array.from({ length: options.pairs }, (_, at) => at);
  const cluster = await createCluster({
    prefix: `${name}-`,
    folder,
    nodes: numbers.flatMap((at) => [
      { name: `o${at}`, type },
      { name: `p${at}`, type },
    ]),
    settings,
    emulator,
  });
  const { vpc } = cluster.fabric;
  const apiServer = await startApiServer({
    ...bench.programs,
    folder: join(folder, "api-server"),
    netns: `/run/netns/${vpc.netns}`,
    address: vpc.ec2Address,
    nodeNames: [],
  });
  const closers: (() => Promise<void>)[] = [];
  const judges = bench.tools.peers;
  if (judges === null) throw new Error("cnitool is not built");
  const ours = async (node: LabNode): Promise<Twin> => {
    const launcher = createLauncher(bench.tools.launcher, node.netns);
    const tool = await createCnitool(judges, node);
    tool.configure({ cniVersion: "1.0.0", name: NETWORK, plugins: [{ type: "berth-cni" }] });
    const cnitoolLauncher = createLauncher(bench.tools.launcher, node.netns, tool.enter);
    closers.push(launcher.close, cnitoolLauncher.close, async () => await Promise.resolve(tool.close()));
    return {
      node,
      launcher,
      start: async (more = {}) => {
        const began = performance.now();
        const ready = node.startDaemon({ KUBECONFIG: apiServer.kubeconfig, ...more });
        const opened = socketOpens(node.pluginEnv["BERTH_SOCKET"] ?? "", began);
        const ms = await Promise.race([opened, ready.then(async () => await opened)]);
        await ready;
        return ms;
      },
      stop: async (signal) => await timed(async () => await node.stopDaemon(signal)),
      pid: () => pidOf(node.name, node.daemonPid()),
      job: (verb, pod) => ({ program: SHIM, ...node.runtime.request(verb, pod) }),
      cnitoolLauncher,
      cnitoolJob: (verb, pod) => ({
        program: join(judges, "cnitool"),
        args: [verb.toLowerCase(), NETWORK, pod.netns],
        env: tool.environment(pod),
        input: "",
      }),
      served: () => {},
    };
  };
  const peer = async (node: LabNode): Promise<Twin> => {
    const aws = await createAwsNode({
      programs: bench.programs,
      node,
      folder: join(folder, `aws-${node.name}`),
      ec2Url: `http://${vpc.ec2Address}`,
      imdsUrl: `http://${vpc.imdsAddress}`,
      kubeconfig: apiServer.kubeconfig,
      settings,
    });
    const launcher = createLauncher(bench.tools.launcher, node.netns, aws.enter);
    closers.push(launcher.close, aws.close);
    return twinOf(aws, node, launcher, { plugin: bench.programs.plugin, judges });
  };
  try {
    const pairs: { ours: Twin; peer: Twin }[] = [];
    for (const at of numbers) {
      const [mine, theirs] = cluster.nodes.slice(2 * at);
      if (mine === undefined || theirs === undefined) throw new Error("the cluster lacks a node");
      await apiServer.addNode(mine.name, podsMax);
      await apiServer.addNode(theirs.name, podsMax);
      pairs.push({ ours: await ours(mine), peer: await peer(theirs) });
    }
    return await play({
      cluster,
      apiServer,
      pairs,
      heldBy: async (twin, least) => await heldBy(cluster, twin, least),
    });
  } finally {
    for (const close of closers) await close();
    await apiServer.close();
    await cluster.close();
  }
}

function twinOf(
  aws: AwsNode,
  node: LabNode,
  launcher: Launcher,
  programs: { readonly plugin: string; readonly judges: string },
): Twin {
  return {
    node,
    launcher,
    start: async (settings = {}) => {
      const began = performance.now();
      aws.spawnDaemon(settings);
      return await socketOpens(aws.socketPath, began);
    },
    stop: async (signal) => await timed(async () => await aws.stopDaemon(signal)),
    pid: () => pidOf(node.name, aws.daemonPid()),
    job: (verb, pod) => ({ program: programs.plugin, ...aws.request(verb, pod) }),
    cnitoolLauncher: launcher, // Its cache is the node's already.
    cnitoolJob: (verb, pod) => aws.cnitoolJob(programs.judges, verb === "ADD" ? "add" : "del", pod),
    served: (pod, finished) => aws.remember(pod, finished.stdout),
  };
}

function pidOf(name: string, pid: number | null): number {
  if (pid === null) throw new Error(`the daemon of ${name} does not run`);
  return pid;
}

async function timed(work: () => Promise<void>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

async function heldBy(
  cluster: Cluster,
  { node }: Twin,
  { addresses = 0, prefixes = 0 }: { readonly addresses?: number; readonly prefixes?: number },
): Promise<void> {
  let since = performance.now();
  await waitUntil(`${node.name} holds ${addresses} addresses and ${prefixes} prefixes`, 180_000, () => {
    const enis = [...cluster.emulator.world().enis.values()].filter(
      ({ attachment }) => attachment?.instanceId === node.instanceId,
    );
    const held = {
      addresses: enis.reduce((sum, eni) => sum + eni.secondaries.length, 0),
      prefixes: enis.reduce((sum, eni) => sum + eni.prefixes.length, 0),
    };
    if (held.addresses < addresses || held.prefixes < prefixes) since = performance.now();
    return performance.now() - since > 3_000;
  });
}

/** Both of a pair, in turns: who goes first changes with the round. */
export async function inTurns(
  round: number,
  pair: { readonly ours: Twin; readonly peer: Twin },
  work: (twin: Twin, who: "ours" | "peer") => Promise<void>,
): Promise<void> {
  const order = round % 2 === 0 ? (["ours", "peer"] as const) : (["peer", "ours"] as const);
  for (const who of order) await work(pair[who], who);
}
