/** Holds the one NodeState. Whoever wants to change it makes the next one by a transition and sets it; listeners are told. */
import type { NodeState } from "../core/state/node-state.ts";

export class Cell {
  #state: NodeState;
  readonly #listeners: ((state: NodeState) => void)[] = [];

  constructor(state: NodeState) {
    this.#state = state;
  }

  get state(): NodeState {
    return this.#state;
  }

  set(next: NodeState): void {
    if (next === this.#state) return;
    this.#state = next;
    for (const listener of this.#listeners) listener(next);
  }

  /** Listeners are for waking and counting. They do not set. */
  onChange(listener: (state: NodeState) => void): void {
    this.#listeners.push(listener);
  }
}
