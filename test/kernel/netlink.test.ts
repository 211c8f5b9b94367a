import { execFileSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import type { KernelObject } from "../../src/core/plumbing/object.ts";
import { ipv4, numberToIpv4 } from "../../src/lib/ip.ts";
import { parseLink, parseRoute } from "../../src/netlink/answers.ts";
import { Connection } from "../../src/netlink/connection.ts";
import { deleteRequest, dumpRequests, linkGetRequest, putRequest } from "../../src/netlink/messages.ts";
import { createMonitor, EVENT_KINDS, type EventKind, type Monitor } from "../../src/netlink/monitor.ts";
import { openInNetns, withinNetns } from "../../src/netlink/netns.ts";
import { createUnlinker } from "../../src/netlink/unlink.ts";
import { ipJson, makeNetns, removeAllNetns, sh, threadNamespaces } from "./sandboxes.ts";

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
  sh(
    'for l in $(ip -j link show | grep -o \'"ifname":"[^l][^"]*\' | cut -d\'"\' -f4); do ip link delete $l 2>/dev/null; done; true',
  );
  removeAllNetns();
});

function open(): Connection {
  const opened = Connection.open();
  if (!opened.ok) throw new Error(opened.error.code);
  closers.push(() => opened.value.close());
  return opened.value;
}

function watch(ownPorts: readonly number[] = []): {
  readonly monitor: Monitor;
  readonly heard: ReadonlySet<EventKind>[];
} {
  const heard: ReadonlySet<EventKind>[] = [];
  const created = createMonitor({
    pollMs: 3_600_000, // Looked at by hand.
    onEvents: (kinds) => heard.push(kinds),
    isPodLink: (name) => name.startsWith("eni"),
    tableName: "berth",
    ownPorts,
  });
  if (!created.ok) throw new Error(created.error.code);
  closers.push(created.value.close);
  return { monitor: created.value, heard };
}

// By `ip`: /sys shows the links of the namespace that it was mounted in.
const indexOf = (name: string): number => Number(ipJson(`link show dev ${name}`)[0]?.["ifindex"]);

const pod = (number: number, link: string): Extract<KernelObject, { kind: "route" }> => ({
  kind: "route",
  table: 100,
  destination: { ip: numberToIpv4(0x0a01_0000 + number), prefixLength: 32 },
  link,
  gateway: null,
  scope: "link",
  onlink: false,
  mtu: null,
});

test("in a batch each request has its own answer, and one that fails stops none behind it", () => {
  const connection = open();
  sh("ip link add b0 type bridge; ip link set b0 up");
  const index = indexOf("b0");
  const nowhere: KernelObject = { ...pod(1, "b0"), gateway: ipv4("10.200.0.1"), scope: "global" };
  const answers = connection.request([
    putRequest(pod(1, "b0"), index),
    putRequest(nowhere, index),
    linkGetRequest({ name: "nope" }),
    linkGetRequest({ name: "b0" }),
    putRequest(pod(2, "b0"), 99_999),
    deleteRequest(pod(7, "b0"), index),
    putRequest(pod(3, "b0"), index),
  ]);
  expect(
    answers.map((answer) => (answer.ok ? "done" : `${answer.error.code} ${answer.error.detail}`.trim())),
  ).toEqual(["done", "ENETUNREACH Nexthop has invalid gateway", "ENODEV", "done", "ENODEV", "ESRCH", "done"]);
  const shown = answers[3]?.ok ? answers[3].value[0] : undefined;
  expect(shown && parseLink(shown)).toMatchObject({ name: "b0", index, kind: "bridge", up: true });
});

test("six thousand requests in one call are all answered, whatever a send and the receive buffer hold", () => {
  const connection = open();
  sh("ip link add b0 type bridge; ip link set b0 up");
  const index = indexOf("b0");
  const answers = connection.request(
    Array.from({ length: 6_000 }, (_, i) => putRequest(pod(i, "b0"), index)),
  );
  expect(answers.filter(({ ok }) => ok)).toHaveLength(6_000);
  const routes = connection.dump(dumpRequests.routes, parseRoute);
  expect(
    routes.ok && routes.value.objects.filter((route) => route !== "other" && route.table === 100),
  ).toHaveLength(6_000);
});

