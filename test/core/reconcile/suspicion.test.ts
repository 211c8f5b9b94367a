import * as fc from "fast-check";
import { expect, test } from "vitest";
import { suspect, type Suspicions } from "../../../src/core/reconcile/suspicion.ts";
import { instant } from "../../../src/lib/time.ts";

/** Looks at these instants find these keys; what was ripe at each. */
function looks(graceMs: number, ...found: readonly (readonly [number, readonly string[]])[]): string[][] {
  let suspicions: Suspicions = new Map();
  return found.map(([at, keys]) => {
    const findings = keys.map((key) => ({ key }));
    const { after, ripe } = suspect(suspicions, findings, instant(at), () => graceMs);
    suspicions = after;
    return ripe.map(({ key, sinceMs }) => `${key} ${sinceMs}`);
  });
}

test("nothing is ripe at the first look, however short the grace", () => {
  expect(looks(1, [0, ["a"]])).toEqual([[]]);
});

test("a finding is ripe when a later look makes it again after the grace, and stays so", () => {
  expect(looks(60, [0, ["a"]], [59, ["a"]], [60, ["a"]], [100, ["a"]])).toEqual([
    [],
    [],
    ["a 60"],
    ["a 100"],
  ]);
});

test("one look without it, and it is forgotten", () => {
  expect(looks(60, [0, ["a"]], [50, []], [100, ["a"]], [150, ["a"]], [160, ["a"]])).toEqual([
    [],
    [],
    [],
    [],
    ["a 60"],
  ]);
});

test("findings do not speak for one another", () => {
  expect(looks(60, [0, ["a"]], [30, ["a", "b"]], [60, ["a", "b"]], [90, ["b"]])).toEqual([
    [],
    [],
    ["a 60"],
    ["b 60"],
  ]);
});

test("what needs no second look is ripe at once", () => {
  expect(looks(0, [0, ["a"]])).toEqual([["a 0"]]);
});

test("whatever was ripe was found by every look of the last grace time, and by two at least", () => {
  const GRACE_MS = 50;
  const arbLooks = fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.subarray(["a", "b", "c"])), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(arbLooks, (steps) => {
      let at = 0;
      const history = steps.map(([pause, keys]) => [(at += pause), keys] as const);
      const ripe = looks(GRACE_MS, ...history);
      for (const [nth, [now, keys]] of history.entries()) {
        for (const key of keys) {
          // Back to the last look that did not find it.
          let first = nth;
          while (history[first - 1]?.[1].includes(key) === true) first -= 1;
          const since = now - (history[first]?.[0] ?? now);
          const due = first < nth && since >= GRACE_MS;
          expect(ripe[nth]?.includes(`${key} ${since}`)).toBe(due);
        }
      }
    }),
  );
});
