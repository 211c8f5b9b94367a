/**
 * `npm run judges`: the suite in namespaces of its own; what it needs was built before, since there the network is cut off. With --json,
 * stdout holds one object with each judge's figures and nothing else. What vitest says goes to stderr then.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** In the order in which they are printed; one whose test did not run to its figures is left out. */
const JUDGES = ["boto3", "awsCli", "goSdk", "model", "errors", "awsVpcCni", "adopt"] as const;

const json = process.argv.includes("--json");
const rest = process.argv.slice(2).filter((each) => each !== "--json");
const folder = mkdtempSync(join(tmpdir(), "berth-judges-figures-"));
const child = spawn(process.execPath, ["scripts/run-tests.mjs", "judges", "--", ...rest], {
  cwd: ROOT,
  env: { ...process.env, BERTH_JUDGES_FIGURES: folder },
  stdio: ["ignore", json ? 2 : 1, 2],
});
// npm may be killed without us: then our parent changes, and what we started goes by itself once we are gone.
const parent = process.ppid;
const watch = setInterval(() => {
  if (process.ppid !== parent) process.kill(process.pid, "SIGKILL");
}, 200);
const code = await new Promise<number>((resolve) => child.once("close", (status) => resolve(status ?? 1)));
clearInterval(watch);
if (json) {
  const there = new Set(readdirSync(folder));
  const figures = JUDGES.filter((name) => there.has(`${name}.json`)).map((name) => [
    name,
    JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8")) as unknown,
  ]);
  process.stdout.write(`${JSON.stringify(Object.fromEntries(figures))}\n`);
}
rmSync(folder, { recursive: true, force: true });
process.exit(code);
