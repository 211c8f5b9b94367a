/**
 * ADDs that found no address wait here, first come, first served. They hold no worker: each is a promise and a queue entry.
 * `serve` gives out what has become free, and does so in one synchronous stretch: no one else can take the address between.
 */
import { chooseAddress } from "../core/pool/choose.ts";
import type { PoolSettings } from "../core/pool/targets.ts";
import type { Allocation, NodeState } from "../core/state/node-state.ts";
import { addressAllocated, waitingChanged } from "../core/state/transitions.ts";
import type { SandboxKey } from "../core/model/sandbox.ts";
import type { Eni, PoolAddress } from "../core/model/eni.ts";
import type { Instant } from "../lib/time.ts";
import type { Cell } from "./cell.ts";
import { LinkedSignal } from "./linked-signal.ts";
import type { AbortSignalLike, Time } from "./ports.ts";

/** What is chosen for a sandbox becomes an allocation by this, given by the ADD that knows the rest. */
export type MakeAllocation = (eni: Eni, address: PoolAddress) => Allocation;

export type Waited =
  | { readonly kind: "allocated"; readonly allocation: Allocation }
  | { readonly kind: "ended"; readonly by: "deadline" | "signal" };

type Guest = {
  readonly key: SandboxKey;
  readonly make: MakeAllocation;
  readonly seat: (allocation: Allocation) => void;
};

/** How late a rested address may reach a pod that waits. */
const TEND_MS = 200;

const NEVER: AbortSignalLike = { aborted: false, addEventListener: () => {}, removeEventListener: () => {} };

export class WaitingRoom {
  readonly #cell: Cell;
  readonly #time: Time;
  readonly #pool: PoolSettings;
  readonly #queue = new Set<Guest>(); // In order of coming.
  #tended = false;
  readonly #onDemand: (what: "taken" | "waits") => void;

  /** `onDemand` wakes the refill: an address was taken, or somebody waits for one. */
  constructor(cell: Cell, time: Time, pool: PoolSettings, onDemand: (what: "taken" | "waits") => void) {
    this.#cell = cell;
    this.#time = time;
    this.#pool = pool;
    this.#onDemand = onDemand;
  }

  /** At once where there is an address and nobody was here first; null means: wait. Those before get theirs: one may have cooled down. */
  take(key: SandboxKey, make: MakeAllocation): Allocation | null {
    this.serve();
    const allocation = this.#queue.size > 0 ? null : this.#allocate(key, make);
    if (allocation !== null) this.#onDemand("taken");
    return allocation;
  }

  /** Ends with an allocation that is in the state already, or with nothing taken. */
  async wait(
    key: SandboxKey,
    make: MakeAllocation,
    deadline: Instant,
    signal: AbortSignalLike,
  ): Promise<Waited> {
    return await new Promise<Waited>((resolve) => {
      let left = false;
      const alarm = new LinkedSignal(signal);
      const leave = (waited: Waited): void => {
        if (left) return;
        left = true;
        this.#queue.delete(guest);
        this.#cell.set(waitingChanged(this.#cell.state, this.#queue.size));
        signal.removeEventListener("abort", onAbort);
        alarm.end();
        resolve(waited);
      };
      const guest: Guest = { key, make, seat: (allocation) => leave({ kind: "allocated", allocation }) };
      const onAbort = (): void => leave({ kind: "ended", by: "signal" });
      if (signal.aborted) return resolve({ kind: "ended", by: "signal" });
      this.#queue.add(guest);
      this.#cell.set(waitingChanged(this.#cell.state, this.#queue.size));
      signal.addEventListener("abort", onAbort, { once: true });
      void this.#time
        .sleep(Math.max(0, deadline - this.#time.now()), alarm)
        .then(() => leave({ kind: "ended", by: "deadline" }));
      this.#onDemand("waits");
      void this.#tend();
    });
  }

  /** While somebody waits, what has rested is given out in time, whatever EC2 call the refill itself is waiting for. */
  async #tend(): Promise<void> {
    if (this.#tended) return;
    this.#tended = true;
    while (this.#queue.size > 0) {
      await this.#time.sleep(TEND_MS, NEVER);
      this.serve();
    }
    this.#tended = false;
  }

  /** Gives out what is free to those who wait. Called whenever an address may have become free. */
  serve(): void {
    for (const guest of this.#queue) {
      const allocation = this.#allocate(guest.key, guest.make);
      if (allocation === null) return;
      guest.seat(allocation);
    }
  }

  #allocate(key: SandboxKey, make: MakeAllocation): Allocation | null {
    const state: NodeState = this.#cell.state;
    const now = this.#time.now();
    const chosen = chooseAddress(state, key, this.#pool, now);
    if (chosen === null) return null;
    const allocation = make(chosen.eni, chosen.address);
    this.#cell.set(addressAllocated(state, allocation, now));
    return allocation;
  }
}
