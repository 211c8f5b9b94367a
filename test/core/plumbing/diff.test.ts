import * as fc from "fast-check";
import { expect, test } from "vitest";
import { diffHost } from "../../../src/core/plumbing/diff.ts";
import { planHost } from "../../../src/core/plumbing/host.ts";
import { ROUTE_PROTOCOL } from "../../../src/core/plumbing/names.ts";
import type { HostSeen, KernelObject, KernelOp, LinkSeen } from "../../../src/core/plumbing/object.ts";
import { renderOp } from "../../../src/core/plumbing/render.ts";
import type { Mac } from "../../../src/core/model/eni.ts";
import { ipv4 } from "../../../src/lib/ip.ts";
import { allocation, eniLinksSeen, link, settings, state, type TestAllocation } from "./fixtures.ts";

const nothing: HostSeen = { links: eniLinksSeen, addresses: [], routes: [], rules: [], unreadable: 0 };
const pod = allocation("c1", "10.0.1.20", 1);
const podLink = link(pod.hostLink, { kind: "veth", group: 1002, alias: pod.id, mac: pod.hostMac });

function opsFor(allocations: readonly TestAllocation[], seen: HostSeen): readonly KernelOp[] {
  return diffHost(planHost(state(allocations), seen.links, settings).desired, seen);
}

function linesFor(allocations: readonly TestAllocation[], seen: HostSeen): readonly string[] {
  return opsFor(allocations, seen).map(renderOp);
}

/** What the kernel would hold after these ops, as far as the data path depends on it. */
function apply(seen: HostSeen, ops: readonly KernelOp[]): HostSeen {
  const without = <T>(list: readonly T[], keep: (item: T) => boolean): readonly T[] => {
    const at = list.findIndex((item) => !keep(item));
    return at === -1 ? list : list.toSpliced(at, 1); // A request deletes one.
  };
  const shape = (value: object): string => {
    const { protocol: _protocol, ...rest } = { protocol: 0, ...value };
    return JSON.stringify(Object.entries(rest).sort(([left], [right]) => (left < right ? -1 : 1)));
  };
  let { links, addresses, routes, rules } = seen;
  for (const op of ops) {
    if (op.verb === "delete-link") {
      links = links.filter(({ name }) => name !== op.name);
      routes = routes.filter((route) => route.link !== op.name);
      continue;
    }
    const { object } = op;
    switch (object.kind) {
      case "link":
        links = links.map((each) =>
          each.name === object.name
            ? {
                ...each,
                mtu: object.mtu,
                up: object.up || each.up,
                group: object.group ?? each.group,
                mac: object.mac ?? each.mac,
              }
            : each,
        );
        break;
      case "address": {
        const { link: name, ip, prefixLength } = object;
        const rest = addresses.filter((each) => !(each.link === name && each.ip === ip));
        addresses = op.verb === "put" ? [...rest, { link: name, ip, prefixLength }] : rest;
        // The last address takes the link's routes with it (fib_disable_ip).
        if (op.verb === "delete" && !rest.some((each) => each.link === name))
          routes = routes.filter((route) => route.link !== name);
        break;
      }
      case "route": {
        const { table, destination } = object;
        const rival = (each: KernelObject): boolean =>
          each.kind === "route" &&
          each.table === table &&
          each.destination.ip === destination.ip &&
          each.destination.prefixLength === destination.prefixLength;
        routes =
          op.verb === "put"
            ? [...without(routes, (each) => !rival(each)), { ...object, protocol: ROUTE_PROTOCOL }]
            : without(routes, (each) => shape(each) !== shape(object));
        break;
      }
      case "rule":
        rules =
          op.verb === "put"
            ? [...rules, { ...object, protocol: ROUTE_PROTOCOL }]
            : without(rules, (each) => shape(each) !== shape(object));
        break;
      case "neighbour":
        break;
    }
  }
  return { links, addresses, routes, rules, unreadable: 0 };
}

const settled = apply(
  { ...nothing, links: [...eniLinksSeen, podLink] },
  opsFor([pod], { ...nothing, links: [...eniLinksSeen, podLink] }),
);

test("a fresh node with one pod is made from nothing, routes after the addresses they need", () => {
  expect(
    linesFor([pod], {
      ...nothing,
      links: [
        link("eth0", { mac: eniLinksSeen[0]?.mac ?? podLink.mac, mtu: 1500 }),
        ...eniLinksSeen.slice(1),
        podLink,
      ],
    }),
  ).toEqual([
    "rule add priority 512 lookup 100 protocol 98",
    "rule add priority 1024 fwmark 0x80/0x80 lookup main protocol 98",
    "link set dev eth0 mtu 9001 up",
    "address replace 10.0.1.10/24 dev eth1 noprefixroute",
    "route replace 10.0.1.1 dev eth1 scope link table 10001 proto 98",
    "route replace default via 10.0.1.1 dev eth1 scope global table 10001 proto 98",
    "rule add priority 1536 fwmark 0x1/0x3f lookup 10001 protocol 98",
    "rule add priority 32765 from 10.0.1.10 lookup 10001 protocol 98",
    `route replace 10.0.1.20 dev ${pod.hostLink} scope link table 100 proto 98`,
  ]);
});

