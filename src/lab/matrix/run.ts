/** Runs the matrix: each cell is one question by real packets, beside the answer that was written down before. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isGuest, runInGuest } from "../guest/guest.ts";
import { ask, type Answer, type Protocol } from "../probes.ts";
import { must } from "../processes.ts";
import { COLUMNS, sameLab, type Column } from "./columns.ts";
import { FLOWS, needsServices, type Flow, type Seen } from "./flows.ts";
import { PORT, setStage, type Place, type Stage } from "./stage.ts";

const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const MAIN = join(ROOT, "src/cli/main.ts");

export type Cell = {
  readonly mode: string;
  readonly flow: string;
  readonly protocol: Protocol;
  readonly expected: string;
  readonly got: string;
  readonly right: boolean;
  readonly spoofed: number; // Frames that the VPC had to drop for their source.
  readonly why: string;
};

export type Matrix = {
  readonly cells: readonly Cell[];
  readonly notRun: readonly { readonly mode: string; readonly reason: string }[];
};

export type MatrixOptions = {
  readonly modes?: readonly string[]; // All, when not given.
  readonly flows?: (flow: Flow) => boolean;
  readonly say?: (line: string) => void;
};

/** A mode whose lab cannot be set up is told in `notRun`, and the others go on. */
export async function runMatrix(options: MatrixOptions = {}): Promise<Matrix> {
  const { modes, flows = () => true, say = () => {} } = options;
  const cells: Cell[] = [];
  const notRun: { mode: string; reason: string }[] = [];
  const chosen = COLUMNS.filter(({ mode }) => modes === undefined || modes.includes(mode));
  const elsewhere = isGuest() ? [] : chosen.filter(({ guest }) => guest === true);
  let left = chosen.filter((column) => !elsewhere.includes(column));
  for (let [column] = left; column !== undefined; [column] = left) {
    const shared = column;
    const together = left.filter((other) => sameLab(other, shared));
    left = left.filter((other) => !sameLab(other, shared));
    let stage: Stage | null = null;
    for (const each of together) {
      try {
        stage ??= await setStage(each);
        const began = performance.now();
        const added = await runColumn(stage, each, FLOWS.filter(flows));
        cells.push(...added);
        const wrong = added.filter((cell) => !cell.right).length;
        say(
          `${each.mode}: ${added.length} cells, ${wrong} wrong, ${((performance.now() - began) / 1_000).toFixed(1)} s`,
        );
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        notRun.push({ mode: each.mode, reason });
        say(`${each.mode}: not run: ${reason}`);
      }
    }
    await stage?.close();
  }
  if (elsewhere.length === 0) return { cells, notRun };
  const guest = await runInGuestKernel(elsewhere.map(({ mode }) => mode));
  const wanted = new Set(FLOWS.filter(flows).map(({ name }) => name));
  return {
    cells: [...cells, ...guest.cells.filter(({ flow }) => wanted.has(flow))],
    notRun: [...notRun, ...guest.notRun],
  };
}

/** The same command in a guest, whose kernel has ipvlan: its table is ours. */
async function runInGuestKernel(modes: readonly string[]): Promise<Matrix> {
  let printed = "";
  const ran = await runInGuest({
    command: [process.execPath, MAIN, "matrix", "--json", ...modes],
    cwd: ROOT,
    stdout: (text) => (printed += text),
  });
  const failed = (reason: string): Matrix => ({
    cells: [],
    notRun: modes.map((mode) => ({ mode, reason })),
  });
  if (!ran.ok) return failed(ran.error);
  try {
    // By our own hand, of the same version.
    const { table, reasons = [] } = JSON.parse(printed) as {
      readonly table: readonly Cell[];
      readonly reasons?: Matrix["notRun"];
    };
    return { cells: table, notRun: reasons };
  } catch (cause) {
    return failed(`the guest's matrix ended with ${ran.value} and printed no table: ${String(cause)}`);
  }
}

