// The end of a daemon by SIGTERM and its return: what runs is finished, who is held goes over to the next daemon, pods notice nothing.
import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { waitUntil } from "../../src/lab/node.ts";
import { startPing } from "../../src/lab/packets.ts";
import { addPods, eventOf, failures, oneNode } from "../support/lab-node.ts";

test("ADDs that are held while the daemon is told to stop are served by the next one", async () => {
  const { cluster, node } = await oneNode({ settings: { BERTH_ADD_HOLD_SECONDS: "20" } });
  cluster.emulator.fault({ kind: "fill-subnet", subnetId: cluster.subnetId, leaveFree: 0 });
  await node.startDaemon();
  const held = addPods(node, 6);
  await waitUntil("all are held", 5_000, async () => (await node.state()).waiting === 6);
  const began = performance.now();
  await node.stopDaemon("SIGTERM");
  const stopMs = performance.now() - began;
  cluster.emulator.fault({ kind: "empty-subnet", subnetId: cluster.subnetId });
  await node.startDaemon();
  expect(failures(await held)).toEqual([]);
  expect(stopMs).toBeLessThan(5_000); // They would be held for 20 s.
  expect((await node.state()).allocations.length).toBe(6);
});

test("a burst that SIGTERM cuts through ends with every pod on the network and none twice", async () => {
  const { node } = await oneNode({ settings: { BERTH_ADD_HOLD_SECONDS: "20", WARM_IP_TARGET: "4" } });
  await node.startDaemon();
  const burst = addPods(node, 20);
  await new Promise((resolve) => setTimeout(resolve, 40));
  await node.stopDaemon("SIGTERM");
  await node.startDaemon();
  const added = await burst;
  expect(failures(added)).toEqual([]);
  const ips = added.map(({ answer }) => answer.ip ?? "");
  expect(new Set(ips).size).toBe(20);
  const { allocations } = await node.state();
  expect(allocations.map(({ ip }) => ip).sort()).toEqual([...ips].sort());
});

test("a DEL that comes while no daemon is there waits in the journal, and a daemon that EC2 keeps waiting still ends in time", async () => {
  const { cluster, node } = await oneNode({ secondaryCount: 3, settings: { BERTH_STOP_SECONDS: "2" } });
  await node.startDaemon();
  const [first] = await addPods(node, 1);
  if (first === undefined) throw new Error("no pod");
  cluster.emulator.fault({ kind: "hang", forMs: 60_000, times: 1_000 });
  await waitUntil("the daemon hangs in a call", 5_000, async () => (await node.state()).plan.kind === "act");
  const began = performance.now();
  await node.stopDaemon("SIGTERM");
  expect(performance.now() - began).toBeLessThan(20_000); // The call would take 60 s.
  const deleted = await node.runtime.call("DEL", first.pod);
  expect(deleted.ok).toBe(true);
  cluster.emulator.clearFaults();
  await node.startDaemon();
  expect((await node.state()).allocations).toEqual([]);
});

test("twenty pods ping on while their daemon is stopped and started, and none loses a packet", async () => {
  const { node } = await oneNode({ settings: { WARM_IP_TARGET: "1" } });
  await node.startDaemon();
  const added = await addPods(node, 20);
  expect(failures(added)).toEqual([]);
  const ips = added.map(({ answer }) => answer.ip ?? "");
  const flows = added.map(({ pod }, at) => startPing(pod.netns, ips[(at + 7) % ips.length] ?? "", 20));
  await new Promise((resolve) => setTimeout(resolve, 200));
  await node.stopDaemon("SIGTERM");
  await node.startDaemon();
  await new Promise((resolve) => setTimeout(resolve, 300));
  const counts = await Promise.all(flows.map(async (flow) => await flow.stop()));
  for (const { sent, received } of counts) expect([received, sent > 20]).toEqual([sent, true]);
  const { allocations, counters } = await node.state();
  expect(allocations.map(({ ip }) => ip).sort()).toEqual([...ips].sort());
  expect(counters.dels).toBe(0);
});

test("a second daemon waits for the first one's lock, says so, and serves when the first has gone", async () => {
  const { node } = await oneNode();
  await node.startDaemon();
  const first = node.daemonPid();
  const waiting = node.startDaemon({
    BERTH_METRICS_BIND_ADDRESS: "127.0.0.1:61778",
    BERTH_PROBE_BIND_ADDRESS: "127.0.0.1:61780",
    INTROSPECTION_BIND_ADDRESS: "127.0.0.1:61779",
  });
  await waitUntil("it says what it waits for", 10_000, () =>
    node.log().includes("another daemon runs on this node"),
  );
  const [pod] = await addPods(node, 1);
  expect(pod?.answer.ok, pod === undefined ? "" : pod.answer.finished.stdout).toBe(true);
  process.kill(first ?? 0, "SIGTERM");
  await waiting;
  await waitUntil("the first one has ended", 10_000, () => !existsSync(`/proc/${first}`));
  const recorded = async (): Promise<number> => {
    const state = await node.state().catch(() => null);
    return state?.ready === true ? state.allocations.length : 0; // One that starts tells that alone.
  };
  await waitUntil("the second one serves", 10_000, async () => (await recorded()) === 1);
  const [next] = await addPods(node, 1);
  expect(next?.answer.ok, next === undefined ? "" : eventOf(next.answer)).toBe(true);
});
