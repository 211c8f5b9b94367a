import { describe, expect, test } from "vitest";
import {
  EXPECT_MS,
  expectedCount,
  EXPECTED_MAX,
  type ExpectedPods,
  expectPods,
} from "../../../src/core/cluster/demand.ts";
import type { PodSeen } from "../../../src/core/model/cluster.ts";
import { planPool } from "../../../src/core/pool/plan.ts";
import { POOL_SETTINGS_DEFAULT, type PoolSettings } from "../../../src/core/pool/targets.ts";
import type { Allocation } from "../../../src/core/state/node-state.ts";
import { instant } from "../../../src/lib/time.ts";
import { pod } from "../../support/pods.ts";
import { applyAction, bootedNode, M5_4XLARGE } from "../../support/pool-world.ts";
import type { EniId } from "../../../src/core/model/eni.ts";

const NONE: ReadonlyMap<string, Allocation> = new Map();
const at = (ms: number) => instant(1_000_000 + ms);

const podsOf = (...pods: readonly PodSeen[]) => new Map(pods.map((each) => [each.uid, each]));
const given = (name: string): Allocation =>
  // Only the pod's name is looked at.
  ({ pod: { namespace: "default", name }, ip: "10.0.0.9" }) as unknown as Allocation;

describe("pods that are bound to this node", () => {
  test("are expected until they have an address, and those that never ask are not", () => {
    const pods = podsOf(
      pod("wants"),
      pod("in-the-hosts-network", { hostNetwork: true }),
      pod("done", { finished: true }),
      pod("on-its-way-out", { leaving: true }),
      pod("has-one", { ips: ["10.0.0.5"] }),
    );
    const expected = expectPods(new Map(), pods, NONE, at(0));
    expect([...expected.keys()]).toEqual(["uid-wants"]);
    expect(expectedCount(expected, at(0))).toEqual({ count: 1, until: at(EXPECT_MS) });
  });

  test("are not expected once their ADD came, though the API server has not heard of it, nor after their DEL", () => {
    const pods = podsOf(pod("a"), pod("b"));
    let expected: ExpectedPods = expectPods(new Map(), pods, NONE, at(0));
    expected = expectPods(expected, pods, new Map([["x", given("a")]]), at(10));
    expect(expectedCount(expected, at(10)).count).toBe(1);
    expected = expectPods(expected, pods, NONE, at(20));
    expect(expectedCount(expected, at(20)).count).toBe(1);
  });

  test("that never come are forgotten in time, and are not expected anew for being seen again", () => {
    const pods = podsOf(pod("stuck"));
    let expected = expectPods(new Map(), pods, NONE, at(0));
    expect(expectedCount(expected, at(EXPECT_MS - 1)).count).toBe(1);
    expected = expectPods(expected, pods, NONE, at(EXPECT_MS));
    expect(expectedCount(expected, at(EXPECT_MS))).toEqual({ count: 0, until: null });
  });

  test("are bounded, whatever the API server tells", () => {
    const many = podsOf(...Array.from({ length: 5_000 }, (_, at) => pod(`p${at}`)));
    expect(expectedCount(expectPods(new Map(), many, NONE, at(0)), at(0)).count).toBe(EXPECTED_MAX);
  });

  test("stay what they were while the API server is away", () => {
    const expected = expectPods(new Map(), podsOf(pod("a")), NONE, at(0));
    expect(expectPods(expected, null, NONE, at(5))).toBe(expected);
  });
});

describe("the pool", () => {
  const withWarm = (count: number) =>
    applyAction(
      bootedNode(M5_4XLARGE),
      { kind: "assign-addresses", eni: "eni-0" as EniId, count }, // As pool-world names it.
      at(0),
    );
  const settings = (expectedPods: number): PoolSettings => ({
    ...POOL_SETTINGS_DEFAULT,
    warmEniTarget: 0,
    warmIpTarget: 2,
    expectedPods,
  });

  test("grows for pods before their ADDs come, and those that wait already are counted once", () => {
    const calm = withWarm(2);
    expect(planPool(calm, settings(0), at(0))).toMatchObject({ kind: "hold", reason: "on-target" });
    expect(planPool(calm, settings(5), at(0))).toMatchObject({
      kind: "act",
      action: { kind: "assign-addresses", count: 5 },
      reason: expect.stringContaining("5 more pods are bound"),
    });
    expect(planPool({ ...calm, waiting: 3 }, settings(5), at(0))).toMatchObject({ action: { count: 5 } });
    expect(planPool({ ...calm, waiting: 5 }, settings(3), at(0))).toMatchObject({ action: { count: 5 } });
  });

  test("gives nothing back that expected pods will need", () => {
    const rich = withWarm(7);
    expect(planPool(rich, settings(0), at(0))).toMatchObject({ action: { kind: "unassign-addresses" } });
    expect(planPool(rich, settings(5), at(0))).toMatchObject({ kind: "hold", reason: "on-target" });
  });
});
