/** Metrics (prom-client), by the rows of metric-rows.ts. Counters are told by `observe…`; gauges are read from the state when scraped. */
import { readdirSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry, Summary } from "prom-client";
import type { Ec2FailureKind } from "../core/model/ec2.ts";
import type { NodeErrorCode } from "../core/model/error.ts";
import { type GaugeName, METRICS, type MetricRow, type NamesOf } from "./metric-rows.ts";
import { gaugesOf, type NodeLook } from "./node-gauges.ts";

type Labels = Readonly<Record<string, string>>;

/** What the agent's walks and loops tell. The shape of the agent's own `Observed`, which this room does not import. */
export type AgentFact =
  | {
      readonly kind: "add";
      readonly outcome: "ok" | NodeErrorCode;
      readonly durationMs: number;
      readonly heldMs: number;
    }
  | { readonly kind: "del"; readonly outcome: "ok" | "unknown" | NodeErrorCode; readonly durationMs: number }
  | { readonly kind: "hold"; readonly reason: string }
  | { readonly kind: "removed"; readonly what: string; readonly why: string }
  | { readonly kind: "repaired"; readonly what: string }
  | { readonly kind: "looked"; readonly at: string };

export type Metrics = {
  readonly observeFact: (fact: AgentFact) => void;
  /** One attempt of an EC2 call; `code` is EC2's own, null when it went well. */
  readonly observeEc2Call: (seen: {
    readonly operation: string;
    readonly outcome: "ok" | Ec2FailureKind;
    readonly code: string | null;
    readonly durationMs: number;
  }) => void;
  readonly observeCheckpoint: (seen: {
    readonly ok: boolean;
    readonly durationMs: number;
    readonly bytes: number; // 0 when it is not known.
  }) => void;
  readonly observeJournalDel: (outcome: "played" | "unreadable") => void;
  readonly observeUnreadable: (what: string) => void;
  /** A failure that belongs to no walk; `doing` is a word of ours, not a message. */
  readonly observeFailure: (doing: string) => void;
  readonly observeStart: (seen: {
    readonly ok: boolean;
    readonly failure: string; // "" when it went well.
    readonly recoverMs: number;
    readonly totalMs: number;
  }) => void;
  /** Counts an action as running until the returned function is called. */
  readonly actionBegins: (kind: string) => () => void;
  /** The whole page, in Prometheus's text format. */
  readonly text: () => Promise<string>;
  readonly contentType: string;
  readonly close: () => void;
};

export type MetricsOptions = {
  readonly version: string;
  /** Null until the daemon has recovered: its gauges are absent then, not 0. */
  readonly look: () => NodeLook | null;
};

