/**
 * `npm run bench`: our figures beside those of others, all measured in one run, by turns, in namespaces of its own. Progress and a
 * table go to stderr; with --json, stdout holds one object and nothing else. A slow machine is reported, not failed; the exit code
 * is 1 when an ADD failed, or something could not be measured.
 */
import { fileURLToPath } from "node:url";
import { isInside, runInside } from "../../src/lab/enter.ts";
import { endProcess } from "../../src/libc/libc.ts";
import { buildJudges } from "../judges/build.ts";
import { buildPeerPrograms } from "../judges/peer-programs.ts";
import { measureAddDel, measurePoolSize } from "./add-del.ts";
import { measureBurst, measureColdBurst } from "./burst.ts";
import { measureMemory, measureStart } from "./daemon.ts";
import { measurePacket } from "./packet.ts";
import { writePage } from "./page.ts";
import { benchPeer, PEER_PARTS, type PeerOptions, PEERS } from "./peer/main.ts";
import { measurePlan } from "./plan.ts";
import { jsonOf, type Results, tableOf } from "./results.ts";
import type { Bench } from "./stage.ts";
import { prepareTools } from "./tools.ts";

const PARTS = {
  plan: measurePlan,
  start: measureStart,
  addDel: measureAddDel,
  poolSize: measurePoolSize,
  burst: measureBurst,
  coldBurst: measureColdBurst,
  memory: measureMemory,
  packet: measurePacket,
} as const satisfies { [Part in keyof Results]-?: (bench: Bench) => unknown };

type Part = keyof typeof PARTS;

const NAMES = Object.keys(PARTS) as Part[]; // Object.keys loses the names' type.
const USAGE = `usage: npm run bench [-- OPTIONS]
  --json         one JSON object on stdout
  --quick        fewer rounds: under 90 seconds
  --only NAME    this part alone; may be repeated: ${NAMES.join(", ")}
  --write        write docs/performance.md; with --peer, docs/performance-aws-vpc-cni.md
  --peer NAME    beside another's daemon and plugin instead: ${PEERS.join(", ")}; --only then: ${PEER_PARTS.join(", ")}
`;

type Options = {
  readonly peer: PeerOptions | null; // With it the rest does not count.
  readonly json: boolean;
  readonly quick: boolean;
  readonly write: boolean;
  readonly parts: readonly Part[];
};

function parse(args: readonly string[]): Options | string {
  const flags = { json: false, quick: false, write: false };
  const only: string[] = [];
  let peer = false;
  for (let at = 0; at < args.length; at += 1) {
    const arg = args[at];
    if (arg === "--json") flags.json = true;
    else if (arg === "--quick") flags.quick = true;
    else if (arg === "--write") flags.write = true;
    else if (arg === "--only") {
      at += 1;
      only.push(args[at] ?? "");
    } else if (arg === "--peer") {
      at += 1;
      if (!PEERS.some((name) => name === args[at])) return `there is no peer ${args[at] ?? ""}`;
      peer = true;
    } else return `bench does not know ${arg}`;
  }
  const parts = NAMES.filter((name) => only.includes(name));
  const unknown = only.find((name) => !(peer ? PEER_PARTS : NAMES).some((part) => part === name));
  if (unknown !== undefined) return `there is no part ${unknown}`;
  if (flags.write && only.length > 0) return "--write wants every part";
  return { ...flags, peer: peer ? { ...flags, only } : null, parts: only.length === 0 ? NAMES : parts };
}

async function bench(options: Options): Promise<number> {
  const began = performance.now();
  const say = (text: string): void => {
    const seconds = ((performance.now() - began) / 1_000).toFixed(1).padStart(6);
    process.stderr.write(`${seconds} s  ${text}\n`);
  };
  const tools = prepareTools("/run/berth-bench/tools");
  const problems: string[] = [];
  if (tools.peers === null)
    problems.push("the reference plugins could not be built, so nothing is beside us");
  const stage: Bench = { tools, quick: options.quick, say };
  const results: Partial<Record<Part, unknown>> = {};
  for (const part of options.parts) {
    say(part);
    try {
      results[part] = await PARTS[part](stage);
    } catch (cause) {
      problems.push(`${part}: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
  }
  const measured = results as Results; // Each part was put under its own name.
  const failed = (measured.burst?.failed ?? 0) + (measured.coldBurst?.failed ?? 0);
  if (failed > 0) problems.push(`${failed} ADDs failed`);
  process.stderr.write(`\n${tableOf(measured)}\n`);
  for (const problem of problems) process.stderr.write(`bench: ${problem}\n`);
  if (options.json) process.stdout.write(`${JSON.stringify(jsonOf(measured))}\n`);
  if (options.write && problems.length === 0) writePage(measured);
  say("done");
  return problems.length === 0 ? 0 : 1;
}

async function main(args: readonly string[]): Promise<number> {
  const options = parse(args);
  if (typeof options === "string") {
    process.stderr.write(`bench: ${options}\n${USAGE}`);
    return 2;
  }
  if (isInside()) return await (options.peer === null ? bench(options) : benchPeer(options.peer));
  // Out here there is a network. When a build fails, the bench says so at its end.
  buildJudges();
  if (options.peer !== null) buildPeerPrograms();
  return await runInside([fileURLToPath(import.meta.url), ...args]);
}

// As process 1 of its own namespace Node ignores these signals unless it is told not to.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130));
const code = await main(process.argv.slice(2));
process.once("exit", endProcess);
process.exit(code);
