/** The real clock and timers behind the agent's `Time` port. */
import type { Time } from "../agent/ports.ts";
import { bootTimeMs } from "../libc/libc.ts";
import { instant, wallTime } from "../lib/time.ts";

/** Node's timers take 31 bits of milliseconds. */
const SLEEP_MAX_MS = 2 ** 31 - 1;

export function createTime(): Time {
  return {
    now: () => instant(bootTimeMs()),
    wallNow: () => wallTime(Date.now()),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve();
        const end = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", end);
          resolve();
        };
        const timer = setTimeout(end, Math.min(ms, SLEEP_MAX_MS));
        signal.addEventListener("abort", end, { once: true });
      }),
  };
}
