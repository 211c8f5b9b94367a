/** A packet's round trip from a host of the VPC through the node to a pod and back, with 1, 250 and 1,000 pods on the node. */
import { must } from "../../../src/lab/processes.ts";
import type { Pod } from "../../../src/lab/runtime.ts";
import { sleep } from "../stage.ts";
import { quantile } from "../statistics.ts";
import { type Figure, figureOf, noValues } from "./figures.ts";
import { inTurns, type PeerBench, type Twin, withTwins } from "./twins.ts";

const COUNTS = [1, 250, 1_000] as const;
const CHUNK = 10; // ADDs at once.
const TRIES = 20;
const PORT = "7001";

/** By prefixes, so that three ENIs hold a thousand pods and the incumbent needs few of its looks to get there. */
const SETTINGS = {
  ENABLE_PREFIX_DELEGATION: "true",
  MINIMUM_IP_TARGET: "1040",
  WARM_IP_TARGET: "1",
  IP_COOLDOWN_PERIOD: "1",
};
const PREFIXES = 65;
const PODS_MAX = 1_100;

export async function measurePackets(bench: PeerBench, rounds: number): Promise<readonly Figure[]> {
  const options = {
    name: "packets",
    type: "m5.4xlarge",
    pairs: 1,
    settings: SETTINGS,
    emulator: {},
    podsMax: PODS_MAX,
  };
  return await withTwins(bench, options, async ({ cluster, pairs, heldBy }) => {
    const [pair] = pairs;
    const client = cluster.fabric.client;
    if (pair === undefined || client === null) throw new Error("there is no pair, or nobody to send");
    await inTurns(0, pair, async (twin) => void (await twin.start()));
    await Promise.all([pair.ours, pair.peer].map(async (twin) => await heldBy(twin, { prefixes: PREFIXES })));
    const [most] = COUNTS.slice(-1);
    const names = Array.from({ length: most ?? 0 }, (_, at) => `pod-${at}`);
    const pods = {
      ours: await pair.ours.node.runtime.makeSandboxes(names),
      peer: await pair.peer.node.runtime.makeSandboxes(names),
    };
    const ips = { ours: "", peer: "" }; // Of the first pods, which are the ones that answer.
    const figures: Figure[] = [];
    let there = 0;
    for (const count of COUNTS) {
      await inTurns(0, pair, async (twin, who) => {
        const results = await addAll(twin, pods[who].slice(there, count));
        if (there === 0) ips[who] = results[0] ?? "";
      });
      there = count;
      await sleep(1_000);
      const values = noValues();
      for (let round = 0; round < rounds; round += 1)
        await inTurns(round, pair, async (_, who) => {
          const netns = pods[who][0]?.netns ?? "";
          const ends = [`/run/netns/${client.netns}`, netns, ips[who], PORT];
          const lines = (await must([bench.tools.pingpong, ...ends, "200", "100"])).trim().split("\n");
          values[who].push(quantile(lines.map(Number), 0.25) / 1_000);
        });
      figures.push(figureOf(`packet.${count}pods`, "us", values, null));
    }
    return figures;
  });
}

/**
 * Addresses, in the pods' order. An ADD that fails is tried again: with some hundred links on the node the incumbent's own look at them
 * fails when others are made meanwhile.
 */
async function addAll(twin: Twin, pods: readonly Pod[]): Promise<readonly string[]> {
  const ips = new Map<Pod, string>();
  for (let at = 0; at < pods.length; at += CHUNK) {
    let waiting = pods.slice(at, at + CHUNK);
    for (let tries = 1; waiting.length > 0; tries += 1) {
      const { finished } = await twin.launcher.run(waiting.map((pod) => twin.job("ADD", pod)));
      for (const [index, { exitCode, stdout }] of finished.entries()) {
        const pod = waiting[index];
        if (pod === undefined || exitCode !== 0) continue;
        const { ips: given = [] } = JSON.parse(stdout) as { ips?: { address?: string }[] }; // A CNI result.
        ips.set(pod, given[0]?.address?.split("/")[0] ?? "");
      }
      waiting = waiting.filter((pod) => !ips.has(pod));
      if (tries === TRIES && waiting.length > 0)
        throw new Error(`ADD failed on ${twin.node.name}: ${finished.at(-1)?.stdout.slice(0, 400)}`);
    }
  }
  return pods.map((pod) => ips.get(pod) ?? "");
}
