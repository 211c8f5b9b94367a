// The short form of `npm run matrix`: two modes whole, so that every flow is asked at least once. CI runs all modes.
import { expect, test } from "vitest";
import { COLUMNS } from "../../src/lab/matrix/columns.ts";
import { FLOWS } from "../../src/lab/matrix/flows.ts";
import { printMatrixJson } from "../../src/lab/matrix/matrix.ts";
import { runMatrix, type Cell } from "../../src/lab/matrix/run.ts";

const SHORT = ["kube-proxy-nftables", "external-snat"];

test("every flow of packets goes where the table says, seen with the address that it says", {
  timeout: 60_000,
}, async () => {
  const done = await runMatrix({ modes: SHORT });
  expect(done.notRun).toEqual([]);
  expect(done.cells.filter((cell) => !cell.right)).toEqual([]);
  expect(new Set(done.cells.map((cell) => cell.flow))).toEqual(new Set(FLOWS.map((flow) => flow.name)));
  expect(done.cells.length).toBeGreaterThan(200);
});

test("a wrong cell, a spoofed frame and a mode that was not run all show in what the matrix prints", () => {
  const cell: Cell = {
    mode: "routed",
    flow: "pod → pod",
    protocol: "tcp",
    expected: "asker's own 10.0.0.1",
    got: "asker's own 10.0.0.1",
    right: true,
    spoofed: 0,
    why: "told",
  };
  const wrong = { ...cell, got: "no answer", right: false };
  const spoofed = { ...cell, right: false, spoofed: 2 };
  const printed = JSON.parse(
    printMatrixJson({ cells: [cell, wrong, spoofed], notRun: [{ mode: "ipvlan", reason: "no guest" }] }),
  ) as object;
  expect(printed).toMatchObject({ cells: 3, wrong: 2, notRun: 1, spoofed: 2, modes: ["routed"] });
});

test("no two columns have one name, and no two flows", () => {
  for (const names of [COLUMNS.map(({ mode }) => mode), FLOWS.map(({ name }) => name)])
    expect(new Set(names).size).toBe(names.length);
});
