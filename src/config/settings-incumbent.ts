/**
 * The settings that a node set up for the AWS VPC CNI carries and that Berth follows, by the incumbent's names.
 * They are tolerant as the incumbent is; where its code and its manifest differ, the manifest's default stands here.
 */
import * as v from "valibot";
import {
  absolutePath,
  bindAddress,
  dropBadCidrs,
  GO_BOOLEAN_ALLOWED,
  goBoolean,
  goBooleanInverted,
  integer,
  ipv4Cidrs,
  oneOf,
  optional,
  parsed,
  positiveOrNull,
  seconds,
  setting,
} from "./setting.ts";

const COUNT_MAX = 1_000_000; // The planner bounds targets by what the instance type can hold.

const poolSettings = {
  warmEniTarget: setting({
    name: "WARM_ENI_TARGET",
    unit: "ENIs",
    default: "1",
    allowed: "an integer from 0",
    meaning:
      "Keep as many warm addresses as this many whole ENIs hold. Ignored while WARM_IP_TARGET or MINIMUM_IP_TARGET is set, and in prefix mode. 0: grow only when a pod waits.",
    schema: integer(0, COUNT_MAX),
    onBad: "default",
    stage: "core",
  }),
  warmIpTarget: setting({
    name: "WARM_IP_TARGET",
    unit: "addresses",
    default: "0",
    allowed: "an integer from 0; 0 is off",
    meaning:
      "Keep this many warm addresses. Overrides WARM_ENI_TARGET and WARM_PREFIX_TARGET. Cooling addresses are not counted as warm.",
    schema: positiveOrNull(0, COUNT_MAX),
    onBad: "default",
    stage: "core",
  }),
  minimumIpTarget: setting({
    name: "MINIMUM_IP_TARGET",
    unit: "addresses",
    default: "0",
    allowed: "an integer from 0; 0 is off",
    meaning: "Hold at least this many addresses in all, used or not.",
    schema: positiveOrNull(0, COUNT_MAX),
    onBad: "default",
    stage: "core",
  }),
  warmPrefixTarget: setting({
    name: "WARM_PREFIX_TARGET",
    unit: "/28 prefixes",
    default: "1",
    allowed: "an integer from 0",
    meaning:
      "In prefix mode, keep this many wholly unused prefixes. Ignored while WARM_IP_TARGET or MINIMUM_IP_TARGET is set.",
    schema: integer(0, COUNT_MAX),
    onBad: "default",
    stage: "core",
  }),
  prefixDelegation: setting({
    name: "ENABLE_PREFIX_DELEGATION",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "Take delegated /28 prefixes in place of single secondary addresses. Needs a Nitro instance.",
    schema: goBoolean,
    onBad: "default",
    stage: "core",
  }),
  maxEni: setting({
    name: "MAX_ENI",
    unit: "ENIs",
    default: "-1",
    allowed: "an integer; below 1 is no limit",
    meaning:
      "At most this many ENIs on the node, the primary one included; the instance type's limit holds all the same.",
    schema: positiveOrNull(-COUNT_MAX, COUNT_MAX),
    onBad: "default",
    stage: "core",
  }),
  cooldownMs: setting({
    name: "IP_COOLDOWN_PERIOD",
    unit: "seconds",
    default: "30",
    allowed: "an integer from 0 to 86400",
    meaning:
      "How long a released address rests before another pod may get it. The end of the rest is saved, and outlives a restart.",
    schema: seconds(0, 86_400),
    onBad: "refuse",
    stage: "core",
  }),
  manageNonSchedulable: setting({
    name: "AWS_MANAGE_ENIS_NON_SCHEDULABLE",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "Go on attaching and detaching ENIs while the node is cordoned.",
    schema: goBoolean,
    onBad: "default",
    stage: "core",
  }),
  provisioning: setting({
    name: "DISABLE_NETWORK_RESOURCE_PROVISIONING",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning:
      "True: change nothing in EC2, and use only the ENIs and addresses that are there. Also stops tagging and the leak sweep.",
    schema: goBooleanInverted,
    onBad: "default",
    stage: "core",
  }),
  deleteLeakedEnis: setting({
    name: "DISABLE_LEAKED_ENI_CLEANUP",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "True: unattached ENIs that this node once made and lost are left alone.",
    schema: goBooleanInverted,
    onBad: "default",
    stage: "core",
  }),
} as const;

