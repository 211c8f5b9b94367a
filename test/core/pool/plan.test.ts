/** Single decisions of the planner, each with the state that leads to it. */
import { describe, expect, test } from "vitest";
import type { EniId } from "../../../src/core/model/eni.ts";
import type { PoolPlan } from "../../../src/core/model/action.ts";
import { planPool } from "../../../src/core/pool/plan.ts";
import { whyNoAddress } from "../../../src/core/pool/why.ts";
import type { PoolSettings } from "../../../src/core/pool/targets.ts";
import type { NodeState, Obstacle } from "../../../src/core/state/node-state.ts";
import { takeCensus } from "../../../src/core/state/census.ts";
import {
  addressesAssigned,
  addressReleased,
  callInDoubt,
  eniAttached,
  eniLinkLost,
  eniReady,
  foreignEnisSeen,
  looseEniFound,
  obstacleMet,
  prefixesAssigned,
} from "../../../src/core/state/transitions.ts";
import { cidr4, ipv4 } from "../../../src/lib/ip.ts";
import { after, HOUR_MS, instant, SECOND_MS, wallTime, type Instant } from "../../../src/lib/time.ts";
import {
  bootedNode,
  eniAt,
  freshAddresses,
  GROUP,
  M5_4XLARGE,
  M5_LARGE,
  podsEnd,
  podsStart,
  printAction,
  settingsOf,
  settle,
  settleUntil,
  SUBNET_A,
  SUBNET_B,
  T3_MEDIUM,
} from "../../support/pool-world.ts";

const NOW = instant(HOUR_MS);
const SOON = after(NOW, 60 * SECOND_MS);

function settled(
  limits: NodeState["instance"]["limits"],
  changes: Partial<PoolSettings>,
  now: Instant = NOW,
): NodeState {
  return settle(bootedNode(limits), settingsOf(changes), now).state;
}

function printPlan(plan: PoolPlan): string {
  return plan.kind === "act" ? printAction(plan.action) : `hold ${plan.reason}`;
}

function planned(state: NodeState, changes: Partial<PoolSettings>, now: Instant = NOW): string {
  return printPlan(planPool(state, settingsOf(changes), now));
}

