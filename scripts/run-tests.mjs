// Runs vitest projects inside network and mount namespaces of their own, with a private /run/netns, so that a test that dies
// leaves nothing on the machine. Usage: node scripts/run-tests.mjs [project …] [-- vitest arguments]
import { spawn } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const split = process.argv.indexOf("--");
const projects = process.argv.slice(2, split === -1 ? undefined : split);
const rest = split === -1 ? [] : process.argv.slice(split + 1);
const asRoot = process.getuid?.() === 0;

const vitest = [
  process.execPath,
  "node_modules/vitest/vitest.mjs",
  "run",
  "--config",
  "test/vitest.config.ts",
  ...(process.env.BERTH_GUEST === "1" ? ["--configLoader=native"] : []), // In a guest the tree is read-only; the other loader writes beside it.
  ...projects.flatMap((project) => ["--project", project]),
  ...rest,
];
const privateRun = 'mount -t tmpfs run /run && mkdir -p /run/netns && ip link set lo up && exec "$@"';
const unshare = [
  "--net",
  "--mount",
  "--pid",
  "--fork",
  "--kill-child",
  "--mount-proc",
  ...(asRoot ? [] : ["--user", "--map-root-user"]),
];
// Whoever kills us, however hard, ends the tests too: their namespaces go with the process that is killed here.
const child = spawn(
  "setpriv",
  ["--pdeathsig", "KILL", "unshare", ...unshare, "sh", "-c", privateRun, "sh", ...vitest],
  {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, BERTH_TEST_PLACE: "1" },
  },
);
// npm may be killed without us: then our parent changes.
const parent = process.ppid;
const watch = setInterval(() => {
  if (process.ppid !== parent) child.kill("SIGKILL");
}, 200);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill("SIGKILL"));
child.once("error", (cause) => {
  process.stderr.write(`run-tests: setpriv could not be started: ${cause.message}\n`);
  process.exitCode = 1;
  clearInterval(watch);
});
child.once("close", (code) => {
  clearInterval(watch);
  process.exitCode = code ?? 1;
});