async function runColumn(stage: Stage, column: Column, flows: readonly Flow[]): Promise<readonly Cell[]> {
  await stage.loadKubeProxy(column.kubeProxy);
  const cells: Cell[] = [];
  let before = await spoofedFrames(stage);
  for (const flow of flows) {
    if (needsServices(flow) && column.kubeProxy === null) continue;
    for (const protocol of flow.protocols) {
      const answer = await question(stage, column, flow, protocol);
      const after = await spoofedFrames(stage);
      cells.push(cellOf(stage, column, flow, protocol, answer, after - before));
      before = after;
    }
  }
  return cells;
}

function cellOf(
  stage: Stage,
  column: Column,
  flow: Flow,
  protocol: Protocol,
  answer: Answer,
  spoofed: number,
): Cell {
  const seen = seenIn(flow, column);
  const expected = expectedIp(stage, flow, seen);
  const right = (answer.kind === "seen" ? answer.ip : null) === expected && spoofed === 0;
  return {
    mode: column.mode,
    flow: flow.name,
    protocol,
    expected: expected === null ? "no answer" : `${label(seen)} ${expected}`,
    got: answer.kind === "seen" ? `${labelOf(stage, flow, answer.ip)} ${answer.ip}` : `no answer`,
    right,
    spoofed,
    why: flow.why,
  };
}

/** A right silence is waited for: long beside any answer in this lab, and not so long that many of them cost minutes. */
const SILENCE_MS = 500;

async function question(stage: Stage, column: Column, flow: Flow, protocol: Protocol): Promise<Answer> {
  const asker = stage.places[flow.from];
  const { ip, port, watchedIn } = targetOf(stage, flow);
  const borrowed = flow.asAddressOf === undefined ? null : stage.places[flow.asAddressOf].ip;
  if (borrowed !== null) await must(["ip", "address", "add", `${borrowed}/32`, "dev", "lo"], asker);
  const answer = await ask({
    netns: asker.netns,
    protocol,
    ip,
    port,
    watchedIn,
    ...(seenIn(flow, column) === "nobody" ? { patienceMs: SILENCE_MS } : {}),
    ...(flow.bytes === undefined ? {} : { bytes: flow.bytes }),
    ...(borrowed === null ? {} : { fromIp: borrowed }),
  });
  if (borrowed !== null) await must(["ip", "address", "del", `${borrowed}/32`, "dev", "lo"], asker);
  return answer;
}

function targetOf(
  stage: Stage,
  { to }: Flow,
): { readonly ip: string; readonly port: number; readonly watchedIn: string } {
  switch (to.kind) {
    case "place":
      return { ip: stage.places[to.place].ip, port: PORT, watchedIn: stage.places[to.place].netns };
    case "public-address":
      return { ip: stage.publicIps[to.place], port: PORT, watchedIn: stage.places[to.place].netns };
    case "cluster-ip":
      return { ip: stage.clusterIpOf(to.service), port: PORT, watchedIn: stage.places.node.netns };
    case "node-port": {
      const ip = to.from === "internet" ? stage.publicIps.node : stage.places.node.ip;
      return { ip, port: stage.nodePortOf(to.service), watchedIn: stage.places.node.netns };
    }
  }
}

function seenIn(flow: Flow, column: Column): Seen {
  return typeof flow.seen === "function" ? flow.seen(column) : flow.seen;
}

function expectedIp(stage: Stage, flow: Flow, seen: Seen): string | null {
  switch (seen) {
    case "asker":
      return stage.places[flow.from].ip;
    case "node":
      return stage.places.node.ip;
    case "node-public":
      return stage.publicIps.node;
    case "gateway":
      return stage.publicIps.gateway;
    case "nobody":
      return null;
  }
}

function label(seen: Seen): string {
  const labels = {
    asker: "asker's own",
    node: "node's",
    "node-public": "node's public",
    gateway: "NAT gateway's",
    nobody: "",
  };
  return labels[seen];
}

function labelOf(stage: Stage, flow: Flow, ip: string): string {
  for (const seen of ["asker", "node", "node-public", "gateway"] as const)
    if (expectedIp(stage, flow, seen) === ip) return label(seen);
  const place = Object.entries<Place>(stage.places).find(([, each]) => each.ip === ip);
  return place === undefined ? "a strange" : `${place[0]}'s`;
}

async function spoofedFrames(stage: Stage): Promise<number> {
  const frames = await stage.cluster.fabric.spoofedFrames();
  return frames.reduce((sum, frame) => sum + frame.count, 0);
}
