/** Child processes of the lab: run to the end, or started inside a network namespace. */
import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { withinNetns } from "../netlink/netns.ts";

export type Finished = {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
};

export type RunOptions = {
  readonly netns?: string; // A path. The child is born inside: fork copies the calling thread's namespace.
  readonly input?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly timeoutMs?: number;
};

/** Never rejects: a program that cannot be started ends with 127. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const began = performance.now();
  return await new Promise<Finished>((resolve) => {
    const child = start(
      command,
      {
        stdio: "pipe",
        ...(options.env === undefined ? {} : { env: options.env }),
        timeout: options.timeoutMs ?? 60_000,
        killSignal: "SIGKILL",
      },
      options.netns,
    );
    let stdout = "";
    let stderr = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.stdin?.on("error", () => {}); // It may end before it has read all.
    child.stdin?.end(options.input ?? "");
    const end = (exitCode: number): void =>
      resolve({ exitCode, stdout, stderr, durationMs: performance.now() - began });
    child.once("error", (cause) => {
      stderr += cause.message;
      end(127);
    });
    child.once("close", (code) => end(code ?? 137));
  });
}

/** Like run, but anything but 0 is an error that names the command and what it said. */
export async function must(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const done = await run(command, options);
  if (done.exitCode === 0) return done.stdout;
  throw new Error(
    `${command.join(" ")} ended with ${done.exitCode}: ${done.stderr.trim() || done.stdout.trim()}`,
  );
}

export function start(command: readonly string[], options: SpawnOptions, netns?: string): ChildProcess {
  const [program = "", ...args] = command;
  if (netns === undefined) return spawn(program, args, options);
  return inNetns(netns, () => spawn(program, args, options));
}

/** Runs `work`, which must be synchronous, inside the namespace at the path. */
export function inNetns<T>(path: string, work: () => T): T {
  const fd = openSync(path, "r");
  try {
    const done = withinNetns(fd, work);
    if (!done.ok) throw new Error(`${path} could not be entered: ${done.error}`);
    return done.value;
  } finally {
    closeSync(fd);
  }
}
