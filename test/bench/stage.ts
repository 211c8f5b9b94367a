/** A node to measure on: an emulated VPC of one instance, its daemon, and a launcher in its namespace. */
import { createCluster, type Cluster, type ClusterOptions } from "../../src/lab/cluster.ts";
import { type LabNode, waitUntil } from "../../src/lab/node.ts";
import { createLauncher, type Launcher } from "./launcher.ts";
import type { Tools } from "./tools.ts";

/** Everything that a part of the bench needs of the outside. */
export type Bench = {
  readonly tools: Tools;
  readonly quick: boolean;
  readonly say: (text: string) => void;
};

export type Stage = { readonly cluster: Cluster; readonly node: LabNode; readonly launcher: Launcher };

export type StageOptions = {
  readonly name: string;
  readonly type: string;
  readonly settings: Readonly<Record<string, string>>;
  readonly emulator?: NonNullable<ClusterOptions["emulator"]>;
};

/** Builds the stage, lets `play` run on it, and clears it away, whatever happens. The daemon is not started yet. */
export async function withStage<T>(
  bench: Bench,
  options: StageOptions,
  play: (stage: Stage) => Promise<T>,
): Promise<T> {
  const cluster = await createCluster({
    prefix: `${options.name}-`,
    folder: `/run/berth-bench/${options.name}`,
    nodes: [{ name: "n", type: options.type }],
    settings: options.settings,
    ...(options.emulator === undefined ? {} : { emulator: options.emulator }),
  });
  const [node] = cluster.nodes;
  if (node === undefined) throw new Error("the cluster has no node");
  const launcher = createLauncher(bench.tools.launcher, node.netns);
  try {
    return await play({ cluster, node, launcher });
  } catch (cause) {
    bench.say(node.log().trim().split("\n").slice(-5).join("\n"));
    throw cause;
  } finally {
    await launcher.close();
    await cluster.close();
  }
}

/** Resolves when so many addresses are warm and the planner has nothing more to do. */
export async function poolIsFull(node: LabNode, warmCount: number): Promise<void> {
  await waitUntil(`${warmCount} addresses of ${node.name} are warm`, 60_000, async () => {
    const { census, plan } = await node.state();
    return census.warm >= warmCount && census.coming === 0 && plan.kind === "hold";
  });
}

export async function sleep(ms: number): Promise<void> {
  await new Promise<void>((resolve) => setTimeout(resolve, ms));
}
