/**
 * DELs that shims left while no daemon was there: one file for each sandbox (written by `cni/shim/journal.h`). The daemon takes the
 * folder's lock for as long as it lives, plays what is there, and only then opens its socket: no DEL falls between the two.
 */
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { err, ok, type Result } from "../lib/result.ts";
import { printWallTime, type WallTime } from "../lib/time.ts";
import type { NodeError } from "../core/model/error.ts";
import { isSandboxKey, type SandboxKey } from "../core/model/sandbox.ts";

/** Bounds of one drain; shims keep to the same (cni/wire.ts), so more can only come from somebody else. */
export const JOURNAL_FILE_COUNT_MAX = 8192;
const RECORD_SIZE_MAX = 16 * 1024;
/** Damaged records that are kept for a person to look at; beyond, the oldest go. */
const DAMAGED_COUNT_MAX = 256;
const DAMAGED_NAME = /\.damaged-(.*)$/;
/** A shim that is writing holds the lock for less. */
const WAIT_TOLD_MS = 500;

export type JournalOptions = {
  readonly folder: string;
  readonly wallNow: () => WallTime;
  /** flock(2), exclusive, not waiting; false while another holds it (libc room). */
  readonly lock: (fd: number) => boolean;
  readonly sleep: (ms: number) => Promise<void>;
  readonly lockWaitMs: number; // The daemon before us may take its grace period to end.
  readonly onWait?: (path: string) => void; // Called once, when the lock has not come at once.
};

/** What a drain did. Failed ones stay for the next drain; damaged ones are kept beside, under the names given. */
export type Drained = {
  readonly played: number;
  readonly failed: readonly { readonly key: SandboxKey; readonly error: NodeError }[];
  readonly damaged: readonly { readonly setAside: string; readonly detail: string }[];
  readonly leftCount: number; // Beyond the bound.
};

export type Journal = {
  /** Plays each DEL once, one after the other, and removes it once `play` succeeded. A DEL of nothing is success. */
  readonly drain: (
    play: (key: SandboxKey) => Promise<Result<unknown, NodeError>>,
    /** `serving`: shims may be writing just now, so that only old unfinished files are removed. */
    when?: "start" | "serving",
  ) => Promise<Drained>;
  /** Gives the lock back: at the daemon's end, after the last DEL is written down. */
  readonly close: () => void;
};

/** The error is text: the folder cannot be made, or another daemon kept the lock. */
export async function openJournal(options: JournalOptions): Promise<Result<Journal, string>> {
  const { folder } = options;
  let lock: number;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    lock = openSync(join(folder, "lock"), "a", 0o600);
  } catch (cause) {
    return err(`the journal ${folder} cannot be opened: ${String(cause)}`);
  }
  const stepMs = 10;
  for (let waitedMs = 0; !options.lock(lock); waitedMs += stepMs) {
    if (waitedMs >= options.lockWaitMs) {
      closeSync(lock);
      return err(`another berth daemon holds ${join(folder, "lock")}; only one may run on a node`);
    }
    if (waitedMs === WAIT_TOLD_MS) options.onWait?.(join(folder, "lock"));
    await options.sleep(stepMs);
  }
  return ok({ drain: (play, when = "start") => drain(options, play, when), close: () => closeSync(lock) });
}

async function drain(
  options: JournalOptions,
  play: (key: SandboxKey) => Promise<Result<unknown, NodeError>>,
  when: "start" | "serving",
): Promise<Drained> {
  const { folder } = options;
  const names = readdirSync(folder).sort(); // Whatever the order of the folder, two drains of equal files do equal things.
  for (const name of names.filter((each) => each.endsWith(".tmp"))) {
    if (when === "start") rmSync(join(folder, name), { force: true });
    else removeOld(join(folder, name), options.wallNow());
  }
  const records = names.filter((name) => name.endsWith(".del"));
  const failed: Drained["failed"][number][] = [];
  const damaged: Drained["damaged"][number][] = [];
  let played = 0;
  for (const name of records.slice(0, JOURNAL_FILE_COUNT_MAX)) {
    const path = join(folder, name);
    const key = readRecord(path);
    if (!key.ok) {
      damaged.push({ setAside: setAside(path, options.wallNow()), detail: key.error });
      continue;
    }
    const result = await play(key.value);
    if (!result.ok) failed.push({ key: key.value, error: result.error });
    else {
      rmSync(path, { force: true });
      played += 1;
    }
  }
  const aside = readdirSync(folder).filter((name) => DAMAGED_NAME.test(name));
  aside.sort((left, right) => (timeOf(left) < timeOf(right) ? -1 : 1));
  for (const name of aside.slice(0, Math.max(0, aside.length - DAMAGED_COUNT_MAX)))
    rmSync(join(folder, name), { force: true });
  syncFolder(folder);
  return { played, failed, damaged, leftCount: Math.max(0, records.length - JOURNAL_FILE_COUNT_MAX) };
}

const SHIM_LIFE_MS = 60_000;

/** A shim that was killed while it wrote left it behind; one that writes now is done within its life of 30 s. */
function removeOld(path: string, now: WallTime): void {
  const written = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? now;
  if (Math.abs(now - written) > SHIM_LIFE_MS) rmSync(path, { force: true }); // Of the future, too: the clock was set back.
}

function timeOf(name: string): string {
  return DAMAGED_NAME.exec(name)?.[1] ?? "";
}

function readRecord(path: string): Result<SandboxKey, string> {
  try {
    const { size } = statSync(path);
    if (size > RECORD_SIZE_MAX) return err(`it has ${size} bytes`);
    return parseJournalRecord(readFileSync(path));
  } catch (cause) {
    return err(String(cause));
  }
}

/** `berth-del/1 <FNV-1a 64 of the second line>`, then the key as a line of JSON. */
export function parseJournalRecord(bytes: Uint8Array): Result<SandboxKey, string> {
  const text = new TextDecoder().decode(bytes);
  const head = /^berth-del\/1 ([0-9a-f]{16})\n/.exec(text);
  if (head === null) return err("its first line is none of ours");
  const line = bytes.subarray(head[0].length); // The first line is ASCII: as many bytes as characters.
  if (fnv64(line) !== head[1]) return err("its checksum is wrong");
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(line));
    if (typeof value !== "object" || value === null) return err("it holds no key");
    const { network, containerId, ifName } = value as Record<string, unknown>; // Each is looked at next.
    if (typeof network !== "string" || typeof containerId !== "string" || typeof ifName !== "string")
      return err("it holds no key");
    const key = { network, containerId, ifName };
    return isSandboxKey(key) ? ok(key) : err("it holds no key");
  } catch (cause) {
    return err(String(cause));
  }
}

/** Its new name does not end in `.del`: it is neither counted nor played again. */
function setAside(path: string, now: WallTime): string {
  const name = `${path}.damaged-${printWallTime(now).replaceAll(/[:.]/g, "-")}`;
  renameSync(path, name);
  return name;
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function fnv64(bytes: Uint8Array): string {
  let hash = 0xcbf2_9ce4_8422_2325n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100_0000_01b3n);
  return hash.toString(16).padStart(16, "0");
}
