// The short form of `npm run sim`: seeds of this tree's making, under all faults.
import { expect, test } from "vitest";
import { CHECKER_NAMES } from "../../src/sim/checkers.ts";
import { FAULT_NAMES } from "../../src/sim/faults.ts";
import { sent, summarise } from "../../src/sim/report.ts";
import { run } from "./support.ts";

test("the same seed gives the same trace, byte for byte", async () => {
  const options = { seed: "twice", hours: 1, profile: "harsh", nodes: 2, tracing: true } as const;
  const [first, second] = [await run(options), await run(options)];
  expect(first.trace.length).toBeGreaterThan(1_000);
  expect(second.trace.join("\n")).toBe(first.trace.join("\n"));
  expect(second.steps).toBe(first.steps);
  const another = await run({ ...options, seed: "thrice" });
  expect(another.trace.join("\n")).not.toBe(first.trace.join("\n"));
});

test("without faults nothing fails, nothing leaks, and no pod waits for more than its budget", async () => {
  for (const workload of ["cron", "rollout", "spark", "mixed"] as const) {
    const report = await run({ seed: `calm-${workload}`, hours: 1, profile: "none", nodes: 1, workload });
    expect(report.violations).toEqual([]);
    expect(report.leaks).toBe(0);
    expect(report.adds.get("ok") ?? 0).toBeGreaterThan(20);
    const ordinary = ["limit-met", "describe-lagged"]; // They belong to EC2 on a good day.
    expect([...report.faults].filter(([name, count]) => count > 0 && !ordinary.includes(name))).toEqual([]);
  }
});

test("under all faults nothing leaks, nothing is given twice, and running pods keep their plumbing", async () => {
  const reports = [];
  for (let number = 0; number < 8; number += 1)
    reports.push(sent(await run({ seed: `short-${number}`, hours: 3, profile: "harsh" })));
  const summary = summarise(reports, 0);
  expect(summary.violations).toEqual([]);
  expect(summary).toMatchObject({ leaksAfterGrace: 0, doubleAllocations: 0 });
  expect(summary.adds / summary.virtualNodeHours).toBeGreaterThan(60);
  const idle = CHECKER_NAMES.filter((name) => (summary.checkers[name] ?? 0) === 0);
  expect(idle).toEqual([]);
  const met = FAULT_NAMES.filter((name) => (summary.faults[name] ?? 0) > 0);
  expect(met.length).toBeGreaterThanOrEqual(25);
});