test("a dump ends and is whole while another process changes the table, odd routes counted apart", async () => {
  const connection = open();
  sh("ip link add b0 type bridge; ip link set b0 up; ip address add 10.9.0.1/24 dev b0");
  sh("ip route add 10.5.0.0/16 via inet6 fe80::1 dev b0; ip route add blackhole 10.6.0.0/16");
  const index = indexOf("b0");
  connection.request(Array.from({ length: 300 }, (_, i) => putRequest(pod(i, "b0"), index)));
  const { spawn } = await import("node:child_process");
  const churn = spawn("sh", [
    "-c",
    "while :; do ip link add x0 type bridge; ip route add 10.7.0.0/24 dev b0; ip route del 10.7.0.0/24; ip link del x0; done",
  ]);
  try {
    for (let i = 0; i < 60; i += 1) {
      const links = connection.dump(dumpRequests.links, parseLink);
      expect(links.ok && links.value.objects.map(({ name }) => name)).toEqual(
        expect.arrayContaining(["lo", "b0"]),
      );
      const routes = connection.dump(dumpRequests.routes, parseRoute);
      if (!routes.ok) throw new Error(routes.error.code);
      expect(routes.value.objects.filter((route) => route !== "other" && route.table === 100)).toHaveLength(
        300,
      );
      expect(routes.value.unreadable).toBe(1);
      await sleep(2);
    }
  } finally {
    churn.kill("SIGKILL");
    await new Promise((done) => churn.once("exit", done));
    sh("ip link delete x0 2>/dev/null; true");
  }
});

test("a dump that was torn is made again until it is whole, and the fifth is taken as it is", () => {
  const connection = open();
  sh(
    "ip link add b0 type bridge; for i in $(seq 60); do echo link add b$i group 77 type veth peer name c$i; done | ip -batch -",
  ); // More than one read holds.
  const dumpTorn = (times: number) => {
    let starts = 0;
    const dump = connection.dump(dumpRequests.links, (message) => {
      const link = parseLink(message);
      // While the first half is being read, the list of links changes.
      if (link?.name === "lo" && (starts += 1) <= times)
        sh(`ip link delete b0 2>/dev/null || ip link add b0 type bridge`);
      return link;
    });
    return {
      starts,
      torn: dump.ok ? dump.value.torn : dump.error,
      links: dump.ok ? dump.value.objects.length : 0,
    };
  };
  expect(dumpTorn(0)).toEqual({ starts: 1, torn: false, links: 122 });
  expect(dumpTorn(1)).toEqual({ starts: 2, torn: false, links: 121 });
  expect(dumpTorn(9)).toMatchObject({ starts: 5, torn: true });
});

test("threads that begin while we are inside a sandbox begin outside of it", () => {
  const [netns] = makeNetns(1);
  if (netns === undefined) throw new Error("no namespace");
  const source = (file: string) => JSON.stringify(new URL(`../../src/${file}`, import.meta.url).pathname);
  // A process of its own: in this one, libuv's pool has long begun.
  const script = `
    const { withinNetns } = require(${source("netlink/netns.ts")});
    const { openSync, readFile, readdirSync, readlinkSync } = require("node:fs");
    withinNetns(openSync(${JSON.stringify(netns.path)}), () => readFile("/etc/hostname", () => {
      const namespaces = readdirSync("/proc/self/task").map((id) => readlinkSync("/proc/self/task/" + id + "/ns/net"));
      console.log(namespaces.length, new Set(namespaces).size);
    }));`;
  const printed = execFileSync(process.execPath, ["--input-type=commonjs", "-e", script], {
    encoding: "utf8",
  });
  const [threads, namespaces] = printed.trim().split(" ").map(Number);
  expect(threads).toBeGreaterThan(4);
  expect(namespaces).toBe(1);
});

test("the monitor tells a flushed rule, a lost route, a lost nft table, and once for a whole poll", () => {
  sh(
    "ip link add b0 type bridge; ip link set b0 up; ip rule add priority 1536 fwmark 2/0x3f lookup 10001; ip route add 10.7.0.0/24 dev b0",
  );
  sh("nft add table inet berth");
  const { monitor, heard } = watch();
  monitor.poll();
  expect(heard).toEqual([]);
  sh(
    "ip rule flush; ip rule add priority 32766 lookup main; ip rule add priority 32767 lookup default; ip route delete 10.7.0.0/24",
  );
  monitor.poll();
  expect(heard.splice(0)).toEqual([new Set(["rule", "route"])]);
  sh("nft add table inet other; nft delete table inet other");
  monitor.poll();
  expect(heard.splice(0)).toEqual([]);
  sh("nft flush ruleset");
  monitor.poll();
  expect(heard.splice(0)).toEqual([new Set(["nftables"])]);
  sh("ip link add eni1 type bridge; ip link delete eni1");
  monitor.poll();
  expect(heard.splice(0)).toEqual([new Set(["pod-link"])]);
  sh("ip link set b0 mtu 1400; ip address add 10.9.0.1/24 dev b0");
  monitor.poll();
  expect(heard.splice(0)).toEqual([new Set(["link", "address", "route"])]);
});