describe("growing", () => {
  test("ADDs that wait are demand beside the target", () => {
    const state = settled(M5_4XLARGE, { warmIpTarget: 5 });
    expect(planned({ ...state, waiting: 8 }, { warmIpTarget: 5 })).toBe("assign-addresses eni-0 8");
  });

  test("cooling addresses are not free", () => {
    const settings = settingsOf({ warmIpTarget: 5 });
    const busy = settle(
      podsStart(settled(M5_4XLARGE, { warmIpTarget: 5 }), settings, NOW, 5),
      settings,
      NOW,
    ).state;
    const resting = podsEnd(podsStart(busy, settings, NOW, 5, "more-"), settings, NOW, 10);
    expect(takeCensus(resting, NOW)).toMatchObject({ warm: 0, cooling: 10 });
    expect(planned(resting, { warmIpTarget: 5 })).toBe("assign-addresses eni-0 5");
  });

  test("MINIMUM_IP_TARGET alone does not freeze the pool at its floor", () => {
    const settings = settingsOf({ minimumIpTarget: 4 });
    const full = podsStart(settled(M5_4XLARGE, { minimumIpTarget: 4 }), settings, NOW, 4);
    expect(planned(full, { minimumIpTarget: 4 })).toBe("hold on-target");
    expect(planned({ ...full, waiting: 3 }, { minimumIpTarget: 4 })).toBe("assign-addresses eni-0 3");
  });

  test("an ENI with room comes before a new ENI, and a new ENI brings its addresses along", () => {
    const state = { ...settled(T3_MEDIUM, { warmIpTarget: 3 }), waiting: 4 };
    expect(settle(state, settingsOf({ warmIpTarget: 3 }), NOW).actions.map(printAction)).toEqual([
      "assign-addresses eni-0 2",
      "attach-eni 0/1 subnet-a addresses 2",
    ]);
  });

  test("a burst larger than one ENI attaches further ones while links are awaited, and no more than it needs", () => {
    const settings = settingsOf({});
    const state = podsStart(settled(M5_4XLARGE, {}), settings, NOW, 100);
    expect(state.waiting).toBe(71);
    const burst = settle(state, settings, NOW, { links: "awaited" });
    expect(burst.actions.map(printAction)).toEqual([
      "attach-eni 0/1 subnet-a addresses 29",
      "attach-eni 0/2 subnet-a addresses 29",
      "attach-eni 0/3 subnet-a addresses 29",
      "attach-eni 0/4 subnet-a addresses 29",
    ]);
    expect(burst.hold).toMatchObject({ reason: "link-awaited", retryAt: after(NOW, settings.linkWaitMs) });
  });

  test("pods that an awaited link will serve are told of it, whatever keeps the spare from growing", () => {
    const state = { ...settled(T3_MEDIUM, { warmIpTarget: 5 }), waiting: 7 };
    const waiting = settle(state, settingsOf({ warmIpTarget: 5, maxEni: 2 }), NOW, { links: "awaited" });
    expect(waiting.actions.map(printAction)).toEqual(["attach-eni 0/1 subnet-a addresses 5"]);
    expect(waiting.hold.reason).toBe("link-awaited");
    expect(planned({ ...waiting.state, waiting: 11 }, { warmIpTarget: 5, maxEni: 2 })).toBe("hold eni-limit");
  });

  test("an ENI whose link does not come is no longer counted on", () => {
    const settings = settingsOf({ warmIpTarget: 5 });
    const state = { ...settled(T3_MEDIUM, { warmIpTarget: 5 }), waiting: 3 };
    const waiting = settle(state, settings, NOW, { links: "awaited" });
    expect(waiting.actions.map(printAction)).toEqual(["attach-eni 0/1 subnet-a addresses 3"]);
    expect(planned(waiting.state, { warmIpTarget: 5 }, after(NOW, settings.linkWaitMs))).toBe(
      "attach-eni 0/2 subnet-a addresses 3",
    );
  });

  test("a new ENI goes to the first pod subnet that has room, with the pod security groups", () => {
    const settings = settingsOf({ podSubnets: [SUBNET_B, SUBNET_A], warmEniTarget: 2 });
    const plan = planPool(settled(M5_LARGE, {}), settings, NOW);
    expect(plan).toMatchObject({
      action: { kind: "attach-eni", subnetId: SUBNET_B, securityGroups: [GROUP] },
    });
    const exhausted: Obstacle = { kind: "subnet-exhausted", subnetId: SUBNET_B, until: SOON };
    const other = planPool(obstacleMet(settled(M5_LARGE, {}), exhausted), settings, NOW);
    expect(printPlan(other)).toBe("attach-eni 0/1 subnet-a addresses 9");
  });

  test("of a subnet that refused many addresses, pods that wait get the last ones, by ever smaller calls; the target gets none", () => {
    const refused = (asked: number, waiting: number, limits = M5_LARGE): string => {
      const obstacle: Obstacle = { kind: "subnet-exhausted", subnetId: SUBNET_A, asked, until: SOON };
      return planned({ ...obstacleMet(bootedNode(limits), obstacle), waiting }, {});
    };
    expect(refused(9, 0)).toBe("hold subnet-exhausted");
    expect(refused(9, 1)).toBe("assign-addresses eni-0 1");
    expect(refused(9, 30)).toBe("assign-addresses eni-0 4");
    expect(refused(2, 30)).toBe("assign-addresses eni-0 1");
    expect(refused(1, 30)).toBe("hold subnet-exhausted");
  });

  test("the last addresses of a subnet may be those of a new ENI, which needs one itself", () => {
    const settings = settingsOf({ warmIpTarget: 9 });
    const full = podsStart(settled(M5_LARGE, { warmIpTarget: 9 }), settings, NOW, 9);
    const refused = (asked: number): string => {
      const obstacle: Obstacle = { kind: "subnet-exhausted", subnetId: SUBNET_A, asked, until: SOON };
      return planned({ ...obstacleMet(full, obstacle), waiting: 5 }, { warmIpTarget: 9 });
    };
    expect(refused(10)).toBe("attach-eni 0/1 subnet-a addresses 4");
    expect(refused(5)).toBe("attach-eni 0/1 subnet-a addresses 1");
    expect(refused(3)).toBe("hold subnet-exhausted");
  });

  test("foreign ENIs and those still detaching take slots", () => {
    const empty = settled(M5_4XLARGE, {});
    const { id, mac, slot } = eniAt(empty, { networkCard: 0, deviceIndex: 1 }, SUBNET_A, NOW);
    const foreign = foreignEnisSeen(empty, [{ id, mac, slot, reason: "no-manage" }]);
    expect(planned(foreign, { warmEniTarget: 2 })).toBe("attach-eni 0/2 subnet-a addresses 29");
    expect(planned(foreign, { warmEniTarget: 2, maxEni: 2 })).toBe("hold eni-limit");
    const loose = {
      id: "eni-9" as EniId,
      attachmentId: eniAt(empty, slot, SUBNET_A, NOW).attachmentId,
      since: NOW,
    };
    expect(planned(looseEniFound(foreign, loose), { warmEniTarget: 2 })).toBe(
      "attach-eni 0/3 subnet-a addresses 29",
    );
  });

  test("an ENI that another owner attached serves pods but is left as it is", () => {
    const booted = bootedNode(T3_MEDIUM);
    const eni = {
      ...eniAt(booted, { networkCard: 0, deviceIndex: 1 }, SUBNET_A, instant(0)),
      detachable: false,
    };
    const state = settle(
      eniReady(eniAttached(booted, eni), eni.id),
      settingsOf({ warmIpTarget: 5 }),
      NOW,
    ).state;
    expect(planned({ ...state, waiting: 2 }, { warmIpTarget: 5 })).toBe(
      "attach-eni 0/2 subnet-a addresses 2",
    );
    expect(planned(state, { warmIpTarget: 5 })).toBe("hold on-target");
  });

  test("further network cards are used only when asked for", () => {
    const limits = { addressesPerEni: 5, networkCards: [{ enis: 1 }, { enis: 2 }], nitro: true };
    expect(planned({ ...settled(limits, {}), waiting: 9 }, {})).toBe("hold eni-limit");
    expect(planned({ ...settled(limits, {}), waiting: 9 }, { allNetworkCards: true })).toBe(
      "attach-eni 1/1 subnet-a addresses 4",
    );
  });
});

