import {
  chmodSync,
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
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  CONFLIST_NAME,
  conflistText,
  filesBeforeOurs,
  installConflist,
  removeConflist,
} from "../../src/install/conflist.ts";
import { installShim, removeShim } from "../../src/install/shim.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-install-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

const conflist = {
  networkName: "aws-cni",
  chainPortmap: true,
  refusesCapabilities: false,
  socketPath: null,
  journalDirectory: null,
};

/** Tells whether a file was written again: a rename brings another inode. */
function inodeOf(path: string): number {
  return statSync(path).ino;
}

describe("the plugin", () => {
  const plugin = () => join(folder, "bin", "berth-cni");
  const source = () => join(folder, "source");
  beforeEach(() => {
    mkdirSync(join(folder, "bin"));
    writeFileSync(source(), "plugin 1");
  });
  const install = () => installShim({ sourcePath: source(), directory: join(folder, "bin") });

  test("is put on the host, may be run, and leaves nothing beside it", async () => {
    expect(await install()).toEqual({ ok: true, value: "written" });
    expect(readFileSync(plugin(), "utf8")).toBe("plugin 1");
    expect((statSync(plugin()).mode & 0o777).toString(8)).toBe("755");
    expect(readdirSync(join(folder, "bin"))).toEqual(["berth-cni"]);
  });

  test("is left alone when it is the same, and replaced by rename when it is not", async () => {
    await install();
    const first = inodeOf(plugin());
    expect(await install()).toEqual({ ok: true, value: "unchanged" });
    expect(inodeOf(plugin())).toBe(first);
    writeFileSync(source(), "plugin 2");
    expect(await install()).toEqual({ ok: true, value: "written" });
    expect(inodeOf(plugin())).not.toBe(first);
    expect(readFileSync(plugin(), "utf8")).toBe("plugin 2");
  });

  test("that lost its right to run is put back", async () => {
    await install();
    chmodSync(plugin(), 0o644);
    expect(await install()).toEqual({ ok: true, value: "written" });
    expect((statSync(plugin()).mode & 0o777).toString(8)).toBe("755");
  });

  test("is installed over what a cut-off installation left", async () => {
    writeFileSync(`${plugin()}.new`, "half");
    expect(await install()).toEqual({ ok: true, value: "written" });
    expect(readdirSync(join(folder, "bin"))).toEqual(["berth-cni"]);
  });

  test("that is empty or missing is not installed over a good one", async () => {
    await install();
    writeFileSync(source(), "");
    expect(await install()).toMatchObject({ ok: false, error: { path: source() } });
    rmSync(source());
    expect(await install()).toMatchObject({ ok: false, error: { code: "ENOENT", path: source() } });
    expect(readFileSync(plugin(), "utf8")).toBe("plugin 1");
  });

  test("whose folder is missing says so", async () => {
    rmSync(join(folder, "bin"), { recursive: true });
    expect(await install()).toMatchObject({ ok: false, error: { code: "ENOENT", path: plugin() } });
  });

  test("goes only when it is asked to, and going twice is no error", async () => {
    await install();
    expect(await removeShim(join(folder, "bin"))).toEqual({ ok: true, value: true });
    expect(await removeShim(join(folder, "bin"))).toEqual({ ok: true, value: false });
    expect(existsSync(plugin())).toBe(false);
  });
});

describe("the network configuration", () => {
  test("is what old and new runtimes read right", () => {
    expect(conflistText(conflist)).toBe(`{
  "cniVersion": "1.0.0",
  "cniVersions": [
    "0.4.0",
    "1.0.0",
    "1.1.0"
  ],
  "name": "aws-cni",
  "plugins": [
    {
      "type": "berth-cni"
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      },
      "snat": true
    }
  ]
}
`);
  });

  test("of an ipvlan node has the runtime tell us what we refuse, and chains nobody who would serve it wrongly", () => {
    const { plugins } = JSON.parse(conflistText({ ...conflist, refusesCapabilities: true })) as {
      plugins: unknown;
    };
    expect(plugins).toEqual([{ type: "berth-cni", capabilities: { portMappings: true, bandwidth: true } }]);
  });

  test("names socket and journal where they are not the plugin's own, and chains nothing that is not asked for", () => {
    const text = conflistText({
      ...conflist,
      chainPortmap: false,
      refusesCapabilities: false,
      socketPath: "/run/x.sock",
      journalDirectory: "/var/j",
    });
    expect(JSON.parse(text)).toMatchObject({
      plugins: [{ type: "berth-cni", berthSocket: "/run/x.sock", berthJournal: "/var/j" }],
    });
    expect(text).not.toContain("portmap");
  });

  test("is written once, and again only when it differs", async () => {
    expect(await installConflist(folder, conflist)).toEqual({
      ok: true,
      value: { outcome: "written", before: [] },
    });
    const path = join(folder, CONFLIST_NAME);
    const first = inodeOf(path);
    expect((statSync(path).mode & 0o777).toString(8)).toBe("644");
    expect(await installConflist(folder, conflist)).toMatchObject({ value: { outcome: "unchanged" } });
    expect(inodeOf(path)).toBe(first);
    expect(await installConflist(folder, { ...conflist, chainPortmap: false })).toMatchObject({
      value: { outcome: "written" },
    });
    expect(readdirSync(folder)).toEqual([CONFLIST_NAME]);
  });

  test("sorts before the incumbent's and after a meta plugin's that calls it; what sorts first is told", async () => {
    for (const name of [
      "10-aws.conflist",
      "00-multus.conf",
      ".00-hidden.conflist",
      "00-notes.txt",
      "05-berth.conflist.new",
    ]) {
      writeFileSync(join(folder, name), "{}");
    }
    expect(await filesBeforeOurs(folder)).toEqual({
      ok: true,
      value: [".00-hidden.conflist", "00-multus.conf"],
    });
    expect(await installConflist(folder, conflist)).toMatchObject({
      ok: true,
      value: { before: [".00-hidden.conflist", "00-multus.conf"] },
    });
    expect(readFileSync(join(folder, "10-aws.conflist"), "utf8")).toBe("{}");
  });

  test("is never seen half-written: the name aside is none that runtimes read", async () => {
    // A folder in place of the name aside makes the write fail; nothing else may have been made by then.
    mkdirSync(join(folder, `${CONFLIST_NAME}.new`));
    expect(await installConflist(folder, conflist)).toMatchObject({ ok: false });
    expect(readdirSync(folder).filter((name) => /\.(conf|conflist|json)$/.test(name))).toEqual([]);
  });

  test("whose folder is missing is not made: a runtime would not see it", async () => {
    const missing = join(folder, "net.d");
    expect(await installConflist(missing, conflist)).toMatchObject({ ok: false, error: { code: "ENOENT" } });
    expect(existsSync(missing)).toBe(false);
  });

  test("goes only when it is asked to, and others' stay", async () => {
    await installConflist(folder, conflist);
    writeFileSync(join(folder, "10-aws.conflist"), "{}");
    expect(await removeConflist(folder)).toEqual({ ok: true, value: true });
    expect(await removeConflist(folder)).toEqual({ ok: true, value: false });
    expect(readdirSync(folder)).toEqual(["10-aws.conflist"]);
  });
});
