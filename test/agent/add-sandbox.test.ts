import { expect, test } from "vitest";
import type { Agent } from "../../src/agent/agent.ts";
import { refillJob } from "../../src/agent/refill.ts";
import type { HoldReason } from "../../src/core/model/action.ts";
import type { NodeError } from "../../src/core/model/error.ts";
import { after, MINUTE_MS } from "../../src/lib/time.ts";
import { UNLINK_MS } from "../support/fake-kernel.ts";
import { SUBNET } from "../support/fake-ec2.ts";
import { cidr4 } from "../../src/lib/ip.ts";
import { M5_LARGE } from "../support/pool-world.ts";
import {
  createWorld,
  disagreements,
  idOf,
  kindOf,
  pathOf,
  type Pending,
  type World,
  type WorldOptions,
} from "../support/fake-ports.ts";
import type { Result } from "../../src/lib/result.ts";
import type { Allocation } from "../../src/core/state/node-state.ts";

type Added = Pending<Result<Allocation, NodeError>>;

const POD_LINKS = (world: World): string[] =>
  [...world.host.links.values()].filter((link) => link.kind === "veth").map((link) => link.name);

async function filled(options: WorldOptions = {}): Promise<{ world: World; agent: Agent }> {
  const world = createWorld(options);
  const agent = await world.startRunning();
  await world.clock.advance(5_000);
  return { world, agent };
}

function given(add: Added): Allocation {
  const answer = add.answer();
  if (answer?.ok !== true) throw new Error(`no address: ${JSON.stringify(answer)}`);
  return answer.value;
}

function errorOf(add: Added): NodeError | null {
  const answer = add.answer();
  return answer?.ok === false ? answer.error : null;
}

test("a warm address is given at once, without a call to EC2 and after it was written down", async () => {
  const { world, agent } = await filled();
  const calls = world.cloud.calls.length;
  const began = world.clock.now();
  const add = world.add(agent, "a");
  await world.clock.settle();
  const allocation = given(add);
  expect(world.clock.now()).toBe(began);
  expect(
    world.cloud.calls.slice(calls).filter(({ operation }) => operation !== "AssignPrivateIpAddresses"),
  ).toEqual([]);
  expect(world.saves.some((state) => state.allocations.get(idOf("a"))?.ip === allocation.ip)).toBe(true);
  expect(world.host.routes().find((route) => route.link === allocation.hostLink)?.destination.ip).toBe(
    allocation.ip,
  );
  expect(world.host.links.get(allocation.hostLink)?.alias).toBe(idOf("a"));
});

test("ADDs that find no address are served in the order of their coming, as addresses come", async () => {
  // Room for nine, and EC2 has no more: each further one is an address that another pod leaves.
  const { world, agent } = await filled({
    pool: { maxEni: 1, cooldownMs: 5_000 },
    settings: { cooldownMs: 5_000 },
  });
  for (let i = 0; i < 9; i += 1) world.add(agent, `old-${i}`);
  await world.clock.advance(5_000);
  const order: string[] = [];
  const held = ["first", "second", "third"].map((name) => {
    const add = world.add(agent, name, { deadline: after(world.clock.now(), 60_000) });
    void add.promise.then((answer) => (answer.ok ? order.push(name) : undefined));
    return add;
  });
  await world.clock.advance(3_000);
  expect(held.map((add) => add.answer())).toEqual([null, null, null]);
  expect(agent.cell.state.waiting).toBe(3);
  for (let i = 0; i < 3; i += 1) {
    world.del(agent, `old-${i}`);
    await world.clock.advance(2_000);
  }
  await world.clock.advance(10_000);
  expect(order).toEqual(["first", "second", "third"]);
  expect(agent.cell.state.waiting).toBe(0);
});

test("an address that has cooled down goes to who is held, not to who comes, though the refill is busy elsewhere", async () => {
  const world = createWorld({ pool: { warmIpTarget: 1 }, limits: { ...M5_LARGE, addressesPerEni: 2 } });
  const agent = await world.start();
  await refillJob(agent).run(); // Once. From here on it may as well hang in a call.
  world.add(agent, "old");
  await world.clock.settle();
  world.del(agent, "old");
  const held = world.add(agent, "held", { deadline: after(world.clock.now(), 60_000) });
  await world.clock.advance(29_500);
  expect(held.answer()).toBeNull();
  await world.clock.advance(900); // Nobody rings, and nobody else comes.
  expect(held.answer()?.ok).toBe(true);
  const late = world.add(agent, "late");
  await world.clock.settle();
  expect(late.answer()).toBeNull();
});

