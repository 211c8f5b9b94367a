/**
 * The incumbent on a lab node: its daemon with the rights and settings of its own DaemonSet, its plugin as a runtime starts it. Its paths
 * are fixed (/run/aws-node), so each node has a mount namespace of its own in which they are that node's folder.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { type LabNode, waitUntil } from "../../src/lab/node.ts";
import { type Finished, must, run } from "../../src/lab/processes.ts";
import type { CniRequest, Pod } from "../../src/lab/runtime.ts";
import type { PeerPrograms } from "./peer-programs.ts";

export type AwsNodeOptions = {
  readonly programs: Pick<PeerPrograms, "daemon" | "plugin">;
  readonly node: LabNode; // Its own daemon must not run.
  readonly folder: string; // Everything that the incumbent writes.
  readonly ec2Url: string;
  readonly imdsUrl: string;
  readonly kubeconfig: string; // One must exist, or its daemon crashes.
  readonly settings?: Readonly<Record<string, string>>;
};

export type AwsNodeAnswer = {
  readonly ok: boolean;
  readonly ip: string | null;
  readonly finished: Finished;
};

export type AwsNode = {
  /** Put before a command, it runs where the plugin runs: the node's network, the incumbent's paths. */
  readonly enter: readonly string[];
  readonly mountNamespace: string; // Path.
  readonly socketPath: string; // The daemon's, as seen from outside.
  /** Spawns the daemon, no more. */
  readonly spawnDaemon: (settings?: Readonly<Record<string, string>>) => void;
  /** Resolves when somebody answers on the plugin's socket. */
  readonly startDaemon: (settings?: Readonly<Record<string, string>>) => Promise<void>;
  /** Resolves when the process has ended. */
  readonly stopDaemon: (signal: "SIGTERM" | "SIGKILL") => Promise<void>;
  readonly daemonPid: () => number | null;
  /** The plugin's environment and stdin. A DEL wants the ADD's result, as libcni gives it. */
  readonly request: (verb: "ADD" | "DEL", pod: Pod) => CniRequest;
  /** The plugin alone; the result of an ADD is kept for the DEL. */
  readonly call: (verb: "ADD" | "DEL", pod: Pod) => Promise<AwsNodeAnswer>;
  /** Through libcni, which keeps the result for the DEL itself. `judges`: the folder of cnitool. */
  readonly cnitool: (judges: string, verb: "add" | "del", pod: Pod) => Promise<AwsNodeAnswer>;
  /** The command of `cnitool`, for those who run it by other means. */
  readonly cnitoolJob: (judges: string, verb: "add" | "del", pod: Pod) => CnitoolJob;
  /** What a DEL by other means than `call` shall find. */
  readonly remember: (pod: Pod, result: string) => void;
  /** What its introspection tells of its pool. Throws when nobody answers. */
  readonly pool: () => Promise<AwsNodePool>;
  readonly log: () => string;
  readonly close: () => Promise<void>;
};

export type CnitoolJob = {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly input: string;
};

export type AwsNodePool = {
  readonly enis: number;
  readonly total: number;
  readonly assigned: number;
};

/** As in its published conflist, for IPv4; the chained plugins are left to those who want them. */
const AWS_CNI_NETWORK = "aws-cni";
const PLUGIN_CONFIG = {
  type: "aws-cni",
  vethPrefix: "eni",
  mtu: "9001",
  podSGEnforcingMode: "strict",
  pluginLogFile: "/run/aws-node/plugin.log",
  pluginLogLevel: "DEBUG",
} as const;

/** Its default is to wait 30 s for the API server, so that much and more. */
const START_MS = 120_000;
/** On a busy machine its first metadata call may run into its deadline; it ends then, and kubelet starts it again. */
const STARTS_MAX = 3;
/** The grace period of its DaemonSet. It hears SIGTERM and stays, so in the end it is killed, as kubelet would. */
const STOP_MS = 10_000;

