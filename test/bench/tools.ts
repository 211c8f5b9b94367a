/** Small C programs of the bench, compiled at each run, and the judges' programs, found where they were built. */
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findJudges } from "../judges/build.ts";

const NATIVE = join(dirname(fileURLToPath(import.meta.url)), "native");

export type Tools = {
  readonly launcher: string;
  readonly pingpong: string;
  readonly empty: string;
  readonly peers: string | null; // The folder with ptp and host-local; null: not built, as there is no Go.
};

/** Throws with the compiler's words: without these programs nothing can be measured. */
export function prepareTools(folder: string): Tools {
  mkdirSync(folder, { recursive: true });
  const peers = findJudges();
  return {
    launcher: compile("launcher", folder),
    pingpong: compile("pingpong", folder),
    empty: compile("empty", folder),
    peers: peers.ok ? peers.value : null,
  };
}

/** As the shim is compiled, so that the floor is the floor of a program like it. */
function compile(name: string, folder: string): string {
  const program = join(folder, name);
  const flags = ["-static", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-s", "-o", program];
  const said: string[] = [];
  for (const compiler of ["musl-gcc", "gcc", "cc"]) {
    const done = spawnSync(compiler, [...flags, join(NATIVE, `${name}.c`)], { encoding: "utf8" });
    if (done.status === 0) return program;
    said.push(`${compiler}: ${done.error?.message ?? done.stderr}`);
  }
  throw new Error(said.join("\n"));
}
