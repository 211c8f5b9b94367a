/**
 * core/plumbing judged by packets: nodes and pods are plumbed by `ip` and `nft` with the lines that it prints, with no code of ours in
 * between. Each test also asks the fabric whether it had to drop a frame for its source, since EC2 would have.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { ipv4 } from "../../src/lib/ip.ts";
import type { Fabric, SpoofedFrame } from "../../src/emulator/fabric/fabric.ts";
import { settings } from "../core/plumbing/fixtures.ts";
import {
  eniOf,
  ip,
  output,
  pings,
  plumbFilter,
  plumbNode,
  plumbPod,
  seenAs,
  serveWhoAreYou,
  twoNodes,
} from "./fabric-tools.ts";

const enis1 = [eniOf(1, 0, ["10.0.0.20", "10.0.0.21"]), eniOf(1, 1, ["10.0.1.20", "10.0.1.21"])];
const enis2 = [eniOf(2, 0), eniOf(2, 1, ["10.0.1.30"])];
// Pods by where they are: node 1's primary ENI, its secondary one (two pods), node 2's secondary one.
const pods = {
  primary: "10.0.0.20",
  secondary: "10.0.1.20",
  neighbour: "10.0.1.21",
  remote: "10.0.1.30",
} as const;
const outsideIp = "198.51.100.10";
const SERVER_PORT = 8_080;
const NODE_PORT = 30_080;

let fabric: Fabric;
const stops: (() => void)[] = [];

beforeAll(async () => {
  fabric = await twoNodes();
  for (const eni of [...enis1, ...enis2]) {
    await fabric.linkUp(eni);
    await fabric.addressesChanged(eni.eniId, eni);
  }
  plumbNode("tn1", enis1, settings);
  plumbNode("tn2", enis2, settings);
  plumbPod("tn1", "primary", pods.primary, 0);
  plumbPod("tn1", "secondary", pods.secondary, 1);
  plumbPod("tn1", "neighbour", pods.neighbour, 1);
  plumbPod("tn2", "remote", pods.remote, 1);
  for (const netns of ["tn1", "tn2", "tworld", "tclient", ...Object.keys(pods)]) {
    stops.push(await serveWhoAreYou(netns, SERVER_PORT));
  }
});

let spoofedBefore: readonly SpoofedFrame[] = [];
beforeEach(async () => {
  spoofedBefore = await fabric.spoofedFrames();
});
afterEach(async () => {
  expect(await fabric.spoofedFrames()).toEqual(spoofedBefore);
});

afterAll(async () => {
  for (const stop of stops) stop();
  ip(
    null,
    Object.keys(pods).map((pod) => `netns del ${pod}`),
  );
  await fabric.close();
});

const nodes = { tn1: "10.0.0.10", tn2: "10.0.0.11" } as const;

test("every pod and node reaches every other, and is seen with its own address", () => {
  const all = { ...pods, ...nodes };
  for (const [from, own] of Object.entries(pods)) {
    for (const [to, address] of Object.entries(all)) {
      if (from !== to)
        expect(`${from} → ${to}: ${seenAs(from, address, SERVER_PORT)}`).toBe(`${from} → ${to}: ${own}`);
    }
  }
  for (const [from, own] of Object.entries(nodes)) {
    for (const [to, address] of Object.entries(pods)) {
      expect(`${from} → ${to}: ${seenAs(from, address, SERVER_PORT)}`).toBe(`${from} → ${to}: ${own}`);
    }
  }
});

test("a pod on a secondary ENI sends by that ENI", () => {
  const sent = (): number => linkStatistics("tn1", "eth1").tx.packets;
  const before = sent();
  expect(pings("secondary", nodes.tn2)).toBe(true);
  expect(sent()).toBeGreaterThan(before);
});

test("a host in the VPC reaches pods on both ENIs by their addresses, as a load balancer does", () => {
  expect(seenAs("tclient", pods.primary, SERVER_PORT)).toBe("10.0.9.5");
  expect(seenAs("tclient", pods.secondary, SERVER_PORT)).toBe("10.0.9.5");
  expect(seenAs("secondary", "10.0.9.5", SERVER_PORT)).toBe(pods.secondary);
});

test("a host off the VPC that reaches a pod by its own address is answered from it, by the pod's ENI", async () => {
  const publicIp = ipv4("203.0.113.99"); // Of the pod, so that the client's address arrives there unchanged.
  await fabric.mapPublicIp({ privateIp: ipv4(pods.secondary), publicIp });
  expect(seenAs("tworld", publicIp, SERVER_PORT)).toBe(outsideIp);
});

test("pods of both ENIs are seen on the internet as their node", () => {
  expect(seenAs("primary", outsideIp, SERVER_PORT)).toBe(fabric.publicIpOf("i-1"));
  expect(seenAs("secondary", outsideIp, SERVER_PORT)).toBe(fabric.publicIpOf("i-1"));
  expect(seenAs("remote", outsideIp, SERVER_PORT)).toBe(fabric.publicIpOf("i-2"));
});

test("a node port leads to a pod on a secondary ENI, from the VPC and the internet, with the client's address kept", () => {
  output("tn1", ["nft", "-f", "-"], portForward(pods.secondary));
  expect(seenAs("tclient", nodes.tn1, NODE_PORT)).toBe("10.0.9.5");
  expect(seenAs("tworld", String(fabric.publicIpOf("i-1")), NODE_PORT)).toBe(outsideIp);
  output("tn1", ["nft", "delete", "table", "ip", "forwarder"]);
});

test("a service whose backend is off the VPC is reached from pods of both ENIs", () => {
  output("tn1", ["nft", "-f", "-"], service("172.20.0.10", outsideIp));
  expect(seenAs("primary", "172.20.0.10", SERVER_PORT)).toBe(fabric.publicIpOf("i-1"));
  expect(seenAs("secondary", "172.20.0.10", SERVER_PORT)).toBe(fabric.publicIpOf("i-1"));
  output("tn1", ["nft", "-f", "-"], `delete table ip forwarder\n${service("172.20.0.10", pods.remote)}`);
  expect(seenAs("secondary", "172.20.0.10", SERVER_PORT)).toBe(pods.secondary);
  output("tn1", ["nft", "delete", "table", "ip", "forwarder"]);
});

test("a pod that uses another pod's address is stopped on its node", () => {
  const spoofed = (): number =>
    Number(/packets (\d+)/.exec(output("tn1", ["nft", "list", "counter", "inet", "berth", "spoofed"]))?.[1]);
  const before = spoofed();
  ip("secondary", [`address add ${pods.neighbour}/32 dev lo`]);
  expect(pings("secondary", nodes.tn2, ["-I", pods.neighbour])).toBe(false);
  ip("secondary", [`address del ${pods.neighbour}/32 dev lo`]);
  expect(spoofed() - before).toBe(1);
});

test("a full-sized packet crosses between pods of two nodes in one piece", () => {
  expect(pings("secondary", pods.remote, ["-M", "do", "-s", "8973"])).toBe(true);
});

test("IMDS does not answer a pod, on whichever ENI", async () => {
  const stop = await serveWhoAreYou("tvpc", 80, "169.254.169.254");
  expect(seenAs("tn1", "169.254.169.254", 80)).toBe(nodes.tn1);
  expect(seenAs("primary", "169.254.169.254", 80)).toBeNull();
  expect(seenAs("secondary", "169.254.169.254", 80)).toBeNull();
  stop();
});

test("under external SNAT a pod leaves the VPC by its own ENI with its own address", async () => {
  plumbFilter("tn1", enis1, { ...settings, snat: null });
  const before = await fabric.unmappedPackets();
  expect(pings("neighbour", outsideIp)).toBe(false); // The gateway has no public address for it; a NAT gateway would.
  expect(await fabric.unmappedPackets()).toBe(before + 1);
  plumbFilter("tn1", enis1, settings);
  expect(seenAs("secondary", outsideIp, SERVER_PORT)).toBe(fabric.publicIpOf("i-1"));
});

function linkStatistics(netns: string, link: string): { readonly tx: { readonly packets: number } } {
  const shown = JSON.parse(output(netns, ["ip", "-j", "-s", "link", "show", link])) as {
    stats64: { tx: { packets: number } };
  }[];
  return shown[0]?.stats64 ?? { tx: { packets: Number.NaN } };
}

/** DNAT at the priority of kube-proxy, of what comes to the node's address. */
function portForward(to: string): string {
  return forwarder(`fib daddr type local tcp dport ${NODE_PORT} dnat to ${to}:${SERVER_PORT}`);
}

function service(virtualIp: string, to: string): string {
  return forwarder(`ip daddr ${virtualIp} dnat to ${to}`);
}

function forwarder(rule: string): string {
  return `table ip forwarder {
    chain enter { type nat hook prerouting priority dstnat; ${rule}; }
  }`;
}
