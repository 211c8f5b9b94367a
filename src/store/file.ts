/**
 * The checkpoint on disk: saved so that a power cut leaves the old text or the new one, whole; loaded so that a file which cannot
 * be used is set aside under a name of its own, and never overwritten: it may be all that tells who holds which address.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { open, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { err, ok, type Result } from "../lib/result.ts";
import { printWallTime, type WallTime } from "../lib/time.ts";
import type { NodeError } from "../core/model/error.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { parseCheckpoint, printCheckpoint, type Checkpoint } from "./checkpoint.ts";

export type CheckpointFileOptions = {
  readonly path: string;
  readonly bootId: string;
  readonly wallNow: () => WallTime;
};

/** What was found at start. `setAside` is where an unusable file is now; null when it could not be moved, and then nothing is saved. */
export type Loaded =
  | { readonly kind: "loaded"; readonly checkpoint: Checkpoint }
  | { readonly kind: "missing" }
  | {
      readonly kind: "damaged" | "newer" | "unreadable";
      readonly detail: string;
      readonly setAside: string | null;
    };

export type CheckpointFile = {
  /** Once, before the first save. Never throws. */
  readonly load: () => Loaded;
  /** Ends when this state, or a later one that was given meanwhile, is safe. States must come in the order of their making. */
  readonly save: (state: NodeState) => Promise<Result<null, NodeError>>;
  /** Of the text that was saved last. */
  readonly sizeBytes: () => number;
};

const SIZE_MAX = 64 * 1024 * 1024; // A thousand pods take half a megabyte.
const SET_ASIDE_MAX = 16;
const TMPFS_MAGIC = 0x0102_1994; // linux/magic.h
const RAMFS_MAGIC = 0x8584_58f6;

export function createCheckpointFile(options: CheckpointFileOptions): CheckpointFile {
  const { path } = options;
  let obstacle: string | null = "it was not loaded yet";
  let sizeBytes = 0;
  let inMemory: boolean | null = null; // What kind of file system it is on; known at the first save.

  /** In memory there is no disk to wait for: a save with 110 pods takes 0.1 ms at once, 0.3 (and 4 in a hundred) through the thread pool. */
  const write = async (text: string): Promise<void> => {
    if (inMemory === null) {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      const { type } = statfsSync(dirname(path));
      inMemory = type === TMPFS_MAGIC || type === RAMFS_MAGIC;
    }
    if (inMemory) writeAtOnce(path, text);
    else await writeOffThread(path, text);
  };

  /**
   * A disk is slow enough for others to join. In memory the first save of a turn of the event loop is made at once, so that one ADD alone
   * does not wait; all others of that turn are one save at its end: a burst of ADDs.
   */
  let savedThisTurn = false;
  const gather = async (): Promise<void> => {
    if (inMemory !== true) return;
    if (savedThisTurn) await new Promise<void>((resolve) => setImmediate(resolve));
    else setImmediate(() => (savedThisTurn = false));
    savedThisTurn = true;
  };

  const writer = createJoiner(async (state: NodeState): Promise<Result<null, NodeError>> => {
    try {
      const text = printCheckpoint(state, { bootId: options.bootId, savedAt: options.wallNow() });
      await write(text);
      sizeBytes = Buffer.byteLength(text);
      return ok(null);
    } catch (cause) {
      inMemory = null; // The folder may have been removed or mounted over: look again.
      return err({ code: "checkpoint-unwritable", path, detail: String(cause) });
    }
  }, gather);

  return {
    load: () => {
      const loaded = load(options);
      const stuck = "setAside" in loaded && loaded.setAside === null;
      obstacle = stuck ? `an old file there is ${loaded.kind} and could not be set aside` : null;
      return loaded;
    },
    sizeBytes: () => sizeBytes,
    save: async (state) => {
      if (obstacle !== null) return err({ code: "checkpoint-unwritable", path, detail: obstacle });
      return await writer(state);
    },
  };
}