describe("which ENI grows", () => {
  const slot = (deviceIndex: number): { networkCard: number; deviceIndex: number } => ({
    networkCard: 0,
    deviceIndex,
  });
  const withEni = (state: NodeState, deviceIndex: number, count: number): NodeState => {
    const eni = eniAt(state, slot(deviceIndex), SUBNET_A, instant(0));
    const attached = eniReady(eniAttached(state, eni), eni.id);
    return addressesAssigned(attached, eni.id, freshAddresses(attached, SUBNET_A, count));
  };
  const zero = "eni-0" as EniId;
  const four = (state: NodeState): NodeState =>
    addressesAssigned(state, zero, freshAddresses(state, SUBNET_A, 4));
  const settings = { warmIpTarget: 3 } as const;

  test("the primary one before others, since it stays in any case", () => {
    const state = withEni(four(bootedNode(T3_MEDIUM)), 1, 4);
    const moved = podsStart(
      { ...state, enis: new Map([...state.enis].filter(([id]) => id !== zero)) },
      settingsOf({}),
      NOW,
      4,
    );
    const busy = { ...moved, enis: new Map([...state.enis, ...moved.enis]) };
    expect(planned({ ...busy, waiting: 2 }, settings)).toBe("assign-addresses eni-0 1");
  });

  test("of the others the one with most pods, so that the emptiest can go", () => {
    const state = podsStart(withEni(bootedNode(T3_MEDIUM), 2, 2), settingsOf({}), NOW, 2);
    const withBoth = withEni(state, 1, 1);
    expect(planned(withBoth, { ...settings, podsOnPrimary: false })).toBe("assign-addresses eni-2 2");
  });

  test("one that has its link before one that waits for it", () => {
    const state = eniLinkLost(withEni(four(bootedNode(T3_MEDIUM)), 1, 1), zero, NOW);
    expect(planned(state, { warmIpTarget: 6 })).toBe("assign-addresses eni-1 1");
  });
});

