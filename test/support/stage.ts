/** The matrix's lab for tests that change one thing at a time: questions in one line, and a node's daemon under other settings. */
import type { LabNode } from "../../src/lab/node.ts";
import { ask, type Question } from "../../src/lab/probes.ts";
import { must } from "../../src/lab/processes.ts";
import { PORT, setStage, type Place, type Stage } from "../../src/lab/matrix/stage.ts";

/** One pod on the primary ENI and more on a secondary one, on each of two nodes; quick to heal. */
export async function smallStage(settings: Readonly<Record<string, string>> = {}): Promise<Stage> {
  return await setStage(
    {
      instanceType: "t3.small",
      podsPerNode: 5,
      snat: "node",
      settings: {
        WARM_IP_TARGET: "1",
        MINIMUM_IP_TARGET: "6",
        IP_COOLDOWN_PERIOD: "0",
        BERTH_REPAIR_INTERVAL_SECONDS: "1",
        ...settings,
      },
    },
    { prefix: "st-" },
  );
}

export function firstNode(stage: Stage): LabNode {
  const [node] = stage.cluster.nodes;
  if (node === undefined) throw new Error("no node");
  return node;
}

/** Pods keep running; only the daemon is another one. */
export async function restartWith(node: LabNode, settings: Readonly<Record<string, string>>): Promise<void> {
  await node.stopDaemon("SIGTERM");
  await node.startDaemon(settings);
}

/** The source address that the other side saw, or "nobody". */
export async function seenBy(
  from: Place,
  ip: string,
  options: Partial<Pick<Question, "protocol" | "port" | "bytes" | "patienceMs" | "watchedIn">> = {},
): Promise<string> {
  const { protocol = "tcp", port = PORT, ...rest } = options;
  const answer = await ask({ netns: from.netns, protocol, ip, port, patienceMs: 600, ...rest });
  return answer.kind === "seen" ? answer.ip : "nobody";
}

export async function nft(node: LabNode, input: string): Promise<void> {
  await must(["nft", "-f", "-"], { netns: node.netns, input });
}

export async function ip(node: LabNode, ...lines: readonly string[]): Promise<void> {
  for (const line of lines) await must(["ip", ...line.split(" ")], { netns: node.netns });
}

export async function ourTable(node: LabNode): Promise<string> {
  return await must(["nft", "list", "table", "inet", "berth"], { netns: node.netns });
}

/** Frames that the VPC refused since the last call, for their source. */
export function spoofedSince(stage: Stage): () => Promise<number> {
  let before = 0;
  return async () => {
    const frames = await stage.cluster.fabric.spoofedFrames();
    const now = frames.reduce((sum, frame) => sum + frame.count, 0);
    const since = now - before;
    before = now;
    return since;
  };
}
