import { expect, test } from "vitest";
import type { Agent } from "../../src/agent/agent.ts";
import { addressesLeaving } from "../../src/core/state/transitions.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import { MINUTE_MS } from "../../src/lib/time.ts";
import type { FakeEni } from "../support/fake-ec2.ts";
import {
  createWorld,
  disagreements,
  kindOf,
  secondaryEnis,
  warmOf,
  type World,
  type WorldOptions,
} from "../support/fake-ports.ts";

const OWNER = "node.k8s.amazonaws.com/instance_id";
const CREATED_AT = "node.k8s.amazonaws.com/createdAt";
const NO_MANAGE = "node.k8s.amazonaws.com/no_manage";
const SLOT = { networkCard: 0, deviceIndex: 1 };

async function running(
  options: WorldOptions = {},
  plant?: (world: World) => void,
): Promise<{ world: World; agent: Agent }> {
  const world = createWorld(options);
  plant?.(world);
  const agent = await world.startRunning();
  await world.clock.advance(2 * MINUTE_MS); // The first look is over.
  return { world, agent };
}

/** Time until the next two looks are over, whatever their spread. */
const TWO_SWEEPS_MS = 8 * MINUTE_MS;

function looksOf(world: World): number {
  return world.facts.filter((fact) => fact.kind === "looked" && fact.at === "ec2").length;
}

/** Lets time pass until one more look is done. */
async function oneLook(world: World): Promise<void> {
  const before = looksOf(world);
  await world.clock.advanceUntil(() => looksOf(world) > before, 10 * MINUTE_MS);
}

function first<T>(values: readonly T[]): T {
  const [value] = values;
  if (value === undefined) throw new Error("there is none");
  return value;
}

test("an address that somebody took off is believed for one look, and forgotten with the second", async () => {
  const { world, agent } = await running();
  const ip = first(world.cloud.primary.secondaryIps);
  world.cloud.primary.secondaryIps = world.cloud.primary.secondaryIps.filter((each) => each !== ip);
  world.cloud.taken.add(ip);
  world.cloud.changed();
  await oneLook(world);
  expect(kindOf(agent, ip)).toBe("warm");
  const looked = world.clock.now();
  await oneLook(world);
  expect(kindOf(agent, ip)).toBeNull();
  expect(world.clock.now() - looked).toBeGreaterThanOrEqual(MINUTE_MS);
  expect(world.clock.now() - looked).toBeLessThan(2 * MINUTE_MS); // One more look decides it; the next sweep is not waited for.
  await world.clock.advance(MINUTE_MS);
  expect(disagreements(world, agent)).toEqual([]);
});

test("a difference that is gone at the second look was none", async () => {
  const { world, agent } = await running();
  const all = world.cloud.primary.secondaryIps;
  const ip = first(all);
  world.cloud.primary.secondaryIps = all.filter((each) => each !== ip);
  world.cloud.taken.add(ip);
  world.cloud.changed();
  await oneLook(world);
  world.cloud.primary.secondaryIps = all;
  world.cloud.changed();
  await world.clock.advance(TWO_SWEEPS_MS);
  expect(kindOf(agent, ip)).toBe("warm");
});

test("an address that somebody assigned is used after two looks, and one of a running pod that is gone is told of aloud", async () => {
  const { world, agent } = await running();
  const add = world.add(agent, "a");
  await world.clock.advance(1_000);
  const answer = add.answer();
  if (answer?.ok !== true) throw new Error("no address");
  const { ip } = answer.value;
  world.cloud.primary.secondaryIps = [
    ...world.cloud.primary.secondaryIps.filter((each) => each !== ip),
    ipv4("10.0.3.3"),
  ];
  world.cloud.taken.add(ip);
  world.cloud.changed();
  await oneLook(world);
  expect(kindOf(agent, ipv4("10.0.3.3"))).toBeNull();
  await world.clock.advance(TWO_SWEEPS_MS);
  expect(world.logs.find((each) => each.level === "error")).toMatchObject({
    message: "a running pod's address was taken off its eni",
    ip,
  });
  expect(agent.cell.state.allocations.size).toBe(1); // Its pod may still run: the record stays.
  expect(world.messages()).toContain("address found on its eni");
  world.del(agent, "a");
  await world.clock.advance(TWO_SWEEPS_MS);
  expect(disagreements(world, agent)).toEqual([]);
});

