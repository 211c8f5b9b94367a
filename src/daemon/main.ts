/**
 * The process: builds the edges, takes the lock, recovers, opens the socket, runs the loops, and stops in reverse order. Everything
 * that is decided or done stands elsewhere.
 */
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { blockedBy, type Agent } from "../agent/agent.ts";
import { deleteSandbox } from "../agent/delete-sandbox.ts";
import { keepRunning } from "../agent/loop.ts";
import { recover } from "../agent/recover.ts";
import { journalJob } from "../agent/play-journal.ts";
import { refillJob } from "../agent/refill.ts";
import { filterJob, repairJob } from "../agent/repair.ts";
import { sandboxSweepJob } from "../agent/sweep-sandboxes.ts";
import { serveCni, type CniServer } from "../cni/server.ts";
import { agentSettings } from "../config/for-rooms.ts";
import { loadConfig, printNotice } from "../config/load.ts";
import type { Config } from "../config/settings.ts";
import type { NodeError } from "../core/model/error.ts";
import { instanceLimits } from "../core/model/instance-limits.ts";
import type { SandboxKey } from "../core/model/sandbox.ts";
import { eniTable } from "../core/plumbing/names.ts";
import { installConflist } from "../install/conflist.ts";
import { installShim } from "../install/shim.ts";
import type { Result } from "../lib/result.ts";
import { endProcess, lockFile, peerCredentials } from "../libc/libc.ts";
import { openJournal, type Journal } from "../store/journal.ts";
import { type Door, openDoors } from "../telemetry/http.ts";
import { createLog, type RootLog } from "../telemetry/log.ts";
import { createMetrics, type Metrics } from "../telemetry/metrics.ts";
import { daemonDoors, type Health } from "../telemetry/pages.ts";
import { type Cluster, createCluster } from "./cluster.ts";
import { runCommand } from "./commands.ts";
import { createEdges, watchKernel, type Edges } from "./edges.ts";
import { createHandlers } from "./handlers.ts";
import { lookOf } from "./look.ts";
import { reportState, type StateReport } from "./state-report.ts";
import { VERSION } from "./version.ts";

/** The daemon before us may take its whole grace period to end, and a node's worth of slack. */
const LOCK_WAIT_MS = 120_000;
const EXIT_BAD_CONFIG = 78; // sysexits.h, EX_CONFIG
/** A link's deletion may wait for the kernel's lock, which others hold; all that matters is on disk by then. */
const CLOSE_MS = 5_000;

/** What the HTTP pages see of a daemon that is still on its way up. */
type Life = {
  phase: "starting" | "serving" | "stopping";
  agent: Agent | null;
  report: (() => StateReport) | null;
};

async function main(): Promise<number> {
  const began = performance.now();
  const loaded = loadConfig(process.env);
  if (!loaded.ok) {
    for (const notice of loaded.error) process.stderr.write(`berth: ${printNotice(notice)}\n`);
    return EXIT_BAD_CONFIG;
  }
  const { config, warnings } = loaded.value;
  const log = createLog({ level: config.logLevel, file: logFileOf(config) });
  process.on("uncaughtException", (cause) => {
    log.error(
      { cause: cause.stack ?? String(cause) },
      "a promise between our own parts is broken: the daemon ends",
    );
    void log.close().then(() => end(1));
  });
  for (const notice of warnings) log.warn({ notice: printNotice(notice) }, "setting");
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => stop.abort(signal));

  const life: Life = { phase: "starting", agent: null, report: null };
  const metrics = createMetrics({
    version: VERSION,
    look: () => (life.agent === null ? null : lookOf(life.agent)),
  });
  const cluster = createCluster({ environment: process.env, loaded: loaded.value, log, metrics });
  const doors = daemonDoors(doorsOf(config), pagesOf(life, metrics, cluster));
  // Probes are answered from the first moment. What tells of the node is the serving daemon's alone: one that waits for its end
  // must not take its socket away.
  const probes = await openDoors(
    doors.filter((door) => !door.private),
    log,
  );
  const edges = createEdges(config, log, metrics, cluster.cordoned);
  if (!edges.ok) {
    log.error({ detail: edges.error }, "the daemon cannot start");
    return EXIT_BAD_CONFIG;
  }
  const privateDoors = doors.filter((door) => door.private);
  const signal = stop.signal;
  const code = await live({
    config,
    log,
    metrics,
    cluster,
    life,
    edges: edges.value,
    privateDoors,
    signal,
    began,
  });
  const closing = Promise.all([probes.close(), edges.value.close()]).then(() => "closed");
  const outcome = await Promise.race([closing, sleep(CLOSE_MS)]);
  if (outcome !== "closed")
    log.warn(
      { waitMs: CLOSE_MS },
      "the kernel, or one who asks a probe, holds the end up: it is not waited for",
    );
  metrics.close();
  await log.close();
  return code;
}

