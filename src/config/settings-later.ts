/**
 * The incumbent's settings that have no feature of ours behind them yet, and those that nobody reads any more. They are known, so
 * that a node set up for the AWS VPC CNI starts; asking for what is not there is refused where going on would break a promise
 * (who may talk to whom, which subnet or family a pod is in, who may call EC2), and said aloud where it would not.
 */
import { anyText, GO_BOOLEAN_ALLOWED, goBoolean, oneOf, type Setting, setting } from "./setting.ts";

type BooleanRow = {
  readonly name: string;
  readonly default: "true" | "false";
  readonly meaning: string;
  readonly asksWhen: boolean; // The value that asks for the feature.
  readonly onUse: "refuse" | "warn";
  readonly instead: string;
};

function laterBoolean(row: BooleanRow): Setting<typeof goBoolean> {
  const letters = row.asksWhen ? ["1", "t"] : ["0", "f"];
  return setting({
    name: row.name,
    unit: "boolean",
    default: row.default,
    allowed: GO_BOOLEAN_ALLOWED,
    meaning: row.meaning,
    schema: goBoolean,
    onBad: "default",
    stage: "later",
    later: {
      asks: (text) => letters.includes(text.slice(0, 1).toLowerCase()),
      onUse: row.onUse,
      instead: row.instead,
    },
  });
}

/** Says something only about a feature that is not there: any value is taken, since nothing reads it. */
function laterText(row: {
  name: string;
  default: string;
  unit: string;
  meaning: string;
}): Setting<typeof anyText> {
  return setting({ ...row, allowed: "any text", schema: anyText, onBad: "default", stage: "later" });
}

function noLongerRead(name: string, meaning: string): Setting<typeof anyText> {
  return setting({
    name,
    unit: "boolean",
    default: "",
    allowed: "any text",
    meaning,
    schema: anyText,
    onBad: "default",
    stage: "warned",
  });
}