test("an ENI that somebody attached for us serves pods after two looks, and is not detached", async () => {
  const { world, agent } = await running({ pool: { eniLifeMinMs: 1_000 } });
  const eni = world.cloud.plant({ slot: SLOT, secondaryIps: [ipv4("10.0.3.3")] });
  await oneLook(world);
  expect(agent.cell.state.enis.has(eni.id)).toBe(false);
  await world.clock.advance(TWO_SWEEPS_MS);
  expect(agent.cell.state.enis.get(eni.id)?.phase.kind).toBe("ready");
  expect(warmOf(agent)).toContain("10.0.3.3");
  await world.clock.advance(TWO_SWEEPS_MS);
  expect(world.cloud.countOf("DetachNetworkInterface")).toBe(0);
  expect(world.cloud.enis.get(eni.id)?.secondaryIps).toEqual(["10.0.3.3"]);
});

test("an ENI of ours that somebody detached is forgotten after two looks, and deleted as a leak", async () => {
  const { world, agent } = await running();
  for (let i = 0; i < 12; i += 1) world.add(agent, `pod-${i}`);
  await world.clock.advance(20_000);
  const id = first(secondaryEnis(agent));
  const eni = world.cloud.enis.get(id);
  if (eni !== undefined) eni.attachment = null;
  world.cloud.changed();
  world.host.dropLink(`ens${id.slice(4)}`);
  await oneLook(world);
  expect(agent.cell.state.enis.has(id)).toBe(true);
  await world.clock.advance(20 * MINUTE_MS);
  expect(agent.cell.state.enis.has(id)).toBe(false);
  expect(world.cloud.enis.has(id)).toBe(false);
});

test("a prefix that comes or goes by another's hand is followed after two looks", async () => {
  const { world, agent } = await running({
    pool: { prefixDelegation: true, warmIpTarget: null, warmPrefixTarget: 1 },
  });
  const before = first(world.cloud.primary.prefixes);
  const foreign = { network: ipv4("10.0.4.0"), prefixLength: 28 };
  world.cloud.primary.prefixes = [foreign];
  for (let i = 0; i < 16; i += 1)
    world.cloud.taken.add(ipv4(before.network.replace(/[0-9]+$/, String(16 + i))));
  world.cloud.changed();
  await oneLook(world);
  expect(agent.cell.state.enis.get(world.cloud.primary.id)?.prefixes).toEqual([before]);
  await world.clock.advance(TWO_SWEEPS_MS);
  expect(agent.cell.state.enis.get(world.cloud.primary.id)?.prefixes).toContainEqual(foreign);
  expect(disagreements(world, agent)).toEqual([]);
});

// --- Whose is it -------------------------------------------------------------------------------------------------------

const ours = (
  world: World,
  createdAt = "2026-01-01T00:00:00.000Z",
): Pick<FakeEni, "tags" | "description"> => ({
  tags: new Map([
    [OWNER, world.instance.id],
    [CREATED_AT, createdAt],
  ]),
  description: `aws-K8S-${world.instance.id}`,
});

test("a leaked ENI of this instance is deleted once it is old enough, not before", async () => {
  let eni: FakeEni | null = null;
  const { world, agent } = await running({ settings: { sweepIntervalMs: MINUTE_MS } }, (planted) => {
    eni = planted.cloud.plant(ours(planted));
  });
  await world.clock.advance(2 * MINUTE_MS);
  expect(world.cloud.enis.size).toBe(2);
  await world.clock.advance(4 * MINUTE_MS);
  expect(world.cloud.enis.size).toBe(1);
  expect(eni).not.toBeNull();
  expect(disagreements(world, agent)).toEqual([]);
});

