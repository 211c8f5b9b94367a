// What the simulator's tests share: a turn of this process's event loop.
import { type RunOptions, type RunReport, runSeed } from "../../src/sim/run.ts";

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export async function run(options: Omit<RunOptions, "turn">): Promise<RunReport> {
  return await runSeed({ ...options, turn });
}
