/** What /state tells: NodeState as plain JSON, with the counts and the plan that the daemon itself goes by. */
import type { PoolPlan } from "../core/model/action.ts";
import { planPool } from "../core/pool/plan.ts";
import type { PoolSettings } from "../core/pool/targets.ts";
import { takeCensus } from "../core/state/census.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { printCidr4 } from "../lib/ip.ts";
import type { Instant } from "../lib/time.ts";

export type Counters = {
  readonly adds: number;
  readonly failedAdds: number;
  readonly heldAdds: number;
  readonly dels: number;
};

export type StateReport = {
  readonly ready: boolean;
  readonly node: string;
  readonly instance: { readonly id: string; readonly type: string; readonly vpcCidrs: readonly string[] };
  readonly census: {
    readonly [Count in "warm" | "coming" | "allocated" | "cooling" | "leaving" | "total" | "enis"]: number;
  };
  readonly plan: PoolPlan;
  readonly waiting: number;
  readonly inDoubt: NodeState["inDoubt"];
  readonly obstacles: NodeState["obstacles"];
  readonly loose: readonly string[];
  readonly foreign: NodeState["foreign"];
  readonly enis: readonly {
    readonly id: string;
    readonly role: string;
    readonly deviceIndex: number;
    readonly networkCard: number;
    readonly phase: string;
    readonly primaryIp: string;
    readonly prefixes: readonly string[];
    readonly addresses: readonly {
      readonly ip: string;
      readonly kind: string;
      readonly sandbox?: string;
      readonly forMs?: number;
    }[];
  }[];
  readonly allocations: readonly {
    readonly id: string;
    readonly pod: string | null;
    readonly ip: string;
    readonly eni: string;
    readonly hostLink: string;
    readonly netns: string;
    readonly dataPath: "routed" | "ipvlan"; // As it was plumbed; the setting may be another by now.
  }[];
  readonly counters: Counters;
};

export function reportState(
  state: NodeState,
  pool: PoolSettings,
  facts: {
    readonly ready: boolean;
    readonly node: string;
    readonly counters: Counters;
    readonly now: Instant;
  },
): StateReport {
  const { warm, coming, allocated, cooling, leaving, total, enis } = takeCensus(state, facts.now);
  return {
    ready: facts.ready,
    node: facts.node,
    instance: {
      id: state.instance.id,
      type: state.instance.type,
      vpcCidrs: state.instance.vpcCidrs.map(printCidr4),
    },
    census: { warm, coming, allocated, cooling, leaving, total, enis: enis.length },
    plan: planPool(state, pool, facts.now),
    waiting: state.waiting,
    inDoubt: state.inDoubt,
    obstacles: state.obstacles,
    loose: [...state.loose.keys()],
    foreign: state.foreign,
    enis: enis.map(({ eni }) => ({
      id: eni.id,
      role: eni.role,
      deviceIndex: eni.slot.deviceIndex,
      networkCard: eni.slot.networkCard,
      phase: eni.phase.kind,
      primaryIp: eni.primaryIp,
      prefixes: eni.prefixes.map(printCidr4),
      addresses: [...eni.addresses.values()].map((address) => ({
        ip: address.ip,
        kind: address.kind,
        ...(address.kind === "allocated" ? { sandbox: address.sandbox } : {}),
        ...(address.kind === "cooling" ? { forMs: Math.max(0, Math.round(address.until - facts.now)) } : {}),
      })),
    })),
    allocations: [...state.allocations.values()].map((allocation) => ({
      id: allocation.id,
      pod: allocation.pod === null ? null : `${allocation.pod.namespace}/${allocation.pod.name}`,
      ip: allocation.ip,
      eni: allocation.eni,
      hostLink: allocation.hostLink,
      netns: allocation.netns.path,
      dataPath: allocation.ipvlan === undefined ? "routed" : "ipvlan",
    })),
    counters: facts.counters,
  };
}
