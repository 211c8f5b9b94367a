/**
 * How long things take: latency profiles, and draws from them. The figures are those that users of the
 * AWS VPC CNI, of cilium and of ECS published (one scrape, some logs): knobs, not promises. */
import type { Random } from "../lib/random.ts";

/** A fixed time in milliseconds, or a lognormal by its median and 99th percentile. */
export type Timing =
  | number
  | {
      readonly medianMs: number;
      readonly p99Ms: number;
      readonly tail?: { readonly times: readonly [number, number] };
    };

/** What is timed besides the calls themselves, which go by their action's name. */
export type Process =
  | "link-up" // attach answered → the link is there
  | "attached" // attach answered → attachment says attached
  | "detached" // detach answered → available
  | "eni-available" // create answered → available
  | "instance-running"
  | "instance-terminated"
  | "imds-attach" // attach answered → IMDS lists the ENI
  | "imds-change" // any other change → IMDS shows it
  | "describe-lag"; // a describe shows the world of this long ago

export type Profile = {
  readonly name: string;
  /** By action or process; what is missing takes `call` when it is an action, and no time when it is a process. */
  readonly timings: Readonly<Record<string, Timing>>;
  readonly call: Timing;
  /** Chance that a timing with a tail is stretched. */
  readonly tailChance: number;
  /** Multiplies each bucket; null: no throttling at all. */
  readonly buckets: { readonly scale: number; readonly drained: number } | null;
  /** Chance that a call answers InternalError or Unavailable. */
  readonly errorChance: number;
};

const s = (median: number, p99: number, tail?: readonly [number, number]): Timing => ({
  medianMs: median * 1000,
  p99Ms: p99 * 1000,
  ...(tail === undefined ? {} : { tail: { times: tail } }),
});

const TYPICAL_TIMINGS: Readonly<Record<string, Timing>> = {
  CreateNetworkInterface: s(0.13, 0.8),
  DeleteNetworkInterface: s(0.2, 0.9),
  AttachNetworkInterface: s(0.44, 1.6),
  DetachNetworkInterface: s(0.2, 0.8),
  ModifyNetworkInterfaceAttribute: s(0.15, 0.7),
  AssignPrivateIpAddresses: s(0.29, 1.2),
  UnassignPrivateIpAddresses: s(0.25, 1),
  DescribeInstances: s(0.13, 0.5),
  DescribeNetworkInterfaces: s(0.12, 0.5),
  CreateTags: s(0.11, 0.5),
  RunInstances: s(1.5, 5),
  "link-up": s(1.6, 9, [6, 15]),
  attached: s(1.2, 6),
  detached: s(3, 15, [10, 70]),
  "eni-available": s(0.3, 2),
  "instance-running": s(8, 30),
  "instance-terminated": s(20, 60),
  "imds-attach": s(0.5, 2.5, [4, 8]),
  "imds-change": s(0.5, 2.5, [4, 8]),
  "describe-lag": s(0.3, 3),
};

const INSTANT: Profile = {
  name: "instant",
  timings: {},
  call: 0,
  tailChance: 0,
  buckets: null,
  errorChance: 0,
};
const TYPICAL: Profile = {
  name: "typical",
  timings: TYPICAL_TIMINGS,
  call: s(0.12, 0.5),
  tailChance: 1e-3,
  buckets: { scale: 1, drained: 0 },
  errorChance: 0,
};

export const PROFILES = {
  /** Nothing takes time, nothing is throttled. */
  instant: INSTANT,
  /** As measured by others on quiet accounts. */
  typical: TYPICAL,
  /** Other tenants of the account use 60 % of every bucket. */
  "busy-account": { ...TYPICAL, name: "busy-account", buckets: { scale: 1, drained: 0.6 } },
  /** Slow, with long tails and 2 % of server errors. */
  "bad-day": {
    ...TYPICAL,
    name: "bad-day",
    timings: Object.fromEntries(
      Object.entries(TYPICAL_TIMINGS).map(([name, timing]) => [name, slower(timing, 3)]),
    ),
    call: slower(TYPICAL.call, 3),
    tailChance: 1e-2,
    errorChance: 0.02,
  },
  /** Like `instant` until a script of timings and faults says otherwise. */
  scripted: { ...INSTANT, name: "scripted" },
} as const satisfies Readonly<Record<string, Profile>>;

export type ProfileName = keyof typeof PROFILES;

export function isProfileName(text: string): text is ProfileName {
  return Object.hasOwn(PROFILES, text);
}

function slower(timing: Timing, times: number): Timing {
  return typeof timing === "number"
    ? timing * times
    : { ...timing, medianMs: timing.medianMs * times, p99Ms: timing.p99Ms * times };
}

/** Milliseconds for a call or a process. Lognormal: mu = ln median, sigma = ln(p99 / median) / 2.326, cut off at ten times p99. */
export function drawMs(profile: Profile, name: string, random: Random, kind: "call" | "process"): number {
  const timing = profile.timings[name] ?? (kind === "call" ? profile.call : 0);
  if (typeof timing === "number") return timing;
  const sigma = Math.log(timing.p99Ms / timing.medianMs) / 2.326;
  const body = Math.min(timing.medianMs * Math.exp(sigma * normal(random)), timing.p99Ms * 10);
  if (timing.tail === undefined || random() >= profile.tailChance) return body;
  const [least, most] = timing.tail.times;
  return body * (least + (most - least) * random());
}

/** Box-Muller: one standard normal from two uniform numbers. */
function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
