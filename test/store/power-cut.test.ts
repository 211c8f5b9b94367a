// What a power cut leaves of a save or of a journal record, by a model of a disk: the steps that the code takes are recorded, by
// running it, and then each state that POSIX allows after a cut is laid out in a folder of its own and loaded.
//
// The model: data that was written and not synced is there as any of its beginnings, and, sector by sector, as zeros; a name that
// was made or moved and whose folder was not synced is there or not, in any order among its like. What was synced is there.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { NodeState } from "../../src/core/state/node-state.ts";
import { ok } from "../../src/lib/result.ts";
import { wallTime } from "../../src/lib/time.ts";
import { printCheckpoint } from "../../src/store/checkpoint.ts";
import { createCheckpointFile } from "../../src/store/file.ts";
import { openJournal } from "../../src/store/journal.ts";
import { arbNodeState } from "../support/arbitraries.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-power-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A step of a save, as the code makes it. */
type Step =
  | { readonly kind: "create" | "fsync"; readonly name: string }
  | { readonly kind: "write"; readonly name: string; readonly text: string }
  | { readonly kind: "rename"; readonly from: string; readonly to: string }
  | { readonly kind: "fsync-folder" };

type File = { readonly synced: string; readonly written: string };
type Disk = ReadonlyMap<string, string>;

const SECTOR = 512;

/** Every disk that a cut after the first `count` steps may leave. `before` is synced. */
function disksAfter(before: Disk, steps: readonly Step[], count: number): readonly Disk[] {
  // Contents hang on inodes, names point to them: a rename moves a name, and never what is in the file.
  const inodes: File[] = [...before.values()].map((text) => ({ synced: text, written: text }));
  let names: ReadonlyMap<string, number> = new Map([...before.keys()].map((name, at) => [name, at]));
  let synced = names;
  let unsynced: ReadonlyMap<string, number>[] = []; // The folder after each of its changes since the last sync.
  const changed = (next: ReadonlyMap<string, number>): void => {
    names = next;
    unsynced = [...unsynced, next];
  };
  for (const step of steps.slice(0, count)) {
    switch (step.kind) {
      case "create":
        changed(new Map([...names, [step.name, inodes.push({ synced: "", written: "" }) - 1]]));
        break;
      case "write": {
        const at = names.get(step.name) ?? -1;
        inodes[at] = { synced: inodes[at]?.synced ?? "", written: step.text };
        break;
      }
      case "fsync": {
        const at = names.get(step.name) ?? -1;
        inodes[at] = { synced: inodes[at]?.written ?? "", written: inodes[at]?.written ?? "" };
        break;
      }
      case "rename": {
        const inode = names.get(step.from) ?? -1;
        changed(new Map([...[...names].filter(([name]) => name !== step.from), [step.to, inode]]));
        break;
      }
      case "fsync-folder":
        synced = names;
        unsynced = [];
        break;
    }
  }
  return [synced, ...unsynced].flatMap((folderSeen) => contentsOf([...folderSeen], inodes));
}

function contentsOf(
  entries: readonly (readonly [string, number])[],
  inodes: readonly File[],
): readonly Disk[] {
  let disks: Map<string, string>[] = [new Map()];
  for (const [name, inode] of entries) {
    const file = inodes[inode] ?? { synced: "", written: "" };
    disks = disks.flatMap((disk) => leftOf(file).map((text) => new Map([...disk, [name, text]])));
  }
  return disks;
}

/** What may be there of a file whose last write was not synced: beginnings at each sector and some odd ones, and holes of zeros. */
function leftOf({ synced, written }: File): readonly string[] {
  if (synced === written) return [written];
  const lengths = [0, 1, written.length >> 1, written.length - 1, written.length];
  for (let at = SECTOR; at < written.length; at += SECTOR) lengths.push(at);
  const holes = lengths.map((at) => written.slice(0, at) + "\0".repeat(written.length - at));
  const reordered = lengths.map((at) => "\0".repeat(Math.min(at, written.length)) + written.slice(at)); // The last sectors came first.
  return [...new Set([synced, ...lengths.map((at) => written.slice(0, at)), ...holes, ...reordered])];
}

