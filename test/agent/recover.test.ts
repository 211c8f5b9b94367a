import { expect, test } from "vitest";
import { recover } from "../../src/agent/recover.ts";
import type { KernelOp } from "../../src/core/plumbing/object.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import { MINUTE_MS } from "../../src/lib/time.ts";
import { createWorld, disagreements, idOf, pathOf, warmOf } from "../support/fake-ports.ts";

test("a start with pods running changes nothing in the kernel, and nothing at EC2", async () => {
  const world = createWorld();
  const first = await world.startRunning();
  for (let i = 0; i < 12; i += 1) world.add(first, `pod-${i}`);
  await world.clock.advance(20_000);
  const routes = world.host.routes();
  const rules = world.host.rules();
  const links = [...world.host.links.keys()];
  const writes = world.cloud.calls.filter((call) => !call.operation.startsWith("Describe")).length;
  world.crash();
  const agent = await world.start();
  expect(world.host.routes()).toEqual(routes);
  expect(world.host.rules()).toEqual(rules);
  expect([...world.host.links.keys()]).toEqual(links);
  expect(agent.cell.state.allocations).toEqual(first.cell.state.allocations);
  world.run(agent);
  await world.clock.advance(2 * MINUTE_MS);
  expect(world.cloud.calls.filter((call) => !call.operation.startsWith("Describe"))).toHaveLength(writes);
  expect(disagreements(world, agent)).toEqual([]);
});

test("at start the kernel is put right before anybody is served", async () => {
  const world = createWorld();
  const first = await world.startRunning();
  world.add(first, "a");
  await world.clock.advance(5_000);
  world.crash();
  const link = first.cell.state.allocations.get(idOf("a"))?.hostLink ?? "";
  world.host.dropRules(() => true);
  world.host.dropLink(link);
  world.host.flushFilter();
  await world.start();
  expect(world.host.rules().length).toBeGreaterThan(0);
  expect(world.host.links.has(link)).toBe(true);
  expect(world.host.filterText()).toContain("table inet berth");
});

test("a sandbox that only the kernel and the runtime know is written down before anything is plumbed for it", async () => {
  const world = createWorld();
  const first = await world.startRunning();
  world.add(first, "a");
  await world.clock.advance(5_000);
  world.crash();
  world.disk.text = null;
  world.host.dropRoutes(() => true);
  const before = world.saves.length;
  const known: boolean[] = [];
  const { apply } = world.host.kernel;
  Object.assign(world.host.kernel, {
    apply: (ops: readonly KernelOp[]) => {
      known.push(world.saves.slice(before).some(({ allocations }) => allocations.has(idOf("a"))));
      return apply(ops);
    },
  });
  await world.start();
  expect(known.length).toBeGreaterThan(0);
  expect(known).not.toContain(false);
});

test("after a boot the pool is there again, and every address has rested since the boot", async () => {
  const world = createWorld({ pool: { warmIpTarget: 3 } });
  const first = await world.startRunning();
  world.add(first, "a");
  await world.clock.advance(5_000);
  world.reboot();
  const agent = await world.startRunning();
  await world.clock.advance(5_000);
  expect(agent.cell.state.allocations.size).toBe(0);
  expect(warmOf(agent).length).toBeGreaterThanOrEqual(3);
  expect(disagreements(world, agent)).toEqual([]);
});

test("while IMDS is away the start waits, says so, and goes on by itself", async () => {
  const world = createWorld();
  world.cloud.imdsAwayFor(6);
  const agent = await world.startRunning();
  expect(agent.cell.state.instance.id).toBe(world.instance.id);
  const told = world.logs.filter((each) => each.message === "not ready: the instance is not known yet");
  expect(told).toHaveLength(6);
  expect(told.map((each) => each.level)).toEqual(["warn", "warn", "warn", "error", "error", "error"]);
});

