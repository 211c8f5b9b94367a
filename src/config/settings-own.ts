/** Berth's own settings. Their names begin with BERTH_ and end in their unit; a value or name that is wrong stops the daemon. */
import type * as v from "valibot";
import type { SecurityGroupId, SubnetId } from "../core/model/eni.ts";
import {
  absolutePath,
  bindAddress,
  integer,
  oneOf,
  optional,
  parsed,
  seconds,
  type Setting,
  setting,
  splitList,
  strictBoolean,
  type TextSchema,
} from "./setting.ts";

function own<S extends TextSchema>(row: Omit<Setting<S>, "onBad" | "stage">): Setting<S> {
  return setting({ ...row, onBad: "refuse", stage: "core" });
}

function path(name: string, fallback: string, meaning: string): Setting<typeof absolutePath> {
  return own({
    name,
    unit: "path",
    default: fallback,
    allowed: "an absolute path",
    meaning,
    schema: absolutePath,
  });
}

/** A path that lies in the run directory unless it is set. */
function runPath(name: string, meaning: string): Setting<v.GenericSchema<string, string | null>> {
  return own({
    name,
    unit: "path",
    default: "",
    allowed: "an absolute path",
    meaning,
    schema: optional(absolutePath),
  });
}

function count(
  name: string,
  unit: string,
  fallback: number,
  range: readonly [low: number, high: number],
  meaning: string,
): Setting<v.GenericSchema<string, number>> {
  const [low, high] = range;
  return own({
    name,
    unit,
    default: `${fallback}`,
    allowed: `an integer from ${low} to ${high}`,
    meaning,
    schema: unit === "seconds" ? seconds(low, high) : integer(low, high),
  });
}

function ids<Id extends string>(
  name: string,
  letters: string,
  meaning: string,
): Setting<v.GenericSchema<string, readonly Id[]>> {
  const pattern = new RegExp(`^${letters}-[0-9a-f]{8,17}$`);
  return own({
    name,
    unit: "ids",
    default: "",
    allowed: `ids (${letters}-…), separated by commas, or nothing`,
    meaning,
    schema: parsed((text) => {
      const parts = splitList(text);
      return parts.every((part): part is Id => pattern.test(part)) ? parts : undefined;
    }),
  });
}