describe("prefixes", () => {
  const pd = { prefixDelegation: true, warmPrefixTarget: 1 } as const;
  const noPrefixes: Obstacle = { kind: "prefixes-exhausted", subnetId: SUBNET_A, until: SOON };

  test("waiting ADDs break into whole prefixes, which are replaced in one call", () => {
    const state = { ...settled(M5_LARGE, pd), waiting: 20 };
    expect(planned(state, pd)).toBe("assign-prefixes eni-0 2");
  });

  test("where no /28 is free, pods that wait get single addresses, and nothing is kept to spare", () => {
    const settings = settingsOf(pd);
    const full = obstacleMet(podsStart(settled(M5_LARGE, pd), settings, NOW, 16), noPrefixes);
    expect(planned(full, pd)).toBe("hold prefixes-exhausted");
    const helped = settle({ ...full, waiting: 3 }, settings, NOW);
    expect(helped.actions.map(printAction)).toEqual(["assign-addresses eni-0 3"]);
    expect(helped.hold).toMatchObject({ reason: "prefixes-exhausted", retryAt: SOON });
  });

  test("when a /28 is free again, the single addresses go back once no pod uses them", () => {
    const settings = settingsOf(pd);
    const full = obstacleMet(podsStart(settled(M5_LARGE, pd), settings, NOW, 16), noPrefixes);
    const helped = settle({ ...full, waiting: 3 }, settings, NOW).state;
    const later = settle({ ...helped, waiting: 0 }, settings, SOON);
    expect(later.actions.map(printAction)).toEqual(["assign-prefixes eni-0 1", "unassign-addresses eni-0 3"]);
  });

  test("switched on while the node runs: single addresses give way as pods end, and where they take all slots", () => {
    const settings = settingsOf({ ...pd, warmIpTarget: 4, maxEni: 1 });
    const old = podsStart(settled(M5_LARGE, {}), settingsOf({}), NOW, 3);
    const turned = settle(old, settings, NOW);
    expect(turned.actions.map(printAction)).toEqual([
      "unassign-addresses eni-0 1",
      "assign-prefixes eni-0 1",
      "unassign-addresses eni-0 5",
    ]);
    expect(takeCensus(turned.state, NOW)).toMatchObject({ allocated: 3, prefixes: 1, total: 19 });
  });

  test("kept to prefixes by the operator, pods wait rather than get single addresses, on a new ENI as on an old one", () => {
    const kept = { ...pd, prefixFallback: "none" } as const;
    const waiting = (state: NodeState): NodeState => ({ ...state, waiting: 20, obstacles: [noPrefixes] });
    const roomy = waiting(bootedNode(M5_LARGE));
    const full = waiting(podsStart(settled(M5_LARGE, { warmIpTarget: 9 }), settingsOf({}), NOW, 9));
    expect(planned(roomy, pd)).toBe("assign-addresses eni-0 9");
    expect(planned(full, pd)).toMatch(/^attach-eni/);
    for (const state of [roomy, full]) expect(planned(state, kept)).toBe("hold prefixes-exhausted");
  });

  test("switched off while the node runs: whole prefixes go back", () => {
    const turned = settle(
      settled(M5_LARGE, { ...pd, warmPrefixTarget: 3 }),
      settingsOf({ warmIpTarget: 4 }),
      NOW,
    );
    expect(turned.actions.map(printAction)).toEqual([
      "assign-addresses eni-0 4",
      "unassign-prefixes eni-0 3",
    ]);
  });
});