test("while the pool has nothing, nobody is held beyond the deadline", async () => {
  const world = createWorld({ settings: { provisioning: false } });
  const agent = await world.startRunning();
  const add = world.add(agent, "a", { deadline: after(world.clock.now(), 7_000) });
  await world.clock.advance(6_999);
  expect(add.answer()).toBeNull();
  await world.clock.advance(1);
  expect(errorOf(add)).toMatchObject({ code: "no-address", waitedMs: 7_000 });
  expect(agent.cell.state.waiting).toBe(0);
  expect(POD_LINKS(world)).toEqual([]);
});

// --- Why there is no address -------------------------------------------------------------------------------------------

type Blocked = {
  readonly reason: HoldReason | null;
  readonly make: () => Promise<{ world: World; agent: Agent }>;
};

/** A node on which everything that is there is in use already. */
async function full(options: WorldOptions, pods: number): Promise<{ world: World; agent: Agent }> {
  const { world, agent } = await filled(options);
  for (let i = 0; i < pods; i += 1) world.add(agent, `old-${i}`);
  await world.clock.advance(30_000);
  return { world, agent };
}

const refuse =
  (kind: "throttled" | "denied" | "failing") => async (): Promise<{ world: World; agent: Agent }> => {
    const world = createWorld();
    world.cloud.script("AssignPrivateIpAddresses", { how: "refuse", kind }, { times: 1_000 });
    world.cloud.script("CreateNetworkInterface", { how: "refuse", kind }, { times: 1_000 });
    return { world, agent: await world.startRunning() };
  };

const BLOCKED: readonly Blocked[] = [
  { reason: "eni-limit", make: async () => await full({ pool: { maxEni: 1 } }, 9) },
  { reason: "max-pods", make: async () => await full({ pool: { maxPods: 4 } }, 4) },
  {
    reason: "subnet-exhausted",
    make: async () => await full({ ec2: { subnets: new Map([[SUBNET, cidr4("10.0.0.0/28")]]) } }, 9),
  },
  { reason: "throttled", make: refuse("throttled") },
  { reason: "access-denied", make: refuse("denied") },
  { reason: "failing", make: refuse("failing") },
  {
    reason: "call-in-doubt",
    make: async () => {
      const world = createWorld();
      world.cloud.script("AssignPrivateIpAddresses", { how: "lose-request" }, { times: 1_000 });
      return { world, agent: await world.startRunning() };
    },
  },
  {
    reason: "link-awaited",
    make: async () => {
      const { world, agent } = await filled({ pool: { warmIpTarget: 1 }, linkMs: 25_000 });
      for (let i = 0; i < 9; i += 1) world.add(agent, `old-${i}`);
      await world.clock.advance(1_000);
      return { world, agent };
    },
  },
  {
    reason: "cordoned",
    make: async () => {
      const { world, agent } = await full({}, 9);
      world.cordon(true);
      await world.clock.advance(5_000);
      for (let i = 9; i < 18; i += 1) world.add(agent, `old-${i}`);
      await world.clock.advance(5_000);
      return { world, agent };
    },
  },
  {
    reason: "cooling",
    make: async () => {
      const { world, agent } = await full({ pool: { maxEni: 1 } }, 9);
      world.del(agent, "old-0");
      return { world, agent };
    },
  },
  {
    reason: "provisioning-off",
    make: async () => {
      const world = createWorld({ settings: { provisioning: false } });
      return { world, agent: await world.startRunning() };
    },
  },
  {
    reason: null, // The refill is at work, and merely slow.
    make: async () => {
      const world = createWorld();
      world.cloud.setAround(async (operation) => {
        if (operation === "AssignPrivateIpAddresses") await world.pause(60_000);
      });
      return { world, agent: await world.startRunning() };
    },
  },
];

test.each(BLOCKED)("an ADD that waited in vain is told why: $reason", async ({ reason, make }) => {
  const { world, agent } = await make();
  // Asked a moment after the last call, when its outcome stands in the way.
  const add = world.add(agent, "a", { deadline: after(world.clock.now(), 2_000) });
  await world.clock.advance(2_000);
  const error = errorOf(add);
  expect(error).toMatchObject({ code: "no-address", blocked: reason });
  expect(error?.code === "no-address" ? error.detail.length : 0).toBeGreaterThan(5);
});

