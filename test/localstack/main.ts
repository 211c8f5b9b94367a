/**
 * `npm run test:localstack`: installs what is pinned, then runs the suite in namespaces of its own. With --json, stdout holds one object
 * and nothing else. What vitest says goes to stderr then.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { LOCALSTACK_PINS } from "../../localstack/start.ts";
import { installPython } from "../support/python.ts";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

type Report = {
  readonly testResults: readonly {
    readonly name: string;
    readonly message?: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly ancestorTitles: readonly string[];
    }[];
  }[];
};

const json = process.argv.includes("--json");
const began = performance.now();
const installed = installPython(LOCALSTACK_PINS);
if (!installed.ok) process.stderr.write(`SKIPPED: ${installed.error}\n`); // The tests skip aloud, which is a failure in CI.
const folder = mkdtempSync(join(tmpdir(), "berth-localstack-report-"));
const reportFile = join(folder, "report.json");
const reporters = ["default", "./test/support/counting-reporter.ts", "json"].map(
  (each) => `--reporter=${each}`,
);
const done = spawnSync(
  process.execPath,
  [
    "scripts/run-tests.mjs",
    "localstack",
    "--",
    ...reporters,
    `--outputFile.json=${reportFile}`,
    ...process.argv.slice(2).filter((each) => each !== "--json"),
  ],
  { cwd: ROOT, stdio: ["ignore", json ? 2 : 1, 2] },
);
if (json) {
  const { testResults } = JSON.parse(readFileSync(reportFile, "utf8")) as Report; // Vitest's own report.
  const tests = testResults.flatMap((file) => file.assertionResults);
  const count = (status: string): number => tests.filter((each) => each.status === status).length;
  const broken = testResults.filter((file) => file.assertionResults.length === 0).length; // A file that did not load.
  const passed = count("passed");
  const figures = {
    localstack: /localstack-core\[runtime\]==(.*)/.exec(
      readFileSync(LOCALSTACK_PINS.requirements, "utf8"),
    )?.[1],
    passed,
    failed: count("failed") + broken,
    skipped: tests.length - passed - count("failed"),
    differences: tests.filter(
      (each) => each.status === "passed" && each.ancestorTitles.includes("difference"),
    ).length,
    wallSeconds: Number(((performance.now() - began) / 1_000).toFixed(1)),
  };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}
rmSync(folder, { recursive: true, force: true });
process.exit(done.status ?? 1);
