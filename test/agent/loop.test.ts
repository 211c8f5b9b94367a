import { expect, test } from "vitest";
import { keepRunning, Wake, type Job } from "../../src/agent/loop.ts";
import type { Time } from "../../src/agent/ports.ts";
import { createVirtualTime } from "../support/virtual-time.ts";

const NEVER_MS = 1_000_000_000;

/** A job that notes when it ran, and takes `workMs` each time. */
function noting(options: { readonly workMs?: number; readonly sleepMs?: number } = {}) {
  const clock = createVirtualTime({ bootMs: 0 });
  const stop = new AbortController();
  const wake = new Wake();
  const ran: number[] = [];
  let [running, mostAtOnce] = [0, 0];
  const job: Job = {
    name: "noting",
    wake,
    run: async () => {
      running += 1;
      mostAtOnce = Math.max(mostAtOnce, running);
      ran.push(clock.now());
      if (options.workMs !== undefined) await clock.time.sleep(options.workMs, new AbortController().signal);
      running -= 1;
      return options.sleepMs ?? NEVER_MS;
    },
  };
  return { clock, stop, wake, ran, job, mostAtOnce: () => mostAtOnce };
}

test("a job runs at once, and again when its time has come", async () => {
  const { clock, stop, ran, job } = noting({ sleepMs: 100 });
  void keepRunning(job, clock.time, stop.signal);
  await clock.advance(250);
  expect(ran).toEqual([0, 100, 200]);
});

test("a ring ends the sleep", async () => {
  const { clock, stop, wake, ran, job } = noting();
  void keepRunning(job, clock.time, stop.signal);
  await clock.advance(10);
  wake.call();
  await clock.settle();
  expect(ran).toEqual([0, 10]);
});

test("rings during a run are remembered as one more run, and two never run at once", async () => {
  const { clock, stop, wake, ran, job, mostAtOnce } = noting({ workMs: 100 });
  void keepRunning(job, clock.time, stop.signal);
  await clock.advance(50);
  for (let i = 0; i < 10; i += 1) wake.call();
  await clock.advance(1_000);
  expect(ran).toEqual([0, 100]);
  expect(mostAtOnce()).toBe(1);
});

test("every ring is answered, however soon after the last one and however slowly a sleep ends", async () => {
  // A sleep that tells of its end some turns late, as one over timers of the platform may.
  const { clock, stop, wake, ran, job } = noting();
  const slow: Time = {
    ...clock.time,
    sleep: async (ms, signal) => {
      await clock.time.sleep(ms, signal);
      for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
    },
  };
  void keepRunning(job, slow, stop.signal);
  await clock.settle();
  for (let i = 1; i <= 20; i += 1) {
    wake.call();
    for (let turn = 0; turn < 3 * i; turn += 1) await Promise.resolve();
  }
  await clock.settle();
  const before = ran.length;
  wake.call();
  await clock.settle();
  expect(ran.length).toBe(before + 1);
});

test("the end waits for the run in hand, and nothing runs after it", async () => {
  const { clock, stop, wake, ran, job } = noting({ workMs: 100 });
  let ended = false;
  void keepRunning(job, clock.time, stop.signal).then(() => {
    ended = true;
  });
  await clock.advance(50);
  stop.abort();
  await clock.settle();
  expect(ended).toBe(false);
  await clock.advance(50);
  expect(ended).toBe(true);
  wake.call();
  await clock.advance(1_000);
  expect(ran).toEqual([0]);
});

test("the end comes at once to a job that sleeps", async () => {
  const { clock, stop, job } = noting();
  let ended = false;
  void keepRunning(job, clock.time, stop.signal).then(() => {
    ended = true;
  });
  await clock.settle();
  stop.abort();
  await clock.settle();
  expect(ended).toBe(true);
});

test("a thousand rings leave no sleeper and no listener behind", async () => {
  const { clock, stop, wake, job } = noting();
  let listeners = 0;
  const counted = {
    get aborted() {
      return stop.signal.aborted;
    },
    addEventListener: () => void (listeners += 1),
    removeEventListener: () => void (listeners -= 1),
  };
  void keepRunning(job, clock.time, counted);
  await clock.settle();
  for (let i = 0; i < 1_000; i += 1) {
    wake.call();
    await clock.settle();
  }
  expect(clock.sleeping()).toBe(1);
  expect(listeners).toBe(1);
});
