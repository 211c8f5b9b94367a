/**
 * The real daemon and plugin, unmodified but for the endpoint, in an EC2 that others wrote. What this shows: our calls are well formed
 * for another implementation, and the bookkeeping is right. What it cannot show (limits, races, exhaustion) stands in localstack/differences.md.
 */
import {
  AttachNetworkInterfaceCommand,
  CreateNetworkInterfaceCommand,
  DescribeNetworkInterfacesCommand,
  DescribeVpcsCommand,
  UnassignPrivateIpAddressesCommand,
} from "@aws-sdk/client-ec2";
import { rmSync } from "node:fs";
import { expect } from "vitest";
import { freshAccount, said } from "../../localstack/seed.ts";
import { type LabNode, waitUntil } from "../../src/lab/node.ts";
import { askTcp, ping, serveTcp, startPing } from "../../src/lab/packets.ts";
import { addPods, beliefs, type Lab, labTest, localStackUrl, type Placed, removePods } from "./lab.ts";

/** A pool of a known size, that breathes fast enough to watch. */
const QUICK = {
  WARM_IP_TARGET: "3",
  MINIMUM_IP_TARGET: "3",
  IP_COOLDOWN_PERIOD: "1",
  BERTH_ENI_LIFE_MIN_SECONDS: "1",
  BERTH_SWEEP_INTERVAL_SECONDS: "1",
  BERTH_LEAK_AGE_SECONDS: "2",
} as const;
const SMALL = { name: "n1", type: "t3.small" }; // 3 ENIs of 4 addresses: room for 9 pods.
const TWO = [SMALL, { name: "n2", type: "t3.small" }];

labTest(
  "the pool fills to its target, and the daemon believes what LocalStack has",
  { settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    await settled(lab.node);
    expect((await lab.node.state()).census).toMatchObject({ warm: 3, enis: 1 });
    const { daemon, localstack } = await beliefs(lab, lab.node);
    expect(daemon).toEqual(localstack);
  },
);

labTest(
  "an answer to Assign that lists every address puts no known one and not the node's own into the pool",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    await settled(lab.node);
    const [first] = await addPods(lab.node, ["first"]); // The pool goes back to its target: a second Assign, whose answer repeats the first.
    await settled(lab.node);
    const assigned = lab.calls.filter(({ action }) => action === "AssignPrivateIpAddresses");
    const listed = assigned.map(({ answer }) =>
      [...answer.matchAll(/<privateIpAddress>([\d.]+)</g)].map((match) => match[1]),
    );
    const primary = "10.0.100.10";
    expect(listed[0]?.[0], "LocalStack lists the primary address first").toBe(primary);

    const { enis } = await lab.node.state();
    const pool = enis.flatMap((eni) => eni.addresses.map(({ ip }) => ip));
    const owned = enis.map((eni) => eni.primaryIp);
    expect(pool.filter((ip) => owned.includes(ip))).toEqual([]);
    expect(new Set(pool).size).toBe(pool.length);
    const rest = await addPods(
      lab.node,
      Array.from({ length: 8 }, (_, at) => `pod-${at}`),
    );
    const given = [first, ...rest].map((placed) => placed?.ip);
    expect(new Set(given).size, "nine pods, nine addresses").toBe(9);
    expect(given.filter((ip) => ip === primary || owned.includes(ip ?? ""))).toEqual([]);
  },
);

labTest(
  "ENIs are attached up to the type's limit and no further, although LocalStack would take more",
  { nodes: [SMALL], settings: { ...QUICK, WARM_IP_TARGET: "20" } },
  async (lab) => {
    await lab.node.startDaemon();
    await waitUntil("the node is full", 30_000, async () => {
      const { plan, census } = await lab.node.state();
      return plan.kind === "hold" && plan.reason === "eni-limit" && census.warm === 9;
    });
    const state = await lab.node.state();
    expect(
      state.enis.map(({ deviceIndex, phase, addresses }) => [deviceIndex, phase, addresses.length]),
    ).toEqual([
      [0, "ready", 3],
      [1, "ready", 3],
      [2, "ready", 3],
    ]);
    expect(count(lab, "AttachNetworkInterface")).toBe(2);
    const { daemon, localstack } = await beliefs(lab, lab.node);
    expect(daemon).toEqual(localstack);
  },
);

