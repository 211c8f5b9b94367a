/**
 * Reference plugins that a node may lack: runtimes call `loopback` for each pod, our configuration chains `portmap`. A plugin that is there
 * is the node's own and is left as it is.
 */
import { access } from "node:fs/promises";
import { join } from "node:path";
import { ok, type Result } from "../lib/result.ts";
import { ensureFile, type InstallFailure, readBytes } from "./written-file.ts";

export const REFERENCE_PLUGINS = ["loopback", "portmap", "bandwidth", "tuning", "host-local"] as const;

/** Which were put there. What the image does not carry is not an error: the node may have it. */
export async function installPlugins(options: {
  readonly sourceDirectory: string;
  readonly directory: string;
}): Promise<Result<readonly string[], InstallFailure>> {
  const written: string[] = [];
  for (const name of REFERENCE_PLUGINS) {
    if (await isThere(join(options.directory, name))) continue;
    const source = await readBytes(join(options.sourceDirectory, name));
    if (!source.ok && source.error.code === "ENOENT") continue;
    if (!source.ok) return source;
    const put = await ensureFile({ path: join(options.directory, name), bytes: source.value, mode: 0o755 });
    if (!put.ok) return put;
    written.push(name);
  }
  return ok(written);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
