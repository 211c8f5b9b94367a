// Some of the kills of `npm run crash`, chosen by the commit: over many commits all are carried out, but for those after which a
// call is not repeated for a minute.
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

const SECONDS_MAX = 110;

test("the daemon and its shims die at points between two effects, and nothing leaks or is given twice", () => {
  const commit = spawnSync("git", ["rev-parse", "HEAD"], { encoding: "utf8" }).stdout.trim();
  const args = [
    "--json",
    "--walks",
    "3",
    "--without",
    "unassign",
    "--sample",
    "12",
    "--nodes",
    "4",
    "--seed",
    commit,
  ];
  const done = spawnSync(process.execPath, ["test/crash/main.ts", ...args], {
    encoding: "utf8",
    timeout: SECONDS_MAX * 1_000,
  });
  const report = JSON.parse(done.stdout === "" ? "{}" : done.stdout) as Readonly<Record<string, unknown>>;
  expect(report, `commit ${commit}: ${done.stderr.slice(-3_000)}`).toMatchObject({
    lostPings: 0,
    leaked: 0,
    doubleAllocations: 0,
    failures: [],
  });
  expect(report["kills"]).toBeGreaterThanOrEqual(8);
  expect(report["pingsSent"]).toBeGreaterThanOrEqual(1_000);
  expect(done.status).toBe(0);
}, 120_000);
