/** The reports of many seeds in one, in the shape that `npm run sim -- --json` prints. */
import { CHECKER_NAMES, type CheckerName, type Violation } from "./checkers.ts";
import { FAULT_NAMES, type FaultName } from "./faults.ts";
import type { RunReport } from "./run.ts";

export type SimSummary = {
  readonly seeds: number;
  readonly virtualNodeHours: number;
  readonly adds: number;
  readonly steps: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly checkers: Readonly<Record<string, number>>;
  readonly violations: readonly (Violation & { readonly seed: string })[];
  readonly leaksAfterGrace: number;
  readonly doubleAllocations: number;
  readonly addsFailed: Readonly<Record<string, number>>;
  readonly removals: Readonly<Record<string, number>>; // What the daemons took away, and why.
  readonly ec2CallsPerNodeHour: number;
  readonly wallSeconds: number;
};

/** A report as it crosses from a worker: maps become lists. */
export type SentReport = Omit<RunReport, "adds" | "removals" | "faults" | "checkers" | "trace"> & {
  readonly adds: readonly (readonly [string, number])[];
  readonly removals: readonly (readonly [string, number])[];
  readonly faults: readonly (readonly [FaultName, number])[];
  readonly checkers: readonly (readonly [CheckerName, number])[];
};

export function sent(report: RunReport): SentReport {
  const { trace: _, adds, removals, faults, checkers, ...rest } = report;
  return { ...rest, adds: [...adds], removals: [...removals], faults: [...faults], checkers: [...checkers] };
}

export function summarise(reports: readonly SentReport[], wallSeconds: number): SimSummary {
  const total = (read: (report: SentReport) => number): number =>
    reports.reduce((sum, report) => sum + read(report), 0);
  const counted = (
    names: readonly string[],
    read: (report: SentReport) => readonly (readonly [string, number])[],
  ): Record<string, number> => {
    const counts: Record<string, number> = Object.fromEntries(names.map((name) => [name, 0]));
    for (const report of reports)
      for (const [name, count] of read(report)) counts[name] = (counts[name] ?? 0) + count;
    return counts;
  };
  const outcomes = counted([], (report) => report.adds);
  const { ok = 0, ...addsFailed } = outcomes;
  const nodeHours = total((report) => report.nodeHours);
  const violations = reports.flatMap(({ seed, violations: found }) =>
    found.map((violation) => ({ seed, ...violation })),
  );
  return {
    seeds: reports.length,
    virtualNodeHours: nodeHours,
    adds: ok + Object.values(addsFailed).reduce((sum, count) => sum + count, 0),
    steps: total((report) => report.steps),
    faults: counted(FAULT_NAMES, (report) => report.faults),
    checkers: counted(CHECKER_NAMES, (report) => report.checkers),
    violations,
    leaksAfterGrace: total((report) => report.leaks),
    doubleAllocations: violations.filter(({ checker }) => checker === "one-sandbox-an-address").length,
    addsFailed,
    removals: counted([], (report) => report.removals),
    ec2CallsPerNodeHour:
      nodeHours === 0 ? 0 : Math.round((total((report) => report.ec2Calls) / nodeHours) * 10) / 10,
    wallSeconds: Math.round(wallSeconds * 10) / 10,
  };
}
