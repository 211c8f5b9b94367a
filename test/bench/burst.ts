/** Many ADDs at once: a node's whole load of pods on a warm pool, beside ptp; and a hundred pods on a node that has just booted. */
import type { Pod } from "../../src/lab/runtime.ts";
import { type Contestant, ours, peer, perform } from "./contestants.ts";
import { type Bench, poolIsFull, type Stage, sleep, withStage } from "./stage.ts";
import { median, rounded, type Summary, summarize } from "./statistics.ts";

export type Burst = { readonly failed: number; readonly oursMs: Summary; readonly peerMs: Summary | null };

const PODS = 110; // The most that Kubernetes puts on a node by default.

export async function measureBurst(bench: Bench): Promise<Burst> {
  const rounds = bench.quick ? 3 : 7;
  // All ENIs full, so that nothing is asked of EC2 meanwhile: here the cloud would take its time from the same two cores.
  const settings = { WARM_ENI_TARGET: "8", IP_COOLDOWN_PERIOD: "1" };
  return await withStage(bench, { name: "burst", type: "m5.4xlarge", settings }, async (stage) => {
    await stage.node.startDaemon();
    const names = Array.from({ length: PODS }, (_, at) => `pod-${at}`);
    const mine = await stage.node.runtime.makeSandboxes(names);
    const theirs = await stage.node.runtime.makeSandboxes(names);
    const rival = bench.tools.peers === null ? null : peer(stage.node, bench.tools.peers);
    const oursMs: number[] = [];
    const peerMs: number[] = [];
    let failed = 0;
    for (let round = 0; round <= rounds; round += 1) {
      await poolIsFull(stage.node, PODS);
      const done = await oneBurst(stage, ours(stage.node), mine);
      const theirMs = rival === null ? null : (await oneBurst(stage, rival, theirs)).wallMs;
      if (round === 0) continue; // The first of each warms up.
      failed += done.failed;
      oursMs.push(done.wallMs);
      if (theirMs !== null) peerMs.push(theirMs);
    }
    return { failed, oursMs: summarize(oursMs), peerMs: rival === null ? null : summarize(peerMs) };
  });
}

async function oneBurst(
  { launcher }: Stage,
  plugin: Contestant,
  pods: readonly Pod[],
): Promise<{ readonly wallMs: number; readonly failed: number }> {
  await sleep(300); // What the last burst left to do in the background is done.
  const { finished, wallMs } = await launcher.run(pods.map((pod) => plugin.job("ADD", pod)));
  await perform(launcher, plugin, "DEL", pods);
  return { wallMs, failed: finished.filter(({ exitCode }) => exitCode !== 0).length };
}

export type ColdBurst = {
  readonly failed: number;
  readonly seconds: number;
  readonly rounds: readonly number[];
};

const COLD_PODS = 100;
/** EC2 answers in 10 ms, an attached ENI's link is there after 100 ms. */
const CLOUD = { timings: { call: 10, "link-up": 100 } };

/** A fresh node each round, default settings; the pods come as soon as the daemon is ready. */
export async function measureColdBurst(bench: Bench): Promise<ColdBurst> {
  const seconds: number[] = [];
  let failed = 0;
  for (let round = 0; round < (bench.quick ? 1 : 3); round += 1) {
    const options = { name: `cold${round}`, type: "m5.4xlarge", settings: {}, emulator: CLOUD };
    await withStage(bench, options, async ({ node, launcher }) => {
      const names = Array.from({ length: COLD_PODS }, (_, at) => `pod-${at}`);
      const pods = await node.runtime.makeSandboxes(names);
      const plugin = ours(node);
      await node.startDaemon();
      const { finished, wallMs } = await launcher.run(pods.map((pod) => plugin.job("ADD", pod)));
      const bad = finished.filter(({ exitCode }) => exitCode !== 0);
      failed += bad.length;
      if (bad[0] !== undefined) bench.say(`an ADD of the cold burst failed: ${bad[0].stdout.slice(0, 400)}`);
      seconds.push(rounded(wallMs / 1_000));
    });
  }
  return { failed, seconds: rounded(median(seconds)), rounds: seconds };
}
