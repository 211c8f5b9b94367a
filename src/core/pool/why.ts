/** Why a pod that waits has no address yet, for its event and for the one who reads it at night. */
import type { HoldReason } from "../model/action.ts";
import type { NodeState, Obstacle } from "../state/node-state.ts";
import { after, type Instant } from "../../lib/time.ts";
import { lastRefusal, LOOK_OPERATION } from "./obstacles.ts";
import { planPool } from "./plan.ts";
import type { PoolSettings } from "./targets.ts";

/** `blocked` is null while the refill is at work and merely slower than the pod could wait. */
export function whyNoAddress(
  state: NodeState,
  settings: PoolSettings,
  now: Instant,
): { readonly blocked: HoldReason | null; readonly detail: string } {
  if (state.inDoubt !== null) return whyInDoubt(state, state.inDoubt.operation);
  // The one who asks may have left the queue already; what kept an address from it is still the question. So are refusals whose
  // pause has just ended: EC2 is being asked again, and has not said yes yet.
  const asked = {
    ...state,
    waiting: Math.max(1, state.waiting),
    obstacles: state.obstacles.map((each) => untilAnswered(each, now)),
  };
  const plan = planPool(asked, settings, now);
  if (plan.kind === "act") return { blocked: null, detail: `the refill is at work (${plan.reason})` };
  if (plan.reason === "on-target") return { blocked: null, detail: "an address became free just now" };
  return { blocked: plan.reason, detail: plan.detail };
}

/** Nothing is asked of EC2 before it was looked at; what keeps it from being looked at is what pods wait for. */
function whyInDoubt(state: NodeState, operation: string): { blocked: HoldReason; detail: string } {
  const blind = lastRefusal(state, LOOK_OPERATION);
  if (blind !== null) return { blocked: blind.reason, detail: blind.detail };
  const cause = lastRefusal(state, operation);
  const what = cause?.detail ?? `the outcome of ${operation} is not known`;
  return { blocked: "call-in-doubt", detail: `${what}; EC2 is looked at before it is asked again` };
}

/** A refusal of an operation stands until the operation succeeds, which takes it out of the state. */
function untilAnswered(obstacle: Obstacle, now: Instant): Obstacle {
  return "operation" in obstacle && obstacle.until <= now ? { ...obstacle, until: after(now, 1) } : obstacle;
}
