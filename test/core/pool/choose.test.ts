/** Which address a sandbox gets: packed, so that ENIs and prefixes come free; rested longest, so that late packets find nobody. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { chooseAddress } from "../../../src/core/pool/choose.ts";
import { coolingUntil, isFree } from "../../../src/core/pool/cooldown.ts";
import { servesPods } from "../../../src/core/pool/view.ts";
import { takeCensus } from "../../../src/core/state/census.ts";
import type { NodeState } from "../../../src/core/state/node-state.ts";
import { addressAllocated, addressReleased, eniLinkLost } from "../../../src/core/state/transitions.ts";
import { sandboxId } from "../../../src/core/model/sandbox.ts";
import { after, instant } from "../../../src/lib/time.ts";
import { arbNodeState, arbPoolSettings, NOW as ARB_NOW } from "../../support/arbitraries.ts";
import {
  allocationOf,
  bootedNode,
  keyOf,
  M5_LARGE,
  podsEnd,
  podsStart,
  settingsOf,
  settle,
  T3_MEDIUM,
} from "../../support/pool-world.ts";

const NOW = instant(1_000_000);
const settings = settingsOf({});

function chosenOn(state: NodeState, changes = {}, now = NOW): string | null {
  return chooseAddress(state, keyOf("new"), settingsOf(changes), now)?.eni.id ?? null;
}

/** Ends the pods on this ENI and forgets that their addresses rest. */
function emptied(state: NodeState, eni: string, keep: number): NodeState {
  const on = [...state.allocations.values()].filter((allocation) => allocation.eni === eni);
  return on.slice(keep).reduce((next, each) => addressReleased(next, each.id, NOW), state);
}

describe("packing", () => {
  const two = settle(bootedNode(T3_MEDIUM), settingsOf({ warmEniTarget: 2 }), NOW).state;

  test("the first pods go to the primary ENI, which stays in any case", () => {
    expect(chosenOn(two)).toBe("eni-0");
    expect(podsStart(two, settings, NOW, 5).allocations.size).toBe(5);
    expect(chosenOn(podsStart(two, settings, NOW, 5))).toBe("eni-1");
  });

  test("the ENI with most pods is filled first, so that the others can be given back", () => {
    const full = podsStart(two, settings, NOW, 10);
    expect(chosenOn(full)).toBeNull();
    expect(chosenOn(emptied(emptied(full, "eni-0", 1), "eni-1", 3))).toBe("eni-1");
    expect(chosenOn(emptied(emptied(full, "eni-0", 3), "eni-1", 1))).toBe("eni-0");
  });

  test("ENIs that wait for their link, and the primary one with custom networking, are passed over", () => {
    const primary = [...two.enis.values()][0];
    expect(primary?.role).toBe("primary");
    if (primary === undefined) return;
    expect(chosenOn(eniLinkLost(two, primary.id, NOW))).toBe("eni-1");
    expect(chosenOn(two, { podsOnPrimary: false })).toBe("eni-1");
  });

  test("in prefix mode the fullest prefix is filled first", () => {
    const pd = settingsOf({ prefixDelegation: true, warmPrefixTarget: 3 });
    const state = settle(bootedNode(M5_LARGE), pd, NOW).state;
    const busy = podsStart(state, pd, NOW, 20); // 16 in the first prefix, 4 in the second.
    const left = [...busy.allocations.values()]
      .slice(2, 16)
      .reduce((next, each) => addressReleased(next, each.id, NOW), busy);
    const [first, second] = [...busy.allocations.values()].map((each) =>
      each.ip.split(".").slice(0, 3).join("."),
    );
    expect(first).toBe(second);
    const chosen = chooseAddress(left, keyOf("new"), pd, NOW);
    const ofSecond = [...busy.allocations.values()][16]?.ip ?? "";
    expect(Math.floor(Number(chosen?.address.ip.split(".")[3]) / 16)).toBe(
      Math.floor(Number(ofSecond.split(".")[3]) / 16),
    );
    expect(takeCensus(left, NOW).freePrefixes).toBe(1);
  });

  test("what the settings ask for is given out before what another mode left", () => {
    const mixed = settle(
      podsStart(settle(bootedNode(M5_LARGE), settings, NOW).state, settings, NOW, 1),
      settingsOf({ prefixDelegation: true }),
      NOW,
    );
    const both = chooseAddress(mixed.state, keyOf("new"), settingsOf({ prefixDelegation: true }), NOW);
    expect(both?.address.by).toBe("prefix");
  });
});

