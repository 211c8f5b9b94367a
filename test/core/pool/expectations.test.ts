/** Pool sizes that operators know from the AWS VPC CNI: each setting, iterated from a booted node to where the plan holds. */
import { expect, test } from "vitest";
import type { InstanceLimits } from "../../../src/core/model/instance.ts";
import type { PoolSettings } from "../../../src/core/pool/targets.ts";
import { checkInvariants } from "../../../src/core/state/invariants.ts";
import { takeCensus } from "../../../src/core/state/census.ts";
import { HOUR_MS, instant, MINUTE_MS } from "../../../src/lib/time.ts";
import {
  bootedNode,
  M5_4XLARGE,
  M5_LARGE,
  podsStart,
  printAction,
  settingsOf,
  settle,
  settleUntil,
  T3_MEDIUM,
} from "../../support/pool-world.ts";

type Row = {
  readonly settings: Partial<PoolSettings>;
  readonly limits?: InstanceLimits;
  readonly pods?: number;
  readonly enis: number;
  readonly addresses: number;
  readonly prefixes?: number;
};

const NOW = instant(HOUR_MS);
const pd = { prefixDelegation: true };

/** Those of the AWS VPC CNI's own integration tests, on nodes without pods. */
const INCUMBENT: readonly Row[] = [
  { settings: { warmEniTarget: 1 }, enis: 1, addresses: 29 },
  { settings: { warmEniTarget: 2 }, enis: 2, addresses: 58 },
  { settings: { warmEniTarget: 3 }, enis: 3, addresses: 87 },
  { settings: { warmEniTarget: 3, maxEni: 2 }, enis: 2, addresses: 58 },
  { settings: { warmIpTarget: 2 }, enis: 1, addresses: 2 },
  { settings: { warmIpTarget: 16 }, enis: 1, addresses: 16 },
  { settings: { minimumIpTarget: 2 }, enis: 1, addresses: 2 },
  { settings: { minimumIpTarget: 16 }, enis: 1, addresses: 16 },
  { settings: { minimumIpTarget: 6, warmIpTarget: 10 }, enis: 1, addresses: 10 },
  { settings: { ...pd, warmIpTarget: 2 }, enis: 1, addresses: 16, prefixes: 1 },
  { settings: { ...pd, warmIpTarget: 16 }, enis: 1, addresses: 16, prefixes: 1 },
  { settings: { ...pd, minimumIpTarget: 2 }, enis: 1, addresses: 16, prefixes: 1 },
  { settings: { ...pd, minimumIpTarget: 16 }, enis: 1, addresses: 16, prefixes: 1 },
  { settings: { ...pd, minimumIpTarget: 6, warmIpTarget: 10 }, enis: 1, addresses: 16, prefixes: 1 },
  { settings: { ...pd, warmPrefixTarget: 2 }, enis: 1, addresses: 32, prefixes: 2 },
];

