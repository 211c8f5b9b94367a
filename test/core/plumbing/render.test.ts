import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Mac } from "../../../src/core/model/eni.ts";
import { eniObjects, linkOfEni } from "../../../src/core/plumbing/eni-host.ts";
import { nodeObjects } from "../../../src/core/plumbing/node-host.ts";
import { packetFilter, printPacketFilter } from "../../../src/core/plumbing/packet-filter.ts";
import { renderObject, renderSandbox } from "../../../src/core/plumbing/render.ts";
import { routedPlumbing } from "../../../src/core/plumbing/routed.ts";
import { cidr4 } from "../../../src/lib/ip.ts";
import { allocation, eni0, eni1, instance, limits, link, settings } from "./fixtures.ts";

test("a secondary ENI gets its address, its table and two rules, and no connected route", () => {
  expect(eniObjects(eni1, "eth1", limits, 9001).map(renderObject)).toEqual([
    "link set dev eth1 mtu 9001 up",
    "address replace 10.0.1.10/24 dev eth1 noprefixroute",
    "route replace 10.0.1.1 dev eth1 scope link table 10001 proto 98",
    "route replace default via 10.0.1.1 dev eth1 scope global table 10001 proto 98",
    "rule add priority 1536 fwmark 0x1/0x3f lookup 10001 protocol 98",
    "rule add priority 32765 from 10.0.1.10 lookup 10001 protocol 98",
  ]);
});

test("the primary ENI keeps what the OS gave it, but for the MTU", () => {
  expect(eniObjects(eni0, "ens5", limits, 8000).map(renderObject)).toEqual(["link set dev ens5 mtu 8000 up"]);
});

test("ENIs of the second network card are numbered after those of the first", () => {
  const twoCards = { ...limits, networkCards: [{ enis: 4 }, { enis: 4 }] };
  const slot = { networkCard: 1, deviceIndex: 2 };
  expect(eniObjects({ ...eni1, slot }, "eth6", twoCards, 9001).map(renderObject)).toContain(
    "rule add priority 1536 fwmark 0x6/0x3f lookup 10102 protocol 98",
  );
});

test("an ENI is found by its MAC, and not by a VLAN that copies it", () => {
  const links = [link("vlan.eth.1", { mac: eni1.mac, kind: "vlan" }), link("enX1", { mac: eni1.mac })];
  expect(linkOfEni(links, eni1.mac)?.name).toBe("enX1");
  expect(linkOfEni(links, "0a:00:00:00:00:99" as Mac)).toBeNull();
});

test("the node has one rule for all pods, one for marked packets, and one for each external service CIDR", () => {
  const services = { ...settings, externalServiceCidrs: [cidr4("172.20.0.0/16")] };
  expect(nodeObjects(services).map(renderObject)).toEqual([
    "rule add priority 512 lookup 100 protocol 98",
    "rule add priority 1024 fwmark 0x80/0x80 lookup main protocol 98",
    "rule add priority 1535 to 172.20.0.0/16 lookup main protocol 98",
  ]);
});

test("the rule for marked packets stays while either NodePort support or SNAT needs it", () => {
  const priorities = (nodePort: boolean, snat: boolean): readonly unknown[] =>
    nodeObjects({ ...settings, nodePort, snat: snat ? settings.snat : null }).map((object) =>
      object.kind === "rule" ? object.priority : null,
    );
  expect(priorities(true, true)).toEqual([512, 1024]);
  expect(priorities(true, false)).toEqual([512, 1024]);
  expect(priorities(false, true)).toEqual([512, 1024]);
  expect(priorities(false, false)).toEqual([512]);
});

test("a pod's plumbing is a pair in its ENI's group, a /32 behind 169.254.1.1, and one route in the host", () => {
  const plumbing = routedPlumbing(allocation("c1", "10.0.1.20", 1), limits);
  const { hostName, hostMac, podMac } = plumbing.pair;
  expect(hostName).toMatch(/^eni[0-9a-f]{11}$/);
  expect(renderSandbox(plumbing, "pod1")).toEqual({
    pair: [
      `link add ${hostName} mtu 9001 address ${hostMac} group 1002 type veth peer name eth0 mtu 9001 address ${podMac} netns pod1`,
      `link set dev ${hostName} alias berth/c1/eth0 up`,
    ],
    pod: [
      "link set dev lo mtu 65536 up",
      "link set dev eth0 mtu 9001 up",
      "address replace 10.0.1.20/32 dev eth0",
      "route replace 169.254.1.1 dev eth0 scope link table main proto 98",
      "route replace default via 169.254.1.1 dev eth0 scope global table main proto 98",
      `neighbour replace 169.254.1.1 dev eth0 lladdr ${hostMac} nud permanent`,
    ],
    host: [`route replace 10.0.1.20 dev ${hostName} scope link table 100 proto 98`],
  });
});

test("docs/data-paths.md shows the lines that we print", () => {
  const page = readFileSync("docs/data-paths.md", "utf8").replaceAll(/^```\w+\n.*?\n```$/gms, ""); // ipvlan.test.ts reads those.
  const blocks = [...page.matchAll(/^```\n(.*?)\n```$/gms)].flatMap((match) => (match[1] ?? "").split("\n"));
  const { pair, pod, host } = renderSandbox(routedPlumbing(allocation("c1", "10.0.1.20", 1), limits), "pod1");
  const printed = [
    ...[...nodeObjects(settings), ...eniObjects(eni1, "eth1", limits, 9001)].map(renderObject),
    ...pod.filter((line) => !line.startsWith("link")),
    ...pair,
    ...host,
    ...printPacketFilter(packetFilter(instance, "eth0", settings))
      .trimEnd()
      .split("\n"),
  ];
  expect(blocks).toEqual(printed);
});
