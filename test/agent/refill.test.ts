import { expect, test } from "vitest";
import type { Agent } from "../../src/agent/agent.ts";
import type { Ec2FailureKind } from "../../src/core/model/ec2.ts";
import type { HoldReason } from "../../src/core/model/action.ts";
import { cidr4, cidr4Contains } from "../../src/lib/ip.ts";
import { HOUR_MS, MINUTE_MS } from "../../src/lib/time.ts";
import { type FakeEc2, type Fault, type Operation, SUBNET } from "../support/fake-ec2.ts";
import {
  createWorld,
  disagreements,
  kindOf,
  secondaryEnis,
  warmOf,
  type World,
  type WorldOptions,
} from "../support/fake-ports.ts";

const names = (count: number, from = 0): string[] =>
  Array.from({ length: count }, (_, i) => `pod-${from + i}`);

function addAll(world: World, agent: Agent, count: number, from = 0) {
  return names(count, from).map((name) => world.add(agent, name));
}

test("a fresh node fills its pool to the target in one call, and then leaves EC2 alone", async () => {
  const world = createWorld({ pool: { warmIpTarget: 3 } });
  const agent = await world.startRunning();
  await world.clock.advance(10_000);
  expect(warmOf(agent)).toHaveLength(3);
  await world.clock.advance(50_000);
  expect(world.cloud.countOf("AssignPrivateIpAddresses")).toBe(1);
  expect(disagreements(world, agent)).toEqual([]);
});

test("ADDs far beyond the warm pool are held until more than one new ENI is there, and none fails", async () => {
  const world = createWorld({ ec2: { callMs: 200 } });
  const agent = await world.startRunning();
  await world.clock.advance(5_000);
  const adds = addAll(world, agent, 25);
  await world.clock.advance(15_000);
  expect(adds.map((add) => add.answer()?.ok)).toEqual(adds.map(() => true));
  expect(secondaryEnis(agent)).toHaveLength(2);
  expect(world.cloud.countOf("CreateNetworkInterface")).toBe(2);
  const ips = adds.map((add) => {
    const answer = add.answer();
    return answer?.ok === true ? answer.value.ip : null;
  });
  expect(new Set(ips).size).toBe(25);
  expect(disagreements(world, agent)).toEqual([]);
});

test("a burst that the warm pool can serve is made good by one call, not by one a pod", async () => {
  const world = createWorld({ pool: { warmIpTarget: 6 } });
  const agent = await world.startRunning();
  await world.clock.advance(10_000);
  const before = world.cloud.countOf("AssignPrivateIpAddresses");
  for (let at = 0; at < 5; at += 1) {
    const [add] = addAll(world, agent, 1, at);
    await world.clock.advance(20); // As a runtime starts them: one after the other.
    expect(add?.answer()?.ok).toBe(true); // Nobody waits for the gathering.
  }
  await world.clock.advance(2_000);
  expect(world.cloud.countOf("AssignPrivateIpAddresses")).toBe(before + 1);
  expect(warmOf(agent)).toHaveLength(6);
});

test("in prefix mode a burst is served from /28s", async () => {
  const world = createWorld({
    pool: { prefixDelegation: true, warmIpTarget: null, warmPrefixTarget: 1 },
  });
  const agent = await world.startRunning();
  await world.clock.advance(5_000);
  const adds = addAll(world, agent, 40);
  await world.clock.advance(10_000);
  expect(adds.every((add) => add.answer()?.ok)).toBe(true);
  expect(world.cloud.primary.prefixes).toHaveLength(4); // 40 pods break into three, and one is kept whole.
  expect(disagreements(world, agent)).toEqual([]);
});

test("after the pods the pool shrinks to its target, ENIs are detached and deleted, and EC2 agrees", async () => {
  const world = createWorld({ pool: { eniLifeMinMs: 1_000 } });
  const agent = await world.startRunning();
  const adds = addAll(world, agent, 25);
  await world.clock.advance(20_000);
  expect(adds.every((add) => add.answer()?.ok)).toBe(true);
  for (const name of names(25)) world.del(agent, name);
  await world.clock.advance(3 * MINUTE_MS);
  expect(secondaryEnis(agent)).toEqual([]);
  expect(warmOf(agent)).toHaveLength(3);
  expect([...world.cloud.enis.keys()]).toEqual([world.cloud.primary.id]);
  expect(disagreements(world, agent)).toEqual([]);
});

// --- Obstacles ---------------------------------------------------------------------------------------------------------

