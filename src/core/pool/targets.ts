/** What the operator asks of the pool, and how far the pool is from it. Pure arithmetic: who grows or shrinks is decided elsewhere. */
import type { SecurityGroupId, SubnetId } from "../model/eni.ts";
import type { InstanceLimits } from "../model/instance.ts";

/** Addresses in one /28. */
export const PREFIX_SIZE = 16;

/**
 * The operator's settings for the pool. Names and meaning are those of the AWS VPC CNI's README; docs/reference/pool.md
 * tells which one wins. A target of 0 is the same as null: off.
 */
export type PoolSettings = {
  readonly warmEniTarget: number; // WARM_ENI_TARGET: ENIs' worth of free addresses. 0: grow only when nothing is free.
  readonly warmIpTarget: number | null; // WARM_IP_TARGET: free addresses.
  readonly minimumIpTarget: number | null; // MINIMUM_IP_TARGET: addresses held in all, used or not.
  readonly warmPrefixTarget: number | null; // WARM_PREFIX_TARGET: wholly free /28s. In prefix mode only.
  readonly prefixDelegation: boolean; // ENABLE_PREFIX_DELEGATION; without effect on an instance that is not Nitro.
  /** BERTH_PREFIX_FALLBACK: what pods that wait get while no /28 is free. `none` keeps a node's addresses to prefixes alone. */
  readonly prefixFallback: "addresses" | "none";
  readonly maxEni: number | null; // MAX_ENI: cap on all ENIs of the instance, foreign ones included.
  readonly maxPods: number | null; // What kubelet says; null when unknown.
  readonly cooldownMs: number; // IP_COOLDOWN_PERIOD
  readonly eniLifeMinMs: number; // A younger ENI is not detached.
  readonly linkWaitMs: number; // After that long without a link, an ENI's addresses are not counted on any more.
  readonly manageNonSchedulable: boolean; // AWS_MANAGE_ENIS_NON_SCHEDULABLE
  readonly provisioning: boolean; // False with DISABLE_NETWORK_RESOURCE_PROVISIONING: EC2 is never changed.
  readonly podsOnPrimary: boolean; // False with custom networking: the primary ENI serves the node alone.
  readonly allNetworkCards: boolean; // False: new ENIs go to card 0, as the AWS VPC CNI does unless told otherwise.
  readonly podSubnets: readonly SubnetId[]; // Where new ENIs go, best first. Empty: the node's own subnet.
  readonly podSecurityGroups: readonly SecurityGroupId[]; // Of new ENIs. Empty: those of the primary ENI.
  readonly expectedPods: number; // Bound to this node and without an address, as the API server tells; those that wait already are among them.
};

export const POOL_SETTINGS_DEFAULT: PoolSettings = {
  warmEniTarget: 1,
  warmIpTarget: null,
  minimumIpTarget: null,
  warmPrefixTarget: 1,
  prefixDelegation: false,
  prefixFallback: "addresses",
  maxEni: null,
  maxPods: null,
  cooldownMs: 30_000,
  eniLifeMinMs: 60_000,
  linkWaitMs: 30_000,
  manageNonSchedulable: false,
  provisioning: true,
  podsOnPrimary: true,
  allNetworkCards: false,
  podSubnets: [],
  podSecurityGroups: [],
  expectedPods: 0,
};

/** What EC2 is asked for: single secondary addresses, or /28s. */
export type Unit = "address" | "prefix";

/** The one target that is in force, after precedence. */
export type Rule = {
  readonly unit: Unit;
  readonly warm: number; // Free addresses wanted beside those for waiting ADDs.
  readonly minimum: number; // Addresses wanted in all.
  readonly warmPrefixes: number; // Wholly free prefixes wanted; 0 when the rule counts addresses.
  readonly wholeEnis: boolean; // Grow by filling ENIs, shrink by detaching them.
  readonly expected: number; // Pods that will ask, beyond those that wait already.
  readonly addressCountMax: number; // Allocated and free ones together; Infinity when unknown.
  readonly source: string; // The setting, for reasons and logs.
};