labTest(
  "a new ENI carries the tags and the description by which it is found again",
  { nodes: [SMALL], settings: { ...QUICK, WARM_IP_TARGET: "4" } },
  async (lab) => {
    await lab.node.startDaemon();
    await settled(lab.node);
    await lab.world.look();
    const made = [...lab.world.world().enis.values()].filter((eni) => eni.attachment?.deviceIndex === 1);
    expect(made).toMatchObject([
      {
        description: `aws-K8S-${lab.node.instanceId}`,
        subnetId: lab.network.subnetId,
        groupIds: [lab.network.groupId],
        tags: {
          "node.k8s.amazonaws.com/instance_id": lab.node.instanceId,
          "node.k8s.amazonaws.com/createdAt": expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
          "cluster.k8s.amazonaws.com/name": "lab",
        },
      },
    ]);
    // Once at least: LocalStack forgets it, and the daemon asks again when it looks.
    expect(count(lab, "ModifyNetworkInterfaceAttribute"), "it is to go with its instance").toBeGreaterThan(0);
  },
);

labTest(
  "the daemon signs with the role's credentials, and every call of it is well formed",
  { nodes: [SMALL], settings: { ...QUICK, WARM_IP_TARGET: "4" } },
  async (lab) => {
    await lab.node.startDaemon();
    await settled(lab.node);
    await addPods(lab.node, ["a", "b"]);
    await settled(lab.node);
    expect(lab.calls.length).toBeGreaterThan(5);
    expect(lab.calls.filter(({ status }) => status !== 200)).toEqual([]);
    expect(new Set(lab.calls.map(({ accessKeyId }) => accessKeyId))).toEqual(new Set([lab.account.id]));
  },
);

labTest(
  "ADD gives an address that LocalStack has on an ENI, and a second ADD of the sandbox takes no other",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    const [placed] = await addPods(lab.node, ["one"]);
    if (placed === undefined) throw new Error("no pod");
    const again = await lab.node.runtime.call("ADD", placed.pod);
    expect(again.ok, "a runtime asks once").toBe(false);
    expect((await lab.node.state()).allocations.map(({ ip }) => ip)).toEqual([placed.ip]);
    await lab.world.look();
    const owners = [...lab.world.world().enis.values()].filter((eni) =>
      eni.secondaries.some((ip) => ip === placed.ip),
    );
    expect(owners.map((eni) => eni.attachment?.instanceId)).toEqual([lab.node.instanceId]);
    const prevResult = JSON.parse(placed.answer.finished.stdout) as unknown;
    expect(await lab.node.runtime.call("CHECK", placed.pod, { prevResult })).toMatchObject({ ok: true });
  },
);

labTest(
  "a burst beyond the warm pool is held and served as ENIs come",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    await settled(lab.node);
    const placed = await addPods(lab.node, names(9));
    expect(new Set(placed.map(({ ip }) => ip)).size).toBe(9);
    const { counters, enis } = await lab.node.state();
    expect(counters).toMatchObject({ adds: 9, failedAdds: 0 });
    expect(counters.heldAdds).toBeGreaterThan(0);
    expect(enis.length).toBe(3);
  },
);

labTest(
  "a node that is full refuses the next ADD with its reason, and serves it once a pod has left",
  { nodes: [SMALL], settings: { ...QUICK, BERTH_ADD_HOLD_SECONDS: "1" } },
  async (lab) => {
    await lab.node.startDaemon();
    const placed = await addPods(lab.node, names(9));
    const [extra] = await lab.node.runtime.makeSandboxes(["extra"]);
    const refused = await lab.node.runtime.call("ADD", said(extra));
    expect(refused.ok).toBe(false);
    expect(refused.error?.msg).toBeTruthy();
    expect(
      count(lab, "AttachNetworkInterface"),
      "LocalStack was not asked for what the type does not allow",
    ).toBe(2);
    await removePods(lab.node, placed.slice(0, 2));
    await waitUntil(
      "an address has cooled",
      10_000,
      async () => (await lab.node.runtime.call("ADD", said(extra))).ok,
    );
  },
);

labTest(
  "pods of one node on two ENIs, and their node, reach each other",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    const placed = await addPods(lab.node, names(9));
    const [left, right] = await onTwoEnis(lab.node, placed);
    expect(await ping(left.pod.netns, right.ip, { count: 20, intervalMs: 10 })).toEqual({
      sent: 20,
      received: 20,
    });
    expect(await ping(right.pod.netns, left.ip, { count: 20, intervalMs: 10 })).toEqual({
      sent: 20,
      received: 20,
    });
    expect(await ping(lab.node.netns, right.ip, { count: 20, intervalMs: 10 })).toEqual({
      sent: 20,
      received: 20,
    });
  },
);

labTest(
  "pods of two nodes reach each other by the addresses that LocalStack gave, and are seen as who they are",
  { nodes: TWO, settings: { ...QUICK, WARM_IP_TARGET: "4" } },
  async (lab) => {
    const [one, two] = lab.nodes;
    await Promise.all(lab.nodes.map((node) => node.startDaemon()));
    const mine = await addPods(said(one), names(4));
    const theirs = await addPods(said(two), names(4));
    const flows = mine.map(
      async ({ pod }, at) => await ping(pod.netns, said(theirs[at]).ip, { count: 20, intervalMs: 10 }),
    );
    expect(await Promise.all(flows)).toEqual(mine.map(() => ({ sent: 20, received: 20 })));
    const server = await serveTcp(said(theirs[3]).pod.netns, 8_080);
    expect(await askTcp(said(mine[3]).pod.netns, said(theirs[3]).ip, 8_080)).toBe(said(mine[3]).ip);
    server.close();
    expect(await lab.fabric.spoofedFrames()).toEqual([]);
  },
);

