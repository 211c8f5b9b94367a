/** Bad days: an account whose calls are throttled, and a subnet that is nearly full. */
import { type Figure, figureOf, noValues } from "./figures.ts";
import { serveAll } from "./fresh.ts";
import { inTurns, type PeerBench, withTwins } from "./twins.ts";

const PODS = 60;
/** Each of these answers so many times with RequestLimitExceeded, from the moment when the pods come. */
const THROTTLED = ["AssignPrivateIpAddresses", "CreateNetworkInterface", "AttachNetworkInterface"];
const REFUSALS = 3;
const FREE = 40;
/** In a nearly full subnet not all pods can be served; so long they are tried. */
const TRY_MS = 15_000;

export async function measureBadDays(bench: PeerBench, rounds: number): Promise<readonly Figure[]> {
  const [throttled, unserved] = [noValues(), noValues()];
  const options = {
    name: "bad",
    type: "m5.4xlarge",
    pairs: 2 * rounds,
    settings: {},
    emulator: { timings: { call: 10, "link-up": 100 } },
  };
  const names = Array.from({ length: PODS }, (_, at) => `pod-${at}`);
  await withTwins(bench, options, async ({ cluster, pairs }) => {
    const { emulator, subnetId } = cluster;
    for (const [at, pair] of pairs.entries())
      await inTurns(at, pair, async (twin, who) => {
        const pods = await twin.node.runtime.makeSandboxes(names);
        if (at < rounds) {
          await twin.start();
          for (const action of THROTTLED) emulator.fault({ kind: "throttle", action, times: REFUSALS });
          throttled[who].push((await serveAll(twin, pods)).seconds);
          emulator.clearFaults();
        } else {
          emulator.fault({ kind: "fill-subnet", subnetId, leaveFree: FREE });
          await twin.start();
          unserved[who].push((await serveAll(twin, pods, TRY_MS)).unserved);
          emulator.fault({ kind: "empty-subnet", subnetId });
        }
        await twin.stop("SIGKILL");
        await twin.node.runtime.removeSandboxes(pods);
      });
  });
  return [
    figureOf("throttled60", "s", throttled, null),
    figureOf("subnet40free.unservedOf60", "pods", unserved, null),
  ];
}