describe("holding", () => {
  const rows: readonly (readonly [string, Obstacle, string])[] = [
    [
      "an exhausted subnet",
      { kind: "subnet-exhausted", subnetId: SUBNET_A, until: SOON },
      "hold subnet-exhausted",
    ],
    [
      "throttling",
      { kind: "throttled", operation: "AssignPrivateIpAddresses", attempt: 0, until: SOON },
      "hold throttled",
    ],
    [
      "a failing EC2",
      {
        kind: "failing",
        operation: "AssignPrivateIpAddresses",
        attempt: 0,
        detail: "InternalError",
        until: SOON,
      },
      "hold failing",
    ],
    // A policy without Assign may still allow a new ENI.
    [
      "a denied Assign",
      { kind: "access-denied", operation: "AssignPrivateIpAddresses", attempt: 0, until: SOON },
      "attach-eni 0/1 subnet-a addresses 5",
    ],
    // One that has room is enough: whether ENIs can be created does not matter.
    [
      "a denied Create",
      { kind: "access-denied", operation: "CreateNetworkInterface", attempt: 0, until: SOON },
      "assign-addresses eni-0 5",
    ],
  ];
  test.each(rows)("%s is honoured until its time", (_, obstacle, expected) => {
    const state = obstacleMet(bootedNode(M5_4XLARGE), obstacle);
    const plan = planPool(state, settingsOf({ warmIpTarget: 5 }), NOW);
    expect(printPlan(plan)).toBe(expected);
    if (plan.kind === "hold") expect(plan.retryAt).toBe(SOON);
    expect(planned(state, { warmIpTarget: 5 }, SOON)).toBe("assign-addresses eni-0 5");
  });

  test("nothing is planned while a call's outcome is unknown", () => {
    const state = callInDoubt(bootedNode(M5_LARGE), {
      operation: "AttachNetworkInterface",
      eni: null,
      since: NOW,
    });
    expect(planned(state, {})).toBe("hold call-in-doubt");
    const creation = {
      clientToken: "t",
      slot: { networkCard: 0, deviceIndex: 1 },
      subnetId: SUBNET_A,
      securityGroups: [GROUP],
      addressCount: 9,
      prefixCount: 0,
      since: wallTime(0),
    };
    expect(planned({ ...bootedNode(M5_LARGE), creation }, {})).toBe("hold call-in-doubt");
  });

  test("with provisioning off nothing is asked of EC2, and the pods that wait are told", () => {
    expect(planned({ ...bootedNode(M5_LARGE), waiting: 1 }, { provisioning: false })).toBe(
      "hold provisioning-off",
    );
    expect(planned(settled(M5_LARGE, {}), { provisioning: false })).toBe("hold on-target");
  });

  test("a cordoned node keeps nothing ready and attaches nothing, but serves a DaemonSet's pod", () => {
    const cordoned = { ...bootedNode(T3_MEDIUM), schedulable: false };
    expect(planned(cordoned, {})).toBe("hold cordoned");
    expect(planned({ ...cordoned, waiting: 1 }, {})).toBe("assign-addresses eni-0 1");
    const full = {
      ...podsStart(settled(T3_MEDIUM, { warmEniTarget: 0 }), settingsOf({}), NOW, 5),
      waiting: 2,
    };
    expect(planned({ ...full, schedulable: false }, {})).toBe("hold cordoned");
    expect(planned({ ...full, schedulable: false }, { manageNonSchedulable: true })).toBe(
      "attach-eni 0/1 subnet-a addresses 5",
    );
  });

  test("where only resting addresses can serve, the pods are told so, and when", () => {
    const settings = settingsOf({ maxEni: 1 });
    const full = podsStart(settled(T3_MEDIUM, { maxEni: 1 }), settings, NOW, 5);
    expect(planned({ ...full, waiting: 1 }, { maxEni: 1 })).toBe("hold eni-limit");
    const resting = { ...podsEnd(full, settings, NOW, 2), waiting: 1 };
    expect(planPool(resting, settings, NOW)).toMatchObject({
      reason: "cooling",
      retryAt: after(NOW, settings.cooldownMs),
    });
    expect(planPool(resting, settings, after(NOW, settings.cooldownMs))).toMatchObject({
      reason: "eni-limit",
    });
  });

  test("no more addresses than pods; resting ones do not count against that", () => {
    const settings = settingsOf({ warmIpTarget: 2, maxPods: 5 });
    const full = podsStart(settled(M5_LARGE, { warmIpTarget: 5 }), settings, NOW, 5);
    expect(planned({ ...full, waiting: 1 }, { warmIpTarget: 2, maxPods: 5 })).toBe("hold max-pods");
    const ended = { ...podsEnd(full, settings, NOW, 1), waiting: 1 };
    expect(planned(ended, { warmIpTarget: 2, maxPods: 5 })).toBe("assign-addresses eni-0 1");
  });

  test("a pod that gave up is told what stood in its way, though it has left the queue", () => {
    const settings = settingsOf({ minimumIpTarget: 4, maxPods: 4 });
    const full = podsStart(settled(M5_LARGE, { minimumIpTarget: 4 }), settings, NOW, 4);
    expect(whyNoAddress(full, settings, NOW)).toMatchObject({ blocked: "max-pods" });
    expect(whyNoAddress(full, { ...settings, maxPods: null }, NOW)).toMatchObject({ blocked: null });
  });
});

