// The points of the crash build: found in the source, none forgotten, and none of it in what is shipped.
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EC2_OPERATIONS } from "../../src/aws/operations.ts";
import { berthEffect } from "./effect.ts";
import { findEffects, ROOT } from "./instrument.ts";

function effectsIn(file: string): readonly string[] {
  return findEffects(file, readFileSync(join(ROOT, file), "utf8")).map(({ name }) => name);
}

test("every call of a port that changes something is a point, however it is reached", () => {
  const text = `
    const { ec2, time } = agent.ports;
    await ec2.assignAddresses(a, ports.time.now());
    time.now();
    ports.kernel.observe();
    ports.kernel.plumbSandbox(netns, plumbing(await ports.save(state)));
    agent.ports.aPortOfTomorrow(1);
  `;
  const found = findEffects("src/agent/some.ts", text);
  expect(found.map(({ name, waits }) => [name, waits])).toEqual([
    ["ec2.assignAddresses", false],
    ["ports.kernel.plumbSandbox", true],
    ["ports.save", false],
    ["agent.ports.aPortOfTomorrow", false],
  ]);
});

test("a save's own steps are points: written aside, synced, renamed, folder synced", () => {
  const found = effectsIn("src/store/file.ts");
  for (const step of ["writeSync", "renameSync", "file.writeFile", "file.sync", "rename", "folder.sync"])
    expect(found).toContain(step);
  expect(found).not.toContain("readFileSync");
});

test("each EC2 call that changes something is made at a point", () => {
  const calls = ["src/agent/perform.ts", "src/agent/look.ts"]
    .flatMap(effectsIn)
    .filter((name) => /\bec2\./.test(name));
  const verbs = new Set(calls.map((name) => name.split(".").at(-1)));
  expect([...verbs].toSorted((left, right) => (String(left) < String(right) ? -1 : 1))).toEqual([
    "assignAddresses",
    "assignPrefixes",
    "attachEni",
    "createEni",
    "deleteEni",
    "detachEni",
    "setDeleteOnTermination",
    "setSecurityGroups",
    "unassignAddresses",
    "unassignPrefixes",
  ]);
  expect(EC2_OPERATIONS.filter(({ mutating }) => mutating).length).toBeLessThanOrEqual(verbs.size);
});

test.skipIf(!existsSync(join(ROOT, "dist/berth.mjs")))("the production bundle has no crash point", () => {
  const files = globSync("dist/*.mjs", { cwd: ROOT });
  for (const file of files)
    expect(readFileSync(join(ROOT, file), "utf8")).not.toMatch(/CRASH_POINT|berthEffect/);
});

test("a point changes nothing of what it wraps", async () => {
  expect(berthEffect("somewhere", () => 7)).toBe(7);
  expect(await berthEffect("somewhere", async () => await Promise.resolve(8))).toBe(8);
  const broken = new Error("as it was");
  await expect(berthEffect("somewhere", async () => await Promise.reject(broken))).rejects.toBe(broken);
});

test("nothing in src knows of crash points", () => {
  for (const file of globSync("src/**/*.{ts,c,h}", { cwd: ROOT }))
    expect(readFileSync(join(ROOT, file), "utf8"), file).not.toMatch(/CRASH_(POINT|ARM|TRACE)|berthEffect/);
});
