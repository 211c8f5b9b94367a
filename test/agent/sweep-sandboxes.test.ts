import { expect, test } from "vitest";
import type { Agent } from "../../src/agent/agent.ts";
import { MINUTE_MS } from "../../src/lib/time.ts";
import { createWorld, disagreements, idOf, pathOf, type World } from "../support/fake-ports.ts";

async function withPod(): Promise<{ world: World; agent: Agent; link: string }> {
  const world = createWorld();
  const agent = await world.startRunning();
  world.add(agent, "a");
  await world.clock.advance(5_000);
  const link = agent.cell.state.allocations.get(idOf("a"))?.hostLink ?? "";
  return { world, agent, link };
}

const holds = (agent: Agent): boolean => agent.cell.state.allocations.has(idOf("a"));

test("a sandbox that ended without DEL is freed after two looks, half a minute apart at least", async () => {
  const { world, agent } = await withPod();
  world.host.endNetns(pathOf("a"));
  world.cache.delete("a");
  const ended = world.clock.now();
  await world.clock.advanceUntil(() => !holds(agent));
  expect(world.clock.now() - ended).toBeGreaterThanOrEqual(30_000);
  expect(world.clock.now() - ended).toBeLessThan(2 * MINUTE_MS);
  expect(world.facts).toContainEqual({ kind: "removed", what: "allocation", why: "namespace-gone" });
  await world.clock.advance(2 * MINUTE_MS);
  expect(disagreements(world, agent)).toEqual([]);
});

test("one truth alone frees nothing", async () => {
  const { world, agent, link } = await withPod();
  world.host.hideNetns(pathOf("a")); // Its path is gone; its link and its cache entry are there.
  await world.clock.advance(10 * MINUTE_MS);
  expect(holds(agent)).toBe(true);
  expect(world.host.links.has(link)).toBe(true);
});

test("a living sandbox that the runtime's cache has forgotten keeps its address", async () => {
  const { world, agent } = await withPod();
  world.cache.clear();
  await world.clock.advance(10 * MINUTE_MS);
  expect(holds(agent)).toBe(true);
});

test("two truths are enough: the namespace's path is gone, and so is the runtime's record", async () => {
  const { world, agent, link } = await withPod();
  world.host.hideNetns(pathOf("a"));
  world.cache.clear();
  await world.clock.advance(3 * MINUTE_MS);
  expect(holds(agent)).toBe(false);
  expect(world.host.links.has(link)).toBe(false);
});

test("a sandbox that was away for one look only is kept", async () => {
  const { world, agent } = await withPod();
  const netns = agent.cell.state.allocations.get(idOf("a"))?.netns;
  let looks = 0;
  world.spyOnNetns((seen) => {
    if (seen.inode === netns?.inode) looks += 1;
    return looks !== 1;
  });
  world.cache.clear();
  await world.clock.advance(10 * MINUTE_MS);
  expect(looks).toBeGreaterThan(3);
  expect(holds(agent)).toBe(true);
});

test("a namespace of the same path that is another one does not keep the old sandbox's address", async () => {
  const { world, agent } = await withPod();
  world.host.endNetns(pathOf("a"));
  world.host.addNetns(pathOf("a"));
  await world.clock.advance(3 * MINUTE_MS);
  expect(holds(agent)).toBe(false);
});

test("a sandbox whose release cannot be written down is told of", async () => {
  const { world, agent } = await withPod();
  world.host.endNetns(pathOf("a"));
  world.failSaves(1);
  await world.clock.advance(3 * MINUTE_MS);
  expect(world.messages()).toContain("a sandbox without DEL could not be freed");
  expect(holds(agent)).toBe(false);
});

test("a sandbox that is just being added is left alone, however slowly its record is written", async () => {
  const { world, agent } = await withPod();
  world.holdSaves(true);
  const add = world.add(agent, "b");
  world.host.hideNetns(pathOf("b"));
  await world.clock.advance(5 * MINUTE_MS);
  expect(agent.cell.state.allocations.has(idOf("b"))).toBe(true);
  expect(add.answer()).toBeNull();
});

test("a sandbox found without checkpoint and cache, by its link alone, is kept as long as the link", async () => {
  const { world, link } = await withPod();
  world.crash();
  world.disk.text = null;
  world.cache.clear();
  const agent = await world.startRunning();
  await world.clock.advance(10 * MINUTE_MS);
  expect(holds(agent)).toBe(true);
  expect(world.host.links.has(link)).toBe(true);
  await agent.ports.save(agent.cell.state);
  world.crash();
  const next = await world.startRunning(); // From that checkpoint.
  await world.clock.advance(10 * MINUTE_MS);
  expect(holds(next)).toBe(true);
  world.host.endNetns(pathOf("a"));
  await world.clock.advance(3 * MINUTE_MS);
  expect(holds(next)).toBe(false);
});
