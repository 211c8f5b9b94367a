/** A packet's round trip through a node, from a host of the VPC to a pod and back, with one pod's link there and with a thousand. */
import { must } from "../../src/lab/processes.ts";
import type { Pod } from "../../src/lab/runtime.ts";
import { ours, perform } from "./contestants.ts";
import { type Bench, poolIsFull, type Stage, sleep, withStage } from "./stage.ts";
import { quantile, type Summary, summarize } from "./statistics.ts";

export type Packet = { readonly onePodUs: Summary; readonly thousandPodsUs: Summary };

const PODS = 1_000;
const CHUNK = 100; // At once: the plugin's socket takes 512.
const PORT = "7001";

/** 24 ENIs of 64 addresses, so that all pods are the daemon's own work. The ENIs are the same with one pod as with a thousand. */
const NODE = {
  name: "many",
  type: "c8i.32xlarge",
  settings: { MINIMUM_IP_TARGET: `${PODS + 50}`, WARM_IP_TARGET: "1", IP_COOLDOWN_PERIOD: "0" },
};

export async function measurePacket(bench: Bench): Promise<Packet> {
  return await withStage(bench, NODE, async (stage) => {
    const { node, launcher } = stage;
    await node.startDaemon();
    await poolIsFull(node, PODS);
    const names = Array.from({ length: PODS }, (_, at) => `pod-${at}`);
    const pods = await node.runtime.makeSandboxes(names);
    const [first, ...others] = pods;
    if (first === undefined) throw new Error("no pods were made");
    await perform(launcher, ours(node), "ADD", [first]);
    const ip = (await node.state()).allocations[0]?.ip ?? "";

    const one: number[] = [];
    const thousand: number[] = [];
    for (let round = 0; round < (bench.quick ? 1 : 3); round += 1) {
      one.push(...(await roundTrips(bench, stage, first, ip)));
      await inChunks(stage, "ADD", others);
      thousand.push(...(await roundTrips(bench, stage, first, ip)));
      await inChunks(stage, "DEL", others);
    }
    one.push(...(await roundTrips(bench, stage, first, ip)));
    return { onePodUs: summarize(one), thousandPodsUs: summarize(thousand) };
  });
}

async function inChunks({ node, launcher }: Stage, verb: "ADD" | "DEL", pods: readonly Pod[]): Promise<void> {
  for (let at = 0; at < pods.length; at += CHUNK)
    await perform(launcher, ours(node), verb, pods.slice(at, at + CHUNK));
}

/** Microseconds, one figure a run: the lower quartile of its batches, each too short for the scheduler to come between in most of them. */
async function roundTrips(
  bench: Bench,
  { cluster }: Stage,
  pod: Pod,
  ip: string,
): Promise<readonly number[]> {
  const client = cluster.fabric.client;
  if (client === null) throw new Error("the VPC has no other host");
  await sleep(500); // Links that were just made or deleted are settled.
  const results: number[] = [];
  for (let run = 0; run < 5; run += 1) {
    const command = [bench.tools.pingpong, `/run/netns/${client.netns}`, pod.netns, ip, PORT, "200", "100"];
    const lines = (await must(command)).trim().split("\n").map(Number);
    results.push(quantile(lines, 0.25) / 1_000);
  }
  return results;
}
