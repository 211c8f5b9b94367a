/**
 * Berth's warm pool: the production planner, chooser and transitions, woken by events as the refill loop is (src/agent/refill.ts), over
 * the same EC2 as the incumbent's model. An ADD that finds nothing is held, and refused when its time is up.
 */
import type { PoolAction } from "../../../../src/core/model/action.ts";
import { chooseAddress } from "../../../../src/core/pool/choose.ts";
import { planPool } from "../../../../src/core/pool/plan.ts";
import { takeCensus } from "../../../../src/core/state/census.ts";
import { sandboxId } from "../../../../src/core/model/sandbox.ts";
import type { NodeState } from "../../../../src/core/state/node-state.ts";
import {
  addressAllocated,
  addressesLeaving,
  addressReleased,
  eniLeaving,
  eniReady,
  prefixesLeaving,
} from "../../../../src/core/state/transitions.ts";
import { after, type Instant, instant, MINUTE_MS, SECOND_MS } from "../../../../src/lib/time.ts";
import type { Timer } from "../../../../src/sim/clock.ts";
import { allocationOf, applyAction, bootedNode, keyOf } from "../../../support/pool-world.ts";
import { type NodePool, type PoolOptions, retryMs } from "./pool.ts";

/** As the daemon has them: docs/reference/settings.md, src/agent/refill.ts. */
const GATHER_MS = 150;
const REFILL_EVERY_MS = 5 * SECOND_MS;
const LOOK_EVERY_MS = 5 * MINUTE_MS;
const HOLD_MS = 25 * SECOND_MS;

export function createBerth(options: PoolOptions): NodePool {
  const { clock, cloud, random, settings, limits } = options;
  let state = bootedNode({
    addressesPerEni: limits.addressesPerEni,
    networkCards: [{ enis: limits.enis }],
    nitro: true,
  });
  let busy = false;
  let timer: Timer | null = null;
  let calm = false; // The pool was on target, and has not grown since.
  const held = new Map<string, { readonly served: () => void; readonly until: number }>(); // ADDs, first come first served.
  const wanted = new Map<string, () => void>(); // Pods without an address, held or between two tries.

  const now = (): Instant => instant(clock.now + 1_000); // Instants of production begin above 0.
  const tryServe = (pod: string): boolean => {
    const chosen = chooseAddress(state, keyOf(pod), settings, now());
    if (chosen === null) return false;
    state = addressAllocated(state, allocationOf(pod, chosen.eni, chosen.address.ip), now());
    const served = wanted.get(pod);
    wanted.delete(pod);
    held.delete(pod);
    served?.();
    return true;
  };
  const serve = (): void => {
    for (const pod of [...held.keys()]) if (!tryServe(pod)) break;
    state = { ...state, waiting: held.size };
  };

  const wakeIn = (ms: number): void => {
    if (timer !== null) clock.cancel(timer);
    timer = clock.after(ms, run);
  };
  const run = (): void => {
    if (busy) return;
    serve();
    const plan = planPool(state, settings, now());
    if (plan.kind === "hold") {
      calm = true;
      const dueMs = plan.retryAt === null ? REFILL_EVERY_MS : Math.max(1, plan.retryAt - now());
      return wakeIn(Math.min(dueMs, REFILL_EVERY_MS));
    }
    if (grows(plan.action) && calm && held.size === 0 && takeCensus(state, now()).warm > 0) {
      calm = false;
      return wakeIn(GATHER_MS);
    }
    if (grows(plan.action)) calm = false;
    begin(plan.action);
  };
  const begin = (action: PoolAction): void => {
    busy = true;
    state = announced(state, action, now());
    clock.after(callsMs(action), () => {
      const before = new Set(state.enis.keys());
      state = applyAction(state, action, now(), "awaited");
      for (const id of state.enis.keys())
        if (!before.has(id))
          clock.after(cloud.process("link-up"), () => {
            state = eniReady(state, id);
            wakeIn(0);
          });
      if (action.kind === "detach-eni") cloud.call("DeleteNetworkInterface"); // Later, when the detach is done; nobody waits for it.
      busy = false;
      run();
    });
  };
  const callsMs = (action: PoolAction): number => {
    switch (action.kind) {
      case "assign-addresses":
      case "assign-prefixes":
        return cloud.call("AssignPrivateIpAddresses");
      case "unassign-addresses":
      case "unassign-prefixes":
        return cloud.call("UnassignPrivateIpAddresses");
      case "attach-eni":
        return cloud.call(
          "CreateNetworkInterface",
          "AttachNetworkInterface",
          "ModifyNetworkInterfaceAttribute",
        );
      case "detach-eni":
        return cloud.call("DetachNetworkInterface");
      case "delete-eni":
        return cloud.call("DeleteNetworkInterface");
    }
  };
  const look = (): void => {
    cloud.call("DescribeNetworkInterfaces");
    clock.after(LOOK_EVERY_MS * (0.8 + 0.4 * random()), look);
  };

  const ask = (pod: string): void => {
    if (!wanted.has(pod)) return;
    if (held.size === 0 && tryServe(pod)) return wakeIn(0);
    held.set(pod, { served: () => {}, until: clock.now + HOLD_MS });
    state = { ...state, waiting: held.size };
    wakeIn(0);
    clock.after(HOLD_MS, () => {
      if (!held.has(pod)) return;
      held.delete(pod);
      state = { ...state, waiting: held.size };
      clock.after(retryMs(random), () => ask(pod));
    });
  };

  cloud.call("DescribeNetworkInterfaces"); // At its start.
  clock.after(random() * MINUTE_MS, look);
  run();

  return {
    add: (pod, served) => {
      wanted.set(pod, served);
      ask(pod);
    },
    del: (pod) => {
      wanted.delete(pod);
      held.delete(pod);
      const id = sandboxId(keyOf(pod));
      if (state.allocations.has(id)) state = addressReleased(state, id, after(now(), settings.cooldownMs));
      state = { ...state, waiting: held.size };
      wakeIn(0);
    },
    held: () => takeCensus(state, now()).total,
    assigned: () => state.allocations.size,
    shape: () => {
      const enis = [...state.enis.values()];
      const prefixes = enis.reduce((sum, eni) => sum + eni.prefixes.length, 0);
      return { enis: enis.length, addresses: takeCensus(state, now()).total - 16 * prefixes, prefixes };
    },
  };
}

function grows({ kind }: PoolAction): boolean {
  return kind === "assign-addresses" || kind === "assign-prefixes" || kind === "attach-eni";
}

/** What is to go is nobody's from before the call on. */
function announced(state: NodeState, action: PoolAction, now: Instant): NodeState {
  switch (action.kind) {
    case "unassign-addresses":
      return addressesLeaving(state, action.eni, action.ips);
    case "unassign-prefixes":
      return prefixesLeaving(state, action.eni, action.prefixes);
    case "detach-eni":
      return eniLeaving(state, action.eni, now);
    case "assign-addresses":
    case "assign-prefixes":
    case "attach-eni":
    case "delete-eni":
      return state;
  }
}
