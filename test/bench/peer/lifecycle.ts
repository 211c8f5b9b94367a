/** The daemon's comings and goings: start to serving with and without an API server, again with pods on the node, and SIGTERM to exit. */
import type { Pod } from "../../../src/lab/runtime.ts";
import { sleep } from "../stage.ts";
import { type Figure, figureOf, noValues } from "./figures.ts";
import { inTurns, type PeerBench, type Twin, withTwins } from "./twins.ts";

const PODS = 20;

export async function measureLifecycle(bench: PeerBench, rounds: number): Promise<readonly Figure[]> {
  const values = { fresh: noValues(), alone: noValues(), again: noValues(), term: noValues() };
  const options = {
    name: "life",
    type: "m5.4xlarge",
    pairs: rounds,
    settings: {},
    emulator: { timings: { call: 10, "link-up": 100 } },
  };
  await withTwins(bench, options, async ({ apiServer, pairs }) => {
    for (const [round, pair] of pairs.entries()) {
      await inTurns(round, pair, async (twin, who) => {
        values.fresh[who].push(await twin.start());
        await addPods(twin);
        values.term[who].push(await twin.stop("SIGTERM"));
        values.again[who].push(await twin.start());
        await twin.stop("SIGKILL");
      });
      bench.say(`round ${round + 1} of ${rounds}`);
    }
    // Its port refuses; nobody waits for a timeout of the network.
    await apiServer.stop();
    for (const [round, pair] of pairs.entries())
      await inTurns(round, pair, async (twin, who) => {
        values.alone[who].push(await twin.start());
        await twin.stop("SIGKILL");
      });
  });
  return [
    figureOf("start.withApiServer", "ms", values.fresh, 1.5),
    figureOf("start.withoutApiServer", "ms", values.alone, 0.1),
    figureOf("restart.20pods", "ms", values.again, null),
    figureOf("sigterm.exit", "ms", values.term, 0.2),
  ];
}

async function addPods(twin: Twin): Promise<readonly Pod[]> {
  const pods = await twin.node.runtime.makeSandboxes(Array.from({ length: PODS }, (_, at) => `pod-${at}`));
  const { finished } = await twin.launcher.run(pods.map((pod) => twin.job("ADD", pod)));
  const failed = finished.filter(({ exitCode }) => exitCode !== 0);
  if (failed.length > 0) throw new Error(`${failed.length} ADDs of ${twin.node.name} failed`);
  await sleep(1_000); // Its pool fills up again.
  return pods;
}
