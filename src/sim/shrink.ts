/** The shortest trace of a violation that can be had cheaply: fewer kinds of fault, none before it is needed, no hours after it. */
import { HOUR_MS } from "../lib/time.ts";
import { FAULT_NAMES, type FaultName } from "./faults.ts";
import { type RunOptions, type RunReport, runSeed } from "./run.ts";

export type Shrunk = {
  readonly without: readonly FaultName[];
  readonly faultsLeft: readonly FaultName[];
  readonly fromMs: number;
  readonly nodes: number | null;
  readonly trace: readonly string[];
  readonly report: RunReport;
};

/** Null when the violation does not come again. `runsMax` bounds the search. */
export async function shrink(options: RunOptions, runsMax = 25): Promise<Shrunk | null> {
  let runs = 0;
  const whole = await runSeed({ ...options, tracing: false });
  const [wanted] = whole.violations;
  if (wanted === undefined) return null;
  const fails = async (attempt: Partial<RunOptions>): Promise<RunReport | null> => {
    if (runs >= runsMax) return null;
    runs += 1;
    const report = await runSeed({ ...options, ...attempt, tracing: false });
    return report.violations.some(({ checker }) => checker === wanted.checker) ? report : null;
  };
  let best: { without: ReadonlySet<FaultName>; fromMs: number; hours: number } = {
    without: options.without ?? new Set(),
    fromMs: options.fromMs ?? 0,
    hours: options.hours,
  };
  let last = whole;
  const keep = async (attempt: typeof best): Promise<boolean> => {
    const report = await fails(attempt);
    if (report === null) return false;
    best = attempt;
    last = report;
    return true;
  };
  // A violation of the grace time needs its whole run; one before it needs no hour after it.
  if (wanted.atMs < options.hours * HOUR_MS)
    await keep({ ...best, hours: Math.ceil((wanted.atMs + 1) / HOUR_MS) });
  // Kinds of fault: halves first, then one by one.
  for (let size = FAULT_NAMES.length >> 1; size >= 1; size >>= 1) {
    const left = FAULT_NAMES.filter((name) => !best.without.has(name) && (last.faults.get(name) ?? 0) > 0);
    for (let at = 0; at < left.length; at += size) {
      const dropped = left.slice(at, at + size);
      await keep({ ...best, without: new Set([...best.without, ...dropped]) });
    }
  }
  for (let step = (last.violations[0]?.atMs ?? 0) / 2; step > 60_000; step /= 2)
    await keep({ ...best, fromMs: best.fromMs + step });
  const traced = await runSeed({ ...options, ...best, tracing: true });
  return {
    without: [...best.without],
    faultsLeft: FAULT_NAMES.filter((name) => (traced.faults.get(name) ?? 0) > 0),
    fromMs: best.fromMs,
    nodes: options.nodes ?? null,
    trace: traced.trace,
    report: traced,
  };
}
