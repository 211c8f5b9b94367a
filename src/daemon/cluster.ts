/**
 * The API server's part in the daemon: what it tells becomes the pool's demand, the node's own settings and its cordon; what the node
 * tells goes back as events and annotations. Nothing that a pod waits for stands here. Without an API server nothing of the room `kube`
 * is loaded.
 */
import { readFileSync } from "node:fs";
import type { Agent } from "../agent/agent.ts";
import { EC2_OPERATIONS } from "../aws/operations.ts";
import type { Environment, LoadedConfig } from "../config/load.ts";
import { configOfNode, type NodeConfig, type NodePool, parseNodePools } from "../config/node-settings.ts";
import { poolSettings } from "../config/for-rooms.ts";
import { planAnnotations } from "../core/cluster/annotations.ts";
import { expectedCount, type ExpectedPods, expectPods } from "../core/cluster/demand.ts";
import { eniConfigName } from "../core/cluster/eni-config.ts";
import { newEventMemory, planEvents } from "../core/cluster/events.ts";
import { type ClusterSeen, NOTHING_SEEN, type PodSeen } from "../core/model/cluster.ts";
import { maxPodsOf } from "../core/pool/max-pods.ts";
import type { PoolSettings } from "../core/pool/targets.ts";
import { whyNoAddress } from "../core/pool/why.ts";
import type { KubeSource } from "../kube/connection.ts";
import type { ClusterWriter } from "../kube/writes.ts";
import { backoffMs, type Instant, MINUTE_MS, printWallTime, SECOND_MS } from "../lib/time.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { createTime } from "./time.ts";
import { VERSION } from "./version.ts";

export type Cluster = {
  /** The pool's settings of this moment: each field is read anew. */
  readonly pool: PoolSettings;
  readonly cordoned: () => boolean;
  /** Texts of the settings in force. */
  readonly texts: () => Readonly<Record<string, string>>;
  readonly settingsPage: () => unknown;
  readonly eniConfigName: () => string;
  /** Watches until `signal` is aborted; resolves then. Never fails. */
  readonly watch: (signal: AbortSignal) => Promise<void>;
  /** From now on the pool is woken when what the API server tells changes it, and the cluster is told of the node. */
  readonly serve: (agent: Agent) => void;
};

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
/** A node's pods are some 250 at 20 KB. What is larger is read by pages. */
const ANSWER_BYTES_MAX = 8 * 1024 * 1024;
const REQUEST_MS = 15 * SECOND_MS;
/** Bookmarks come about once a minute. */
const SILENCE_MS = 3 * MINUTE_MS;
const ROUND_MS = 2 * SECOND_MS;
const POOLS_FILE_BYTES_MAX = 1_048_576; // What a ConfigMap can hold.

