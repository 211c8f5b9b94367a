/** What planning looks at, put together once a plan: the census, the rule in force, and what the pool can count on. */
import type { Instant } from "../../lib/time.ts";
import { takeCensus, type Census, type EniCensus } from "../state/census.ts";
import type { Eni } from "../model/eni.ts";
import type { NodeState, Obstacle } from "../state/node-state.ts";
import { standing } from "./obstacles.ts";
import { demandOnly, PREFIX_SIZE, ruleOf, type PoolSettings, type Rule, type Stock } from "./targets.ts";

export type PoolView = {
  readonly state: NodeState;
  readonly settings: PoolSettings;
  readonly now: Instant;
  readonly census: Census;
  readonly rule: Rule;
  readonly stock: Stock;
  readonly obstacles: readonly Obstacle[];
  readonly cordoned: boolean; // And such nodes are not to be managed: nothing is kept ready, no ENI comes or goes.
};

export function viewOf(state: NodeState, settings: PoolSettings, now: Instant): PoolView {
  const census = takeCensus(state, now);
  const cordoned = !state.schedulable && !settings.manageNonSchedulable;
  const whole = ruleOf(settings, state.instance.limits);
  const expected = Math.max(0, settings.expectedPods - state.waiting);
  const rule = { ...(cordoned ? demandOnly(whole) : whole), expected };
  const counted = census.enis.filter((each) => countsOn(each.eni, settings, now));
  const stock = counted.map((each) => stockIn(rule, each)).reduce(plus, EMPTY);
  return { state, settings, now, census, rule, stock, obstacles: standing(state, now), cordoned };
}

/** With custom networking the primary ENI is the node's alone. */
export function servesPods(eni: Eni, settings: PoolSettings): boolean {
  return (eni.role === "secondary" || settings.podsOnPrimary) && eni.phase.kind !== "leaving";
}

/** Pods may use the ENI now or soon. One whose link has not come for long is left out: else pods would wait for it for ever. */
export function countsOn(eni: Eni, settings: PoolSettings, now: Instant): boolean {
  if (!servesPods(eni, settings)) return false;
  return eni.phase.kind !== "awaiting-link" || now < eni.phase.since + settings.linkWaitMs;
}

/** An ENI that others attached serves pods, but is left as it is: what is put on it might never come back. */
export function mayChange(eni: Eni): boolean {
  return eni.role === "primary" || eni.detachable;
}

/** What one ENI adds to the stock. */
export function stockIn(rule: Rule, each: EniCensus): Stock {
  const free = each.warm + each.coming;
  const ofUnit = rule.unit === "address" ? each.freeSecondaries : free - each.freeSecondaries;
  return {
    free: ofUnit,
    otherFree: free - ofUnit,
    allocated: each.allocated,
    cooling: each.cooling,
    freePrefixes: each.freePrefixes,
  };
}

export function minus(stock: Stock, part: Partial<Stock>): Stock {
  return {
    free: stock.free - (part.free ?? 0),
    otherFree: stock.otherFree - (part.otherFree ?? 0),
    allocated: stock.allocated - (part.allocated ?? 0),
    cooling: stock.cooling - (part.cooling ?? 0),
    freePrefixes: stock.freePrefixes - (part.freePrefixes ?? 0),
  };
}

/** `count` wholly free prefixes, as a part of the stock. */
export function prefixesAsStock(rule: Rule, count: number): Partial<Stock> {
  const addresses = PREFIX_SIZE * count;
  return rule.unit === "prefix"
    ? { free: addresses, freePrefixes: count }
    : { otherFree: addresses, freePrefixes: count };
}

const EMPTY: Stock = { free: 0, otherFree: 0, allocated: 0, cooling: 0, freePrefixes: 0 };

function plus(left: Stock, right: Stock): Stock {
  return {
    free: left.free + right.free,
    otherFree: left.otherFree + right.otherFree,
    allocated: left.allocated + right.allocated,
    cooling: left.cooling + right.cooling,
    freePrefixes: left.freePrefixes + right.freePrefixes,
  };
}
