// A node whose data path changes while pods run, and what befalls its ipvlan pods. Real daemons, the emulated VPC, real packets.
import { rmSync } from "node:fs";
import { expect, test } from "vitest";
import { kernelDifferences } from "../../src/lab/agreement.ts";
import { difference, kernelObjects } from "../../src/lab/kernel-view.ts";
import { waitUntil, type LabNode } from "../../src/lab/node.ts";
import { ask, listen } from "../../src/lab/probes.ts";
import { must } from "../../src/lab/processes.ts";
import type { Pod } from "../../src/lab/runtime.ts";
import { addPods, eventOf, failures, oneNode } from "../support/lab-node.ts";

const PORT = 8_080;
const IPVLAN = { BERTH_DATA_PATH: "ipvlan" };

type Running = { readonly pod: Pod; readonly ip: string; readonly kind: string };

async function start(node: LabNode, count: number, kind: string): Promise<Running[]> {
  const added = await addPods(node, count);
  expect(failures(added)).toEqual([]);
  for (const { pod } of added) await listen(pod.netns, PORT);
  return added.map(({ pod, answer }) => ({ pod, ip: answer.ip ?? "", kind }));
}

/** Each asks each other, and the node; all that was not answered with the asker's own address. */
async function wrongTalks(node: LabNode, pods: readonly Running[]): Promise<readonly string[]> {
  const wrong: string[] = [];
  for (const from of pods)
    for (const to of pods) {
      if (from === to) continue;
      const answer = await ask({ netns: from.pod.netns, protocol: "tcp", ip: to.ip, port: PORT });
      if (answer.kind !== "seen" || answer.ip !== from.ip)
        wrong.push(`${from.kind} ${from.ip} → ${to.kind} ${to.ip}: ${JSON.stringify(answer)}`);
    }
  for (const to of pods) {
    const answer = await ask({ netns: node.netns, protocol: "tcp", ip: to.ip, port: PORT });
    if (answer.kind !== "seen") wrong.push(`node → ${to.kind} ${to.ip}: ${JSON.stringify(answer)}`);
  }
  return wrong;
}

async function isSlave({ pod }: Running): Promise<boolean> {
  return (await must(["ip", "-d", "link", "show", "eth0"], { netns: pod.netns })).includes("ipvlan");
}

async function check(node: LabNode, { pod, ip }: Running): Promise<string> {
  const prevResult = {
    cniVersion: "1.0.0",
    interfaces: [{ name: "eth0", sandbox: pod.netns }],
    ips: [{ address: `${ip}/20`, interface: 0 }],
  };
  const checked = await node.runtime.call("CHECK", pod, { prevResult });
  return checked.ok ? "well" : eventOf(checked);
}

test("a node changes its data path twice: running pods keep theirs, all reach each other, and nothing is left of any", async () => {
  const { node } = await oneNode({ settings: { BERTH_REPAIR_INTERVAL_SECONDS: "1" } });
  await node.startDaemon();
  const before = await kernelObjects(node.netns);
  const routed = await start(node, 2, "routed");
  await node.stopDaemon("SIGTERM");
  await node.startDaemon(IPVLAN);
  const slaves = await start(node, 2, "ipvlan");
  expect(await Promise.all([...routed, ...slaves].map(isSlave))).toEqual([false, false, true, true]);
  expect(await wrongTalks(node, [...routed, ...slaves])).toEqual([]);

  await node.stopDaemon("SIGKILL"); // And back: the record tells each pod's path.
  await node.startDaemon();
  const later = await start(node, 1, "routed later");
  const all = [...routed, ...slaves, ...later];
  expect(await Promise.all(all.map(isSlave))).toEqual([false, false, true, true, false]);
  expect(await wrongTalks(node, all)).toEqual([]);
  expect(await Promise.all(all.map(async (each) => await check(node, each)))).toEqual(all.map(() => "well"));

  await node.stopDaemon("SIGTERM"); // Without the record the kernel tells it.
  rmSync(node.checkpointPath);
  await node.startDaemon();
  expect(await Promise.all(all.map(async (each) => await check(node, each)))).toEqual(all.map(() => "well"));
  expect(await wrongTalks(node, all)).toEqual([]);
  expect(await kernelDifferences(node)).toEqual([]);

  for (const { pod } of all) expect((await node.runtime.call("DEL", pod)).ok).toBe(true);
  for (const each of slaves)
    await waitUntil(
      "the slave is gone, though its namespace lives",
      10_000,
      async () => !(await must(["ip", "-o", "link"], { netns: each.pod.netns })).includes("eth0"),
    );
  const left = async (): Promise<readonly string[]> =>
    difference(before, await kernelObjects(node.netns)).filter((line) =>
      /iif|169\.254\.1\.2|eni[0-9a-f]{11}/.test(line),
    );
  await waitUntil("nothing is left in the node", 20_000, async () => (await left()).length === 0).catch(
    () => {},
  );
  expect(await left()).toEqual([]);
});