test("a start that is stopped while IMDS is away ends", async () => {
  const world = createWorld();
  world.cloud.imdsAwayFor(1_000);
  const stop = new AbortController();
  let answer: unknown = "none yet";
  const ports = world.ports();
  void recover({
    ports,
    settings: world.settings,
    pool: world.pool,
    limitsOf: () => null,
    remembered: null,
    signal: stop.signal,
  }).then((agent) => {
    answer = agent;
  });
  await world.clock.advance(10_000);
  expect(answer).toBe("none yet");
  stop.abort();
  await world.clock.settle();
  expect(answer).toBeNull();
});

test("an instance type that no table knows is asked for at EC2", async () => {
  const world = createWorld();
  let answer: unknown = null;
  void recover({
    ports: world.ports(),
    settings: world.settings,
    pool: world.pool,
    limitsOf: () => null,
    remembered: null,
    signal: new AbortController().signal,
  }).then((agent) => {
    answer = agent?.cell.state.instance.limits;
  });
  await world.clock.advance(1_000);
  expect(answer).toEqual(world.instance.limits);
  expect(world.cloud.countOf("DescribeInstanceTypes")).toBe(1);
});

// --- EC2's bad day -----------------------------------------------------------------------------------------------------

const AWAY = { how: "refuse", kind: "failing" } as const;

test("where EC2 cannot be asked, IMDS is enough for pods to start on warm addresses, and EC2 is not written to unseen", async () => {
  const world = createWorld();
  const first = await world.startRunning();
  for (let i = 0; i < 12; i += 1) world.add(first, `pod-${i}`);
  await world.clock.advance(20_000);
  world.crash();
  const writes = world.cloud.calls.filter((call) => !call.operation.startsWith("Describe")).length;
  world.cloud.script("DescribeNetworkInterfaces", AWAY, { times: 1_000_000 });
  const agent = await world.startRunning();
  expect(agent.cell.state.allocations).toEqual(first.cell.state.allocations);
  const add = world.add(agent, "new");
  await world.clock.advance(5 * MINUTE_MS);
  expect(add.answer()?.ok).toBe(true);
  expect(world.cloud.calls.filter((call) => !call.operation.startsWith("Describe"))).toHaveLength(writes);
  world.cloud.forgive();
  await world.clock.advance(5 * MINUTE_MS);
  expect(disagreements(world, agent)).toEqual([]);
  expect(warmOf(agent)).toHaveLength(3);
});

test("what IMDS alone told is corrected by EC2's first word: whose an ENI is, and what is on it", async () => {
  const world = createWorld({ pool: { eniLifeMinMs: 1_000 } });
  const first = await world.startRunning();
  for (let i = 0; i < 12; i += 1) world.add(first, `pod-${i}`);
  await world.clock.advance(20_000);
  world.crash();
  const foreign = world.cloud.plant({
    slot: { networkCard: 0, deviceIndex: 2 },
    interfaceType: "efa",
    secondaryIps: [ipv4("10.0.3.3")],
  });
  world.cloud.script("DescribeNetworkInterfaces", AWAY, { times: 5 });
  const agent = await world.startRunning();
  // IMDS tells no types and no tags: what our record does not speak for is not used on its word.
  expect(agent.cell.state.enis.has(foreign.id)).toBe(false);
  await world.clock.advance(MINUTE_MS);
  expect(agent.cell.state.foreign).toMatchObject([{ id: foreign.id, reason: "efa" }]);
  for (let i = 0; i < 12; i += 1) {
    world.del(agent, `pod-${i}`);
    world.host.endNetns(pathOf(`pod-${i}`));
  }
  await world.clock.advance(5 * MINUTE_MS);
  // Ours was known without tags and attachment id at first; now it is detached and gone.
  expect([...world.cloud.enis.keys()]).toEqual([world.cloud.primary.id, foreign.id]);
  expect(disagreements(world, agent)).toEqual([]);
});