/** Precedence: WARM_IP and MINIMUM over WARM_PREFIX (prefix mode) and WARM_ENI (else). */
export function ruleOf(settings: PoolSettings, limits: InstanceLimits): Rule {
  const unit: Unit = settings.prefixDelegation && limits.nitro ? "prefix" : "address";
  const base = {
    unit,
    minimum: 0,
    warmPrefixes: 0,
    wholeEnis: false,
    expected: 0, // Known when a state is looked at.
    addressCountMax: settings.maxPods ?? Infinity,
  };
  const warmIp = settings.warmIpTarget ?? 0;
  const minimum = settings.minimumIpTarget ?? 0;
  if (warmIp > 0 || minimum > 0) {
    const parts = [
      warmIp > 0 ? [`WARM_IP_TARGET=${warmIp}`] : [],
      minimum > 0 ? [`MINIMUM_IP_TARGET=${minimum}`] : [],
    ];
    return { ...base, warm: warmIp, minimum, source: parts.flat().join(" ") };
  }
  if (unit === "prefix") {
    const warmPrefixes = settings.warmPrefixTarget ?? 0;
    return {
      ...base,
      warm: warmPrefixes > 0 ? 0 : 1,
      warmPrefixes,
      source: `WARM_PREFIX_TARGET=${warmPrefixes}`,
    };
  }
  // A target of 0 still wants one free address: it grows when nothing is free.
  const warm = Math.max(settings.warmEniTarget * (limits.addressesPerEni - 1), 1);
  return { ...base, warm, wholeEnis: true, source: `WARM_ENI_TARGET=${settings.warmEniTarget}` };
}

/**
 * Nothing is kept ready, but whoever waits is served. For a cordoned node, where a DaemonSet's pods may still come, and for
 * what a limit leaves no room for.
 */
export function demandOnly(rule: Rule): Rule {
  return { ...rule, warm: 0, minimum: 0, warmPrefixes: 0, wholeEnis: false, source: "waiting ADDs alone" };
}

/**
 * What the pool can count on: addresses on ENIs that pods may use, those whose link is awaited included, leaving ones not.
 * `free` is of the rule's own unit; `otherFree` is what another mode left behind: it serves those who wait, but no target.
 */
export type Stock = {
  readonly free: number;
  readonly otherFree: number;
  readonly allocated: number;
  readonly cooling: number;
  readonly freePrefixes: number; // Wholly free ones; their addresses are in `free` or, out of prefix mode, in `otherFree`.
};

/** How much is missing. `maxPods`: more would be wanted, were there not as many addresses as the node may have pods. */
export type Shortage = { readonly addresses: number; readonly prefixes: number; readonly maxPods: boolean };

/**
 * What the rule misses in this stock. Grows with `held`, the ADDs that wait, falls with `free`: so what may be taken away is found by asking
 * this same function about the stock without it, and growing and shrinking can never contradict each other.
 * `prefixes` is 0 unless the unit is a prefix; then `addresses` is what they are needed for.
 */
export function shortageOf(rule: Rule, stock: Stock, held: number): Shortage {
  const waiting = held + rule.expected; // Who will ask is served like who asks.
  const lent = Math.min(stock.otherFree, waiting);
  const room = Math.max(0, rule.addressCountMax - stock.allocated - stock.free);
  if (rule.warmPrefixes > 0) {
    const partlyFree = stock.free - PREFIX_SIZE * stock.freePrefixes + lent;
    const broken = Math.ceil(Math.max(0, waiting - partlyFree) / PREFIX_SIZE); // Whole ones that the waiting will break into.
    const wanted = Math.max(0, rule.warmPrefixes + broken - stock.freePrefixes);
    const prefixes = Math.min(wanted, Math.ceil(room / PREFIX_SIZE));
    return { addresses: prefixes * PREFIX_SIZE, prefixes, maxPods: prefixes < wanted };
  }
  const floor = rule.minimum - stock.allocated - stock.cooling;
  const wanted = Math.max(waiting - lent + rule.warm, floor) - stock.free;
  const addresses = Math.min(Math.max(0, wanted), room);
  const prefixes = rule.unit === "prefix" ? Math.ceil(addresses / PREFIX_SIZE) : 0;
  return { addresses, prefixes, maxPods: addresses < wanted };
}

export function isShort(shortage: Shortage): boolean {
  return shortage.addresses > 0;
}

/** Single addresses to ask for while no /28 is to be had: for those who wait and for WARM_IP_TARGET; no spare beyond. */
export function fallbackAddresses(rule: Rule, stock: Stock, waiting: number): number {
  const room = Math.max(0, rule.addressCountMax - stock.allocated - stock.free - stock.otherFree);
  const warm = rule.warmPrefixes > 0 ? 0 : rule.warm;
  return Math.min(Math.max(0, waiting + warm - stock.free - stock.otherFree), room);
}
