/**
 * The guest kernel: User-Mode Linux, built from Debian's source with ipvlan and nf_tables in it, for machines whose own kernel lacks
 * one of them. It is built once into a cache outside the repository, named by a hash of what goes in (the recipe and the list of options).
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { err, ok, type Result } from "../../lib/result.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
const RECIPE = ["build-kernel.sh", "kernel-options.txt"] as const;

/** BERTH_CACHE, else XDG_CACHE_HOME, else ~/.cache. */
function kernelFolder(): string {
  const caches = process.env["BERTH_CACHE"] ?? process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  const hash = createHash("sha256").update(process.arch);
  for (const file of RECIPE) hash.update(readFileSync(join(HERE, file)));
  return join(caches, "berth", `guest-kernel-${hash.digest("hex").slice(0, 16)}`);
}

/** The program, if it was built; the error tells what to do. */
export function findGuestKernel(): Result<string, string> {
  const program = join(kernelFolder(), "linux");
  if (existsSync(program)) return ok(program);
  return err(
    "the guest kernel is not built: run `npm run guest:build` as root (5 minutes, a 139 MB download)",
  );
}

/** Builds what is not built yet: 4 to 5 minutes on two cores the first time, no time at all afterwards. Two builds at once wait for each other. */
export function buildGuestKernel(): Result<string, string> {
  const found = findGuestKernel();
  if (found.ok) return found;
  if (process.arch !== "x64") return err(`User-Mode Linux is for x86-64 only, and this is ${process.arch}`);
  const folder = kernelFolder();
  const aside = `${folder}.building`;
  mkdirSync(dirname(folder), { recursive: true });
  // One lock for all: CI builds in the background, and whoever needs the kernel meanwhile waits for that build.
  const script = `[ -e "$2/linux" ] || { rm -rf "$1"; mkdir "$1"; nice -n 5 "$3" "$1"; }`;
  const done = spawnSync(
    "flock",
    [`${folder}.lock`, "bash", "-ec", script, "bash", aside, folder, join(HERE, RECIPE[0])],
    { stdio: ["ignore", 2, 2] },
  );
  if (existsSync(join(aside, "linux")) && done.status === 0 && !existsSync(folder)) renameSync(aside, folder);
  rmSync(aside, { recursive: true, force: true });
  const built = findGuestKernel();
  return built.ok ? built : err("the guest kernel could not be built; the words of its build are above");
}