test.each<{ readonly whose: string; readonly change: (world: World) => Partial<FakeEni> }>([
  {
    whose: "another instance's",
    change: () => ({ tags: new Map([[OWNER, "i-other"]]), description: "aws-K8S-i-other" }),
  },
  { whose: "nobody's we know", change: () => ({}) },
  {
    whose: "tagged no_manage",
    change: (world) => ({ ...ours(world), tags: new Map([...ours(world).tags, [NO_MANAGE, "true"]]) }),
  },
  { whose: "a service's", change: (world) => ({ ...ours(world), requesterManaged: true }) },
  { whose: "without our description", change: (world) => ({ ...ours(world), description: "by hand" }) },
  {
    whose: "without the time of its making",
    change: (world) => ({ ...ours(world), tags: new Map([[OWNER, world.instance.id]]) }),
  },
])("an unattached ENI that is $whose stays", async ({ change }) => {
  const { world } = await running({ settings: { sweepIntervalMs: MINUTE_MS } }, (planted) => {
    planted.cloud.plant(change(planted));
  });
  await world.clock.advance(20 * MINUTE_MS);
  expect(world.cloud.enis.size).toBe(2);
  expect(world.cloud.countOf("DeleteNetworkInterface")).toBe(0);
});

test("leaked ENIs stay where the operator wants it so", async () => {
  const { world } = await running(
    { settings: { deleteLeakedEnis: false, sweepIntervalMs: MINUTE_MS } },
    (planted) => {
      planted.cloud.plant(ours(planted, "2020-01-01T00:00:00.000Z"));
    },
  );
  await world.clock.advance(10 * MINUTE_MS);
  expect(world.cloud.enis.size).toBe(2);
});

test.each<{ readonly whose: string; readonly change: Partial<FakeEni> }>([
  { whose: "tagged no_manage", change: { tags: new Map([[NO_MANAGE, "true"]]) } },
  { whose: "an EFA", change: { interfaceType: "efa" } },
  { whose: "a trunk", change: { interfaceType: "trunk" } },
  { whose: "a branch", change: { interfaceType: "branch" } },
  { whose: "a service's", change: { requesterManaged: true } },
])(
  "an attached ENI that is $whose is never written to, and its slot is not asked for",
  async ({ change }) => {
    const world = createWorld({ pool: { eniLifeMinMs: 1_000 }, settings: { sweepIntervalMs: MINUTE_MS } });
    const eni = world.cloud.plant({
      ...change,
      slot: SLOT,
      secondaryIps: [ipv4("10.0.3.3")],
      securityGroups: [],
    });
    const before = structuredClone({ ...eni });
    const agent = await world.startRunning();
    const adds = Array.from({ length: 20 }, (_, i) => world.add(agent, `pod-${i}`));
    await world.clock.advance(5 * MINUTE_MS);
    expect(adds.filter((add) => add.answer()?.ok)).toHaveLength(18); // The primary ENI's and one more's.
    expect(secondaryEnis(agent)).toHaveLength(1);
    for (let i = 0; i < 20; i += 1) world.del(agent, `pod-${i}`);
    await world.clock.advance(20 * MINUTE_MS);
    expect({ ...world.cloud.enis.get(eni.id) }).toEqual(before);
    expect(disagreements(world, agent)).toEqual([]);
  },
);

test("an ENI that somebody tags no_manage while it serves pods keeps them, is changed no more, and then leaves our care", async () => {
  const { world, agent } = await running({
    pool: { eniLifeMinMs: 1_000 },
    settings: { sweepIntervalMs: MINUTE_MS },
  });
  for (let i = 0; i < 12; i += 1) world.add(agent, `pod-${i}`);
  await world.clock.advance(30_000);
  const id = first(secondaryEnis(agent));
  world.cloud.enis.get(id)?.tags.set(NO_MANAGE, "true");
  world.cloud.changed();
  await world.clock.advance(2 * MINUTE_MS);
  const there = [...(world.cloud.enis.get(id)?.secondaryIps ?? [])];
  expect(agent.cell.state.enis.get(id)?.detachable).toBe(false);
  for (let i = 0; i < 12; i += 1) world.del(agent, `pod-${i}`);
  await world.clock.advance(10 * MINUTE_MS);
  expect(world.cloud.enis.get(id)?.secondaryIps).toEqual(there);
  expect(world.cloud.enis.get(id)?.attachment?.detachedAt).toBeNull();
  expect(agent.cell.state.enis.has(id)).toBe(false);
  expect(agent.cell.state.foreign).toMatchObject([{ id, reason: "no-manage" }]);
  expect(disagreements(world, agent)).toEqual([]);
});

