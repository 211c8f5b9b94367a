/**
 * The network configuration that runtimes read. Written last, when the daemon can serve; left in place at exit, since a node without
 * one gives its next pods to whatever other network sorts next; removed only by an explicit uninstall.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { byText, sorted } from "../lib/order.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { SHIM_NAME } from "./shim.ts";
import { ensureFile, type InstallFailure, installFailure, removeFile } from "./written-file.ts";

/**
 * Runtimes take the file that sorts first by bytes. 05 stands before the AWS VPC CNI's 10-aws.conflist, which may stay beside it as the
 * way back, and after 00-multus.conf, which must stay first because it calls us.
 */
export const CONFLIST_NAME = "05-berth.conflist";

export type ConflistOptions = {
  readonly networkName: string;
  readonly chainPortmap: boolean;
  /** We refuse host ports and bandwidth limits ourselves, so the runtime must tell us of them, and nobody else serves them. */
  readonly refusesCapabilities: boolean;
  /** Only where they are not the plugin's own defaults: it then knows them by itself. */
  readonly socketPath: string | null;
  readonly journalDirectory: string | null;
};

/**
 * The file's text. `cniVersion` 1.0.0 beside `cniVersions` is what old and new libcni both read right: those that do not know the
 * list ask in 1.0.0, those that do take 1.1.0 and with it STATUS and GC (tried with containerd 1.6.20 and 2.2.7).
 * Source: CNI specification 1.1.0, "Configuration format".
 */
export function conflistText(options: ConflistOptions): string {
  const ours = {
    type: SHIM_NAME,
    ...(options.refusesCapabilities ? { capabilities: { portMappings: true, bandwidth: true } } : {}),
    ...(options.socketPath === null ? {} : { berthSocket: options.socketPath }),
    ...(options.journalDirectory === null ? {} : { berthJournal: options.journalDirectory }),
  };
  const portmap = { type: "portmap", capabilities: { portMappings: true }, snat: true };
  const list = {
    cniVersion: "1.0.0",
    cniVersions: ["0.4.0", "1.0.0", "1.1.0"],
    name: options.networkName,
    plugins: options.chainPortmap && !options.refusesCapabilities ? [ours, portmap] : [ours],
  };
  return `${JSON.stringify(list, null, 2)}\n`;
}

export type InstalledConflist = {
  readonly outcome: "written" | "unchanged";
  /** Files that sort before ours, and that the runtime takes in its place. Somebody must act: ours has no effect while they are there. */
  readonly before: readonly string[];
};

/** Writes the configuration into `directory` (HOST_CNI_CONFDIR_PATH) when what is there differs. The folder must be there. */
export async function installConflist(
  directory: string,
  options: ConflistOptions,
): Promise<Result<InstalledConflist, InstallFailure>> {
  const written = await ensureFile({
    path: join(directory, CONFLIST_NAME),
    bytes: new TextEncoder().encode(conflistText(options)),
    mode: 0o644,
  });
  if (!written.ok) return written;
  const before = await filesBeforeOurs(directory);
  return before.ok ? ok({ outcome: written.value, before: before.value }) : before;
}

/** Configurations that sort before ours, by bytes as runtimes sort them, hidden ones too. */
export async function filesBeforeOurs(directory: string): Promise<Result<readonly string[], InstallFailure>> {
  try {
    const names = await readdir(directory);
    const read = names.filter((name) => /\.(conf|conflist|json)$/.test(name) && name < CONFLIST_NAME);
    return ok(
      sorted(
        read,
        byText((name) => name),
      ),
    );
  } catch (error) {
    return err(installFailure(directory, error));
  }
}

/** Only for an explicit uninstall. False: there was none. */
export async function removeConflist(directory: string): Promise<Result<boolean, InstallFailure>> {
  return removeFile(join(directory, CONFLIST_NAME));
}
