import { expect, test } from "vitest";
import type { Agent } from "../../src/agent/agent.ts";
import { checkSandbox, collectGarbage } from "../../src/agent/check-sandbox.ts";
import { PODS_TABLE } from "../../src/core/plumbing/names.ts";
import type { Ipv4 } from "../../src/lib/ip.ts";
import { MINUTE_MS } from "../../src/lib/time.ts";
import { UNLINK_MS } from "../support/fake-kernel.ts";
import {
  createWorld,
  disagreements,
  idOf,
  keyOf,
  kindOf,
  pathOf,
  type World,
} from "../support/fake-ports.ts";

/** A node on which these pods run. */
async function withPods(
  ...names: string[]
): Promise<{ world: World; agent: Agent; ip: (name: string) => Ipv4 }> {
  const world = createWorld();
  const agent = await world.startRunning();
  await world.clock.advance(5_000);
  for (const name of names) world.add(agent, name);
  await world.clock.advance(1_000);
  const ips = new Map([...agent.cell.state.allocations.values()].map(({ key, ip }) => [key.containerId, ip]));
  const ip = (name: string): Ipv4 => {
    const found = ips.get(name);
    if (found === undefined) throw new Error(`${name} has no address`);
    return found;
  };
  return { world, agent, ip };
}

function routesTo(world: World): Ipv4[] {
  return world.host.routes().flatMap((route) => (route.table === PODS_TABLE ? [route.destination.ip] : []));
}

test("DEL answers when record and route are gone; the link goes afterwards, and the address rests", async () => {
  const { world, agent, ip } = await withPods("a");
  const del = world.del(agent, "a");
  await world.clock.settle();
  const answer = del.answer();
  expect(answer?.ok === true && answer.value?.allocation.ip).toBe(ip("a"));
  expect(routesTo(world)).toEqual([]);
  expect(world.host.forgotten).toEqual([ip("a")]);
  expect(world.saves.at(-1)?.allocations.size).toBe(0);
  expect([...world.host.links.values()].filter((link) => link.kind === "veth")).toHaveLength(1);
  expect(kindOf(agent, ip("a"))).toBe("cooling");
  await world.clock.advance(UNLINK_MS);
  expect([...world.host.links.values()].filter((link) => link.kind === "veth")).toEqual([]);
});

test("a second DEL, and a DEL of what never was, find nothing to do and are no error", async () => {
  const { world, agent } = await withPods("a");
  world.del(agent, "a");
  const again = world.del(agent, "a");
  const never = world.del(agent, "never");
  await world.clock.advance(1_000);
  expect([again.answer(), never.answer()]).toEqual([
    { ok: true, value: null },
    { ok: true, value: null },
  ]);
});

test("DEL needs neither the namespace nor EC2", async () => {
  const { world, agent, ip } = await withPods("a");
  world.host.endNetns(pathOf("a"));
  world.cloud.script("DescribeNetworkInterfaces", { how: "refuse", kind: "failing" }, { times: 1_000 });
  const del = world.del(agent, "a");
  await world.clock.settle();
  expect(del.answer()?.ok).toBe(true);
  expect(kindOf(agent, ip("a"))).toBe("cooling");
});

test("a DEL that cannot be written down is an error, and its address does not come back early", async () => {
  const { world, agent, ip } = await withPods("a");
  world.failSaves(1);
  const del = world.del(agent, "a");
  await world.clock.settle();
  const answer = del.answer();
  expect(answer?.ok === false && answer.error.code).toBe("checkpoint-unwritable");
  expect(routesTo(world)).toEqual([]);
  expect(kindOf(agent, ip("a"))).toBe("cooling");
  const again = world.del(agent, "a");
  await world.clock.settle();
  expect(again.answer()?.ok).toBe(true);
});

test("a DEL that could not be written down is written down once the disk has room, though nothing else happens", async () => {
  const { world, agent } = await withPods("a");
  const inRecord = (): boolean => world.disk.text?.includes('"containerId":"a"') ?? false;
  world.failSaves(3);
  const deletion = world.del(agent, "a");
  await world.clock.advance(1_000);
  expect(deletion.answer()).toMatchObject({ ok: false });
  expect(inRecord()).toBe(true);
  await world.clock.advance(5 * MINUTE_MS);
  expect(inRecord()).toBe(false);
});

test("a DEL that was not written down before the daemon died is found by the next one", async () => {
  const { world, agent: first, ip } = await withPods("a");
  world.failSaves(1_000);
  world.del(first, "a");
  world.host.endNetns(pathOf("a"));
  await world.clock.advance(100);
  world.crash();
  world.failSaves(0);
  const agent = await world.start();
  expect(agent.cell.state.allocations.size).toBe(0);
  expect(kindOf(agent, ip("a"))).toBe("cooling");
});

