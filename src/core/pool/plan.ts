/** Decides the pool's next single step, or says why there is none. */
import { after, type Instant } from "../../lib/time.ts";
import type { PoolPlan } from "../model/action.ts";
import type { NodeState } from "../state/node-state.ts";
import { planGrowth } from "./grow.ts";
import { earliest, type Block } from "./obstacles.ts";
import { planBeyondLimit, planShrink } from "./shrink.ts";
import { isShort, shortageOf, type PoolSettings } from "./targets.ts";
import { countsOn, viewOf, type PoolView } from "./view.ts";

/**
 * The next step towards the operator's targets and an address for every waiting ADD.
 *
 * - At most one action: the caller performs it, records the outcome and asks again.
 * - Growing goes before shrinking; an ENI with room before a new ENI (creating and attaching one takes up to 10 s).
 * - Nothing is planned while an earlier call's outcome is unknown. What is `leaving` already is not planned again:
 *   that is unfinished.ts.
 * - Equal states give equal plans, whatever the order in their maps. Never fails.
 */
export function planPool(state: NodeState, settings: PoolSettings, now: Instant): PoolPlan {
  if (state.inDoubt !== null || state.creation !== null) {
    const operation = state.inDoubt?.operation ?? "CreateNetworkInterface";
    return hold({
      reason: "call-in-doubt",
      detail: `the outcome of ${operation} is not known`,
    });
  }
  const view = viewOf(state, settings, now);
  const beyond = planBeyondLimit(view);
  if (beyond.kind === "act") return provisioned(view, beyond);
  const plan = planWithin(view);
  if (plan.kind === "hold") {
    const young = beyond.kind === "nothing" ? beyond.retryAt : null;
    return { ...plan, retryAt: earliest([plan.retryAt, young, nextChange(view)]) };
  }
  return provisioned(view, plan);
}

/** With provisioning off EC2 is left as it is; what would have been done is told. */
function provisioned(view: PoolView, plan: Extract<PoolPlan, { kind: "act" }>): PoolPlan {
  if (view.settings.provisioning) return plan;
  const detail = `DISABLE_NETWORK_RESOURCE_PROVISIONING forbids ${plan.action.kind}: ${plan.reason}`;
  // What it would do next may change when an ENI is old enough to go.
  const old = view.census.enis
    .map(({ eni }) => after(eni.attachedAt, view.settings.eniLifeMinMs))
    .filter((at) => at > view.now);
  return hold({ reason: "provisioning-off", detail }, earliest([nextChange(view), ...old]));
}

function planWithin(view: PoolView): PoolPlan {
  const { state, rule, stock } = view;
  const shortage = shortageOf(rule, stock, state.waiting);
  if (isShort(shortage)) {
    const growth = planGrowth(view, shortage);
    if (growth.kind === "act") return growth;
    return hold(linkBlock(view) ?? coolingBlock(view, growth.block) ?? growth.block);
  }
  if (!view.cordoned) {
    const shrinking = planShrink(view);
    if (shrinking.kind === "act") return shrinking;
    if (shrinking.kind === "blocked") return hold(linkBlock(view) ?? shrinking.block, shrinking.retryAt);
    const calm = calmBlock(view, shortage.maxPods);
    return hold(calm, shrinking.retryAt);
  }
  return hold(calmBlock(view, shortage.maxPods));
}

/** Nothing is short and nothing can go. Pods may wait all the same. */
function calmBlock(view: PoolView, maxPods: boolean): Block {
  const link = linkBlock(view);
  if (link !== null) return link;
  const full: Block = {
    reason: "max-pods",
    detail: `${view.stock.allocated} addresses are allocated; the node may have ${view.rule.addressCountMax} pods`,
  };
  if (maxPods) return coolingBlock(view, full) ?? full;
  if (view.cordoned) return { reason: "cordoned", detail: "nothing is kept ready on a cordoned node" };
  return { reason: "on-target", detail: `${view.rule.source} is met` };
}

/** More pods wait than there are addresses to give, but those on ENIs whose link is on its way will do. */
function linkBlock(view: PoolView): Block | null {
  const { waiting } = view.state;
  const counted = view.census.enis.filter((each) => countsOn(each.eni, view.settings, view.now));
  const warm = counted.reduce((sum, each) => sum + each.warm, 0);
  const coming = counted.reduce((sum, each) => sum + each.coming, 0);
  if (waiting <= warm || waiting > warm + coming) return null;
  const ids = counted.filter((each) => each.coming > 0).map((each) => each.eni.id);
  return { reason: "link-awaited", detail: `${ids.join(", ")} attached, no link yet` };
}

/** Where the node itself has no more room, only addresses that rest can serve those who wait. */
function coolingBlock(view: PoolView, block: Block): Block | null {
  if (block.reason !== "eni-limit" && block.reason !== "max-pods") return null;
  if (view.stock.cooling === 0 || view.state.waiting <= view.stock.free + view.stock.otherFree) return null;
  const detail = `${view.stock.cooling} addresses rest after their last pod; ${block.detail}`;
  return { reason: "cooling", detail };
}

/** When time alone may change the plan: an address has rested, a link is no longer believed in, an obstacle is tried again. */
function nextChange(view: PoolView): Instant | null {
  const { enis } = view.census;
  const cooled = enis.map((each) => each.nextCooledAt);
  const stale = enis.map(({ eni }) => {
    if (eni.phase.kind !== "awaiting-link" || !countsOn(eni, view.settings, view.now)) return null;
    return after(eni.phase.since, view.settings.linkWaitMs);
  });
  const obstacles = view.obstacles.map((obstacle) => obstacle.until);
  return earliest([...cooled, ...stale, ...obstacles]);
}

function hold(block: Block, retryAt: Instant | null = null): PoolPlan {
  return { kind: "hold", ...block, retryAt };
}
