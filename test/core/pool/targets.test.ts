/** The arithmetic of targets: every small case is walked, not sampled. */
import { expect, test } from "vitest";
import { isShort, shortageOf, type Rule, type Stock } from "../../../src/core/pool/targets.ts";

const COUNTS = [0, 1, 2, 15, 16, 17, 33];

function* smallRules(): Generator<Rule> {
  const base = { wholeEnis: false, expected: 0, source: "test" };
  for (const unit of ["address", "prefix"] as const) {
    for (const addressCountMax of [Infinity, 3, 20]) {
      for (const warm of [0, 1, 3]) {
        for (const minimum of [0, 2, 18])
          yield { ...base, unit, warm, minimum, warmPrefixes: 0, addressCountMax };
      }
      if (unit === "prefix") {
        for (const warmPrefixes of [1, 2])
          yield { ...base, unit, warm: 0, minimum: 0, warmPrefixes, addressCountMax };
      }
    }
  }
}

function* smallStocks(): Generator<Stock> {
  for (const free of COUNTS) {
    for (const otherFree of [0, 3]) {
      for (const allocated of [0, 1, 17]) {
        for (const cooling of [0, 2]) {
          for (let freePrefixes = 0; freePrefixes * 16 <= free; freePrefixes += 1) {
            yield { free, otherFree, allocated, cooling, freePrefixes };
          }
        }
      }
    }
  }
}

test("more who wait never make less short, and less stock never does: so growing and shrinking agree", () => {
  let cases = 0;
  for (const rule of smallRules()) {
    for (const stock of smallStocks()) {
      for (const waiting of COUNTS) {
        const now = shortageOf(rule, stock, waiting);
        const more = shortageOf(rule, stock, waiting + 1);
        expect(isShort(now) && !isShort(more), JSON.stringify({ rule, stock, waiting })).toBe(false);
        if (stock.free > 0 && stock.freePrefixes * 16 < stock.free) {
          const less = shortageOf(rule, { ...stock, free: stock.free - 1 }, waiting);
          expect(isShort(now) && !isShort(less), JSON.stringify({ rule, stock, waiting })).toBe(false);
        }
        cases += 1;
      }
    }
  }
  expect(cases).toBeGreaterThan(10_000);
});

test("what is short, once it has come, leaves nothing short", () => {
  for (const rule of smallRules()) {
    for (const stock of smallStocks()) {
      for (const waiting of COUNTS) {
        const { addresses, prefixes } = shortageOf(rule, stock, waiting);
        const came = rule.unit === "prefix" ? 16 * prefixes : addresses;
        const next = { ...stock, free: stock.free + came, freePrefixes: stock.freePrefixes + prefixes };
        expect(isShort(shortageOf(rule, next, waiting)), JSON.stringify({ rule, stock, waiting })).toBe(
          false,
        );
      }
    }
  }
});

test("the sums, by example", () => {
  const rule: Rule = {
    unit: "address",
    warm: 5,
    minimum: 0,
    warmPrefixes: 0,
    wholeEnis: false,
    expected: 0,
    addressCountMax: Infinity,
    source: "test",
  };
  const stock: Stock = { free: 4, otherFree: 0, allocated: 10, cooling: 2, freePrefixes: 0 };
  const short = (changes: Partial<Rule>, held: Partial<Stock>, waiting: number): number =>
    shortageOf({ ...rule, ...changes }, { ...stock, ...held }, waiting).addresses;
  expect(short({}, {}, 0)).toBe(1);
  expect(short({}, {}, 3)).toBe(4);
  expect(short({}, { otherFree: 2 }, 3)).toBe(2); // Another mode's addresses serve those who wait…
  expect(short({}, { otherFree: 9 }, 0)).toBe(1); // …but no target.
  expect(short({ warm: 0, minimum: 20 }, {}, 0)).toBe(4); // 10 allocated, 2 resting and 4 free are held.
  expect(short({ warm: 0, minimum: 20 }, { otherFree: 9 }, 6)).toBe(4);
  expect(short({ expected: 3 }, {}, 2)).toBe(6); // Who will ask counts like who asks.
  expect(short({ addressCountMax: 14 }, {}, 3)).toBe(0); // Resting addresses do not count against max pods.
  expect(short({ addressCountMax: 16 }, {}, 3)).toBe(2);
});