const MORE: readonly Row[] = [
  // WARM_ENI_TARGET counts whole ENIs' worth of free addresses: the first pod calls for the next ENI.
  { settings: {}, pods: 1, enis: 2, addresses: 58 },
  { settings: {}, pods: 30, enis: 3, addresses: 87 },
  { settings: { warmEniTarget: 0 }, enis: 1, addresses: 29 },
  { settings: { warmEniTarget: 0 }, pods: 28, enis: 1, addresses: 29 },
  { settings: { warmEniTarget: 0 }, pods: 29, enis: 2, addresses: 58 },
  { settings: {}, limits: T3_MEDIUM, pods: 10, enis: 3, addresses: 15 },
  // WARM_IP and MINIMUM win over WARM_ENI and WARM_PREFIX.
  { settings: { warmEniTarget: 3, warmIpTarget: 2 }, pods: 5, enis: 1, addresses: 7 },
  { settings: { warmIpTarget: 5, minimumIpTarget: 30 }, pods: 3, enis: 2, addresses: 30 },
  { settings: { warmIpTarget: 5, minimumIpTarget: 30 }, pods: 28, enis: 2, addresses: 33 },
  {
    settings: { ...pd, warmPrefixTarget: 3, warmIpTarget: 2 },
    pods: 15,
    enis: 1,
    addresses: 32,
    prefixes: 2,
  },
  {
    settings: { ...pd, warmPrefixTarget: 3, warmIpTarget: 2 },
    pods: 14,
    enis: 1,
    addresses: 16,
    prefixes: 1,
  },
  // MINIMUM alone keeps no spare, but does not freeze the pool.
  { settings: { minimumIpTarget: 4 }, pods: 9, enis: 1, addresses: 9 },
  // WARM_ENI_TARGET says nothing in prefix mode; all three off is "grow when nothing is free".
  { settings: { ...pd, warmEniTarget: 3, warmPrefixTarget: 1 }, enis: 1, addresses: 16, prefixes: 1 },
  { settings: { ...pd, warmPrefixTarget: null }, pods: 16, enis: 1, addresses: 32, prefixes: 2 },
  { settings: { ...pd, warmPrefixTarget: 1 }, pods: 1, enis: 1, addresses: 32, prefixes: 2 },
  {
    settings: { ...pd, warmPrefixTarget: 1 },
    limits: M5_LARGE,
    pods: 150,
    enis: 2,
    addresses: 176,
    prefixes: 11,
  },
  // Prefixes need Nitro; elsewhere the setting falls back to addresses.
  { settings: { ...pd, warmIpTarget: 3 }, limits: { ...M5_LARGE, nitro: false }, enis: 1, addresses: 3 },
  // Nothing is grown beyond what the node may have pods.
  { settings: { maxPods: 40 }, pods: 12, enis: 2, addresses: 40 },
  { settings: { maxPods: 40, warmIpTarget: 10 }, pods: 35, enis: 2, addresses: 40 },
  { settings: { ...pd, maxPods: 40, warmPrefixTarget: 5 }, enis: 1, addresses: 48, prefixes: 3 },
  // Custom networking: the primary ENI serves the node alone.
  { settings: { podsOnPrimary: false, warmIpTarget: 4 }, enis: 2, addresses: 4 },
  { settings: { podsOnPrimary: false }, enis: 2, addresses: 29 },
];

test.each([...INCUMBENT, ...MORE])(
  "$settings with $pods pods gives $enis ENIs and $addresses addresses",
  ({ settings, limits = M5_4XLARGE, pods = 0, enis, addresses, prefixes = 0 }) => {
    const chosen = settingsOf(settings);
    let state = settle(bootedNode(limits), chosen, NOW).state;
    for (let left = pods; left > 0; left = state.waiting) {
      state = podsStart({ ...state, waiting: 0 }, chosen, NOW, left, `p${left}-`);
      state = settle(state, chosen, NOW).state;
    }
    const census = takeCensus(state, NOW);
    expect({ enis: census.enis.length, addresses: census.total, prefixes: census.prefixes }).toEqual({
      enis,
      addresses,
      prefixes,
    });
    expect(checkInvariants(state)).toEqual([]);
  },
);

test("each documented size is reached from each other one, when the settings of an idle node change", () => {
  for (const from of INCUMBENT) {
    const full = settle(bootedNode(M5_4XLARGE), settingsOf(from.settings), NOW).state;
    for (const to of INCUMBENT) {
      const settled = settleUntil(full, settingsOf(to.settings), NOW, instant(NOW + 10 * MINUTE_MS));
      const census = takeCensus(settled.state, settled.now);
      const got = { enis: census.enis.length, addresses: census.total, prefixes: census.prefixes };
      const how = `${JSON.stringify(from.settings)} to ${JSON.stringify(to.settings)}: ${settled.actions.map(printAction).join("; ")}`;
      expect(got, how).toEqual({ enis: to.enis, addresses: to.addresses, prefixes: to.prefixes ?? 0 });
    }
  }
});
