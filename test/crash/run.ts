/**
 * Kills the daemon at every point of every walk, and the shim at every system call, on nodes that work side by side. Runs inside
 * the lab's own namespaces.
 */
import { mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { createCluster } from "../../src/lab/cluster.ts";
import { SHIM } from "../../src/lab/node.ts";
import { startPing, type RunningPing } from "../../src/lab/packets.ts";
import { run } from "../../src/lab/processes.ts";
import { buildWithPoints, ROOT } from "./instrument.ts";
import { Stage, pause, type Findings } from "./stage.ts";
import { WALKS, type Walk } from "./walks.ts";

export type CrashOptions = {
  readonly nodes: number;
  /** Also what `thinned` leaves out. */
  readonly every?: boolean;
  /** Which walks are looked at; all without it. */
  readonly chooseWalks?: (walks: readonly Walk[]) => readonly Walk[];
  /** Which of the tasks are carried out; all without it. */
  readonly choose?: (tasks: readonly Task[]) => readonly Task[];
  readonly say: (text: string) => void;
};

export type CrashReport = {
  readonly effects: number; // Found in the source.
  readonly points: number; // At which something was killed: a walk and a place in it.
  readonly kills: number;
  readonly byWalk: Readonly<Record<string, number>>;
  readonly unreached: readonly string[]; // Passed when the walk was traced, and not when it was repeated.
  readonly pingsSent: number;
  readonly lostPings: number;
  readonly leaked: number;
  readonly doubleAllocations: number;
  readonly failures: readonly string[]; // Everything that is not as it should be, in words.
  readonly wallSeconds: number;
};

/** One kill: of the daemon at a point, with or without the shims; or of shims alone, at some of their system calls. */
export type Task =
  | { readonly kind: "daemon"; readonly walk: Walk; readonly point: string; readonly shimsToo: boolean }
  | { readonly kind: "shim"; readonly verb: ShimWalk; readonly calls: readonly number[] };

/** "journal": a DEL while no daemon is there. */
const SHIM_WALKS = ["ADD", "DEL", "journal"] as const;
type ShimWalk = (typeof SHIM_WALKS)[number];

/** Inside the lab's own /run: two runs side by side, or a build meanwhile, do not meet. */
const FOLDER = "/run/berth-crash";
const BUNDLE = join(FOLDER, "berth.mjs");
const STOP_AT = join(FOLDER, "stop-at");

const SETTINGS = {
  WARM_IP_TARGET: "1",
  IP_COOLDOWN_PERIOD: "1",
  BERTH_ENI_LIFE_MIN_SECONDS: "0",
  BERTH_SWEEP_INTERVAL_SECONDS: "1",
  BERTH_LEAK_AGE_SECONDS: "1",
  BERTH_REFILL_INTERVAL_SECONDS: "1",
  DISABLE_METRICS: "true",
  DISABLE_INTROSPECTION: "true",
};
/** Three addresses on each of three ENIs: small enough that every pod counts. */
const INSTANCE_TYPE = "t3.small";
/** Long enough that something else may come between an EC2 call and its answer. */
const CALL_MS = 5;
const SHIM_CALLS_A_TASK = 8;

export async function crash(options: CrashOptions): Promise<CrashReport> {
  const began = performance.now();
  mkdirSync(FOLDER, { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(FOLDER, "node_modules")); // The bundle finds koffi by it.
  compileStopAt();
  const sites = await buildWithPoints(BUNDLE);
  options.say(`${sites.length} effects in the source`);
  const names = ["witness", ...Array.from({ length: options.nodes }, (_, at) => `n${at + 1}`)];
  const cluster = await createCluster({
    nodes: names.map((name) => ({ name, type: INSTANCE_TYPE })),
    settings: SETTINGS,
    emulator: { timings: { call: CALL_MS } },
    bundle: BUNDLE,
  });
  const findings: Findings = { leaked: [], doubled: [], failures: [], held: new Map() };
  const [witness, ...stages] = cluster.nodes.map((node) => new Stage(cluster, node, findings));
  const tally = {
    kills: 0,
    points: new Set<string>(),
    byWalk: {} as Record<string, number>,
    unreached: [] as string[],
  };
  let pings: readonly RunningPing[] = [];
  try {
    if (witness === undefined) throw new Error("no witness");
    await Promise.all([witness, ...stages].map(async (stage) => await stage.begin()));
    pings = pingAll(witness, stages);
    const walks = options.chooseWalks?.(WALKS) ?? WALKS;
    const traced = await traceAll(stages, walks, options.every === true, options.say);
    const chosen = options.choose?.(traced) ?? traced;
    options.say(`${chosen.length} of ${traced.length} kills`);
    const queue = [...chosen];
    await Promise.all(stages.map(async (stage) => await carryOutAll(stage, queue, tally, options.say)));
  } catch (cause) {
    findings.failures.push(cause instanceof Error ? (cause.stack ?? cause.message) : String(cause));
  }
  const counts = await Promise.all(pings.map(async (ping) => await ping.stop()));
  const sent = counts.reduce((sum, count) => sum + count.sent, 0);
  const lost = counts.reduce((sum, count) => sum + count.sent - count.received, 0);
  await cluster
    .close()
    .catch((cause: unknown) => findings.failures.push(`the lab did not end in order: ${String(cause)}`));
  return {
    effects: sites.length,
    points: tally.points.size,
    kills: tally.kills,
    byWalk: tally.byWalk,
    unreached: tally.unreached,
    pingsSent: sent,
    lostPings: lost,
    leaked: findings.leaked.length,
    doubleAllocations: findings.doubled.length,
    failures: [...findings.doubled, ...findings.leaked, ...findings.failures],
    wallSeconds: Math.round((performance.now() - began) / 100) / 10,
  };
}

export function nameOf(task: Task): string {
  return task.kind === "daemon"
    ? `${task.walk.name}${task.shimsToo ? ", shims too" : ""}: ${task.point}`
    : `shim of ${task.verb}: calls ${task.calls.join(" ")}`;
}

function compileStopAt(): void {
  const flags = [
    "-O1",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-o",
    STOP_AT,
    join(ROOT, "test/crash/stop-at.c"),
  ];
  const errors: string[] = [];
  for (const compiler of ["gcc", "cc"]) {
    const done = spawnSync(compiler, flags, { encoding: "utf8" });
    if (done.status === 0) return;
    errors.push(`${compiler}: ${done.error?.message ?? done.stderr}`);
  }
  throw new Error(`stop-at.c could not be compiled: ${errors.join("; ")}`);
}

/** Pods of a node that nobody touches ping the steady pods of all others, through the VPC. */
function pingAll(witness: Stage, stages: readonly Stage[]): readonly RunningPing[] {
  const [from] = witness.steady;
  if (from === undefined) throw new Error("the witness has no pod");
  return stages.flatMap((stage) => stage.steady.map(({ ip }) => startPing(from.pod.netns, ip, 100)));
}

// --- Which points there are ----------------------------------------------------------------------------------------------

/** Each walk once without a kill, to see which points it passes. */
async function traceAll(
  stages: readonly Stage[],
  chosen: readonly Walk[],
  every: boolean,
  say: (text: string) => void,
): Promise<readonly Task[]> {
  const walks = [...chosen];
  const traced = new Map<Walk, readonly string[]>();
  let shimTasks: readonly Task[] = [];
  await Promise.all(
    stages.map(async (stage, at) => {
      if (at === 0) shimTasks = await countCalls(stage);
      for (let walk = walks.shift(); walk !== undefined; walk = walks.shift()) {
        const points = await trace(stage, walk);
        traced.set(walk, points);
        say(`${walk.name}: ${points.length} points`);
      }
    }),
  );
  const daemonTasks = chosen.flatMap((walk) =>
    (traced.get(walk) ?? []).flatMap((point): Task[] => {
      const task = { kind: "daemon", walk, point, shimsToo: false } as const;
      return walk.hasShim && ofWalks(point) ? [task, { ...task, shimsToo: true }] : [task];
    }),
  );
  return [...(every ? daemonTasks : thinned(daemonTasks)), ...shimTasks];
}

/** The steps of a save, of a batch of netlink messages or of a start are the same in each walk: they are cut in two walks, not in all. */
function thinned(tasks: readonly Task[]): readonly Task[] {
  const times = new Map<string, number>();
  return tasks.filter((task) => {
    if (task.kind === "shim" || /^[<>]agent\//.test(task.point)) return true;
    const count = (times.get(task.point) ?? 0) + 1;
    times.set(task.point, count);
    return count <= 2;
  });
}

async function trace(stage: Stage, walk: Walk): Promise<readonly string[]> {
  rmSync(stage.traceFile, { force: true });
  await stage.node.stopDaemon("SIGTERM");
  await stage.startDaemon(null, walk.begins === "serving");
  await stage.waitForRest(`before ${walk.name}`);
  await walk.prepare(stage);
  stage.arm();
  if (walk.begins === "start") await stage.startDaemon(null, true);
  const walked = walk.run(stage);
  await Promise.race([walked, untilDead(stage)]);
  if (!stage.isDead()) await stage.waitForRest(walk.name);
  stage.disarm();
  if (stage.isDead()) await stage.startDaemon(null);
  await walked;
  await stage.settle(walk.name);
  return pointsOf(readFileSync(stage.traceFile, "utf8").trim().split("\n"));
}

/**
 * Between an effect's end and the beginning of the next nothing changes outside, so beginnings are enough, and the walk's last end.
 * An effect of a walk counts each time that it is passed, one of the rooms below it (a save's own steps, say) once a walk.
 */
function pointsOf(lines: readonly string[]): readonly string[] {
  const last = lines.at(-1);
  const points = lines.filter(
    (line) => line.startsWith("<") && (/^<(agent|daemon)\//.test(line) || line.endsWith("#1")),
  );
  const often = points.filter((point) => Number(/#(\d+)$/.exec(point)?.[1]) <= PASSES_MAX);
  return [...new Set(last === undefined ? often : [...often, last])];
}

function ofWalks(point: string): boolean {
  return /^[<>](agent|daemon)\//.test(point);
}

/** A loop's own effects come again and again while a walk lasts. */
const PASSES_MAX = 3;

async function untilDead(stage: Stage): Promise<void> {
  while (!stage.isDead()) await pause(3);
}

// --- Kills ---------------------------------------------------------------------------------------------------------------

type TallyOfKills = {
  kills: number;
  readonly points: Set<string>;
  readonly byWalk: Record<string, number>;
  readonly unreached: string[];
};

async function carryOutAll(
  stage: Stage,
  queue: Task[],
  tally: TallyOfKills,
  say: (text: string) => void,
): Promise<void> {
  let task = queue.shift();
  if (task === undefined) return;
  await stage.node.stopDaemon("SIGKILL");
  await stage.startDaemon(pointAtStart(task));
  while (task !== undefined) {
    const before = performance.now();
    const next = queue.shift();
    try {
      if (task.kind === "daemon") await killDaemon(stage, task, tally, pointAtStart(next));
      else await killShims(stage, task, tally);
    } catch (cause) {
      stage.findings.failures.push(
        `${nameOf(task)}: ${cause instanceof Error ? cause.message : String(cause)}`,
      );
    }
    if (stage.point !== pointAtStart(next)) await stage.node.stopDaemon("SIGKILL");
    if (stage.isDead()) await stage.startDaemon(pointAtStart(next));
    say(`${nameOf(task)} (${((performance.now() - before) / 1_000).toFixed(1)} s)`);
    task = next;
  }
}

/** The start that heals one kill is the start that the next kill begins with: nothing happens until it is armed. */
function pointAtStart(task: Task | undefined): string | null {
  return task?.kind === "daemon" && task.walk.begins === "serving" ? task.point : null;
}

async function killDaemon(
  stage: Stage,
  task: Task & { readonly kind: "daemon" },
  tally: TallyOfKills,
  nextPoint: string | null,
): Promise<void> {
  const { walk, point, shimsToo } = task;
  await stage.waitForRest(`before ${walk.name}`);
  await walk.prepare(stage);
  stage.shimsDieToo = shimsToo;
  stage.arm();
  const up = walk.begins === "serving" || (await stage.startDaemon(point));
  const walked = up ? walk.run(stage) : Promise.resolve();
  const settled = walked.then(async () => (stage.isDead() ? undefined : void (await stage.rests())));
  await Promise.race([settled, untilDead(stage)]);
  if (stage.isDead() && shimsToo) stage.killShims();
  if (stage.wasKilled()) {
    tally.kills += 1;
    tally.points.add(nameOf(task));
    tally.byWalk[walk.name] = (tally.byWalk[walk.name] ?? 0) + 1;
  } else tally.unreached.push(nameOf(task));
  stage.disarm();
  stage.shimsDieToo = false;
  if (!stage.isDead()) await stage.node.stopDaemon("SIGKILL");
  await stage.startDaemon(nextPoint);
  await settled;
  await stage.settle(nameOf(task));
}

/** How many system calls the shim makes for each of its walks. */
async function countCalls(stage: Stage): Promise<readonly Task[]> {
  const counts = new Map<ShimWalk, number>();
  for (const verb of SHIM_WALKS) {
    const pod = await stage.makePod();
    if (verb !== "ADD") await stage.add(pod);
    if (verb === "journal") await stage.node.stopDaemon("SIGKILL");
    counts.set(verb, await stoppedAt(stage, verb === "ADD" ? "ADD" : "DEL", pod, 0));
    if (verb === "journal") await stage.startDaemon(null);
    await stage.settle(`counting the calls of ${verb}`);
  }
  return SHIM_WALKS.flatMap((verb) => {
    const calls = Array.from({ length: counts.get(verb) ?? 0 }, (_, at) => at + 1);
    const tasks: Task[] = [];
    while (calls.length > 0) tasks.push({ kind: "shim", verb, calls: calls.splice(0, SHIM_CALLS_A_TASK) });
    return tasks;
  });
}

/** How many system calls it came to; it was killed at the `call`th, if it came that far. */
async function stoppedAt(
  stage: Stage,
  verb: "ADD" | "DEL",
  pod: Parameters<Stage["add"]>[0],
  call: number,
): Promise<number> {
  const { env, input } = stage.node.runtime.request(verb, pod);
  const budget = { BERTH_CONNECT_BUDGET_MS: "20" }; // A daemon that is away is not waited for long.
  const done = await run([STOP_AT, `${call}`, SHIM], {
    netns: stage.node.netns,
    env: { ...env, ...budget },
    input,
  });
  return Number(/calls: (\d+)/.exec(done.stderr)?.[1] ?? 0);
}

/** Shims die one after the other, each at the next of its system calls; the runtime asks for DEL at once. */
async function killShims(
  stage: Stage,
  task: Task & { readonly kind: "shim" },
  tally: TallyOfKills,
): Promise<void> {
  const { verb, calls } = task;
  for (const call of calls) {
    const pod = await stage.makePod();
    if (verb !== "ADD") await stage.add(pod);
    if (verb === "journal") await stage.node.stopDaemon("SIGKILL");
    const came = await stoppedAt(stage, verb === "ADD" ? "ADD" : "DEL", pod, call);
    if (came === call) {
      tally.kills += 1;
      tally.points.add(`shim of ${verb}: call ${call}`);
      tally.byWalk[`shim of ${verb}`] = (tally.byWalk[`shim of ${verb}`] ?? 0) + 1;
    } else tally.unreached.push(`shim of ${verb}: call ${call}`);
    if (verb === "journal") await stage.startDaemon(null);
    await stage.remove(pod);
  }
  await stage.settle(nameOf(task));
}
