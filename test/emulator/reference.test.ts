/** The emulator's reference page names what the code has. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { FAULT_KINDS } from "../../src/emulator/faults.ts";
import { instanceTypes } from "../../src/emulator/instance-types.ts";
import { OPERATIONS } from "../../src/emulator/operations/table.ts";
import { PROFILES } from "../../src/emulator/timings.ts";

const text = readFileSync(new URL("../../docs/reference/emulator.md", import.meta.url), "utf8");

test("the reference page names every operation, profile, process and fault", () => {
  const words = new Set(text.match(/[A-Za-z0-9-]+/g));
  const names = [
    ...OPERATIONS.keys(),
    ...Object.keys(PROFILES),
    ...Object.keys(PROFILES.typical.timings),
    ...FAULT_KINDS.keys(),
  ];
  expect(names.filter((name) => !words.has(name))).toEqual([]);
  expect(text).toContain(`${instanceTypes().size.toLocaleString("en-GB")} types`);
});