type Refused = {
  readonly operation: Operation;
  readonly kind: Ec2FailureKind;
  readonly reason: HoldReason | null;
};

const REFUSED: readonly Refused[] = [
  { operation: "AssignPrivateIpAddresses", kind: "throttled", reason: "throttled" },
  { operation: "AssignPrivateIpAddresses", kind: "subnet-exhausted", reason: "subnet-exhausted" },
  { operation: "AssignPrivateIpAddresses", kind: "denied", reason: "access-denied" },
  { operation: "AssignPrivateIpAddresses", kind: "failing", reason: "failing" },
  { operation: "AssignPrivateIpAddresses", kind: "invalid", reason: "failing" },
  { operation: "AssignPrivateIpAddresses", kind: "gone", reason: null },
  { operation: "AssignPrivateIpAddresses", kind: "address-limit", reason: null },
  { operation: "AssignPrivateIpAddresses", kind: "in-doubt", reason: null },
  { operation: "CreateNetworkInterface", kind: "throttled", reason: "throttled" },
  { operation: "CreateNetworkInterface", kind: "subnet-exhausted", reason: "subnet-exhausted" },
  { operation: "CreateNetworkInterface", kind: "denied", reason: "access-denied" },
  { operation: "CreateNetworkInterface", kind: "failing", reason: "failing" },
  { operation: "CreateNetworkInterface", kind: "gone", reason: null },
  { operation: "CreateNetworkInterface", kind: "eni-limit", reason: null },
  { operation: "CreateNetworkInterface", kind: "in-doubt", reason: "call-in-doubt" },
  { operation: "AttachNetworkInterface", kind: "throttled", reason: "throttled" },
  { operation: "AttachNetworkInterface", kind: "eni-limit", reason: null },
  { operation: "AttachNetworkInterface", kind: "gone", reason: null },
  { operation: "AttachNetworkInterface", kind: "in-use", reason: null },
];

/** Everything that could serve pods is refused. For `Assign` the other way, a new ENI, is closed as well. */
function barred({ operation, kind }: Refused): World {
  const world = createWorld(operation === "AssignPrivateIpAddresses" ? { pool: { maxEni: 1 } } : {});
  world.cloud.script(operation, { how: "refuse", kind }, { times: 1_000_000 });
  return world;
}

test.each(REFUSED)(
  "while EC2 answers $operation with $kind, it is asked ever more rarely, and pods are told $reason",
  async (refused) => {
    const world = barred(refused);
    const agent = await world.startRunning();
    const adds = addAll(world, agent, 12);
    await world.clock.advance(21_000);
    const failed = adds.flatMap((add) => {
      const answer = add.answer();
      return answer?.ok === false ? [answer.error] : [];
    });
    expect(failed.length).toBeGreaterThan(0);
    for (const error of failed) {
      expect(error.code).toBe("no-address");
      if (refused.reason !== null && error.code === "no-address") expect(error.blocked).toBe(refused.reason);
    }
    const before = world.cloud.calls.length;
    const held = world.add(agent, "late", { deadline: agent.ports.time.now() });
    await world.clock.advance(10 * MINUTE_MS);
    expect(held.answer()?.ok).toBe(false);
    // One call of the kind a minute, with the looks and the cleaning up that belong to it.
    expect(world.cloud.calls.length - before).toBeLessThan(90);
  },
);

test.each(REFUSED)(
  "once EC2 no longer answers $operation with $kind, the pool reaches its target",
  async (refused) => {
    const world = barred(refused);
    const agent = await world.startRunning();
    addAll(world, agent, 12);
    await world.clock.advance(10 * MINUTE_MS);
    world.cloud.forgive();
    await world.clock.advance(10 * MINUTE_MS);
    expect(warmOf(agent).length).toBeGreaterThanOrEqual(3);
    expect(disagreements(world, agent)).toEqual([]);
  },
);

test("a subnet without addresses is left alone until its time, and pods are told of it", async () => {
  const world = createWorld({ ec2: { subnets: new Map([[SUBNET, cidr4("10.0.0.0/28")]]) } });
  const agent = await world.startRunning();
  const adds = addAll(world, agent, 12);
  await world.clock.advance(21_000);
  const told = adds.map((add) => {
    const answer = add.answer();
    return answer?.ok === false && answer.error.code === "no-address" ? answer.error.blocked : "served";
  });
  expect(new Set(told)).toEqual(new Set(["served", "subnet-exhausted"]));
  expect(world.cloud.countOf("AssignPrivateIpAddresses")).toBeLessThan(4);
});

