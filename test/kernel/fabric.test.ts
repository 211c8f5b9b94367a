/** The fabric's own promises: it delivers what EC2 would, and drops what EC2 would. */
import { readdirSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { attachFabric } from "../../src/emulator/fabric/attach.ts";
import type { Fabric } from "../../src/emulator/fabric/fabric.ts";
import type { EmulatorEvent } from "../../src/emulator/events.ts";
import { cidr4, ipv4 } from "../../src/lib/ip.ts";
import { eniOf, ip, output, pings, seenAs, serveWhoAreYou, twoNodes } from "./fabric-tools.ts";

let fabric: Fabric;
beforeEach(async () => {
  fabric = await twoNodes();
});
afterEach(async () => {
  await fabric.close();
});

const linkNames = (netns: string): readonly string[] =>
  (JSON.parse(output(netns, ["ip", "-j", "link"])) as { ifname: string }[]).map(({ ifname }) => ifname);

test("nodes reach each other and the VPC's client, and the client reaches them", () => {
  expect(pings("tn1", "10.0.0.11")).toBe(true);
  expect(pings("tn1", "10.0.9.5")).toBe(true);
  expect(pings("tclient", "10.0.0.11")).toBe(true);
});

test("a jumbo packet crosses the VPC whole, and one for the internet must be smaller", () => {
  expect(pings("tn1", "10.0.0.11", ["-M", "do", "-s", "8973"])).toBe(true);
  expect(pings("tn1", "198.51.100.10", ["-M", "do", "-s", "1472"])).toBe(true);
  expect(pings("tn1", "198.51.100.10", ["-M", "do", "-s", "1473"])).toBe(false);
});

test("an address that nobody owns is answered by nothing, not even ARP", () => {
  expect(pings("tn1", "10.0.0.99")).toBe(false);
  expect(output("tn1", ["ip", "neighbour", "show", "10.0.0.99"])).toMatch(/INCOMPLETE|FAILED/);
});

test("a packet from an address that its ENI does not have is dropped and counted, with who sent it", async () => {
  ip("tn1", ["address add 10.0.0.77/32 dev lo"]);
  expect(pings("tn1", "10.0.0.11")).toBe(true);
  expect(await fabric.spoofedFrames()).toEqual([]);

  expect(pings("tn1", "10.0.0.11", ["-I", "10.0.0.77"])).toBe(false);
  const frame = { eniId: "eni-10", family: "ip", mac: "0a:00:00:00:01:00", ip: "10.0.0.77", count: 1 };
  expect(await fabric.spoofedFrames()).toContainEqual(frame);
});

test("an ENI's own address from another MAC, or from the other ENI's link, is dropped as well", async () => {
  await fabric.linkUp(eniOf(1, 1));
  ip("tn1", [
    "link set eth1 up",
    "route add 10.0.9.5/32 via 10.0.1.1 dev eth1 onlink",
    "neighbour add 10.0.1.1 lladdr 0a:ee:00:00:00:01 dev eth1",
  ]);
  const gatewayMac = /ether (\S+)/.exec(output("tvpc", ["ip", "link", "show", "p3"]))?.[1];
  ip("tn1", [`neighbour replace 10.0.1.1 lladdr ${gatewayMac} dev eth1 nud permanent`]);
  expect(pings("tn1", "10.0.9.5", ["-I", "10.0.0.10"])).toBe(false);
  expect(await fabric.spoofedFrames()).toMatchObject([{ eniId: "eni-11", family: "ip", ip: "10.0.0.10" }]);

  ip("tn2", ["link set eth0 address 0a:ee:00:00:00:02"]);
  expect(pings("tn2", "10.0.0.10")).toBe(false);
  expect(await fabric.spoofedFrames()).toContainEqual(
    expect.objectContaining({ eniId: "eni-20", family: "arp", mac: "0a:ee:00:00:00:02" }),
  );
});

test("with its source check off, an ENI may send from any address", async () => {
  ip("tn1", ["address add 10.0.0.77/32 dev lo"]);
  await fabric.sourceDestCheckChanged("eni-10", false);
  pings("tn1", "10.0.0.11", ["-I", "10.0.0.77"]);
  expect(await fabric.spoofedFrames()).toEqual([]);
  await fabric.sourceDestCheckChanged("eni-10", true);
  pings("tn1", "10.0.0.11", ["-I", "10.0.0.77"]);
  expect(await fabric.spoofedFrames()).toHaveLength(1);
});

test("a secondary ENI's link comes bare and down with the ENI's MAC, and goes with the detach", async () => {
  await fabric.linkUp(eniOf(1, 1));
  expect(linkNames("tn1")).toContain("eth1");
  expect(output("tn1", ["ip", "link", "show", "eth1"])).toMatch(
    /mtu 1500 .*state DOWN(.|\n)*0a:00:00:00:01:01/,
  );
  expect(output("tn1", ["ip", "-4", "address", "show", "eth1"])).toBe("");
  await fabric.linkDown("eni-11");
  expect(linkNames("tn1")).not.toContain("eth1");
  await fabric.linkUp(eniOf(1, 1)); // Attached again.
  expect(linkNames("tn1")).toContain("eth1");
});

test("addresses and prefixes are delivered to the ENI that has them now", async () => {
  const holder = (): string => output("tvpc", ["ip", "route", "get", "10.0.0.37"]);
  const eni = eniOf(1, 0);
  const prefixes = [cidr4("10.0.0.32/28")];
  await fabric.addressesChanged("eni-10", { ips: eni.ips, prefixes });
  ip("tn1", ["address add 10.0.0.37/32 dev lo"]);
  expect(pings("tn2", "10.0.0.37")).toBe(true);
  expect(pings("tn1", "10.0.0.11", ["-I", "10.0.0.37"])).toBe(true);

  const before = holder();
  const other = eniOf(2, 0);
  // The new owner is told of first, as it may be when an address is reassigned.
  await Promise.all([
    fabric.addressesChanged("eni-20", { ips: other.ips, prefixes }),
    fabric.addressesChanged("eni-10", { ips: eni.ips, prefixes: [] }),
  ]);
  expect(holder()).not.toBe(before);
  expect(pings("tn1", "10.0.0.11", ["-I", "10.0.0.37"])).toBe(false);
  await fabric.addressesChanged("eni-20", { ips: [...other.ips, ipv4("10.0.0.99")], prefixes: [] });
  expect(output("tvpc", ["ip", "route", "show", "type", "unicast", "10.0.0.32/28"])).toBe("");
});

test("IMDS answers a node, and not a pod behind it, whose answer would take one hop more", async () => {
  const stop = await serveWhoAreYou("tvpc", 80, "169.254.169.254");
  expect(seenAs("tn1", "169.254.169.254", 80)).toBe("10.0.0.10");
  expect(seenAs("tn2", "169.254.169.254", 80)).toBe("10.0.0.11");

  // A pod as any plugin would make it, with an address of the primary ENI.
  ip(null, ["netns add tpod"]);
  ip("tn1", [
    "link add host0 type veth peer name eth0 netns tpod",
    "link set host0 up",
    "address add 169.254.1.1/32 dev host0",
    "route add 10.0.0.20 dev host0",
  ]);
  ip("tpod", [
    "address add 10.0.0.20/32 dev eth0",
    "link set eth0 up",
    "route add 169.254.1.1 dev eth0",
    "route add default via 169.254.1.1",
  ]);
  expect(pings("tpod", "10.0.0.11")).toBe(true);
  expect(seenAs("tpod", "169.254.169.254", 80)).toBeNull();
  ip(null, ["netns del tpod"]);
  stop();
});

test("a node is on the internet by its public address, both ways, and other addresses are not", async () => {
  const stops = [await serveWhoAreYou("tworld", 8080), await serveWhoAreYou("tn1", 8080)];
  const publicIp = fabric.publicIpOf("i-1");
  expect(seenAs("tn1", "198.51.100.10", 8080)).toBe(publicIp);
  expect(seenAs("tworld", String(publicIp), 8080)).toBe("198.51.100.10");
  expect(fabric.publicIpOf("i-2")).not.toBe(publicIp);

  expect(await fabric.unmappedPackets()).toBe(0);
  ip("tn1", ["address add 10.0.0.20/32 dev lo"]);
  expect(pings("tn1", "198.51.100.10", ["-I", "10.0.0.20"])).toBe(false);
  expect(await fabric.unmappedPackets()).toBe(1);
  for (const stop of stops) stop();
});

test("what a world says becomes packets, and what the fabric cannot do is told and hinders nothing else", async () => {
  const failures: string[] = [];
  let say: (event: EmulatorEvent) => void = () => undefined;
  const stop = attachFabric(
    { onChange: (listener) => ((say = listener), () => undefined) },
    fabric,
    (failure, event) => failures.push(`${event.kind}: ${String(failure)}`),
  );
  ip("tn2", ["link add eth1 type veth peer name rival"]); // In the way of the second node's ENI.
  say({ kind: "link-up", ...eniOf(2, 1), attachmentId: "eni-attach-2", subnetId: "subnet-1" });
  say({ kind: "link-up", ...eniOf(1, 1), attachmentId: "eni-attach-1", subnetId: "subnet-1" });
  await fabric.settled();
  await new Promise((resolve) => setImmediate(resolve));
  expect(linkNames("tn1")).toContain("eth1");
  expect(failures).toEqual([expect.stringMatching(/^link-up: .*File exists/s)]);

  say({
    kind: "link-down",
    eniId: "eni-11",
    attachmentId: "eni-attach-1",
    instanceId: "i-1",
    mac: "0a:00:00:00:01:01",
  });
  await fabric.settled();
  expect(linkNames("tn1")).not.toContain("eth1");
  stop();
});

test("close leaves no namespace behind, and an instance that goes takes its own", async () => {
  await fabric.removeNode("i-2");
  expect(output("tvpc", ["ip", "netns", "list"])).not.toContain("tn2");
  expect(pings("tn1", "10.0.9.5")).toBe(true);
  const ours = output("tvpc", ["ip", "netns", "list"]);
  expect(ours).toMatch(/tn1/);
  await fabric.close();
  expect(readdirSync("/run/netns").filter((name) => /^t(n\d|vpc|igw|world|client)$/.test(name))).toEqual([]);
});
