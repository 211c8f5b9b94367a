/** Single ADDs and DELs, a node's whole load at once, and what they cost: the plugin alone, on pools that are full before it begins. */
import type { Pod } from "../../../src/lab/runtime.ts";
import type { Verb } from "../contestants.ts";
import { cpuMsOf, residentMb } from "../proc.ts";
import { sleep } from "../stage.ts";
import { median, quantile } from "../statistics.ts";
import { type Figure, figureOf, noValues } from "./figures.ts";
import { inTurns, type PeerBench, type Twin, withTwins } from "./twins.ts";

/** All eight ENIs full and kept so: nothing but the calls themselves goes on while they are measured. */
const FULL_POOL = { WARM_ENI_TARGET: "8", IP_COOLDOWN_PERIOD: "1" };
const ADDRESSES = 8 * 29;
const BURST_PODS = 110;
/** A deletion goes on in the kernel when its DEL has answered; the next one to be measured shall not pay for it. */
const SETTLE_MS = 25;
const THOUSAND = 1_000;
/** Addresses rest a second, and the kernel clears namespaces away. */
const REST_MS = 2_000;

let podsMade = 0; // Names are not used again.

export async function measureCalls(bench: PeerBench, rounds: number): Promise<readonly Figure[]> {
  const [single, warmUp] = bench.quick ? [30, 10] : [100, 20];
  const options = {
    name: "calls",
    type: "m5.4xlarge",
    pairs: 1,
    settings: FULL_POOL,
    emulator: { timings: { call: 10, "link-up": 100 } },
  };
  return await withTwins(bench, options, async (twins) => {
    const [pair] = twins.pairs;
    if (pair === undefined) throw new Error("there is no pair");
    const values = {
      addP50: noValues(),
      addP99: noValues(),
      delP50: noValues(),
      delP99: noValues(),
      toolAddP50: noValues(),
      toolAddP99: noValues(),
      toolDelP50: noValues(),
      toolDelP99: noValues(),
      burst: noValues(),
      cpu: noValues(),
      idle: noValues(),
      after: noValues(),
    };
    await inTurns(0, pair, async (twin) => void (await twin.start()));
    await Promise.all(
      [pair.ours, pair.peer].map(async (twin) => await twins.heldBy(twin, { addresses: ADDRESSES })),
    );
    await sleep(5_000);
    await inTurns(0, pair, async (twin, who) => void values.idle[who].push(residentMb(twin.pid())));

    const done = { ours: 0, peer: 0 }; // ADDs.
    for (let round = -1; round < rounds; round += 1) {
      // The round before the first warms up and is not counted.
      const counts = round >= 0;
      const calls = counts ? single : warmUp;
      const adds = { ours: [] as number[], peer: [] as number[] };
      const dels = { ours: [] as number[], peer: [] as number[] };
      const toolAdds = { ours: [] as number[], peer: [] as number[] };
      const toolDels = { ours: [] as number[], peer: [] as number[] };
      await withPods(pair, 2 * calls, async (pods) => {
        for (let at = 0; at < calls; at += 1)
          await inTurns(round + at + 1, pair, async (twin, who) => {
            const pod = pods[who].slice(2 * at, 2 * at + 1);
            const other = pods[who].slice(2 * at + 1, 2 * at + 2);
            adds[who].push(...(await callAll(twin, "ADD", pod)).times);
            await sleep(SETTLE_MS);
            dels[who].push(...(await callAll(twin, "DEL", pod)).times);
            await sleep(SETTLE_MS);
            toolAdds[who].push(await callTool(twin, "ADD", other));
            await sleep(SETTLE_MS);
            toolDels[who].push(await callTool(twin, "DEL", other));
            await sleep(SETTLE_MS);
            done[who] += 2;
          });
      });
      await withPods(pair, BURST_PODS, async (pods) => {
        await inTurns(round + 1, pair, async (twin, who) => {
          const cpuBefore = cpuOf(twin);
          const burst = await callAll(twin, "ADD", pods[who]);
          const cpuMs = cpuOf(twin) - cpuBefore;
          await callAll(twin, "DEL", pods[who]);
          done[who] += BURST_PODS;
          await sleep(REST_MS);
          if (!counts) return;
          values.burst[who].push(burst.wallMs);
          values.cpu[who].push(cpuMs / BURST_PODS);
        });
      });
      if (!counts) continue;
      for (const who of ["ours", "peer"] as const) {
        values.addP50[who].push(median(adds[who]));
        values.addP99[who].push(quantile(adds[who], 0.99));
        values.delP50[who].push(median(dels[who]));
        values.delP99[who].push(quantile(dels[who], 0.99));
        values.toolAddP50[who].push(median(toolAdds[who]));
        values.toolAddP99[who].push(quantile(toolAdds[who], 0.99));
        values.toolDelP50[who].push(median(toolDels[who]));
        values.toolDelP99[who].push(quantile(toolDels[who], 0.99));
      }
    }
    while (Math.min(done.ours, done.peer) < THOUSAND)
      await withPods(pair, BURST_PODS, async (pods) => {
        await inTurns(0, pair, async (twin, who) => {
          await callAll(twin, "ADD", pods[who]);
          await callAll(twin, "DEL", pods[who]);
          done[who] += BURST_PODS;
        });
      });
    await sleep(5_000);
    await inTurns(0, pair, async (twin, who) => void values.after[who].push(residentMb(twin.pid())));
    return [
      figureOf("add.p50", "ms", values.addP50, 0.25),
      figureOf("add.p99", "ms", values.addP99, 0.25),
      figureOf("del.p50", "ms", values.delP50, 0.25),
      figureOf("del.p99", "ms", values.delP99, 0.25),
      figureOf("cnitool.add.p50", "ms", values.toolAddP50, null),
      figureOf("cnitool.add.p99", "ms", values.toolAddP99, null),
      figureOf("cnitool.del.p50", "ms", values.toolDelP50, null),
      figureOf("cnitool.del.p99", "ms", values.toolDelP99, null),
      figureOf("burst110.warm", "ms", values.burst, 0.25),
      figureOf("cpu.add", "ms", values.cpu, null),
      figureOf("memory.idle", "MB", values.idle, null),
      figureOf("memory.after1000Adds", "MB", values.after, 1.5),
    ];
  });
}