const ownershipSettings = {
  manageUntagged: setting({
    name: "MANAGE_UNTAGGED_ENI",
    unit: "boolean",
    default: "true",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "False: attached ENIs without our owner tag are left alone, the primary one excepted.",
    schema: goBoolean,
    onBad: "default",
    stage: "core",
  }),
  clusterName: setting({
    name: "CLUSTER_NAME",
    unit: "text",
    default: "",
    allowed: "a name of at most 100 characters, or nothing",
    meaning:
      "Tags our ENIs with the cluster, and keeps the leak sweep to them. Without it the sweep keeps to this instance's own.",
    schema: optional(parsed((text) => (/^[^\p{Cc}]{1,100}$/u.test(text) ? text : undefined))),
    onBad: "default",
    stage: "core",
  }),
  additionalEniTags: setting({
    name: "ADDITIONAL_ENI_TAGS",
    unit: "JSON object of texts",
    default: "{}",
    allowed: 'a JSON object of texts, such as {"team":"network"}; at most 40 keys',
    meaning: "More tags for our ENIs. Keys that contain k8s.amazonaws.com are left out: they are ours.",
    schema: parsed(parseTags),
    tolerate: dropReservedTags,
    onBad: "default",
    stage: "core",
  }),
} as const;

const egressSettings = {
  externalSnat: setting({
    name: "AWS_VPC_K8S_CNI_EXTERNALSNAT",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "True: the node does no source NAT; pods leave the VPC by their own ENI and a gateway does it.",
    schema: goBoolean,
    onBad: "default",
    stage: "core",
  }),
  excludeSnatCidrs: setting({
    name: "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
    unit: "IPv4 CIDRs",
    default: "",
    allowed: "IPv4 CIDRs, separated by commas",
    meaning: "Destinations outside the VPC that see the pod's own address.",
    schema: ipv4Cidrs,
    tolerate: dropBadCidrs,
    onBad: "default",
    stage: "core",
  }),
  randomizeSnat: setting({
    name: "AWS_VPC_K8S_CNI_RANDOMIZESNAT",
    unit: "choice",
    default: "prng",
    allowed: "prng, hashrandom or none",
    meaning: "How source ports are chosen: at random, by a seeded hash, or kept where possible.",
    schema: oneOf(["prng", "hashrandom", "none"]),
    onBad: "default",
    stage: "core",
  }),
  externalServiceCidrs: setting({
    name: "AWS_EXTERNAL_SERVICE_CIDRS",
    unit: "IPv4 CIDRs",
    default: "",
    allowed: "IPv4 CIDRs, separated by commas",
    meaning: "Destinations that are looked up in the main table, whatever ENI the pod is on.",
    schema: ipv4Cidrs,
    tolerate: dropBadCidrs,
    onBad: "default",
    stage: "core",
  }),
  nodePortSupport: setting({
    name: "AWS_VPC_CNI_NODE_PORT_SUPPORT",
    unit: "boolean",
    default: "true",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning:
      "Replies to connections that came in by the primary ENI leave by it, whatever ENI the pod is on.",
    schema: goBoolean,
    onBad: "default",
    stage: "core",
  }),
  connmark: setting({
    name: "AWS_VPC_K8S_CNI_CONNMARK",
    unit: "packet mark bit",
    default: "0x80",
    allowed: "one bit from 0x40 to 0x80000000, decimal or hexadecimal",
    meaning:
      "The mark bit for connections that belong to the primary ENI. Bits 0x3f number the ENIs; 0xc000 belongs to kube-proxy.",
    schema: parsed(parseMark),
    onBad: "default",
    stage: "core",
  }),
} as const;

