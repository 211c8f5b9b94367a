// `npm run sim:mutants`: each deliberate defect in a copy of the sources, run by the simulator until a checker sees it. Prints how many were
// caught and by whom; ends with 1 when one was not, or not by a checker that it names.
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { type Mutant, MUTANTS } from "./mutants.ts";

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const options = parse(process.argv.slice(2));
const summarySchema = v.object({
  seeds: v.number(),
  violations: v.array(v.object({ seed: v.string(), checker: v.string(), detail: v.string() })),
});

type Caught = {
  readonly mutant: string;
  readonly checker: string | null;
  readonly expected: boolean;
  readonly seeds: number;
  readonly detail: string;
};

function parse(args: readonly string[]): {
  json: boolean;
  only: string;
  seeds: string;
  hours: string;
  workers: number;
} {
  const value = (name: string, fallback: string): string =>
    args.includes(name) ? (args[args.indexOf(name) + 1] ?? fallback) : fallback;
  return {
    json: args.includes("--json"),
    only: value("--only", ""),
    seeds: value("--seeds", "100"),
    hours: value("--hours", "8"),
    workers: Number(value("--workers", String(Math.min(2, availableParallelism())))),
  };
}

/** A copy of the sources in which one mutant after the other can live. */
function createNursery(): { readonly run: (mutant: Mutant) => Promise<Caught>; readonly close: () => void } {
  const folder = mkdtempSync(join(tmpdir(), "berth-mutant-"));
  cpSync(join(root, "src"), join(folder, "src"), { recursive: true });
  cpSync(join(root, "package.json"), join(folder, "package.json"));
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  const whole = new Map<string, string>();
  const run = async (mutant: Mutant): Promise<Caught> => {
    const texts = new Map<string, string>();
    for (const { file, find, replace } of mutant.edits) {
      const before = texts.get(file) ?? readFileSync(join(folder, file), "utf8");
      if (!whole.has(file)) whole.set(file, before);
      if (before.split(find).length !== 2)
        throw new Error(`${mutant.name}: ${file} has ${before.split(find).length - 1} times: ${find}`);
      texts.set(
        file,
        before.replace(find, () => replace),
      );
    }
    for (const [file, text] of texts) writeFileSync(join(folder, file), text);
    try {
      return caughtBy(mutant, await simulate(folder));
    } finally {
      for (const file of texts.keys()) writeFileSync(join(folder, file), whole.get(file) ?? "");
    }
  };
  return { run, close: () => rmSync(folder, { recursive: true, force: true }) };
}

async function simulate(folder: string): Promise<string> {
  const args = [
    "src/cli/sim.ts",
    "--seeds",
    options.seeds,
    "--hours",
    options.hours,
    "--workers",
    "1",
    "--stop-at",
    "1",
    "--first",
    "mutant",
    "--no-shrink",
    "--json",
  ];
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  let [out, errors] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  await new Promise((resolve) => child.once("close", resolve));
  if (!out.startsWith("{")) throw new Error(`the simulator did not run: ${errors.slice(-2_000)}`);
  return out;
}

function caughtBy(mutant: Mutant, output: string): Caught {
  const { seeds, violations } = v.parse(summarySchema, JSON.parse(output));
  const [first] = violations;
  const expected = first !== undefined && mutant.expects.some((name) => name === first.checker);
  return {
    mutant: mutant.name,
    checker: first?.checker ?? null,
    expected,
    seeds,
    detail: first?.detail ?? "",
  };
}

const chosen = MUTANTS.filter(({ name }) => name.includes(options.only));
const results: Caught[] = [];
let next = 0;
await Promise.all(
  Array.from({ length: options.workers }, async () => {
    const nursery = createNursery();
    try {
      for (let mutant = chosen[next++]; mutant !== undefined; mutant = chosen[next++]) {
        const caught = await nursery.run(mutant);
        results.push(caught);
        if (!options.json || !caught.expected)
          process.stderr.write(
            `${caught.expected ? "caught" : caught.checker === null ? "NOT CAUGHT" : "CAUGHT BY ANOTHER"} in ${caught.seeds} seeds: ${caught.mutant}: ${caught.checker ?? "-"} ${caught.detail.slice(0, 160)}\n`,
          );
      }
    } finally {
      nursery.close();
    }
  }),
);
const byChecker: Record<string, number> = {};
for (const { checker } of results) if (checker !== null) byChecker[checker] = (byChecker[checker] ?? 0) + 1;
const caught = results.filter(({ checker }) => checker !== null).length;
process.stdout.write(`${JSON.stringify({ mutants: chosen.length, caught, byChecker })}\n`);
process.exit(results.every(({ expected }) => expected) ? 0 : 1);
