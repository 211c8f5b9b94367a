// Prefix delegation with the real daemon: pods on delegated /28s, on real packets, while the operator, the subnet and the pods change.
import { afterEach, describe, expect, test } from "vitest";
import { ec2Differences, kernelDifferences } from "../../src/lab/agreement.ts";
import { createCluster, type Cluster, type ClusterOptions } from "../../src/lab/cluster.ts";
import { waitUntil, type LabNode } from "../../src/lab/node.ts";
import { ping } from "../../src/lab/packets.ts";
import type { Pod } from "../../src/lab/runtime.ts";
import { call } from "../emulator/support.ts";

const QUICK = {
  ENABLE_PREFIX_DELEGATION: "true",
  IP_COOLDOWN_PERIOD: "1",
  BERTH_ENI_LIFE_MIN_SECONDS: "1",
  BERTH_SUBNET_PAUSE_SECONDS: "1",
  BERTH_REFILL_INTERVAL_SECONDS: "1",
} as const;
const SINGLES = { ENABLE_PREFIX_DELEGATION: "false" } as const;

type Placed = { readonly pod: Pod; readonly ip: string };

let cluster: Cluster | null = null;
afterEach(async () => {
  if (cluster === null) return;
  expect(await cluster.fabric.spoofedFrames()).toEqual([]);
  await cluster.close();
  cluster = null;
});

/** t3.small: three ENIs, each with room for three addresses or prefixes beside its own. */
async function oneNode(
  settings: Readonly<Record<string, string>> = {},
  {
    type = "t3.small",
    prefixCount = 0,
    secondaryCount = 0,
    subnetCidr = "10.0.0.0/22",
    start = true,
  }: {
    type?: string;
    prefixCount?: number;
    secondaryCount?: number;
    subnetCidr?: string;
    start?: boolean;
  } & Pick<ClusterOptions, "subnetCidr"> = {},
): Promise<LabNode> {
  cluster = await createCluster({
    nodes: [{ name: "n1", type, prefixCount, secondaryCount }],
    settings: { ...QUICK, ...settings },
    subnetCidr,
  });
  const [node] = cluster.nodes;
  if (node === undefined) throw new Error("no node");
  if (start) await node.startDaemon();
  return node;
}

async function addPods(node: LabNode, count: number, name = "pod"): Promise<readonly Placed[]> {
  const pods = await node.runtime.makeSandboxes(Array.from({ length: count }, (_, at) => `${name}-${at}`));
  return await Promise.all(
    pods.map(async (pod) => {
      const { ip, error } = await node.runtime.call("ADD", pod);
      if (ip === null) throw new Error(`${pod.name} did not start: ${error?.msg ?? "no reason"}`);
      return { pod, ip };
    }),
  );
}

async function deletePods(node: LabNode, placed: readonly Placed[]): Promise<void> {
  for (const { pod } of placed) expect((await node.runtime.call("DEL", pod)).error).toBeNull();
  await node.runtime.removeSandboxes(placed.map(({ pod }) => pod));
}

/** What EC2 has on the instance: /28s and single secondary addresses of each ENI, by device index. */
function heldInEc2(node: LabNode): readonly { readonly prefixes: number; readonly singles: number }[] {
  const enis = [...(cluster?.emulator.world().enis.values() ?? [])];
  return enis
    .filter((eni) => eni.attachment?.instanceId === node.instanceId)
    .sort((left, right) => (left.attachment?.deviceIndex ?? 0) - (right.attachment?.deviceIndex ?? 0))
    .map((eni) => ({ prefixes: eni.prefixes.length, singles: eni.secondaries.length }));
}

async function settlesAt(
  node: LabNode,
  held: readonly { readonly prefixes: number; readonly singles: number }[],
): Promise<void> {
  await waitUntil(`the node holds ${JSON.stringify(held)}`, 15_000, () => {
    return JSON.stringify(heldInEc2(node)) === JSON.stringify(held);
  }).catch(() => expect(heldInEc2(node)).toEqual(held)); // Which tells what it holds instead.
  await waitUntil("the daemon knows it, too", 5_000, async () => {
    return cluster !== null && (await ec2Differences(cluster, node)).length === 0;
  });
}

async function reached(placed: readonly Placed[]): Promise<void> {
  await cluster?.fabric.settled(); // The world is ahead of its packets by some milliseconds.
  const client = `/run/netns/${cluster?.fabric.client?.netns}`;
  for (const { ip } of placed) {
    const { received } = await ping(client, ip, { count: 1 });
    expect(`${ip}: ${received} of 1`).toBe(`${ip}: 1 of 1`);
  }
}

const only = (prefixes: number, singles = 0) => ({ prefixes, singles });
const blockOf = (ip: string): string => ip.replace(/\d+$/, (last) => `${Number(last) - (Number(last) % 16)}`);

