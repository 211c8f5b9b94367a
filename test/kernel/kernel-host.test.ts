// The host's side: observed, applied, sysctls, our nft table, conntrack.
import { createSocket } from "node:dgram";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { ROUTE_PROTOCOL } from "../../src/core/plumbing/names.ts";
import type { HostSeen, KernelObject, KernelOp } from "../../src/core/plumbing/object.ts";
import { createConntrack } from "../../src/kernel/conntrack.ts";
import type { KernelFailure } from "../../src/kernel/failure.ts";
import { createHostKernel, type HostKernel } from "../../src/kernel/kernel.ts";
import { createPacketFilter } from "../../src/kernel/packet-filter.ts";
import { createSysctlFiles } from "../../src/kernel/sysctl.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import { Connection, NETLINK_NETFILTER } from "../../src/netlink/connection.ts";
import {
  CONNTRACK_PLACES,
  conntrackDumpRequest,
  conntrackEntryDeleteRequest,
  parseConntrackEntry,
} from "../../src/netlink/ctnetlink.ts";
import { sh } from "./sandboxes.ts";

let kernel: HostKernel;
const late: KernelFailure[] = [];

beforeAll(() => {
  const created = createHostKernel({ onLateFailure: (failure) => late.push(failure) });
  if (!created.ok) throw new Error(JSON.stringify(created.error));
  kernel = created.value;
});
beforeEach(() => {
  sh(
    "ip link delete e1 2>/dev/null; ip rule flush; ip rule add priority 32766 lookup main; ip rule add priority 32767 lookup default",
  );
  sh("ip link add e1 type veth peer name e1peer; ip link set e1peer up");
});
afterAll(async () => {
  await kernel.close();
  sh("ip link delete e1 2>/dev/null; true");
  expect(late).toEqual([]);
});

const from = { ip: ipv4("10.0.1.10"), prefixLength: 32 };
const routeShape = { kind: "route", link: "e1", table: 10_001, onlink: false, mtu: null } as const;
const eniObjects: readonly KernelObject[] = [
  { kind: "link", name: "e1", mtu: 9001, up: true, group: null },
  { kind: "address", link: "e1", ip: ipv4("10.0.1.10"), prefixLength: 24, noPrefixRoute: true },
  { ...routeShape, destination: { ip: ipv4("10.0.1.1"), prefixLength: 32 }, gateway: null, scope: "link" },
  {
    ...routeShape,
    destination: { ip: ipv4("0.0.0.0"), prefixLength: 0 },
    gateway: ipv4("10.0.1.1"),
    scope: "global",
    mtu: 1500,
  },
  { kind: "rule", priority: 1536, mark: { value: 1, mask: 0x3f }, from: null, to: null, table: 10_001 },
  { kind: "rule", priority: 32_765, mark: null, from, to: null, table: 10_001 },
];
const put = (object: KernelObject): KernelOp => ({ verb: "put", object });
const remove = (object: KernelObject): KernelOp => ({ verb: "delete", object });

function seen(): HostSeen {
  const observed = kernel.observe();
  if (!observed.ok) throw new Error(observed.error.errno);
  return observed.value;
}

test("what is applied is observed again, field by field, as ours; applying it again changes nothing", () => {
  expect(kernel.apply(eniObjects.map(put))).toEqual([]);
  const first = seen();
  expect(first.links.find(({ name }) => name === "e1")).toMatchObject({
    mtu: 9001,
    up: true,
    group: 0,
    alias: null,
    kind: "veth",
  });
  expect(first.addresses).toContainEqual({ link: "e1", ip: "10.0.1.10", prefixLength: 24 });
  for (const object of eniObjects) {
    if (object.kind === "route") expect(first.routes).toContainEqual({ ...object, protocol: ROUTE_PROTOCOL });
    if (object.kind === "rule") expect(first.rules).toContainEqual({ ...object, protocol: ROUTE_PROTOCOL });
  }
  expect(first.routes.filter(({ table }) => table === 254)).toEqual([]); // noprefixroute
  expect(first.rules.filter(({ protocol }) => protocol !== ROUTE_PROTOCOL).map(({ table }) => table)).toEqual(
    [255, 254, 253],
  );

  expect(kernel.apply(eniObjects.map(put))).toEqual([]);
  expect(seen()).toEqual(first);
});

