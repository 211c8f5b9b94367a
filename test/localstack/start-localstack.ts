/** Starts LocalStack once for all files of the suite, before the first test, and ends it after the last. */
import type { TestProject } from "vitest/node";
import { startLocalStack } from "../../localstack/start.ts";

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env["BERTH_LOCALSTACK_URL"];
  if (given !== undefined) {
    project.provide("localstack", { url: given });
    return async () => {};
  }
  const began = performance.now();
  const started = await startLocalStack();
  if (!started.ok) {
    process.stderr.write(`SKIPPED: ${started.error}\n`);
    project.provide("localstack", { missing: started.error });
    return async () => {};
  }
  const seconds = ((performance.now() - began) / 1_000).toFixed(1);
  process.stderr.write(`LocalStack ${started.value.version} answers after ${seconds} s\n`);
  project.provide("localstack", { url: started.value.url });
  return async () => await started.value.stop();
}