test("the monitor passes over routes that we changed ourselves, and tells the same from another", () => {
  const ours = open();
  sh("ip link add b0 type bridge; ip link set b0 up");
  const index = indexOf("b0");
  const { monitor, heard } = watch([ours.port]);
  ours.requestOne(putRequest(pod(1, "b0"), index));
  monitor.poll();
  expect(heard).toEqual([]);
  open().requestOne(deleteRequest(pod(1, "b0"), index));
  monitor.poll();
  expect(heard).toEqual([new Set(["route"])]);
});

test("when more happened than the monitor's buffer holds, it tells to look at everything, and goes on", () => {
  const { monitor, heard } = watch();
  sh("ip link add b0 type bridge; ip link set b0 up");
  const index = indexOf("b0");
  const connection = open();
  const routes = Array.from({ length: 4_000 }, (_, i) => pod(i, "b0"));
  connection.request(routes.map((route) => putRequest(route, index)));
  connection.request(routes.map((route) => deleteRequest(route, index)));
  monitor.poll();
  expect(heard.splice(0)).toEqual([new Set(EVENT_KINDS)]);
  monitor.poll();
  heard.splice(0);
  connection.requestOne(putRequest(pod(1, "b0"), index));
  monitor.poll();
  expect(heard.splice(0)).toEqual([new Set(["route"])]);
});

test("a connection opened inside a sandbox stays there, and the thread comes back, also from what throws", () => {
  const [netns] = makeNetns(1);
  if (netns === undefined) throw new Error("no namespace");
  sh("ip link add b0 type bridge");
  const opened = openInNetns(netns.path, netns);
  if (!opened.ok) throw new Error(opened.error.detail);
  closers.push(opened.value.close);
  const names = (connection: Connection) => {
    const links = connection.dump(dumpRequests.links, parseLink);
    return links.ok ? links.value.objects.map(({ name }) => name) : links.error;
  };
  expect(names(opened.value.connection)).toEqual(["lo"]);
  expect(names(open())).toEqual(["lo", "b0"]);
  expect(() =>
    withinNetns(opened.value.fd, () => {
      throw new Error("inside");
    }),
  ).toThrow("inside");
  expect(names(open())).toEqual(["lo", "b0"]);
  expect(threadNamespaces()).toHaveLength(1);
});

test("links asked to go while others go share the next deletion; one that never was is gone already", async () => {
  const host = open();
  const created = createUnlinker({ host, doomedGroup: 1999 });
  if (!created.ok) throw new Error(created.error.code);
  const { unlink, close } = created.value;
  sh("for i in 1 2 3 4 5; do ip link add d$i type bridge; done; ip link add kept type bridge");
  const first = unlink("d1");
  const rest = ["d2", "d3", "d4", "d5", "never"].map(unlink);
  expect((await Promise.all([first, ...rest])).every(({ ok }) => ok)).toBe(true);
  const links = host.dump(dumpRequests.links, parseLink);
  expect(links.ok && links.value.objects.map(({ name }) => name)).toEqual(["lo", "kept"]);
  await close();
});

test("a link that cannot be deleted does not keep those beside it, nor those after it", async () => {
  const host = open();
  const created = createUnlinker({ host, doomedGroup: 1999 });
  if (!created.ok) throw new Error(created.error.code);
  const { unlink, close } = created.value;
  sh("ip link add d1 type bridge");
  const outcomes = await Promise.all([unlink("lo"), unlink("d1")]); // The kernel never deletes lo.
  expect(ipJson("-d link show dev lo")[0]).toMatchObject({ group: "default" });
  expect(outcomes.map((outcome) => (outcome.ok ? "gone" : outcome.error.code))).toEqual([
    "EOPNOTSUPP",
    "gone",
  ]);
  await close();
});
