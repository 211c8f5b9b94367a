/** The compiled CNI plugin as a runtime runs it, for tests: built once into a folder of its own, run with an environment and stdin. */
import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const SOURCE = fileURLToPath(new URL("../../src/cni/shim/berth-cni.c", import.meta.url));

/** Compiles the shim with the build's own flags, warnings as errors. Throws with the compiler's words. */
export function compileShim(folder: string): string {
  const program = join(folder, "berth-cni");
  const flags = ["-static", "-Os", "-std=c11", "-Wall", "-Wextra", "-Werror", "-s", "-o", program, SOURCE];
  const errors: string[] = [];
  for (const compiler of ["musl-gcc", "gcc", "cc"]) {
    const done = spawnSync(compiler, flags, { encoding: "utf8" });
    if (done.status === 0) return program;
    errors.push(`${compiler}: ${done.error?.message ?? done.stderr}`);
  }
  throw new Error(errors.join("\n"));
}

export type ShimRun = {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
};

export type ShimStart = {
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string | Uint8Array | null; // Null: stdin stays open and silent.
};

/** Starts the plugin; `kill` is what libcni does when its caller's time is up. */
export function startShim(
  program: string,
  { env, stdin }: ShimStart,
): { readonly finished: Promise<ShimRun>; readonly kill: () => void } {
  const began = performance.now();
  const child = spawn(program, [], { env, stdio: ["pipe", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => {}); // It may have answered before it read all.
  if (stdin !== null) child.stdin.end(stdin);
  const finished = new Promise<ShimRun>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (exitCode, signal) => {
      resolve({ exitCode, signal, stdout, stderr, ms: performance.now() - began });
    });
  });
  return { finished, kill: () => child.kill("SIGKILL") };
}

/** The one JSON object on stdout. Throws where there is anything else. */
export function objectOf(run: ShimRun): Record<string, unknown> {
  const value: unknown = JSON.parse(run.stdout);
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Error(`no object: ${run.stdout}`);
  return value as Record<string, unknown>; // It was just made sure.
}
