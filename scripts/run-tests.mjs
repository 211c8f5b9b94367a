// Runs vitest projects inside network and mount namespaces of their own, with a private /run/netns, so that a test that dies
// leaves nothing on the machine. Usage: node scripts/run-tests.mjs [project …] [-- vitest arguments]
import { spawnSync } from "node:child_process";
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
const done = spawnSync("unshare", [...unshare, "sh", "-c", privateRun, "sh", ...vitest], {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, BERTH_TEST_PLACE: "1" },
});
process.exit(done.status ?? 1);