export async function createAwsNode(options: AwsNodeOptions): Promise<AwsNode> {
  const { node, folder, programs } = options;
  mkdirSync(join(folder, "run"), { recursive: true });
  mkdirSync(join(folder, "cni"), { recursive: true });
  const configs = join(folder, "net.d");
  mkdirSync(configs, { recursive: true });
  const list = { cniVersion: "0.4.0", name: AWS_CNI_NETWORK, disableCheck: true, plugins: [PLUGIN_CONFIG] };
  writeFileSync(join(configs, "10-aws.conflist"), JSON.stringify(list));
  const logFile = join(folder, "ipamd.log");
  const socketPath = join(folder, "run/ipamd.sock");
  const introspectionPath = join(folder, "run/introspection.sock");
  await prepareHost(node.netns);
  const holder = await holdMounts(folder);
  const mountNamespace = `/proc/${holder.pid}/ns/mnt`;
  const enter = ["nsenter", `--mount=${mountNamespace}`, `--net=${node.netns}`, "--"];
  const results = new Map<string, unknown>(); // By container.
  let child: ChildProcess | null = null;
  let ended: Promise<void> = Promise.resolve();

  const spawnDaemon: AwsNode["spawnDaemon"] = (settings = {}) => {
    // After SIGKILL the last daemon's sockets are still there. The plugin's would only hide when the new one is there, but on the other's
    // path it does not serve again, since it takes it for a socket in use.
    for (const each of [socketPath, introspectionPath]) rmSync(each, { force: true });
    const log = openSync(logFile, "a");
    const [program = "", ...rest] = enter;
    const daemon = spawn(
      program,
      [...rest, "setpriv", "--pdeathsig", "KILL", `--bounding-set=${CAPABILITIES}`, programs.daemon],
      { stdio: ["ignore", log, log], env: { ...environment(options), ...options.settings, ...settings } },
    );
    closeSync(log);
    child = daemon;
    ended = new Promise((resolve) => daemon.once("close", () => resolve()));
    daemon.once("close", () => {
      if (child === daemon) child = null;
    });
  };

  const cniRequest: AwsNode["request"] = (verb, pod) => ({
    env: {
      PATH: process.env["PATH"] ?? "",
      CNI_COMMAND: verb,
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: "eth0",
      CNI_ARGS: `K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod.name};K8S_POD_INFRA_CONTAINER_ID=${pod.containerId};IgnoreUnknown=1`,
      CNI_PATH: "/opt/cni/bin",
    },
    input: JSON.stringify({
      cniVersion: "0.4.0",
      name: AWS_CNI_NETWORK,
      ...PLUGIN_CONFIG,
      ...(verb === "DEL" && results.has(pod.containerId) ? { prevResult: results.get(pod.containerId) } : {}),
    }),
  });

  const cnitoolJob: AwsNode["cnitoolJob"] = (judges, verb, pod) => ({
    program: join(judges, "cnitool"),
    args: [verb, AWS_CNI_NETWORK, pod.netns],
    env: {
      PATH: process.env["PATH"] ?? "",
      NETCONFPATH: configs,
      CNI_PATH: `${dirname(programs.plugin)}:${judges}`,
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod.name}`,
    },
    input: "",
  });

  return {
    enter,
    mountNamespace,
    socketPath,
    spawnDaemon,
    startDaemon: async (settings = {}) => {
      let starts = 0;
      await waitUntil(`the AWS VPC CNI of ${node.name} serves`, START_MS, async () => {
        if (child === null && starts === STARTS_MAX)
          throw new Error(`the AWS VPC CNI of ${node.name} ended: ${tailOf(logFile)}`);
        if (child === null) {
          starts += 1;
          spawnDaemon(settings);
        }
        return await accepts(socketPath);
      });
    },
    stopDaemon: async (signal) => {
      const stopping = child;
      if (stopping === null) return;
      stopping.kill(signal);
      const inVain = setTimeout(() => stopping.kill("SIGKILL"), STOP_MS);
      await ended;
      clearTimeout(inVain);
    },
    daemonPid: () => child?.pid ?? null,
    request: cniRequest,
    remember: (pod, result) => results.set(pod.containerId, JSON.parse(result)),
    call: async (verb, pod) => {
      const { env, input } = cniRequest(verb, pod);
      const finished = await run([...enter, programs.plugin], { env, input });
      const ok = finished.exitCode === 0;
      if (verb === "DEL") {
        if (ok) results.delete(pod.containerId);
        return { ok, ip: null, finished };
      }
      if (ok) results.set(pod.containerId, JSON.parse(finished.stdout));
      return { ok, ip: ok ? addressIn(finished.stdout) : null, finished };
    },
    cnitoolJob,
    cnitool: async (judges, verb, pod) => {
      const { program, args, env, input } = cnitoolJob(judges, verb, pod);
      const finished = await run([...enter, program, ...args], { env, input });
      const ok = finished.exitCode === 0;
      return { ok, ip: ok && verb === "add" ? addressIn(finished.stdout) : null, finished };
    },
    pool: async () => poolOf(await introspect(introspectionPath)),
    log: () => (existsSync(logFile) ? readFileSync(logFile, "utf8") : ""),
    close: async () => {
      child?.kill("SIGKILL");
      await ended;
      holder.kill("SIGKILL");
    },
  };
}

/** What its DaemonSet adds; file rights of other users it does not need here. */
const CAPABILITIES = "-all,+net_admin,+net_raw";

function environment(options: AwsNodeOptions): Record<string, string> {
  return {
    PATH: process.env["PATH"] ?? "",
    KUBECONFIG: options.kubeconfig,
    MY_NODE_NAME: options.node.name,
    MY_POD_NAME: "aws-node",
    CLUSTER_NAME: "lab",
    AWS_ENDPOINT_URL_EC2: options.ec2Url,
    AWS_EC2_METADATA_SERVICE_ENDPOINT: options.imdsUrl,
    AWS_VPC_K8S_CNI_LOG_FILE: "stdout",
    INTROSPECTION_BIND_ADDRESS: "unix:/run/aws-node/introspection.sock",
    // From here on as its manifest says; without the network policy agent, which is another program.
    ADDITIONAL_ENI_TAGS: "{}",
    AWS_VPC_CNI_NODE_PORT_SUPPORT: "true",
    AWS_VPC_ENI_MTU: "9001",
    AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: "false",
    AWS_VPC_K8S_CNI_EXTERNALSNAT: "false",
    AWS_VPC_K8S_CNI_LOGLEVEL: "DEBUG",
    AWS_VPC_K8S_CNI_RANDOMIZESNAT: "prng",
    AWS_VPC_K8S_CNI_VETHPREFIX: "eni",
    AWS_VPC_K8S_PLUGIN_LOG_FILE: "/run/aws-node/plugin.log",
    AWS_VPC_K8S_PLUGIN_LOG_LEVEL: "DEBUG",
    DISABLE_INTROSPECTION: "false",
    DISABLE_METRICS: "false",
    DISABLE_NETWORK_RESOURCE_PROVISIONING: "false",
    ENABLE_IMDS_ONLY_MODE: "false",
    ENABLE_IPv4: "true",
    ENABLE_IPv6: "false",
    ENABLE_MULTI_NIC: "false",
    ENABLE_POD_ENI: "false",
    ENABLE_PREFIX_DELEGATION: "false",
    ENABLE_SUBNET_DISCOVERY: "true",
    VPC_CNI_VERSION: "v1.23.2",
    WARM_ENI_TARGET: "1",
    WARM_PREFIX_TARGET: "1",
  };
}

/** What its init container does to the node, and kubelet before it. */
async function prepareHost(netns: string): Promise<void> {
  const route = await must(["ip", "-json", "route", "show", "default"], { netns });
  const [first] = JSON.parse(route) as { dev?: string }[]; // iproute2 made it.
  const link = first?.dev ?? "eth0";
  const written = `echo 2 > /proc/sys/net/ipv4/conf/${link}/rp_filter && echo 1 > /proc/sys/net/ipv4/ip_forward`;
  await must(["sh", "-c", written], { netns });
}

/** A process that keeps the mount namespace: slave, so that namespaces mounted under /run/netns later come in. */
async function holdMounts(folder: string): Promise<ChildProcess> {
  const script = [
    "mkdir -p /run/aws-node",
    'mount --bind "$0/run" /run/aws-node',
    "mount -t tmpfs lib /var/lib",
    "mkdir /var/lib/cni",
    'mount --bind "$0/cni" /var/lib/cni',
    "echo ready",
    "exec sleep infinity",
  ].join(" && ");
  const holder = spawn(
    "setpriv",
    ["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "slave", "sh", "-c", script, folder],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  await new Promise<void>((resolve, reject) => {
    holder.stdout.once("data", () => resolve());
    holder.once("close", () => reject(new Error("the mount namespace of the AWS VPC CNI could not be made")));
  });
  return holder;
}

/** The first address of a CNI result. */
function addressIn(result: string): string | null {
  const { ips = [] } = JSON.parse(result) as { ips?: { address?: string }[] }; // Each field is looked at.
  return ips[0]?.address?.split("/")[0] ?? null;
}

async function accepts(path: string): Promise<boolean> {
  return await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function introspect(socketPath: string): Promise<unknown> {
  return await new Promise<unknown>((resolve, reject) => {
    const asked = request({ socketPath, path: "/v1/enis", timeout: 5_000 }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.once("end", () => {
        try {
          resolve(JSON.parse(text));
        } catch {
          reject(new Error(`the AWS VPC CNI's introspection said ${text.slice(0, 200)}`));
        }
      });
    });
    asked.once("error", reject).once("timeout", () => asked.destroy(new Error("no answer")));
    asked.end();
  });
}

/** By network card; what is managed without its own settings (cards above 0) is not looked at. */
function poolOf(told: unknown): AwsNodePool {
  const { "0": first } = told as { "0"?: { TotalIPs: number; AssignedIPs: number; ENIs: object } }; // Its own JSON.
  if (first === undefined)
    throw new Error(`the AWS VPC CNI knows of no network card: ${JSON.stringify(told)}`);
  return { enis: Object.keys(first.ENIs).length, total: first.TotalIPs, assigned: first.AssignedIPs };
}

function tailOf(file: string): string {
  return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").slice(-8).join("\n") : "(no log)";
}
