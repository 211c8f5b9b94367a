/**
 * `npm run bench -- --peer aws-vpc-cni`: ours beside the incumbent itself, daemon and plugin, in one run and by turns. What we lose is
 * printed like what we win; the exit code is 1 only when something could not be measured.
 */
import { AWS_VPC_CNI_VERSION } from "../../judges/aws-vpc-cni.ts";
import { findPeerPrograms } from "../../judges/peer-programs.ts";
import { prepareTools } from "../tools.ts";
import { measureCalls } from "./calls.ts";
import type { Figure } from "./figures.ts";
import { measureFresh } from "./fresh.ts";
import { measureBadDays } from "./bad-days.ts";
import { measureLifecycle } from "./lifecycle.ts";
import { measurePackets } from "./packets.ts";
import { writePeerPage } from "./page.ts";
import type { PeerBench } from "./twins.ts";
import { compareWorkloads, type WorkloadFigure } from "./workloads/compare.ts";

export const PEERS = ["aws-vpc-cni"] as const;

export type PeerOptions = {
  readonly json: boolean;
  readonly quick: boolean; // One round each of the parts that take no more than two minutes.
  readonly write: boolean; // The page of figures.
  readonly only: readonly string[]; // Names of parts; none: all.
};

const ROUNDS = 5;

const PARTS = {
  calls: async (bench: PeerBench, rounds: number) => await measureCalls(bench, rounds),
  lifecycle: async (bench: PeerBench, rounds: number) => await measureLifecycle(bench, rounds),
  fresh: async (bench: PeerBench, rounds: number) => await measureFresh(bench, rounds, "10ms"),
  badDays: async (bench: PeerBench, rounds: number) => await measureBadDays(bench, rounds),
  packets: async (bench: PeerBench, rounds: number) => await measurePackets(bench, rounds),
  freshTypical: async (bench: PeerBench, rounds: number) => await measureFresh(bench, rounds, "typical"),
} as const;

const QUICK: readonly string[] = ["calls", "lifecycle", "fresh", "workloads"];

const WORKLOADS = "workloads";
export const PEER_PARTS = [...Object.keys(PARTS), WORKLOADS];

export async function benchPeer(options: PeerOptions): Promise<number> {
  const began = performance.now();
  const say = (text: string): void => {
    const seconds = ((performance.now() - began) / 1_000).toFixed(1).padStart(6);
    process.stderr.write(`${seconds} s  ${text}\n`);
  };
  const programs = findPeerPrograms();
  if (!programs.ok) {
    process.stderr.write(`bench: ${programs.error}\n`);
    return 1;
  }
  const tools = prepareTools("/run/berth-bench/tools");
  const bench: PeerBench = { tools, quick: options.quick, say, programs: programs.value };
  const rounds = options.quick ? 1 : ROUNDS;
  const figures: Figure[] = [];
  const problems: string[] = [];
  const wanted = (name: string): boolean =>
    options.only.length > 0 ? options.only.includes(name) : !options.quick || QUICK.includes(name);
  for (const [name, measure] of Object.entries(PARTS)) {
    if (!wanted(name)) continue;
    say(name);
    try {
      figures.push(...(await measure(bench, rounds)));
    } catch (cause) {
      problems.push(`${name}: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
  }
  if (wanted(WORKLOADS)) say(WORKLOADS);
  const workloads = wanted(WORKLOADS) ? compareWorkloads(options) : [];
  process.stderr.write(`\n${tableOf(figures)}\n${workloadTable(workloads)}\n`);
  for (const problem of problems) process.stderr.write(`bench: ${problem}\n`);
  const peer = { name: PEERS[0], version: AWS_VPC_CNI_VERSION };
  if (options.json) process.stdout.write(`${JSON.stringify({ peer, rounds, figures, workloads })}\n`);
  if (options.write && problems.length === 0) writePeerPage(figures, workloads, rounds);
  say("done");
  return problems.length === 0 ? 0 : 1;
}

function tableOf(figures: readonly Figure[]): string {
  const width = Math.max(0, ...figures.map(({ name }) => name.length));
  const value = (number: number, unit: string): string => `${number} ${unit}`.padStart(16);
  return figures
    .map(({ name, unit, ours, peer, ratio, goalRatio, holds }) => {
      const goal = goalRatio === null ? "" : `  at most × ${goalRatio}`;
      const mark = goalRatio === null ? "  " : holds ? "ok" : "no";
      return `  ${mark}  ${name.padEnd(width)}${value(ours, unit)}${value(peer, unit)}  × ${ratio ?? "-"}${goal}\n`;
    })
    .join("");
}

function workloadTable(workloads: readonly WorkloadFigure[]): string {
  const share = (value: number): string => `${(100 * value).toFixed(1)} %`.padStart(8);
  return workloads
    .map(({ name, setting, ours, peer, holds }) => {
      const waiting = `${share(ours.waitingShare)}${share(peer.waitingShare)}`;
      return `  ${holds ? "ok" : "no"}  ${name.padEnd(10)}${waiting} wait  ${setting}\n`;
    })
    .join("");
}