test("a pod that asks an ipvlan node for a host port or a bandwidth limit is not started, and is told why and what to do", async () => {
  const { node } = await oneNode({ settings: IPVLAN });
  await node.startDaemon();
  const [pod] = await node.runtime.makeSandboxes(["greedy"]);
  if (pod === undefined) throw new Error("no pod");
  const asks: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [
      { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: "tcp" }] },
      /host port 8080.*NodePort Service/,
    ],
    [{ bandwidth: { ingressRate: 1_000_000, ingressBurst: 1_000_000 } }, /bandwidth.*BERTH_DATA_PATH=routed/],
  ];
  for (const [runtimeConfig, words] of asks) {
    const refused = await node.runtime.call("ADD", pod, { runtimeConfig });
    expect(refused).toMatchObject({ ok: false, error: { code: 2 } });
    expect(eventOf(refused)).toMatch(words);
  }
  expect((await node.state()).allocations).toEqual([]);
  // What asks for nothing is no request.
  const runtimeConfig = {
    portMappings: [{ hostPort: 0, containerPort: 80, protocol: "tcp" }],
    bandwidth: {},
  };
  const added = await node.runtime.call("ADD", pod, { runtimeConfig });
  expect(added.ok).toBe(true);
  const { interfaces, ips, routes } = JSON.parse(added.finished.stdout) as Record<
    string,
    Record<string, unknown>[]
  >;
  expect(interfaces?.map(({ name }) => name)).toEqual([expect.stringMatching(/^eni/), "eth0"]);
  expect(ips).toMatchObject([{ address: expect.stringMatching(/\/20$/), gateway: "10.0.0.1", interface: 1 }]);
  expect(routes?.map(({ dst }) => dst)).toEqual(["0.0.0.0/0", "10.0.0.0/16"]);
  expect(interfaces?.[1]?.["mac"]).toBe(
    /link\/ether ([0-9a-f:]+)/.exec(await must(["ip", "link", "show", "eth0"], { netns: pod.netns }))?.[1],
  );
});

test("what others take from an ipvlan pod's node is put back: its rule, its next hop, its neighbours, its link", async () => {
  const { node } = await oneNode({ settings: { ...IPVLAN, BERTH_REPAIR_INTERVAL_SECONDS: "1" } });
  await node.startDaemon();
  const [pod] = await start(node, 1, "ipvlan");
  if (pod === undefined) throw new Error("no pod");
  const link = (await node.state()).allocations[0]?.hostLink ?? "none";
  for (const command of [
    `ip rule del priority 1537 iif ${link}`,
    `ip route flush table 100`,
    `ip neigh del 169.254.1.2 dev ${link}`,
    `ip neigh del ${pod.ip} dev ${link}`,
    `ip link del ${link}`,
    `ip route flush proto 98 table all; ip rule flush; ip rule add priority 32766 lookup main`,
  ]) {
    await must(["sh", "-c", command], { netns: node.netns });
    await waitUntil(
      `after \`${command}\` the pod is whole again`,
      20_000,
      async () => (await check(node, pod)) === "well",
    );
    expect(await wrongTalks(node, [pod])).toEqual([]);
  }
});

test("node and pod reach each other when neither answers ARP, as under kube-proxy's ipvs mode (kubernetes/kubernetes#71555)", async () => {
  const { node } = await oneNode({ settings: IPVLAN });
  await node.startDaemon();
  const [pod] = await start(node, 1, "ipvlan");
  if (pod === undefined) throw new Error("no pod");
  for (const netns of [node.netns, pod.pod.netns])
    await must(["sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=8"], { netns });
  expect(await wrongTalks(node, [pod])).toEqual([]);
  const link = (await node.state()).allocations[0]?.hostLink ?? "none";
  await node.stopDaemon("SIGTERM");
  await must(["ip", "neigh", "del", pod.ip, "dev", link], { netns: node.netns }); // The failure as it was told.
  expect(await wrongTalks(node, [pod])).not.toEqual([]);
  await node.startDaemon();
  expect(await wrongTalks(node, [pod])).toEqual([]);
});