test("what is deleted twice, or went with its link, is deleted", () => {
  const doomed = eniObjects.filter(({ kind }) => kind !== "link").toReversed();
  expect(kernel.apply(eniObjects.map(put))).toEqual([]);
  expect(kernel.apply(doomed.map(remove))).toEqual([]);
  expect(seen().routes).toEqual([]);
  expect(kernel.apply(doomed.map(remove))).toEqual([]);
  sh("ip link delete e1");
  expect(kernel.apply(doomed.map(remove))).toEqual([]);
});

test("an op that is refused is told with its reason, and those behind it are still done", () => {
  const gateway = eniObjects[3];
  if (gateway === undefined) throw new Error("no route");
  const lost = {
    kind: "neighbour",
    link: "e7",
    ip: ipv4("10.0.1.1"),
    mac: "0a:00:00:00:00:01",
  } as KernelObject; // A MAC.
  const rule = eniObjects[4];
  if (rule === undefined) throw new Error("no rule");
  const link: KernelObject = { kind: "link", name: "e1", mtu: 9001, up: true, group: null };
  expect(kernel.apply([put(link), put(gateway), put(lost), put(rule)])).toEqual([
    {
      op: put(lost),
      step: "neighbour replace 10.0.1.1 dev e7",
      errno: "ENODEV",
      detail: "there is no link e7",
    },
    {
      op: put(gateway),
      step: "route replace default via 10.0.1.1 dev e1 table 10001",
      errno: "ENETUNREACH",
      detail: "Nexthop has invalid gateway",
    },
  ]);
  expect(seen().rules.some(({ priority }) => priority === 1536)).toBe(true);
});

test("a rule of another's making is left alone when ours of the same shape goes", () => {
  sh("ip rule add priority 1536 fwmark 1/0x3f lookup 10001");
  const rule = eniObjects[4];
  if (rule === undefined) throw new Error("no rule");
  expect(kernel.apply([remove(rule)])).toEqual([]);
  expect(seen().rules.filter(({ priority }) => priority === 1536)).toHaveLength(1);
});

test("odd routes and rules are counted and hide nothing of ours", () => {
  sh("ip link set e1 up; ip address add 10.0.1.10/24 dev e1");
  sh("ip route add 10.5.0.0/16 via inet6 fe80::1 dev e1; ip rule add priority 700 ipproto tcp lookup 100");
  expect(kernel.apply(eniObjects.map(put))).toEqual([]);
  const now = seen();
  expect(now.unreadable).toBe(2);
  expect(now.routes.filter(({ protocol }) => protocol === ROUTE_PROTOCOL)).toHaveLength(2);
});

test("a link named in a list of ops goes, in its own time", async () => {
  expect(
    kernel.apply([
      { verb: "delete-link", name: "e1" },
      { verb: "delete-link", name: "never" },
    ]),
  ).toEqual([]);
  expect(await kernel.deleteLink("e1")).toEqual({ ok: true, value: null });
  expect(kernel.observeLinks()).toMatchObject({
    ok: true,
    value: expect.not.arrayContaining([expect.objectContaining({ name: "e1" })]) as object,
  });
});

test("a sysctl is read, written where it differs, and read back", () => {
  const sysctl = createSysctlFiles();
  expect(sysctl.write("net/ipv4/conf/e1/rp_filter", "2")).toEqual({ ok: true, value: null });
  expect(sysctl.read("net/ipv4/conf/e1/rp_filter")).toEqual({ ok: true, value: "2" });
  expect(sysctl.write("net/ipv4/conf/e1/rp_filter", "two")).toMatchObject({
    ok: false,
    error: { errno: "EINVAL" },
  });
  expect(sysctl.read("net/ipv4/conf/none/rp_filter")).toMatchObject({
    ok: false,
    error: { errno: "ENOENT" },
  });
});