test("a node that is as desired needs nothing", () => {
  expect(linesFor([pod], settled)).toEqual([]);
});

test("a link that went down and came up again has lost its table, and gets it back", () => {
  const seen = { ...settled, routes: settled.routes.filter((route) => route.link !== "eth1") };
  const connected = { ...route("eth1", "10.0.1.0", 24), protocol: 2 };
  expect(linesFor([pod], { ...seen, routes: [...seen.routes, connected] })).toEqual([
    "route replace 10.0.1.1 dev eth1 scope link table 10001 proto 98",
    "route replace default via 10.0.1.1 dev eth1 scope global table 10001 proto 98",
    "route del 10.0.1.0/24 dev eth1 scope link table main",
  ]);
});

test("a DHCP client's address on a secondary ENI goes first, and all of that link is put again after it", () => {
  const seen = {
    ...settled,
    addresses: [{ link: "eth1", ip: ipv4("10.0.1.99"), prefixLength: 24 }, ...settled.addresses],
  };
  expect(linesFor([pod], seen)).toEqual([
    "address del 10.0.1.99/24 dev eth1",
    "link set dev eth1 mtu 9001 up",
    "address replace 10.0.1.10/24 dev eth1 noprefixroute",
    "route replace 10.0.1.1 dev eth1 scope link table 10001 proto 98",
    "route replace default via 10.0.1.1 dev eth1 scope global table 10001 proto 98",
  ]);
});

test("a default route by a secondary ENI goes, whatever its metric; a route by its gateway to one network was somebody's wish", () => {
  const byGateway = { gateway: ipv4("10.0.1.1"), scope: "global", protocol: 16 } as const;
  const drawing = { ...route("eth1", "0.0.0.0", 0), ...byGateway };
  const wished = { ...route("eth1", "192.168.0.0", 16), ...byGateway };
  const primary = { ...route("eth0", "0.0.0.0", 0), ...byGateway, gateway: ipv4("10.0.0.1") };
  expect(linesFor([pod], { ...settled, routes: [primary, drawing, wished, ...settled.routes] })).toEqual([
    "route del default via 10.0.1.1 dev eth1 scope global table main",
  ]);
});

test("a running pod's host link gets the MAC back that its pod knows", () => {
  const links = [...eniLinksSeen, { ...podLink, mac: "0a:11:22:33:44:55" as Mac }]; // A brand is given freely here.
  expect(linesFor([pod], { ...settled, links })).toEqual([
    `link set dev ${pod.hostLink} mtu 9001 address ${pod.hostMac} group 1002 up`,
  ]);
});

test("a pod's address on the host's own links goes, on the primary ENI's too, where all else of the OS stays", () => {
  const os = { link: "eth0", ip: ipv4("10.0.0.10"), prefixLength: 24 };
  const pods = { link: "eth0", ip: pod.ip, prefixLength: 24 };
  expect(linesFor([pod], { ...settled, addresses: [os, pods, ...settled.addresses] })).toEqual([
    "address del 10.0.1.20/24 dev eth0",
    "link set dev eth0 mtu 9001 up",
  ]);
});

test("what a removed ENI and a deleted pod left behind goes, and their like by other hands stays", () => {
  const gone = allocation("c9", "10.0.1.29", 1);
  const left = link(gone.hostLink, { kind: "veth", group: 1002, alias: gone.id });
  const foreign = link("cali1234", { kind: "veth", group: 0, alias: "somebody's" });
  const rule = {
    kind: "rule",
    priority: 1536,
    mark: { value: 2, mask: 0x3f },
    from: null,
    to: null,
    table: 10_002,
  } as const;
  const seen: HostSeen = {
    ...settled,
    links: [...settled.links, left, foreign],
    routes: [
      ...settled.routes,
      { ...route(gone.hostLink, "10.0.1.29", 32, 100), protocol: ROUTE_PROTOCOL },
      { ...route("cali1234", "10.0.1.30", 32), protocol: 3 },
    ],
    rules: [
      ...settled.rules,
      { ...rule, protocol: ROUTE_PROTOCOL },
      { ...rule, priority: 1537, protocol: 3 },
    ],
  };
  expect(linesFor([pod], seen)).toEqual([
    "rule del priority 1536 fwmark 0x2/0x3f lookup 10002 protocol 98",
    `route del 10.0.1.29 dev ${gone.hostLink} scope link table 100`,
    `link del dev ${gone.hostLink}`,
  ]);
});