describe("the targets of prefix mode", () => {
  test("ENABLE_PREFIX_DELEGATION with WARM_PREFIX_TARGET keeps as many wholly free /28s ready", async () => {
    const node = await oneNode({ WARM_PREFIX_TARGET: "2" });
    await settlesAt(node, [only(2)]);
    const pods = await addPods(node, 1);
    await settlesAt(node, [only(3)]); // The first is in use; two are whole again.
    await reached(pods);
    await deletePods(node, pods);
    await settlesAt(node, [only(2)]);
  });

  test("WARM_IP_TARGET in prefix mode goes before WARM_PREFIX_TARGET, and is met by whole prefixes", async () => {
    const node = await oneNode({ WARM_IP_TARGET: "17", WARM_PREFIX_TARGET: "3" });
    await settlesAt(node, [only(2)]);
    await addPods(node, 16);
    await settlesAt(node, [only(3)]); // 16 in use and 17 free need three.
  });

  test("MINIMUM_IP_TARGET in prefix mode is met by whole prefixes, over as many ENIs as it takes", async () => {
    const node = await oneNode({ MINIMUM_IP_TARGET: "50", WARM_IP_TARGET: "1" });
    await settlesAt(node, [only(3), only(1)]);
    const pods = await addPods(node, 50);
    const [last] = pods.slice(-1);
    await expect.poll(async () => await kernelDifferences(node), { timeout: 10_000 }).toEqual([]);
    await reached(last === undefined ? [] : [last]);
  });

  test("prefixes are asked for when an ENI is made, in the same call", async () => {
    const node = await oneNode({ MINIMUM_IP_TARGET: "80", WARM_IP_TARGET: "1" });
    await settlesAt(node, [only(3), only(2)]);
    expect(calls("CreateNetworkInterface")).toBe(1);
    expect(calls("AssignPrivateIpAddresses")).toBe(1); // The primary ENI's three, in one call.
  });

  test("prefixes that the launch gave the primary ENI are found at boot and used at once, with no call to EC2", async () => {
    const node = await oneNode({ WARM_IP_TARGET: "1" }, { prefixCount: 1 });
    const pods = await addPods(node, 5);
    await reached(pods);
    expect(new Set(pods.map(({ ip }) => blockOf(ip))).size).toBe(1);
    expect(heldInEc2(node)).toEqual([only(1)]);
    expect(calls("AssignPrivateIpAddresses")).toBe(0);
  });

  test("an instance type that is not Nitro gets single addresses, and the log says why", async () => {
    const node = await oneNode({ WARM_IP_TARGET: "3" }, { type: "t2.small" });
    await settlesAt(node, [only(0, 3)]);
    await reached(await addPods(node, 2));
    const [said] = node.log().match(/[^\n]*needs a Nitro instance[^\n]*/g) ?? [];
    expect(said).toContain("t2.small");
  });
});

describe("prefix mode switched while pods run", () => {
  test("switched on: running pods keep their addresses, new ones get prefixes, and single addresses go back as pods leave", async () => {
    const node = await oneNode({ ...SINGLES, WARM_IP_TARGET: "1" });
    const old = await addPods(node, 4); // Three on the primary ENI, one on a second.
    await settlesAt(node, [only(0, 3), only(0, 2)]);
    await node.stopDaemon("SIGTERM");
    await node.startDaemon({ ENABLE_PREFIX_DELEGATION: "true" });
    await settlesAt(node, [only(0, 3), only(1, 1)]); // Mixed: the primary ENI has no slot left, the second one has.
    const young = await addPods(node, 4, "young");
    expect(new Set(young.map(({ ip }) => blockOf(ip))).size).toBe(1);
    await reached([...old, ...young]);
    await expect.poll(async () => await kernelDifferences(node), { timeout: 10_000 }).toEqual([]);
    await deletePods(node, old);
    await settlesAt(node, [only(0), only(1)]);
    await reached(young);
  });

  test("switched off: running pods keep their addresses, new ones get single ones, and prefixes go back when their last pod leaves", async () => {
    const node = await oneNode({ WARM_PREFIX_TARGET: "1", WARM_IP_TARGET: "0" });
    const old = await addPods(node, 3);
    await settlesAt(node, [only(2)]);
    await node.stopDaemon("SIGTERM");
    await node.startDaemon({ ...SINGLES, WARM_IP_TARGET: "2" });
    await settlesAt(node, [only(1, 2)]); // The free prefix has gone back; the used one stays.
    const young = await addPods(node, 2, "young");
    for (const { ip } of young) expect(old.map((each) => blockOf(each.ip))).not.toContain(blockOf(ip));
    await reached([...old, ...young]);
    await deletePods(node, old.slice(0, 2));
    await settlesAt(node, [only(1, 2), only(0, 2)]);
    await deletePods(node, old.slice(2));
    await settlesAt(node, [only(0, 2), only(0, 2)]);
    await reached(young);
  });

  test("all slots taken by the other mode's free addresses: they make room", async () => {
    const node = await oneNode({ WARM_IP_TARGET: "1", MAX_ENI: "1" }, { secondaryCount: 3 });
    await settlesAt(node, [only(1)]);
    await reached(await addPods(node, 16));
  });
});

