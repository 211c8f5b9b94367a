import type { Reporter, TestModule } from "vitest/node";

/**
 * Ends a run with one line `N passed, N failed, N skipped`, and names each skipped test aloud.
 * In CI a skipped test is a failure: what was not run was not shown.
 */
export default class CountingReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0 };
    for (const module of modules) {
      if (module.errors().length > 0) counts.failed += 1; // The file itself did not load.
      for (const test of module.children.allTests()) {
        const state = test.result().state;
        if (state === "passed") counts.passed += 1;
        else if (state === "failed") counts.failed += 1;
        else {
          counts.skipped += 1;
          process.stdout.write(`SKIPPED [${module.project.name}] ${test.fullName}\n`);
        }
      }
    }
    process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
    if (process.env["CI"] !== undefined && counts.skipped > 0) process.exitCode = 1;
  }
}
