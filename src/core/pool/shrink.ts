/**
 * What may go back to EC2, and in which order. Something goes only when the rest still meets the rule, and would do so even if
 * each cooling address had a successor waiting: pods that just ended are often replaced, and giving back what is asked for again
 * a moment later costs two calls and a wait. As cooling ends, so does the reserve, and a quiet node comes to its exact target.
 */
import { byNumber, inTurn, sorted } from "../../lib/order.ts";
import { after, type Instant } from "../../lib/time.ts";
import type { PoolAction } from "../model/action.ts";
import { bySlot, type EniCensus } from "../state/census.ts";
import { earliest, operationBlock, type Block } from "./obstacles.ts";
import { freePrefixesOf, freeSecondariesOf } from "./parts.ts";
import { enisOverLimit } from "./slots.ts";
import { demandOnly, isShort, shortageOf, type Stock } from "./targets.ts";
import { countsOn, mayChange, minus, prefixesAsStock, servesPods, stockIn, type PoolView } from "./view.ts";

export type Shrinking =
  | { readonly kind: "act"; readonly action: PoolAction; readonly reason: string }
  /** Something could go but for this; at `retryAt` an ENI will be old enough to go in its stead. */
  | { readonly kind: "blocked"; readonly block: Block; readonly retryAt: Instant | null }
  /** Nothing can go now; `retryAt` likewise. */
  | { readonly kind: "nothing"; readonly retryAt: Instant | null };

/** Asked only when nothing is short. Whole ENIs first: their addresses go with them, in the same two calls. */
export function planShrink(view: PoolView): Shrinking {
  const ordered = emptiestFirst(view);
  const detach = planDetach(view, ordered);
  if (detach.kind === "act") return permitted(view, detach.action, detach.reason);
  const part = notForPods(view) ?? otherMode(view, ordered) ?? excess(view, ordered, detach.young);
  if (part !== null) return permitted(view, part, `more than ${view.rule.source} asks for`, detach.retryAt);
  return { kind: "nothing", retryAt: detach.retryAt };
}

/** MAX_ENI was lowered: an ENI that no pod uses goes, though a target then stays unmet. */
export function planBeyondLimit(view: PoolView): Shrinking {
  if (view.cordoned || enisOverLimit(view.state, view.settings) <= 0)
    return { kind: "nothing", retryAt: null };
  const detach = planDetach({ ...view, rule: demandOnly(view.rule) }, emptiestFirst(view));
  if (detach.kind !== "act") return { kind: "nothing", retryAt: detach.retryAt };
  return permitted(view, detach.action, `no pod uses it, and MAX_ENI=${view.settings.maxEni}`);
}

function permitted(
  view: PoolView,
  action: PoolAction,
  reason: string,
  retryAt: Instant | null = null,
): Shrinking {
  const block = operationBlock(view.obstacles, action.kind);
  return block === null ? { kind: "act", action, reason } : { kind: "blocked", block, retryAt };
}

function emptiestFirst(view: PoolView): EniCensus[] {
  return sorted(
    view.census.enis.filter((each) => each.eni.phase.kind !== "leaving" && mayChange(each.eni)),
    inTurn(
      byNumber((each) => each.allocated + each.cooling),
      (left, right) => bySlot(right.eni, left.eni),
    ),
  );
}

type Detach =
  | { readonly kind: "act"; readonly action: PoolAction; readonly reason: string }
  /** `young` could go if they were older: taking single addresses off them first would be a wasted call. */
  | { readonly kind: "none"; readonly young: ReadonlySet<EniCensus>; readonly retryAt: Instant | null };

