// What leaves and enters the VPC, setting by setting: the daemon is started anew with each, pods keep running, and packets judge.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { addHost } from "../../src/lab/hosts.ts";
import { waitUntil, type LabNode } from "../../src/lab/node.ts";
import { ask, listen } from "../../src/lab/probes.ts";
import { must } from "../../src/lab/processes.ts";
import { PORT, type Stage } from "../../src/lab/matrix/stage.ts";
import { firstNode, ourTable, restartWith, seenBy, smallStage, spoofedSince } from "../support/stage.ts";

let stage: Stage;
let node: LabNode;
let spoofed: () => Promise<number>;

beforeAll(async () => {
  stage = await smallStage();
  node = firstNode(stage);
  spoofed = spoofedSince(stage);
});
afterAll(async () => await stage.close());
beforeEach(async () => void (await spoofed()));
afterEach(async () => await stage.loadKubeProxy(null));

describe("source NAT", () => {
  test("AWS_VPC_K8S_CNI_EXTERNALSNAT=true: pods leave by their own ENI with their own address; switched off again, as the node", async () => {
    const { pod, "primary-pod": primaryPod, node: own, peer, outside } = stage.places;
    await restartWith(node, { AWS_VPC_K8S_CNI_EXTERNALSNAT: "true" });
    const byEth1 = await sentBy("eth1");
    expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.gateway);
    expect((await sentBy("eth1")) - byEth1).toBeGreaterThan(2);
    expect(await seenBy(primaryPod, outside.ip)).toBe(stage.publicIps.gateway);
    expect(await seenBy(pod, peer.ip)).toBe(pod.ip);
    expect(await ourTable(node)).not.toContain("snat");

    await restartWith(node, {});
    expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.node);
    expect(await seenBy(pod, peer.ip)).toBe(own.ip);
    expect(await spoofed()).toBe(0);
  });

  test("AWS_VPC_K8S_CNI_RANDOMIZESNAT: prng and hashrandom draw a port (#1040), none keeps the pod's (#1893)", async () => {
    const words = { prng: "fully-random", hashrandom: " random", none: null } as const;
    for (const [at, [value, word]] of Object.entries(words).entries()) {
      await restartWith(node, { AWS_VPC_K8S_CNI_RANDOMIZESNAT: value });
      const snat = /snat ip to [^\n]*/.exec(await ourTable(node))?.[0] ?? "";
      expect(snat).toMatch(word === null ? /^snat ip to [0-9.]+$/ : new RegExp(`${word}$`));
      const kept: boolean[] = [];
      for (const more of [1, 2, 3]) {
        const fromPort = 41_000 + 10 * at + more; // Not one that a connection still has.
        const { netns } = stage.places.pod;
        const { outside } = stage.places;
        const seen = await ask({ netns, protocol: "udp", ip: outside.ip, port: PORT, fromPort });
        kept.push(seen.kind === "seen" && seen.port === fromPort);
      }
      expect(`${value}: ${kept.join(" ")}`).toBe(
        `${value}: ${value === "none" ? "true true true" : "false false false"}`,
      );
    }
  });

  test("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: those see the pod's own address (#777), and a bad item among them hurts nobody", async () => {
    const { pod, node: own, peer, outside } = stage.places;
    await restartWith(node, {});
    expect(await seenBy(pod, peer.ip)).toBe(own.ip);
    await restartWith(node, { AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: "172.31.0.0/16, nonsense,fd00::/8" });
    for (const protocol of ["tcp", "udp"] as const)
      expect(await seenBy(pod, peer.ip, { protocol })).toBe(pod.ip);
    expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.node);
    expect(await spoofed()).toBe(0);
  });

  test("AWS_EXTERNAL_SERVICE_CIDRS: those are looked up in the main table, though the pod's own ENI would be taken", async () => {
    // A network behind the node, as a VPN brings: only the node's main table knows it.
    const { pod } = stage.places;
    await must(["sh", "-c", BEHIND_THE_NODE], { env: { ...process.env, NODE: node.netns } });
    const office = await listen("/run/netns/st-office", PORT);
    await restartWith(node, { AWS_VPC_K8S_CNI_EXTERNALSNAT: "true" });
    expect(await seenBy(pod, "192.168.77.2")).toBe("nobody");
    await restartWith(node, {
      AWS_VPC_K8S_CNI_EXTERNALSNAT: "true",
      AWS_EXTERNAL_SERVICE_CIDRS: "192.168.77.0/24,bad",
    });
    expect(await seenBy(pod, "192.168.77.2")).toBe(pod.ip);
    await restartWith(node, { AWS_VPC_K8S_CNI_EXTERNALSNAT: "true" });
    expect(await seenBy(pod, "192.168.77.2")).toBe("nobody"); // The rule has gone with the setting.
    office.close();
    await must(["ip", "netns", "del", "st-office"]);
  });

  test("the VPC gains a CIDR and loses it while the daemon runs (#35): pods are seen there as themselves, then as the node", async () => {
    const { pod, node: own } = stage.places;
    await restartWith(node, {});
    const { emulator, fabric } = stage.cluster;
    const [vpcId = ""] = emulator.world().vpcs.keys();
    const other = await addHost(fabric, {
      netns: "st-second",
      ip: "100.66.0.10",
      subnetCidr: "100.66.0.0/24",
    });
    const listener = await listen(other.netns, PORT);
    expect(await seenBy(pod, other.ip)).toBe(own.ip);
    const becomes = async (seen: string): Promise<void> =>
      await waitUntil(`pods are seen as ${seen}`, 8_000, async () => (await seenBy(pod, other.ip)) === seen);
    emulator.seed.vpcCidrs(vpcId, ["10.0.0.0/16", "100.66.0.0/16", "100.67.0.0/16"]);
    await becomes(pod.ip);
    expect(await ourTable(node)).toMatch(/10\.0\.0\.0\/16, 100\.66\.0\.0\/16,\s+100\.67\.0\.0\/16/);
    emulator.seed.vpcCidrs(vpcId, ["10.0.0.0/16"]);
    await becomes(own.ip);
    listener.close();
    await fabric.removeNode("st-second");
    expect(await spoofed()).toBe(0);
  });
});

