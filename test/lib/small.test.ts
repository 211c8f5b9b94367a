import * as fc from "fast-check";
import { expect, test } from "vitest";
import { assert } from "../../src/lib/assert.ts";
import { byNumber, byText, inTurn, sorted } from "../../src/lib/order.ts";
import { randomInteger, seededRandom } from "../../src/lib/random.ts";
import { after, backoffMs, instant, parseWallTime, printWallTime, wallTime } from "../../src/lib/time.ts";

test("a broken promise is told in its own words", () => {
  expect(() => assert(false, "the sky is up")).toThrow("broken promise: the sky is up");
  expect(() => assert(true, "the sky is up")).not.toThrow();
});

// --- Time --------------------------------------------------------------------------------------------------------------

test("a backoff grows twofold from its base to its most, half of it by chance", () => {
  const options = { baseMs: 1_000, maxMs: 60_000 };
  const least = [0, 1, 2, 5, 6, 100].map((attempt) => backoffMs(attempt, 0, options));
  expect(least).toEqual([500, 1_000, 2_000, 16_000, 30_000, 30_000]);
  fc.assert(
    fc.property(fc.nat({ max: 1_000 }), fc.double({ min: 0, max: 0.999, noNaN: true }), (attempt, chance) => {
      const ms = backoffMs(attempt, chance, options);
      const whole = Math.min(1_000 * 2 ** attempt, 60_000);
      expect(ms).toBeGreaterThanOrEqual(whole / 2);
      expect(ms).toBeLessThanOrEqual(whole);
    }),
  );
});

test("instants are counted on, and wall time is written as EC2's tags carry it", () => {
  expect(after(instant(1_000), 500)).toBe(1_500);
  expect(printWallTime(wallTime(0))).toBe("1970-01-01T00:00:00.000Z");
  expect(parseWallTime("2026-02-03T04:05:06Z")).toBe(Date.UTC(2026, 1, 3, 4, 5, 6));
  expect(parseWallTime("yesterday")).toBeNull();
});

// --- Chance ------------------------------------------------------------------------------------------------------------

test("equal seeds give equal runs, and others others", () => {
  const run = (seed: string): number[] => {
    const random = seededRandom(seed);
    return Array.from({ length: 20 }, random);
  };
  expect(run("a")).toEqual(run("a"));
  const firsts = Array.from({ length: 500 }, (_, i) => run(`seed ${i}`)[0]);
  expect(new Set(firsts).size).toBe(500);
});

test("numbers are in [0, 1) and spread evenly", () => {
  const random = seededRandom("spread");
  const buckets = Array.from({ length: 10 }, () => 0);
  for (let i = 0; i < 10_000; i += 1) {
    const value = random();
    expect(value >= 0 && value < 1).toBe(true);
    const bucket = Math.floor(value * 10);
    buckets[bucket] = (buckets[bucket] ?? 0) + 1;
  }
  for (const count of buckets) expect(Math.abs(count - 1_000)).toBeLessThan(150); // Five standard deviations.
});

test("integers are within their bounds, both of them reached", () => {
  const random = seededRandom("integers");
  const seen = new Set(Array.from({ length: 200 }, () => randomInteger(random, 3, 6)));
  expect(seen).toEqual(new Set([3, 4, 5, 6]));
  expect([randomInteger(() => 0, 3, 6), randomInteger(() => 0.999_999, 3, 6)]).toEqual([3, 6]);
});

// --- Order -------------------------------------------------------------------------------------------------------------

test("text is ordered by code units, on every machine alike", () => {
  const words = ["b", "a", "B", "ä", "", "aa"];
  expect(
    sorted(
      words,
      byText((word) => word),
    ),
  ).toEqual(["", "B", "a", "aa", "b", "ä"]);
});

test("the first comparison that tells a difference decides, and equals keep their order", () => {
  const rows = [
    { n: 2, t: "x", at: 0 },
    { n: 1, t: "y", at: 1 },
    { n: 1, t: "x", at: 2 },
    { n: 1, t: "x", at: 3 },
  ];
  const order = inTurn<(typeof rows)[number]>(
    byNumber((row) => row.n),
    byText((row) => row.t),
  );
  expect(sorted(rows, order).map((row) => row.at)).toEqual([2, 3, 1, 0]);
  expect(rows.map((row) => row.at)).toEqual([0, 1, 2, 3]);
});
