/** `npm run matrix`: every flow in every mode, as a table for people or one JSON object for programs. */
import { runMatrix, type Matrix } from "./run.ts";

/** Returns the exit code: 0 when every cell was run and is right. */
export async function matrix(options: {
  readonly json: boolean;
  readonly modes?: readonly string[];
}): Promise<number> {
  const { modes } = options;
  const done = await runMatrix({
    ...(modes === undefined ? {} : { modes }),
    say: (line) => void process.stderr.write(`${line}\n`),
  });
  process.stdout.write(options.json ? printMatrixJson(done) : printMatrix(done));
  return isRight(done) ? 0 : 1;
}

export function isRight({ cells, notRun }: Matrix): boolean {
  return cells.length > 0 && notRun.length === 0 && cells.every((cell) => cell.right);
}

export function printMatrixJson({ cells, notRun }: Matrix): string {
  return `${JSON.stringify({
    cells: cells.length,
    wrong: cells.filter((cell) => !cell.right).length,
    notRun: notRun.length,
    spoofed: cells.reduce((sum, cell) => sum + cell.spoofed, 0),
    modes: [...new Set(cells.map((cell) => cell.mode))],
    table: cells,
    ...(notRun.length === 0 ? {} : { reasons: notRun }),
  })}\n`;
}

/** Rows are flows with their protocol, columns are modes; a cell that is wrong tells what came instead. */
function printMatrix({ cells, notRun }: Matrix): string {
  const modes = [...new Set(cells.map((cell) => cell.mode))];
  const rows = Map.groupBy(cells, (cell) => `${cell.flow}, ${cell.protocol}`);
  const width = Math.max(0, ...[...rows.keys()].map((name) => name.length));
  const lines = [...rows].map(([name, row]) =>
    [
      name.padEnd(width),
      ...modes.map((mode) => {
        const cell = row.find((each) => each.mode === mode);
        const text = cell === undefined ? "-" : cell.right ? "right" : "WRONG";
        return text.padEnd(mode.length);
      }),
    ].join("  "),
  );
  const wrong = cells
    .filter((cell) => !cell.right)
    .map(
      (cell) =>
        `WRONG ${cell.mode}: ${cell.flow}, ${cell.protocol}: got ${cell.got}, expected ${cell.expected}, since ${cell.why}` +
        (cell.spoofed === 0 ? "" : `; the VPC dropped ${cell.spoofed} frames for their source`),
    );
  return [
    `${"".padEnd(width)}  ${modes.join("  ")}`,
    ...lines,
    "",
    ...wrong,
    ...notRun.map(({ mode, reason }) => `NOT RUN ${mode}: ${reason}`),
    `${cells.length} cells, ${wrong.length} wrong, ${notRun.length} modes not run`,
    "",
  ].join("\n");
}
