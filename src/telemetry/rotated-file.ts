/**
 * A log file that is set aside when it is big enough: `x.log` becomes `x.log.1`, that `x.log.2`, and so on; the oldest goes.
 * A full disk or a missing folder costs the file, never the daemon: stdout has every line.
 */
import { mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import pino from "pino";

export type RotatedFileOptions = {
  readonly path: string;
  readonly maxBytes: number;
  readonly keepCount: number; // Files that were set aside.
  readonly onTrouble: (detail: string) => void;
};

export type RotatedFile = {
  readonly write: (line: string) => void;
  readonly close: () => void;
};

/** Lines that the disk has not taken yet are held up to this; beyond, they are dropped and counted. */
const BUFFERED_BYTES_MAX = 4_194_304;

export function openRotatedFile(options: RotatedFileOptions): RotatedFile {
  const { path, maxBytes, keepCount, onTrouble } = options;
  let bytes = 0;
  let dropped = 0;
  let broken = false;
  const trouble = (error: unknown): void => {
    broken = true;
    onTrouble(error instanceof Error ? error.message : String(error));
  };
  try {
    mkdirSync(dirname(path), { recursive: true });
    bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  } catch (error) {
    trouble(error);
    return { write: () => undefined, close: () => undefined };
  }
  const file = pino.destination({ dest: path, sync: false, maxLength: BUFFERED_BYTES_MAX });
  file.on("error", trouble);
  file.on("drop", () => {
    dropped += 1;
    if (dropped === 1) onTrouble("lines are dropped: the disk is too slow");
  });

  const rotate = (): void => {
    try {
      rmSync(`${path}.${keepCount}`, { force: true });
      for (let age = keepCount - 1; age >= 1; age -= 1) renameIfThere(`${path}.${age}`, `${path}.${age + 1}`);
      renameIfThere(path, `${path}.1`);
      file.reopen();
      bytes = 0;
    } catch (error) {
      trouble(error);
    }
  };
  return {
    write(line) {
      if (broken) return;
      const size = Buffer.byteLength(line);
      if (bytes > 0 && bytes + size > maxBytes) rotate();
      bytes += size;
      file.write(line);
    },
    close() {
      if (broken) return;
      try {
        file.flushSync();
      } catch (error) {
        trouble(error);
      }
      file.end();
    },
  };
}

function renameIfThere(from: string, to: string): void {
  if (statSync(from, { throwIfNoEntry: false }) !== undefined) renameSync(from, to);
}
