/** Many pods on a node that has just booted: the pool has only what the daemon took at its start, and the rest must come from EC2. */
import type { Pod } from "../../../src/lab/runtime.ts";
import { sleep } from "../stage.ts";
import { type Figure, figureOf, noValues } from "./figures.ts";
import { inTurns, type PeerBench, type Twin, withTwins } from "./twins.ts";

/** How EC2 is: every call answered in 10 ms and a link there after 100; or as users of the real one measured it. */
export const CLOUDS = {
  "10ms": { timings: { call: 10, "link-up": 100 } },
  typical: { profile: "typical" },
} as const;

type Cloud = keyof typeof CLOUDS;

const CASES = [
  { name: "fresh100.default", pods: 100, settings: {}, goalRatio: 0.125 },
  { name: "fresh100.prefixes", pods: 100, settings: { ENABLE_PREFIX_DELEGATION: "true" }, goalRatio: 0.125 },
  { name: "fresh12.warmIpTarget3", pods: 12, settings: { WARM_IP_TARGET: "3" }, goalRatio: null },
] as const;

/** The goals were set with an EC2 that answers in 10 ms; where EC2 takes its time, both wait for it alike. */
export async function measureFresh(
  bench: PeerBench,
  rounds: number,
  cloud: Cloud,
): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  for (const { name, pods, settings, goalRatio } of CASES) {
    const [seconds, refused] = [noValues(), noValues()];
    const options = {
      name: `${cloud === "typical" ? "t" : "f"}${pods}${"ENABLE_PREFIX_DELEGATION" in settings ? "p" : "d"}`,
      type: "m5.4xlarge",
      pairs: rounds,
      settings,
      emulator: CLOUDS[cloud],
    };
    await withTwins(bench, options, async ({ pairs }) => {
      for (const [round, pair] of pairs.entries())
        await inTurns(round, pair, async (twin, who) => {
          const names = Array.from({ length: pods }, (_, at) => `pod-${at}`);
          const made = await twin.node.runtime.makeSandboxes(names);
          await twin.start();
          const served = await serveAll(twin, made);
          seconds[who].push(served.seconds);
          refused[who].push(served.refused);
          await twin.stop("SIGKILL");
          await twin.node.runtime.removeSandboxes(made);
        });
    });
    bench.say(`${name}, ${cloud}: done`);
    figures.push(
      figureOf(`${name}.${cloud}`, "s", seconds, cloud === "10ms" ? goalRatio : null),
      // None of ours may be refused, however many of theirs are.
      figureOf(`${name}.refused.${cloud}`, "ADDs", refused, goalRatio === null ? null : 0),
    );
  }
  return figures;
}

const RETRY_MS = 1_000; // Kubelet takes ten times that.
const GIVE_UP_MS = 240_000;

/**
 * All at once; those that are refused again each second, until every pod has an address. `refused` counts pods that were, once or more;
 * `unserved` those that had none when `tryMs` were over. Throws when some have none after the time that none should take.
 */
export async function serveAll(
  twin: Twin,
  pods: readonly Pod[],
  tryMs: number | null = null,
): Promise<{ readonly seconds: number; readonly refused: number; readonly unserved: number }> {
  const began = performance.now();
  let waiting = pods;
  let refused: number | null = null;
  for (;;) {
    const { finished } = await twin.launcher.run(waiting.map((pod) => twin.job("ADD", pod)));
    waiting = waiting.filter((_, at) => finished[at]?.exitCode !== 0);
    refused ??= waiting.length;
    const took = performance.now() - began;
    if (waiting.length === 0 || (tryMs !== null && took > tryMs))
      return { seconds: took / 1_000, refused, unserved: waiting.length };
    if (took > GIVE_UP_MS) throw new Error(`${waiting.length} pods of ${twin.node.name} were never served`);
    await sleep(RETRY_MS);
  }
}
