import * as fc from "fast-check";
import { expect, test } from "vitest";
import { takeCensus } from "../../../src/core/state/census.ts";
import { eniLeaving, eniLinkLost } from "../../../src/core/state/transitions.ts";
import { after, instant } from "../../../src/lib/time.ts";
import { arbNodeState, NOW as ARB_NOW } from "../../support/arbitraries.ts";
import { bootedNode, M5_LARGE, podsEnd, podsStart, settingsOf, settle } from "../../support/pool-world.ts";

const NOW = instant(1_000_000);
const settings = settingsOf({ warmEniTarget: 2 });

test("each address is counted once, in the state that it is in at that instant", () => {
  const state = settle(bootedNode(M5_LARGE), settings, NOW).state;
  const busy = podsEnd(podsStart(state, settings, NOW, 6), settings, NOW, 2);
  expect(takeCensus(busy, NOW)).toMatchObject({
    warm: 12,
    coming: 0,
    allocated: 4,
    cooling: 2,
    leaving: 0,
    total: 18,
  });
  expect(takeCensus(busy, after(NOW, settings.cooldownMs))).toMatchObject({
    warm: 14,
    allocated: 4,
    cooling: 0,
  });
  expect(takeCensus(busy, NOW)).toMatchObject({ slots: 18, slotsUsed: 18, prefixes: 0, waiting: 0 });
});

test("addresses of an ENI without its link are coming, those of a leaving one are leaving", () => {
  const state = settle(bootedNode(M5_LARGE), settings, NOW).state;
  const second = [...state.enis.keys()][1];
  if (second === undefined) throw new Error("there are two ENIs");
  expect(takeCensus(eniLinkLost(state, second, NOW), NOW)).toMatchObject({ warm: 9, coming: 9, leaving: 0 });
  expect(takeCensus(eniLeaving(state, second, NOW), NOW)).toMatchObject({ warm: 9, coming: 0, leaving: 9 });
});

test("a prefix is wholly free when none of its 16 addresses is in use or resting", () => {
  const pd = settingsOf({ prefixDelegation: true, warmPrefixTarget: 2 });
  const state = settle(bootedNode(M5_LARGE), pd, NOW).state;
  const resting = podsEnd(podsStart(state, pd, NOW, 1), pd, NOW, 1);
  expect(takeCensus(resting, NOW)).toMatchObject({ prefixes: 2, freePrefixes: 1, warm: 31 });
  expect(takeCensus(resting, after(NOW, pd.cooldownMs))).toMatchObject({ freePrefixes: 2, warm: 32 });
});

test("the counts add up for every node, at every instant, and repeated counting changes nothing", () => {
  fc.assert(
    fc.property(arbNodeState, fc.integer({ min: 0, max: 60_000 }), (state, ms) => {
      const now = after(ARB_NOW, ms);
      const census = takeCensus(state, now);
      const { warm, coming, allocated, cooling, leaving, total } = census;
      expect(warm + coming + allocated + cooling + leaving).toBe(total);
      expect(total).toBe([...state.enis.values()].reduce((sum, eni) => sum + eni.addresses.size, 0));
      expect(allocated).toBe(state.allocations.size);
      expect(takeCensus({ ...state, enis: new Map([...state.enis].toReversed()) }, now)).toEqual(census);
    }),
  );
});
