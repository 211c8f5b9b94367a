import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { NodeState } from "../../src/core/state/node-state.ts";
import { wallTime } from "../../src/lib/time.ts";
import { createCheckpointFile, type CheckpointFile } from "../../src/store/file.ts";
import { parseCheckpoint } from "../../src/store/checkpoint.ts";
import { arbNodeState } from "../support/arbitraries.ts";
import { reframed } from "../support/checkpoint-frame.ts";

// On disk and in memory the steps are the same, the way is not: both are walked.
const places = ["/dev/shm", tmpdir()];

let folders: string[] = [];
beforeEach(() => {
  folders = places.map((place) => mkdtempSync(join(place, "berth-store-")));
});
afterEach(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

const states: readonly NodeState[] = fc.sample(
  arbNodeState.filter((state) => state.allocations.size > 0),
  { numRuns: 8, seed: 1 },
);
const [someState, otherState] = states;
if (someState === undefined || otherState === undefined) throw new Error("no states");

function fileAt(path: string): CheckpointFile {
  return createCheckpointFile({ path, bootId: "boot-1", wallNow: () => wallTime(1_700_000_000_000) });
}

const eachPlace = (run: (folder: string) => Promise<void>) => async (): Promise<void> => {
  for (const folder of folders) await run(folder);
};

test(
  "a saved state is there for the next daemon, in a file for root alone",
  eachPlace(async (folder) => {
    const path = join(folder, "run", "checkpoint");
    const first = fileAt(path);
    expect(first.load()).toEqual({ kind: "missing" });
    expect(await first.save(someState)).toEqual({ ok: true, value: null });
    expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
    expect(readdirSync(join(folder, "run"))).toEqual(["checkpoint"]);
    const loaded = fileAt(path).load();
    expect(loaded.kind === "loaded" && loaded.checkpoint.allocations).toEqual([
      ...someState.allocations.values(),
    ]);
  }),
);

test(
  "saves that come together end with the last state safe, and each returns only when its own or a later one is",
  eachPlace(async (folder) => {
    const path = join(folder, "checkpoint");
    const file = fileAt(path);
    file.load();
    const saves = states.map(async (state, index) => {
      expect(await file.save(state)).toMatchObject({ ok: true });
      const read = parseCheckpoint(readFileSync(path, "utf8"));
      const ids = read.ok ? read.value.allocations.map(({ id }) => id).join() : "none";
      const safe = states.findIndex((each) => [...each.allocations.keys()].join() === ids);
      expect(safe).toBeGreaterThanOrEqual(index);
    });
    await Promise.all(saves);
  }),
);

const unusable: readonly (readonly [string, string, (path: string) => void])[] = [
  ["damaged", "truncated", (path) => writeFileSync(path, readFileSync(path, "utf8").slice(0, -9))],
  [
    "damaged",
    "bit-flipped",
    (path) => writeFileSync(path, readFileSync(path, "utf8").replace("allocation", "allocatioN")),
  ],
  ["damaged", "empty", (path) => writeFileSync(path, "")],
  ["newer", "from a newer version", (path) => writeFileSync(path, reframed(2, readFileSync(path, "utf8")))],
  ["unreadable", "a folder", (path) => (rmSync(path), mkdirSync(path))],
];
test.each(unusable)(
  "a checkpoint that is %s (%s) is set aside under a name of its own, and a new one begun",
  async (kind, _, spoil) => {
    for (const folder of folders) {
      const path = join(folder, "checkpoint");
      const before = fileAt(path);
      before.load();
      await before.save(someState);
      spoil(path);
      const bytes = statSync(path).isFile() ? readFileSync(path) : null;

      const file = fileAt(path);
      const loaded = file.load();
      if (!("setAside" in loaded) || loaded.setAside === null) throw new Error(JSON.stringify(loaded));
      expect(loaded.kind).toBe(kind);
      expect(loaded.setAside).toContain(`${path}.${kind}-2023-11-14T22-13-20`);
      expect(existsSync(path)).toBe(false);
      await file.save(otherState);
      if (bytes !== null) expect(readFileSync(loaded.setAside)).toEqual(bytes);
      expect(fileAt(path).load().kind).toBe("loaded");
    }
  },
);

test("two damaged files of one moment are both kept", () => {
  const [folder = ""] = folders;
  const path = join(folder, "checkpoint");
  for (const text of ["first", "second"]) {
    writeFileSync(path, text);
    expect(fileAt(path).load()).toMatchObject({ kind: "damaged" });
  }
  expect(
    readdirSync(folder)
      .map((name) => readFileSync(join(folder, name), "utf8"))
      .sort(),
  ).toEqual(["first", "second"]);
});

test("what a cut save left beside the file is cleared away, the file itself is used", async () => {
  const [folder = ""] = folders;
  const path = join(folder, "checkpoint");
  const file = fileAt(path);
  file.load();
  await file.save(someState);
  writeFileSync(`${path}.new`, "half");
  expect(fileAt(path).load().kind).toBe("loaded");
  expect(readdirSync(folder)).toEqual(["checkpoint"]);
});

test(
  "a save that fails says where and why, and the next may succeed",
  eachPlace(async (folder) => {
    const path = join(folder, "run", "checkpoint");
    const file = fileAt(path);
    file.load();
    writeFileSync(join(folder, "run"), "a file where the folder should be");
    expect(await file.save(someState)).toMatchObject({
      ok: false,
      error: { code: "checkpoint-unwritable", path },
    });
    rmSync(join(folder, "run"));
    expect(await file.save(someState)).toMatchObject({ ok: true });
  }),
);

test("nothing is saved over a file that was not looked at", async () => {
  const [folder = ""] = folders;
  const path = join(folder, "checkpoint");
  writeFileSync(path, "precious");
  expect(await fileAt(path).save(someState)).toMatchObject({ error: { code: "checkpoint-unwritable" } });
  expect(readFileSync(path, "utf8")).toBe("precious");
  chmodSync(path, 0o600);
});
