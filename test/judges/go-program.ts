/**
 * Programs that we did not write, built from the Go module proxy by a go.mod and a go.sum of ours. Each is built once into a cache outside
 * the repository, named by a hash of all that goes in, and found there by every suite that needs it.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { err, ok, type Result } from "../../src/lib/result.ts";
import { cacheFolder } from "../support/python.ts";

export type GoProgram = {
  readonly name: string;
  readonly module: string; // The folder of its go.mod and go.sum.
  readonly package: string; // An import path of the graph, or a folder of ours: ./name, with one main.go.
  readonly stamps: Readonly<Record<string, string>>; // Variables that the linker sets.
};

/** The program's path, if it was built; the error tells what to do. Needs no network. */
export function findProgram(program: GoProgram): Result<string, string> {
  const path = pathOf(program);
  return existsSync(path)
    ? ok(path)
    : err(`${program.name} is not built: run npm run judges:build (needs Go, https://go.dev/dl)`);
}

/** Minutes and the Go module proxy the first time, no time at all afterwards. Go's own words go to stderr. */
export function buildProgram(program: GoProgram): Result<string, string> {
  const found = findProgram(program);
  if (found.ok) return found;
  const go = goProgram();
  if (go === null) return found;
  const path = pathOf(program);
  const aside = `${dirname(path)}.${process.pid}`;
  mkdirSync(aside, { recursive: true });
  process.stderr.write(`judges: building ${program.name}\n`);
  const done = spawnSync(go, [...flagsOf(program), "-o", join(aside, program.name), program.package], {
    cwd: program.module,
    env: { ...process.env, CGO_ENABLED: "0", GOTOOLCHAIN: "local", GOWORK: "off" },
    stdio: ["ignore", 2, 2],
  });
  if (done.status !== 0) {
    rmSync(aside, { recursive: true, force: true });
    return err(`${program.name} could not be built; Go's own words are above`);
  }
  rmSync(dirname(path), { recursive: true, force: true });
  renameSync(aside, dirname(path));
  return ok(path);
}

export function goProgram(): string | null {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/go/bin", "/usr/lib/go/bin"];
  const programs = folders.filter((folder) => folder !== "").map((folder) => join(folder, "go"));
  return programs.find((program) => existsSync(program)) ?? null;
}

/** As in reference builds: static, without paths of this machine, without symbols. -mod=readonly: go.sum decides. */
function flagsOf(program: GoProgram): readonly string[] {
  const stamps = Object.entries(program.stamps).map(([variable, value]) => `-X ${variable}=${value}`);
  return ["build", "-mod=readonly", "-trimpath", "-ldflags", ["-s", "-w", ...stamps].join(" ")];
}

function pathOf(program: GoProgram): string {
  const hash = createHash("sha256")
    .update(process.arch)
    .update(flagsOf(program).join("\0"))
    .update(program.package);
  const sources = [
    "go.mod",
    "go.sum",
    ...(program.package.startsWith("./") ? [`${program.package}/main.go`] : []),
  ];
  for (const file of sources) hash.update(readFileSync(join(program.module, file)));
  return join(cacheFolder(), `go-${program.name}-${hash.digest("hex").slice(0, 16)}`, program.name);
}
