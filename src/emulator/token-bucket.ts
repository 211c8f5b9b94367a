/**
 * EC2's request throttling: one bucket an account, Region and action; one call, one token; refused calls take none.
 * Source of the sizes: "Request throttling for the Amazon EC2 API".
 */
import type { Instant } from "../lib/time.ts";
import type { Parameters } from "./parameters.ts";

export type BucketSize = { readonly capacity: number; readonly refillPerSecond: number };
export type TokenBucket = BucketSize & { readonly tokens: number; readonly at: Instant };

export function fullBucket(size: BucketSize, now: Instant): TokenBucket {
  return { ...size, tokens: size.capacity, at: now };
}

/** The bucket as it stands at `now`. */
export function refilled(bucket: TokenBucket, now: Instant): TokenBucket {
  const gained = (Math.max(0, now - bucket.at) / 1000) * bucket.refillPerSecond;
  return { ...bucket, tokens: Math.min(bucket.capacity, bucket.tokens + gained), at: now };
}

/** The bucket after one call, or null when that call is to be throttled. */
export function takeToken(bucket: TokenBucket, now: Instant): TokenBucket | null {
  const ready = refilled(bucket, now);
  // Refills are sums of fractions: what is a whole token to within rounding counts as one.
  return ready.tokens < 1 - 1e-9 ? null : { ...ready, tokens: Math.max(0, ready.tokens - 1) };
}

const READ: BucketSize = { capacity: 100, refillPerSecond: 20 };
const HEAVY_READ: BucketSize = { capacity: 50, refillPerSecond: 10 };
const WRITE: BucketSize = { capacity: 50, refillPerSecond: 5 };
const LISTED: BucketSize = { capacity: 100, refillPerSecond: 5 };

/** Actions with a size of their own. */
const OWN_SIZES: ReadonlyMap<string, BucketSize> = new Map([
  ["AssignPrivateIpAddresses", LISTED],
  ["UnassignPrivateIpAddresses", LISTED],
  ["CreateNetworkInterface", LISTED],
  ["DeleteNetworkInterface", LISTED],
  ["ModifyNetworkInterfaceAttribute", LISTED],
  ["TerminateInstances", LISTED],
  ["CreateTags", { capacity: 100, refillPerSecond: 10 }],
  ["DeleteTags", { capacity: 100, refillPerSecond: 10 }],
  ["RunInstances", { capacity: 5, refillPerSecond: 2 }],
  ["CreateSubnetCidrReservation", { capacity: 5, refillPerSecond: 1 }],
  ["DeleteSubnetCidrReservation", { capacity: 5, refillPerSecond: 1 }],
]);

const HEAVY_WHEN_UNFILTERED = new Set([
  "DescribeInstances",
  "DescribeNetworkInterfaces",
  "DescribeSecurityGroups",
]);

/**
 * Which bucket a call draws on. Three describes draw on a smaller one when they are neither filtered nor paged; a list of ids counts as a
 * filter (uncertain).
 */
export function bucketFor(
  action: string,
  effect: "read" | "write",
  parameters: Parameters,
): { readonly name: string; readonly size: BucketSize } {
  const own = OWN_SIZES.get(action);
  if (own !== undefined) return { name: action, size: own };
  if (effect === "write") return { name: action, size: WRITE };
  const narrowed = [...parameters.keys()].some((key) =>
    /^(?:Filter|MaxResults|NetworkInterfaceId|InstanceId|GroupId)\b/.test(key),
  );
  if (HEAVY_WHEN_UNFILTERED.has(action) && !narrowed)
    return { name: `${action}/unfiltered`, size: HEAVY_READ };
  return { name: action, size: READ };
}
