/**
 * Pods that come and go, by the eight workloads of docs on pod churn: counts are over-dispersed at every scale, lifetimes span six decades.
 * A workload that has few pods an hour is run faster than life, so that each node sees at least 100 ADDs an hour.
 */
import { randomInteger, type Random } from "../lib/random.ts";
import { HOUR_MS, MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import type { VirtualClock } from "./clock.ts";

export type PodSink = {
  /** A pod is bound to the node, and ends by itself after `lifeMs`. */
  readonly start: (lifeMs: number) => void;
  /** Pods that live now. */
  readonly count: () => number;
  /** The oldest pods end, `afterMs` from now. */
  readonly end: (count: number, afterMs: number) => void;
};

const exponential = (chance: Random, mean: number): number => -Math.log(1 - chance()) * mean;
const normal = (chance: Random): number =>
  Math.sqrt(-2 * Math.log(1 - chance())) * Math.cos(2 * Math.PI * chance());
/** Lognormal by median and 99th percentile. */
const lognormal = (chance: Random, median: number, p99: number): number =>
  median * Math.exp((Math.log(p99 / median) / 2.326) * normal(chance));
/** On 1, 2, … with this mean. */
const geometric = (chance: Random, mean: number): number =>
  1 + Math.floor(Math.log(1 - chance()) / Math.log(1 - 1 / mean));

type Tools = {
  readonly clock: VirtualClock;
  readonly chance: Random;
  readonly pods: PodSink;
  readonly going: () => boolean;
  readonly most: number;
};

/** `natural`: ADDs an hour as described; what runs faster than life has its lives shortened as much. */
type Workload = { readonly natural: number; readonly begin: (tools: Tools, pace: number) => void };

const FOR_EVER_MS = 1_000 * HOUR_MS;

/** A Poisson process of `hourly` occasions. */
function poisson(tools: Tools, hourly: number, act: () => void): void {
  const next = (): void => {
    tools.clock.after(exponential(tools.chance, HOUR_MS / hourly), () => {
      if (!tools.going()) return;
      act();
      next();
    });
  };
  next();
}

function fixed({ pods, most }: Tools, count: number): void {
  for (let made = 0; made < Math.min(count, most); made += 1) pods.start(FOR_EVER_MS);
}

/** `count` pods, `gapMs` apart in the mean. */
function batch(
  { clock, chance, pods, going }: Tools,
  count: number,
  gapMs: number,
  life: () => number,
): void {
  let at = 0;
  for (let made = 0; made < count; made += 1) {
    clock.after(at, () => {
      if (going()) pods.start(life());
    });
    at += exponential(chance, gapMs);
  }
}

export const WORKLOADS = {
  steady: {
    natural: 1,
    begin: (tools, pace) => {
      const life = (): number => exponential(tools.chance, (30 * HOUR_MS) / pace);
      for (let made = 0; made < Math.min(30, tools.most); made += 1) tools.pods.start(life());
      poisson(tools, pace, () => tools.pods.start(life()));
    },
  },
  rollout: {
    natural: 20,
    begin: (tools, pace) => {
      fixed(tools, 40);
      poisson(tools, 4 * pace, () => {
        const replaced = Math.min(geometric(tools.chance, 5), tools.most);
        batch(tools, replaced, 4 * SECOND_MS, () => FOR_EVER_MS);
        tools.pods.end(replaced, randomInteger(tools.chance, 5, 60) * SECOND_MS);
      });
    },
  },
  cron: {
    natural: 118,
    begin: (tools) => {
      fixed(tools, 15);
      let minute = 0;
      const tick = (): void => {
        if (!tools.going()) return;
        const base = [0, 1, 1, 2][Math.floor(tools.chance() * 4)] ?? 1;
        const count = base + (minute % 5 === 0 ? 3 : 0) + (minute % 60 === 0 ? 22 : 0);
        batch(tools, Math.min(count, tools.most), 100, () =>
          lognormal(tools.chance, 40 * SECOND_MS, 400 * SECOND_MS),
        );
        minute += 1;
        tools.clock.after(MINUTE_MS, tick);
      };
      tick();
    },
  },
  ci: {
    natural: 72,
    begin: (tools, pace) => {
      fixed(tools, 8);
      poisson(tools, 12 * pace, () =>
        batch(
          tools,
          geometric(tools.chance, 6),
          500,
          () => lognormal(tools.chance, 360 * SECOND_MS, 2_900 * SECOND_MS) / pace,
        ),
      );
    },
  },
  spark: {
    natural: 33,
    begin: (tools, pace) => {
      fixed(tools, 8);
      poisson(tools, 1.5 * pace, () => {
        const executors = randomInteger(tools.chance, 8, 36);
        let [sent, round, at] = [0, 1, 0];
        while (sent < executors) {
          const now = Math.min(round, 20, executors - sent);
          tools.clock.after(at, () =>
            batch(tools, now, 30, () => lognormal(tools.chance, 480 * SECOND_MS, 3_600 * SECOND_MS) / pace),
          );
          sent += now;
          round *= 2;
          at += SECOND_MS;
        }
      });
    },
  },
  flash: {
    natural: 5,
    begin: (tools, pace) => {
      fixed(tools, 20);
      poisson(tools, (2 / 24) * pace, () => {
        const target = randomInteger(tools.chance, 20, 48);
        const hold = (): number =>
          randomInteger(tools.chance, 600, 3_600) * SECOND_MS * Math.min(1, 6 / pace) +
          tools.chance() * 120 * SECOND_MS;
        let [have, at] = [6, 0];
        while (have < target) {
          const more = Math.min(Math.max(4, have), target - have);
          tools.clock.after(at, () => batch(tools, more, 200, hold));
          have += more;
          at += 15 * SECOND_MS;
        }
      });
    },
  },
  mixed: {
    natural: 24,
    begin: (tools, pace) => {
      fixed(tools, 12);
      poisson(tools, 24 * pace, () => tools.pods.start(mixedLife(tools.chance) / Math.min(pace, 3)));
    },
  },
  /** The pods of a node that has just joined, ended all at once as on a drain, and bound anew. */
  "node-join": {
    natural: 20,
    begin: (tools, pace) => {
      const join = (): void => {
        if (!tools.going()) return;
        batch(tools, Math.min(8, tools.most), 200, () => FOR_EVER_MS);
        tools.clock.after(3 * SECOND_MS, () =>
          batch(tools, Math.min(12, tools.most), 400, () => FOR_EVER_MS),
        );
        tools.clock.after(HOUR_MS / pace - 30 * SECOND_MS, () =>
          tools.pods.end(tools.pods.count(), 5 * SECOND_MS),
        );
        tools.clock.after(HOUR_MS / pace, join);
      };
      join();
    },
  },
} as const satisfies Readonly<Record<string, Workload>>;

export type WorkloadName = keyof typeof WORKLOADS;
export const WORKLOAD_NAMES = Object.keys(WORKLOADS) as readonly WorkloadName[]; // The record's own keys.

const ADDS_HOURLY = 110;

export function beginWorkload(name: WorkloadName, tools: Tools): void {
  const workload = WORKLOADS[name];
  workload.begin(tools, Math.max(1, ADDS_HOURLY / workload.natural));
}

/** Log-uniform inside the classes that container surveys publish, from two seconds to twelve hours. */
function mixedLife(chance: Random): number {
  const classes: readonly (readonly [number, number, number])[] = [
    [0.17, 2, 10],
    [0.22, 10, 60],
    [0.16, 60, 300],
    [0.1, 300, 600],
    [0.13, 600, 3_600],
    [0.22, 3_600, 43_200],
  ];
  let draw = chance();
  for (const [share, from, to] of classes) {
    if (draw < share) return from * (to / from) ** (draw / share) * SECOND_MS;
    draw -= share;
  }
  return 12 * HOUR_MS;
}