test("without provisioning EC2 is asked for nothing but to describe", async () => {
  const world = createWorld({ settings: { provisioning: false } });
  const leaked = plantLeaked(world.cloud, world);
  const eni = world.cloud.plant({
    slot: { networkCard: 0, deviceIndex: 1 },
    tags: new Map(leaked.tags),
    securityGroups: [],
  });
  if (eni.attachment !== null) eni.attachment.deleteOnTermination = false;
  world.cloud.changed();
  const agent = await world.startRunning();
  const add = world.add(agent, "a");
  await world.clock.advance(HOUR_MS);
  const answer = add.answer();
  expect(answer?.ok === false && answer.error.code === "no-address" && answer.error.blocked).toBe(
    "provisioning-off",
  );
  expect(new Set(world.cloud.calls.map((call) => call.operation))).toEqual(
    new Set(["DescribeNetworkInterfaces"]),
  );
});

// --- Lost answers ------------------------------------------------------------------------------------------------------

const LOSABLE: readonly Operation[] = [
  "AssignPrivateIpAddresses",
  "CreateNetworkInterface",
  "AttachNetworkInterface",
  "ModifyNetworkInterfaceAttribute",
  "DetachNetworkInterface",
  "UnassignPrivateIpAddresses",
  "DeleteNetworkInterface",
  "DescribeNetworkInterfaces",
];
const FAULTS: readonly Fault[] = [
  { how: "lose-answer" },
  { how: "lose-request" },
  { how: "refuse", kind: "throttled" },
  { how: "refuse", kind: "failing" },
  { how: "refuse", kind: "gone" },
];
const SMALL = { addressesPerEni: 5, networkCards: [{ enis: 3 }], nitro: true };
const SMALL_POOL = { eniLifeMinMs: 1_000, warmIpTarget: 2 };
/** In what world, and how often on end: with views that lag less and more than a look waits, and calls that take their time. */
const WORLDS: readonly { readonly options: WorldOptions; readonly times: number; readonly pods: number }[] = [
  { options: { limits: SMALL, pool: SMALL_POOL }, times: 1, pods: 10 },
  { options: { limits: SMALL, pool: SMALL_POOL, ec2: { callMs: 100, lagMs: 2_000 } }, times: 3, pods: 10 },
  { options: { limits: SMALL, pool: SMALL_POOL, ec2: { callMs: 100, lagMs: 8_000 } }, times: 1, pods: 10 },
  {
    options: {
      limits: { ...SMALL, addressesPerEni: 3 },
      pool: { eniLifeMinMs: 1_000, prefixDelegation: true, warmIpTarget: null, warmPrefixTarget: 1 },
    },
    times: 2,
    pods: 40,
  },
];
const CASES = LOSABLE.flatMap((operation) => FAULTS.map((fault) => ({ operation, fault })));

test.each(CASES)(
  "$fault.how $fault.kind at $operation ends in what EC2 says: nothing leaked, nothing given twice",
  async ({ operation, fault }) => {
    for (const { options, times, pods } of WORLDS) {
      const world = createWorld(options);
      const agent = await world.startRunning();
      await world.clock.advance(1_000);
      world.cloud.script(operation, fault, { times });
      addAll(world, agent, pods);
      await world.clock.advance(2 * MINUTE_MS);
      const where = JSON.stringify([options, times]);
      noneLacksItsAddress(world, agent, where);
      for (const name of names(pods)) world.del(agent, name);
      // What EC2 wrongly calls gone is found by the sweep alone, time after time.
      await world.clock.advance((isGone(fault) ? 25 : 10) * MINUTE_MS);
      expect(disagreements(world, agent), where).toEqual([]);
      expect(secondaryEnis(agent), where).toEqual([]);
      expect(agent.cell.state.allocations.size, where).toBe(0);
    }
  },
);

function isGone(fault: Fault): boolean {
  return fault.how === "refuse" && fault.kind === "gone";
}

/** Each pod's address is at EC2, on the ENI that the pod's packets leave by; no two pods have one. */
function noneLacksItsAddress(world: World, agent: Agent, where: string): void {
  const allocations = [...agent.cell.state.allocations.values()];
  expect(new Set(allocations.map((each) => each.ip)).size, where).toBe(allocations.length);
  for (const { ip, eni, hostLink } of allocations) {
    const there = world.cloud.enis.get(eni);
    const held =
      there?.secondaryIps.includes(ip) === true || there?.prefixes.some((p) => cidr4Contains(p, ip)) === true;
    expect(held, `${where} ${ip}`).toBe(true);
    expect(world.host.routes().find((route) => route.link === hostLink)?.destination.ip, where).toBe(ip);
  }
}

