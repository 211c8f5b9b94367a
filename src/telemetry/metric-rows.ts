/**
 * Every metric by name, kind, labels and meaning; the reference page is made from these rows. Names that begin with `awscni_` are the
 * incumbent's and keep its spelling (no `_total`), so that dashboards go on working; `berth_` ones end in their unit.
 */
export type MetricRow = {
  readonly kind: "counter" | "gauge" | "histogram" | "summary";
  readonly labels: readonly string[];
  readonly help: string;
  readonly buckets?: readonly number[];
};

const ADD_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30];
const EC2_BUCKETS = [0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25];
const START_BUCKETS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export const METRICS = {
  awscni_eni_max: { kind: "gauge", labels: [], help: "ENIs that this node may have." },
  awscni_ip_max: { kind: "gauge", labels: [], help: "Addresses for pods that this node may have." },
  awscni_eni_allocated: { kind: "gauge", labels: [], help: "ENIs that the node manages." },
  awscni_total_ip_addresses: {
    kind: "gauge",
    labels: [],
    help: "Addresses for pods that the node holds, in any state.",
  },
  awscni_assigned_ip_addresses: { kind: "gauge", labels: [], help: "Addresses that pods have." },
  awscni_total_ipv4_prefixes: {
    kind: "gauge",
    labels: [],
    help: "Delegated /28 prefixes that the node holds.",
  },
  awscni_assigned_ip_per_cidr: {
    kind: "gauge",
    labels: ["cidr"],
    help: "Addresses that pods have, by delegated prefix or subnet.",
  },
  awscni_assigned_ip_per_eni: { kind: "gauge", labels: ["eni"], help: "Addresses that pods have, by ENI." },
  awscni_ipamd_action_inprogress: { kind: "gauge", labels: ["fn"], help: "Actions that run now, by kind." },
  awscni_connmark_backend: {
    kind: "gauge",
    labels: ["backend"],
    help: "Which packet filter holds the marks: always nftables.",
  },
  awscni_ipamd_error_count: {
    kind: "counter",
    labels: ["fn"],
    help: "Failures of the daemon, by what it was doing.",
  },
  awscni_reconcile_count: {
    kind: "counter",
    labels: ["fn"],
    help: "Sweeps and repairs that were made, by kind.",
  },
  awscni_add_ip_req_count: { kind: "counter", labels: [], help: "ADDs." },
  awscni_del_ip_req_count: { kind: "counter", labels: ["reason"], help: "DELs, by outcome." },
  awscni_aws_api_error_count: {
    kind: "counter",
    labels: ["api", "error"],
    help: "EC2 calls that failed, by operation and EC2's code.",
  },
  awscni_ec2api_req_count: { kind: "counter", labels: ["fn"], help: "EC2 calls, by operation." },
  awscni_ec2api_error_count: {
    kind: "counter",
    labels: ["fn"],
    help: "EC2 calls that failed, by operation.",
  },
  awscni_force_removed_enis: {
    kind: "counter",
    labels: [],
    help: "ENIs that the sweep found leaked and deleted.",
  },
  awscni_force_removed_ips: {
    kind: "counter",
    labels: [],
    help: "Allocations whose sandbox was gone without a DEL.",
  },
  awscni_no_available_ip_addresses: {
    kind: "counter",
    labels: [],
    help: "ADDs that failed because no address came in time.",
  },
  awscni_aws_api_latency_ms: {
    kind: "summary",
    labels: ["api", "error", "status"],
    help: "Milliseconds of EC2 calls; count and sum only.",
  },
  awscni_ipamd_startup_duration_seconds: {
    kind: "histogram",
    labels: ["success", "with_api_server", "failure_reason"],
    help: "From the daemon's start to its open socket.",
    buckets: START_BUCKETS,
  },
  awscni_ipamd_node_initialization_duration_seconds: {
    kind: "histogram",
    labels: ["success"],
    help: "The part of it that observes and recovers.",
    buckets: START_BUCKETS,
  },
  awscni_build_info: {
    kind: "gauge",
    labels: ["version", "goversion"],
    help: "Always 1. No Go is in here: goversion tells Node.js's version.",
  },

  berth_build_info: { kind: "gauge", labels: ["version", "node_version"], help: "Always 1." },
  berth_add_seconds: {
    kind: "histogram",
    labels: ["outcome"],
    help: "ADDs from the request's arrival to its answer, waiting included; outcome is ok or an error code.",
    buckets: ADD_BUCKETS,
  },
  berth_add_held_seconds: {
    kind: "histogram",
    labels: [],
    help: "How long held ADDs waited for an address.",
    buckets: ADD_BUCKETS,
  },
  berth_adds_held: { kind: "gauge", labels: [], help: "ADDs that wait for an address now." },
  berth_del_seconds: {
    kind: "histogram",
    labels: ["outcome"],
    help: "DELs; outcome is ok, unknown (nothing was there) or an error code.",
    buckets: ADD_BUCKETS,
  },
  berth_addresses: {
    kind: "gauge",
    labels: ["state"],
    help: "Addresses by state: warm, coming (the ENI's link is awaited), allocated, cooling, leaving.",
  },
  berth_eni_addresses: { kind: "gauge", labels: ["eni", "state"], help: "The same, by ENI." },
  berth_enis: {
    kind: "gauge",
    labels: ["phase"],
    help: "ENIs by phase: awaiting-link, ready, leaving, loose (ours, on no instance), foreign (not ours to touch).",
  },
  berth_prefixes: {
    kind: "gauge",
    labels: ["state"],
    help: "Delegated /28 prefixes: held, and free ones of them that no pod uses.",
  },
  berth_address_slots: {
    kind: "gauge",
    labels: ["state"],
    help: "Places for an address or prefix on the attached ENIs: all, used.",
  },
  berth_target: {
    kind: "gauge",
    labels: ["setting"],
    help: "Targets in force after precedence: warm-addresses, minimum-addresses, warm-prefixes.",
  },
  berth_call_in_doubt: {
    kind: "gauge",
    labels: [],
    help: "1 while the outcome of an EC2 call is not known.",
  },
  berth_obstacles: { kind: "gauge", labels: ["kind"], help: "What keeps the pool from growing now." },
  berth_node_schedulable: { kind: "gauge", labels: [], help: "0 while the node is cordoned." },
  berth_pool_holds_total: {
    kind: "counter",
    labels: ["reason"],
    help: "Looks at the pool that ended without an action, by reason.",
  },
  berth_ec2_call_seconds: {
    kind: "histogram",
    labels: ["operation", "outcome"],
    help: "EC2 calls; outcome is ok or the failure's kind.",
    buckets: EC2_BUCKETS,
  },
  berth_ec2_failures_total: {
    kind: "counter",
    labels: ["operation", "kind"],
    help: "EC2 calls that failed, by kind.",
  },
  berth_removed_total: {
    kind: "counter",
    labels: ["what"],
    help: "What recovery and sweep took away, since nobody owned it.",
  },
  berth_repaired_total: {
    kind: "counter",
    labels: ["what"],
    help: "What was put back, since something else had changed it.",
  },
  berth_checkpoint_seconds: {
    kind: "histogram",
    labels: ["outcome"],
    help: "Saves of the checkpoint: ok or failed.",
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1],
  },
  berth_checkpoint_bytes: { kind: "gauge", labels: [], help: "Size of the last checkpoint." },
  berth_journal_dels_total: {
    kind: "counter",
    labels: ["outcome"],
    help: "DELs from the journal: played or unreadable.",
  },
  berth_unreadable_total: {
    kind: "counter",
    labels: ["what"],
    help: "Messages, lines and files that could not be read, by kind.",
  },
  berth_event_loop_delay_seconds: {
    kind: "gauge",
    labels: ["quantile"],
    help: "Delay of the event loop since the last scrape: 0.5, 0.99, 1.",
  },
  process_resident_memory_bytes: { kind: "gauge", labels: [], help: "Resident memory." },
  process_cpu_seconds_total: { kind: "counter", labels: [], help: "CPU time of the daemon." },
  process_open_fds: { kind: "gauge", labels: [], help: "Open file descriptors." },
  process_start_time_seconds: {
    kind: "gauge",
    labels: [],
    help: "When the daemon started, in seconds since 1970.",
  },
} as const satisfies Record<string, MetricRow>;

export type MetricName = keyof typeof METRICS;

/** The names of one kind. */
export type NamesOf<Kind extends MetricRow["kind"]> = {
  [Name in MetricName]: (typeof METRICS)[Name]["kind"] extends Kind ? Name : never;
}[MetricName];
export type GaugeName = NamesOf<"gauge">;

/** The incumbent's metrics that have no meaning here, and why. The reference page lists them. */
export const METRICS_LEFT_OUT = {
  awscni_pod_eni_error_count: "there are no branch ENIs yet",
  awscni_aws_utils_error_count: "awscni_aws_api_error_count and berth_ec2_failures_total tell it",
  awscni_connmark_reconcile_total: "berth_repaired_total tells it",
} as const;