test("a link in our group without alias is a leftover only when it has our prefix and no live sandbox's name", () => {
  const nameless = (name: string): LinkSeen => link(name, { kind: "veth", group: 1001 });
  const links = [
    ...eniLinksSeen,
    { ...podLink, alias: null },
    nameless("eni00000000000"),
    nameless("other0"),
  ];
  expect(linesFor([pod], { ...settled, links })).toEqual(["link del dev eni00000000000"]);
});

test("a second copy of a rule goes, and a second route to a pod is not left to shadow the first", () => {
  const [copied] = settled.rules;
  const stale = { ...route("eth0", "10.0.1.20", 32, 100), protocol: ROUTE_PROTOCOL };
  const seen = {
    ...settled,
    rules: [...settled.rules, ...(copied ? [copied] : [])],
    routes: [...settled.routes, stale],
  };
  expect(linesFor([pod], seen)).toEqual([
    "rule del priority 512 lookup 100 protocol 98",
    "route del 10.0.1.20 dev eth0 scope link table 100",
  ]);
});

test("a route that differs is replaced and not deleted too, since a delete might hit the new one", () => {
  const routes = settled.routes.map((each) => (each.table === 100 ? { ...each, mtu: 1400 } : each));
  expect(linesFor([pod], { ...settled, routes })).toEqual([
    `route replace 10.0.1.20 dev ${pod.hostLink} scope link table 100 proto 98`,
  ]);
});

test("nothing is planned for a pod whose link is gone, or an ENI whose link has not come", () => {
  const plan = planHost(state([pod]), eniLinksSeen.slice(0, 1), settings);
  expect(plan.linklessSandboxes).toEqual([pod.id]);
  expect(plan.linklessEnis).toEqual(["eni-1"]);
  expect(plan.desired.objects.filter((object) => object.kind !== "rule")).toEqual([
    { kind: "link", name: "eth0", mtu: 9001, up: true, group: null },
  ]);
});

test("whatever is missing, stale or foreign, one pass mends it and never takes what is not ours", () => {
  const arbSubset = fc.subarray([...settled.routes]);
  const foreignRoute = { ...route("eth0", "172.16.0.0", 12), protocol: 4 };
  const arbStaleRoutes = fc.subarray([
    { ...route("eth1", "10.0.1.77", 32, 100), protocol: ROUTE_PROTOCOL },
    { ...route("eth0", "0.0.0.0", 0, 10_001), protocol: ROUTE_PROTOCOL },
    { ...route("eth1", "10.0.1.0", 24), protocol: 2 },
    { ...route("eth1", "0.0.0.0", 0), gateway: ipv4("10.0.1.1"), protocol: 16 },
  ]);
  const arbAddresses = fc.subarray([
    ...settled.addresses,
    { link: "eth1", ip: ipv4("10.0.1.99"), prefixLength: 24 },
    { link: "eth0", ip: ipv4("10.0.0.10"), prefixLength: 24 },
  ]);
  const arbLinks = fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()).map(([up, lost, renumbered]) => [
    ...eniLinksSeen.map((each) => ({ ...each, up })),
    {
      ...podLink,
      group: lost ? 0 : 1002,
      ...(renumbered ? { mac: "0a:11:22:33:44:55" as Mac } : {}),
    },
  ]);
  const arbRules = fc.subarray([...settled.rules, ...settled.rules]);
  fc.assert(
    fc.property(
      arbSubset,
      arbStaleRoutes,
      arbAddresses,
      arbLinks,
      arbRules,
      (some, stale, addresses, links, rules) => {
        const seen: HostSeen = {
          links,
          addresses,
          rules,
          routes: [...some, ...stale, foreignRoute],
          unreadable: 0,
        };
        const after = apply(seen, opsFor([pod], seen));
        expect(opsFor([pod], after).map(renderOp)).toEqual([]);
        expect(after.routes).toContainEqual(foreignRoute);
        const hadPrimary = addresses.some((each) => each.link === "eth0");
        expect(after.addresses.some((each) => each.link === "eth0")).toBe(hadPrimary);
      },
    ),
  );
});

function route(name: string, ip: string, prefixLength: number, table = 254) {
  const destination = { ip: ipv4(ip), prefixLength };
  return {
    kind: "route",
    table,
    destination,
    link: name,
    gateway: null,
    scope: "link",
    onlink: false,
    mtu: null,
  } as const;
}
