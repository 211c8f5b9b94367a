/**
 * `npm run sim`: seeds through the simulator, a worker process for each core. Prints the sum; ends with 1 on a violation, with its seed and
 * the shortest trace that could be found. `--trace SEED` prints all that happens in one seed.
 */
import { fork } from "node:child_process";
import { writeSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { endProcess } from "../libc/libc.ts";
import { FAULT_PROFILES, type FaultProfile } from "../sim/faults.ts";
import { type SentReport, sent, summarise } from "../sim/report.ts";
import { runSeed, type RunOptions } from "../sim/run.ts";
import { shrink } from "../sim/shrink.ts";

const USAGE = `usage: npm run sim -- [--seeds N] [--hours H] [--faults none|calm|harsh] [--first TEXT] [--workers N] [--nodes N] [--stop-at N] [--no-shrink] [--json]
       npm run sim -- --trace SEED [--hours H] [--faults harsh]

--first: seeds are TEXT-0, TEXT-1, … (default "seed"); CI gives the commit.
`;
const TRACE_LINES_MAX = 400;

type Arguments = {
  readonly seeds: number;
  readonly hours: number;
  readonly faults: FaultProfile;
  readonly first: string;
  readonly workers: number;
  readonly nodes: number | null;
  readonly stopAt: number; // Violating seeds after which no more are begun.
  readonly json: boolean;
  readonly trace: string | null;
  readonly worker: boolean;
  readonly shrink: boolean;
};

/** One turn of the event loop: all promises that are ready have run by then. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function main(args: readonly string[]): Promise<number> {
  const parsed = parse(args);
  if (typeof parsed === "string") {
    process.stderr.write(`berth: ${parsed}\n${USAGE}`);
    return 2;
  }
  const how = {
    hours: parsed.hours,
    profile: parsed.faults,
    ...(parsed.nodes === null ? {} : { nodes: parsed.nodes }),
    turn,
  };
  if (parsed.worker) return await work(how);
  if (parsed.trace !== null) {
    const report = await runSeed({ ...how, seed: parsed.trace, tracing: true });
    writeWhole(`${report.trace.join("\n")}\n`);
    return report.violations.length === 0 ? 0 : 1;
  }
  const began = performance.now();
  const reports = await runAll(parsed, args);
  const summary = summarise(reports, (performance.now() - began) / 1_000);
  writeWhole(`${JSON.stringify(summary, null, parsed.json ? undefined : 2)}\n`);
  const [first] = summary.violations;
  if (first === undefined) return 0;
  if (!parsed.shrink) return 1;
  process.stderr.write(
    `berth: seed ${first.seed} violates ${first.checker}: ${first.detail}\nsearching for a shorter trace …\n`,
  );
  const shrunk = await shrink({ ...how, seed: first.seed });
  if (shrunk !== null) {
    process.stderr.write(
      `seed ${first.seed}, faults left: ${shrunk.faultsLeft.join(", ")}; none before ${Math.round(shrunk.fromMs / 1_000)} s; the end of its trace:\n`,
    );
    process.stderr.write(`${shrunk.trace.slice(-TRACE_LINES_MAX).join("\n")}\n`);
  }
  return 1;
}

/** A pipe may take less than is given it at once; what is not taken when the process ends is lost. */
function writeWhole(text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at);
    } catch (cause) {
      if (!(cause instanceof Error && "code" in cause && cause.code === "EAGAIN")) throw cause;
    }
  }
}

function parse(args: readonly string[]): Arguments | string {
  const values = new Map<string, string>();
  for (let at = 0; at < args.length; at += 1) {
    const name = args[at] ?? "";
    if (name === "--json" || name === "--worker" || name === "--no-shrink") values.set(name, "");
    else if (/^--(seeds|hours|faults|first|workers|nodes|stop-at|trace)$/.test(name)) {
      values.set(name, args[at + 1] ?? "");
      at += 1;
    } else return `sim does not know ${name}`;
  }
  const number = (name: string, fallback: number): number => Number(values.get(name) ?? fallback);
  const faults = values.get("--faults") ?? "harsh";
  if (!isProfile(faults)) return `--faults is one of ${Object.keys(FAULT_PROFILES).join(", ")}`;
  const nodes = values.has("--nodes") ? number("--nodes", 1) : null;
  const given: Arguments = {
    seeds: number("--seeds", 20),
    hours: number("--hours", 24),
    faults,
    first: values.get("--first") ?? "seed",
    workers: number("--workers", Math.min(2, availableParallelism())),
    nodes,
    stopAt: number("--stop-at", 3),
    json: values.has("--json"),
    trace: values.get("--trace") ?? null,
    worker: values.has("--worker"),
    shrink: !values.has("--no-shrink"),
  };
  const numbers = [given.seeds, given.hours, given.workers, nodes ?? 1, given.stopAt];
  return numbers.every((each) => Number.isFinite(each) && each > 0)
    ? given
    : "a number is no number, or not above 0";
}

function isProfile(text: string): text is FaultProfile {
  return text in FAULT_PROFILES;
}

/** Workers take the next seed when they are done with one. Reports come back in the order of their seeds. */
async function runAll(given: Arguments, args: readonly string[]): Promise<SentReport[]> {
  const reports: (SentReport | undefined)[] = [];
  let [next, failed] = [0, 0];
  await Promise.all(
    Array.from({ length: Math.min(given.workers, given.seeds) }, async () => {
      const child = fork(fileURLToPath(import.meta.url), [...args, "--worker"], {
        stdio: ["ignore", "inherit", "inherit", "ipc"],
      });
      const ended = new Promise<never>((_, reject) =>
        child.once("exit", (code) => reject(new Error(`a worker ended with ${code}`))),
      );
      ended.catch(() => {});
      while (next < given.seeds && failed < given.stopAt) {
        const number = next;
        next += 1;
        const answer = new Promise<SentReport>((resolve) =>
          child.once("message", (message) => resolve(message as SentReport)),
        ); // Our own child's.
        child.send(`${given.first}-${number}`);
        const report = await Promise.race([answer, ended]);
        reports[number] = report;
        if (report.violations.length > 0) failed += 1;
      }
      child.disconnect();
    }),
  );
  return reports.filter((report) => report !== undefined);
}

async function work(how: Omit<RunOptions, "seed">): Promise<number> {
  return await new Promise((resolve) => {
    process.on("message", (seed) => {
      void runSeed({ ...how, seed: String(seed) }).then((report) => process.send?.(sent(report)));
    });
    process.on("disconnect", () => resolve(0));
  });
}

const code = await main(process.argv.slice(2));
process.once("exit", endProcess);
process.exit(code);
