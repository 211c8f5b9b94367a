/** The node's state as gauges: by the same census that the planner goes by, so that the two cannot disagree. */
import { eniCountMax } from "../core/model/instance.ts";
import { takeCensus } from "../core/state/census.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { printCidr4, networkOf } from "../lib/ip.ts";
import type { Instant } from "../lib/time.ts";
import type { GaugeName } from "./metric-rows.ts";

/** What a scrape looks at. */
export type NodeLook = {
  readonly state: NodeState;
  readonly now: Instant;
  readonly maxEni: number | null; // MAX_ENI
  readonly prefixDelegation: boolean; // In force: asked for, and possible on this instance.
  /** The targets in force, after precedence. */
  readonly target: {
    readonly warmAddresses: number;
    readonly minimumAddresses: number;
    readonly warmPrefixes: number;
  };
};

export type GaugeValue = {
  readonly name: GaugeName;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
};

const ADDRESSES_PER_PREFIX = 16;

export function gaugesOf(look: NodeLook): readonly GaugeValue[] {
  const { state, now } = look;
  const census = takeCensus(state, now);
  const values: GaugeValue[] = [];
  const put = (name: GaugeName, value: number, labels: Readonly<Record<string, string>> = {}): void => {
    values.push({ name, labels, value });
  };

  // Foreign ENIs take slots that ours cannot have: the incumbent counts so too.
  const { limits } = state.instance;
  const eniMax = Math.max(0, Math.min(look.maxEni ?? Infinity, eniCountMax(limits)) - state.foreign.length);
  const perSlot = look.prefixDelegation ? ADDRESSES_PER_PREFIX : 1;
  put("awscni_eni_max", eniMax);
  put("awscni_ip_max", eniMax * (limits.addressesPerEni - 1) * perSlot);
  put("awscni_eni_allocated", state.enis.size);
  put("awscni_total_ip_addresses", census.total);
  put("awscni_assigned_ip_addresses", census.allocated);
  put("awscni_total_ipv4_prefixes", census.prefixes);
  for (const [cidr, count] of allocatedByCidr(state)) put("awscni_assigned_ip_per_cidr", count, { cidr });

  for (const each of census.enis) {
    const eni = each.eni.id;
    put("awscni_assigned_ip_per_eni", each.allocated, { eni });
    for (const state of ADDRESS_STATES) put("berth_eni_addresses", each[state], { eni, state });
  }
  for (const state of ADDRESS_STATES) put("berth_addresses", census[state], { state });
  for (const phase of ["awaiting-link", "ready", "leaving"] as const) {
    put("berth_enis", census.enis.filter((each) => each.eni.phase.kind === phase).length, { phase });
  }
  put("berth_enis", state.loose.size, { phase: "loose" });
  put("berth_enis", state.foreign.length, { phase: "foreign" });
  put("berth_prefixes", census.prefixes, { state: "held" });
  put("berth_prefixes", census.freePrefixes, { state: "free" });
  put("berth_address_slots", census.slots, { state: "all" });
  put("berth_address_slots", census.slotsUsed, { state: "used" });
  put("berth_adds_held", census.waiting);
  put("berth_target", look.target.warmAddresses, { setting: "warm-addresses" });
  put("berth_target", look.target.minimumAddresses, { setting: "minimum-addresses" });
  put("berth_target", look.target.warmPrefixes, { setting: "warm-prefixes" });
  put("berth_call_in_doubt", state.inDoubt === null ? 0 : 1);
  for (const obstacle of state.obstacles) put("berth_obstacles", 1, { kind: obstacle.kind });
  put("berth_node_schedulable", state.schedulable ? 1 : 0);
  return values;
}

const ADDRESS_STATES = ["warm", "coming", "allocated", "cooling", "leaving"] as const;

/** By /28 where the address came with one, else by the subnet: a label for each single address would be without bound. */
function allocatedByCidr(state: NodeState): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const eni of state.enis.values()) {
    for (const address of eni.addresses.values()) {
      if (address.kind !== "allocated") continue;
      const cidr =
        address.by === "prefix"
          ? printCidr4({ network: networkOf(address.ip, 28), prefixLength: 28 })
          : printCidr4(eni.subnetCidr);
      counts.set(cidr, (counts.get(cidr) ?? 0) + 1);
    }
  }
  return counts;
}
