/** The daemon as a process: memory with a full node, growth and descriptors over many pods, time from spawn to an open socket. */
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import type { LabNode } from "../../src/lab/node.ts";
import type { Pod } from "../../src/lab/runtime.ts";
import { ours, perform } from "./contestants.ts";
import { type Bench, poolIsFull, type Stage, sleep, withStage } from "./stage.ts";
import { median, rounded, type Summary, summarize } from "./statistics.ts";

export type Memory = {
  readonly rssMb: number;
  readonly growthMb: number;
  readonly fdGrowth: number;
  readonly pairs: number;
  readonly warmUpPairs: number;
};

const PODS = 110;
const AT_ONCE = 10;

export async function measureMemory(bench: Bench): Promise<Memory> {
  const [warmUpPairs, pairs] = bench.quick ? [500, 1_000] : [1_000, 5_000];
  const settings = { WARM_ENI_TARGET: "8", IP_COOLDOWN_PERIOD: "1" };
  return await withStage(bench, { name: "memory", type: "m5.4xlarge", settings }, async (stage) => {
    const { node, launcher } = stage;
    await node.startDaemon();
    await poolIsFull(node, 200);
    const names = Array.from({ length: PODS }, (_, at) => `pod-${at}`);
    const pods = await node.runtime.makeSandboxes(names);
    await perform(launcher, ours(node), "ADD", pods);
    const rssMb = await restingRssMb(node);

    // Half of the node stays as it is, the other half comes and goes.
    const changing = pods.slice(PODS / 2);
    await perform(launcher, ours(node), "DEL", changing);
    await comeAndGo(stage, changing, warmUpPairs);
    const before = { rssMb: await restingRssMb(node), fds: await restingDescriptors(node) };
    await comeAndGo(stage, changing, pairs);
    const after = { rssMb: await restingRssMb(node), fds: await restingDescriptors(node) };
    const growthMb = rounded(after.rssMb - before.rssMb);
    const fdGrowth = Math.max(0, after.fds - before.fds); // One less than before is no growth either.
    return { rssMb: rounded(rssMb), growthMb, fdGrowth, pairs, warmUpPairs };
  });
}

async function comeAndGo({ node, launcher }: Stage, pods: readonly Pod[], pairs: number): Promise<void> {
  const plugin = ours(node);
  for (let done = 0, at = 0; done < pairs; done += AT_ONCE, at += AT_ONCE) {
    const some = Array.from({ length: AT_ONCE }, (_, i) => pods[(at + i) % pods.length]).filter(
      (pod) => pod !== undefined,
    );
    await perform(launcher, plugin, "ADD", some);
    await perform(launcher, plugin, "DEL", some);
  }
}

/** Median of a few looks while nobody asks for anything. */
async function restingRssMb(node: LabNode): Promise<number> {
  await sleep(1_500); // The last links are gone, the last addresses have rested.
  const looks: number[] = [];
  for (let look = 0; look < 5; look += 1) {
    looks.push(Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`${procOf(node)}/status`, "utf8"))?.[1]) / 1_024);
    await sleep(100);
  }
  return median(looks);
}

/** The fewest of a few looks: now and then the daemon has a file or a pipe open for a moment. */
async function restingDescriptors(node: LabNode): Promise<number> {
  const looks: number[] = [];
  for (let look = 0; look < 8; look += 1) {
    looks.push(readdirSync(`${procOf(node)}/fd`).length);
    await sleep(150);
  }
  return Math.min(...looks);
}

function procOf(node: LabNode): string {
  const pid = node.daemonPid();
  if (pid === null) throw new Error(`the daemon of ${node.name} does not run`);
  return `/proc/${pid}`;
}

export type Start = { readonly ms: Summary; readonly withPods: number };

/** First on a fresh node, then again and again with pods running; all of them count. */
export async function measureStart(bench: Bench): Promise<Start> {
  const starts = bench.quick ? 3 : 9;
  const withPods = 20;
  return await withStage(
    bench,
    { name: "start", type: "m5.4xlarge", settings: {} },
    async ({ node, launcher }) => {
      const times: number[] = [];
      for (let at = 0; at < starts; at += 1) {
        const began = performance.now();
        const ready = node.startDaemon();
        const opened = socketOpens(node.pluginEnv["BERTH_SOCKET"] ?? "", began);
        times.push(await Promise.race([opened, ready.then(async () => await opened)]));
        await ready;
        if (at === 0) {
          const names = Array.from({ length: withPods }, (_, i) => `pod-${i}`);
          await perform(launcher, ours(node), "ADD", await node.runtime.makeSandboxes(names));
        }
        await poolIsFull(node, 1);
        await node.stopDaemon("SIGTERM");
      }
      return { ms: summarize(times), withPods };
    },
  );
}

/** The incumbent waits 30 s for an API server before it opens its own. */
const SOCKET_MS = 90_000;

/** Milliseconds from `began` until somebody accepts a connection. */
export async function socketOpens(path: string, began: number): Promise<number> {
  for (;;) {
    const accepted = await new Promise<boolean>((resolve) => {
      const socket = connect(path);
      socket.once("connect", () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    if (accepted) return performance.now() - began;
    if (performance.now() - began > SOCKET_MS)
      throw new Error(`the plugin's socket did not open within ${SOCKET_MS / 1_000} s`);
    await sleep(1);
  }
}
