import { defineConfig } from "vitest/config";

// Five kinds of test (see docs/ARCHITECTURE.md). `fast` is pure and parallel; `kernel` and `e2e` use network namespaces
// and run one file at a time, in forks: a worker thread has its own network namespace, but /proc/self lies there.
const oneAtATime = {
  pool: "forks" as const,
  fileParallelism: false,
  maxWorkers: 1,
  setupFiles: ["test/support/clean-namespace.ts"],
  // Real processes and packets on a shared machine: in CI one more try, which vitest tells beside the test's name.
  retry: process.env["CI"] === undefined ? 0 : 1,
};

export default defineConfig({
  test: {
    reporters: ["default", "./test/support/counting-reporter.ts"],
    projects: [
      {
        extends: true,
        test: {
          name: "fast",
          include: ["test/**/*.test.ts"],
          exclude: ["test/{sim,kernel,e2e,guest,judges,localstack,cluster,bench,long}/**"],
          pool: "threads",
          isolate: false,
          testTimeout: 10_000,
        },
      },
      {
        extends: true,
        test: { name: "sim", include: ["test/sim/**/*.test.ts"], pool: "forks", testTimeout: 120_000 },
      },
      {
        extends: true,
        test: { name: "kernel", include: ["test/kernel/**/*.test.ts"], ...oneAtATime, testTimeout: 60_000 },
      },
      {
        extends: true,
        test: {
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          ...oneAtATime,
          testTimeout: 120_000,
          hookTimeout: 60_000,
        },
      },
      {
        extends: true,
        test: {
          name: "guest",
          include: ["test/guest/**/*.test.ts"],
          ...oneAtATime,
          testTimeout: 180_000,
          hookTimeout: 120_000,
        },
      },
      {
        extends: true,
        test: {
          name: "judges",
          include: ["test/judges/**/*.test.ts"],
          ...oneAtATime,
          testTimeout: 300_000,
          hookTimeout: 600_000,
        },
      },
      {
        extends: true,
        test: {
          name: "localstack",
          include: ["test/localstack/**/*.test.ts"],
          globalSetup: ["test/localstack/start-localstack.ts"],
          ...oneAtATime,
          testTimeout: 120_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
