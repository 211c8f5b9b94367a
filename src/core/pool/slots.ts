/** Where on the instance another ENI can go, and how many there are against the limits. */
import type { EniSlot } from "../model/eni.ts";
import { eniNumber } from "../plumbing/names.ts";
import type { NodeState } from "../state/node-state.ts";
import type { PoolSettings } from "./targets.ts";

/**
 * The slot for the next ENI, or null when the instance may have no more. Indexes repeat on each card; index 0 is the primary ENI's.
 * An ENI that is still detaching holds an index that we no longer know: one such further on is less likely to collide.
 */
export function freeSlot(state: NodeState, settings: PoolSettings): EniSlot | null {
  if (enisOverLimit(state, settings) >= 0) return null;
  const { limits } = state.instance;
  const free: EniSlot[] = [];
  for (const [networkCard, { enis }] of cardsFor(state, settings).entries()) {
    const indexes = takenSlots(state)
      .filter((slot) => slot.networkCard === networkCard)
      .map((slot) => slot.deviceIndex);
    if (indexes.length >= enis) continue;
    for (let deviceIndex = 1; deviceIndex < enis; deviceIndex += 1) {
      const slot = { networkCard, deviceIndex };
      if (!indexes.includes(deviceIndex) && eniNumber(slot, limits) !== null) free.push(slot);
    }
  }
  return free[detachingCount(state)] ?? null;
}

/** ENIs beyond MAX_ENI; 0 is just at the limit. Foreign ENIs count: they take room that ours cannot have. */
export function enisOverLimit(state: NodeState, settings: PoolSettings): number {
  const cards = cardsFor(state, settings).length;
  const attached = takenSlots(state).filter((slot) => slot.networkCard < cards).length;
  return attached + detachingCount(state) - (settings.maxEni ?? Infinity);
}

function cardsFor(state: NodeState, settings: PoolSettings): NodeState["instance"]["limits"]["networkCards"] {
  const { networkCards } = state.instance.limits;
  return settings.allNetworkCards ? networkCards : networkCards.slice(0, 1);
}

function takenSlots(state: NodeState): EniSlot[] {
  return [...state.enis.values(), ...state.foreign].map((eni) => eni.slot);
}

function detachingCount(state: NodeState): number {
  return [...state.loose.values()].filter((loose) => loose.attachmentId !== null).length;
}
