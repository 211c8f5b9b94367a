/**
 * Python programs that we did not write, in a virtual environment outside the repository, named by a hash of the files that pin
 * it: made once, found for ever after. Needs python3 with venv and pip, and PyPI the first time.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { err, ok, type Result } from "../../src/lib/result.ts";

/** `requirements` is a file of pins, its `-c` lines resolved beside it; `files` are all that go into the hash. */
export type PythonPins = {
  readonly name: string;
  readonly requirements: string;
  readonly files: readonly string[];
};

/** BERTH_CACHE, else XDG_CACHE_HOME, else ~/.cache; in it, everything that tests build or fetch. */
export function cacheFolder(): string {
  const caches = process.env["BERTH_CACHE"] ?? process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
  return join(caches, "berth");
}

function folderOf(pins: PythonPins): string {
  const hash = createHash("sha256").update(pythonVersion() ?? "none");
  for (const file of pins.files) hash.update(readFileSync(file));
  return join(cacheFolder(), `${pins.name}-${hash.digest("hex").slice(0, 16)}`);
}

/** Path of the environment's `python`, if it was made; the error tells what to do. Needs no network. */
export function findPython(pins: PythonPins): Result<string, string> {
  const program = join(folderOf(pins), "bin/python");
  return existsSync(program)
    ? ok(program)
    : err(`${pins.name} is not installed: the npm script that runs its tests does that first`);
}

/** Makes what is not there yet: one or two minutes and PyPI the first time, no time at all afterwards. */
export function installPython(pins: PythonPins): Result<string, string> {
  const found = findPython(pins);
  if (found.ok) return found;
  const version = pythonVersion();
  if (version === null) return err(`${pins.name} needs python3 (3.11 or newer) with venv`);
  const folder = folderOf(pins);
  const aside = `${folder}.${process.pid}`;
  mkdirSync(cacheFolder(), { recursive: true });
  process.stderr.write(`${pins.name}: installing ${pins.requirements} under ${version}\n`);
  const pip = [
    "-m",
    "pip",
    "install",
    "--quiet",
    "--no-input",
    "--disable-pip-version-check",
    "-r",
    pins.requirements,
  ];
  const done = [
    ["python3", "-m", "venv", aside],
    [join(aside, "bin/python"), ...pip],
  ].every(([program = "", ...args]) => spawnSync(program, args, { stdio: ["ignore", 2, 2] }).status === 0);
  if (!done) {
    rmSync(aside, { recursive: true, force: true });
    return err(`${pins.name} could not be installed; pip's own words are above`);
  }
  // By one rename, so that what is found is whole. Scripts in bin/ keep the old path: programs are run with `python -m`.
  rmSync(folder, { recursive: true, force: true });
  renameSync(aside, folder);
  return ok(join(folder, "bin/python"));
}

/** Of the python3 on the path, or null where there is none that serves. */
function pythonVersion(): string | null {
  const done = spawnSync(
    "python3",
    ["-c", "import sys, venv; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))"],
    {
      encoding: "utf8",
    },
  );
  return done.status === 0 ? `Python ${done.stdout.trim()}` : null;
}
