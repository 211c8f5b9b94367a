/** The edges of the real world behind the agent's ports: kernel, EC2, IMDS, disk, runtime, clock, chance, log and metrics. */
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import type { Agent } from "../agent/agent.ts";
import type { Ports } from "../agent/ports.ts";
import { createEc2 } from "../aws/ec2-client.ts";
import { readAwsEnvironment } from "../aws/environment.ts";
import { createImds } from "../aws/imds.ts";
import type { Config } from "../config/settings.ts";
import type { Remembered } from "../core/reconcile/recover.ts";
import { PACKET_FILTER_TABLE } from "../core/plumbing/names.ts";
import { createHostKernel, type HostKernel } from "../kernel/kernel.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { createMonitor } from "../netlink/monitor.ts";
import { readLibcniCache } from "../runtime/libcni-cache.ts";
import { netnsLives } from "../runtime/netns.ts";
import { createCheckpointFile } from "../store/file.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { createTime } from "./time.ts";
import { VERSION } from "./version.ts";

/** Netlink events are looked for this often; an empty look costs under a microsecond. */
const MONITOR_POLL_MS = 200;

/** Of one look at libcni's cache. */
const UNREADABLE_LINES_MAX = 10;

export type Edges = {
  readonly ports: Ports;
  readonly kernel: HostKernel;
  /** What the daemon before us wrote down; null where nothing can be trusted. Called once, under the lock. */
  readonly remember: () => Remembered | null;
  readonly close: () => Promise<void>;
};

/** The error is text for the operator. */
export function createEdges(
  config: Config,
  log: Log,
  metrics: Metrics,
  cordonedByCluster: () => boolean,
): Result<Edges, string> {
  const aws = readAwsEnvironment(process.env);
  if (!aws.ok) return err(aws.error.join("; "));
  const time = createTime();
  const random = Math.random;
  // Before anything enters a sandbox: it holds the way back to the host's namespace.
  const kernel = createHostKernel({
    sysctlRoot: config.procSysDirectory,
    onLateFailure: (failure) => {
      metrics.observeFailure("kernel");
      log.warn({ ...failure }, "the kernel refused something that nobody waited for");
    },
  });
  if (!kernel.ok) {
    const { step, errno, detail } = kernel.error;
    return err(
      `the kernel cannot be spoken to: ${step}: ${errno} ${detail}. The daemon needs CAP_NET_ADMIN and CAP_SYS_ADMIN.`,
    );
  }
  const imds = createImds({ endpoint: aws.value.imdsEndpoint, random });
  const ec2 = createEc2({
    environment: process.env,
    aws: aws.value,
    imds,
    version: VERSION,
    clusterName: config.clusterName,
    additionalTags: new Map(Object.entries(config.additionalEniTags)),
    now: time.now,
    random,
    requestTimeoutMs: config.ec2AttemptTimeoutMs,
    callDeadlineMs: config.ec2CallDeadlineMs,
    callsPerSecond: { mutating: config.ec2ChangesPerSecond, reading: config.ec2ReadsPerSecond },
    onCall: (seen) => {
      metrics.observeEc2Call(seen);
      log.debug(seen, "ec2 call");
    },
  });
  void ec2.warmUp(); // The SDK loads beside everything else; it never fails.
  const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const checkpoint = createCheckpointFile({ path: config.checkpointPath, bootId, wallNow: time.wallNow });

  const ports: Ports = {
    time,
    random,
    newToken: randomUUID,
    ec2,
    imds,
    kernel: kernel.value,
    runtime: {
      cachedSandboxes: () => {
        let unreadable = 0;
        return readLibcniCache(config.cniCacheDirectory, null, (file, detail) => {
          metrics.observeUnreadable("libcni-cache");
          unreadable += 1;
          // Whoever fills the folder with rubbish does not fill the log: the metric counts them all.
          if (unreadable <= UNREADABLE_LINES_MAX)
            log.warn({ path: file, detail }, "a file in libcni's cache was unreadable");
        });
      },
      netnsLives,
      cordoned: () => cordonedByCluster() || existsSync(config.cordonFilePath),
    },
    save: async (state) => {
      const began = performance.now();
      const saved = await checkpoint.save(state);
      metrics.observeCheckpoint({
        ok: saved.ok,
        durationMs: performance.now() - began,
        bytes: checkpoint.sizeBytes(),
      });
      return saved;
    },
    log: (event) => log.event(event),
    observed: metrics.observeFact,
  };
  const remember = (): Remembered | null => {
    const loaded = checkpoint.load();
    switch (loaded.kind) {
      case "missing":
        return null;
      case "loaded":
        return { ...loaded.checkpoint, sameBoot: loaded.checkpoint.bootId === bootId };
      case "damaged":
      case "newer":
      case "unreadable": {
        const { kind, detail, setAside } = loaded;
        metrics.observeUnreadable("checkpoint");
        log.error(
          { kind, detail, setAside },
          "the checkpoint cannot be used; the state is rebuilt from EC2, kernel and runtime",
        );
        return null;
      }
    }
  };
  const close = async (): Promise<void> => {
    ec2.close();
    imds.close();
    await kernel.value.close();
  };
  return ok({ ports, kernel: kernel.value, remember, close });
}

/** What others do to the kernel wakes the loops that put it right. */
export function watchKernel(edges: Edges, agent: Agent, log: Log): { readonly close: () => void } {
  const prefix = agent.settings.plumbing.hostLinkPrefix;
  const monitor = createMonitor({
    pollMs: MONITOR_POLL_MS,
    isPodLink: (name) => name.startsWith(prefix),
    tableName: PACKET_FILTER_TABLE,
    ownPorts: edges.kernel.ports,
    onEvents: (kinds) => {
      if (kinds.has("nftables")) agent.wakeFilter.call();
      agent.wakeRepair.call(); // It paces itself, however many pods come and go.
    },
  });
  if (!monitor.ok) {
    log.error({ ...monitor.error }, "kernel events cannot be heard; repairs come by time alone");
    return { close: () => {} };
  }
  return monitor.value;
}
