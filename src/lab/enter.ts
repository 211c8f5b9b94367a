/**
 * A place of its own for everything that a lab does: network, mount and process namespaces that end with the lab. The machine is
 * left as it was found even after SIGKILL: each process asks the kernel to be killed when its parent is, and with the last of
 * them go namespaces, links, mounts and files.
 */
import { spawn } from "node:child_process";

const INSIDE = "BERTH_LAB_INSIDE";

/** True in the process that was started inside. */
export function isInside(): boolean {
  return process.env[INSIDE] === "1" && process.pid === 1;
}

/**
 * Runs `node ARGS` inside and returns its exit code. As root, or where the kernel lets users have namespaces of their own; else the
 * error of unshare(1) is on stderr. /run is a private tmpfs there.
 */
export async function runInside(args: readonly string[]): Promise<number> {
  const asRoot = process.getuid?.() === 0;
  const script = [
    "mount -t tmpfs -o mode=755 run /run",
    "mkdir -p /run/netns /run/lock",
    "ip link set lo up",
    'exec "$@"',
  ].join(" && ");
  const command = [
    "setpriv --pdeathsig KILL",
    "unshare --net --mount --pid --fork --kill-child=KILL --mount-proc",
    ...(asRoot ? [] : ["--user --map-root-user"]),
  ];
  const [program = "", ...rest] = command.join(" ").split(" ");
  const child = spawn(program, [...rest, "sh", "-c", script, "sh", process.execPath, ...args], {
    stdio: "inherit",
    env: { ...process.env, [INSIDE]: "1" },
  });
  // npm may be killed without us: then our parent changes, and we go too.
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid !== parent) child.kill("SIGKILL");
  }, 200);
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, forward);
  return await new Promise<number>((resolve) => {
    child.once("error", (cause) => {
      process.stderr.write(`berth: ${program} could not be started: ${cause.message}\n`);
      resolve(1);
    });
    child.once("close", (code, signal) => resolve(signal === null ? (code ?? 1) : 130));
  }).finally(() => clearInterval(watch));
}
