/** cnitool, libcni's own command, as a runtime on one lab node: its cache is the node's, in a mount namespace of its own. */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type LabNode, SHIM } from "../../src/lab/node.ts";
import { type Finished, run } from "../../src/lab/processes.ts";
import type { Pod } from "../../src/lab/runtime.ts";

export type CnitoolVerb = "add" | "check" | "del" | "gc" | "status";

export type PortMapping = {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp";
};

export type Cnitool = {
  /** Put before a command, it runs where cnitool runs: the node's network and cache. */
  readonly enter: readonly string[];
  /** cnitool's own part of its environment. */
  readonly environment: (pod: Pod) => Readonly<Record<string, string>>;
  /** Writes the list as the only configuration of its network's name. */
  readonly configure: (list: { readonly name: string } & Readonly<Record<string, unknown>>) => void;
  /** `gc` and `status` take no pod of their own; cnitool wants one on its command line all the same. */
  readonly call: (
    verb: CnitoolVerb,
    network: string,
    pod: Pod,
    mappings?: readonly PortMapping[],
  ) => Promise<Finished>;
  /** What libcni prints, where all is well: ended with 0 and nothing on stderr. Else the plugin's own words are in the failure. */
  readonly must: (...call: Parameters<Cnitool["call"]>) => Promise<string>;
  /** Names of the results that libcni keeps. */
  readonly cached: () => readonly string[];
  readonly close: () => void;
};

/** A sandbox for one pod on the node. */
export async function makePod(node: LabNode, name: string): Promise<Pod> {
  const [pod] = await node.runtime.makeSandboxes([name]);
  if (pod === undefined) throw new Error("no sandbox was made");
  return pod;
}

/** libcni's cache is always /var/lib/cni, so that must be another folder for each node; the machine's own stays as it is. */
export async function createCnitool(judges: string, node: LabNode): Promise<Cnitool> {
  const folder = dirname(dirname(node.pluginEnv["BERTH_SOCKET"] ?? "/"));
  const configs = join(folder, "net.d");
  mkdirSync(configs, { recursive: true });
  const cache = join(folder, "cni");
  const script = [
    "mount -t tmpfs lib /var/lib",
    "mkdir /var/lib/cni",
    'mount --bind "$0" /var/lib/cni',
    "echo ready",
    "exec sleep infinity",
  ].join(" && ");
  // Slave: namespaces that are mounted under /run/netns later come in.
  const holder = spawn("unshare", ["--mount", "--propagation", "slave", "sh", "-c", script, cache], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise<void>((resolve, reject) => {
    holder.stdout.once("data", () => resolve());
    holder.once("close", () => reject(new Error("the mount namespace of cnitool could not be made")));
  });
  const entered = ["nsenter", `--mount=/proc/${holder.pid}/ns/mnt`, `--net=${node.netns}`, "--"];
  const environment: Cnitool["environment"] = (pod) => ({
    PATH: process.env["PATH"] ?? "",
    ...node.pluginEnv,
    NETCONFPATH: configs,
    CNI_PATH: `${dirname(SHIM)}:${judges}`,
    CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod.name}`,
  });
  const call: Cnitool["call"] = async (verb, network, pod, mappings = []) =>
    await run([...entered, join(judges, "cnitool"), verb, network, pod.netns], {
      env: {
        ...environment(pod),
        ...(mappings.length === 0 ? {} : { CAP_ARGS: JSON.stringify({ portMappings: mappings }) }),
      },
    });
  return {
    enter: entered,
    environment,
    configure: (list) => writeFileSync(join(configs, `${list.name}.conflist`), JSON.stringify(list)),
    call,
    must: async (verb, network, pod, mappings) => {
      const { exitCode, stdout, stderr } = await call(verb, network, pod, mappings);
      if (exitCode === 0 && stderr === "") return stdout;
      throw new Error(`${verb} of ${network} ended with ${exitCode}: ${stderr || stdout}`);
    },
    cached: () => readdirSync(join(cache, "results")),
    close: () => holder.kill("SIGKILL"),
  };
}