/**
 * As many sandboxes for both, made before and taken away after `work`, as a runtime makes one for each pod: in one that was used before,
 * the incumbent's ADD would first clear away what its DEL had left to the runtime.
 */
async function withPods(
  pair: { readonly ours: Twin; readonly peer: Twin },
  count: number,
  work: (pods: { readonly ours: readonly Pod[]; readonly peer: readonly Pod[] }) => Promise<void>,
): Promise<void> {
  podsMade += count;
  const names = Array.from({ length: count }, (_, at) => `pod-${podsMade + at}`);
  const ours = await pair.ours.node.runtime.makeSandboxes(names);
  const peer = await pair.peer.node.runtime.makeSandboxes(names);
  await work({ ours, peer });
  await pair.ours.node.runtime.removeSandboxes(ours);
  await pair.peer.node.runtime.removeSandboxes(peer);
  await sleep(REST_MS);
}

/** Of the daemon and of the plugins that have ended. What the kernel does later in its own threads is nobody's. */
function cpuOf(twin: Twin): number {
  return cpuMsOf(twin.pid(), "own") + twin.launcher.childrenCpuMs();
}

/** All at once. Throws when one fails: the pools are full, so none may. */
async function callAll(
  twin: Twin,
  verb: Verb,
  pods: readonly Pod[],
): Promise<{ readonly times: readonly number[]; readonly wallMs: number }> {
  const { finished, wallMs } = await twin.launcher.run(pods.map((pod) => twin.job(verb, pod)));
  for (const [at, each] of finished.entries()) {
    const pod = pods[at];
    if (each.exitCode !== 0)
      throw new Error(`${verb} failed on ${twin.node.name}: ${each.stdout.slice(0, 400)}`);
    if (verb === "ADD" && pod !== undefined) twin.served(pod, each);
  }
  return { times: finished.map(({ ms }) => ms), wallMs };
}

/** One call through libcni. */
async function callTool(twin: Twin, verb: Verb, pods: readonly Pod[]): Promise<number> {
  const { finished } = await twin.cnitoolLauncher.run(pods.map((pod) => twin.cnitoolJob(verb, pod)));
  const [only] = finished;
  if (only === undefined || only.exitCode !== 0)
    throw new Error(`${verb} through cnitool failed on ${twin.node.name}: ${only?.stdout.slice(0, 400)}`);
  return only.ms;
}
