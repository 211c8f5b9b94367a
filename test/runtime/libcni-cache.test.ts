import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readLibcniCache } from "../../src/runtime/libcni-cache.ts";
import { netnsLives } from "../../src/runtime/netns.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-cache-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): void {
  mkdirSync(join(folder, "results"), { recursive: true });
  writeFileSync(join(folder, "results", name), text);
}

function entry(changes: object): string {
  const whole = {
    kind: "cniCacheV1",
    containerId: "c1",
    ifName: "eth0",
    networkName: "berth",
    netns: "/run/netns/x",
    result: { cniVersion: "1.0.0", ips: [{ address: "10.0.0.5/32" }, { address: "fd00::5/128" }] },
  };
  return JSON.stringify({ ...whole, ...changes });
}

test("an absent cache is an empty one", () => {
  expect(readLibcniCache(folder, "berth", () => {})).toEqual({ ok: true, value: [] });
});

test("sandboxes of our network are listed with namespace and IPv4 addresses, others are left out", () => {
  write("berth-c1-eth0", entry({}));
  write("other-c1-eth0", entry({ networkName: "other" }));
  expect(readLibcniCache(folder, "berth", () => {})).toEqual({
    ok: true,
    value: [
      {
        key: { network: "berth", containerId: "c1", ifName: "eth0" },
        netnsPath: "/run/netns/x",
        ips: ["10.0.0.5"],
        source: "libcni-cache",
      },
    ],
  });
});

test("what cannot be read is told and does not hide the rest", () => {
  write("a", "{");
  write("b", JSON.stringify({ kind: "cniCacheV9" }));
  write("c", entry({ result: null, netns: "" }));
  const unreadable: string[] = [];
  const read = readLibcniCache(folder, null, (file) => unreadable.push(file));
  expect(unreadable).toEqual(["a", "b"]);
  expect(read.ok && read.value.map((each) => [each.netnsPath, each.ips])).toEqual([[null, []]]);
});

test("a namespace lives only while its path leads to the same device and inode", () => {
  const path = join(folder, "ns");
  writeFileSync(path, "");
  const { dev, ino } = statSync(path);
  expect(netnsLives({ path, device: dev, inode: ino })).toBe(true);
  expect(netnsLives({ path, device: dev, inode: ino + 1 })).toBe(false);
  rmSync(path);
  expect(netnsLives({ path, device: dev, inode: ino })).toBe(false);
  expect(netnsLives({ path: "", device: 0, inode: 0 })).toBe(false);
});