function load(options: CheckpointFileOptions): Loaded {
  const { path } = options;
  rmSync(asideOf(path), { force: true, recursive: true }); // Of a save that was cut: the file itself is whole.
  const text = read(path);
  if (text === null) return { kind: "missing" };
  if (!text.ok) return unusable(options, "unreadable", text.error);
  const parsed = parseCheckpoint(text.value);
  if (parsed.ok) return { kind: "loaded", checkpoint: parsed.value };
  switch (parsed.error.kind) {
    case "damaged":
      return unusable(options, "damaged", parsed.error.detail);
    case "newer":
      return unusable(options, "newer", `it is of version berth/${parsed.error.version}`);
  }
}

/** Null when there is none. */
function read(path: string): Result<string, string> | null {
  try {
    const { size } = statSync(path);
    if (size > SIZE_MAX) return err(`it has ${size} bytes`);
    return ok(readFileSync(path, "utf8"));
  } catch (cause) {
    return codeOf(cause) === "ENOENT" ? null : err(String(cause));
  }
}

function unusable(
  options: CheckpointFileOptions,
  kind: "damaged" | "newer" | "unreadable",
  detail: string,
): Loaded {
  const { path } = options;
  const stem = `${path}.${kind}-${printWallTime(options.wallNow()).replaceAll(/[:.]/g, "-")}`;
  let name = stem;
  for (let more = 2; existsSync(name); more += 1) name = `${stem}-${more}`;
  try {
    forgetOldest(path);
    renameSync(path, name);
    return { kind, detail, setAside: name };
  } catch (cause) {
    return { kind, detail: `${detail}; setting it aside: ${String(cause)}`, setAside: null };
  }
}

/** A disk that damages each file must not be filled with damaged files. The names end in their time, so the first is the oldest. */
function forgetOldest(path: string): void {
  const begins = /^(damaged|newer|unreadable)-/;
  const stem = `${basename(path)}.`;
  const aside = readdirSync(dirname(path))
    .filter((name) => name.startsWith(stem) && begins.test(name.slice(stem.length)))
    .sort((left, right) => (timeOf(left) < timeOf(right) ? -1 : 1));
  for (const name of aside.slice(0, Math.max(0, aside.length + 1 - SET_ASIDE_MAX)))
    rmSync(join(dirname(path), name), { force: true, recursive: true });
}

function timeOf(name: string): string {
  return /-(\d{4}-.*)$/.exec(name)?.[1] ?? "";
}

function asideOf(path: string): string {
  return `${path}.new`;
}

/** Nothing to sync: what is in memory is there for every process at once, and for none after a power cut. */
function writeAtOnce(path: string, text: string): void {
  const aside = asideOf(path);
  const bytes = Buffer.from(text, "utf8");
  const file = openSync(aside, "w", 0o600);
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
  } finally {
    closeSync(file);
  }
  renameSync(aside, path);
}

async function writeOffThread(path: string, text: string): Promise<void> {
  const aside = asideOf(path);
  const file = await open(aside, "w", 0o600);
  try {
    await file.writeFile(text, "utf8");
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(aside, path);
  const folder = await open(dirname(path), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * One call of `work` at a time. Who comes meanwhile is joined into the next one, which gets the last value given. `gather` is waited
 * for before each call, so that still more can join.
 */
function createJoiner<T, R>(
  work: (value: T) => Promise<R>,
  gather: () => Promise<void>,
): (value: T) => Promise<R> {
  let running = false;
  let next: { value: T; readonly done: PromiseWithResolvers<R> } | null = null;
  const run = async (): Promise<void> => {
    running = true;
    while (next !== null) {
      await gather();
      const { value, done } = next;
      next = null;
      await work(value).then(done.resolve, done.reject);
    }
    running = false;
  };
  return async (value) => {
    if (next === null) next = { value, done: Promise.withResolvers<R>() };
    else next.value = value;
    const { promise } = next.done;
    if (!running) void run();
    return await promise;
  };
}

function codeOf(cause: unknown): string {
  return cause instanceof Error && "code" in cause ? String(cause.code) : "";
}