const linkSettings = {
  eniMtu: setting({
    name: "AWS_VPC_ENI_MTU",
    unit: "bytes",
    default: "9001",
    allowed: "an integer from 576 to 9001",
    meaning: "MTU of the ENIs' links, the primary one's included.",
    schema: integer(576, 9_001),
    onBad: "refuse",
    stage: "core",
  }),
  podMtu: setting({
    name: "POD_MTU",
    unit: "bytes",
    default: "",
    allowed: "an integer from 576 to 9001",
    meaning: "MTU of the pods' links; not set: that of the ENIs. Running pods keep theirs.",
    schema: optional(integer(576, 9_001)),
    onBad: "refuse",
    stage: "core",
  }),
  hostLinkPrefix: setting({
    name: "AWS_VPC_K8S_CNI_VETHPREFIX",
    unit: "text",
    default: "eni",
    allowed:
      "1 to 4 letters or digits that no ENI's link begins with (eth, ens, enp, enX, vlan, lo, bwp are taken)",
    meaning: "The names of the pods' host links begin with it.",
    schema: parsed(parseLinkPrefix),
    onBad: "refuse",
    stage: "core",
  }),
  ipv4: setting({
    name: "ENABLE_IPv4",
    unit: "boolean",
    default: "true",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "Pods get IPv4 addresses. Exactly one of this and ENABLE_IPv6 is true.",
    schema: goBoolean,
    onBad: "default",
    stage: "core",
  }),
} as const;

const edgeSettings = {
  logLevel: setting({
    name: "AWS_VPC_K8S_CNI_LOGLEVEL",
    unit: "choice",
    default: "DEBUG",
    allowed: "DEBUG, INFO, WARN, ERROR or FATAL, in any case",
    meaning: "The least important log line that is written.",
    schema: oneOf(["DEBUG", "INFO", "WARN", "ERROR", "FATAL"], { anyCase: true }),
    onBad: "default",
    stage: "core",
  }),
  incumbentLogFile: setting({
    name: "AWS_VPC_K8S_CNI_LOG_FILE",
    unit: "path",
    default: "stdout",
    allowed: "an absolute path, stdout or stderr",
    meaning: "A rotated log file beside stdout, which always gets the log. BERTH_LOG_FILE goes before it.",
    schema: parsed((text) =>
      text === "stdout" || text === "stderr" ? null : v.is(absolutePath, text) ? text : undefined,
    ),
    onBad: "default",
    stage: "core",
  }),
  metrics: setting({
    name: "DISABLE_METRICS",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "True: no metrics are served.",
    schema: goBooleanInverted,
    onBad: "default",
    stage: "core",
  }),
  introspection: setting({
    name: "DISABLE_INTROSPECTION",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: "True: the introspection address is not opened. The root-only state socket stays.",
    schema: goBooleanInverted,
    onBad: "default",
    stage: "core",
  }),
  introspectionBind: setting({
    name: "INTROSPECTION_BIND_ADDRESS",
    unit: "address",
    default: "127.0.0.1:61679",
    allowed: "a loopback host:port, or unix:<absolute path>",
    meaning:
      "Where /state and the incumbent's /v1 pages are served. Only loopback and Unix sockets are allowed.",
    schema: bindAddress({ unix: true, loopbackOnly: true }),
    onBad: "default",
    stage: "core",
  }),
  hostBinDirectory: setting({
    name: "HOST_CNI_BIN_PATH",
    unit: "path",
    default: "/host/opt/cni/bin",
    allowed: "an absolute path",
    meaning: "The host's CNI plugin directory as the daemon sees it; the plugin is put there.",
    schema: absolutePath,
    onBad: "refuse",
    stage: "core",
  }),
  hostConfDirectory: setting({
    name: "HOST_CNI_CONFDIR_PATH",
    unit: "path",
    default: "/host/etc/cni/net.d",
    allowed: "an absolute path",
    meaning:
      "The host's CNI configuration directory as the daemon sees it; the network configuration is put there.",
    schema: absolutePath,
    onBad: "refuse",
    stage: "core",
  }),
  ec2AttemptTimeoutMs: setting({
    name: "HTTP_TIMEOUT",
    unit: "seconds",
    default: "10",
    allowed: "an integer from 10 to 600",
    meaning: "The deadline of one attempt of an EC2 call. Less than 10 counts as 10, as in the incumbent.",
    schema: seconds(10, 600),
    onBad: "default", // Less than 10 is "bad", so it becomes 10.
    stage: "core",
  }),
  annotatePodIp: setting({
    name: "ANNOTATE_POD_IP",
    unit: "boolean",
    default: "false",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning:
      "Write a pod's address into its annotation vpc.amazonaws.com/pod-ips, soon after its ADD. No ADD waits for it or fails with it. Needs the right to patch pods.",
    schema: goBoolean,
    onBad: "default",
    stage: "core",
  }),
  clusterEndpoint: setting({
    name: "CLUSTER_ENDPOINT",
    unit: "URL",
    default: "",
    allowed: "a URL that begins with https://, or nothing",
    meaning:
      "The API server, reached without kube-proxy; not set: by the Service's address that Kubernetes puts into each pod.",
    schema: optional(parsed((text) => (/^https:\/\/[^\s/]+\/?$/.test(text) ? text : undefined))),
    onBad: "default",
    stage: "core",
  }),
  podName: setting({
    name: "MY_POD_NAME",
    unit: "text",
    default: "",
    allowed: "a pod's name, or nothing",
    meaning: "The daemon's own pod, on which events tell of missing rights.",
    schema: optional(parsed((text) => (/^[a-z0-9.-]{1,253}$/.test(text) ? text : undefined))),
    onBad: "default",
    stage: "core",
  }),
  nodeName: setting({
    name: "MY_NODE_NAME",
    unit: "text",
    default: "",
    allowed: "a Kubernetes node's name, or nothing",
    meaning: "This node's name in Kubernetes. Without it the API server is not asked for anything.",
    schema: optional(parsed((text) => (/^[a-z0-9.-]{1,253}$/.test(text) ? text : undefined))),
    onBad: "default",
    stage: "core",
  }),
} as const;

