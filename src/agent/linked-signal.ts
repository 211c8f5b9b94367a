import type { AbortSignalLike } from "./ports.ts";

/** Aborted with its parent, or when its own work is over. */
export class LinkedSignal implements AbortSignalLike {
  #aborted: boolean;
  readonly #parent: AbortSignalLike;
  readonly #listeners = new Set<() => void>();
  readonly #onParent = (): void => this.end();

  constructor(parent: AbortSignalLike) {
    this.#parent = parent;
    this.#aborted = parent.aborted;
    parent.addEventListener("abort", this.#onParent, { once: true });
  }

  get aborted(): boolean {
    return this.#aborted;
  }

  addEventListener(_type: "abort", listener: () => void): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_type: "abort", listener: () => void): void {
    this.#listeners.delete(listener);
  }

  end(): void {
    this.#parent.removeEventListener("abort", this.#onParent);
    if (this.#aborted) return;
    this.#aborted = true;
    for (const listener of this.#listeners) listener();
    this.#listeners.clear();
  }
}
