/** `npm run crash`: kills real daemons and shims at every point between two effects, and tells what was left behind. */
import { fileURLToPath } from "node:url";
import { isInside, runInside } from "../../src/lab/enter.ts";
import { endProcess } from "../../src/libc/libc.ts";
import { crash, nameOf } from "./run.ts";

const USAGE = `npm run crash [-- --json] [--every] [--nodes N] [--only TEXT] [--without TEXT] [--sample COUNT --walks COUNT --seed TEXT]
  --json     one JSON object on stdout
  --every    every step of every save in every walk, which takes twice as long
  --nodes    nodes side by side (6)
  --only     only kills whose name contains TEXT
  --without  no walk whose name contains TEXT
  --walks    only as many walks, chosen by the seed
  --sample   only as many kills, chosen by the seed
`;

function option(args: readonly string[], name: string): string | null {
  const at = args.indexOf(name);
  return at === -1 ? null : (args[at + 1] ?? null);
}

/** Spread over all; which ones is the seed's choice, and the same for the same seed. All without a count. */
function sampled<T>(
  all: readonly T[],
  count: string | null,
  seed: string,
  name: (each: T) => string,
): readonly T[] {
  if (count === null) return all;
  const keyed = all.map((each) => ({ each, key: hash(`${seed} ${name(each)}`) }));
  return keyed
    .sort((left, right) => left.key - right.key)
    .slice(0, Number(count))
    .map(({ each }) => each);
}

function hash(text: string): number {
  let value = 0x811c_9dc5;
  for (const character of text) value = Math.imul(value ^ (character.codePointAt(0) ?? 0), 0x0100_0193);
  value = Math.imul(value ^ (value >>> 15), 0x85eb_ca6b); // FNV alone leaves like names beside each other.
  return (value ^ (value >>> 13)) >>> 0;
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help")) {
    process.stdout.write(USAGE);
    return 0;
  }
  if (!isInside()) return await runInside([fileURLToPath(import.meta.url), ...args]);
  const json = args.includes("--json");
  const only = option(args, "--only");
  const without = option(args, "--without");
  const seed = option(args, "--seed") ?? "";
  const began = performance.now();
  const report = await crash({
    every: args.includes("--every"),
    nodes: Number(option(args, "--nodes") ?? 6),
    chooseWalks: (all) => {
      const walks = without === null ? all : all.filter(({ name }) => !name.includes(without));
      return sampled(walks, option(args, "--walks"), seed, (walk) => walk.name);
    },
    choose: (tasks) =>
      sampled(
        tasks.filter((task) => only === null || nameOf(task).includes(only)),
        option(args, "--sample"),
        seed,
        nameOf,
      ),
    say: (text) =>
      process.stderr.write(`${((performance.now() - began) / 1_000).toFixed(1).padStart(6)} s  ${text}\n`),
  });
  process.stdout.write(`${JSON.stringify(report, null, json ? 0 : 2)}\n`);
  const { kills, lostPings, leaked, doubleAllocations, failures } = report;
  return kills > 0 && lostPings + leaked + doubleAllocations + failures.length === 0 ? 0 : 1;
}

const code = await main(process.argv.slice(2));
process.once("exit", endProcess);
process.exit(code);