export const LATER_SETTINGS = {
  customNetworking: laterBoolean({
    name: "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
    default: "false",
    meaning: "Subnet and security groups of the pods' ENIs come from an ENIConfig object.",
    asksWhen: true,
    onUse: "refuse",
    instead:
      "pods would get addresses of the wrong subnet; BERTH_POD_SUBNET_IDS and BERTH_POD_SECURITY_GROUP_IDS name them",
  }),
  eniConfigAnnotation: laterText({
    name: "ENI_CONFIG_ANNOTATION_DEF",
    default: "k8s.amazonaws.com/eniConfig",
    unit: "annotation key",
    meaning: "With custom networking: the node annotation that names the ENIConfig.",
  }),
  eniConfigLabel: laterText({
    name: "ENI_CONFIG_LABEL_DEF",
    default: "k8s.amazonaws.com/eniConfig",
    unit: "label key",
    meaning: "With custom networking: the node label that names the ENIConfig.",
  }),
  subnetDiscovery: setting({
    name: "ENABLE_SUBNET_DISCOVERY",
    unit: "boolean",
    default: "true",
    allowed: GO_BOOLEAN_ALLOWED,
    meaning:
      "New ENIs go to the tagged subnet with most room. Until then: to BERTH_POD_SUBNET_IDS, or to the node's own subnet.",
    schema: goBoolean,
    onBad: "default",
    stage: "later", // On by default in the incumbent, where no tagged subnet means the node's own: both values are taken quietly.
  }),
  ipv6: laterBoolean({
    name: "ENABLE_IPv6",
    default: "false",
    meaning: "Pods get IPv6 addresses from one /80 prefix.",
    asksWhen: true,
    onUse: "refuse",
    instead: "pods would get no address of that family",
  }),
  v4Egress: laterBoolean({
    name: "ENABLE_V4_EGRESS",
    default: "true",
    meaning: "Pods of an IPv6 cluster reach IPv4 destinations by a second link.",
    asksWhen: false,
    onUse: "warn",
    instead: "there is no IPv6 mode, so it has no effect",
  }),
  v6Egress: laterBoolean({
    name: "ENABLE_V6_EGRESS",
    default: "false",
    meaning: "Pods of an IPv4 cluster reach IPv6 destinations by a second link.",
    asksWhen: true,
    onUse: "warn",
    instead: "pods reach IPv4 destinations only",
  }),
  disablePodIpv6: laterBoolean({
    name: "DISABLE_POD_V6",
    default: "false",
    meaning: "Switches IPv6 off inside pods.",
    asksWhen: true,
    onUse: "warn",
    instead: "pods keep their IPv6 link-local address",
  }),
  bandwidth: laterBoolean({
    name: "ENABLE_BANDWIDTH_PLUGIN",
    default: "false",
    meaning: "Chains the bandwidth plugin, which limits pods by annotation.",
    asksWhen: true,
    onUse: "warn",
    instead: "pods are not limited",
  }),
  disableEarlyDemux: laterBoolean({
    name: "DISABLE_TCP_EARLY_DEMUX",
    default: "false",
    meaning: "Switches TCP early demultiplexing off, for probes of pods on branch ENIs.",
    asksWhen: true,
    onUse: "warn",
    instead: "the node's own value is left alone",
  }),
  podEni: laterBoolean({
    name: "ENABLE_POD_ENI",
    default: "false",
    meaning: "Security groups for single pods, by trunk and branch ENIs.",
    asksWhen: true,
    onUse: "refuse",
    instead: "pods would run without their security groups",
  }),
  podSecurityGroupMode: setting({
    name: "POD_SECURITY_GROUP_ENFORCING_MODE",
    unit: "choice",
    default: "strict",
    allowed: "strict or standard",
    meaning: "With ENABLE_POD_ENI: how the traffic of pods on branch ENIs is led.",
    schema: oneOf(["strict", "standard"]),
    onBad: "default",
    stage: "later",
  }),
  multiNic: laterBoolean({
    name: "ENABLE_MULTI_NIC",
    default: "false",
    meaning: "Manages network cards above 0, and gives pods an address on each.",
    asksWhen: true,
    onUse: "warn",
    instead: "pods get one address, and other network cards are left alone",
  }),
  networkPolicyMode: setting({
    name: "NETWORK_POLICY_ENFORCING_MODE",
    unit: "choice",
    default: "standard",
    allowed: "none, standard or strict",
    meaning: "How network policies bind a pod until they are known: standard allows, strict denies.",
    schema: oneOf(["none", "standard", "strict"]),
    onBad: "refuse", // A word that we do not know may ask for denial.
    stage: "later",
    later: {
      asks: (text) => text === "strict",
      onUse: "refuse",
      instead: "pods would be open to all where denial was asked for",
    },
  }),
  imdsOnly: laterBoolean({
    name: "ENABLE_IMDS_ONLY_MODE",
    default: "false",
    meaning: "No EC2 calls at all: what the instance metadata service shows at start is used.",
    asksWhen: true,
    onUse: "refuse",
    instead: "EC2 would be called; DISABLE_NETWORK_RESOURCE_PROVISIONING=true changes nothing there",
  }),
  incumbentCheckpointPath: laterText({
    name: "AWS_VPC_K8S_CNI_BACKING_STORE",
    default: "/var/run/aws-node/ipam.json",
    unit: "path",
    meaning: "The incumbent's checkpoint, for taking over its pods. Ours is BERTH_CHECKPOINT_PATH.",
  }),
  pluginLogFile: laterText({
    name: "AWS_VPC_K8S_PLUGIN_LOG_FILE",
    default: "/var/log/aws-routed-eni/plugin.log",
    unit: "path",
    meaning: "The incumbent's plugin log. Our plugin writes none: the daemon logs each call.",
  }),
  pluginLogLevel: laterText({
    name: "AWS_VPC_K8S_PLUGIN_LOG_LEVEL",
    default: "DEBUG",
    unit: "choice",
    meaning: "The level of that log.",
  }),
  egressV4PluginLogFile: laterText({
    name: "AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE",
    default: "/var/log/aws-routed-eni/egress-v4-plugin.log",
    unit: "path",
    meaning: "The log of the incumbent's egress plugin.",
  }),
  egressV6PluginLogFile: laterText({
    name: "AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE",
    default: "/var/log/aws-routed-eni/egress-v6-plugin.log",
    unit: "path",
    meaning: "The log of the incumbent's egress plugin.",
  }),
  incumbentVersion: laterText({
    name: "VPC_CNI_VERSION",
    default: "",
    unit: "text",
    meaning: "Set by the incumbent's manifest for its user agent. Ours tells Berth's own version.",
  }),
  nftables: noLongerRead(
    "ENABLE_NFTABLES",
    "No longer read by the incumbent either: Berth always uses nftables.",
  ),
  configureRpFilter: noLongerRead(
    "AWS_VPC_K8S_CNI_CONFIGURE_RPFILTER",
    "No longer read by the incumbent either: Berth sets what its routes need.",
  ),
} as const;
