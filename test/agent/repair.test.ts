import { expect, test } from "vitest";
import type { Agent } from "../../src/agent/agent.ts";
import { PODS_TABLE, ROUTE_PROTOCOL } from "../../src/core/plumbing/names.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import type { Mac } from "../../src/core/model/eni.ts";
import {
  createWorld,
  idOf,
  pathOf,
  secondaryEnis,
  type World,
  type WorldOptions,
} from "../support/fake-ports.ts";

/** A repair is at most this far from the event that told of the damage. */
const SECONDS_MS = 3_000;

/** Twelve pods on two ENIs, all well. */
async function busyNode(options: WorldOptions = {}): Promise<{ world: World; agent: Agent }> {
  const world = createWorld(options);
  const agent = await world.startRunning();
  for (let i = 0; i < 12; i += 1) world.add(agent, `pod-${i}`);
  await world.clock.advance(20_000);
  return { world, agent };
}

/** What the host's namespace holds, as one comparable value. */
function picture(world: World): unknown {
  const links = [...world.host.links.values()].map((link) => ({ ...link, index: 0 })); // A link that is made again has a new one.
  const text = (value: unknown): string => JSON.stringify(value);
  return [links, world.host.routes(), world.host.rules(), world.host.addresses()].map((all) =>
    all.map(text).sort(),
  );
}

test.each<{ readonly what: string; readonly harm: (world: World, agent: Agent) => void }>([
  { what: "every rule", harm: (world) => world.host.dropRules(() => true) },
  { what: "every route", harm: (world) => world.host.dropRoutes(() => true) },
  { what: "the pods' table", harm: (world) => world.host.dropRoutes((route) => route.table === PODS_TABLE) },
  {
    what: "a pod's link",
    harm: (world, agent) => {
      const allocation = agent.cell.state.allocations.get(idOf("pod-3"));
      if (allocation !== undefined) world.host.dropLink(allocation.hostLink);
    },
  },
  {
    what: "a pod's group",
    harm: (world, agent) => {
      const name = agent.cell.state.allocations.get(idOf("pod-3"))?.hostLink ?? "";
      const link = world.host.links.get(name);
      if (link !== undefined) world.host.links.set(name, { ...link, group: 0, up: false });
    },
  },
])("$what, taken away by hand, is back within seconds of the event", async ({ harm }) => {
  const { world, agent } = await busyNode();
  const before = picture(world);
  harm(world, agent);
  expect(picture(world)).not.toEqual(before);
  agent.wakeRepair.call();
  await world.clock.advance(SECONDS_MS);
  expect(picture(world)).toEqual(before);
});

test("damage without an event is repaired too, only later", async () => {
  const { world } = await busyNode();
  const before = picture(world);
  world.host.dropRules(() => true);
  await world.clock.advance(world.settings.repairIntervalMs + SECONDS_MS);
  expect(picture(world)).toEqual(before);
});

test("events in a storm are answered by one look every two seconds", async () => {
  const { world, agent } = await busyNode();
  const looks = (): number =>
    world.facts.filter((fact) => fact.kind === "looked" && fact.at === "kernel").length;
  const before = looks();
  for (let i = 0; i < 1_000; i += 1) {
    agent.wakeRepair.call();
    await world.clock.advance(10);
  }
  expect(looks() - before).toBeLessThanOrEqual(6);
  expect(looks() - before).toBeGreaterThanOrEqual(4);
});

test("links of ours that no sandbox owns go; links, routes and rules of others stay", async () => {
  const { world, agent } = await busyNode();
  const mac = "0a:00:00:00:00:aa" as Mac;
  world.host.addLink({ name: "eni0orphan", mac, kind: "veth", group: 1001, alias: idOf("gone") });
  world.host.addLink({ name: "cali123", mac, kind: "veth", group: 0, alias: "theirs" });
  const theirs = {
    kind: "route",
    table: 254,
    destination: { ip: ipv4("192.168.7.0"), prefixLength: 24 },
    link: "ens5",
    gateway: null,
    scope: "link",
    onlink: false,
    mtu: null,
    protocol: 4,
  } as const;
  world.host.addRoute(theirs);
  world.host.addRoute({ ...theirs, table: PODS_TABLE, protocol: ROUTE_PROTOCOL }); // Ours by its protocol, and nobody's.
  agent.wakeRepair.call();
  await world.clock.advance(SECONDS_MS);
  expect(world.host.links.has("eni0orphan")).toBe(false);
  expect(world.host.links.has("cali123")).toBe(true);
  expect(world.host.routes().filter((route) => route.destination.ip === "192.168.7.0")).toEqual([theirs]);
  expect(world.messages()).toContain("orphan link removed: its alias names no sandbox of ours");
});