/** Listeners of `exit` run first, so that nothing is lost that they write. */
function end(code: number): void {
  process.once("exit", endProcess);
  process.exit(code);
}

type Daemon = {
  readonly config: Config;
  readonly log: RootLog;
  readonly metrics: Metrics;
  readonly cluster: Cluster;
  readonly life: Life;
  readonly edges: Edges;
  readonly privateDoors: readonly Door[];
  readonly signal: AbortSignal;
  readonly began: number;
};

/** From the lock to its release. */
async function live(daemon: Daemon): Promise<number> {
  const { config, log, edges, signal } = daemon;
  const journal = await openJournal({
    folder: config.journalDirectory,
    wallNow: edges.ports.time.wallNow,
    lock: (fd) => lockFile(fd).ok,
    sleep: async (ms) => await edges.ports.time.sleep(ms, signal),
    lockWaitMs: LOCK_WAIT_MS,
    onWait: (path) =>
      log.warn({ path, waitMs: LOCK_WAIT_MS }, "another daemon runs on this node: waiting for its end"),
  });
  if (!journal.ok) {
    log.error({ detail: journal.error }, "the daemon cannot start");
    return 1;
  }
  const doors = await openDoors(daemon.privateDoors, log);
  void daemon.cluster.watch(signal); // Nothing waits for it: an API server that is away changes nothing for pods with warm addresses.
  const agent = await start(daemon, journal.value);
  const code = agent === null ? 0 : await serve(daemon, agent, journal.value);
  await doors.close();
  journal.value.close();
  return code;
}

/** Null when stopped before it was recovered. */
async function start(daemon: Daemon, journal: Journal): Promise<Agent | null> {
  const { config, log, edges, signal } = daemon;
  const remembered = edges.remember();
  const ports = edges.ports;
  const settings = agentSettings(config);
  const { pool } = daemon.cluster;
  const agent = await recover({ ports, settings, pool, limitsOf: instanceLimits, remembered, signal });
  if (agent === null) return null;
  await playJournal(daemon, journal, async (key) => await deleteSandbox(agent, key), "start");
  const saved = await ports.save(agent.cell.state);
  if (!saved.ok) log.error({ error: saved.error }, "the checkpoint cannot be written");
  return agent;
}

async function playJournal(
  { log, metrics }: Daemon,
  journal: Journal,
  play: (key: SandboxKey) => Promise<Result<unknown, NodeError>>,
  when: "start" | "serving",
): Promise<void> {
  const { played, failed, damaged, leftCount } = await journal.drain(play, when);
  for (let at = 0; at < played; at += 1) metrics.observeJournalDel("played");
  for (const { key, error } of failed)
    log.warn({ sandbox: key, error }, "a DEL from the journal failed; it is played again");
  for (const { setAside, detail } of damaged) {
    metrics.observeJournalDel("unreadable");
    log.warn({ path: setAside, detail }, "a journal file was unreadable; it is set aside");
  }
  if (played > 0) log.info({ count: played, leftCount }, "DELs played from the journal");
}

/** Until a signal comes. Returns the exit code. */
async function serve(daemon: Daemon, agent: Agent, journal: Journal): Promise<number> {
  const { config, log, metrics, life, edges, signal, began } = daemon;
  const { handlers, counters } = createHandlers(agent, {
    addHoldMs: config.addHoldMs,
    statusWhenEmpty: config.statusWhenEmpty,
    stopping: () => life.phase === "stopping",
    begins: metrics.actionBegins,
  });
  life.agent = agent;
  daemon.cluster.serve(agent);
  life.report = () =>
    reportState(agent.cell.state, agent.pool, {
      ready: readiness(life).ok,
      node: config.nodeName ?? hostname(),
      counters: counters(),
      now: agent.ports.time.now(),
    });
  const server = await serveCni({
    path: config.cniSocketPath,
    handlers,
    now: agent.ports.time.now,
    drainMs: config.stopMs,
    statusGraceMs: config.statusGraceMs,
    peerUid: (fd) => {
      const peer = peerCredentials(fd);
      return peer.ok ? peer.value.uid : null;
    },
    onEvent: (event) => {
      if (event.kind === "request" && event.outcome === "failed") log.warn(event, "cni request failed");
      else if (event.kind === "request") log.debug(event, "cni request");
      else log.warn(event, "cni connection");
    },
  });
  if (!server.ok) {
    log.error({ detail: server.error }, "the plugin's socket could not be opened");
    metrics.observeStart({ ok: false, failure: "socket", recoverMs: 0, totalMs: performance.now() - began });
    return 1;
  }
  const monitor = watchKernel(edges, agent, log);
  const stopLoops = new AbortController();
  const { playDel } = server.value;
  const played = journalJob(agent, async () => await playJournal(daemon, journal, playDel, "serving"));
  const jobs = [refillJob(agent), repairJob(agent), filterJob(agent), sandboxSweepJob(agent), played];
  const loops = Promise.all(
    jobs.map(async (job) => await keepRunning(job, agent.ports.time, stopLoops.signal)),
  );
  life.phase = "serving";
  const totalMs = performance.now() - began;
  metrics.observeStart({ ok: true, failure: "", recoverMs: totalMs, totalMs });
  log.info(
    { node: config.nodeName, instance: agent.cell.state.instance.id, version: VERSION, durationMs: totalMs },
    "serving",
  );
  if (config.installOnHost) await install(config, log);

  await Promise.race([aborted(signal), loops]); // A loop never ends by itself; when it throws, so does this.
  await drain(daemon, agent, server.value, async () => {
    stopLoops.abort();
    await loops;
  });
  monitor.close();
  return 0;
}

