// docs/security.md and the table of bounds name files and tests: they exist.
import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";

const read = (path: string): string => readFileSync(path, "utf8");

/** `file`: name; name. Each name is a test in the file that was named last. */
function namedTests(cell: string): readonly { readonly file: string; readonly name: string }[] {
  let file = "";
  return cell.split(";").flatMap((part) => {
    const [, path, rest = part] = /^\s*`([^`]+)`:?(.*)$/.exec(part) ?? [];
    if (path !== undefined) file = path;
    return [{ file, name: rest.trim().replace(/^,\s*`[^`]+`$/, "") }];
  });
}

test("each test that docs/security.md names is there", () => {
  const rows = read("docs/security.md")
    .split("\n")
    .filter((line) => line.startsWith("|") && line.includes("`test/"))
    .map((line) => line.split("|").at(-2) ?? "");
  expect(rows.length).toBeGreaterThan(20);
  for (const cell of rows) {
    for (const [, path = ""] of cell.matchAll(/`(test\/[^`]+)`/g)) expect(existsSync(path), path).toBe(true);
    for (const { file, name } of namedTests(cell)) {
      if (name === "" || name.startsWith("`") || name.startsWith(",") || name.startsWith("(")) continue;
      expect(read(file), `${file}: ${name}`).toContain(name);
    }
  }
});

test("each file and test of the table of bounds is there", () => {
  const [, table = ""] = read("docs/ARCHITECTURE.md").split("## Bounds");
  const rows = table.split("\n").filter((line) => line.startsWith("| ") && line.includes("`"));
  expect(rows.length).toBeGreaterThan(15);
  for (const row of rows) {
    const [where = "", tests = ""] = row.split("|").slice(-3, -1);
    for (const [, path = ""] of where.matchAll(/`([^`]+)`/g))
      expect(existsSync(`src/${path}`), path).toBe(true);
    for (const [, path = ""] of tests.matchAll(/`([^`]+)`/g))
      expect(existsSync(`test/${path}`), path).toBe(true);
    expect(tests.trim(), row).not.toBe("");
  }
});
