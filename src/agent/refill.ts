/**
 * The pool loop, and the only caller of EC2's writes: plan → perform → record, one step at a time, until the plan says hold.
 * Looking at EC2 is a step of the same loop, so that no look can contradict a call in hand.
 */
import type { PoolAction, PoolPlan } from "../core/model/action.ts";
import type { EniId } from "../core/model/eni.ts";
import { LOOK_OPERATION, operationBlock, standing } from "../core/pool/obstacles.ts";
import { planPool } from "../core/pool/plan.ts";
import { ruleOf } from "../core/pool/targets.ts";
import { unfinishedAction } from "../core/pool/unfinished.ts";
import { takeCensus } from "../core/state/census.ts";
import { LATE_CALL_MS, schedulableChanged } from "../core/state/transitions.ts";
import { after, backoffMs, type Instant, MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";
import type { InDoubt, Obstacle } from "../core/state/node-state.ts";
import { DOUBT_SETTLE_MS, DRIFT_GRACE_MS, lookAtEc2, type LookMemory } from "./look.ts";
import { leakMemory } from "./leaks.ts";
import type { Job } from "./loop.ts";
import { perform } from "./perform.ts";

type Memory = LookMemory & {
  nextLook: Instant;
  lookAttempt: number;
  lastHold: string;
  calm: boolean; // The pool was on target, and has not grown since.
  dipped: Instant | null; // When it first fell short of it.
  readonly holdsTold: Map<string, Instant>; // By reason, of which there are a dozen.
  splitting: boolean; // In prefix mode, but EC2 has single addresses only.
  unassignAgain: Instant; // What leaves addresses unfinished is not asked for again before.
  readonly deletes: Map<EniId, { attempt: number; at: Instant }>; // Of loose ENIs; forgotten with them.
};

export function refillJob(agent: Agent): Job {
  const { ports, settings } = agent;
  sayUnitUnmet(agent);
  // The first look comes early, but not for all nodes of a rollout at once.
  const firstLook = after(ports.time.now(), ports.random() * Math.min(settings.sweepIntervalMs, MINUTE_MS));
  const memory: Memory = {
    suspicions: new Map(),
    leaks: leakMemory(agent),
    unripe: 0,
    nextLook: firstLook,
    lookAttempt: 0,
    lastHold: "",
    calm: false,
    dipped: null,
    holdsTold: new Map(),
    splitting: false,
    unassignAgain:
      unfinishedAction(agent.cell.state) === null ? ports.time.now() : after(ports.time.now(), LATE_CALL_MS),
    deletes: new Map(),
  };
  return { name: "refill", wake: agent.wakeRefill, run: () => refill(agent, memory) };
}

function sayUnitUnmet({ ports, pool, cell }: Agent): void {
  const { type, limits } = cell.state.instance;
  if (!pool.prefixDelegation || limits.nitro) return;
  ports.log({
    level: "warn",
    message: "prefix delegation needs a Nitro instance: single addresses are used",
    type,
  });
}

/** One step. In the answer: how long to sleep, 0 when there may be more to do. */
async function refill(agent: Agent, memory: Memory): Promise<number> {
  const { ports, cell, settings } = agent;
  const schedulable = !ports.runtime.cordoned();
  if (schedulable !== cell.state.schedulable) cell.set(schedulableChanged(cell.state, schedulable));
  agent.waiting.serve();
  const now = ports.time.now();
  const { inDoubt } = cell.state;
  if (inDoubt !== null) return await look(agent, memory, dueInDoubt(agent, memory, inDoubt));
  const plan = planPool(cell.state, agent.pool, now);
  const planned = plan.kind === "act" ? plan.action : null;
  const obstacles = standing(cell.state, now);
  const steps =
    planned !== null && grows(planned)
      ? [planned]
      : [unfinished(agent, memory, now), dueDelete(agent, memory), planned];
  const step = steps.find((each) => each !== null && operationBlock(obstacles, each.kind) === null) ?? null;
  if (step !== null && settings.provisioning) {
    const gatherMs = grows(step) ? gathering(agent, memory, now) : 0;
    if (gatherMs > 0) return gatherMs;
    await act(agent, memory, step, plan.reason);
    return 0;
  }
  if (now >= memory.nextLook) return await look(agent, memory, now);
  memory.calm = true;
  memory.dipped = null;
  sayHold(agent, memory, plan);
  return Math.max(
    1,
    Math.min(
      ...obstacles.map((obstacle) => obstacle.until - now),
      wakeTimeOf(plan, now),
      memory.nextLook - now,
      nextDelete(memory, now),
      settings.refillIntervalMs,
    ),
  );
}

/** How long the first addresses taken from a full pool wait for more of their burst, so that one call fetches for many. */
const GATHER_MS = 150;

/** 0 when the pool may grow now: while a pod waits, while nothing is warm, and from the second step on, nothing is gathered. */
function gathering(agent: Agent, memory: Memory, now: Instant): number {
  const { state } = agent.cell;
  const gathers = memory.calm && state.waiting === 0 && takeCensus(state, now).warm > 0;
  memory.dipped ??= now;
  const leftMs = gathers ? GATHER_MS - (now - memory.dipped) : 0;
  if (leftMs <= 0) memory.calm = false;
  return Math.max(0, leftMs);
}

/**
 * A call that was never answered may be done late. Were it repeated at once, its addresses could be ours again when the first one is
 * done: they would rest, and be gone unseen while they do. While they leave they are nobody's, so waiting costs nothing.
 */
function unfinished(agent: Agent, memory: Memory, now: Instant): PoolAction | null {
  const action = unfinishedAction(agent.cell.state);
  return action === null || action.kind === "detach-eni" || now >= memory.unassignAgain ? action : null;
}

async function act(agent: Agent, memory: Memory, action: PoolAction, reason: string): Promise<void> {
  const { ports } = agent;
  const began = ports.time.now();
  const failure = await perform(agent, action);
  agent.waiting.serve();
  const now = ports.time.now();
  if (action.kind === "delete-eni") {
    if (failure === null) memory.deletes.delete(action.eni);
    else {
      const attempt = (memory.deletes.get(action.eni)?.attempt ?? -1) + 1;
      const waitMs = backoffMs(attempt, ports.random(), { baseMs: 2 * SECOND_MS, maxMs: MINUTE_MS });
      memory.deletes.set(action.eni, { attempt, at: after(now, waitMs) });
    }
  }
  const taking = action.kind === "unassign-addresses" || action.kind === "unassign-prefixes";
  if (taking && failure?.kind === "in-doubt") memory.unassignAgain = after(now, LATE_CALL_MS);
  if (failure !== null) return;
  ports.log({ level: "info", message: DONE[action.kind], ...action, reason, durationMs: now - began });
  saySplitting(agent, memory, action);
}

/** That prefixes have run out, and that they are back: each is said once, for what lies between looks like singles at every assignment. */
function saySplitting(agent: Agent, memory: Memory, action: PoolAction): void {
  const { ports, pool, cell } = agent;
  if (ruleOf(pool, cell.state.instance.limits).unit !== "prefix") return;
  const attached = action.kind === "attach-eni" ? action : { addressCount: 0, prefixCount: 0 };
  const split = action.kind === "assign-addresses" || attached.addressCount > 0;
  const whole = action.kind === "assign-prefixes" || attached.prefixCount > 0;
  if (split && !memory.splitting) {
    memory.splitting = true;
    ports.log({ level: "warn", message: "no /28 is free: pods that wait get single addresses meanwhile" });
  } else if (whole && memory.splitting) {
    memory.splitting = false;
    ports.log({ level: "info", message: "a /28 is free again: single addresses go back as pods leave" });
  }
}

const DONE: Readonly<Record<PoolAction["kind"], string>> = {
  "assign-addresses": "addresses assigned",
  "assign-prefixes": "prefixes assigned",
  "unassign-addresses": "addresses unassigned",
  "unassign-prefixes": "prefixes unassigned",
  "attach-eni": "eni attached",
  "detach-eni": "eni detached",
  "delete-eni": "eni deleted",
};

async function look(agent: Agent, memory: Memory, due: Instant): Promise<number> {
  const { ports } = agent;
  const now = ports.time.now();
  if (now < due) return due - now;
  const looked = await lookAtEc2(agent, memory);
  memory.lookAttempt = looked ? 0 : memory.lookAttempt + 1;
  const waitMs = looked
    ? nextLookMs(agent, memory)
    : backoffMs(memory.lookAttempt, ports.random(), { baseMs: SECOND_MS, maxMs: MINUTE_MS });
  memory.nextLook = after(ports.time.now(), waitMs);
  return looked ? 0 : 1;
}

/** Spread, so that the looks of many nodes do not come together. What one more look will decide is not left for the next sweep. */
function nextLookMs({ settings, ports }: Agent, memory: Memory): number {
  const sweepMs = settings.sweepIntervalMs * (0.8 + 0.4 * ports.random());
  return memory.unripe === 0 ? sweepMs : Math.min(sweepMs, DRIFT_GRACE_MS * (1 + 0.2 * ports.random()));
}

/** EC2's views settle first; then a look, or the creation that it asks for again, waits out what was refused last. */
function dueInDoubt(agent: Agent, memory: Memory, inDoubt: InDoubt): Instant {
  const { state } = agent.cell;
  const settled =
    inDoubt.operation === LOOK_OPERATION ? inDoubt.since : after(inDoubt.since, DOUBT_SETTLE_MS);
  const refused = state.creation === null ? [] : state.obstacles.filter(standsBeforeCreation);
  const lookAgain = memory.lookAttempt > 0 ? memory.nextLook : settled;
  return refused.map(({ until }) => until).reduce(later, later(settled, lookAgain));
}

function standsBeforeCreation(obstacle: Obstacle): boolean {
  return "operation" in obstacle && obstacle.operation === "CreateNetworkInterface";
}

function later(left: Instant, right: Instant): Instant {
  return left < right ? right : left;
}

function grows(action: PoolAction): boolean {
  return (
    action.kind === "assign-addresses" || action.kind === "assign-prefixes" || action.kind === "attach-eni"
  );
}

/** A loose ENI whose time has come. EC2 refuses while it still detaches, so the first try waits a little. */
function dueDelete(agent: Agent, memory: Memory): PoolAction | null {
  const { loose } = agent.cell.state;
  const now = agent.ports.time.now();
  for (const id of memory.deletes.keys()) if (!loose.has(id)) memory.deletes.delete(id);
  for (const { id, attachmentId, since } of loose.values()) {
    const retry = memory.deletes.get(id) ?? {
      attempt: -1,
      at: after(since, attachmentId === null ? 0 : 2 * SECOND_MS),
    };
    if (retry.at <= now) return { kind: "delete-eni", eni: id };
    memory.deletes.set(id, retry);
  }
  return null;
}

function nextDelete(memory: Memory, now: Instant): number {
  // One that is due already is held up by something else, which has its own time.
  const waits = [...memory.deletes.values()].map((each) => each.at - now).filter((ms) => ms > 0);
  return Math.min(MINUTE_MS, ...waits);
}

function wakeTimeOf(plan: PoolPlan, now: Instant): number {
  return plan.kind === "hold" && plan.retryAt !== null ? plan.retryAt - now : MINUTE_MS;
}

/** Told once when it begins, and not more than once a minute: at the edge of a limit two reasons take turns with every pod. */
function sayHold(agent: Agent, memory: Memory, plan: PoolPlan): void {
  if (plan.kind !== "hold") return;
  agent.ports.observed({ kind: "hold", reason: plan.reason });
  if (plan.reason === memory.lastHold) return;
  memory.lastHold = plan.reason;
  const now = agent.ports.time.now();
  const told = memory.holdsTold.get(plan.reason);
  if (told !== undefined && now - told < MINUTE_MS) return;
  memory.holdsTold.set(plan.reason, now);
  agent.ports.log({
    level: plan.reason === "on-target" ? "debug" : "info",
    message: "pool holds",
    reason: plan.reason,
  });
}
