/** EC2 as both policies meet it: each call and process takes the time that the emulator's profile draws for it, and every call is counted. */
import { drawMs, PROFILES } from "../../../../src/emulator/timings.ts";
import { type Random, seededRandom } from "../../../../src/lib/random.ts";

export type Cloud = {
  /** Milliseconds of these calls one after the other. */
  readonly call: (...actions: readonly string[]) => number;
  /** Milliseconds of what goes on by itself: `link-up`, `imds-attach`, `detached`. */
  readonly process: (name: string) => number;
  readonly calls: () => number;
};

export function createCloud(seed: string, profile: "typical" | "instant" = "typical"): Cloud {
  const random: Random = seededRandom(`${seed}/cloud`);
  let count = 0;
  return {
    call: (...actions) => {
      count += actions.length;
      return actions.reduce((sum, each) => sum + drawMs(PROFILES[profile], each, random, "call"), 0);
    },
    process: (name) => drawMs(PROFILES[profile], name, random, "process"),
    calls: () => count,
  };
}
