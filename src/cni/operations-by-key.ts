/**
 * One operation at a time for each sandbox, and the rules between ADD and DEL of one sandbox:
 * a DEL stops a running ADD, waits for its roll-back and then does its own work; an ADD that was received before a DEL never
 * starts after it; a DEL has answered before its link is gone, and an ADD waits for that.
 */
import { LRUCache } from "lru-cache";
import type { SandboxId } from "../core/model/sandbox.ts";

/** Why an ADD was stopped: a DEL came, its shim died, or the daemon goes. */
export type StopReason = "deleted" | "shim-gone" | "daemon-goes";

/** The part of AbortController that is needed here; a simulator has its own. */
export type Stop = {
  readonly abort: (reason: unknown) => void;
  readonly signal: {
    readonly aborted: boolean;
    readonly reason: unknown;
    readonly addEventListener: (type: "abort", listener: () => void) => void;
  };
};

/** An ADD as it came in. `arrival` numbers connections in the order of their coming; `id` is the same when the shim asks again. */
export type AddCall = {
  readonly key: SandboxId;
  readonly id: string;
  readonly arrival: number;
  readonly stop: Stop; // Aborted with a StopReason, by us or by the caller.
};

/** The queue of one sandbox. It goes when nothing is left to do for it. */
type Lane = {
  tail: Promise<unknown>; // Ends, well or not, when all that was queued so far has ended.
  settling: Promise<unknown>; // Ends when the last DEL's link is gone.
  readonly adds: Set<AddCall>; // Running or queued.
  users: number;
};

const REMEMBERED_MAX = 4096; // Some minutes of a very busy node; a shim lives 30 s.

export class OperationsByKey {
  readonly #lanes = new Map<SandboxId, Lane>();
  /** When a DEL of the key last came. An ADD from before it is dead. */
  readonly #tombstones = new LRUCache<SandboxId, number>({ max: REMEMBERED_MAX });
  /** When a request first came: a shim that asks again on a new connection has still asked then. */
  readonly #firstArrivals = new LRUCache<string, number>({ max: REMEMBERED_MAX });

  /** Null when the ADD was stopped before it began; `call.stop` says by what. Otherwise what `run` gives, also when stopped. */
  async add<T>(call: AddCall, run: () => Promise<T>): Promise<T | null> {
    const arrival = this.#firstArrivals.get(call.id) ?? call.arrival;
    this.#firstArrivals.set(call.id, arrival);
    if (arrival < (this.#tombstones.get(call.key) ?? 0)) call.stop.abort("deleted" satisfies StopReason);
    const lane = this.#enter(call.key);
    const { settling } = lane; // Of the DELs before this ADD. One that comes later waits for this ADD, not the other way round.
    lane.adds.add(call);
    try {
      return await this.#inTurn(lane, async () => {
        await settling;
        return call.stop.signal.aborted ? null : await run();
      });
    } finally {
      lane.adds.delete(call);
      this.#leave(call.key, lane);
    }
  }

  /** `run` gives the answer, and a promise that ends, well or not, when the sandbox's link is gone: until then no ADD of this key begins. */
  async del<T>(
    key: SandboxId,
    arrival: number,
    run: () => Promise<{ readonly answer: T; readonly settled: Promise<unknown> }>,
  ): Promise<T> {
    this.#tombstones.set(key, Math.max(arrival, this.#tombstones.get(key) ?? 0));
    const lane = this.#enter(key);
    for (const add of lane.adds) add.stop.abort("deleted" satisfies StopReason);
    const done = this.#inTurn(lane, run);
    lane.settling = Promise.allSettled([lane.settling, done.then(({ settled }) => settled)]);
    void lane.settling.then(() => this.#leave(key, lane));
    return (await done).answer;
  }

  /** Anything else that must not meet an ADD or DEL of its sandbox halfway. */
  async other<T>(key: SandboxId, run: () => Promise<T>): Promise<T> {
    const lane = this.#enter(key);
    try {
      return await this.#inTurn(lane, run);
    } finally {
      this.#leave(key, lane);
    }
  }

  /** How many sandboxes have something running or queued. */
  get busyCount(): number {
    return this.#lanes.size;
  }

  /** How many are remembered of those that have ended. */
  get rememberedCount(): number {
    return this.#tombstones.size + this.#firstArrivals.size;
  }

  #enter(key: SandboxId): Lane {
    const lane = this.#lanes.get(key) ?? {
      tail: Promise.resolve(),
      settling: Promise.resolve(),
      adds: new Set(),
      users: 0,
    };
    lane.users += 1;
    this.#lanes.set(key, lane);
    return lane;
  }

  #leave(key: SandboxId, lane: Lane): void {
    lane.users -= 1;
    if (lane.users === 0) this.#lanes.delete(key);
  }

  #inTurn<T>(lane: Lane, run: () => Promise<T>): Promise<T> {
    const turn = lane.tail.then(run);
    lane.tail = turn.catch(() => null); // Whoever awaits `turn` gets its failure; the next in turn only its end.
    return turn;
  }
}
