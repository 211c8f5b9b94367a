/**
 * A log file that is set aside when it is big enough: `x.log` becomes `x.log.1`, that `x.log.2`, and so on; the oldest goes.
 * Written off the main thread, one chunk at a time and in order. A full disk or a missing folder costs the file, never the daemon:
 * stdout has every line.
 */
import { mkdirSync, statSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

export type RotatedFileOptions = {
  readonly path: string;
  readonly maxBytes: number;
  readonly keepCount: number; // Files that were set aside.
  /** Called once, when the file is given up. */
  readonly onTrouble: (error: unknown) => void;
};

export type RotatedFile = {
  readonly write: (line: string) => void;
  /** Resolves when all lines are written. Never fails. */
  readonly close: () => Promise<void>;
};

/** Lines that the disk has not taken yet are held up to this; beyond, they are dropped. */
const WAITING_CHARACTERS_MAX = 4_194_304;

export function openRotatedFile(options: RotatedFileOptions): RotatedFile {
  const { path, maxBytes } = options;
  let waiting: string[] = [];
  let waitingCharacters = 0;
  let dropped = 0;
  let givenUp = false;
  let running: Promise<void> | null = null;
  let file: FileHandle | null = null;
  let bytes = 0;

  const giveUp = (error: unknown): void => {
    if (givenUp) return;
    givenUp = true;
    waiting = [];
    options.onTrouble(error);
  };
  try {
    mkdirSync(dirname(path), { recursive: true }); // At once, so that a wrong path is told at start.
    bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  } catch (error) {
    giveUp(error);
  }

  const drain = async (): Promise<void> => {
    try {
      for (let line = waiting.shift(); line !== undefined; line = waiting.shift()) {
        waitingCharacters -= line.length;
        const size = Buffer.byteLength(line);
        if (bytes > 0 && bytes + size > maxBytes) {
          await file?.close();
          file = null;
          await setAside(options);
          bytes = 0;
        }
        file ??= await open(path, "a", 0o640);
        await file.appendFile(line);
        bytes += size;
      }
    } catch (error) {
      giveUp(error);
    } finally {
      running = null;
    }
  };
  return {
    write(line) {
      if (givenUp) return;
      if (waitingCharacters + line.length > WAITING_CHARACTERS_MAX) {
        dropped += 1;
        return;
      }
      const lines =
        dropped === 0
          ? [line]
          : [`${JSON.stringify({ message: "log lines dropped", count: dropped })}\n`, line];
      dropped = 0;
      waiting.push(...lines);
      waitingCharacters += lines.reduce((sum, each) => sum + each.length, 0);
      running ??= drain();
    },
    async close() {
      if (running !== null) await running; // Goes on until nothing waits.
      givenUp = true;
      await file?.close().catch(() => undefined); // Everything is written; nothing is left to lose.
      file = null;
    },
  };
}

async function setAside({ path, keepCount }: RotatedFileOptions): Promise<void> {
  await rm(`${path}.${keepCount}`, { force: true });
  for (let age = keepCount - 1; age >= 1; age -= 1)
    await renameIfThere(`${path}.${age}`, `${path}.${age + 1}`);
  await renameIfThere(path, `${path}.1`);
}

async function renameIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    const missing = error instanceof Error && "code" in error && error.code === "ENOENT";
    if (!missing) throw error;
  }
}