export function createMetrics(options: MetricsOptions): Metrics {
  const registry = new Registry();
  const { counters, gauges, histograms, summaries } = makeAll(registry);
  const loopDelay = monitorEventLoopDelay({ resolution: 20 });
  loopDelay.enable();

  const count = (name: NamesOf<"counter">, labels: Labels = {}, by = 1): void => {
    counters.get(name)?.inc(labels, by);
  };
  const set = (name: GaugeName, value: number, labels: Labels = {}): void => {
    gauges.get(name)?.set(labels, value);
  };
  const time = (name: NamesOf<"histogram">, ms: number, labels: Labels = {}): void => {
    histograms.get(name)?.observe(labels, ms / 1_000);
  };

  /** EC2's codes are EC2's to invent; each new one is a row that is never given up again. */
  const codesSeen = new Set<string>();
  const codeLabel = (code: string): string => {
    if (codesSeen.size < CODE_LABELS_MAX) codesSeen.add(code);
    return codesSeen.has(code) ? code : "other";
  };

  set("awscni_build_info", 1, { version: options.version, goversion: process.version });
  set("berth_build_info", 1, { version: options.version, node_version: process.version });
  set("awscni_connmark_backend", 1, { backend: "nftables" });
  set("process_start_time_seconds", (Date.now() - performance.now()) / 1_000);

  /** Gauges are written anew, so that an ENI that is gone leaves no value behind. */
  const refresh = (): void => {
    for (const name of NODE_GAUGES) gauges.get(name)?.reset();
    const look = options.look();
    if (look !== null) for (const { name, labels, value } of gaugesOf(look)) set(name, value, labels);
    set("process_resident_memory_bytes", process.memoryUsage.rss());
    set("process_open_fds", openDescriptorCount());
    counters.get("process_cpu_seconds_total")?.reset();
    const cpu = process.cpuUsage();
    count("process_cpu_seconds_total", {}, (cpu.user + cpu.system) / 1_000_000);
    for (const quantile of [0.5, 0.99, 1]) {
      set("berth_event_loop_delay_seconds", loopDelay.percentile(quantile * 100) / 1e9, {
        quantile: `${quantile}`,
      });
    }
    loopDelay.reset();
  };

  return {
    observeFact(fact) {
      switch (fact.kind) {
        case "add":
          count("awscni_add_ip_req_count");
          time("berth_add_seconds", fact.durationMs, { outcome: fact.outcome });
          if (fact.heldMs > 0) time("berth_add_held_seconds", fact.heldMs);
          if (fact.outcome === "no-address") count("awscni_no_available_ip_addresses");
          if (fact.outcome !== "ok") count("awscni_ipamd_error_count", { fn: "add" });
          return;
        case "del":
          count("awscni_del_ip_req_count", { reason: fact.outcome });
          time("berth_del_seconds", fact.durationMs, { outcome: fact.outcome });
          return;
        case "hold":
          count("berth_pool_holds_total", { reason: fact.reason });
          return;
        case "removed":
          count("berth_removed_total", { what: fact.what });
          if (fact.what === "eni" && fact.why === "leaked") count("awscni_force_removed_enis");
          if (fact.what === "allocation") count("awscni_force_removed_ips");
          return;
        case "repaired":
          count("berth_repaired_total", { what: fact.what });
          return;
        case "looked":
          count("awscni_reconcile_count", { fn: fact.at });
          return;
      }
    },
    observeEc2Call({ operation, outcome, code, durationMs }) {
      const failed = outcome !== "ok";
      count("awscni_ec2api_req_count", { fn: operation });
      time("berth_ec2_call_seconds", durationMs, { operation, outcome });
      const status = failed ? codeLabel(code ?? outcome) : "200";
      const labels = { api: operation, error: `${failed}`, status };
      summaries.get("awscni_aws_api_latency_ms")?.observe(labels, durationMs);
      if (!failed) return;
      count("awscni_ec2api_error_count", { fn: operation });
      count("awscni_aws_api_error_count", { api: operation, error: status });
      count("berth_ec2_failures_total", { operation, kind: outcome });
    },
    observeCheckpoint({ ok, durationMs, bytes }) {
      time("berth_checkpoint_seconds", durationMs, { outcome: ok ? "ok" : "failed" });
      if (ok && bytes > 0) set("berth_checkpoint_bytes", bytes);
      if (!ok) count("awscni_ipamd_error_count", { fn: "checkpoint" });
    },
    observeJournalDel(outcome) {
      count("berth_journal_dels_total", { outcome });
    },
    observeUnreadable(what) {
      count("berth_unreadable_total", { what });
    },
    observeFailure(doing) {
      count("awscni_ipamd_error_count", { fn: doing });
    },
    observeStart({ ok, failure, recoverMs, totalMs }) {
      const labels = { success: `${ok}`, with_api_server: "false", failure_reason: failure };
      time("awscni_ipamd_startup_duration_seconds", totalMs, labels);
      time("awscni_ipamd_node_initialization_duration_seconds", recoverMs, { success: `${ok}` });
    },
    actionBegins(kind) {
      const gauge = gauges.get("awscni_ipamd_action_inprogress");
      gauge?.inc({ fn: kind });
      return () => gauge?.dec({ fn: kind });
    },
    async text() {
      refresh();
      return registry.metrics();
    },
    contentType: registry.contentType,
    close() {
      loopDelay.disable();
      registry.clear();
    },
  };
}

/** A node meets some twenty. */
const CODE_LABELS_MAX = 50;

/** Those that the look at the node makes; the others are set where the thing happens, and must not be reset. */
const NODE_GAUGES = [
  "awscni_eni_max",
  "awscni_ip_max",
  "awscni_eni_allocated",
  "awscni_total_ip_addresses",
  "awscni_assigned_ip_addresses",
  "awscni_total_ipv4_prefixes",
  "awscni_assigned_ip_per_cidr",
  "awscni_assigned_ip_per_eni",
  "berth_adds_held",
  "berth_addresses",
  "berth_eni_addresses",
  "berth_enis",
  "berth_prefixes",
  "berth_address_slots",
  "berth_target",
  "berth_call_in_doubt",
  "berth_obstacles",
  "berth_node_schedulable",
] as const satisfies readonly GaugeName[];

type All = {
  readonly counters: Map<string, Counter>;
  readonly gauges: Map<string, Gauge>;
  readonly histograms: Map<string, Histogram>;
  readonly summaries: Map<string, Summary>;
};

function makeAll(registry: Registry): All {
  const all: All = { counters: new Map(), gauges: new Map(), histograms: new Map(), summaries: new Map() };
  const rows: readonly (readonly [string, MetricRow])[] = Object.entries(METRICS);
  for (const [name, { kind, labels, help, buckets }] of rows) {
    const shape = { name, help, labelNames: [...labels], registers: [registry] };
    switch (kind) {
      case "counter":
        all.counters.set(name, new Counter(shape));
        break;
      case "gauge":
        all.gauges.set(name, new Gauge(shape));
        break;
      case "histogram":
        all.histograms.set(name, new Histogram({ ...shape, buckets: [...(buckets ?? [])] }));
        break;
      case "summary":
        all.summaries.set(name, new Summary({ ...shape, percentiles: [] }));
        break;
    }
  }
  return all;
}

function openDescriptorCount(): number {
  try {
    return readdirSync("/proc/self/fd").length - 1; // Less the one that reads the folder.
  } catch {
    return 0; // Without /proc there is nothing to count, and a scrape must not fail for it.
  }
}
