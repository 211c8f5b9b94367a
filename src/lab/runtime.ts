/**
 * A container runtime as far as CNI sees one: it makes network namespaces, runs the plugin as libcni does (all six variables, the
 * configuration on stdin), and keeps libcni's cache of results.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must, run, type Finished } from "./processes.ts";

export type RuntimeOptions = {
  readonly name: string; // The node's; prefix of its sandboxes' namespaces.
  readonly hostNetns: string; // Path: plugins run in the host's namespace.
  readonly plugin: string; // Path of the shim.
  readonly cacheFolder: string;
  readonly env: Readonly<Record<string, string>>; // Beside CNI's own, for the plugin.
};

export type Pod = { readonly name: string; readonly containerId: string; readonly netns: string };

export type CniAnswer = {
  readonly finished: Finished;
  readonly ok: boolean;
  readonly ip: string | null;
  readonly error: { readonly code: number; readonly msg: string } | null;
};

const NETWORK = "berth";
const CONFIG = { cniVersion: "1.0.0", name: NETWORK, type: "berth-cni" };

/** One call as the plugin gets it: environment and stdin. For those who start it by other means than `call`. */
export type CniRequest = { readonly env: Readonly<Record<string, string>>; readonly input: string };

type Verb = "ADD" | "DEL" | "CHECK";

export type Runtime = {
  /** A namespace for each name, not yet on the network. Many at once cost one process. */
  readonly makeSandboxes: (names: readonly string[]) => Promise<readonly Pod[]>;
  readonly removeSandboxes: (pods: readonly Pod[]) => Promise<void>;
  readonly request: (verb: Verb, pod: Pod, extra?: Readonly<Record<string, unknown>>) => CniRequest;
  readonly call: (verb: Verb, pod: Pod, extra?: Readonly<Record<string, unknown>>) => Promise<CniAnswer>;
  /** Removes every sandbox that is still there, as a power cut would. */
  readonly close: () => Promise<void>;
};

export function createRuntime(options: RuntimeOptions): Runtime {
  const results = join(options.cacheFolder, "results");
  mkdirSync(results, { recursive: true });
  let made = 0;
  const living = new Set<string>(); // Paths of namespaces.

  const cacheFile = (pod: Pod): string => join(results, `${NETWORK}-${pod.containerId}-eth0`);
  const request: Runtime["request"] = (verb, pod, extra = {}) => ({
    env: {
      PATH: process.env["PATH"] ?? "",
      ...options.env,
      CNI_COMMAND: verb,
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: "eth0",
      CNI_ARGS: `K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod.name};K8S_POD_INFRA_CONTAINER_ID=${pod.containerId};IgnoreUnknown=1`,
      CNI_PATH: "/opt/cni/bin",
    },
    input: JSON.stringify({ ...CONFIG, ...extra }),
  });

  const runtime: Runtime = {
    makeSandboxes: async (names) => {
      const pods = names.map((name) => {
        made += 1;
        const containerId = `${options.name}${made.toString(16).padStart(8, "0")}`;
        return { name, containerId, netns: `/run/netns/${options.name}-${containerId}` };
      });
      await must(["ip", "-batch", "-"], {
        input: pods.map((pod) => `netns add ${baseOf(pod.netns)}\n`).join(""),
      });
      for (const pod of pods) living.add(pod.netns);
      return pods;
    },
    removeSandboxes: async (pods) => {
      for (const pod of pods) living.delete(pod.netns);
      if (pods.length > 0)
        await must(["ip", "-batch", "-"], {
          input: pods.map((pod) => `netns del ${baseOf(pod.netns)}\n`).join(""),
        });
    },
    request,
    call: async (verb, pod, extra = {}) => {
      const { env, input } = request(verb, pod, extra);
      const finished = await run([options.plugin], { netns: options.hostNetns, input, env });
      const answer = readAnswer(finished);
      if (verb === "ADD" && answer.ok)
        writeFileSync(cacheFile(pod), JSON.stringify(cacheEntry(pod, finished.stdout)), { mode: 0o600 });
      if (verb === "DEL" && answer.ok) rmSync(cacheFile(pod), { force: true });
      return answer;
    },
    close: async () => {
      await runtime.removeSandboxes([...living].map((netns) => ({ name: "", containerId: "", netns })));
    },
  };
  return runtime;
}

function readAnswer(finished: Finished): CniAnswer {
  const bad = (code: number, msg: string): CniAnswer => ({
    finished,
    ok: false,
    ip: null,
    error: { code, msg },
  });
  if (finished.exitCode === 0 && finished.stdout.trim() === "")
    return { finished, ok: true, ip: null, error: null };
  let json: { ips?: { address?: string }[]; code?: number; msg?: string };
  try {
    json = JSON.parse(finished.stdout) as typeof json; // Every field is optional and looked at below.
  } catch {
    return bad(
      -1,
      `not JSON on stdout (exit ${finished.exitCode}): ${finished.stdout.slice(0, 200)} ${finished.stderr.slice(0, 200)}`,
    );
  }
  if (finished.exitCode !== 0) return bad(json.code ?? -1, json.msg ?? "no message");
  return { finished, ok: true, ip: json.ips?.[0]?.address?.split("/")[0] ?? null, error: null };
}

function cacheEntry(pod: Pod, result: string): object {
  return {
    kind: "cniCacheV1",
    containerId: pod.containerId,
    config: Buffer.from(JSON.stringify({ ...CONFIG, plugins: [CONFIG] })).toString("base64"),
    ifName: "eth0",
    networkName: NETWORK,
    netns: pod.netns,
    result: JSON.parse(result) as unknown,
  };
}

function baseOf(path: string): string {
  return path.split("/").at(-1) ?? path;
}
