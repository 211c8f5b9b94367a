// The archive itself: what other programs read of it, and that equal inputs give equal bytes.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Image, ociLayout } from "../../deploy/oci.ts";
import { tar, type TarEntry } from "../../deploy/tar.ts";

const LONG = `${"folder/".repeat(16)}file`;
const ENTRIES: readonly TarEntry[] = [
  { kind: "file", path: "usr/bin/node", bytes: Buffer.from("binary"), mode: 0o755 },
  { kind: "link", path: "var/run", target: "../run" },
  { kind: "folder", path: "tmp", mode: 0o1777 },
  { kind: "file", path: LONG, bytes: new Uint8Array(513), mode: 0o644 },
];

const image = (entries: readonly TarEntry[]): Image => ({
  platform: "amd64",
  layers: [entries],
  config: { entrypoint: ["/usr/bin/node"], environment: { A: "1" }, labels: {} },
});

test("tar reads what we write: modes, links, long names, and root as owner", () => {
  const folder = mkdtempSync(join(tmpdir(), "berth-tar-"));
  writeFileSync(join(folder, "a.tar"), tar(ENTRIES));
  const { stdout } = spawnSync("tar", ["-tvf", join(folder, "a.tar")], {
    encoding: "utf8",
    env: { ...process.env, TZ: "UTC" },
  });
  rmSync(folder, { recursive: true });
  expect(stdout).toContain("-rwxr-xr-x root/root         6 1970-01-01 00:00 usr/bin/node");
  expect(stdout).toContain("var/run -> ../run");
  expect(stdout).toContain("drwxrwxrwt root/root         0 1970-01-01 00:00 tmp/");
  expect(stdout).toContain(`513 1970-01-01 00:00 ${LONG}`);
});

test("the order in which files are found changes no byte, and another content does", () => {
  const one = ociLayout([image(ENTRIES)], "berth:1");
  const other = ociLayout([image(ENTRIES.toReversed())], "berth:1");
  expect(other.digest).toBe(one.digest);
  expect(other.archive.equals(one.archive)).toBe(true);
  expect(ociLayout([image(ENTRIES.slice(1))], "berth:1").digest).not.toBe(one.digest);
});

test("a path that no tar archive can hold is refused", () => {
  expect(() => tar([{ kind: "folder", path: "x".repeat(300), mode: 0o755 }])).toThrow("too long");
});
