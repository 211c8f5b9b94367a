/**
 * How often a node may call, and when it may call again. EC2's budget belongs to the whole account (one token bucket an action), so a
 * node keeps a small bucket of its own for each operation and slows down by itself when EC2 throttles. Values in, values out; `createPacer` holds them.
 */
import type { Ec2Failure } from "../core/model/ec2.ts";
import type { Random } from "../lib/random.ts";
import { backoffMs, type Instant } from "../lib/time.ts";
import { type Ec2Operation, operationRow } from "./operations.ts";

export type PaceLimits = {
  readonly burst: number; // Calls that may be made at once after a rest.
  readonly perSecond: number; // The rate afterwards, while EC2 is content.
  readonly perSecondMin: number; // What repeated throttling cannot push it below.
};

/** EC2 gives an account 50 to 100 tokens and 5 a second for each mutating action, 100 and 20 for a Describe: one node takes a fraction. */
export const paceLimits = {
  mutating: { burst: 15, perSecond: 3, perSecondMin: 0.1 },
  reading: { burst: 20, perSecond: 5, perSecondMin: 0.2 },
} as const satisfies Record<string, PaceLimits>;

/** `tokens` may be below zero: calls that wait have taken theirs already. */
export type Bucket = { readonly tokens: number; readonly perSecond: number; readonly at: Instant };

export function fullBucket(limits: PaceLimits, now: Instant): Bucket {
  return { tokens: limits.burst, perSecond: limits.perSecond, at: now };
}

function refilled(bucket: Bucket, limits: PaceLimits, now: Instant): Bucket {
  const elapsedMs = Math.max(0, now - bucket.at);
  const tokens = Math.min(limits.burst, bucket.tokens + (elapsedMs / 1_000) * bucket.perSecond);
  return { ...bucket, tokens, at: now };
}

/** Takes a token, and tells how long to wait before it may be spent. */
export function takeToken(
  bucket: Bucket,
  limits: PaceLimits,
  now: Instant,
): { bucket: Bucket; waitMs: number } {
  const current = refilled(bucket, limits, now);
  const tokens = current.tokens - 1;
  const waitMs = tokens >= 0 ? 0 : Math.ceil((-tokens / current.perSecond) * 1_000);
  return { bucket: { ...current, tokens }, waitMs };
}

/** EC2 throttled: others use the account too. Half the rate, and no burst. */
export function slowedDown(bucket: Bucket, limits: PaceLimits, now: Instant): Bucket {
  const current = refilled(bucket, limits, now);
  return {
    tokens: Math.min(current.tokens, 0),
    perSecond: Math.max(limits.perSecondMin, current.perSecond / 2),
    at: now,
  };
}

/** EC2 answered: a tenth of the full rate back. */
export function spedUp(bucket: Bucket, limits: PaceLimits, now: Instant): Bucket {
  const current = refilled(bucket, limits, now);
  return { ...current, perSecond: Math.min(limits.perSecond, current.perSecond + limits.perSecond / 10) };
}

export type Pacer = {
  /** Takes the token and tells the wait; null, with nothing taken, when the wait would be longer than `patienceMs`. */
  readonly take: (operation: Ec2Operation, now: Instant, patienceMs: number) => number | null;
  readonly throttled: (operation: Ec2Operation, now: Instant) => void;
  readonly answered: (operation: Ec2Operation, now: Instant) => void;
  /** Calls a second at present, for metrics. */
  readonly perSecond: (operation: Ec2Operation) => number;
};

/** `perSecond` in place of the steady rates of the two kinds of call. */
export function createPacer(
  perSecond: { readonly mutating?: number; readonly reading?: number } = {},
): Pacer {
  const limits = {
    mutating: { ...paceLimits.mutating, perSecond: perSecond.mutating ?? paceLimits.mutating.perSecond },
    reading: { ...paceLimits.reading, perSecond: perSecond.reading ?? paceLimits.reading.perSecond },
  };
  const limitsOf = (operation: Ec2Operation): PaceLimits =>
    operationRow(operation).mutating ? limits.mutating : limits.reading;
  const buckets = new Map<Ec2Operation, Bucket>();
  const bucketOf = (operation: Ec2Operation, now: Instant): Bucket =>
    buckets.get(operation) ?? fullBucket(limitsOf(operation), now);
  return {
    take(operation, now, patienceMs) {
      const taken = takeToken(bucketOf(operation, now), limitsOf(operation), now);
      if (taken.waitMs > patienceMs) return null;
      buckets.set(operation, taken.bucket);
      return taken.waitMs;
    },
    throttled(operation, now) {
      buckets.set(operation, slowedDown(bucketOf(operation, now), limitsOf(operation), now));
    },
    answered(operation, now) {
      buckets.set(operation, spedUp(bucketOf(operation, now), limitsOf(operation), now));
    },
    perSecond: (operation) => buckets.get(operation)?.perSecond ?? limitsOf(operation).perSecond,
  };
}

/** What is known when a call failed and may be tried again. */
export type RetryQuestion = {
  readonly failure: Ec2Failure;
  readonly attempt: number; // 0 for the first.
  readonly sent: boolean; // EC2 may have the request.
  readonly repeatable: boolean; // A reading call, or one that carries a ClientToken: EC2 knows it again.
};

export const attemptCountMax = 4;

/**
 * How long to wait before the next attempt, or null to hand the failure to the caller.
 *
 * - Throttled: nothing happened; half to all of 0.5, 1, 2 s.
 * - Failing: at most two more; a request that EC2 may have is repeated only if EC2 would know it again.
 * - Everything else is for the caller to decide, in-doubt above all: it is observed first, never repeated.
 */
export function waitBeforeRetry(question: RetryQuestion, random: Random): number | null {
  const { failure, attempt } = question;
  if (attempt + 1 >= attemptCountMax) return null;
  if (failure.kind === "throttled") return backoffMs(attempt, random(), { baseMs: 500, maxMs: 8_000 });
  if (failure.kind !== "failing" || attempt >= 2) return null;
  if (question.sent && !question.repeatable) return null;
  return backoffMs(attempt, random(), { baseMs: 200, maxMs: 2_000 });
}
