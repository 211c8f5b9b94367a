/** Virtual time: timers in a heap, fired one by one. What a timer sets going runs to its end before the next one fires (run.ts sees to it). */
import { assert } from "../lib/assert.ts";
import type { AbortSignalLike } from "../agent/ports.ts";

export type Timer = { readonly at: number; readonly turn: number; run: (() => void) | null };

/** Milliseconds since the beginning of the run. Timers of one instant fire in the order in which they were set. */
export class VirtualClock {
  #now = 0;
  #turn = 0;
  readonly #heap: Timer[] = [];

  get now(): number {
    return this.#now;
  }

  after(ms: number, run: () => void): Timer {
    assert(ms === ms, "a timer has a time");
    this.#turn += 1;
    const timer: Timer = { at: this.#now + Math.max(0, ms), turn: this.#turn, run };
    this.#push(timer);
    return timer;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** A cancelled timer stays in the heap until its time, and does nothing then. */
  cancel(timer: Timer): void {
    timer.run = null;
  }

  /** Fires the next timer that is due at `end` or before; false when there is none, and then it is `end`. */
  fire(end: number): boolean {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.at > end) {
        this.#now = end;
        return false;
      }
      this.#pop();
      if (next.run === null) continue;
      this.#now = next.at;
      next.run();
      return true;
    }
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(timer);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(timer, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = timer;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      const [left, right] = [heap[2 * at + 1], heap[2 * at + 2]];
      if (left === undefined) break;
      const [child, index] =
        right !== undefined && isBefore(right, left) ? [right, 2 * at + 2] : [left, 2 * at + 1];
      if (!isBefore(child, last)) break;
      heap[at] = child;
      at = index;
    }
    heap[at] = last;
  }
}

function isBefore(left: Timer, right: Timer): boolean {
  return left.at < right.at || (left.at === right.at && left.turn < right.turn);
}

/** What AbortController does, as far as the agent and cni/operations-by-key lean on it. */
export class SimStop {
  #aborted = false;
  #reason: unknown;
  readonly #listeners = new Set<() => void>();
  readonly signal: AbortSignalLike & { readonly reason: unknown };

  constructor() {
    const [isAborted, reason] = [(): boolean => this.#aborted, (): unknown => this.#reason];
    this.signal = {
      get aborted() {
        return isAborted();
      },
      get reason() {
        return reason();
      },
      addEventListener: (_type, listener) => void this.#listeners.add(listener),
      removeEventListener: (_type, listener) => void this.#listeners.delete(listener),
    };
  }

  abort(reason: unknown): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason;
    for (const listener of this.#listeners) listener();
    this.#listeners.clear();
  }
}
