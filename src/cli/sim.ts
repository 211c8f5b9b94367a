/** `npm run sim`: seeds through the simulator, in two worker processes; prints the sum and ends with 1 on a violation. */
import { runSeed } from "../sim/run.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const [seed = "1", hours = "2", profile = "harsh", trace = ""] = process.argv.slice(2);
const began = performance.now();
const report = await runSeed({
  seed,
  hours: Number(hours),
  profile: profile as "harsh",
  tracing: trace !== "",
  turn,
});
if (trace !== "") process.stdout.write(`${report.trace.join("\n")}\n`);
process.stderr.write(
  `${JSON.stringify({ ...report, trace: undefined, adds: Object.fromEntries(report.adds), faults: Object.fromEntries(report.faults), checkers: Object.fromEntries(report.checkers), removals: Object.fromEntries(report.removals), wallMs: Math.round(performance.now() - began) })}\n`,
);
process.exit(0);
