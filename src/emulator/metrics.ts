/** The emulator's own counters, and their Prometheus text. */
import type { Instant } from "../lib/time.ts";
import { refilled, type TokenBucket } from "./token-bucket.ts";
import type { World } from "./world.ts";

export type Counters = {
  /** Calls by action. */
  readonly calls: Map<string, number>;
  /** Refusals by `action code`. */
  readonly refusals: Map<string, number>;
  /** Faults that fired, by kind. */
  readonly faults: Map<string, number>;
  /** Reads of IMDS by status. */
  readonly imds: Map<string, number>;
  /** The most addresses ever in use, by subnet. */
  readonly subnetPeak: Map<string, number>;
};

export function noCounts(): Counters {
  return { calls: new Map(), refusals: new Map(), faults: new Map(), imds: new Map(), subnetPeak: new Map() };
}

export function count(counter: Map<string, number>, key: string): void {
  counter.set(key, (counter.get(key) ?? 0) + 1);
}

export function notePeaks(counters: Counters, world: World): void {
  for (const { id, space } of world.subnets.values()) {
    const used = 2 ** (32 - space.cidr.prefixLength) - 5 - space.freeCount;
    if (used > (counters.subnetPeak.get(id) ?? -1)) counters.subnetPeak.set(id, used);
  }
}

export function printMetrics(
  counters: Counters,
  world: World,
  buckets: ReadonlyMap<string, TokenBucket>,
  now: Instant,
): string {
  const lines: string[] = [];
  const metric = (
    name: string,
    kind: "counter" | "gauge",
    help: string,
    rows: Iterable<readonly [string, number]>,
  ): void => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`);
    for (const [labels, value] of rows) lines.push(`${name}${labels === "" ? "" : `{${labels}}`} ${value}`);
  };
  const byAction = [...counters.calls].map(([action, value]) => [`action="${action}"`, value] as const);
  const byCode = [...counters.refusals].map(([key, value]) => {
    const [action, code] = key.split(" ");
    return [`action="${action}",code="${code}"`, value] as const;
  });
  const subnets = [...world.subnets.values()];
  metric("emulator_calls_total", "counter", "EC2 calls by action.", byAction);
  metric("emulator_refusals_total", "counter", "EC2 calls refused, by action and error code.", byCode);
  metric(
    "emulator_faults_total",
    "counter",
    "Scripted faults that fired.",
    labelled("kind", counters.faults),
  );
  metric(
    "emulator_imds_requests_total",
    "counter",
    "Metadata requests by HTTP status.",
    labelled("status", counters.imds),
  );
  const levels = [...buckets].map(
    ([name, bucket]) => [`bucket="${name}"`, Number(refilled(bucket, now).tokens.toFixed(3))] as const,
  );
  metric("emulator_bucket_tokens", "gauge", "Tokens left in each throttling bucket.", levels);
  metric(
    "emulator_subnet_free_addresses",
    "gauge",
    "Free addresses by subnet.",
    subnets.map(({ id, space }) => [`subnet="${id}"`, space.freeCount]),
  );
  metric(
    "emulator_subnet_peak_addresses",
    "gauge",
    "Most addresses ever in use, by subnet.",
    labelled("subnet", counters.subnetPeak),
  );
  metric("emulator_enis", "gauge", "ENIs that exist.", [["", world.enis.size]]);
  return `${lines.join("\n")}\n`;
}

function labelled(label: string, counter: ReadonlyMap<string, number>): (readonly [string, number])[] {
  return [...counter].map(([key, value]) => [`${label}="${key}"`, value]);
}
