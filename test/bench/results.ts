/** What was measured, in one shape for stdout, the table and docs/performance.md; and the goals beside it. */
import type { AddDel, PoolSize } from "./add-del.ts";
import type { Burst, ColdBurst } from "./burst.ts";
import type { Memory, Start } from "./daemon.ts";
import type { Packet } from "./packet.ts";
import type { Plan } from "./plan.ts";
import { rounded } from "./statistics.ts";

/** A part that was not measured (left out by --only, or failed) is absent. */
export type Results = {
  readonly plan?: Plan;
  readonly addDel?: AddDel;
  readonly poolSize?: PoolSize;
  readonly burst?: Burst;
  readonly coldBurst?: ColdBurst;
  readonly packet?: Packet;
  readonly memory?: Memory;
  readonly start?: Start;
};

/** The object that `--json` prints. What was not measured is null. */
export function jsonOf(results: Results): object {
  const { addDel, poolSize, burst, coldBurst, packet, memory, start, plan } = results;
  const timed = (part: AddDel["add"] | undefined): object => ({
    oursMs: part?.ours.median ?? null,
    floorMs: part?.floor.median ?? null,
    peerMs: part?.peer?.median ?? null,
    ratioToFloor: ratio(part?.ours.median, part?.floor.median),
    ratioToPeer: ratio(part?.ours.median, part?.peer?.median),
    spread: part ?? null,
  });
  return {
    add: {
      ...timed(addDel?.add),
      poolSize:
        poolSize === undefined
          ? null
          : { ...poolSize, ratio: ratio(poolSize.large.addMs.median, poolSize.small.addMs.median) },
    },
    del: timed(addDel?.del),
    burst110: {
      failed: burst?.failed ?? null,
      oursMs: burst?.oursMs.median ?? null,
      peerMs: burst?.peerMs?.median ?? null,
      ratioToPeer: ratio(burst?.oursMs.median, burst?.peerMs?.median),
      spread: burst === undefined ? null : { ours: burst.oursMs, peer: burst.peerMs },
    },
    coldBurst100: {
      failed: coldBurst?.failed ?? null,
      seconds: coldBurst?.seconds ?? null,
      rounds: coldBurst?.rounds ?? null,
    },
    packet: {
      rttOnePodUs: packet?.onePodUs.median ?? null,
      rtt1000PodsUs: packet?.thousandPodsUs.median ?? null,
      ratio: ratio(packet?.thousandPodsUs.median, packet?.onePodUs.median),
      spread: packet ?? null,
    },
    memory: memory ?? { rssMb: null, growthMb: null, fdGrowth: null },
    start: { ms: start?.ms.median ?? null, spread: start?.ms ?? null },
    plan: plan ?? { p99Ms: null },
  };
}

export type Goal = {
  readonly what: string;
  readonly measured: string; // "-" where it was not.
  readonly goal: string;
  readonly met: boolean | null; // Null where it was not measured.
  readonly why: string; // What it would be, were it missed.
};

const WHY = {
  add: "kernel and process starts are shared with the peer; on busy cores the three processes of our way wait for the scheduler more often than its two",
  oneCore:
    "it is bound by one core's time, so what other work on the machine takes (see the load above) counts in full; ptp's burst mostly waits for the kernel, and does not show it",
  start:
    "it is bound by one core's time, so what other work on the machine takes (see the load above) counts in full",
  memory: "most of it is the Node.js binary itself, mapped and shared",
  noise: "the figure is near the goal, and other work on this machine moves it",
};

/** Each number that issue and README promise, beside what was measured. */
export function goalsOf(results: Results): readonly Goal[] {
  const { addDel, poolSize, burst, coldBurst, packet, memory, start, plan } = results;
  const { add, del } = addDel ?? {};
  return [
    times("ADD, of ptp's", ratio(add?.ours.median, add?.peer?.median), 1 / 3, "1/3", WHY.add),
    times("ADD, of the floor's", ratio(add?.ours.median, add?.floor.median), 4, "4", WHY.add),
    times("DEL, of ptp's", ratio(del?.ours.median, del?.peer?.median), 1 / 5, "1/5", WHY.add),
    times(
      "ADD, pool of 735 against a pool of 9",
      ratio(poolSize?.large.addMs.median, poolSize?.small.addMs.median),
      1.25,
      "1.25",
      WHY.noise,
    ),
    atMost("110 ADDs at once, failed", burst?.failed, "", 0),
    times(
      "110 ADDs at once, of ptp's",
      ratio(burst?.oursMs.median, burst?.peerMs?.median),
      1 / 3,
      "1/3",
      WHY.oneCore,
    ),
    atMost("100 ADDs on a fresh node, failed", coldBurst?.failed, "", 0),
    atMost("100 ADDs on a fresh node", coldBurst?.seconds, "s", 2),
    times(
      "round trip, 1,000 pods against one",
      ratio(packet?.thousandPodsUs.median, packet?.onePodUs.median),
      1.1,
      "1.1",
      WHY.noise,
    ),
    atMost("resident memory with 110 pods", memory?.rssMb, "MB", 110, WHY.memory),
    atMost(growthText(memory), memory?.growthMb, "MB", 5),
    atMost("descriptors more than before", memory?.fdGrowth, "", 0),
    atMost("spawn to open socket", start?.ms.median, "ms", 700, WHY.start),
    atMost("planning 15 ENIs × 50 addresses, p99", plan?.p99Ms, "ms", 1),
  ];
}

function growthText(memory: Memory | undefined): string {
  return memory === undefined
    ? "memory growth"
    : `memory growth over ${memory.pairs.toLocaleString("en")} ADD/DEL pairs`;
}

function times(what: string, measured: number | null, limit: number, goal: string, why: string): Goal {
  return {
    what,
    measured: measured === null ? "-" : `× ${measured.toFixed(2)}`,
    goal: `at most × ${goal}`,
    met: measured === null ? null : measured <= limit,
    why,
  };
}

function atMost(
  what: string,
  measured: number | undefined,
  unit: string,
  limit: number,
  why = WHY.noise,
): Goal {
  const shown = (value: number): string => (unit === "" ? `${value}` : `${rounded(value)} ${unit}`);
  return {
    what,
    measured: measured === undefined ? "-" : shown(measured),
    goal: limit === 0 ? "0" : `at most ${shown(limit)}`,
    met: measured === undefined ? null : measured <= limit,
    why,
  };
}

function ratio(measured: number | undefined, base: number | undefined): number | null {
  return measured === undefined || base === undefined || base === 0 ? null : rounded(measured / base);
}

export function tableOf(results: Results): string {
  const goals = goalsOf(results);
  const widths = [
    Math.max(...goals.map(({ what }) => what.length)),
    Math.max(...goals.map(({ measured }) => measured.length)),
  ];
  const mark = (met: boolean | null): string => (met === null ? "  " : met ? "ok" : "no");
  return goals
    .map(
      ({ what, measured, goal, met }) =>
        `  ${mark(met)}  ${what.padEnd(widths[0] ?? 0)}  ${measured.padStart(widths[1] ?? 0)}  ${goal}\n`,
    )
    .join("");
}
