// The short form of `npm run sim:mutants`: each deliberate defect still fits the code, and some of them are caught.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import * as v from "valibot";
import { CHECKER_NAMES } from "../../src/sim/checkers.ts";
import { MUTANTS } from "./mutants/mutants.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

test("every deliberate defect fits the code as it is", () => {
  const misfits = MUTANTS.flatMap(({ name, edits }) =>
    edits.flatMap(({ file, find }) => {
      const times = readFileSync(join(root, file), "utf8").split(find).length - 1;
      return times === 1 ? [] : [`${name}: ${times} times in ${file}: ${find}`];
    }),
  );
  expect(misfits).toEqual([]);
});

test("there are at least thirty, and each checker is expected of two", () => {
  expect(MUTANTS.length).toBeGreaterThanOrEqual(30);
  const lonely = CHECKER_NAMES.filter(
    (name) => MUTANTS.filter(({ expects }) => expects.includes(name)).length < 2,
  );
  expect(lonely).toEqual([]);
});

test("defects are caught by a checker that they name", () => {
  const args = ["test/sim/mutants/main.ts", "--only", "cooling", "--seeds", "20", "--hours", "3", "--json"];
  const done = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
  expect({ status: done.status, stderr: done.stderr }).toEqual({ status: 0, stderr: "" });
  const told = v.parse(v.object({ mutants: v.number(), caught: v.number() }), JSON.parse(done.stdout));
  expect(told.caught).toBe(told.mutants);
});
