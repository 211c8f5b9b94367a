import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  attemptCountMax,
  createPacer,
  fullBucket,
  paceLimits,
  slowedDown,
  spedUp,
  takeToken,
  waitBeforeRetry,
} from "../../src/aws/pace.ts";
import type { Ec2Failure, Ec2FailureKind } from "../../src/core/model/ec2.ts";
import { after, instant } from "../../src/lib/time.ts";

const start = instant(1_000_000);
const limits = paceLimits.mutating;

test("a rested node makes a burst at once and is then held to its rate", () => {
  let bucket = fullBucket(limits, start);
  const waits = Array.from({ length: limits.burst + 3 }, () => {
    const taken = takeToken(bucket, limits, start);
    bucket = taken.bucket;
    return taken.waitMs;
  });
  expect(waits.slice(0, limits.burst)).toEqual(Array.from({ length: limits.burst }, () => 0));
  expect(waits.slice(limits.burst)).toEqual([334, 667, 1_000]); // 3 a second.
});

test("however the calls come, no window holds more of them than burst and rate allow", () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 2_000 }), { minLength: 1, maxLength: 120 }), (gaps) => {
      let now = start;
      let bucket = fullBucket(limits, now);
      const made: number[] = [];
      for (const gap of gaps) {
        now = after(now, gap);
        const taken = takeToken(bucket, limits, now);
        bucket = taken.bucket;
        made.push(now + taken.waitMs);
      }
      for (const [index, from] of made.entries()) {
        const within = made.slice(index).filter((at) => at <= from + 5_000).length;
        expect(within).toBeLessThanOrEqual(limits.burst + 5 * limits.perSecond + 1);
      }
    }),
  );
});

test("throttling halves the rate down to a floor, and answers bring it back", () => {
  let bucket = fullBucket(limits, start);
  bucket = slowedDown(bucket, limits, start);
  expect(bucket).toMatchObject({ perSecond: limits.perSecond / 2, tokens: 0 });
  for (let i = 0; i < 20; i += 1) bucket = slowedDown(bucket, limits, start);
  expect(bucket.perSecond).toBe(limits.perSecondMin);
  for (let i = 0; i < 20; i += 1) bucket = spedUp(bucket, limits, start);
  expect(bucket.perSecond).toBe(limits.perSecond);
});

test("one operation's throttling does not hold another back, and a wait beyond patience takes nothing", () => {
  const pacer = createPacer();
  for (let i = 0; i < 30; i += 1) pacer.throttled("AttachNetworkInterface", start);
  expect(pacer.take("AttachNetworkInterface", start, 5_000)).toBeNull();
  expect(pacer.take("AttachNetworkInterface", start, 60_000)).toBe(10_000);
  expect(pacer.take("CreateNetworkInterface", start, 0)).toBe(0);
  expect(pacer.perSecond("AttachNetworkInterface")).toBe(limits.perSecondMin);
  // The refused taking left no debt: one token of debt at 0.1 a second is paid after ten seconds.
  expect(pacer.take("AttachNetworkInterface", after(start, 20_000), 0)).toBe(0);
});

test("a clock that stands or steps back gives no tokens and takes none", () => {
  const { bucket } = takeToken(fullBucket(limits, start), limits, start);
  expect(takeToken(bucket, limits, instant(start - 60_000)).bucket.tokens).toBe(limits.burst - 2);
});

const failure = (kind: Ec2FailureKind): Ec2Failure => ({
  kind,
  operation: "AttachNetworkInterface",
  code: "X",
  message: "",
  requestId: null,
});

test("what may have happened is never repeated: in doubt, or failing with the request gone out", () => {
  const ask = (kind: Ec2FailureKind, sent: boolean, repeatable: boolean): boolean =>
    waitBeforeRetry({ failure: failure(kind), attempt: 0, sent, repeatable }, () => 0) !== null;
  for (const sent of [true, false])
    for (const repeatable of [true, false]) expect(ask("in-doubt", sent, repeatable)).toBe(false);
  expect(ask("failing", true, false)).toBe(false);
  expect(ask("failing", true, true)).toBe(true);
  expect(ask("failing", false, false)).toBe(true);
  expect(ask("throttled", true, false)).toBe(true);
  const forTheCaller = [
    "subnet-exhausted",
    "prefixes-exhausted",
    "address-limit",
    "eni-limit",
    "gone",
    "in-use",
    "denied",
    "invalid",
  ] as const;
  for (const kind of forTheCaller) expect(ask(kind, false, true)).toBe(false);
});

test("waits grow, differ between nodes, and attempts end", () => {
  const waits = (chance: number): (number | null)[] =>
    Array.from({ length: attemptCountMax }, (_, attempt) =>
      waitBeforeRetry(
        { failure: failure("throttled"), attempt, sent: true, repeatable: false },
        () => chance,
      ),
    );
  expect(waits(0)).toEqual([250, 500, 1_000, null]);
  expect(waits(0.999)).toEqual([500, 1_000, 1_999, null]);
});