test("as soon as what stood in the way is gone, those who wait are served", async () => {
  const { world, agent } = await refuse("throttled")();
  const add = world.add(agent, "a", { deadline: after(world.clock.now(), MINUTE_MS) });
  await world.clock.advance(10_000);
  world.cloud.forgive();
  await world.clock.advance(30_000);
  expect(add.answer()?.ok).toBe(true);
});

// --- What goes wrong ---------------------------------------------------------------------------------------------------

/** Nothing stays: no record, no link, no route; the address rests and comes back. */
async function isUndone(world: World, agent: Agent, name: string): Promise<void> {
  expect(agent.cell.state.allocations.has(idOf(name))).toBe(false);
  expect(POD_LINKS(world)).toEqual([]);
  expect(world.host.routes().filter((route) => route.table === 100)).toEqual([]);
  const cooling = [...agent.cell.state.enis.values()].flatMap((eni) =>
    [...eni.addresses.values()].filter((address) => address.kind === "cooling"),
  );
  expect(cooling).toHaveLength(1);
  await world.clock.advance(MINUTE_MS);
  expect(disagreements(world, agent)).toEqual([]);
}

test("an ADD whose record cannot be written gives nothing out", async () => {
  const { world, agent } = await filled();
  world.failSaves(1);
  const add = world.add(agent, "a");
  await world.clock.settle();
  expect(errorOf(add)?.code).toBe("checkpoint-unwritable");
  await isUndone(world, agent, "a");
});

test("while the disk is full, ADDs that come again take nothing from the pool", async () => {
  const { world, agent } = await filled();
  world.failSaves(1_000);
  world.add(agent, "a");
  await world.clock.advance(1_000);
  const taken: number[] = [];
  agent.cell.onChange(({ allocations }) => void taken.push(allocations.size));
  for (let at = 0; at < 10; at += 1) {
    const add = world.add(agent, `b-${at}`);
    await world.clock.advance(100);
    expect(errorOf(add)?.code).toBe("checkpoint-unwritable");
  }
  expect(taken.filter((count) => count > 0)).toEqual([]);
  world.failSaves(0);
  const add = world.add(agent, "c");
  await world.clock.settle();
  expect(add.answer()?.ok).toBe(true);
});

test("an ADD that the kernel refuses leaves nothing, and tells the kernel's own words", async () => {
  const { world, agent } = await filled();
  world.host.script("plumbSandbox", "ENOBUFS");
  const add = world.add(agent, "a");
  await world.clock.settle();
  expect(errorOf(add)).toMatchObject({ code: "kernel-refused", errno: "ENOBUFS" });
  await isUndone(world, agent, "a");
});

test("an ADD whose caller goes away after its record was written is rolled back", async () => {
  const { world, agent } = await filled();
  const add = world.add(agent, "a");
  add.abort(); // The address is chosen by now; the record is being written.
  await world.clock.settle();
  expect(errorOf(add)?.code).toBe("cancelled");
  await isUndone(world, agent, "a");
});

test("an ADD whose caller goes away while it is held takes nothing", async () => {
  const world = createWorld({ settings: { provisioning: false } });
  const agent = await world.startRunning();
  const add = world.add(agent, "a");
  await world.clock.advance(1_000);
  add.abort();
  await world.clock.settle();
  expect(errorOf(add)?.code).toBe("cancelled");
  expect(agent.cell.state.waiting).toBe(0);
  expect(agent.cell.state.allocations.size).toBe(0);
});

test("an ADD into a namespace that is not there takes no address", async () => {
  const { world, agent } = await filled();
  const add = world.add(agent, "a", { netnsPath: "/run/netns/nowhere" });
  await world.clock.settle();
  expect(errorOf(add)?.code).toBe("netns-invalid");
  expect(world.saves.some((state) => state.allocations.size > 0)).toBe(false);
});

test("an interface that is there already is not touched, and the address goes back", async () => {
  const { world, agent } = await filled();
  world.add(agent, "a");
  await world.clock.settle();
  const [link] = POD_LINKS(world);
  const again = world.add(agent, "b", { netnsPath: pathOf("a") });
  await world.clock.settle();
  expect(errorOf(again)?.code).toBe("interface-exists");
  expect(POD_LINKS(world)).toEqual([link]);
});

// --- Asked twice -------------------------------------------------------------------------------------------------------

