/**
 * Time that the test moves. Sleeps end in the order of their instants, those of one instant in the order they were begun; between two of
 * them everything that can run does run. Equal tests see equal runs.
 */
import type { AbortSignalLike, Time } from "../../src/agent/ports.ts";
import { after, type Instant, instant, type WallTime, wallTime } from "../../src/lib/time.ts";

export type VirtualTime = {
  readonly time: Time;
  readonly now: () => Instant;
  readonly wallNow: () => WallTime;
  /** Lets `ms` pass. */
  readonly advance: (ms: number) => Promise<void>;
  /** Lets time pass until `done` says true, looking after each thing that happens. Throws when `mostMs` were not enough. */
  readonly advanceUntil: (done: () => boolean, mostMs?: number) => Promise<void>;
  /** Everything that can run without time passing. */
  readonly settle: () => Promise<void>;
  /** `action` at `ms` from now. */
  readonly schedule: (ms: number, action: () => void) => void;
  /** How many sleeps are under way: what a loop forgets to end is seen here. */
  readonly sleeping: () => number;
};

type Sleep = { readonly at: number; readonly turn: number; readonly end: () => void };

/** More than this at one instant is a loop that does not pace itself. */
const TURNS_AT_ONE_INSTANT_MAX = 5_000;

export function createVirtualTime(
  start: { readonly bootMs?: number; readonly wallMs?: number } = {},
): VirtualTime {
  const { bootMs = 1_000_000, wallMs = Date.UTC(2026, 0, 1) } = start;
  let now: number = bootMs;
  let turn = 0;
  const sleeps = new Set<Sleep>();

  const add = (ms: number, end: () => void): Sleep => {
    const sleep = { at: now + Math.max(0, ms), turn: (turn += 1), end };
    sleeps.add(sleep);
    return sleep;
  };
  const sleepFor = async (ms: number, signal: AbortSignalLike): Promise<void> =>
    await new Promise<void>((resolve) => {
      if (signal.aborted) return resolve();
      const end = (): void => {
        sleeps.delete(sleep);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const sleep = add(ms, end);
      signal.addEventListener("abort", end, { once: true });
    });
  // A turn of the event loop runs all promises that are ready, and those that they make ready.
  const settle = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));
  const soonest = (): Sleep | null => {
    let best: Sleep | null = null;
    for (const each of sleeps)
      if (best === null || each.at < best.at || (each.at === best.at && each.turn < best.turn)) best = each;
    return best;
  };
  const run = async (end: number, done: () => boolean): Promise<boolean> => {
    let turns = 0;
    await settle();
    while (!done()) {
      const next = soonest();
      if (next === null || next.at > end) {
        now = end;
        return false;
      }
      turns = next.at > now ? 0 : turns + 1;
      if (turns > TURNS_AT_ONE_INSTANT_MAX) throw new Error(`a loop does not pace itself at ${now} ms`);
      now = Math.max(now, next.at);
      sleeps.delete(next);
      next.end();
      await settle();
    }
    return true;
  };
  return {
    time: { now: () => instant(now), wallNow: () => wallTime(wallMs + now - bootMs), sleep: sleepFor },
    now: () => instant(now),
    wallNow: () => wallTime(wallMs + now - bootMs),
    advance: async (ms) => void (await run(after(instant(now), ms), () => false)),
    advanceUntil: async (done, mostMs = 600_000) => {
      if (!(await run(now + mostMs, done))) throw new Error(`it did not come about within ${mostMs} ms`);
    },
    settle,
    schedule: (ms, action) => void add(ms, action),
    sleeping: () => sleeps.size,
  };
}
