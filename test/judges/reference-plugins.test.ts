// The reference plugins of containernetworking/plugins, unchanged: `ptp` and `bridge` with us as their IPAM, and those that follow us in a chain.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCluster, type Cluster } from "../../src/lab/cluster.ts";
import type { LabNode } from "../../src/lab/node.ts";
import { ping } from "../../src/lab/packets.ts";
import { must } from "../../src/lab/processes.ts";
import type { Pod } from "../../src/lab/runtime.ts";
import { createCnitool, type Cnitool, makePod } from "./cnitool.ts";
import { findJudges } from "./build.ts";

const judges = findJudges();
if (!judges.ok) process.stderr.write(`${judges.error}\n`);

describe.skipIf(!judges.ok)("the reference plugins", () => {
  let cluster: Cluster;
  let node: LabNode; // Its pods are on secondary ENIs.
  let cnitool: Cnitool;
  let client: string;

  beforeAll(async () => {
    cluster = await createCluster({
      prefix: "chain-",
      folder: "/run/berth-chain",
      nodes: [{ name: "n1", type: "m5.xlarge", settings: { BERTH_PODS_ON_PRIMARY_ENI: "false" } }],
      settings: { WARM_IP_TARGET: "4", MINIMUM_IP_TARGET: "8", IP_COOLDOWN_PERIOD: "1" },
    });
    const [first] = cluster.nodes;
    if (first === undefined || !judges.ok) throw new Error("no node");
    node = first;
    await node.startDaemon();
    cnitool = await createCnitool(judges.value, node);
    client = `/run/netns/${cluster.fabric.client?.netns}`;
  });

  afterAll(async () => {
    cnitool.close();
    await cluster.close();
  });

  const addOf = async (network: string, pod: Pod): Promise<string> => {
    const { ips } = JSON.parse(await cnitool.must("add", network, pod)) as { ips: { address: string }[] }; // libcni made it.
    return ips[0]?.address.split("/")[0] ?? "";
  };

  const allocatedIps = async (): Promise<readonly string[]> =>
    (await node.state()).allocations.map(({ ip }) => ip);

  const inPod = async (pod: Pod, ...command: string[]): Promise<string> =>
    await must(command, { netns: pod.netns });

  const onNode = async (...command: string[]): Promise<string> => await must(command, { netns: node.netns });

  test("ptp asks us for an address, and its pod is reached by it, over a restart of the daemon too", async () => {
    const ptp = { type: "ptp", ipam: { type: "berth-cni" } };
    cnitool.configure({ cniVersion: "1.0.0", name: "ipam-ptp", plugins: [ptp] });
    const pod = await makePod(node, "ptp");
    const ip = await addOf("ipam-ptp", pod);
    expect(await allocatedIps()).toContain(ip);
    expect((await ping(client, ip, { count: 2, intervalMs: 20 })).received).toBe(2);
    await cnitool.must("check", "ipam-ptp", pod);
    await node.stopDaemon("SIGKILL");
    await node.startDaemon();
    expect(await allocatedIps()).toContain(ip);
    expect((await ping(client, ip, { count: 2, intervalMs: 20 })).received).toBe(2);
    await cnitool.must("check", "ipam-ptp", pod);

    await cnitool.must("del", "ipam-ptp", pod);
    await cnitool.must("del", "ipam-ptp", pod);
    expect(await allocatedIps()).not.toContain(ip);
    expect(await onNode("ip", "rule", "show")).not.toContain(ip);
    await node.runtime.removeSandboxes([pod]);
  });

  test("bridge gets an address each for two pods, and they speak over it", async () => {
    const bridge = { type: "bridge", bridge: "second0", ipam: { type: "berth-cni" } };
    cnitool.configure({ cniVersion: "1.0.0", name: "ipam-bridge", plugins: [bridge] });
    const [one, two] = [await makePod(node, "bridge-1"), await makePod(node, "bridge-2")];
    await addOf("ipam-bridge", one);
    await cnitool.must("check", "ipam-bridge", one); // Before the second pod comes: then the bridge takes another MAC, and `bridge` itself objects.
    const ip = await addOf("ipam-bridge", two);
    expect((await ping(one.netns, ip, { count: 2, intervalMs: 20 })).received).toBe(2);
    for (const pod of [one, two]) await cnitool.must("del", "ipam-bridge", pod);
    expect(await allocatedIps()).not.toContain(ip);
    await onNode("ip", "link", "del", "second0");
    await node.runtime.removeSandboxes([one, two]);
  });

  test("an ipam field that is not ours is refused by its name, and no address is taken", async () => {
    const ptp = { type: "ptp", ipam: { type: "berth-cni", subnet: "10.9.0.0/24" } };
    cnitool.configure({ cniVersion: "1.0.0", name: "ipam-wrong", plugins: [ptp] });
    const pod = await makePod(node, "wrong");
    const before = await allocatedIps();
    const done = await cnitool.call("add", "ipam-wrong", pod);
    expect(done.exitCode).toBe(1);
    expect(done.stderr).toContain("ipam.subnet");
    expect(await allocatedIps()).toEqual(before);
    await node.runtime.removeSandboxes([pod]);
  });

  test("tuning, bandwidth and firewall follow us in a chain, and the kernel holds what they promise", async () => {
    const limit = 8_000_000;
    const plugins = [
      { type: "berth-cni" },
      { type: "tuning", sysctl: { "net.ipv4.conf.eth0.log_martians": "1" } },
      { type: "bandwidth", ingressRate: limit, ingressBurst: limit, egressRate: limit, egressBurst: limit },
      { type: "firewall", backend: "iptables" },
    ];
    cnitool.configure({ cniVersion: "1.0.0", name: "chain", plugins });
    const pod = await makePod(node, "chain");
    const ip = await addOf("chain", pod);
    const link = (await node.state()).allocations.find((each) => each.ip === ip)?.hostLink ?? "";
    expect((await inPod(pod, "sysctl", "-n", "net.ipv4.conf.eth0.log_martians")).trim()).toBe("1");
    expect(await onNode("tc", "qdisc", "show", "dev", link)).toContain("tbf");
    expect(await onNode("iptables-save")).toContain(`-s ${ip}/32`);
    await cnitool.must("check", "chain", pod);
    expect((await ping(client, ip, { count: 2, intervalMs: 20 })).received).toBe(2);
    await cnitool.must("del", "chain", pod);
    expect(await onNode("iptables-save")).not.toContain(`-s ${ip}/32`);
    expect(await allocatedIps()).not.toContain(ip);
    await node.runtime.removeSandboxes([pod]);
  });
});
