/**
 * One node: a network namespace of the fabric, the daemon as a process with the rights it has in its DaemonSet, and a container
 * runtime. Nothing is simulated here but the cloud.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { StateReport } from "../daemon/state-report.ts";
import { createRuntime, type Runtime } from "./runtime.ts";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const BUNDLE = join(ROOT, "dist/berth.mjs");
export const SHIM = join(ROOT, "dist/berth-cni");

/** Kubelet's own patience with a pod that it stops. */
const STOP_MS = 30_000;

/** What `deploy/` starts the daemon with; measured in docs/performance.md. */
export const DAEMON_FLAGS = [
  "--max-semi-space-size=1",
  "--max-old-space-size=48",
  "--optimize-for-size",
  "--v8-pool-size=1",
];
/** CAP_SYS_ADMIN to enter pods' namespaces, CAP_NET_ADMIN for links, routes and nftables. Nothing else. */
const CAPABILITIES = "-all,+net_admin,+sys_admin";

export type NodeOptions = {
  readonly name: string;
  readonly instanceId: string;
  readonly folder: string; // Everything that the node writes.
  readonly ec2Url: string;
  readonly imdsUrl: string;
  readonly settings: Readonly<Record<string, string>>;
  readonly bundle?: string; // Another build of the daemon than the one for production.
};

export type LabNode = {
  readonly name: string;
  readonly instanceId: string;
  readonly netns: string; // Path of the node's own namespace.
  readonly runtime: Runtime;
  readonly pluginEnv: Readonly<Record<string, string>>;
  /** Resolves when the daemon answers on its socket. */
  readonly startDaemon: (settings?: Readonly<Record<string, string>>) => Promise<void>;
  /** Resolves when the process has ended. */
  readonly stopDaemon: (signal: "SIGTERM" | "SIGKILL") => Promise<void>;
  readonly daemonPid: () => number | null;
  readonly checkpointPath: string;
  readonly state: () => Promise<StateReport>;
  readonly log: () => string;
};

export function createNode(options: NodeOptions): LabNode {
  const { name, instanceId, folder } = options;
  const netns = `/run/netns/${name}`;
  const runFolder = join(folder, "berth");
  for (const each of [folder, runFolder, join(folder, "journal"), join(folder, "cni")])
    mkdirSync(each, { recursive: true, mode: 0o700 });
  const pluginEnv = { BERTH_SOCKET: join(runFolder, "berth.sock"), BERTH_JOURNAL: join(folder, "journal") };
  const runtime = createRuntime({
    name,
    hostNetns: netns,
    plugin: SHIM,
    cacheFolder: join(folder, "cni"),
    env: pluginEnv,
  });
  const stateSocket = join(runFolder, "state.sock");
  const logFile = join(folder, "daemon.log");
  let child: ChildProcess | null = null;
  let ended: Promise<void> = Promise.resolve();

  const startDaemon: LabNode["startDaemon"] = async (settings = {}) => {
    const env = { ...daemonEnvironment(options, runFolder), ...options.settings, ...settings };
    const log = openSync(logFile, "a");
    const daemon = spawn("nsenter", [`--net=${netns}`, ...daemonCommand(options.bundle ?? BUNDLE)], {
      stdio: ["ignore", log, log],
      env,
    });
    closeSync(log);
    child = daemon;
    ended = new Promise((resolve) => daemon.once("close", () => resolve()));
    daemon.once("close", () => {
      if (child === daemon) child = null;
    });
    await waitUntil(`the daemon of ${name} is ready`, 30_000, async () => {
      if (child !== daemon) throw new Error(`the daemon of ${name} ended: ${tail(logFile)}`);
      return (await readState(stateSocket))?.ready === true;
    });
  };

  return {
    name,
    instanceId,
    netns,
    runtime,
    pluginEnv,
    startDaemon,
    stopDaemon: async (signal) => {
      const stopping = child;
      if (stopping === null) return;
      let inVain = false;
      const patience = setTimeout(() => {
        inVain = true;
        stopping.kill("SIGKILL");
      }, STOP_MS);
      stopping.kill(signal);
      await ended;
      clearTimeout(patience);
      if (inVain)
        throw new Error(
          `the daemon of ${name} had not ended ${STOP_MS / 1_000} s after ${signal}: ${tail(logFile)}`,
        );
    },
    daemonPid: () => child?.pid ?? null,
    checkpointPath: options.settings["BERTH_CHECKPOINT_PATH"] ?? join(runFolder, "checkpoint.json"),
    state: async () => {
      const state = await readState(stateSocket);
      if (state === null) throw new Error(`the daemon of ${name} does not answer: ${tail(logFile)}`);
      return state;
    },
    log: () => (existsSync(logFile) ? readFileSync(logFile, "utf8") : ""),
  };
}

/**
 * A mount namespace like its container's: what the runtime mounts under /run/netns comes in, nothing goes out; /proc/sys is
 * read-only but for net/ipv4/conf. The `exec`s make the daemon this very process, so that signals reach it.
 */
function daemonCommand(bundle: string): string[] {
  const script = [
    "mount --bind /proc/sys /proc/sys",
    "mount -o remount,bind,ro /proc/sys",
    "mount --bind /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/conf",
    "mount -o remount,bind,rw /proc/sys/net/ipv4/conf",
    `exec setpriv --bounding-set=${CAPABILITIES} "$@"`,
  ].join(" && ");
  return [
    "unshare",
    "--mount",
    "--propagation",
    "slave",
    "sh",
    "-c",
    script,
    "sh",
    process.execPath,
    ...DAEMON_FLAGS,
    bundle,
  ];
}

function daemonEnvironment(options: NodeOptions, runFolder: string): Record<string, string> {
  const { folder } = options;
  return {
    PATH: process.env["PATH"] ?? "",
    MALLOC_ARENA_MAX: "1",
    UV_THREADPOOL_SIZE: "8",
    MY_NODE_NAME: options.name,
    CLUSTER_NAME: "lab",
    AWS_ENDPOINT_URL_EC2: options.ec2Url,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: options.imdsUrl,
    AWS_VPC_K8S_CNI_LOG_FILE: "stdout",
    AWS_VPC_K8S_CNI_LOGLEVEL: "INFO",
    DISABLE_METRICS: "false",
    BERTH_RUN_DIRECTORY: runFolder,
    BERTH_JOURNAL_DIRECTORY: join(folder, "journal"),
    BERTH_CNI_CACHE_DIRECTORY: join(folder, "cni"),
    BERTH_INSTALL_ON_HOST: "false",
  };
}

/** Null while nobody answers. */
async function readState(socketPath: string): Promise<StateReport | null> {
  return await new Promise<StateReport | null>((resolve) => {
    const asked = request({ socketPath, path: "/state", timeout: 2_000 }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => (body += text));
      // The daemon is ours and of the same version.
      response.on("end", () =>
        resolve(response.statusCode === 200 ? (JSON.parse(body) as StateReport) : null),
      );
    });
    asked.on("error", () => resolve(null));
    asked.on("timeout", () => asked.destroy());
    asked.end();
  });
}

/** Looks every 20 ms; an error of `holds` ends the wait at once. */
export async function waitUntil(
  what: string,
  timeoutMs: number,
  holds: () => Promise<boolean> | boolean,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs / 1_000} s in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function tail(file: string): string {
  return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").slice(-5).join("\n") : "(no log)";
}
