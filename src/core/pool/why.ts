/** Why a pod that waits has no address yet, for its event and for the one who reads it at night. */
import type { HoldReason } from "../model/action.ts";
import type { NodeState } from "../state/node-state.ts";
import type { Instant } from "../../lib/time.ts";
import { planPool } from "./plan.ts";
import type { PoolSettings } from "./targets.ts";

/** `blocked` is null while the refill is at work and merely slower than the pod could wait. */
export function whyNoAddress(
  state: NodeState,
  settings: PoolSettings,
  now: Instant,
): { readonly blocked: HoldReason | null; readonly detail: string } {
  if (state.inDoubt !== null) {
    return {
      blocked: "call-in-doubt",
      detail: `${state.inDoubt.operation} was not answered; EC2 is looked at before it is asked again`,
    };
  }
  // The one who asks may have left the queue already; what kept an address from it is still the question.
  const plan = planPool({ ...state, waiting: Math.max(1, state.waiting) }, settings, now);
  if (plan.kind === "act") return { blocked: null, detail: `the refill is at work (${plan.reason})` };
  if (plan.reason === "on-target") return { blocked: null, detail: "an address became free just now" };
  return { blocked: plan.reason, detail: plan.detail };
}