describe("why a pod that waits has no address", () => {
  const settings = settingsOf({});
  const empty = { ...bootedNode(M5_LARGE), waiting: 1 };
  const refused = { operation: "AssignPrivateIpAddresses", attempt: 2 } as const;

  test("a refusal counts until EC2 says yes, also while it is being asked again", () => {
    const throttled = obstacleMet(empty, { kind: "throttled", ...refused, until: NOW });
    expect(planned(throttled, {})).toBe("assign-addresses eni-0 9");
    expect(whyNoAddress(throttled, settings, NOW)).toEqual({
      blocked: "throttled",
      detail: "EC2 throttles AssignPrivateIpAddresses",
    });
    expect(whyNoAddress(empty, settings, NOW)).toMatchObject({ blocked: null });
  });

  test("a call in doubt tells what came of it", () => {
    const doubt = { operation: "AttachNetworkInterface", eni: null, since: NOW };
    const detail = "AttachmentLimitExceeded: Interface count 4 exceeds the limit for m5.large";
    const limited: Obstacle = {
      kind: "failing",
      operation: doubt.operation,
      attempt: 0,
      detail,
      until: SOON,
    };
    expect(whyNoAddress(callInDoubt(obstacleMet(empty, limited), doubt), settings, NOW)).toEqual({
      blocked: "call-in-doubt",
      detail: `AttachNetworkInterface: ${detail}; EC2 is looked at before it is asked again`,
    });
    expect(whyNoAddress(callInDoubt(empty, doubt), settings, NOW)).toMatchObject({
      blocked: "call-in-doubt",
    });
  });

  test("what keeps EC2 from being looked at goes before the doubt that the look would end", () => {
    const doubt = { operation: "AssignPrivateIpAddresses", eni: null, since: NOW };
    const denied: Obstacle = {
      kind: "access-denied",
      operation: "DescribeNetworkInterfaces",
      attempt: 0,
      until: NOW,
    };
    expect(whyNoAddress(callInDoubt(obstacleMet(empty, denied), doubt), settings, NOW)).toEqual({
      blocked: "access-denied",
      detail: "EC2 denies DescribeNetworkInterfaces",
    });
  });
});

