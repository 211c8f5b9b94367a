// ADDs that find the pool empty: held until an address comes, or answered with the reason why none does, and what to do about it.
import { expect, test } from "vitest";
import { addPods, eventOf, failures, oneNode } from "../support/lab-node.ts";

test("an ADD on an exhausted subnet fails with the subnet's name and a way out, and not before its time is over", async () => {
  const { cluster, node } = await oneNode({ emulator: { profile: "instant" } });
  cluster.emulator.fault({ kind: "fill-subnet", subnetId: cluster.subnetId, leaveFree: 0 });
  await node.startDaemon();
  const [added] = await addPods(node, 1);
  expect(added?.answer.error?.code).toBe(11);
  expect(added?.answer.finished.durationMs).toBeGreaterThan(1_900);
  const event = added === undefined ? "" : eventOf(added.answer);
  expect(event).toContain("the subnet has no free address");
  expect(event).toContain(cluster.subnetId);
});

test("the last addresses of a subnet are used, though there are fewer than the pool would like to have", async () => {
  const { cluster, node } = await oneNode({ settings: { WARM_IP_TARGET: "0", WARM_ENI_TARGET: "1" } });
  cluster.emulator.fault({ kind: "fill-subnet", subnetId: cluster.subnetId, leaveFree: 4 });
  await node.startDaemon();
  const added = await addPods(node, 2);
  expect(failures(added)).toEqual([]);
});

test("an ADD that EC2's throttling keeps waiting says so", async () => {
  const { cluster, node } = await oneNode({ settings: { BERTH_ADD_HOLD_SECONDS: "7" } }); // A call's own attempts come first.
  cluster.emulator.fault({ kind: "throttle", action: "AssignPrivateIpAddresses", times: 1_000 });
  await node.startDaemon();
  const [added] = await addPods(node, 1);
  const event = added === undefined ? "" : eventOf(added.answer);
  expect(event).toContain("EC2 is throttling");
  expect(event).toContain("AssignPrivateIpAddresses");
});

test("an ADD on a full node tells of the instance type's limit", async () => {
  const { node } = await oneNode({ settings: { MAX_ENI: "1" } });
  await node.startDaemon();
  const added = await addPods(node, 10);
  const failed = failures(added);
  expect(failed.length).toBe(1);
  expect(failed[0]).toContain("this instance type holds no more addresses");
  expect(failed[0]).toContain("MAX_ENI=1");
});

test("where every EC2 call is denied from the start, pods with warm addresses start, and the next one is told of the permissions", async () => {
  const { cluster, node } = await oneNode({ secondaryCount: 3 });
  cluster.emulator.fault({
    kind: "error",
    code: "UnauthorizedOperation",
    status: 403,
    message: "You are not authorized to perform this operation.",
    times: 10_000,
  });
  await node.startDaemon();
  const added = await addPods(node, 4);
  const failed = failures(added);
  expect(failed.length).toBe(1);
  expect(failed[0]).toContain("attach the permissions");
  expect(failed[0]).toContain("DescribeNetworkInterfaces");
});

test("where EC2 denies changes alone, the ADD names the operation that is missing in the role", async () => {
  const { cluster, node } = await oneNode();
  for (const action of ["AssignPrivateIpAddresses", "CreateNetworkInterface"]) {
    cluster.emulator.fault({
      kind: "error",
      action,
      code: "UnauthorizedOperation",
      status: 403,
      times: 1_000,
    });
  }
  await node.startDaemon();
  const [added] = await addPods(node, 1);
  const event = added === undefined ? "" : eventOf(added.answer);
  expect(event).toContain("attach the permissions");
  expect(event).toContain("AssignPrivateIpAddresses");
});

test("while EC2 hangs, the ADD says that EC2 does not answer, and DELs are not delayed", async () => {
  const { cluster, node } = await oneNode({
    secondaryCount: 3,
    settings: { BERTH_EC2_CALL_DEADLINE_SECONDS: "1" },
  });
  await node.startDaemon();
  const first = await addPods(node, 3);
  expect(failures(first)).toEqual([]);
  cluster.emulator.fault({ kind: "hang", forMs: 60_000, times: 1_000 });
  const held = addPods(node, 1);
  const [leaver] = first;
  if (leaver === undefined) throw new Error("no pod");
  const deleted = await node.runtime.call("DEL", leaver.pod);
  expect(deleted.ok).toBe(true);
  expect(deleted.finished.durationMs).toBeLessThan(900); // EC2 has a second.
  const [added] = await held; // It gets the address that the DEL gave back, once that has rested.
  expect(added?.answer.ok).toBe(true);
});

test("1,500 DELs of sandboxes that nobody knows do not delay an ADD", async () => {
  const { node } = await oneNode({ settings: { WARM_IP_TARGET: "5" } });
  await node.startDaemon();
  const [stranger] = await node.runtime.makeSandboxes(["stranger"]);
  if (stranger === undefined) throw new Error("no pod");
  const flood = Promise.all(
    Array.from({ length: 12 }, async (_, lane) => {
      for (let at = 0; at < 125; at += 1) {
        const gone = await node.runtime.call("DEL", { ...stranger, containerId: `gone-${lane}-${at}` });
        if (!gone.ok) throw new Error(eventOf(gone));
      }
    }),
  );
  const added = await addPods(node, 3);
  await flood;
  expect(failures(added)).toEqual([]);
  expect(Math.max(...added.map(({ answer }) => answer.finished.durationMs))).toBeLessThan(5_000);
}, 60_000);
