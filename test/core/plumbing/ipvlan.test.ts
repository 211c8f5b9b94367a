import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { EniId } from "../../../src/core/model/eni.ts";
import { diffHost } from "../../../src/core/plumbing/diff.ts";
import { planHost } from "../../../src/core/plumbing/host.ts";
import { ipvlanPathOf, ipvlanPlumbing } from "../../../src/core/plumbing/ipvlan.ts";
import { hostLinkAlias, isOurGroup } from "../../../src/core/plumbing/names.ts";
import type { HostSeen } from "../../../src/core/plumbing/object.ts";
import { packetFilter, printPacketFilter } from "../../../src/core/plumbing/packet-filter.ts";
import { printPodFilter } from "../../../src/core/plumbing/pod-filter.ts";
import { renderOp, renderSandbox } from "../../../src/core/plumbing/render.ts";
import { sandboxPlumbing } from "../../../src/core/plumbing/sandbox.ts";
import { cidr4, ipv4 } from "../../../src/lib/ip.ts";
import { allocation, eni1, eniLinksSeen, instance, limits, link, settings, state } from "./fixtures.ts";

const path = ipvlanPathOf(eni1, { ...instance, vpcCidrs: [...instance.vpcCidrs, cidr4("100.64.0.0/16")] });
const pod = { ...allocation("c1", "10.0.1.20", 1), eni: "eni-1" as EniId, ipvlan: path };
const plumbing = ipvlanPlumbing(pod, limits);

/** As a script: what is run where. The sysctls are what `forwards` sets by netlink. */
function golden(): string {
  const { pair, slave = [], pod: inside, host, filter = "" } = renderSandbox(plumbing, "pod1");
  const switches = ["veth0", "eth0"].flatMap((name) => [
    `sysctl -w net.ipv4.conf.${name}.forwarding=1 net.ipv4.conf.${name}.rp_filter=2`,
  ]);
  return [
    ...["# The node", ...pair, slave[0] ?? ""],
    ...[
      "",
      "# The pod",
      ...slave.slice(1),
      "nft -f - <<END",
      filter.trimEnd(),
      "END",
      ...inside,
      ...switches,
    ],
    ...["", "# The node again", ...host, ""],
  ].join("\n");
}

test("an ipvlan pod is a slave of its ENI, an unnumbered pair, and one table, rule and next hop in the node", async () => {
  await expect(golden()).toMatchFileSnapshot("../../golden/plumbing/ipvlan-pod.txt");
});

test("the node's table answers an ipvlan pod's connections through the pod, and gives what goes back into it the node's address", async () => {
  const text = printPacketFilter(packetFilter(instance, "eth0", { ...settings, dataPath: "ipvlan" }));
  await expect(text).toMatchFileSnapshot("../../golden/plumbing/packet-filter-ipvlan.nft");
});

test("a node that has no ipvlan pod and gets none is spared their lines; one that still has some is not", () => {
  const text = (ipvlan?: boolean): string =>
    printPacketFilter(packetFilter(instance, "eth0", settings, ipvlan));
  expect(text()).not.toContain("return_to_pod");
  expect(text(true)).toContain("return_to_pod");
});

test("docs/data-paths.md shows what an ipvlan pod is made of, as we print it", () => {
  const page = readFileSync("docs/data-paths.md", "utf8");
  const shown = new Set(
    [...page.matchAll(/^```ipvlan\n(.*?)\n```$/gms)].flatMap(([, text = ""]) => text.split("\n")),
  );
  const printed = [
    ...golden().split("\n"),
    ...printPodFilter({ slave: "eth0", veth: "veth0", ip: pod.ip }).split("\n"),
  ];
  const wanted = printed.filter((line) => line !== "" && !/^(#|END|nft -f)/.test(line));
  expect(wanted.filter((line) => !shown.has(line))).toEqual([]);
});

test("the path is the allocation's, whatever the setting says: the same pod without one is routed", () => {
  const { ipvlan: _, ...routed } = pod;
  const node = { instance, allocations: new Map() };
  expect(sandboxPlumbing(pod, node).slave?.parentMac).toBe(eni1.mac);
  expect(sandboxPlumbing(routed, node).slave).toBeUndefined();
});

test("routed pods of the same ENI are reached through the node, those of other ENIs and other ipvlan pods are not", () => {
  const other = { ...allocation("c2", "10.0.1.21", 1), eni: "eni-1" as EniId };
  const far = { ...allocation("c3", "10.0.0.21", 0), eni: "eni-0" as EniId };
  const twin = { ...allocation("c4", "10.0.1.22", 1), eni: "eni-1" as EniId, ipvlan: path };
  const node = { instance, allocations: new Map([pod, other, far, twin].map((each) => [each.id, each])) };
  const single = sandboxPlumbing(pod, node).pod.flatMap((object) =>
    object.kind === "route" && object.destination.prefixLength === 32
      ? [`${object.destination.ip} ${object.link} ${object.gateway}`]
      : [],
  );
  expect(single).toEqual(["10.0.0.10 veth0 null", "10.0.1.21 veth0 10.0.0.10"]);
});

const hostLink = link(pod.hostLink, {
  group: plumbing.pair.group,
  alias: hostLinkAlias(pod.id),
  mac: pod.hostMac,
  kind: "veth",
});

/** The node with all of the pod's objects, but for those that `lost` names. */
function seenWithout(lost: (line: string) => boolean): HostSeen {
  const nothing: HostSeen = {
    links: [...eniLinksSeen, hostLink],
    addresses: [],
    routes: [],
    rules: [],
    neighbours: [],
    unreadable: 0,
  };
  const all = diffHost(planHost(state([pod]), nothing.links, settings).desired, nothing);
  const objects = all.flatMap((op) => (op.verb === "put" && !lost(renderOp(op)) ? [op.object] : []));
  return {
    ...nothing,
    addresses: objects.flatMap((each) => (each.kind === "address" ? [each] : [])),
    routes: objects.flatMap((each) => (each.kind === "route" ? [{ ...each, protocol: 98 }] : [])),
    rules: objects.flatMap((each) => (each.kind === "rule" ? [{ ...each, protocol: 98 }] : [])),
    neighbours: objects.flatMap((each) => (each.kind === "neighbour" ? [each] : [])),
  };
}

test("nothing is to do on a node with an ipvlan pod that is as it should be, and each lost object is put back", () => {
  const repairs = (lost: (line: string) => boolean): readonly string[] => {
    const seen = seenWithout(lost);
    return diffHost(planHost(state([pod]), seen.links, settings).desired, seen).map(renderOp);
  };
  expect(isOurGroup(hostLink.group)).toBe(true);
  expect(repairs(() => false)).toEqual([]);
  for (const what of ["iif", "169.254.1.2 dev", "via 169.254.1.2", "10.0.1.20 dev"])
    expect(repairs((line) => line.includes(what)).some((line) => line.includes(what))).toBe(true);
});

test("a rule of an ipvlan pod that is gone is taken away, so that a later link of that name is not led astray", () => {
  const seen = seenWithout(() => false);
  const left = { ...seen, links: eniLinksSeen };
  const ops = diffHost(planHost(state([]), left.links, settings).desired, left).map(renderOp);
  expect(ops).toContain(`rule del priority 1537 iif ${pod.hostLink} lookup 167772436 protocol 98`);
});

test("an address of the pool is written as a table's number that no person uses", () => {
  expect(plumbing.host.flatMap((each) => (each.kind === "rule" ? [each.table] : []))).toEqual([
    0x0a_00_01_14,
  ]);
  expect(path.nodeIp).toBe(ipv4("10.0.0.10"));
});