test("a route or a link that the kernel does not give up is told of, and goes with the repair", async () => {
  const { world, agent, ip } = await withPods("a");
  world.host.script("delete", "EBUSY");
  world.host.script("deleteLink", "EBUSY");
  const del = world.del(agent, "a");
  await world.clock.advance(UNLINK_MS);
  expect(del.answer()?.ok).toBe(true);
  expect(world.messages()).toEqual(expect.arrayContaining(["route not removed", "link not removed"]));
  expect(routesTo(world)).toEqual([ip("a")]);
  await world.clock.advance(world.settings.repairIntervalMs + 2_000);
  expect(routesTo(world)).toEqual([]);
  expect([...world.host.links.values()].filter((link) => link.kind === "veth")).toEqual([]);
});

// --- CHECK -------------------------------------------------------------------------------------------------------------

test("CHECK finds a sandbox as it should be", async () => {
  const { agent, ip } = await withPods("a");
  const checked = await checkSandbox(agent, keyOf("a"), pathOf("a"));
  expect(checked.ok && checked.value.ip).toBe(ip("a"));
});

test.each<{
  readonly what: string;
  readonly harm: (world: World, agent: Agent, ip: Ipv4) => void;
  readonly told: RegExp;
}>([
  {
    what: "its route",
    harm: (world) => world.host.dropRoutes((route) => route.table === PODS_TABLE),
    told: /^host: route .* is missing$/,
  },
  {
    what: "its link",
    harm: (world, agent) => {
      for (const { hostLink } of agent.cell.state.allocations.values()) world.host.dropLink(hostLink);
    },
    told: /^host: link .* is missing$/,
  },
  {
    what: "its namespace, which is another by now",
    harm: (world) => void world.host.addNetns(pathOf("a")),
    told: /is another namespace than at ADD$/,
  },
  {
    what: "its record",
    harm: (world, agent) => void world.del(agent, "a"),
    told: /no address on record/,
  },
])("CHECK tells what is missing: $what", async ({ harm, told }) => {
  const { world, agent, ip } = await withPods("a");
  harm(world, agent, ip("a"));
  const checked = await checkSandbox(agent, keyOf("a"), pathOf("a"));
  if (checked.ok || checked.error.code !== "check-failed") throw new Error("CHECK passed");
  expect(checked.error.differences[0]).toMatch(told);
});

test("CHECK tells that EC2 took the address away", async () => {
  const { world, agent, ip } = await withPods("a");
  world.cloud.primary.secondaryIps = [];
  world.cloud.taken.add(ip("a")); // Another instance has it by now.
  world.cloud.changed();
  await world.clock.advance(10 * 60_000);
  const checked = await checkSandbox(agent, keyOf("a"), pathOf("a"));
  expect(checked).toMatchObject({
    ok: false,
    error: {
      code: "check-failed",
      differences: [`EC2 no longer lists ${ip("a")} on ${world.cloud.primary.id}`],
    },
  });
});

// --- GC ----------------------------------------------------------------------------------------------------------------

test("GC frees what the runtime does not list and whose namespace is gone, and nothing else", async () => {
  const { world, agent } = await withPods("listed", "dead", "unlisted-but-living");
  world.host.endNetns(pathOf("dead"));
  world.host.endNetns(pathOf("listed"));
  const freed = await collectGarbage(agent, "net", [keyOf("listed")]);
  expect(freed).toEqual({ ok: true, value: 1 });
  expect([...agent.cell.state.allocations.keys()].sort()).toEqual([
    idOf("listed"),
    idOf("unlisted-but-living"),
  ]);
  expect(world.messages()).toContain("kept against GC: its namespace lives");
});

test("GC of another network touches nothing", async () => {
  const { world, agent } = await withPods("a");
  world.host.endNetns(pathOf("a"));
  expect(await collectGarbage(agent, "other", [])).toEqual({ ok: true, value: 0 });
  expect(agent.cell.state.allocations.has(idOf("a"))).toBe(true);
});

test("GC goes on after one that cannot be written down, and tells of it", async () => {
  const { world, agent } = await withPods("a", "b");
  world.host.endNetns(pathOf("a"));
  world.host.endNetns(pathOf("b"));
  world.failSaves(1);
  const freed = await collectGarbage(agent, "net", []);
  expect(!freed.ok && freed.error.code).toBe("checkpoint-unwritable");
  expect(agent.cell.state.allocations.size).toBe(0);
  await world.clock.advance(120_000);
  expect(disagreements(world, agent)).toEqual([]);
});
