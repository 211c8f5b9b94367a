/**
 * What the image's program does beside being the daemon: `install` (the init step), `uninstall`, `max-pods`. Each is one look and one word
 * to the operator; null where the arguments name none of them.
 */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { poolSettings } from "../config/for-rooms.ts";
import { type Environment, loadConfig, printNotice } from "../config/load.ts";
import type { Config } from "../config/settings.ts";
import { instanceLimits } from "../core/model/instance-limits.ts";
import { maxPodsOf } from "../core/pool/max-pods.ts";
import { removeConflist } from "../install/conflist.ts";
import { installPlugins } from "../install/plugins.ts";
import { installShim, removeShim } from "../install/shim.ts";
import { wallTime } from "../lib/time.ts";
import { createCheckpointFile } from "../store/file.ts";

const USAGE = `usage:
  berth                         the daemon
  berth install                 put the plugin, and reference plugins that the node lacks, on the host
  berth uninstall [--with-pods] take configuration and plugin away; refused while pods have addresses
  berth max-pods TYPE [--prefixes] [--cap COUNT]
                                kubelet's max-pods for an instance type, by the settings in the environment
  berth --version
`;
const EXIT_USAGE = 64; // sysexits.h, EX_USAGE
/** Where the image keeps reference plugins. */
const IMAGE_PLUGINS = "/opt/cni/bin";

export type Terminal = { readonly out: (text: string) => void; readonly error: (text: string) => void };

/** The exit code; null: no command was asked for. */
export async function runCommand(
  args: readonly string[],
  environment: Environment,
  terminal: Terminal,
): Promise<number | null> {
  const [command, ...rest] = args;
  if (command === undefined) return null;
  const usage = (problem: string): number => {
    terminal.error(`berth: ${problem}\n${USAGE}`);
    return EXIT_USAGE;
  };
  if (!["install", "uninstall", "max-pods"].includes(command)) return usage(`there is no command ${command}`);
  const loaded = loadConfig(environment);
  if (!loaded.ok) {
    for (const notice of loaded.error) terminal.error(`berth: ${printNotice(notice)}\n`);
    return EXIT_USAGE;
  }
  const { config } = loaded.value;
  if (command === "install" && rest.length === 0) return await install(config, terminal);
  if (command === "uninstall" && rest.every((each) => each === "--with-pods"))
    return await uninstall(config, rest.length > 0, terminal);
  if (command === "max-pods")
    return maxPods(rest, config, terminal) ?? usage("max-pods takes an instance type");
  return usage(`${command} does not take ${rest.join(" ")}`);
}

async function install(config: Config, terminal: Terminal): Promise<number> {
  const sourcePath = config.shimPath ?? join(dirname(fileURLToPath(import.meta.url)), "berth-cni");
  const shim = await installShim({ sourcePath, directory: config.hostBinDirectory });
  const plugins = await installPlugins({
    sourceDirectory: IMAGE_PLUGINS,
    directory: config.hostBinDirectory,
  });
  for (const each of [shim, plugins])
    if (!each.ok) terminal.error(`berth: ${each.error.path}: ${each.error.code}: ${each.error.detail}\n`);
  if (!shim.ok || !plugins.ok) return 1;
  const added = plugins.value.length === 0 ? "none was missing" : `put there: ${plugins.value.join(", ")}`;
  terminal.out(`plugin ${shim.value}; reference plugins: ${added}\n`);
  return 0; // The network configuration comes from the daemon, when it can serve.
}

/** The configuration first: from then on the runtime starts no pod with us. The plugin last: a DEL needs it. */
async function uninstall(config: Config, withPods: boolean, terminal: Terminal): Promise<number> {
  const pods = podCount(config);
  if (pods > 0 && !withPods) {
    terminal.error(
      `berth: ${pods} sandboxes on this node have addresses; drain it first. With --with-pods the configuration goes all the same, and the plugin stays for their DELs.\n`,
    );
    return 1;
  }
  const conflist = await removeConflist(config.hostConfDirectory);
  const shim = pods > 0 ? null : await removeShim(config.hostBinDirectory);
  for (const each of [conflist, shim])
    if (each !== null && !each.ok)
      terminal.error(`berth: ${each.error.path}: ${each.error.code}: ${each.error.detail}\n`);
  if (!conflist.ok || shim?.ok === false) return 1;
  const told = (was: boolean): string => (was ? "taken away" : "was not there");
  terminal.out(
    `configuration ${told(conflist.value)}; plugin ${shim === null ? "stays for running pods" : told(shim.value)}\n`,
  );
  return 0;
}

function podCount(config: Config): number {
  const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const file = createCheckpointFile({
    path: config.checkpointPath,
    bootId,
    wallNow: () => wallTime(Date.now()),
  });
  const loaded = file.load();
  if (loaded.kind !== "loaded" || loaded.checkpoint.bootId !== bootId) return 0; // After a boot no sandbox is left.
  return loaded.checkpoint.allocations.length;
}

function maxPods(args: readonly string[], config: Config, terminal: Terminal): number | null {
  const capAt = args.indexOf("--cap");
  const capText = capAt === -1 ? undefined : args[capAt + 1];
  const cap = capText === undefined ? null : Number(capText);
  const others = args.filter(
    (each, at) => each !== "--prefixes" && at !== capAt && (capAt === -1 || at !== capAt + 1),
  );
  const [type] = others;
  const badCap = capAt !== -1 && (cap === null || !Number.isInteger(cap) || cap < 1);
  if (type === undefined || others.length > 1 || type.startsWith("-") || badCap) return null;
  const limits = instanceLimits(type);
  if (limits === null) {
    terminal.error(`berth: ${type} is in no table of this version\n`);
    return 1;
  }
  const pool = poolSettings(config);
  const prefixDelegation = pool.prefixDelegation || args.includes("--prefixes");
  terminal.out(`${maxPodsOf(limits, { ...pool, prefixDelegation }, cap)}\n`);
  return 0;
}
