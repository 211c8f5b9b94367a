/**
 * The process dies at any save and any EC2 call, before it or after it, while the pool grows, while it shrinks and while an answer is lost.
 * What begins anew finds everything: no ENI is left behind, no address is given twice, and pods that live keep what they have.
 */
import { expect, test } from "vitest";
import type { Agent } from "../../src/agent/agent.ts";
import {
  createWorld,
  disagreements,
  idOf,
  pathOf,
  type World,
  type WorldOptions,
} from "../support/fake-ports.ts";

const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `pod-${i}`);

/** What the scenarios need of the world: addresses that must not come back too soon, ENIs that may go early. */
const OPTIONS: WorldOptions = {
  pool: { warmIpTarget: 1, minimumIpTarget: null, eniLifeMinMs: 1_000 },
  ec2: { callMs: 50, lagMs: 300 },
};

/** Twelve pods where nine addresses fit on the first ENI. */
async function grow(world: World): Promise<Agent> {
  const agent = await world.startRunning();
  for (const name of names(12)) world.add(agent, name);
  await world.clock.advance(20_000);
  return agent;
}

/** All of them end: the second ENI goes, and single addresses do. */
async function shrink(world: World, agent: Agent): Promise<void> {
  for (const name of names(12)) {
    world.del(agent, name);
    world.host.endNetns(pathOf(name));
  }
  await world.clock.advance(120_000);
}

/** The agent begins anew, and all that was begun has ended. The sweep for leaked ENIs comes too late to help: what was begun was written down. */
async function beginAnew(world: World): Promise<Agent> {
  world.crash();
  world.crashNoMore();
  await world.clock.advance(2_000);
  const agent = await world.startRunning();
  await world.clock.advance(150_000);
  return agent;
}

/** Every living pod's link has the address that its record says, and no two have one. */
function podsAreWell(world: World, agent: Agent): void {
  const routes = world.host.routes().filter((route) => route.table === 100);
  expect(new Set(routes.map((route) => route.destination.ip)).size).toBe(routes.length);
  for (const [name, { ips }] of world.cache) {
    if (!world.host.kernel.lookAtNetns(pathOf(name)).ok) continue;
    const allocation = agent.cell.state.allocations.get(idOf(name));
    expect(allocation?.ip, name).toBe(ips[0]);
    const route = routes.find((each) => each.link === allocation?.hostLink);
    expect(route?.destination.ip, name).toBe(ips[0]);
  }
}

async function pointsOf(scenario: (world: World) => Promise<unknown>): Promise<number> {
  const world = createWorld(OPTIONS);
  let points = 0;
  world.cloud.setAround(async () => {
    points += 1;
    await Promise.resolve();
  });
  const saves = world.saves.length;
  await scenario(world);
  return points + 2 * (world.saves.length - saves);
}

test("growing may end after any line", async () => {
  const count = await pointsOf(grow);
  expect(count).toBeGreaterThan(20);
  for (let nth = 1; nth <= count; nth += 1) {
    const world = createWorld(OPTIONS);
    world.crashAtPoint(nth);
    await grow(world).catch(() => null);
    expect(world.isDead(), `point ${nth}`).toBe(true);
    const agent = await beginAnew(world);
    expect(disagreements(world, agent), `point ${nth}`).toEqual([]);
    podsAreWell(world, agent);
  }
}, 60_000);

test("shrinking may end after any line", async () => {
  let count = 0;
  for (let nth = 1; nth === 1 || nth <= count; nth += 1) {
    const world = createWorld(OPTIONS);
    const first = await grow(world);
    if (nth === 1) count = await shrinkPoints();
    world.crashAtPoint(nth);
    await shrink(world, first);
    expect(world.isDead(), `point ${nth} of ${count}`).toBe(true);
    const agent = await beginAnew(world);
    expect(disagreements(world, agent), `point ${nth}`).toEqual([]);
    expect([...agent.cell.state.allocations.keys()]).toEqual([]);
    podsAreWell(world, agent);
  }
  expect(count).toBeGreaterThan(20);
}, 60_000);

async function shrinkPoints(): Promise<number> {
  const both = await pointsOf(async (world) => await shrink(world, await grow(world)));
  return both - (await pointsOf(grow));
}