test("a read-only /proc/sys is said to be that, and is no failure where the value is right already", () => {
  const folder = mkdtempSync(join(tmpdir(), "sys-"));
  sh(`mount --bind /proc/sys ${folder} && mount -o remount,bind,ro ${folder}`);
  try {
    const sysctl = createSysctlFiles(folder);
    const before = sysctl.read("net/ipv4/ip_forward");
    if (!before.ok) throw new Error(before.error.errno);
    expect(sysctl.write("net/ipv4/ip_forward", before.value)).toEqual({ ok: true, value: null });
    const other = before.value === "0" ? "1" : "0";
    expect(sysctl.write("net/ipv4/ip_forward", other)).toMatchObject({
      ok: false,
      error: { errno: "EROFS", detail: expect.stringContaining("cannot be written") as string },
    });
  } finally {
    sh(`umount ${folder} && rmdir ${folder}`);
  }
});

const policy = (port: number) => `table inet berth
delete table inet berth
table inet berth {
  map eni_of_group { type devgroup : verdict; elements = { 1001 : accept, 1002 : accept } }
  chain entry { type filter hook prerouting priority -150; tcp dport ${port} counter accept
    iifgroup vmap @eni_of_group
  }
}
`;

test("our packet filter is loaded as a whole or not at all, and a change behind our back is seen, traffic is not", async () => {
  const filter = createPacketFilter({ table: "berth" });
  const loaded = await filter.load(policy(80));
  if (!loaded.ok) throw new Error(loaded.error.detail);
  expect(await filter.state(loaded.value)).toEqual({ ok: true, value: "equal" });

  sh("ip link set lo up; timeout 1 bash -c '</dev/tcp/127.0.0.1/80' 2>/dev/null; true");
  expect(sh("nft list table inet berth")).toMatch(/counter packets [1-9]/);
  expect(await filter.state(loaded.value)).toEqual({ ok: true, value: "equal" });

  const refused = await filter.load(policy(81).replace("accept }", "accept } nonsense"));
  expect(refused).toMatchObject({
    ok: false,
    error: { errno: "ENFT", detail: expect.stringContaining("syntax error") as string },
  });
  expect(await filter.state(loaded.value)).toEqual({ ok: true, value: "equal" });

  sh("nft add element inet berth eni_of_group '{ 1003 : drop }'");
  expect(await filter.state(loaded.value)).toEqual({ ok: true, value: "changed" });
  const again = await filter.load(policy(80));
  expect(again).toEqual(loaded);

  sh("nft add table inet other; nft delete table inet berth");
  expect(await filter.state(loaded.value)).toEqual({ ok: true, value: "missing" });
  expect(await filter.remove()).toEqual({ ok: true, value: null });
  await filter.load(policy(80));
  expect(await filter.remove()).toEqual({ ok: true, value: null });
  expect(sh("nft list tables")).toBe("table inet other\n");
});

test("the packet filter is loaded at start, when its text changes and when another changed it, and else left alone", async () => {
  expect(await kernel.ensurePacketFilter(policy(80))).toEqual({ ok: true, value: true });
  expect(await kernel.ensurePacketFilter(policy(80))).toEqual({ ok: true, value: false });
  expect(await kernel.ensurePacketFilter(policy(81))).toEqual({ ok: true, value: true });
  sh("nft flush chain inet berth entry");
  expect(await kernel.ensurePacketFilter(policy(81))).toEqual({ ok: true, value: true });
  expect(sh("nft list table inet berth")).toContain("dport 81");
  sh("nft flush ruleset");
});

test("sysctls that are ours are set, and the OS's own are only complained of", () => {
  const forwarding = "net/ipv4/conf/e1/forwarding";
  sh(`echo 0 > /proc/sys/${forwarding}`);
  const failures = kernel.ensureSysctls([
    { name: "net.ipv4.conf.e1.rp_filter", value: "2", duty: "set" },
    { name: "net.ipv4.conf.e1.forwarding", value: "1", duty: "expected" },
  ]);
  expect(failures).toMatchObject([
    { step: `sysctl ${forwarding} = 1`, detail: expect.stringContaining("it is 0") as string },
  ]);
  expect(sh(`cat /proc/sys/net/ipv4/conf/e1/rp_filter /proc/sys/${forwarding}`)).toBe("2\n0\n");
});