test("a creation in doubt stays so while EC2 throttles, and its ENI is found by its token, not by the sweep", async () => {
  const world = createWorld();
  const agent = await world.startRunning();
  await world.clock.advance(5_000);
  world.cloud.script("CreateNetworkInterface", { how: "lose-answer" });
  world.cloud.script("CreateNetworkInterface", { how: "refuse", kind: "throttled" }, { times: 3 });
  addAll(world, agent, 12);
  await world.clock.advance(60_000);
  expect(disagreements(world, agent)).toEqual([]);
  expect(world.cloud.enis.size).toBe(2);
});

test("an address whose give-back is in doubt is not given out again when its repetition is refused", async () => {
  const world = createWorld();
  const agent = await world.startRunning();
  world.add(agent, "a");
  await world.clock.advance(60_000);
  world.cloud.setLag(60_000); // The look does not see that it is done.
  world.cloud.script("UnassignPrivateIpAddresses", { how: "lose-answer" });
  world.cloud.script("UnassignPrivateIpAddresses", { how: "refuse", kind: "throttled" }, { times: 5 });
  world.del(agent, "a");
  await world.clock.advanceUntil(() => world.cloud.countOf("UnassignPrivateIpAddresses") >= 3);
  const there = new Set(world.cloud.primary.secondaryIps);
  for (const ip of agent.cell.state.enis.get(world.cloud.primary.id)?.addresses.keys() ?? []) {
    if (!there.has(ip)) expect(kindOf(agent, ip)).toBe("leaving");
  }
});

test("an ENI whose detach is in doubt serves no pod when the repetition is refused", async () => {
  const world = createWorld({ pool: { eniLifeMinMs: 1_000 }, ec2: { detachMs: 30_000 } });
  const agent = await world.startRunning();
  addAll(world, agent, 12);
  await world.clock.advance(10_000);
  const [eni] = secondaryEnis(agent);
  world.cloud.script("DetachNetworkInterface", { how: "lose-answer" });
  world.cloud.script("DetachNetworkInterface", { how: "refuse", kind: "throttled" }, { times: 3 });
  for (const name of names(12)) world.del(agent, name);
  await world.clock.advanceUntil(() => world.cloud.countOf("DetachNetworkInterface") >= 3);
  expect(eni === undefined ? null : agent.cell.state.enis.get(eni)?.phase.kind).toBe("leaving");
  await world.clock.advance(5 * MINUTE_MS);
  expect(disagreements(world, agent)).toEqual([]);
});

test("an ENI that was just detached is not taken for attached by a view that lags", async () => {
  const world = createWorld({ pool: { eniLifeMinMs: 1_000 }, settings: { sweepIntervalMs: 1_000 } });
  const agent = await world.startRunning();
  addAll(world, agent, 12);
  await world.clock.advance(10_000);
  const [eni] = secondaryEnis(agent);
  world.cloud.setLag(20_000);
  for (const name of names(12)) world.del(agent, name);
  await world.clock.advanceUntil(() => world.cloud.countOf("DetachNetworkInterface") >= 1);
  for (let second = 0; second < 30; second += 1) {
    await world.clock.advance(1_000);
    expect(eni !== undefined && agent.cell.state.enis.has(eni)).toBe(false);
  }
});

test("an ENI that an earlier life attached and could not write down is used, not created again", async () => {
  const world = createWorld();
  const first = await world.startRunning();
  await world.clock.advance(5_000);
  world.cloud.setAround(async (operation, when) => {
    if (operation === "CreateNetworkInterface" && when === "before") world.failSaves(1_000);
    if (operation === "AttachNetworkInterface" && when === "after") world.crash();
    await Promise.resolve();
  });
  addAll(world, first, 12);
  await world.clock.advance(5_000);
  expect(world.isDead()).toBe(true);
  world.failSaves(0);
  world.cloud.setAround(async () => await Promise.resolve());
  const agent = await world.startRunning();
  await world.clock.advance(60_000);
  expect(disagreements(world, agent)).toEqual([]);
  expect(world.cloud.enis.size).toBe(2);
});

function plantLeaked(cloud: FakeEc2, world: World) {
  return cloud.plant({
    description: `aws-K8S-${world.instance.id}`,
    tags: new Map([
      ["node.k8s.amazonaws.com/instance_id", world.instance.id],
      ["node.k8s.amazonaws.com/createdAt", "2020-01-01T00:00:00Z"],
    ]),
  });
}