export function createCluster(options: {
  readonly environment: Environment;
  readonly loaded: LoadedConfig;
  readonly log: Log;
  readonly metrics: Pick<Metrics, "observeUnreadable" | "observeFailure">;
}): Cluster {
  const { environment, loaded, log, metrics } = options;
  const { config } = loaded;
  const time = createTime();
  let seen: () => ClusterSeen = () => NOTHING_SEEN;
  let agent: Agent | null = null;
  let poolsText: string | null = null;
  let pools: readonly NodePool[] = [];
  let node: NodeConfig = configOfNode(environment, loaded, [], {});
  let settings = poolSettings(node.loaded.config);
  const expectation = createExpectation(() => ({ pods: seen().pods, agent }));

  const settle = (): void => {
    const before = { settings: JSON.stringify(settings), problems: node.problems.join() };
    node = configOfNode(environment, loaded, pools, seen().node?.labels ?? {});
    settings = poolSettings(node.loaded.config);
    if (before.problems !== node.problems.join())
      for (const problem of node.problems)
        log.warn({ detail: problem }, "a setting of this node is left out");
    if (before.settings === JSON.stringify(settings)) return;
    log.info({ pool: node.pool, origins: overridesOf(node) }, "this node's own settings changed");
    agent?.wakeRefill.call();
  };
  const readPools = (): void => {
    const text = readPoolsFile(config.nodePoolsPath);
    if (text === poolsText) return;
    poolsText = text;
    const parsed = text === null ? { ok: true as const, value: [] } : parseNodePools(text);
    if (parsed.ok) pools = parsed.value;
    else
      log.warn(
        { path: config.nodePoolsPath, detail: parsed.error },
        "the pools of nodes cannot be read: what was read last stands",
      );
    settle();
  };
  readPools();

  return {
    pool: liveSettings(() => settings, expectation.count),
    cordoned: () => seen().node?.unschedulable ?? false,
    texts: () => node.loaded.texts,
    settingsPage: () => ({
      node: config.nodeName,
      pool: node.pool,
      problems: node.problems,
      settings: Object.fromEntries(
        Object.entries(node.loaded.texts).map(([name, value]) => [
          name,
          { value, origin: node.origins[name] ?? "default" },
        ]),
      ),
    }),
    eniConfigName: () => {
      const known = seen().node;
      const keys = { annotation: config.eniConfigAnnotation, label: config.eniConfigLabel };
      return known === null || !config.customNetworking ? "" : eniConfigName(known, keys);
    },
    async watch(signal) {
      const { nodeName } = config;
      const source = sourceOf(config, environment);
      let writer: ClusterWriter | null = null;
      let ended: Promise<void> = Promise.resolve();
      if (source !== null && nodeName !== null) {
        const kube = await import("../kube/kube.ts");
        const client = kube.createKubeClient({
          source,
          userAgent: `berth/${VERSION}`,
          deadlineMs: REQUEST_MS,
          silenceMs: SILENCE_MS,
          answerBytesMax: ANSWER_BYTES_MAX,
        });
        const health = new Map<string, string>();
        const watching = kube.watchCluster(
          client,
          nodeName,
          {
            sleep: async (ms, until) => await time.sleep(ms, until),
            random: Math.random,
            now: time.now,
            onUnreadable: (resource, detail) => {
              metrics.observeUnreadable(`kube-${resource}`);
              log.warn({ resource, detail }, "the API server said what cannot be read");
            },
            onOutcome: (resource, outcome) => {
              const words = outcome === "listed" ? "listed" : kube.printKubeError(outcome);
              // "Too old" is how a watch ends that was away for long, and the list that follows is told.
              const kind = outcome === "listed" || outcome.kind === "expired" ? "listed" : outcome.kind;
              if (kind !== "listed" && kind !== "not-found") metrics.observeFailure(`kube-${resource}`);
              if (health.get(resource) === kind) return;
              health.set(resource, kind);
              if (kind === "listed") log.info({ resource }, "the API server tells of this node");
              else if (kind === "not-found") log.debug({ resource }, "the API server has no such kind");
              else
                log.warn(
                  { resource, detail: words },
                  "the API server does not tell; what it said last stands",
                );
            },
          },
          () => {
            settle();
            agent?.wakeRefill.call();
          },
          signal,
        );
        seen = watching.seen;
        ended = watching.ended;
        writer = kube.createClusterWriter(client, nodeName);
      }
      const tell = createTeller({
        config,
        log,
        now: time.now,
        wallNow: time.wallNow,
        expected: expectation.now,
      });
      while (!signal.aborted) {
        await time.sleep(ROUND_MS, signal);
        if (signal.aborted) break;
        readPools();
        if (agent !== null && writer !== null) await tell(agent, seen(), writer, signal);
      }
      await ended;
    },
    serve: (begun) => {
      agent = begun;
    },
  };
}

