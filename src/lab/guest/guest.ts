/**
 * Runs a command inside the guest kernel, as root of a machine of its own: the same files, seen through hostfs and read-only, fresh
 * /run, /tmp, /dev, /proc and /sys, and no network. What it writes to stdout and stderr and its exit code come out. A guest is a few
 * processes of the host in a process namespace of their own: whoever kills the launcher kills them, and with them goes all that they wrote.
 */
import { spawn } from "node:child_process";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Result } from "../../lib/result.ts";
import { err, ok } from "../../lib/result.ts";
import { buildGuestKernel } from "./kernel.ts";

const HERE = dirname(fileURLToPath(import.meta.url));

export type GuestOptions = {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly memoryMb?: number;
  /** Where its stdout goes; default is ours. */
  readonly stdout?: "inherit" | ((text: string) => void);
  readonly timeoutMs?: number;
};

/** True inside a guest. */
export function isGuest(): boolean {
  return process.env["BERTH_GUEST"] === "1";
}

/** The command's exit code. The error is text for people: no kernel, no right, or a guest that died with what its console said. */
export async function runInGuest(options: GuestOptions): Promise<Result<number, string>> {
  if (process.getuid?.() !== 0) return err("a guest needs root: it is given mounts of its own");
  const kernel = buildGuestKernel();
  if (!kernel.ok) return kernel;
  const { command, cwd, memoryMb = 1_536, stdout = "inherit", timeoutMs = 15 * 60_000 } = options;
  // One core for all its processes: a guest has one CPU, and its processes hand over to each other all the time (half the time so).
  const core = `${cpus().length - 1}`;
  const child = spawn(
    "setpriv",
    [
      ...[
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
      ],
      ...["bash", join(HERE, "launch.sh"), kernel.value, core, `${memoryMb}`, join(HERE, "init.sh"), cwd],
      ...command,
    ],
    {
      stdio: ["ignore", stdout === "inherit" ? "inherit" : "pipe", "inherit"],
      env: { PATH: process.env["PATH"] ?? "", ...testEnvironment() },
    },
  );
  if (typeof stdout !== "string") child.stdout?.setEncoding("utf8").on("data", stdout);
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid !== parent) child.kill("SIGKILL"); // npm may be killed without us.
  }, 200);
  const alarm = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
  const code = await new Promise<number | string>((resolve) => {
    child.once("error", (cause) => resolve(cause.message));
    child.once("close", (status, signal) => resolve(signal === null ? (status ?? 1) : `ended by ${signal}`));
  });
  clearInterval(watch);
  clearTimeout(alarm);
  if (typeof code === "string") return err(`the guest could not be run to its end: ${code}`);
  return code === GUEST_DIED ? err("the guest died; what its console said is above") : ok(code);
}

/** Of launch.sh: no exit code came out. */
const GUEST_DIED = 99;

function testEnvironment(): Record<string, string> {
  const names = ["CI", "BERTH_FUZZ_CASES", "NO_COLOR"];
  return Object.fromEntries(
    names.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  );
}