function layOut(disk: Disk): string {
  const place = mkdtempSync(join(folder, "cut-"));
  for (const [name, text] of disk) writeFileSync(join(place, name), text);
  return place;
}

const HEAD = { bootId: "boot-1", savedAt: wallTime(1_700_000_000_000) };
const states: readonly NodeState[] = fc.sample(
  arbNodeState.filter((state) => state.allocations.size > 2),
  { numRuns: 2, seed: 11 },
);
const [older, newer] = states.map((state) => printCheckpoint(state, HEAD));

/** The order of store/file.ts: held to the code by the first test below. */
function saving(text: string): readonly Step[] {
  return [
    { kind: "create", name: "checkpoint.new" },
    { kind: "write", name: "checkpoint.new", text },
    { kind: "fsync", name: "checkpoint.new" },
    { kind: "rename", from: "checkpoint.new", to: "checkpoint" },
    { kind: "fsync-folder" },
  ];
}

/** The order of cni/shim/journal.h. */
function journaling(text: string): readonly Step[] {
  return [
    { kind: "create", name: "key.1.tmp" },
    { kind: "write", name: "key.1.tmp", text },
    { kind: "fsync", name: "key.1.tmp" },
    { kind: "rename", from: "key.1.tmp", to: "key.del" },
    { kind: "fsync-folder" },
  ];
}

describe("the model's steps are the code's", () => {
  test("a save is written aside and renamed; on disk the file is synced before, and the folder after", () => {
    const source = readFileSync(fileURLToPath(new URL("../../src/store/file.ts", import.meta.url)), "utf8");
    const ways = [
      ["function writeAtOnce", ["openSync(aside", "writeSync(", "renameSync(aside, path)"]],
      [
        "function writeOffThread",
        ["open(aside", "writeFile(", "file.sync()", "rename(aside, path)", "folder.sync()"],
      ],
    ] as const;
    for (const [begin, steps] of ways) {
      let at = source.indexOf(begin);
      for (const step of steps) {
        const next = source.indexOf(step, at);
        expect(next, `${begin}: ${step}`).toBeGreaterThan(at);
        at = next;
      }
    }
  });

  test("so does the shim with a record", () => {
    const source = readFileSync(
      fileURLToPath(new URL("../../src/cni/shim/journal.h", import.meta.url)),
      "utf8",
    );
    let at = source.indexOf("static bool put_record");
    for (const step of ["openat(folder, aside", "write_whole(", "fsync(fd)", "renameat(", "fsync(folder)"]) {
      const next = source.indexOf(step, at);
      expect(next, step).toBeGreaterThan(at);
      at = next;
    }
  });
});

