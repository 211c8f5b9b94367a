/**
 * What the fuzzers share: how many cases, values that are almost right, and how much of a file the cases reached.
 * BERTH_FUZZ_CASES: cases a fuzzer (100,000 in the long run); BERTH_FUZZ_SEED: repeats a run. A failure prints its seed and path.
 */
import { Session } from "node:inspector/promises";
import * as fc from "fast-check";

const LONG = process.env["BERTH_FUZZ_CASES"] !== undefined;
const CASES = Number(process.env["BERTH_FUZZ_CASES"] ?? 1_500);

/** For fast-check: as many runs as were asked for, and the seed when there is one. */
export function fuzzing(): fc.Parameters<unknown> {
  const seed = process.env["BERTH_FUZZ_SEED"];
  return { numRuns: CASES, ...(seed === undefined ? {} : { seed: Number(seed) }) };
}

/** Generous: 4 ms a case, on a machine that is busy. */
export const FUZZ_TIMEOUT_MS = Math.max(20_000, CASES * 4);

/** Text that has brought programs down before. */
const arbOddText: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.constantFrom(
    "",
    ".",
    "..",
    "../../etc/passwd",
    "a/b",
    "a\0b",
    "a\nb",
    "\u202e",
    "\ud800",
    "__proto__",
    "constructor",
    "-1",
    "1e309",
    "0x10",
    "0.0.0.0",
    "255.255.255.255",
    "10.0.0.0/33",
    '";flush ruleset;"',
    "$(reboot)",
    "%s%n",
    "x".repeat(5_000),
  ),
);

const arbOddValue: fc.Arbitrary<unknown> = fc.oneof(
  arbOddText,
  fc.constantFrom<unknown>(null, true, false, 0, -1, 0.5, 2 ** 31, 2 ** 53, 1e308, [], {}, [null], [[]]),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.jsonValue({ maxDepth: 3 }),
);

/** One of `samples` with some of its values replaced, removed, doubled or given another name, anywhere inside. */
export function arbMutatedJson(samples: readonly unknown[]): fc.Arbitrary<unknown> {
  const change: fc.Arbitrary<Change> = fc.record({
    at: fc.nat(),
    how: fc.constantFrom("replace", "replace", "replace", "remove", "double", "rename", "swap"),
    value: arbOddValue,
    name: arbOddText,
  });
  return fc
    .tuple(fc.constantFrom(...samples), fc.array(change, { maxLength: 4 }))
    .map(([sample, changes]) => changes.reduce<unknown>(mutated, structuredClone(sample)));
}

type Change = {
  readonly at: number;
  readonly how: "replace" | "remove" | "double" | "rename" | "swap";
  readonly value: unknown;
  readonly name: string;
};

function mutated(root: unknown, { at, how, value: given, name }: Change): unknown {
  const value = structuredClone(given); // The constants are shared by all cases: one put into itself would spoil those after it.
  const places = placesIn(root, 0);
  const place = places[at % Math.max(1, places.length)];
  if (place === undefined) return value;
  const [holder, key] = place;
  if (how === "replace") holder[key] = value;
  else if (how === "swap")
    holder[key] = placesIn(root, 0)[(at * 7) % places.length]?.[0] === holder ? value : name;
  else if (Array.isArray(holder)) {
    if (how === "double") holder.push(holder[Number(key)]);
    else holder.splice(Number(key), 1);
  } else {
    const before = holder[key];
    Reflect.deleteProperty(holder, key);
    if (how !== "remove")
      Object.defineProperty(holder, name, {
        value: before,
        enumerable: true,
        configurable: true,
        writable: true,
      });
  }
  return root;
}

type Holder = Record<string, unknown>;

function placesIn(value: unknown, depth: number): readonly (readonly [Holder, string])[] {
  if (typeof value !== "object" || value === null || depth > 8) return [];
  const holder = value as Holder; // A list is written by its indexes.
  return Object.keys(holder).flatMap((key) => [[holder, key] as const, ...placesIn(holder[key], depth + 1)]);
}

type ByteChange = {
  readonly at: number;
  readonly how: "flip" | "set" | "cut" | "insert" | "double" | "length";
  readonly bytes: Uint8Array;
  readonly number: number;
};

/** One of `samples` with bytes flipped, cut, doubled, put in, or set to what a length or a count should not be. */
export function arbMutatedBytes(samples: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const change: fc.Arbitrary<ByteChange> = fc.record({
    at: fc.nat(),
    how: fc.constantFrom("flip", "set", "cut", "insert", "double", "length"),
    bytes: fc.uint8Array({ maxLength: 16 }),
    number: fc.constantFrom(0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x8000_0000, 1 << 20, (1 << 20) + 1),
  });
  const mutate = (bytes: Uint8Array, { at, how, bytes: more, number }: ByteChange): Uint8Array => {
    const from = at % (bytes.length + 1);
    const copy = bytes.slice();
    switch (how) {
      case "flip":
        if (copy.length > 0) copy[at % copy.length] = (copy[at % copy.length] ?? 0) ^ (1 << (number & 7));
        return copy;
      case "set":
        copy.set(more.subarray(0, copy.length - from), from);
        return copy;
      case "cut":
        return copy.subarray(0, from);
      case "insert":
        return Uint8Array.from([...copy.subarray(0, from), ...more, ...copy.subarray(from)]);
      case "double":
        return Uint8Array.from([...copy, ...copy.subarray(from)]);
      case "length":
        if (copy.length >= 4) new DataView(copy.buffer).setUint32(at % (copy.length - 3), number, true);
        return copy;
    }
  };
  return fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc
      .tuple(fc.constantFrom(...samples), fc.array(change, { maxLength: 5 }))
      .map(([sample, changes]) => changes.reduce(mutate, sample)),
  );
}

/** Runs `fuzz`; in the long run it also tells, on stderr, how much of the files' code the cases reached. */
export async function withCoverage(files: readonly string[], fuzz: () => unknown): Promise<void> {
  if (!LONG) return void (await fuzz());
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  try {
    await fuzz();
  } finally {
    const { result } = await session.post("Profiler.takePreciseCoverage");
    session.disconnect();
    for (const file of files) {
      const script = result.find(({ url }) => url.split("?")[0]?.endsWith(file) === true);
      if (script === undefined) continue;
      // The script's own range is left out: it ran before, and a source map hangs on its end. Ranges come outermost first: an inner
      // one overrules what is around it.
      const functions = script.functions.filter(({ ranges }) => (ranges[0]?.startOffset ?? 0) > 0);
      const size = Math.max(
        0,
        ...functions.flatMap(({ ranges }) => ranges.map(({ endOffset }) => endOffset)),
      );
      const reached = new Int8Array(size).fill(-1); // -1: in no function.
      for (const { ranges } of functions)
        for (const { startOffset, endOffset, count } of ranges)
          reached.fill(count > 0 ? 1 : 0, startOffset, endOffset);
      const share =
        reached.filter((each) => each === 1).length / Math.max(1, reached.filter((each) => each >= 0).length);
      process.stderr.write(`fuzz coverage: ${file} ${(100 * share).toFixed(1)} %, ${CASES} cases\n`);
    }
  }
}
