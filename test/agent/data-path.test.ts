// The node's setting chooses the path of new pods; a pod's own record says which it has.
import { expect, test } from "vitest";
import { blockedBy, type Agent } from "../../src/agent/agent.ts";
import type { DataPath } from "../../src/core/plumbing/settings.ts";
import { isIpvlanGroup } from "../../src/core/plumbing/names.ts";
import { createWorld, idOf, SETTINGS, type World } from "../support/fake-ports.ts";

function worldOf(dataPath: DataPath): World {
  return createWorld({ settings: { plumbing: { ...SETTINGS.plumbing, dataPath } } });
}

async function started(world: World): Promise<Agent> {
  const agent = await world.startRunning();
  await world.clock.advance(5_000);
  return agent;
}

test("a pod of an ipvlan node is written down with its ENI's MAC and subnet, the node's address and the VPC's CIDRs", async () => {
  const world = worldOf("ipvlan");
  const agent = await started(world);
  world.add(agent, "a");
  await world.clock.settle();
  const allocation = agent.cell.state.allocations.get(idOf("a"));
  const eni = [...agent.cell.state.enis.values()].find(({ id }) => id === allocation?.eni);
  const { primaryIp, vpcCidrs } = agent.cell.state.instance;
  expect(allocation?.ipvlan).toEqual({
    parentMac: eni?.mac,
    subnet: eni?.subnetCidr,
    nodeIp: primaryIp,
    vpcCidrs,
  });
  const link = world.host.links.get(allocation?.hostLink ?? "");
  expect(link !== undefined && isIpvlanGroup(link.group)).toBe(true);
  expect(world.host.filterText()).toContain("return_to_pod");
});

test("a pod of a routed node has no such record", async () => {
  const world = worldOf("routed");
  const agent = await started(world);
  world.add(agent, "a");
  await world.clock.settle();
  const allocation = agent.cell.state.allocations.get(idOf("a"));
  expect(allocation !== undefined && !("ipvlan" in allocation)).toBe(true);
  expect(world.host.filterText()).not.toContain("return_to_pod");
});

test("on a kernel without ipvlan the daemon says so with the remedy, starts no pod, and does when the module has come", async () => {
  const world = worldOf("ipvlan");
  const why = "this kernel has no ipvlan: load its module, or set BERTH_DATA_PATH=routed";
  world.host.lackIpvlan(why);
  const agent = await started(world);
  expect(world.logs.filter(({ level }) => level === "error")).toContainEqual(
    expect.objectContaining({ detail: why }),
  );
  expect(blockedBy(agent)).toBe(why);
  const refused = world.add(agent, "a");
  await world.clock.settle();
  expect(refused.answer()).toMatchObject({ ok: false, error: { code: "not-ready", detail: why } });
  const before = world.messages().filter((message) => message.includes("BERTH_DATA_PATH")).length;
  await world.clock.advance(5 * world.settings.repairIntervalMs);
  expect(world.messages().filter((message) => message.includes("BERTH_DATA_PATH")).length).toBe(before); // Said once.
  world.host.lackIpvlan(null);
  await world.clock.advance(world.settings.repairIntervalMs);
  expect(world.messages()).toContain("the kernel has ipvlan now");
  const served = world.add(agent, "b");
  await world.clock.settle();
  expect(served.answer()).toMatchObject({ ok: true });
});

test("a routed node does not care whether its kernel has ipvlan", async () => {
  const world = worldOf("routed");
  world.host.lackIpvlan("none");
  expect(blockedBy(await started(world))).toBeNull();
});
