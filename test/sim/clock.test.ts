// Virtual time: whatever is set going happens in the order of its instants, and in the order of its setting within one.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { SimStop, VirtualClock } from "../../src/sim/clock.ts";

test("timers fire in the order of their instants, those of one instant in the order in which they were set", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 200 }), (delays) => {
      const clock = new VirtualClock();
      const fired: { at: number; turn: number }[] = [];
      for (const [turn, ms] of delays.entries()) clock.after(ms, () => fired.push({ at: clock.now, turn }));
      while (clock.fire(1_000));
      const wanted = delays.map((at, turn) => ({ at, turn })).sort((a, b) => a.at - b.at || a.turn - b.turn);
      expect(fired).toEqual(wanted);
      expect(clock.now).toBe(1_000);
    }),
  );
});

test("a timer that is set while another fires waits for its own time", () => {
  const clock = new VirtualClock();
  const fired: string[] = [];
  clock.after(10, () => {
    fired.push("first");
    clock.after(5, () => fired.push("third"));
  });
  clock.after(12, () => fired.push("second"));
  while (clock.fire(100));
  expect(fired).toEqual(["first", "second", "third"]);
});

test("a cancelled timer does nothing, and nothing fires beyond the end", () => {
  const clock = new VirtualClock();
  const fired: string[] = [];
  const timer = clock.after(10, () => fired.push("cancelled"));
  clock.after(50, () => fired.push("late"));
  clock.cancel(timer);
  expect(clock.fire(20)).toBe(false);
  expect({ fired, now: clock.now }).toEqual({ fired: [], now: 20 });
});

test("a stop tells its listeners once, with the first reason", () => {
  const stop = new SimStop();
  const told: unknown[] = [];
  stop.signal.addEventListener("abort", () => told.push(stop.signal.reason));
  stop.abort("deleted");
  stop.abort("shim-gone");
  expect({ told, aborted: stop.signal.aborted }).toEqual({ told: ["deleted"], aborted: true });
});