export const INCUMBENT_SETTINGS = {
  ...poolSettings,
  ...ownershipSettings,
  ...egressSettings,
  ...linkSettings,
  ...edgeSettings,
} as const;

/** EC2 takes 50 tags a resource; ten are kept for ours and for AWS's own. */
function parseTags(text: string): Readonly<Record<string, string>> | undefined {
  const tags = jsonObject(text);
  if (tags === undefined) return undefined;
  const entries = Object.entries(tags);
  const good = entries.filter(
    (entry): entry is [string, string] =>
      typeof entry[1] === "string" && entry[0] !== "" && entry[0].length <= 128 && entry[1].length <= 256,
  );
  return good.length === entries.length && entries.length <= 40 ? Object.fromEntries(good) : undefined;
}

function dropReservedTags(text: string): { readonly text: string; readonly warning: string } | null {
  const tags = jsonObject(text);
  if (tags === undefined) return null;
  const reserved = Object.keys(tags).filter((key) => key.includes("k8s.amazonaws.com"));
  if (reserved.length === 0) return null;
  return {
    text: JSON.stringify(Object.fromEntries(Object.entries(tags).filter(([key]) => !reserved.includes(key)))),
    warning: `left out, since keys with k8s.amazonaws.com are ours: ${reserved.join(", ").slice(0, 200)}`,
  };
}

function jsonObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const object = v.safeParse(v.record(v.string(), v.unknown()), value);
    return object.success && !Array.isArray(value) ? object.output : undefined;
  } catch {
    return undefined; // Not JSON: the row says what is allowed.
  }
}

/** One bit above the six that number the ENIs (core/plumbing/names.ts, ENI_MARK_MASK). */
function parseMark(text: string): number | undefined {
  if (!/^(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isInteger(Math.log2(value)) && value >= 0x40 && value <= 0x8000_0000 ? value : undefined;
}

/** A prefix that an ENI's or another program's link may begin with would put that link under the pods' rules. */
function parseLinkPrefix(text: string): string | undefined {
  if (!/^[A-Za-z0-9]{1,4}$/.test(text)) return undefined;
  const taken = ["eth", "ens", "enp", "enx", "vlan", "lo", "bwp"];
  const clash = taken.some(
    (word) => word.startsWith(text.toLowerCase()) || text.toLowerCase().startsWith(word),
  );
  return clash ? undefined : text;
}
