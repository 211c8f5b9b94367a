/**
 * The checkpoint's file on a pretend disk: the production format, written whole and renamed, on a disk that may be full, cut a write at a
 * power cut, lie about fsync, or come back from a snapshot of another machine. What a process writes and what a power cut leaves are two texts.
 */
import type { NodeError } from "../core/model/error.ts";
import type { Remembered } from "../core/reconcile/recover.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { WallTime } from "../lib/time.ts";
import { parseCheckpoint, printCheckpoint } from "../store/checkpoint.ts";
import type { VirtualClock } from "./clock.ts";

export type DiskHooks = {
  readonly isFull: () => boolean;
  readonly lies: () => boolean;
  /** How long this write takes, in milliseconds; 0 is at once, as in memory. */
  readonly writeMs: () => number;
  /** The daemon may die here; true when it did. */
  readonly dies: (step: string) => boolean;
  readonly wallNow: () => WallTime;
};

const UNWRITABLE: NodeError = {
  code: "checkpoint-unwritable",
  path: "/var/lib/berth/checkpoint",
  detail: "ENOSPC",
};

export class CheckpointDisk {
  /** What a process reads. */
  #text: string | null = null;
  /** What is left after a power cut. */
  #durable: string | null = null;
  #older: string | null = null;
  /** The state behind `#text`; null when the text is not of this node's making. */
  written: NodeState | null = null;
  readonly #clock: VirtualClock;
  readonly inMemory: boolean;

  constructor(clock: VirtualClock, inMemory: boolean) {
    this.#clock = clock;
    this.inMemory = inMemory;
  }

  /** One writer for one life of the daemon: saves that wait are joined into the last, as store/file.ts does. */
  writer(bootId: string, hooks: DiskHooks): (state: NodeState) => Promise<Result<null, NodeError>> {
    let running = false;
    let next: { state: NodeState; readonly done: PromiseWithResolvers<Result<null, NodeError>> } | null =
      null;
    const write = async (state: NodeState): Promise<Result<null, NodeError>> => {
      if (hooks.dies("save begin")) return await never();
      const full = hooks.isFull();
      const ms = hooks.writeMs();
      const text = full ? "" : printCheckpoint(state, { bootId, savedAt: hooks.wallNow() });
      if (ms > 0) await this.#clock.sleep(ms);
      if (hooks.dies("save before rename")) return await never(); // The file aside is cut; the file itself is whole.
      if (full) return err(UNWRITABLE);
      this.#older = this.#text;
      this.#text = text;
      this.written = state;
      if (!hooks.lies()) this.#durable = text;
      if (hooks.dies("save after rename")) return await never();
      return ok(null);
    };
    const run = async (state: NodeState): Promise<Result<null, NodeError>> => {
      running = true;
      const result = await write(state);
      running = false;
      const waiting = next;
      next = null;
      if (waiting !== null) void run(waiting.state).then(waiting.done.resolve);
      return result;
    };
    return async (state) => {
      if (!running) return await run(state);
      if (next === null) next = { state, done: Promise.withResolvers() };
      else next.state = state;
      return await next.done.promise;
    };
  }

  /** What the daemon before left, as daemon/edges.ts reads it: damaged and missing files are no memory. */
  load(bootId: string): Remembered | null {
    if (this.#text === null) return null;
    const parsed = parseCheckpoint(this.#text);
    if (!parsed.ok) {
      this.#text = null; // Set aside.
      this.written = null;
      return null;
    }
    return { ...parsed.value, sameBoot: parsed.value.bootId === bootId };
  }

  get text(): string | null {
    return this.#text;
  }

  /** `torn`: of a text that was not on the disk yet, only a part had arrived. In memory nothing outlives the power. */
  powerCut(torn: number | null): void {
    if (this.inMemory) this.#durable = null;
    else if (torn !== null && this.#text !== this.#durable && this.#text !== null)
      this.#durable = this.#text.slice(0, Math.floor(torn * this.#text.length));
    if (this.#text === this.#durable) return;
    this.#text = this.#durable;
    this.written = null;
  }

  lose(): void {
    this.replace(null);
  }

  /** The text before the last one, as a restore or a file system's own rollback brings it; false when there is none. */
  rollBack(): boolean {
    if (this.#older === null) return false;
    this.replace(this.#older);
    return true;
  }

  /** One character flips. */
  flip(at: number): void {
    if (this.#text === null || this.#text.length === 0) return;
    const index = Math.floor(at * this.#text.length);
    const flipped = String.fromCharCode(this.#text.charCodeAt(index) ^ 1);
    this.replace(this.#text.slice(0, index) + flipped + this.#text.slice(index + 1));
  }

  replace(text: string | null): void {
    this.#text = text;
    this.#durable = text;
    this.written = null;
  }
}

/** A dead daemon waits for nothing. */
export function never(): Promise<never> {
  return new Promise(() => {});
}