describe("resting", () => {
  const one = settle(bootedNode(T3_MEDIUM), settingsOf({ maxEni: 1 }), NOW).state;

  test("a released address is not given out again until it has rested, and then by itself", () => {
    const resting = podsEnd(podsStart(one, settings, NOW, 5), settings, NOW, 1);
    expect(chosenOn(resting)).toBeNull();
    expect(chosenOn(resting, {}, after(NOW, settings.cooldownMs - 1))).toBeNull();
    expect(chosenOn(resting, {}, coolingUntil(NOW, settings.cooldownMs))).toBe("eni-0");
  });

  test("the address that has rested longest goes first; one that was never used, before all", () => {
    const full = podsStart(one, settings, NOW, 5);
    const ended = [...full.allocations.values()].map((each) => each.ip);
    const order = [3, 0, 4, 1, 2];
    let state = full;
    for (const [turn, at] of order.entries()) {
      const id = [...full.allocations.keys()][at];
      if (id !== undefined) state = addressReleased(state, id, after(NOW, turn));
    }
    const given: (string | undefined)[] = [];
    for (const turn of order.keys()) {
      const chosen = chooseAddress(state, keyOf(`again-${turn}`), settings, after(NOW, 10));
      given.push(chosen?.address.ip);
      if (chosen !== null) {
        state = addressAllocated(
          state,
          allocationOf(`again-${turn}`, chosen.eni, chosen.address.ip),
          after(NOW, 10),
        );
      }
    }
    expect(given).toEqual(order.map((at) => ended[at]));
    const fresh = podsEnd(podsStart(one, settings, NOW, 4), settings, NOW, 4);
    const never = [
      ...(one.enis.get(full.allocations.values().next().value?.eni ?? ("" as never))?.addresses.keys() ?? []),
    ][4];
    expect(chooseAddress(fresh, keyOf("new"), settings, after(NOW, 60_000))?.address.ip).toBe(never);
  });
});

test("asked twice, the same address is chosen, before it is allocated and after", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, (state, settings) => {
      const chosen = chooseAddress(state, keyOf("new"), settings, ARB_NOW);
      const turned = { ...state, enis: new Map([...state.enis].toReversed()) };
      expect(chooseAddress(turned, keyOf("new"), settings, ARB_NOW)).toEqual(chosen);
      if (chosen === null) return;
      const next = addressAllocated(state, allocationOf("new", chosen.eni, chosen.address.ip), ARB_NOW);
      const again = chooseAddress(next, keyOf("new"), settings, ARB_NOW);
      expect(again?.address).toMatchObject({
        ip: chosen.address.ip,
        kind: "allocated",
        sandbox: sandboxId(keyOf("new")),
      });
    }),
  );
});

test("an address is chosen exactly when one is free on an ENI that serves pods", () => {
  fc.assert(
    fc.property(arbNodeState, arbPoolSettings, (state, settings) => {
      const chosen = chooseAddress(state, keyOf("new"), settings, ARB_NOW);
      const ready = [...state.enis.values()].filter(
        (eni) => eni.phase.kind === "ready" && servesPods(eni, settings),
      );
      const free = ready.flatMap((eni) =>
        [...eni.addresses.values()].filter((address) => isFree(address, ARB_NOW)),
      );
      expect(chosen !== null).toBe(free.length > 0);
      if (chosen !== null) expect(free).toContain(chosen.address);
    }),
  );
});