describe("checkpoint", () => {
  const load = (disk: Disk) => {
    const path = join(layOut(disk), "checkpoint");
    return createCheckpointFile({ path, bootId: HEAD.bootId, wallNow: () => HEAD.savedAt }).load();
  };
  const idsOf = (state: NodeState | undefined): readonly string[] => [...(state?.allocations.keys() ?? [])];

  test("after a cut at any step of a save there is the old checkpoint or the new one, whole", () => {
    const steps = saving(newer ?? "");
    let count = 0;
    for (let at = 0; at <= steps.length; at += 1) {
      for (const disk of disksAfter(new Map([["checkpoint", older ?? ""]]), steps, at)) {
        const loaded = load(disk);
        if (loaded.kind !== "loaded") throw new Error(`after ${at} steps: ${JSON.stringify(loaded)}`);
        const ids = loaded.checkpoint.allocations.map(({ id }) => id);
        const isNewer = ids.join() === idsOf(states[1]).join();
        expect(isNewer || ids.join() === idsOf(states[0]).join()).toBe(true);
        if (at === steps.length) expect(isNewer, "what was answered for is there").toBe(true);
        count += 1;
      }
    }
    expect(count).toBeGreaterThan(20);
  });

  test("after a cut at any step of the first save there is nothing, or the checkpoint whole", () => {
    const steps = saving(newer ?? "");
    for (let at = 0; at <= steps.length; at += 1)
      for (const disk of disksAfter(new Map(), steps, at))
        expect(load(disk).kind).toMatch(at === steps.length ? /^loaded$/ : /^(missing|loaded)$/);
  });

  test("a disk that lies about fsync leaves a file that is recognised as damaged, and set aside", () => {
    const honest = saving(newer ?? "");
    const steps = honest.filter(({ kind }) => kind !== "fsync");
    const seen = new Set<string>();
    for (let at = 0; at <= steps.length; at += 1)
      for (const disk of disksAfter(new Map([["checkpoint", older ?? ""]]), steps, at)) {
        const loaded = load(disk);
        seen.add(loaded.kind);
        if (loaded.kind === "damaged") expect(loaded.setAside).not.toBeNull();
      }
    expect([...seen].toSorted((left, right) => (left < right ? -1 : 1))).toEqual(["damaged", "loaded"]); // So the model can tell.
  });

  test("every two flipped bits of a checkpoint are recognised", () => {
    const bytes = Buffer.from(newer ?? "");
    const bit = fc.integer({ min: 0, max: bytes.length * 8 - 1 });
    fc.assert(
      fc.property(fc.uniqueArray(bit, { minLength: 1, maxLength: 2 }), (bits) => {
        const flipped = Buffer.from(bytes);
        for (const at of bits) flipped[at >> 3] = (flipped[at >> 3] ?? 0) ^ (1 << (at & 7));
        const place = layOut(new Map());
        writeFileSync(join(place, "checkpoint"), flipped);
        const path = join(place, "checkpoint");
        const { kind } = createCheckpointFile({
          path,
          bootId: HEAD.bootId,
          wallNow: () => HEAD.savedAt,
        }).load();
        rmSync(place, { recursive: true });
        expect(kind).toMatch(/^(damaged|newer)$/);
      }),
      { numRuns: 300, seed: 5 },
    );
  });
});

describe("journal", () => {
  const LINE = '{"network":"pods","containerId":"c0ffee","ifName":"eth0"}\n';

  async function drained(disk: Disk): Promise<{ readonly played: number; readonly damaged: number }> {
    const place = layOut(disk);
    const journal = await openJournal({
      folder: place,
      wallNow: () => HEAD.savedAt,
      lock: () => true,
      sleep: async () => {},
      lockWaitMs: 0,
    });
    if (!journal.ok) throw new Error(journal.error);
    const done = await journal.value.drain(async () => ok(null));
    journal.value.close();
    expect(readdirSync(place).filter((name) => /\.(del|tmp)$/.test(name))).toEqual([]);
    return { played: done.played, damaged: done.damaged.length };
  }

  test("after a cut at any step there is the whole record or none, and what was answered for is there", async () => {
    const record = recordOfShim();
    const steps = journaling(record);
    for (let at = 0; at <= steps.length; at += 1)
      for (const disk of disksAfter(new Map(), steps, at)) {
        const { played, damaged } = await drained(disk);
        expect(damaged).toBe(0);
        expect(played).toBeLessThanOrEqual(1);
        if (at === steps.length) expect(played).toBe(1);
      }
  });

  test("a record that was cut in spite of its fsync is set aside, not played as another sandbox's", async () => {
    const steps = journaling(recordOfShim()).filter(({ kind }) => kind !== "fsync");
    let damaged = 0;
    for (const disk of disksAfter(new Map(), steps, steps.length)) {
      const done = await drained(disk);
      damaged += done.damaged;
      expect(done.played + done.damaged).toBe(1);
    }
    expect(damaged).toBeGreaterThan(0);
  });

  /** As the shim writes it (test/e2e/shim.test.ts drives the real one). */
  function recordOfShim(): string {
    let hash = 14695981039346656037n;
    for (const byte of new TextEncoder().encode(LINE))
      hash = ((hash ^ BigInt(byte)) * 1099511628211n) % 2n ** 64n;
    return `berth-del/1 ${hash.toString(16).padStart(16, "0")}\n${LINE}`;
  }
});
