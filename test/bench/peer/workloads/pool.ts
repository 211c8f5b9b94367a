/** What a simulated node's pool does, whoever manages it. */
import type { PoolSettings } from "../../../../src/core/pool/targets.ts";
import type { VirtualClock } from "../../../../src/sim/clock.ts";
import type { Random } from "../../../../src/lib/random.ts";
import type { Cloud } from "./cloud.ts";

export type NodePool = {
  /** Asks for the pod until it has an address; kubelet's patience and retries are in it. `served` is called once, at once where it can be. */
  readonly add: (pod: string, served: () => void) => void;
  /** The pod is gone, or wants no address any more. */
  readonly del: (pod: string) => void;
  /** Addresses that EC2 has on the node's ENIs for pods, and those that pods have. */
  readonly held: () => number;
  readonly assigned: () => number;
  readonly shape: () => { readonly enis: number; readonly addresses: number; readonly prefixes: number };
};

export type PoolOptions = {
  readonly clock: VirtualClock;
  readonly cloud: Cloud;
  readonly random: Random;
  readonly settings: PoolSettings;
  readonly limits: { readonly enis: number; readonly addressesPerEni: number };
  readonly podsMax: number;
};

/** Kubelet asks again some ten seconds after a sandbox that could not be made. */
export function retryMs(random: Random): number {
  return 10_000 + 2_000 * random();
}