labTest(
  "a pod on a secondary ENI reaches the internet as its node",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    const placed = await addPods(lab.node, names(6));
    const [, second] = await onTwoEnis(lab.node, placed);
    const { netns, ip } = lab.fabric.outside;
    const server = await serveTcp(`/run/netns/${netns}`, 8_080);
    expect(await askTcp(second.pod.netns, ip, 8_080)).toBe(lab.fabric.publicIpOf(lab.node.instanceId));
    server.close();
  },
);

labTest(
  "DEL succeeds as often as it is asked, and the address rests before another pod has it",
  { nodes: [SMALL], settings: { ...QUICK, IP_COOLDOWN_PERIOD: "30" } },
  async (lab) => {
    await lab.node.startDaemon();
    const [placed] = await addPods(lab.node, ["one"]);
    const left = said(placed);
    expect((await lab.node.runtime.call("DEL", left.pod)).ok).toBe(true);
    expect((await lab.node.runtime.call("DEL", left.pod)).ok).toBe(true);
    expect((await lab.node.state()).census.cooling).toBe(1);
    const others = await addPods(lab.node, names(4));
    expect(others.map(({ ip }) => ip)).not.toContain(left.ip);
  },
);

labTest(
  "the pool shrinks when pods leave: ENIs are detached and deleted, addresses unassigned",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    const placed = await addPods(lab.node, names(9));
    await removePods(lab.node, placed);
    await waitUntil("the pool is at its target again", 60_000, async () => {
      const { census, loose } = await lab.node.state();
      return census.total === 3 && census.leaving === 0 && loose.length === 0;
    });
    await lab.world.look();
    const left = [...lab.world.world().enis.values()];
    expect(left.length, "of LocalStack's ENIs the primary one is left").toBe(
      (await lab.node.state()).enis.length,
    );
    expect(count(lab, "DetachNetworkInterface")).toBeGreaterThan(0);
    expect(count(lab, "DeleteNetworkInterface")).toBeGreaterThan(0);
    const { daemon, localstack } = await beliefs(lab, lab.node);
    expect(daemon).toEqual(localstack);
  },
);

labTest(
  "a daemon that is killed comes back to the same pods, and no ping is lost meanwhile",
  { nodes: TWO, settings: QUICK },
  async (lab) => {
    const [one, two] = [said(lab.nodes[0]), said(lab.nodes[1])];
    await Promise.all(lab.nodes.map((node) => node.startDaemon()));
    const mine = await addPods(one, names(5));
    const theirs = await addPods(two, names(2));
    await settled(one);
    const before = (await one.state()).allocations;
    const calls = lab.calls.length;
    const flows = mine.map(({ pod }, at) => startPing(pod.netns, said(theirs[at % 2]).ip, 20));
    await pause(300);
    await one.stopDaemon("SIGKILL");
    await pause(300);
    await one.startDaemon();
    await pause(500);
    const counts = await Promise.all(flows.map((flow) => flow.stop()));
    expect(counts.filter(({ sent, received }) => sent < 20 || sent !== received)).toEqual([]);
    expect((await one.state()).allocations).toEqual(before);
    const asked = lab.calls.slice(calls).filter(({ node }) => node === "n1");
    // LocalStack forgets DeleteOnTermination, so the daemon asks for it again: the one change that may come.
    const again = /^(?:Describe|ModifyNetworkInterfaceAttribute$)/;
    expect(asked.filter(({ action }) => !again.test(action)).map(({ action }) => action)).toEqual([]);
  },
);

labTest(
  "without its checkpoint the daemon believes again what attachments and sandboxes tell",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    const placed = await addPods(lab.node, names(5));
    await settled(lab.node);
    await lab.node.stopDaemon("SIGTERM");
    rmSync(lab.node.checkpointPath);
    await lab.node.startDaemon();
    const { allocations } = await lab.node.state();
    expect(allocations.map(({ ip }) => ip).sort()).toEqual(placed.map(({ ip }) => ip).sort());
    await settled(lab.node);
    const { daemon, localstack } = await beliefs(lab, lab.node);
    expect(daemon).toEqual(localstack);
    expect((await removePods(lab.node, placed)).every(({ ok }) => ok)).toBe(true);
  },
);