test("a pod whose namespace is gone is not plumbed again", async () => {
  const { world, agent } = await busyNode();
  const link = agent.cell.state.allocations.get(idOf("pod-3"))?.hostLink ?? "";
  world.host.endNetns(pathOf("pod-3"));
  agent.wakeRepair.call();
  await world.clock.advance(SECONDS_MS);
  expect(world.messages()).not.toContain("a lost link could not be made again");
  expect(world.host.links.has(link)).toBe(false);
});

test("a link that cannot be made again is told of and tried again", async () => {
  const { world, agent } = await busyNode();
  const link = agent.cell.state.allocations.get(idOf("pod-3"))?.hostLink ?? "";
  world.host.dropLink(link);
  world.host.script("plumbSandbox", "ENOBUFS");
  agent.wakeRepair.call();
  await world.clock.advance(SECONDS_MS);
  expect(world.logs.find((each) => each.message === "a lost link could not be made again")?.level).toBe(
    "error",
  );
  expect(world.host.links.has(link)).toBe(false);
  await world.clock.advance(world.settings.repairIntervalMs);
  expect(world.host.links.has(link)).toBe(true);
});

test("what one object is refused does not keep the others from being put right", async () => {
  const { world, agent } = await busyNode();
  const before = picture(world);
  world.host.dropRules(() => true);
  world.host.script("put", "EPERM");
  agent.wakeRepair.call();
  await world.clock.advance(SECONDS_MS);
  expect(world.logs.find((each) => each.message === "the kernel refused a repair")).toMatchObject({
    errno: "EPERM",
  });
  agent.wakeRepair.call();
  await world.clock.advance(SECONDS_MS);
  expect(picture(world)).toEqual(before);
});

// --- ENIs' links -------------------------------------------------------------------------------------------------------

test("an ENI serves pods within milliseconds of its link's coming", async () => {
  const world = createWorld({ linkMs: 4_000 });
  const agent = await world.startRunning();
  const adds = Array.from({ length: 10 }, (_, i) => world.add(agent, `pod-${i}`));
  await world.clock.advanceUntil(() => secondaryEnis(agent).length === 1);
  await world.clock.advance(3_999);
  expect(adds.filter((add) => add.answer() === null)).toHaveLength(1);
  await world.clock.advance(500);
  expect(adds.every((add) => add.answer()?.ok)).toBe(true);
});

test("an ENI whose link is gone gives nothing out until it is back", async () => {
  const { world, agent } = await busyNode({ pool: { maxEni: 2 } });
  const [id] = secondaryEnis(agent);
  if (id === undefined) throw new Error("no secondary ENI");
  const name = `ens${id.slice(4)}`;
  const link = world.host.links.get(name);
  world.host.dropLink(name);
  agent.wakeRepair.call();
  await world.clock.advance(SECONDS_MS);
  expect(agent.cell.state.enis.get(id)?.phase.kind).toBe("awaiting-link");
  expect(world.logs.find((each) => each.level === "error")).toMatchObject({
    message: "an eni's link is gone",
    eni: id,
  });
  const add = world.add(agent, "late");
  await world.clock.advance(1_000);
  expect(add.answer()).toBeNull();
  if (link !== undefined) world.host.addLink(link);
  await world.clock.advance(1_000);
  expect(add.answer()?.ok).toBe(true);
});

test("while a link is awaited for ever, it is looked for ever more rarely", async () => {
  const world = createWorld({ linkMs: null });
  let polls = 0;
  const { observeLinks } = world.host.kernel;
  world.spyOnLinks(() => {
    polls += 1;
    return observeLinks();
  });
  const agent = await world.startRunning();
  for (let i = 0; i < 10; i += 1) world.add(agent, `pod-${i}`);
  await world.clock.advanceUntil(() => secondaryEnis(agent).length === 1);
  await world.clock.advance(10_000);
  const early = polls;
  await world.clock.advance(10_000);
  expect(early).toBeGreaterThan(30);
  expect(polls - early).toBeLessThanOrEqual(30);
});

// --- The packet filter -------------------------------------------------------------------------------------------------

test("the packet filter is loaded at start, and again when somebody flushed it", async () => {
  const { world, agent } = await busyNode();
  expect(world.host.filterText()).toContain("table inet berth");
  world.host.flushFilter();
  agent.wakeFilter.call();
  await world.clock.settle();
  expect(world.host.filterText()).toContain("table inet berth");
  expect(world.facts).toContainEqual({ kind: "repaired", what: "packet-filter" });
});

test("a packet filter that could not be loaded is told of and tried again", async () => {
  const world = createWorld();
  world.host.script("ensurePacketFilter", "EINVAL");
  await world.startRunning();
  expect(world.messages()).toContain("the packet filter could not be loaded");
  await world.clock.advance(world.settings.repairIntervalMs);
  expect(world.host.filterText()).toContain("table inet berth");
});