// --- What our ENIs should be like --------------------------------------------------------------------------------------

test("an ENI that would outlive its instance, or whose groups differ from the primary one's, is set right at the next look", async () => {
  const { world, agent } = await running();
  for (let i = 0; i < 12; i += 1) world.add(agent, `pod-${i}`);
  await world.clock.advance(20_000);
  const id = first(secondaryEnis(agent));
  const eni = world.cloud.enis.get(id);
  if (eni?.attachment === undefined || eni.attachment === null) throw new Error("not attached");
  eni.attachment.deleteOnTermination = false;
  world.cloud.primary.securityGroups = [
    ...world.cloud.primary.securityGroups,
    ...world.instance.securityGroups,
  ];
  world.cloud.primary.securityGroups = ["sg-new" as (typeof world.instance.securityGroups)[number]];
  world.cloud.changed();
  await oneLook(world);
  await world.clock.settle();
  expect(eni.attachment.deleteOnTermination).toBe(true);
  expect(eni.securityGroups).toEqual(["sg-new"]);
  expect(agent.cell.state.enis.get(id)?.securityGroups).toEqual(["sg-new"]);
});

test("while EC2 cannot be looked at, nothing changes and it is asked ever more rarely", async () => {
  const { world, agent } = await running();
  const before = agent.cell.state.enis;
  world.cloud.script("DescribeNetworkInterfaces", { how: "refuse", kind: "failing" }, { times: 1_000_000 });
  const calls = world.cloud.calls.length;
  await world.clock.advance(60 * MINUTE_MS);
  expect(agent.cell.state.enis).toBe(before);
  expect(world.cloud.calls.length - calls).toBeLessThan(130);
});

test("ADDs that come while a doubt cannot be looked at do not hurry the looks", async () => {
  const { world, agent } = await running();
  world.cloud.script("AssignPrivateIpAddresses", { how: "lose-request" });
  world.cloud.script("DescribeNetworkInterfaces", { how: "refuse", kind: "failing" }, { times: 1_000_000 });
  for (let i = 0; i < 4; i += 1) world.add(agent, `pod-${i}`);
  await world.clock.advance(MINUTE_MS);
  const calls = world.cloud.calls.length;
  for (let i = 0; i < 200; i += 1) {
    world.add(agent, `more-${i}`);
    await world.clock.advance(100);
  }
  expect(world.cloud.calls.length - calls).toBeLessThan(5);
});

test("what EC2 took back a moment ago is not taken for new because a lagging view still lists it", async () => {
  const world = createWorld({ pool: { warmIpTarget: 3 } });
  const agent = await world.startRunning();
  await world.clock.advance(5 * MINUTE_MS);
  const [eni] = agent.cell.state.enis.keys();
  const [gone] = warmOf(agent);
  if (eni === undefined || gone === undefined) throw new Error("the pool is empty");
  agent.cell.set(addressesLeaving(agent.cell.state, eni, [gone]));
  agent.wakeRefill.call();
  await world.clock.advance(2_000);
  expect(world.cloud.countOf("UnassignPrivateIpAddresses")).toBe(1);
  world.cloud.setLag(8_000);
  world.cloud.script("AssignPrivateIpAddresses", { how: "lose-request" });
  for (let at = 0; at < 2; at += 1) world.add(agent, `pod-${at}`);
  await world.clock.advance(6_000);
  expect(agent.cell.state.inDoubt).toBeNull(); // Looked at.
  expect(world.messages()).not.toContain("address found on its eni");
});