export const OWN_SETTINGS = {
  runDirectory: path(
    "BERTH_RUN_DIRECTORY",
    "/run/berth",
    "Sockets, lock and checkpoint are kept here, root only.",
  ),
  cniSocketPath: runPath(
    "BERTH_SOCKET_PATH",
    "Where the plugin reaches the daemon; not set: berth.sock in the run directory.",
  ),
  stateSocketPath: runPath(
    "BERTH_STATE_SOCKET_PATH",
    "Where root reads /state without a port; not set: state.sock in the run directory.",
  ),
  checkpointPath: runPath(
    "BERTH_CHECKPOINT_PATH",
    "Who got which address; not set: checkpoint.json in the run directory, which a reboot empties. A path on disk is told apart by boot.",
  ),
  journalDirectory: path(
    "BERTH_JOURNAL_DIRECTORY",
    "/var/lib/berth/journal",
    "DELs that came while the daemon was down. On disk, since a DEL must outlive a reboot.",
  ),
  cniCacheDirectory: path(
    "BERTH_CNI_CACHE_DIRECTORY",
    "/var/lib/cni",
    "libcni's cache, one of the traces of living sandboxes.",
  ),
  procSysDirectory: path(
    "BERTH_PROC_SYS_DIRECTORY",
    "/proc/sys",
    "Where the kernel's switches are read and written.",
  ),
  shimPath: own({
    name: "BERTH_SHIM_PATH",
    unit: "path",
    default: "",
    allowed: "an absolute path",
    meaning: "The plugin's file that is copied to the host; not set: the one beside the daemon's own file.",
    schema: optional(absolutePath),
  }),
  installOnHost: own({
    name: "BERTH_INSTALL_ON_HOST",
    unit: "boolean",
    default: "true",
    allowed: "true or false",
    meaning: "Put the plugin and the network configuration on the host at start.",
    schema: strictBoolean,
  }),
  networkName: own({
    name: "BERTH_NETWORK_NAME",
    unit: "text",
    default: "aws-cni",
    allowed: "letters, digits, dots, dashes and underscores, at most 64",
    meaning:
      "The network's name in the configuration. The incumbent's by default, so that sandboxes keep their keys when one follows the other.",
    schema: parsed((text) => (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(text) ? text : undefined)),
  }),
  chainPortmap: own({
    name: "BERTH_CHAIN_PORTMAP",
    unit: "boolean",
    default: "true",
    allowed: "true or false",
    meaning: "Chain the reference plugin portmap, which serves host ports.",
    schema: strictBoolean,
  }),
  dataPath: own({
    name: "BERTH_DATA_PATH",
    unit: "choice",
    default: "routed",
    allowed: "routed or ipvlan",
    meaning:
      "How new pods are joined to the node and the VPC: routed is a veth pair a pod; ipvlan is a slave of the ENI and a veth pair. Running pods keep theirs.",
    schema: oneOf(["routed", "ipvlan"]),
  }),
  prefixFallback: own({
    name: "BERTH_PREFIX_FALLBACK",
    unit: "choice",
    default: "addresses",
    allowed: "addresses or none",
    meaning:
      "In prefix mode, while the subnet has no free /28: addresses gives pods that wait single ones, which go back later; none lets them wait.",
    schema: oneOf(["addresses", "none"]),
  }),
  podsOnPrimary: own({
    name: "BERTH_PODS_ON_PRIMARY_ENI",
    unit: "boolean",
    default: "true",
    allowed: "true or false",
    meaning: "Pods may have addresses of the primary ENI.",
    schema: strictBoolean,
  }),
  allNetworkCards: own({
    name: "BERTH_ALL_NETWORK_CARDS",
    unit: "boolean",
    default: "false",
    allowed: "true or false",
    meaning: "New ENIs may also go to network cards above 0, on instance types that have several.",
    schema: strictBoolean,
  }),
  podSubnets: ids<SubnetId>(
    "BERTH_POD_SUBNET_IDS",
    "subnet",
    "New ENIs go to the first of these that has room; none: the node's own subnet.",
  ),
  podSecurityGroups: ids<SecurityGroupId>(
    "BERTH_POD_SECURITY_GROUP_IDS",
    "sg",
    "Security groups of new ENIs; none: those of the primary ENI, followed as they change.",
  ),
  maxPods: own({
    name: "BERTH_MAX_PODS_COUNT",
    unit: "pods",
    default: "",
    allowed: "an integer from 1 to 1000, or nothing",
    meaning: "The node never holds more addresses than this; not set: what its ENIs can hold.",
    schema: optional(integer(1, 1_000)),
  }),
  eniLifeMinMs: count(
    "BERTH_ENI_LIFE_MIN_SECONDS",
    "seconds",
    60,
    [0, 86_400],
    "An ENI is not given back before it is this old.",
  ),
  refillIntervalMs: count(
    "BERTH_REFILL_INTERVAL_SECONDS",
    "seconds",
    5,
    [1, 3_600],
    "The pool is looked at this often when nothing else wakes it.",
  ),
  sweepIntervalMs: count(
    "BERTH_SWEEP_INTERVAL_SECONDS",
    "seconds",
    300,
    [1, 86_400],
    "How often EC2, the kernel and the runtime are compared with what the daemon believes.",
  ),
  leakGraceMs: count(
    "BERTH_LEAK_AGE_SECONDS",
    "seconds",
    300,
    [1, 86_400],
    "An unattached ENI of ours is deleted when it is this old.",
  ),
  repairIntervalMs: count(
    "BERTH_REPAIR_INTERVAL_SECONDS",
    "seconds",
    30,
    [1, 3_600],
    "The kernel's links, routes and rules are looked at this often when no event wakes the look.",
  ),
  linkWaitMs: count(
    "BERTH_LINK_WAIT_SECONDS",
    "seconds",
    30,
    [1, 3_600],
    "An attached ENI whose link has not come after this long is not counted on any more.",
  ),
  obstacleMs: count(
    "BERTH_SUBNET_PAUSE_SECONDS",
    "seconds",
    120,
    [1, 3_600],
    "An exhausted subnet is left alone this long.",
  ),
  addHoldMs: count(
    "BERTH_ADD_HOLD_SECONDS",
    "seconds",
    25,
    [0, 28],
    "How long an ADD may wait for an address. The plugin gives up after 30 s, and an answer must come before that.",
  ),
  statusWhenEmpty: own({
    name: "BERTH_STATUS_WHEN_EMPTY",
    unit: "choice",
    default: "ready",
    allowed: "ready or not-ready",
    meaning:
      "What STATUS says while no address is warm and none can be had. not-ready takes the node out of scheduling.",
    schema: oneOf(["ready", "not-ready"]),
  }),
  statusGraceMs: count(
    "BERTH_STATUS_GRACE_SECONDS",
    "seconds",
    60,
    [0, 3_600],
    "STATUS forgives an absent daemon this long, so that a rollout does not make the node unready.",
  ),
  stopMs: count(
    "BERTH_STOP_SECONDS",
    "seconds",
    8,
    [0, 300],
    "How long running operations may take to finish after SIGTERM. Keep it below the pod's grace period.",
  ),
  ec2CallDeadlineMs: count(
    "BERTH_EC2_CALL_DEADLINE_SECONDS",
    "seconds",
    25,
    [1, 600],
    "The deadline of one EC2 call with its attempts, its turn and the waits between.",
  ),
  ec2ChangesPerSecond: count(
    "BERTH_EC2_CHANGES_PER_SECOND",
    "calls a second",
    3,
    [1, 100],
    "One node's steady pace of each EC2 operation that changes something. The account's bucket is shared by all nodes.",
  ),
  ec2ReadsPerSecond: count(
    "BERTH_EC2_READS_PER_SECOND",
    "calls a second",
    5,
    [1, 100],
    "The same for each EC2 operation that only reads.",
  ),
  metricsBind: own({
    name: "BERTH_METRICS_BIND_ADDRESS",
    unit: "address",
    default: "0.0.0.0:61678",
    allowed: "host:port, or :port for all addresses",
    meaning: "Where /metrics is served. The incumbent's port, on all addresses, since scrapers look there.",
    schema: bindAddress({ unix: false, loopbackOnly: false }),
  }),
  cordonFilePath: runPath(
    "BERTH_CORDON_FILE",
    "While this file is there the node counts as cordoned; not set: the file `cordoned` in the run directory.",
  ),
  useApiServer: own({
    name: "BERTH_USE_API_SERVER",
    unit: "boolean",
    default: "true",
    allowed: "true or false",
    meaning:
      "Watch this node's pods and Node object where there is an API server. Without it pods run all the same; they are not foreseen, and a cordon is not seen.",
    schema: strictBoolean,
  }),
  kubeconfigPath: own({
    name: "BERTH_KUBECONFIG",
    unit: "path",
    default: "",
    allowed: "an absolute path, or nothing",
    meaning: "How the API server is reached from outside of a pod; not set: by the pod's service account.",
    schema: optional(absolutePath),
  }),
  nodePoolsPath: path(
    "BERTH_NODE_POOLS_FILE",
    "/etc/berth/node-pools.json",
    "Settings by pool of nodes, from a mounted ConfigMap; it is read again as it changes. No such file: no pools.",
  ),
  probeBind: own({
    name: "BERTH_PROBE_BIND_ADDRESS",
    unit: "address",
    default: "127.0.0.1:61680",
    allowed: "host:port, or :port for all addresses",
    meaning: "Where /healthz and /readyz are served.",
    schema: bindAddress({ unix: false, loopbackOnly: false }),
  }),
  ownLogFile: own({
    name: "BERTH_LOG_FILE",
    unit: "path",
    default: "",
    allowed: "an absolute path, or nothing",
    meaning: "A rotated log file beside stdout.",
    schema: optional(absolutePath),
  }),
  logFileMaxBytes: count(
    "BERTH_LOG_FILE_MAX_BYTES",
    "bytes",
    100_000_000,
    [65_536, 10_000_000_000],
    "A log file is set aside when it is this big.",
  ),
  logFileKeepCount: count(
    "BERTH_LOG_FILE_KEEP_COUNT",
    "files",
    5,
    [1, 100],
    "Log files that were set aside and are kept.",
  ),
} as const;
