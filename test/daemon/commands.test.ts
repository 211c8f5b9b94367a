import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runCommand } from "../../src/daemon/commands.ts";
import { installPlugins } from "../../src/install/plugins.ts";

let folder: string;
let said: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-commands-"));
  for (const each of ["bin", "conf", "image"]) mkdirSync(join(folder, each));
  writeFileSync(join(folder, "shim"), "plugin");
  said = "";
});
afterEach(() => rmSync(folder, { recursive: true }));

async function command(...args: readonly string[]): Promise<number | null> {
  const environment = {
    HOST_CNI_BIN_PATH: join(folder, "bin"),
    HOST_CNI_CONFDIR_PATH: join(folder, "conf"),
    BERTH_SHIM_PATH: join(folder, "shim"),
    BERTH_RUN_DIRECTORY: folder,
  };
  const say = (text: string): void => void (said += text);
  return await runCommand(args, environment, { out: say, error: say });
}

test("without a command the program is the daemon, and one that is not there is told", async () => {
  expect(await command()).toBeNull();
  expect(await command("instal")).toBe(64);
  expect(said).toContain("there is no command instal");
});

test("install puts the plugin on the host and leaves the configuration to the daemon", async () => {
  expect(await command("install")).toBe(0);
  expect(readFileSync(join(folder, "bin/berth-cni"), "utf8")).toBe("plugin");
  expect(readdirSync(join(folder, "conf"))).toEqual([]);
});

test("reference plugins are put where they are missing, and the node's own are left alone", async () => {
  for (const name of ["loopback", "portmap"]) writeFileSync(join(folder, "image", name), "ours");
  writeFileSync(join(folder, "bin/portmap"), "the node's");
  const directory = join(folder, "bin");
  const put = await installPlugins({ sourceDirectory: join(folder, "image"), directory });
  expect(put).toEqual({ ok: true, value: ["loopback"] });
  expect(readFileSync(join(directory, "portmap"), "utf8")).toBe("the node's");
  expect(statSync(join(directory, "loopback")).mode & 0o777).toBe(0o755);
});

test("uninstall takes configuration and plugin away, and nothing else", async () => {
  await command("install");
  for (const name of ["05-berth.conflist", "10-aws.conflist"])
    writeFileSync(join(folder, "conf", name), "{}");
  expect(await command("uninstall")).toBe(0);
  expect(readdirSync(join(folder, "conf"))).toEqual(["10-aws.conflist"]);
  expect(existsSync(join(folder, "bin/berth-cni"))).toBe(false);
});

test("max-pods prints the number that kubelet wants, by instance type and mode", async () => {
  expect(await command("max-pods", "m5.large")).toBe(0);
  expect(await command("max-pods", "m5.large", "--prefixes", "--cap", "110")).toBe(0);
  expect(said).toBe("29\n110\n");
  expect(await command("max-pods", "m5.large", "--cap", "many")).toBe(64);
  expect(await command("max-pods", "x0.none")).toBe(1);
});