test("a request whose answer was lost gets the same address when it is asked again", async () => {
  const { world, agent } = await filled();
  const first = world.add(agent, "a");
  await world.clock.settle();
  const saves = world.saves.length;
  const second = world.add(agent, "a");
  await world.clock.settle();
  expect(given(second)).toBe(given(first));
  expect(world.saves).toHaveLength(saves);
  expect(POD_LINKS(world)).toHaveLength(1);
});

test("a daemon that died between record and kernel makes the link when it is asked again", async () => {
  const { world, agent: first } = await filled();
  world.crashAtPoint(2); // The record is safe; nothing is plumbed.
  world.add(first, "a");
  await world.clock.settle();
  expect(world.isDead()).toBe(true);
  world.crashNoMore();
  const ip = world.saves.at(-1)?.allocations.get(idOf("a"))?.ip;
  const agent = await world.start(); // No loop runs: nobody else makes the link.
  for (const link of POD_LINKS(world)) world.host.dropLink(link);
  const again = world.add(agent, "a");
  await world.clock.advance(UNLINK_MS);
  expect(given(again).ip).toBe(ip);
  expect(world.host.routes().find((route) => route.table === 100)?.destination.ip).toBe(ip);
});

test("a request asked again whose sandbox cannot be made whole is undone", async () => {
  const { world, agent } = await filled();
  const first = world.add(agent, "a");
  await world.clock.settle();
  world.host.dropLink(given(first).hostLink);
  world.host.script("plumbSandbox", "ENOBUFS");
  const again = world.add(agent, "a");
  await world.clock.advance(UNLINK_MS);
  expect(errorOf(again)?.code).toBe("kernel-refused");
  await isUndone(world, agent, "a");
});

test("another ADD for a sandbox that has its address is refused", async () => {
  const { world, agent } = await filled();
  const first = world.add(agent, "a");
  await world.clock.settle();
  const second = world.add(agent, "a", { requestId: "another" });
  await world.clock.settle();
  expect(errorOf(second)).toMatchObject({ code: "sandbox-exists", sandbox: idOf("a") });
  expect(agent.cell.state.allocations.get(idOf("a"))?.ip).toBe(given(first).ip);
});

test("an ADD for the namespace and name of a link on its way out waits for it to go", async () => {
  const { world, agent } = await filled();
  world.add(agent, "a");
  await world.clock.settle();
  world.del(agent, "a");
  const add = world.add(agent, "a", { requestId: "next" });
  await world.clock.advance(UNLINK_MS - 1);
  expect(add.answer()).toBeNull();
  await world.clock.advance(1);
  expect(add.answer()?.ok).toBe(true);
  expect(POD_LINKS(world)).toEqual([given(add).hostLink]);
});

test("a held ADD leaves its place among the workers, and takes it again before it goes on", async () => {
  const { world, agent } = await filled({ pool: { maxEni: 1 }, linkMs: null });
  for (let i = 0; i < 9; i += 1) world.add(agent, `old-${i}`);
  await world.clock.advance(5_000);
  const steps: string[] = [];
  const place = {
    leave: () => void steps.push("leave"),
    take: async () => {
      steps.push(`take at ${POD_LINKS(world).length} links`);
      await Promise.resolve();
    },
  };
  const add = world.add(agent, "a", { place, deadline: after(world.clock.now(), 60_000) });
  await world.clock.advance(1_000);
  expect(steps).toEqual(["leave"]);
  world.del(agent, "old-0");
  await world.clock.advance(40_000);
  expect(add.answer()?.ok).toBe(true);
  expect(steps).toEqual(["leave", "take at 8 links"]);
});

test("the address of an ADD rests after it was undone, and is then given out again", async () => {
  const { world, agent } = await filled({
    pool: { maxEni: 1, warmIpTarget: 1 },
    limits: { ...M5_LARGE, addressesPerEni: 2 },
  });
  world.host.script("plumbSandbox", "ENOBUFS");
  world.add(agent, "a");
  await world.clock.settle();
  const [ip] = world.cloud.primary.secondaryIps;
  expect(ip === undefined ? null : kindOf(agent, ip)).toBe("cooling");
  const next = world.add(agent, "b", { deadline: after(world.clock.now(), 60_000) });
  await world.clock.advance(29_999);
  expect(next.answer()).toBeNull();
  await world.clock.advance(2);
  expect(given(next).ip).toBe(ip);
});
