/** Puts the CNI plugin on the host. A runtime may be running the old one: it is replaced by rename, never written into. */
import { join } from "node:path";
import { err, type Result } from "../lib/result.ts";
import { ensureFile, type InstallFailure, installFailure, readBytes, removeFile } from "./written-file.ts";

/** The plugin's `type` in the network configuration, and its file's name. */
export const SHIM_NAME = "berth-cni";

/**
 * Copies the plugin at `sourcePath` into `directory` (HOST_CNI_BIN_PATH) when what is there differs. An old plugin that still runs keeps
 * its file: writing into it would fail with ETXTBSY, which kept other thick plugins from ever starting again after a reboot.
 */
export async function installShim(options: {
  readonly sourcePath: string;
  readonly directory: string;
}): Promise<Result<"written" | "unchanged", InstallFailure>> {
  const source = await readBytes(options.sourcePath);
  if (!source.ok) return source;
  if (source.value.length === 0) {
    return err(installFailure(options.sourcePath, new Error("the plugin's file is empty")));
  }
  return ensureFile({ path: join(options.directory, SHIM_NAME), bytes: source.value, mode: 0o755 });
}

/** Only for an explicit uninstall: sandboxes that live need the plugin for their DEL. False: there was none. */
export async function removeShim(directory: string): Promise<Result<boolean, InstallFailure>> {
  return removeFile(join(directory, SHIM_NAME));
}
