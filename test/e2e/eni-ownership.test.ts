// Whose ENI it is decides what the daemon may do with it: its own are followed and given back, everyone else's are left as they are.
import { expect, test } from "vitest";
import { waitUntil } from "../../src/lab/node.ts";
import { ping } from "../../src/lab/packets.ts";
import { addPods, askEc2, enisAsText, failures, oneNode } from "../support/lab-node.ts";

test("ENIs that are no_manage, EFA, trunk or a service's are never touched, whatever the pool needs", async () => {
  const { cluster, node } = await oneNode({ type: "m5.4xlarge", settings: { WARM_IP_TARGET: "1" } });
  const foreign = { kind: "foreign-eni", subnetId: cluster.subnetId, instanceId: node.instanceId } as const;
  const owner = { "node.k8s.amazonaws.com/instance_id": node.instanceId };
  cluster.emulator.fault({ ...foreign, tags: { ...owner, "node.k8s.amazonaws.com/no_manage": "true" } });
  cluster.emulator.fault({ ...foreign, interfaceType: "efa", tags: owner });
  cluster.emulator.fault({ ...foreign, interfaceType: "trunk", tags: owner });
  cluster.emulator.fault({ ...foreign, managedBy: "amazon-elb", tags: owner });
  const before = enisAsText(cluster, node);
  expect(before.size).toBe(5);
  await node.startDaemon();
  const pods = await addPods(node, 40); // More than the primary ENI holds.
  expect(failures(pods)).toEqual([]);
  await Promise.all(pods.map(async ({ pod }) => await node.runtime.call("DEL", pod)));
  await waitUntil("the pool has shrunk", 15_000, async () => (await node.state()).census.total <= 2);
  const after = enisAsText(cluster, node);
  const primary = [...before.keys()][0] ?? "";
  for (const [id, text] of before) if (id !== primary) expect(after.get(id)).toBe(text);
  expect((await node.state()).foreign.map(({ reason }) => reason).sort()).toEqual([
    "efa",
    "no-manage",
    "service-managed",
    "trunk",
  ]);
}, 60_000);

test("an ENI that an operator attached without tags serves pods, and is neither changed nor detached", async () => {
  const { cluster, node } = await oneNode({ settings: { WARM_IP_TARGET: "1", MAX_ENI: "2" } });
  cluster.emulator.fault({
    kind: "foreign-eni",
    subnetId: cluster.subnetId,
    instanceId: node.instanceId,
    description: "by hand",
  });
  const [byHand] = [...enisAsText(cluster, node).keys()].slice(1);
  if (byHand === undefined) throw new Error("no ENI was attached");
  await askEc2(cluster, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: byHand,
    SecondaryPrivateIpAddressCount: "2",
  });
  const before = enisAsText(cluster, node).get(byHand);
  await node.startDaemon();
  const pods = await addPods(node, 11); // Nine of the primary ENI, two of this one.
  expect(failures(pods)).toEqual([]);
  const { allocations } = await node.state();
  const onIt = allocations.filter(({ eni }) => eni === byHand).map(({ ip }) => ip);
  expect(onIt.length).toBe(2);
  for (const ip of onIt) expect(await ping(node.netns, ip, { count: 2 })).toEqual({ sent: 2, received: 2 });
  await Promise.all(pods.map(async ({ pod }) => await node.runtime.call("DEL", pod)));
  await waitUntil("the pool has shrunk", 15_000, async () => (await node.state()).census.total <= 3);
  await new Promise((resolve) => setTimeout(resolve, 1_500)); // Another sweep.
  expect(enisAsText(cluster, node).get(byHand)).toBe(before);
});

test("our own ENIs end with their instance, and follow the security groups of the primary one", async () => {
  const { cluster, node } = await oneNode({ settings: { WARM_IP_TARGET: "12" } });
  await node.startDaemon();
  await waitUntil("a secondary ENI is there", 10_000, async () => (await node.state()).census.warm >= 12);
  const eniNow = (at: number): { groupIds: readonly string[]; ends: boolean | undefined } => {
    const [id] = [...enisAsText(cluster, node).keys()].slice(at);
    const eni = cluster.emulator.world().enis.get(id ?? "");
    return { groupIds: eni?.groupIds ?? [], ends: eni?.attachment?.deleteOnTermination };
  };
  expect(eniNow(1)).toEqual({ ...eniNow(0), ends: true });
  const [vpc] = [...cluster.emulator.world().vpcs.keys()];
  const group = cluster.emulator.seed.securityGroup({ vpcId: vpc ?? "", name: "stricter" });
  const [primary] = [...enisAsText(cluster, node).keys()];
  await askEc2(cluster, "ModifyNetworkInterfaceAttribute", {
    NetworkInterfaceId: primary ?? "",
    "SecurityGroupId.1": group,
  });
  await waitUntil("the groups are followed", 10_000, () => eniNow(1).groupIds.join() === group);
  await node.stopDaemon("SIGKILL");
  cluster.emulator.fault({ kind: "terminate-instance", instanceId: node.instanceId });
  await waitUntil("the instance is gone", 5_000, () => cluster.emulator.world().enis.size === 0);
});

test("when somebody detaches an ENI under its pods, others start on another one within seconds, and its pods can be deleted", async () => {
  const { cluster, node } = await oneNode({
    settings: { WARM_IP_TARGET: "1", BERTH_ADD_HOLD_SECONDS: "10", BERTH_LINK_WAIT_SECONDS: "60" },
  });
  await node.startDaemon();
  const pods = await addPods(node, 14);
  expect(failures(pods)).toEqual([]);
  const [, second] = [...enisAsText(cluster, node).keys()];
  const attachment = cluster.emulator.world().enis.get(second ?? "")?.attachment?.id ?? "";
  await askEc2(cluster, "DetachNetworkInterface", { AttachmentId: attachment, Force: "true" });
  await waitUntil("the loss is seen", 5_000, () => node.log().includes("an eni's link is gone"));
  const more = await addPods(node, 6);
  expect(failures(more)).toEqual([]);
  const deleted = await Promise.all(pods.map(async ({ pod }) => await node.runtime.call("DEL", pod)));
  expect(deleted.filter((each) => !each.ok)).toEqual([]);
});

test("no pod ever gets the primary address of an ENI", async () => {
  const { cluster, node } = await oneNode({ settings: { WARM_IP_TARGET: "1" } });
  await node.startDaemon();
  const pods = await addPods(node, 27); // All that an m5.large holds: 3 ENIs of 9.
  expect(failures(pods)).toEqual([]);
  const primaries = new Set([...cluster.emulator.world().enis.values()].map((eni) => String(eni.primary)));
  expect(pods.filter(({ answer }) => primaries.has(answer.ip ?? ""))).toEqual([]);
  expect(new Set(pods.map(({ answer }) => answer.ip)).size).toBe(27);
});
