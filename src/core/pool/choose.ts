/** Which address a sandbox gets. Pods are packed, so that whole ENIs and whole prefixes become free and can be given back. */
import type { Ipv4 } from "../../lib/ip.ts";
import { byNumber, byText, inTurn } from "../../lib/order.ts";
import type { Instant } from "../../lib/time.ts";
import { sandboxId, type SandboxKey } from "../model/sandbox.ts";
import type { Eni, PoolAddress } from "../model/eni.ts";
import { bySlot, eniCensus, type EniCensus } from "../state/census.ts";
import type { NodeState } from "../state/node-state.ts";
import { freeSince, isFree } from "./cooldown.ts";
import { ruleOf, type PoolSettings } from "./targets.ts";
import { servesPods } from "./view.ts";

/**
 * The address for a sandbox, or null when none is free.
 *
 * - The same one when asked twice: what the sandbox holds already, else a function of the state.
 * - The fullest ENI first; of equal ones the lowest slot, so the primary one, which stays in any case. Within it the unit that the
 *   settings ask for, the fullest prefix, and then the address that has rested longest.
 * - Cost: one look at each ENI, and one at the addresses of the chosen one.
 */
export function chooseAddress(
  state: NodeState,
  key: SandboxKey,
  settings: PoolSettings,
  now: Instant,
): { readonly eni: Eni; readonly address: PoolAddress } | null {
  const held = state.allocations.get(sandboxId(key));
  if (held !== undefined) {
    const eni = state.enis.get(held.eni);
    const address = eni?.addresses.get(held.ip);
    return eni === undefined || address === undefined ? null : { eni, address };
  }
  let best: EniCensus | null = null;
  for (const eni of state.enis.values()) {
    if (eni.phase.kind !== "ready" || !servesPods(eni, settings)) continue;
    const each = eniCensus(eni, state.instance.limits.addressesPerEni - 1, now);
    if (each.warm > 0 && (best === null || fullestFirst(each, best) < 0)) best = each;
  }
  if (best === null) return null;
  const address = chooseOn(best.eni, ruleOf(settings, state.instance.limits).unit === "prefix", now);
  return address === null ? null : { eni: best.eni, address };
}

const fullestFirst = inTurn<EniCensus>(
  byNumber((each) => -each.allocated),
  (left, right) => bySlot(left.eni, right.eni),
);

/** Addresses that come and go together: those of one prefix, and all single ones. */
type Group = {
  readonly prefix: string | null;
  allocated: number;
  best: PoolAddress | null;
};

function chooseOn(eni: Eni, preferPrefix: boolean, now: Instant): PoolAddress | null {
  const groups = new Map<string | null, Group>();
  for (const address of eni.addresses.values()) {
    const prefix = address.by === "prefix" ? networkOf28(address.ip) : null;
    let group = groups.get(prefix);
    if (group === undefined) groups.set(prefix, (group = { prefix, allocated: 0, best: null }));
    if (address.kind === "allocated") group.allocated += 1;
    if (isFree(address, now) && (group.best === null || longestRested(address, group.best) < 0))
      group.best = address;
  }
  const order = inTurn<Group>(
    byNumber((group) => ((group.prefix !== null) === preferPrefix ? 0 : 1)),
    byNumber((group) => -group.allocated),
    byText((group) => group.prefix ?? ""),
  );
  let chosen: Group | null = null;
  for (const group of groups.values()) {
    if (group.best !== null && (chosen === null || order(group, chosen) < 0)) chosen = group;
  }
  return chosen?.best ?? null;
}

/** By text where both have rested as long: any order will do that is always the same, and this one is cheap. */
const longestRested = inTurn<PoolAddress>(
  byNumber(freeSince),
  byText((address) => address.ip),
);

/** networkOf(ip, 28) without taking the whole address apart: this runs for each address of an ENI on each ADD. */
function networkOf28(ip: Ipv4): string {
  const dot = ip.lastIndexOf(".") + 1;
  return ip.slice(0, dot) + (Number(ip.slice(dot)) & 0xf0);
}
