/**
 * What the AWS VPC CNI documents of its warm pool: settings, and what a node without pods then holds. The first fourteen are its
 * expectations for each setting alone, the rest says which setting wins.
 */

/** What EC2 tells of one instance. Addresses without the ENIs' own. */
export type Held = { readonly enis: number; readonly addresses: number; readonly prefixes: number };

export type WarmPoolRow = {
  readonly settings: Readonly<Record<string, string>>;
  readonly holds: Partial<Held>;
};

const PREFIXES = { ENABLE_PREFIX_DELEGATION: "true" };

export const WARM_POOL_ROWS: readonly WarmPoolRow[] = [
  { settings: { WARM_ENI_TARGET: "2" }, holds: { enis: 2 } },
  { settings: { WARM_ENI_TARGET: "3" }, holds: { enis: 3 } },
  { settings: { WARM_ENI_TARGET: "3", MAX_ENI: "2" }, holds: { enis: 2 } },
  { settings: { WARM_IP_TARGET: "2" }, holds: { addresses: 2 } },
  { settings: { WARM_IP_TARGET: "16" }, holds: { addresses: 16 } },
  { settings: { MINIMUM_IP_TARGET: "2" }, holds: { addresses: 2 } },
  { settings: { MINIMUM_IP_TARGET: "16" }, holds: { addresses: 16 } },
  { settings: { MINIMUM_IP_TARGET: "6", WARM_IP_TARGET: "10" }, holds: { addresses: 10 } },
  { settings: { ...PREFIXES, WARM_IP_TARGET: "2" }, holds: { prefixes: 1 } },
  { settings: { ...PREFIXES, WARM_IP_TARGET: "16" }, holds: { prefixes: 1 } },
  { settings: { ...PREFIXES, MINIMUM_IP_TARGET: "2" }, holds: { prefixes: 1 } },
  { settings: { ...PREFIXES, MINIMUM_IP_TARGET: "16" }, holds: { prefixes: 1 } },
  { settings: { ...PREFIXES, MINIMUM_IP_TARGET: "6", WARM_IP_TARGET: "10" }, holds: { prefixes: 1 } },
  { settings: { ...PREFIXES, WARM_PREFIX_TARGET: "2" }, holds: { prefixes: 2 } },
  { settings: { MINIMUM_IP_TARGET: "10", WARM_IP_TARGET: "6" }, holds: { addresses: 10 } },
  { settings: { WARM_ENI_TARGET: "3", WARM_IP_TARGET: "2" }, holds: { enis: 1, addresses: 2 } },
  { settings: { ...PREFIXES, WARM_IP_TARGET: "2", WARM_PREFIX_TARGET: "2" }, holds: { prefixes: 1 } },
  { settings: { ...PREFIXES, MINIMUM_IP_TARGET: "2", WARM_PREFIX_TARGET: "2" }, holds: { prefixes: 1 } },
];
