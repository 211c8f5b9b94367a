/**
 * Programs that we did not write, built from the Go module proxy: libcni's cnitool and the reference plugins. Versions and
 * checksums are pinned by go.mod and go.sum beside this file. They are built once into a cache outside the repository, named by a
 * hash of all that goes in. Run as a program it builds them (`npm run judges` does so before its namespaces cut the network off).
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { err, ok, type Result } from "../../src/lib/result.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
/** As in reference builds: static, without paths of this machine, without symbols. -mod=readonly: go.sum decides. */
const BUILD = ["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w"];
/** The folder comes by one rename, so where one of the programs is, all are. */
const WITNESS = "tuning";

/** Where the judges are, or will be. BERTH_CACHE, else XDG_CACHE_HOME, else ~/.cache. */
function judgesFolder(): string {
  const caches = process.env["BERTH_CACHE"] ?? process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const hash = createHash("sha256").update(BUILD.join(" ")).update(process.arch);
  for (const file of ["go.mod", "go.sum"]) hash.update(readFileSync(join(HERE, file)));
  return join(caches, "berth", `judges-${hash.digest("hex").slice(0, 16)}`);
}

/** The folder with cnitool and the plugins, if they were built; the error tells what to do. Needs no network. */
export function findJudges(): Result<string, string> {
  const folder = judgesFolder();
  if (existsSync(join(folder, WITNESS))) return ok(folder);
  const how = goProgram() === null ? "install Go (https://go.dev/dl), then " : "";
  return err(`cnitool and the reference plugins are not built: ${how}run node test/judges/build.ts`);
}

/** Builds what is not built yet: half a minute and the Go module proxy the first time, no time at all afterwards. */
export function buildJudges(): Result<string, string> {
  const found = findJudges();
  if (found.ok) return found;
  const go = goProgram();
  if (go === null) return found;
  const folder = judgesFolder();
  const aside = `${folder}.${process.pid}`;
  mkdirSync(aside, { recursive: true });
  process.stderr.write("judges: building cnitool and the reference plugins\n");
  const done = spawnSync(go, [...BUILD, "-o", `${aside}/`, "tool"], {
    cwd: HERE,
    env: { ...process.env, CGO_ENABLED: "0", GOTOOLCHAIN: "local", GOWORK: "off" },
    stdio: ["ignore", 2, 2],
  });
  if (done.status !== 0 || !existsSync(join(aside, WITNESS))) {
    rmSync(aside, { recursive: true, force: true });
    return err("cnitool and the reference plugins could not be built; Go's own words are above");
  }
  rmSync(folder, { recursive: true, force: true });
  renameSync(aside, folder);
  return ok(folder);
}

function goProgram(): string | null {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/go/bin", "/usr/lib/go/bin"];
  const programs = folders.filter((folder) => folder !== "").map((folder) => join(folder, "go"));
  return programs.find((program) => existsSync(program)) ?? null;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const built = buildJudges();
  if (!built.ok) process.stderr.write(`judges: ${built.error}\n`);
  // Without Go the tests say so aloud, and in CI that is a failure; with Go, not to be able to build is one at once.
  if (!built.ok && goProgram() !== null) process.exitCode = 1;
}