describe("a fragmented subnet", () => {
  const fragment = (): void => fault({ kind: "fragment-subnet" });

  test("pods that wait get single addresses while no /28 is free; the log says so once; prefixes come back by themselves", async () => {
    const node = await oneNode({ WARM_IP_TARGET: "2" }, { start: false });
    fragment();
    await node.startDaemon();
    await settlesAt(node, [only(0, 2)]);
    const pods = await addPods(node, 5); // More than one assignment.
    await settlesAt(node, [only(0, 3), only(0, 3), only(0, 1)]);
    await reached(pods);
    expect(node.log().match(/no \/28 is free: pods/g)).toHaveLength(1);
    fault({ kind: "empty-subnet" });
    await settlesAt(node, [only(0, 3), only(0, 2), only(1)]);
    expect(node.log().match(/a \/28 is free again/g)).toHaveLength(1);
    const young = await addPods(node, 2, "young");
    expect(new Set(young.map(({ ip }) => blockOf(ip))).size).toBe(1);
    await deletePods(node, pods);
    await settlesAt(node, [only(0), only(1)]);
    await reached(young);
  });

  test("BERTH_PREFIX_FALLBACK=none keeps to prefixes: pods wait, are told why, and start when a /28 is free", async () => {
    const node = await oneNode(
      {
        WARM_IP_TARGET: "2",
        BERTH_PREFIX_FALLBACK: "none",
        BERTH_SUBNET_PAUSE_SECONDS: "5", // The first ADD ends well before it, the second one after it.
        BERTH_ADD_HOLD_SECONDS: "3",
      },
      { start: false },
    );
    fragment();
    await node.startDaemon();
    const [pod] = await node.runtime.makeSandboxes(["early"]);
    if (pod === undefined) throw new Error("no sandbox");
    const refused = await node.runtime.call("ADD", pod);
    expect(refused.error?.msg).toContain("no free /28");
    expect(heldInEc2(node)).toEqual([only(0)]);
    fault({ kind: "empty-subnet" });
    expect((await node.runtime.call("ADD", pod)).error).toBeNull();
    await settlesAt(node, [only(1)]);
  });

  test("a reservation of type prefix keeps a used subnet usable for prefixes", async () => {
    const node = await oneNode({ WARM_IP_TARGET: "2" }, { start: false });
    await call(cluster?.emulator ?? never(), "CreateSubnetCidrReservation", {
      SubnetId: cluster?.subnetId ?? "",
      Cidr: "10.0.3.0/26",
      ReservationType: "prefix",
    });
    fault({ kind: "fill-subnet", leaveFree: 64 }); // Neighbours take every single address that they can get.
    await node.startDaemon();
    await settlesAt(node, [only(1)]);
    const pods = await addPods(node, 20);
    await reached(pods.slice(-1));
    expect(pods.every(({ ip }) => /^10\.0\.3\.([0-9]|[1-5][0-9]|6[0-3])$/.test(ip))).toBe(true);
  });

  function fault(
    what: { kind: "fragment-subnet" | "empty-subnet" } | { kind: "fill-subnet"; leaveFree: number },
  ): void {
    if (cluster === null) throw new Error("no cluster");
    cluster.emulator.fault({ ...what, subnetId: cluster.subnetId });
  }
});

test("pods are packed, so that whole prefixes become free and go back", async () => {
  const node = await oneNode({ WARM_IP_TARGET: "1" });
  const pods = await addPods(node, 32);
  await settlesAt(node, [only(3)]);
  // Every other pod leaves, all over the prefixes; those that come fill the fuller one.
  await deletePods(
    node,
    pods.filter((_, at) => at % 2 === 1),
  );
  const stay = pods.filter((_, at) => at % 2 === 0);
  await waitUntil("nothing rests", 10_000, async () => (await node.state()).census.cooling === 0);
  const young = await addPods(node, 4, "young");
  const usedBy = (placed: readonly Placed[]): Map<string, number> => {
    const counts = new Map<string, number>();
    for (const { ip } of placed) counts.set(blockOf(ip), (counts.get(blockOf(ip)) ?? 0) + 1);
    return counts;
  };
  const before = [...usedBy(stay)].sort((left, right) => right[1] - left[1]);
  const fullest = before.filter(([, count]) => count === before[0]?.[1]).map(([block]) => block);
  expect(young.every(({ ip }) => fullest.includes(blockOf(ip)))).toBe(true);
  // Now the pods of one prefix leave: it goes back whole.
  const [fewest] = [...usedBy([...stay, ...young])].sort((left, right) => left[1] - right[1]);
  await deletePods(
    node,
    [...stay, ...young].filter(({ ip }) => blockOf(ip) === fewest?.[0]),
  );
  await settlesAt(node, [only(2)]);
  // A DEL has answered before its link is gone.
  await expect.poll(async () => await kernelDifferences(node), { timeout: 10_000 }).toEqual([]);
});

/** Calls that EC2 was asked, by its own count. */
function calls(action: string): number {
  return cluster?.emulator.callCounts().get(action) ?? 0;
}

function never(): never {
  throw new Error("no cluster");
}
