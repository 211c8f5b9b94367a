/**
 * The pool loop, and the only caller of EC2's writes: plan → perform → record, one step at a time, until the plan says hold.
 * Looking at EC2 is a step of the same loop, so that no look can contradict a call in hand.
 */
import type { PoolAction, PoolPlan } from "../core/model/action.ts";
import { operationBlock, standing } from "../core/pool/obstacles.ts";
import { planPool } from "../core/pool/plan.ts";
import { unfinishedAction } from "../core/pool/unfinished.ts";
import { takeCensus } from "../core/state/census.ts";
import { LATE_CALL_MS, schedulableChanged } from "../core/state/transitions.ts";
import { after, type Instant, MINUTE_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";
import { createLooks, type Looks } from "./looks.ts";
import type { Job } from "./loop.ts";
import { createLooseDeletes, type LooseDeletes } from "./loose-deletes.ts";
import { perform } from "./perform.ts";
import { createPoolLog, type PoolLog } from "./pool-log.ts";

type Memory = {
  readonly looks: Looks;
  readonly deletes: LooseDeletes;
  readonly log: PoolLog;
  calm: boolean; // The pool was on target, and has not grown since.
  dipped: Instant | null; // When it first fell short of it.
  unassignAgain: Instant; // What leaves addresses unfinished is not asked for again before.
};

export function refillJob(agent: Agent): Job {
  const now = agent.ports.time.now();
  const memory: Memory = {
    log: createPoolLog(agent),
    looks: createLooks(agent),
    deletes: createLooseDeletes(agent),
    calm: false,
    dipped: null,
    unassignAgain: unfinishedAction(agent.cell.state) === null ? now : after(now, LATE_CALL_MS),
  };
  return { name: "refill", wake: agent.wakeRefill, run: () => refill(agent, memory) };
}

/** One step. In the answer: how long to sleep, 0 when there may be more to do. */
async function refill(agent: Agent, memory: Memory): Promise<number> {
  const { ports, cell, settings } = agent;
  const schedulable = !ports.runtime.cordoned();
  if (schedulable !== cell.state.schedulable) cell.set(schedulableChanged(cell.state, schedulable));
  agent.waiting.serve();
  const now = ports.time.now();
  const { inDoubt } = cell.state;
  if (inDoubt !== null) {
    const leftMs = memory.looks.dueInDoubt(inDoubt) - now;
    return leftMs > 0 ? leftMs : await memory.looks.look();
  }
  const plan = planPool(cell.state, agent.pool, now);
  const planned = plan.kind === "act" ? plan.action : null;
  const obstacles = standing(cell.state, now);
  const steps =
    planned !== null && grows(planned)
      ? [planned]
      : [unfinished(agent, memory, now), memory.deletes.due(), planned];
  const step = steps.find((each) => each !== null && operationBlock(obstacles, each.kind) === null) ?? null;
  if (step !== null && settings.provisioning) {
    const gatherMs = grows(step) ? gathering(agent, memory, now) : 0;
    if (gatherMs > 0) return gatherMs;
    await act(agent, memory, step, plan.reason);
    return 0;
  }
  if (now >= memory.looks.nextAt()) return await memory.looks.look();
  memory.calm = true;
  memory.dipped = null;
  if (plan.kind === "hold") memory.log.held(plan);
  return Math.max(
    1,
    Math.min(
      ...obstacles.map((obstacle) => obstacle.until - now),
      wakeTimeOf(plan, now),
      memory.looks.nextAt() - now,
      memory.deletes.waitMs(now),
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
  if (action.kind === "delete-eni") memory.deletes.answered(action.eni, failure === null);
  const taking = action.kind === "unassign-addresses" || action.kind === "unassign-prefixes";
  if (taking && failure?.kind === "in-doubt") memory.unassignAgain = after(now, LATE_CALL_MS);
  if (failure === null) memory.log.done(action, reason, now - began);
}

function grows(action: PoolAction): boolean {
  return (
    action.kind === "assign-addresses" || action.kind === "assign-prefixes" || action.kind === "attach-eni"
  );
}

function wakeTimeOf(plan: PoolPlan, now: Instant): number {
  return plan.kind === "hold" && plan.retryAt !== null ? plan.retryAt - now : MINUTE_MS;
}
