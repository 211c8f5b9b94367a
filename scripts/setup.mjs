// What `npm run demo` and `npm test` need before they can run: npm packages and a few Debian packages.
// Plain JavaScript, since it must run under whatever Node the machine has (20 and up).
// Everything it says goes to stderr: a command's `--json` on stdout stays clean.
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Programs we start, and the Debian package that brings each. */
const PROGRAMS = [
  { program: "ip", package: "iproute2" },
  { program: "nft", package: "nftables" },
  { program: "unshare", package: "util-linux" },
  { program: "setpriv", package: "util-linux" },
  { program: "ping", package: "iputils-ping" },
  // The AWS VPC CNI drives it: only suites in which that runs ask for it.
  ...(process.argv.includes("--peer") ? [{ program: "iptables", package: "iptables" }] : []),
];

function main() {
  installNpmPackages();
  installPrograms();
}

function installNpmPackages() {
  const installed = mtimeOf(join(root, "node_modules/.package-lock.json"));
  const wanted = Math.max(mtimeOf(join(root, "package.json")), mtimeOf(join(root, "package-lock.json")));
  if (installed >= wanted) return;
  say("installing npm packages");
  run(
    "npm",
    ["ci", "--no-audit", "--no-fund", "--loglevel=error"],
    "npm packages could not be installed; is the registry reachable?",
  );
}

function installPrograms() {
  const missing = PROGRAMS.filter((each) => !onPath(each.program)).map((each) => each.package);
  if (!["musl-gcc", "gcc", "cc"].some(onPath)) missing.push("musl-tools");
  else if (!onPath("musl-gcc") && mayInstall()) missing.push("musl-tools"); // A musl shim is 17 KB and starts in 0.1 ms; with glibc alone it still works.
  const packages = [...new Set(missing)];
  if (packages.length === 0) return;
  if (!mayInstall()) {
    const must = packages.filter((each) => each !== "musl-tools" || !["gcc", "cc"].some(onPath));
    if (must.length === 0) return;
    fail(
      `these Debian packages are missing and this user may not install them: ${must.join(" ")}. Run as root: apt-get install -y ${must.join(" ")}`,
    );
  }
  say(`installing Debian packages: ${packages.join(" ")}`);
  const install = ["install", "-y", "--no-install-recommends", ...packages];
  if (spawnQuietly("apt-get", install) === 0) return;
  spawnQuietly("apt-get", ["update"]);
  if (spawnQuietly("apt-get", install) === 0) return;
  fail(`apt-get could not install: ${packages.join(" ")}. Install them by hand and run this again.`);
}

function mayInstall() {
  return process.getuid?.() === 0 && onPath("apt-get");
}

function onPath(program) {
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"];
  return folders.some((folder) => folder !== "" && existsSync(join(folder, program)));
}

function mtimeOf(path) {
  return existsSync(path) ? statSync(path).mtimeMs : 0;
}

function run(program, args, complaint) {
  const done = spawnSync(program, args, { cwd: root, stdio: ["ignore", 2, 2] });
  if (done.status !== 0) fail(complaint);
}

function spawnQuietly(program, args) {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  return spawnSync(program, args, { env, stdio: ["ignore", "ignore", "ignore"] }).status;
}

function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

function fail(text) {
  process.stderr.write(`setup: ${text}\n`);
  process.exit(1);
}

main();
