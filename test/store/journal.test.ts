import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { JOURNAL_FILE_COUNT_MAX as WRITTEN_MAX } from "../../src/cni/wire.ts";
import type { SandboxKey } from "../../src/core/model/sandbox.ts";
import { err, ok } from "../../src/lib/result.ts";
import { wallTime } from "../../src/lib/time.ts";
import {
  JOURNAL_FILE_COUNT_MAX,
  openJournal,
  parseJournalRecord,
  type Journal,
} from "../../src/store/journal.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-journal-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

// As the shim wrote it, for `pods`, `c0ffee`, `eth0` (test/e2e/shim.test.ts drives the real one).
const LINE = '{"network":"pods","containerId":"c0ffee","ifName":"eth0"}\n';
const RECORD = `berth-del/1 ${fnv(LINE)}\n${LINE}`;
const KEY: SandboxKey = { network: "pods", containerId: "c0ffee", ifName: "eth0" };

function fnv(text: string): string {
  let hash = 14695981039346656037n;
  for (const byte of new TextEncoder().encode(text))
    hash = ((hash ^ BigInt(byte)) * 1099511628211n) % 2n ** 64n;
  return hash.toString(16).padStart(16, "0");
}

async function open(lock: () => boolean = () => true): Promise<Journal> {
  const opened = await openJournal({
    folder: join(folder, "journal"),
    wallNow: () => wallTime(1_700_000_000_000),
    lock,
    sleep: async () => {},
    lockWaitMs: 100,
  });
  if (!opened.ok) throw new Error(opened.error);
  return opened.value;
}

function put(name: string, text: string): void {
  mkdirSync(join(folder, "journal"), { recursive: true });
  writeFileSync(join(folder, "journal", name), text);
}

const left = (): string[] => readdirSync(join(folder, "journal")).filter((name) => name !== "lock");

test("a file that a shim writes just now is left alone; one of a shim that was killed goes", async () => {
  const journal = await open();
  put("old.tmp", "berth-del/1 ");
  put("young.tmp", "berth-del/1 ");
  const now = 1_700_000_000;
  utimesSync(join(folder, "journal", "old.tmp"), now - 61, now - 61);
  utimesSync(join(folder, "journal", "young.tmp"), now - 30, now - 30);
  await journal.drain(async () => ok(null), "serving");
  expect(left()).toEqual(["young.tmp"]);
  await journal.drain(async () => ok(null));
  expect(left()).toEqual([]); // At the start both are of shims that were killed.
});

test("each DEL is played once and then gone; a second drain finds nothing", async () => {
  put("a.del", RECORD);
  const journal = await open();
  const played: SandboxKey[] = [];
  const play = async (key: SandboxKey) => ok(played.push(key));
  expect(await journal.drain(play)).toEqual({ played: 1, failed: [], damaged: [], leftCount: 0 });
  expect(await journal.drain(play)).toMatchObject({ played: 0 });
  expect(played).toEqual([KEY]);
  expect(left()).toEqual([]);
});

test("a DEL that fails stays for the next drain", async () => {
  put("a.del", RECORD);
  const journal = await open();
  const error = { code: "not-ready", detail: "" } as const;
  expect(await journal.drain(async () => err(error))).toMatchObject({
    played: 0,
    failed: [{ key: KEY, error }],
  });
  expect(left()).toEqual(["a.del"]);
});

test("a damaged record is set aside and told, and the others are played", async () => {
  put("a.del", RECORD.slice(0, -3));
  put("b.del", RECORD);
  put("c.del", "x".repeat(20_000));
  const journal = await open();
  const drained = await journal.drain(async () => ok(null));
  expect(drained.played).toBe(1);
  expect(drained.damaged.map(({ setAside }) => setAside)).toEqual([
    join(folder, "journal", "a.del.damaged-2023-11-14T22-13-20-000Z"),
    join(folder, "journal", "c.del.damaged-2023-11-14T22-13-20-000Z"),
  ]);
  expect(await journal.drain(async () => ok(null))).toMatchObject({ played: 0, damaged: [] });
});

test("what a killed shim left half-written is cleared away", async () => {
  put("a.123.tmp", "half");
  await (await open()).drain(async () => ok(null));
  expect(left()).toEqual([]);
});

test("every beginning and every flipped bit of a record is recognised", () => {
  const bytes = new TextEncoder().encode(RECORD);
  expect(parseJournalRecord(bytes)).toEqual({ ok: true, value: KEY });
  for (let at = 0; at < bytes.length; at += 1) {
    expect(parseJournalRecord(bytes.subarray(0, at)).ok).toBe(false);
    for (let bit = 0; bit < 8; bit += 1) {
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] ?? 0) ^ (1 << bit);
      expect(parseJournalRecord(flipped).ok).toBe(false);
    }
  }
});

test.each([
  '{"network":"pods","containerId":"c"}\n',
  '{"network":"","containerId":"c","ifName":"e"}\n',
  '{"network":"a/b","containerId":"c","ifName":"e"}\n',
  "null\n",
  "no json\n",
])("a whole record without a key is damaged: %s", (line) => {
  expect(parseJournalRecord(new TextEncoder().encode(`berth-del/1 ${fnv(line)}\n${line}`)).ok).toBe(false);
});

test("the daemon waits for the lock, and says who has it when it does not come", async () => {
  let refusals = 3;
  await open(() => refusals-- === 0);
  await expect(open(() => false)).rejects.toThrow("another berth daemon");
});

test("shims write as many records as a drain reads", () => {
  expect(WRITTEN_MAX).toBe(JOURNAL_FILE_COUNT_MAX);
});