/** Shims that come now wait in connect for the next daemon; what runs is finished; what is known is written down. */
async function drain(
  daemon: Daemon,
  agent: Agent,
  server: CniServer,
  stopLoops: () => Promise<void>,
): Promise<void> {
  const { log, life, signal } = daemon;
  const began = performance.now();
  life.phase = "stopping";
  log.info({ signal: String(signal.reason), connections: server.connectionCount() }, "stopping");
  await server.close();
  // An EC2 call in flight is given up on like one that was never answered: the next daemon looks before it asks again.
  await Promise.race([stopLoops(), sleep(daemon.config.stopMs)]);
  await agent.departures.all();
  const saved = await agent.ports.save(agent.cell.state);
  if (!saved.ok) log.error({ error: saved.error }, "the last checkpoint could not be written");
  log.info({ durationMs: performance.now() - began }, "stopped");
}

/** The plugin first, the configuration that names it last. */
async function install(config: Config, log: RootLog): Promise<void> {
  const sourcePath = config.shimPath ?? join(dirname(fileURLToPath(import.meta.url)), "berth-cni");
  const shim = await installShim({ sourcePath, directory: config.hostBinDirectory });
  if (!shim.ok) return log.error({ ...shim.error }, "the plugin could not be installed");
  const conflist = await installConflist(config.hostConfDirectory, {
    networkName: config.networkName,
    chainPortmap: config.chainPortmap,
    refusesCapabilities: config.dataPath === "ipvlan",
    socketPath: config.cniSocketPath === "/run/berth/berth.sock" ? null : config.cniSocketPath,
    journalDirectory: config.journalDirectory === "/var/lib/berth/journal" ? null : config.journalDirectory,
  });
  if (!conflist.ok)
    return log.error({ ...conflist.error }, "the network configuration could not be installed");
  log.info({ shim: shim.value, conflist: conflist.value.outcome }, "installed on the host");
  for (const path of conflist.value.before)
    log.error({ path }, "another network configuration sorts before ours and is used instead");
}

function logFileOf(config: Config): { path: string; maxBytes: number; keepCount: number } | null {
  return config.logFile === null
    ? null
    : { path: config.logFile, maxBytes: config.logFileMaxBytes, keepCount: config.logFileKeepCount };
}

function doorsOf(config: Config): Parameters<typeof daemonDoors>[0] {
  return {
    metrics: config.metrics ? config.metricsBind : null,
    probe: config.probeBind,
    introspection: config.introspection ? config.introspectionBind : null,
    stateSocketPath: config.stateSocketPath,
  };
}

function pagesOf(life: Life, metrics: Metrics, cluster: Cluster): Parameters<typeof daemonDoors>[1] {
  return {
    metrics,
    healthy: () => ({ ok: true, reasons: [] }),
    ready: () => readiness(life),
    report: () => life.report?.() ?? { ready: false },
    state: () => life.agent?.cell.state ?? null,
    routeTable: (eni) => (eni.role === "primary" ? 254 : eniTable(eni.slot)),
    get settings() {
      return cluster.texts();
    },
    origins: cluster.settingsPage,
    eniConfigName: cluster.eniConfigName,
  };
}

/** Ready while ADDs are served. An empty pool is no reason not to be: it fills, and ADDs wait. */
function readiness(life: Life): Health {
  if (life.phase !== "serving") return { ok: false, reasons: [`the daemon is ${life.phase}`] };
  const reason = life.agent === null ? null : blockedBy(life.agent);
  return reason === null ? { ok: true, reasons: [] } : { ok: false, reasons: [reason] };
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

async function sleep(ms: number): Promise<void> {
  await new Promise<void>((resolve) => void setTimeout(resolve, ms));
}

// A daemon that is started by hand should say what it is before it fails for want of rights.
if (process.argv.includes("--version")) {
  process.stdout.write(`berth ${VERSION}\n`);
} else {
  const terminal = {
    out: (text: string) => void process.stdout.write(text),
    error: (text: string) => void process.stderr.write(text),
  };
  end((await runCommand(process.argv.slice(2), process.env, terminal)) ?? (await main()));
}