labTest(
  "leaked ENIs of ours are found and deleted; an ENI of somebody else stays",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    const ours = {
      "node.k8s.amazonaws.com/instance_id": lab.node.instanceId,
      "node.k8s.amazonaws.com/createdAt": "2020-01-01T00:00:00Z",
      "cluster.k8s.amazonaws.com/name": "lab",
    };
    const leaked = await createEni(lab, ours, `aws-K8S-${lab.node.instanceId}`);
    const strange = await createEni(lab, { team: "blue" }, "somebody else's");
    await lab.node.startDaemon();
    await waitUntil("the leaked ENI is deleted", 40_000, async () => !(await livingEnis(lab)).has(leaked));
    const living = await livingEnis(lab);
    expect(living.has(strange)).toBe(true);
  },
);

labTest(
  "an ENI that somebody else attached is left alone, and its slot is not ours",
  { nodes: [SMALL], settings: { ...QUICK, WARM_IP_TARGET: "20" } },
  async (lab) => {
    const { ec2 } = lab.account;
    const strange = await createEni(lab, { "node.k8s.amazonaws.com/no_manage": "true" }, "somebody else's");
    await ec2.send(
      new AttachNetworkInterfaceCommand({
        NetworkInterfaceId: strange,
        InstanceId: lab.node.instanceId,
        DeviceIndex: 1,
      }),
    );
    await lab.world.look();
    await lab.node.startDaemon();
    await settled(lab.node, "eni-limit");
    const state = await lab.node.state();
    expect(state.enis.map(({ deviceIndex }) => deviceIndex)).toEqual([0, 2]);
    expect(state.foreign.length).toBe(1);
    expect(state.census.total).toBe(6);
    expect((await livingEnis(lab)).has(strange)).toBe(true);
  },
);

labTest(
  "an address that somebody unassigned while the daemon was away is given to no pod",
  { nodes: [SMALL], settings: QUICK },
  async (lab) => {
    await lab.node.startDaemon();
    await settled(lab.node);
    const [eni] = (await lab.node.state()).enis;
    const ip = said(eni?.addresses[0]?.ip);
    await lab.node.stopDaemon("SIGTERM");
    await lab.account.ec2.send(
      new UnassignPrivateIpAddressesCommand({ NetworkInterfaceId: said(eni).id, PrivateIpAddresses: [ip] }),
    );
    await lab.node.startDaemon();
    await settled(lab.node);
    const placed = await addPods(lab.node, names(3));
    expect(placed.map((each) => each.ip)).not.toContain(ip);
    const { daemon, localstack } = await beliefs(lab, lab.node);
    expect(daemon).toEqual(localstack);
  },
);

labTest("two accounts see nothing of each other", { nodes: [SMALL], settings: QUICK }, async (lab) => {
  const other = freshAccount(localStackUrl());
  const { Vpcs = [] } = await other.ec2.send(new DescribeVpcsCommand({}));
  expect(Vpcs.map(({ VpcId }) => VpcId)).not.toContain(lab.network.vpcId);
  const { NetworkInterfaces } = await other.ec2.send(new DescribeNetworkInterfacesCommand({}));
  expect(NetworkInterfaces).toEqual([]);
  other.ec2.destroy();
});

async function settled(node: LabNode, reason = "on-target"): Promise<void> {
  await waitUntil(`the pool of ${node.name} settles`, 40_000, async () => {
    const { plan, census, loose } = await node.state();
    const still = census.coming + census.leaving + loose.length === 0;
    return plan.kind === "hold" && plan.reason === reason && still;
  });
}

async function createEni(
  lab: Lab,
  tags: Readonly<Record<string, string>>,
  description: string,
): Promise<string> {
  const Tags = Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
  const made = await lab.account.ec2.send(
    new CreateNetworkInterfaceCommand({
      SubnetId: lab.network.subnetId,
      Description: description,
      TagSpecifications: [{ ResourceType: "network-interface", Tags }],
    }),
  );
  return said(made.NetworkInterface?.NetworkInterfaceId);
}

async function livingEnis(lab: Lab): Promise<ReadonlySet<string>> {
  await lab.world.look();
  return new Set(lab.world.world().enis.keys());
}

function count(lab: Lab, action: string): number {
  return lab.calls.filter((call) => call.action === action).length;
}

function names(howMany: number): readonly string[] {
  return Array.from({ length: howMany }, (_, at) => `pod-${at}`);
}

/** A pod on the primary ENI and one on another. */
async function onTwoEnis(node: LabNode, placed: readonly Placed[]): Promise<readonly [Placed, Placed]> {
  const { enis } = await node.state();
  const roleOf = ({ ip }: Placed): string | undefined =>
    enis.find(({ addresses }) => addresses.some((each) => each.ip === ip))?.role;
  return [
    said(placed.find((each) => roleOf(each) === "primary")),
    said(placed.find((each) => roleOf(each) === "secondary")),
  ];
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
