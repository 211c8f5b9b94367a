/** A file that is never seen half-written: made beside its target, synced, renamed over it, and the folder synced. */
import { open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { err, ok, type Result } from "../lib/result.ts";

export type InstallFailure = {
  readonly path: string;
  readonly code: string; // errno's name: "EACCES", "ENOSPC", "EROFS", …
  readonly detail: string;
};

/** `mode` is set whatever the process's umask. `unchanged` when the target holds these bytes with this mode already. */
export async function ensureFile(file: {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly mode: number;
}): Promise<Result<"written" | "unchanged", InstallFailure>> {
  // In the same folder, since runtimes do not see a finished file that is moved in from elsewhere; and with none of the suffixes that
  // they look for, since even a hidden file would count with one.
  const asidePath = `${file.path}.new`;
  try {
    if (await isThere(file.path, file.bytes, file.mode)) return ok("unchanged");
    // Left by a write that was cut off. Runtimes never read it, and its name is ours.
    await rm(asidePath, { force: true });
    const aside = await open(asidePath, "wx", file.mode);
    try {
      await aside.writeFile(file.bytes);
      await aside.chmod(file.mode);
      await aside.sync();
    } finally {
      await aside.close();
    }
    await rename(asidePath, file.path);
    await syncFolder(dirname(file.path));
    return ok("written");
  } catch (error) {
    await rm(asidePath, { force: true }).catch(() => undefined); // The first failure is the one to tell.
    return err(installFailure(file.path, error));
  }
}

/** True when there was a file to remove. */
export async function removeFile(path: string): Promise<Result<boolean, InstallFailure>> {
  try {
    await rm(path);
    await syncFolder(dirname(path));
    return ok(true);
  } catch (error) {
    const failure = installFailure(path, error);
    return failure.code === "ENOENT" ? ok(false) : err(failure);
  }
}

export function installFailure(path: string, error: unknown): InstallFailure {
  const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
  return { path, code, detail: error instanceof Error ? error.message : String(error) };
}

async function isThere(path: string, bytes: Uint8Array, mode: number): Promise<boolean> {
  try {
    const file = await open(path, "r");
    try {
      const { size, mode: present } = await file.stat();
      return size === bytes.length && (present & 0o777) === mode && (await file.readFile()).equals(bytes);
    } finally {
      await file.close();
    }
  } catch {
    return false; // Missing, or not readable: it is written, and writing tells what is wrong.
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

export async function readBytes(path: string): Promise<Result<Uint8Array, InstallFailure>> {
  try {
    return ok(await readFile(path));
  } catch (error) {
    return err(installFailure(path, error));
  }
}