describe("shrinking", () => {
  test("what is above the target goes back from the emptiest ENI, after the rest of those that pods left", () => {
    const settings = settingsOf({ warmIpTarget: 2 });
    const start = instant(0);
    const full = settle(
      podsStart(settled(T3_MEDIUM, { warmEniTarget: 3 }, start), settings, start, 13),
      settings,
      start,
    ).state;
    const ended = podsEnd(full, settings, NOW, 11);
    expect(planned(ended, { warmIpTarget: 2 })).toBe("hold on-target");
    const cooled = settleUntil(ended, settings, NOW, after(NOW, HOUR_MS));
    expect(cooled.actions.map(printAction)).toEqual([
      "detach-eni eni-1",
      "unassign-addresses eni-0 5",
      "unassign-addresses eni-2 1",
    ]);
    expect(takeCensus(cooled.state, cooled.now)).toMatchObject({ allocated: 2, warm: 2 });
  });

  test("addresses that rest keep their successors' addresses ready: nothing goes back before they have rested", () => {
    const settings = settingsOf({ warmIpTarget: 2 });
    const busy = podsStart(settled(M5_LARGE, { warmIpTarget: 8 }), settings, NOW, 3);
    const ended = podsEnd(busy, settings, NOW, 3); // 5 warm, 3 resting.
    expect(planPool(ended, settings, NOW)).toMatchObject({
      reason: "on-target",
      retryAt: after(NOW, 30_000),
    });
    expect(planned(ended, { warmIpTarget: 2 }, after(NOW, 30_000))).toBe("unassign-addresses eni-0 6");
  });

  test("the address released last goes back first: what has rested longest is kept", () => {
    const settings = settingsOf({ warmIpTarget: 2 });
    let state = podsStart(settled(M5_LARGE, { warmIpTarget: 3 }), settings, NOW, 3);
    const ips = [...state.allocations.values()].map((each) => each.ip);
    for (const [turn, id] of [...state.allocations.keys()].entries()) {
      state = addressReleased(state, id, after(NOW, [5, 9, 1][turn] ?? 0));
    }
    const plan = planPool(state, settings, after(NOW, 10));
    expect(plan).toMatchObject({ action: { kind: "unassign-addresses", ips: [ips[1]] } });
  });

  test("single addresses are not taken off an ENI that will soon go as a whole", () => {
    const state = settled(T3_MEDIUM, { warmIpTarget: 7 });
    const old = after(NOW, 60_000);
    expect(planPool(state, settingsOf({ warmIpTarget: 2 }), NOW)).toMatchObject({
      kind: "hold",
      retryAt: old,
    });
    expect(settle(state, settingsOf({ warmIpTarget: 2 }), old).actions.map(printAction)).toEqual([
      "detach-eni eni-1",
      "unassign-addresses eni-0 3",
    ]);
  });

  test("an ENI that lost its link is not taken off while its link may come back", () => {
    const state = settled(M5_LARGE, { warmEniTarget: 2 });
    const later = after(NOW, HOUR_MS);
    const lost = eniLinkLost(state, "eni-1" as EniId, later);
    expect(planned(lost, {}, later)).toBe("hold on-target");
    expect(planned(lost, {}, after(later, 30_000))).toBe("detach-eni eni-1");
  });

  test("an ENI is detached only when it is old enough, and the plan says when", () => {
    const state = settled(M5_LARGE, { warmEniTarget: 2 });
    const plan = planPool(state, settingsOf({}), NOW);
    expect(plan).toMatchObject({ kind: "hold", reason: "on-target", retryAt: after(NOW, 60_000) });
    expect(planned(state, {}, after(NOW, 60_000))).toBe("detach-eni eni-1");
  });

  test("an ENI with an allocated or resting address stays", () => {
    const settings = settingsOf({ warmEniTarget: 0, cooldownMs: 300_000 });
    const full = podsStart(settled(T3_MEDIUM, { warmEniTarget: 2 }), settings, NOW, 6);
    const used = [...full.allocations.values()].find((each) => each.eni === "eni-1");
    expect(used).toBeDefined();
    const later = after(NOW, 120_000);
    expect(planned(full, { warmEniTarget: 0 }, later)).toBe("hold on-target");
    const resting = podsEnd(full, settings, later, 6);
    expect(planned(resting, { warmEniTarget: 0 }, later)).toMatch(/hold|assign/);
    expect(planned(resting, { warmEniTarget: 0 }, after(later, 300_000))).toBe("detach-eni eni-1");
  });

  test("WARM_ENI_TARGET=0 does not take its last free addresses away", () => {
    const state = settled(M5_LARGE, { warmEniTarget: 0 });
    expect(planned(state, { warmEniTarget: 0 }, after(NOW, HOUR_MS))).toBe("hold on-target");
  });

  test("custom networking takes the pool's addresses off the primary ENI", () => {
    const turned = settle(
      settled(M5_LARGE, { warmIpTarget: 4 }),
      settingsOf({ warmIpTarget: 4, podsOnPrimary: false }),
      NOW,
    );
    expect(turned.actions.map(printAction)).toEqual([
      "attach-eni 0/1 subnet-a addresses 4",
      "unassign-addresses eni-0 4",
    ]);
  });

  test("denied or throttled unassigning is not tried again before its time", () => {
    const obstacle: Obstacle = {
      kind: "throttled",
      operation: "UnassignPrivateIpAddresses",
      attempt: 0,
      until: SOON,
    };
    const state = obstacleMet(settled(M5_LARGE, { warmIpTarget: 9 }), obstacle);
    const plan = planPool(state, settingsOf({ warmIpTarget: 2 }), NOW);
    expect(plan).toMatchObject({ kind: "hold", reason: "throttled", retryAt: SOON });
    expect(planned(state, { warmIpTarget: 2 }, SOON)).toBe("unassign-addresses eni-0 7");
  });

  test("a hold names the time, too, when an ENI is old enough to go in the stead of what is held up", () => {
    const slot = { networkCard: 0, deviceIndex: 1 };
    const booted = bootedNode(M5_LARGE);
    const second = eniAt(booted, slot, SUBNET_A, NOW);
    let state = eniReady(eniAttached(booted, second), second.id);
    state = addressesAssigned(state, "eni-0" as EniId, [ipv4("10.0.40.1")]);
    state = prefixesAssigned(state, second.id, [cidr4("10.0.48.0/28")]);
    const nothing = settingsOf({ warmEniTarget: 0 });
    const old = after(NOW, nothing.eniLifeMinMs);
    expect(planPool(state, { ...nothing, provisioning: false }, NOW)).toMatchObject({
      reason: "provisioning-off",
      retryAt: old,
    });
    const until = after(NOW, HOUR_MS);
    const refused = {
      kind: "throttled",
      operation: "UnassignPrivateIpAddresses",
      attempt: 0,
      until,
    } as const;
    const plan = planPool(obstacleMet(state, refused), nothing, NOW);
    expect(plan).toMatchObject({ reason: "throttled", retryAt: old });
  });
});
