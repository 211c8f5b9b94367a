/** Settings that are right one by one and wrong together, and those that have no effect beside another. */
import { type BindAddress, printBindAddress } from "./setting.ts";
import type { Config, SettingKey } from "./settings.ts";

/** `refuse`: the daemon cannot do both. `warn`: it can go on, and the operator should know how. */
export type Contradiction = {
  readonly verdict: "refuse" | "warn";
  readonly keys: readonly SettingKey[];
  readonly detail: string;
};

type Rule = (config: Config, isSet: (key: SettingKey) => boolean) => readonly Contradiction[];

/** `isSet` tells whether the operator wrote a setting: only what was written can be said to have no effect. */
export function findContradictions(
  config: Config,
  isSet: (key: SettingKey) => boolean,
): readonly Contradiction[] {
  return RULES.flatMap((rule) => rule(config, isSet));
}

const RULES: readonly Rule[] = [
  families,
  prefixTargets,
  overriddenTargets,
  eniLimits,
  links,
  marks,
  snat,
  listeners,
  files,
];

function refuse(keys: readonly SettingKey[], detail: string): Contradiction {
  return { verdict: "refuse", keys, detail };
}

function warn(keys: readonly SettingKey[], detail: string): Contradiction {
  return { verdict: "warn", keys, detail };
}

function families({ ipv4, ipv6 }: Config): readonly Contradiction[] {
  if (ipv4 !== ipv6) return [];
  const both = ipv4 ? "both are on" : "neither is on";
  return [refuse(["ipv4", "ipv6"], `${both}; exactly one address family can be`)];
}

function prefixTargets(config: Config): readonly Contradiction[] {
  const { prefixDelegation, warmPrefixTarget, warmIpTarget, minimumIpTarget } = config;
  if (!prefixDelegation || warmPrefixTarget > 0 || warmIpTarget !== null || minimumIpTarget !== null)
    return [];
  return [
    refuse(
      ["prefixDelegation", "warmPrefixTarget", "warmIpTarget", "minimumIpTarget"],
      "in prefix mode one of the three targets must be above 0",
    ),
  ];
}

function overriddenTargets(config: Config, isSet: (key: SettingKey) => boolean): readonly Contradiction[] {
  const { prefixDelegation, warmIpTarget, minimumIpTarget, warmEniTarget, warmPrefixTarget } = config;
  // The incumbent's manifest writes both targets at 1: only another number shows that somebody expects an effect.
  const enis = isSet("warmEniTarget") && warmEniTarget !== 1;
  const prefixes = isSet("warmPrefixTarget") && warmPrefixTarget > 1;
  const found: Contradiction[] = [];
  if (warmIpTarget !== null || minimumIpTarget !== null) {
    const over: SettingKey = warmIpTarget !== null ? "warmIpTarget" : "minimumIpTarget";
    if (enis) found.push(warn(["warmEniTarget", over], "the first has no effect beside the second"));
    if (prefixes) found.push(warn(["warmPrefixTarget", over], "the first has no effect beside the second"));
    return found;
  }
  if (prefixDelegation && enis) {
    found.push(warn(["warmEniTarget", "prefixDelegation"], "the first has no effect in prefix mode"));
  }
  if (!prefixDelegation && prefixes) {
    found.push(warn(["warmPrefixTarget", "prefixDelegation"], "the first has an effect in prefix mode only"));
  }
  return found;
}

function eniLimits(config: Config): readonly Contradiction[] {
  const { maxEni, podsOnPrimary, warmEniTarget, warmIpTarget, minimumIpTarget, maxPods } = config;
  const found: Contradiction[] = [];
  if (maxEni === 1 && !podsOnPrimary) {
    found.push(refuse(["maxEni", "podsOnPrimary"], "no ENI is left that pods could use"));
  }
  if (maxEni !== null && warmIpTarget === null && minimumIpTarget === null && warmEniTarget > maxEni) {
    found.push(warn(["warmEniTarget", "maxEni"], "the target is above the limit and is never reached"));
  }
  if (maxPods !== null && (minimumIpTarget ?? 0) > maxPods) {
    found.push(warn(["minimumIpTarget", "maxPods"], "the node never holds more addresses than pods"));
  }
  return found;
}

function links({ eniMtu, podMtu }: Config): readonly Contradiction[] {
  if (podMtu <= eniMtu) return [];
  return [
    warn(["podMtu", "eniMtu"], "pods would send what their ENI cannot carry, and lean on path MTU discovery"),
  ];
}

function marks({ connmark }: Config): readonly Contradiction[] {
  if (connmark !== 0x4000 && connmark !== 0x8000) return [];
  return [warn(["connmark"], "the bit is one of kube-proxy's (0xc000)")];
}

function snat(config: Config): readonly Contradiction[] {
  if (!config.externalSnat || config.excludeSnatCidrs.length === 0) return [];
  return [
    warn(["excludeSnatCidrs", "externalSnat"], "the first has no effect: the node does no SNAT at all"),
  ];
}

function listeners(config: Config): readonly Contradiction[] {
  const open: readonly (readonly [SettingKey, BindAddress])[] = [
    ...(config.metrics ? ([["metricsBind", config.metricsBind]] as const) : []),
    ["probeBind", config.probeBind],
    ...(config.introspection ? ([["introspectionBind", config.introspectionBind]] as const) : []),
    ["cniSocketPath", { kind: "unix", path: config.cniSocketPath }],
    ["stateSocketPath", { kind: "unix", path: config.stateSocketPath }],
  ];
  const pairs = open.flatMap((left, index) => open.slice(index + 1).map((right) => [left, right] as const));
  return pairs
    .filter(([[, left], [, right]]) => collide(left, right))
    .map(([[leftKey, left], [rightKey]]) =>
      refuse([leftKey, rightKey], `both would listen on ${printBindAddress(left)}`),
    );
}

function collide(left: BindAddress, right: BindAddress): boolean {
  if (left.kind === "unix" || right.kind === "unix") {
    return left.kind === "unix" && right.kind === "unix" && left.path === right.path;
  }
  const everywhere = ["0.0.0.0", "::"];
  const hosts = left.host === right.host || everywhere.includes(left.host) || everywhere.includes(right.host);
  return left.port !== 0 && left.port === right.port && hosts;
}

function files(config: Config, isSet: (key: SettingKey) => boolean): readonly Contradiction[] {
  const found: Contradiction[] = [];
  if (config.checkpointPath === config.incumbentCheckpointPath) {
    const detail = "the incumbent stops at a version that it does not know; keep the two files apart";
    found.push(refuse(["checkpointPath", "incumbentCheckpointPath"], detail));
  }
  if (isSet("ownLogFile") && isSet("incumbentLogFile") && config.logFile !== null) {
    found.push(warn(["ownLogFile", "incumbentLogFile"], "the first is used"));
  }
  return found;
}