describe("NodePort", () => {
  const fromInternet = async (service: "to-pod" | "to-pod-local", protocol: "tcp" | "udp" = "tcp") =>
    await seenBy(stage.places.outside, stage.publicIps.node, { port: stage.nodePortOf(service), protocol });

  test("NodePort works under external SNAT, too: the mark's rule stays while either feature needs it", async () => {
    await stage.loadKubeProxy("iptables-nft");
    await restartWith(node, { AWS_VPC_K8S_CNI_EXTERNALSNAT: "true" });
    expect(await fromInternet("to-pod-local")).toBe(stage.places.outside.ip);
    await restartWith(node, { AWS_VPC_K8S_CNI_EXTERNALSNAT: "true", AWS_VPC_CNI_NODE_PORT_SUPPORT: "false" });
    expect(await must(["ip", "rule"], { netns: node.netns })).not.toContain("fwmark 0x80");
  });

  test("AWS_VPC_K8S_CNI_CONNMARK: another bit serves as well, and nothing of the old one is left", async () => {
    const { pod, outside } = stage.places;
    await stage.loadKubeProxy("iptables-nft");
    await restartWith(node, { AWS_VPC_K8S_CNI_CONNMARK: "0x100" });
    expect(await fromInternet("to-pod-local")).toBe(outside.ip);
    expect(await fromInternet("to-pod")).toBe(stage.places.node.ip);
    expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.node);
    const rules = await must(["ip", "rule"], { netns: node.netns });
    expect(rules).toContain("fwmark 0x100/0x100");
    expect(rules + (await ourTable(node))).not.toMatch(/0x0*80\b/);
    await restartWith(node, {});
    expect(await fromInternet("to-pod-local")).toBe(outside.ip);
    expect(await spoofed()).toBe(0);
  });

  // The last one: its pod goes on answering a connection that the VPC does not let through, and the count of spoofed frames tells of it.
  test("AWS_VPC_CNI_NODE_PORT_SUPPORT=false: replies leave by the pod's ENI and the VPC drops them (#75), but SNAT goes on (#2025)", async () => {
    const { pod, outside } = stage.places;
    await stage.loadKubeProxy("nftables");
    await restartWith(node, { AWS_VPC_CNI_NODE_PORT_SUPPORT: "false" });
    expect(await fromInternet("to-pod-local")).toBe("nobody");
    expect(await spoofed()).toBeGreaterThan(0);
    expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.node);

    await restartWith(node, { AWS_VPC_CNI_NODE_PORT_SUPPORT: "true" });
    expect(await fromInternet("to-pod-local")).toBe(outside.ip);
    expect(await fromInternet("to-pod-local", "udp")).toBe(outside.ip);
  });
});

/** A link of the node that is no ENI, to a network with one host; its way back is the node. */
const BEHIND_THE_NODE = `set -e
ip netns add st-office
nsenter --net=$NODE ip link add vpn0 type veth peer name eth0 netns st-office
nsenter --net=$NODE ip address add 192.168.77.1/24 dev vpn0
nsenter --net=$NODE ip link set vpn0 up
ip -n st-office address add 192.168.77.2/24 dev eth0
ip -n st-office link set eth0 up
ip -n st-office route add default via 192.168.77.1`;

async function sentBy(link: string): Promise<number> {
  const shown = await must(["ip", "-j", "-s", "link", "show", link], { netns: node.netns });
  const [first] = JSON.parse(shown) as { stats64: { tx: { packets: number } } }[]; // The shape of ip-link(8).
  return first?.stats64.tx.packets ?? 0;
}