/** How the API server is reached; null where there is none. */
function sourceOf(config: LoadedConfig["config"], environment: Environment): KubeSource | null {
  if (!config.useApiServer || config.nodeName === null) return null;
  if (config.kubeconfigPath !== null) return { kind: "kubeconfig", path: config.kubeconfigPath };
  const host = environment["KUBERNETES_SERVICE_HOST"] ?? "";
  const port = environment["KUBERNETES_SERVICE_PORT"] ?? "443";
  if (config.clusterEndpoint === null && host === "") return null;
  const server = config.clusterEndpoint ?? `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
  return { kind: "service-account", directory: SERVICE_ACCOUNT, server };
}

/** Pods that are expected, kept with what is known of them, counted anew when pods or allocations are others. */
function createExpectation(facts: () => { pods: ClusterSeen["pods"]; agent: Agent | null }) {
  let expected: ExpectedPods = new Map();
  let last: { readonly pods: unknown; readonly allocations: unknown } | null = null;
  const now = (): ExpectedPods => {
    const { pods, agent } = facts();
    if (agent === null) return expected;
    const { allocations } = agent.cell.state;
    if (last?.pods === pods && last.allocations === allocations) return expected;
    last = { pods, allocations };
    expected = expectPods(expected, pods, allocations, agent.ports.time.now());
    return expected;
  };
  return {
    now,
    count: (): number => {
      const { agent } = facts();
      return agent === null ? 0 : expectedCount(now(), agent.ports.time.now()).count;
    },
  };
}

/** The planner reads its settings in one synchronous stretch, so what it reads is of one moment. */
function liveSettings(read: () => PoolSettings, expected: () => number): PoolSettings {
  const live = {};
  for (const key of Object.keys(read()) as (keyof PoolSettings)[])
    Object.defineProperty(live, key, {
      enumerable: true,
      get: key === "expectedPods" ? expected : () => read()[key],
    });
  return live as PoolSettings; // It has a getter for each of the type's fields.
}

function overridesOf(node: NodeConfig): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(node.origins).filter(([, origin]) => origin !== "default" && origin !== "environment"),
  );
}

function readPoolsFile(path: string): string | null {
  try {
    const text = readFileSync(path, "utf8");
    return text.length > POOLS_FILE_BYTES_MAX ? "" : text;
  } catch {
    return null; // There need not be one, and a mount that is being changed is there at the next look.
  }
}

/** One round of what the node tells the cluster. After a failure it waits: whoever denies once denies for long. */
function createTeller(options: {
  readonly config: LoadedConfig["config"];
  readonly log: Log;
  readonly now: () => Instant;
  readonly wallNow: () => Parameters<typeof printWallTime>[0];
  readonly expected: () => ExpectedPods;
}) {
  const { config, log } = options;
  let memory = newEventMemory(options.now());
  let attempt = 0;
  let notBefore = options.now();
  let eventNumber = 0;
  const without = new Map<string, string>(EC2_OPERATIONS.map((row) => [row.operation, row.without]));
  return async (
    agent: Agent,
    seen: ClusterSeen,
    writer: ClusterWriter,
    signal: AbortSignal,
  ): Promise<void> => {
    const now = options.now();
    if (now < notBefore) return;
    const { state } = agent.cell;
    const planned = planEvents(
      memory,
      {
        node: seen.node,
        ownPod: podNamed(seen.pods, config.podName),
        waiting: state.waiting,
        unserved: unservedPods(seen.pods, options.expected()),
        why: state.waiting === 0 ? { blocked: null, detail: "" } : whyNoAddress(state, agent.pool, now),
        obstacles: state.obstacles,
        without: (operation) => without.get(operation) ?? null,
        maxPods: maxPodsOf(state.instance.limits, agent.pool, null),
      },
      now,
    );
    ({ memory } = planned);
    const failed = (what: string, detail: unknown): void => {
      notBefore = (now +
        backoffMs(attempt, Math.random(), { baseMs: 5 * SECOND_MS, maxMs: 5 * MINUTE_MS })) as Instant; // Of the same clock.
      attempt += 1;
      log.warn({ what, detail }, "the API server did not take what the node tells");
    };
    for (const event of planned.events) {
      eventNumber += 1;
      const suffix = `${Math.round(options.wallNow()).toString(16)}${eventNumber.toString(16)}`;
      const written = await writer.event(event, printWallTime(options.wallNow()), suffix, signal);
      if (!written.ok) return failed("event", written.error);
    }
    const writes = config.annotatePodIp ? planAnnotations(seen.pods, state.allocations) : [];
    for (const { pod, ips } of writes) {
      const written = await writer.annotate(pod, ips, signal);
      const gone = !written.ok && (written.error.kind === "not-found" || isConflict(written.error));
      if (!written.ok && !gone) return failed("annotation", written.error);
    }
    attempt = 0;
  };
}

function isConflict(error: { readonly kind: string; readonly status?: number }): boolean {
  return error.kind === "refused" && error.status === 409; // Another pod of that name by now.
}

function podNamed(pods: ClusterSeen["pods"], name: string | null): PodSeen | null {
  for (const pod of pods?.values() ?? []) if (pod.name === name) return pod;
  return null;
}

function unservedPods(
  pods: ClusterSeen["pods"],
  expected: ExpectedPods,
): readonly { readonly pod: PodSeen; readonly since: Instant }[] {
  return [...expected].flatMap(([uid, since]) => {
    const pod = pods?.get(uid);
    return pod === undefined || since === null ? [] : [{ pod, since }];
  });
}