function planDetach(view: PoolView, ordered: readonly EniCensus[]): Detach {
  const young = new Set<EniCensus>();
  const oldAt: Instant[] = [];
  const spare = ordered.filter((each) => each.allocated === 0 && each.cooling === 0);
  const fewestFirst = sorted(
    spare,
    byNumber((each) => each.warm + each.coming),
  );
  for (const each of fewestFirst) {
    const { eni } = each;
    if (eni.role === "primary" || !isSpare(view, each)) continue;
    const old = after(eni.attachedAt, view.settings.eniLifeMinMs);
    if (old <= view.now) {
      const action = { kind: "detach-eni", eni: eni.id, attachmentId: eni.attachmentId } as const;
      return { kind: "act", action, reason: `no pod uses it, and the rest meets ${view.rule.source}` };
    }
    young.add(each);
    oldAt.push(old);
  }
  return { kind: "none", young, retryAt: earliest(oldAt) };
}

/** An ENI that is awaited is never spare: it was just asked for. One whose link does not come is, since nobody counts on it. */
function isSpare(view: PoolView, each: EniCensus): boolean {
  if (!countsOn(each.eni, view.settings, view.now)) return true;
  return each.eni.phase.kind === "ready" && canDoWithout(view, stockIn(view.rule, each));
}

function canDoWithout(view: PoolView, part: Partial<Stock>): boolean {
  const rest = minus(view.stock, part);
  return !isShort(shortageOf(view.rule, rest, view.state.waiting + view.stock.cooling));
}

/** The primary ENI's pool addresses, when custom networking came after them. */
function notForPods(view: PoolView): PoolAction | null {
  const each = view.census.enis.find(
    ({ eni }) => eni.phase.kind !== "leaving" && !servesPods(eni, view.settings),
  );
  if (each === undefined) return null;
  const ips = freeSecondariesOf(each.eni, view.now);
  if (ips.length > 0) return { kind: "unassign-addresses", eni: each.eni.id, ips };
  const prefixes = freePrefixesOf(each.eni, view.now);
  return prefixes.length === 0 ? null : { kind: "unassign-prefixes", eni: each.eni.id, prefixes };
}

/** What the other mode left behind: it meets no target. */
function otherMode(view: PoolView, ordered: readonly EniCensus[]): PoolAction | null {
  return view.rule.unit === "prefix"
    ? addressesToSpare(view, ordered, (count) => ({ otherFree: count }))
    : prefixesToSpare(view, ordered);
}

/** Single addresses or prefixes beyond the rule. A pool that grows by whole ENIs also shrinks by them alone. */
function excess(
  view: PoolView,
  ordered: readonly EniCensus[],
  young: ReadonlySet<EniCensus>,
): PoolAction | null {
  if (view.rule.wholeEnis || young.size > 0) return null;
  return view.rule.unit === "prefix"
    ? prefixesToSpare(view, ordered)
    : addressesToSpare(view, ordered, (count) => ({ free: count }));
}

function addressesToSpare(
  view: PoolView,
  enis: readonly EniCensus[],
  asStock: (count: number) => Partial<Stock>,
): PoolAction | null {
  for (const { eni, freeSecondaries } of enis) {
    if (freeSecondaries === 0 || eni.phase.kind !== "ready" || !servesPods(eni, view.settings)) continue;
    const count = greatest(freeSecondaries, (count) => canDoWithout(view, asStock(count)));
    if (count === 0) return null;
    return { kind: "unassign-addresses", eni: eni.id, ips: freeSecondariesOf(eni, view.now).slice(0, count) };
  }
  return null;
}

function prefixesToSpare(view: PoolView, enis: readonly EniCensus[]): PoolAction | null {
  for (const { eni, freePrefixes } of enis) {
    if (freePrefixes === 0 || eni.phase.kind !== "ready" || !servesPods(eni, view.settings)) continue;
    const count = greatest(freePrefixes, (count) => canDoWithout(view, prefixesAsStock(view.rule, count)));
    if (count === 0) return null;
    const prefixes = freePrefixesOf(eni, view.now).slice(0, count);
    return { kind: "unassign-prefixes", eni: eni.id, prefixes };
  }
  return null;
}

/** The greatest count up to `limit` that `fits`; 0 when not even one does. What fits for more fits for less. */
function greatest(limit: number, fits: (count: number) => boolean): number {
  let [low, high] = [0, limit];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}