test("a machine without nft is told so", async () => {
  const filter = createPacketFilter({ table: "berth", nft: "nft-that-is-not-there" });
  expect(await filter.load(policy(80))).toMatchObject({
    ok: false,
    error: { errno: "ENOENT", detail: expect.stringContaining("no program nft-that-is-not-there") as string },
  });
  const folder = mkdtempSync(join(tmpdir(), "nft-"));
  const hasty = join(folder, "nft");
  writeFileSync(hasty, "#!/bin/sh\necho 'Operation not permitted' >&2; exit 1\n", { mode: 0o755 });
  const unread = await createPacketFilter({ table: "berth", nft: hasty }).load(policy(80).repeat(20_000));
  expect(unread).toMatchObject({ ok: false, error: { errno: "ENFT", detail: "Operation not permitted" } });
});

test("connections of an address are forgotten, wherever it stands in them, and nobody else's", async () => {
  sh("ip link set lo up; for i in 1 2 3 100; do ip address replace 10.9.9.$i/32 dev lo; done");
  sh(
    "nft 'table ip t { chain c { type nat hook output priority -100; ip daddr 10.9.9.100 dnat to 10.9.9.1;\n}\n}'",
  );
  const flows = [
    ["10.9.9.1", "10.9.9.2"], // From it,
    ["10.9.9.2", "10.9.9.1"], // to it,
    ["10.9.9.3", "10.9.9.100"], // and to a Service that is translated to it.
    ["10.9.9.2", "10.9.9.3"],
  ] as const;
  const begin = async (): Promise<void> => {
    for (const [source, destination] of flows) await sendDatagram(source, destination);
  };
  const opened = Connection.open(NETLINK_NETFILTER);
  const conntrack = createConntrack();
  if (!opened.ok || !conntrack.ok) throw new Error("no ctnetlink");
  const entries = () => {
    const all = { type: (1 << 8) | 1, flags: 0x300, body: Buffer.from([2, 0, 0, 0]), what: "conntrack list" };
    const dump = opened.value.dump(all, parseConntrackEntry);
    return dump.ok ? dump.value.objects.map(({ ips }) => `${ips[0]} ${ips[1]}`).sort() : [dump.error.code];
  };
  await begin();
  expect(entries()).toEqual([
    "10.9.9.1 10.9.9.2",
    "10.9.9.2 10.9.9.1",
    "10.9.9.2 10.9.9.3",
    "10.9.9.3 10.9.9.100",
  ]);
  const forgotten = conntrack.value.forget(ipv4("10.9.9.1"));
  expect(conntrack.value.forget(ipv4("10.9.9.1"))).toBe(forgotten);
  expect(await forgotten).toEqual({ ok: true, value: null });
  expect(entries()).toEqual(["10.9.9.2 10.9.9.3"]);

  // The way of kernels before 6.5: find, then delete one by one.
  await begin();
  for (const place of CONNTRACK_PLACES) {
    const found = opened.value.dump(conntrackDumpRequest(ipv4("10.9.9.1"), place), parseConntrackEntry);
    if (!found.ok) throw new Error(found.error.code);
    expect(found.value.objects.every(({ ips }) => ips.includes("10.9.9.1"))).toBe(true);
    const answers = opened.value.request(found.value.objects.map(conntrackEntryDeleteRequest));
    expect(answers.every(({ ok }) => ok)).toBe(true);
  }
  expect(new Set(entries())).toEqual(new Set(["10.9.9.2 10.9.9.3"])); // Two by now.
  await conntrack.value.close();
  opened.value.close();
  sh("nft delete table ip t");
});

function sendDatagram(source: string, destination: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    socket.bind(0, source, () => {
      socket.send("x", 9_999, destination, (error) => {
        socket.close();
        if (error) reject(error);
        else resolve();
      });
    });
  });
}
