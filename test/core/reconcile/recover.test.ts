import { expect, test } from "vitest";
import type { EniSeen } from "../../../src/core/model/ec2.ts";
import type { EniId } from "../../../src/core/model/eni.ts";
import type { NetnsRef } from "../../../src/core/model/sandbox.ts";
import { hostLinkName, ROUTE_PROTOCOL } from "../../../src/core/plumbing/names.ts";
import type { HostSeen, LinkSeen } from "../../../src/core/plumbing/object.ts";
import { routedPlumbing } from "../../../src/core/plumbing/routed.ts";
import {
  type CachedSandbox,
  recoverNode,
  type Recovered,
  type Remembered,
  type Truths,
} from "../../../src/core/reconcile/recover.ts";
import { checkInvariants } from "../../../src/core/state/invariants.ts";
import type { Allocation } from "../../../src/core/state/node-state.ts";
import { cidr4, ipv4, type Ipv4 } from "../../../src/lib/ip.ts";
import { after, instant, wallTime } from "../../../src/lib/time.ts";
import { allocationOf, GROUP, keyOf, SUBNET_A } from "../../support/pool-world.ts";
import { attachmentAt, believing, eniSeen, INSTANCE, NOW, SUBNET_CIDRS } from "./worlds.ts";

const SETTINGS = { manageUntagged: true, cooldownMs: 30_000, podMtu: 9001, hostLinkPrefix: "eni" };
const WALL_NOW = wallTime(1_000);
const both = [eniSeen(0), eniSeen(1)];
const EMPTY_HOST: HostSeen = { links: [], addresses: [], routes: [], rules: [], unreadable: 0 };

/** Two pods, one on each ENI, as the checkpoint knows them. */
const [A, B] = [allocationAt(0, "a", "10.0.0.5"), allocationAt(1, "b", "10.0.1.5")];

function allocationAt(deviceIndex: number, name: string, ip: string): Allocation {
  const eni = believing(both).enis.get(`eni-${deviceIndex}` as EniId);
  if (eni === undefined) throw new Error("no such ENI");
  const made = allocationOf(name, eni, ipv4(ip));
  return { ...made, hostLink: hostLinkName("eni", made.id) };
}

/** The kernel with the links and routes of these pods. */
function plumbed(...allocations: readonly Allocation[]): HostSeen {
  const links = allocations.map((each, at): LinkSeen => {
    const { hostName, hostMac, group, alias, hostMtu } = routedPlumbing(each, INSTANCE.limits).pair;
    return {
      name: hostName,
      index: 10 + at,
      mac: hostMac,
      mtu: hostMtu,
      up: true,
      group,
      alias,
      kind: "veth",
    };
  });
  const routes = allocations.flatMap((each) =>
    routedPlumbing(each, INSTANCE.limits).host.flatMap((object) =>
      object.kind === "route" ? [{ ...object, protocol: ROUTE_PROTOCOL }] : [],
    ),
  );
  return { ...EMPTY_HOST, links, routes };
}

function cacheOf(...allocations: readonly Allocation[]): CachedSandbox[] {
  return allocations.map(({ key, ip, netns }) => ({ key, ips: [ip], netns }));
}

function remembering(change: Partial<Remembered> = {}): Remembered {
  return {
    sameBoot: true,
    allocations: [A, B],
    cooling: [],
    leaving: [],
    loose: [],
    creation: null,
    ...change,
  };
}

const alive = (...allocations: readonly Allocation[]) => {
  const paths = new Set(allocations.map(({ netns }) => netns.path));
  return (netns: NetnsRef): boolean => paths.has(netns.path);
};

/** Everything is well, but for the change. */
function recover(change: Partial<Truths> = {}, settings = SETTINGS): Recovered {
  const truths: Truths = {
    instance: INSTANCE,
    enis: both,
    subnetCidrs: SUBNET_CIDRS,
    remembered: remembering(),
    host: plumbed(A, B),
    cached: cacheOf(A, B),
    netnsLives: alive(A, B),
    ...change,
  };
  const recovered = recoverNode(truths, settings, NOW, WALL_NOW);
  expect(checkInvariants(recovered.state)).toEqual([]);
  return recovered;
}

/** Who holds what: `a 10.0.0.5`. */
function held({ state }: Recovered): string[] {
  return [...state.allocations.values()].map(({ key, ip }) => `${key.containerId} ${ip}`).sort();
}

function kindsOf({ state }: Recovered, ...ips: readonly string[]): (string | undefined)[] {
  const addresses = new Map([...state.enis.values()].flatMap((eni) => [...eni.addresses]));
  return ips.map((ip) => addresses.get(ipv4(ip))?.kind);
}

/** Addresses that may be given out at once. */
function free(recovered: Recovered, now = NOW): Ipv4[] {
  return [...recovered.state.enis.values()].flatMap((eni) =>
    [...eni.addresses.values()].flatMap((address) =>
      address.kind === "warm" || (address.kind === "cooling" && address.until <= now) ? [address.ip] : [],
    ),
  );
}

test("a fresh node has its ENIs, link awaited, all addresses free", () => {
  const fresh = recover({ remembered: null, host: EMPTY_HOST, cached: [] });
  expect(held(fresh)).toEqual([]);
  expect(free(fresh)).toHaveLength(6);
  expect(
    [...fresh.state.enis.values()].map(({ role, phase, detachable }) => [role, phase.kind, detachable]),
  ).toEqual([
    ["primary", "awaiting-link", false],
    ["secondary", "awaiting-link", true],
  ]);
});

test("all alive: everybody keeps what the checkpoint says", () => {
  const { state } = recover();
  expect(state.allocations.get(A.id)).toEqual(A);
  expect(state.allocations.get(B.id)).toEqual(B);
  expect(kindsOf(recover(), A.ip, B.ip)).toEqual(["allocated", "allocated"]);
});

// --- Pods that died while the daemon was down --------------------------------------------------------------------------

test.each<{ readonly what: string; readonly change: Partial<Truths>; readonly keeps: boolean }>([
  {
    what: "its namespace, link and cache entry are gone",
    change: { host: plumbed(B), cached: cacheOf(B) },
    keeps: false,
  },
  { what: "its namespace and link are gone", change: { host: plumbed(B) }, keeps: false },
  { what: "its namespace and cache entry are gone", change: { cached: cacheOf(B) }, keeps: false },
  { what: "its namespace alone is gone", change: {}, keeps: true },
  {
    what: "its link and cache entry are gone, and its namespace lives",
    change: { host: plumbed(B), cached: cacheOf(B), netnsLives: alive(A, B) },
    keeps: true,
  },
])("a pod keeps its address ($keeps) when $what", ({ change, keeps }) => {
  const recovered = recover({ netnsLives: alive(B), ...change });
  expect(held(recovered)).toEqual(keeps ? ["a 10.0.0.5", "b 10.0.1.5"] : ["b 10.0.1.5"]);
  expect(kindsOf(recovered, A.ip)).toEqual([keeps ? "allocated" : "cooling"]);
  expect(free(recovered)).not.toContain(A.ip);
  expect(recovered.notes.map((note) => note.ip)).toEqual(keeps ? [] : [A.ip]);
});

// --- Without checkpoint ------------------------------------------------------------------------------------------------

test("without checkpoint, links, routes and cache tell who holds what, and the rest must rest", () => {
  const recovered = recover({ remembered: null });
  expect(held(recovered)).toEqual(["a 10.0.0.5", "b 10.0.1.5"]);
  const rebuilt = recovered.state.allocations.get(B.id);
  expect(rebuilt).toMatchObject({ eni: "eni-1", eniSlot: B.eniSlot, hostLink: B.hostLink, netns: B.netns });
  expect(free(recovered)).toEqual([]);
  expect(free(recovered, after(NOW, SETTINGS.cooldownMs))).toHaveLength(4);
});

test("without checkpoint, a link without a cache entry is enough", () => {
  const recovered = recover({ remembered: null, cached: [] });
  expect(held(recovered)).toEqual(["a 10.0.0.5", "b 10.0.1.5"]);
});

test("without checkpoint, a cache entry whose namespace lives is enough", () => {
  const recovered = recover({ remembered: null, host: EMPTY_HOST });
  expect(held(recovered)).toEqual(["a 10.0.0.5", "b 10.0.1.5"]);
});

test("without checkpoint, a cache entry without a living namespace speaks for nobody, but the address rests", () => {
  const dead = cacheOf(A).map((each) => ({ ...each, netns: null }));
  const recovered = recover({ remembered: null, host: EMPTY_HOST, cached: dead });
  expect(held(recovered)).toEqual([]);
  expect(kindsOf(recovered, A.ip)).toEqual(["cooling"]);
});

test("without checkpoint, the link of today wins over a stale cache entry for the same address", () => {
  const stale = {
    key: keyOf("stale"),
    ips: [A.ip],
    netns: { path: "/run/netns/stale", device: 4, inode: 9 },
  };
  const recovered = recover({ remembered: null, host: plumbed(A), cached: [stale, ...cacheOf(A)] });
  expect(held(recovered)).toEqual(["a 10.0.0.5"]);
});

test("without checkpoint, a running pod whose address EC2 does not list keeps it by its link's group", () => {
  const enis = [eniSeen(0), eniSeen(1, { secondaryIps: [] })];
  const recovered = recover({ remembered: null, enis });
  expect(held(recovered)).toEqual(["a 10.0.0.5", "b 10.0.1.5"]);
  expect(recovered.state.allocations.get(B.id)?.eni).toBe("eni-1");
});

test("without checkpoint, links that are not ours speak for nobody", () => {
  const host = plumbed(A, B);
  const foreign: HostSeen = { ...host, links: host.links.map((link) => ({ ...link, group: 0 })) };
  expect(held(recover({ remembered: null, host: foreign, cached: [] }))).toEqual([]);
});

test("a link that was made and not yet named speaks for nobody", () => {
  const host = plumbed(A);
  const unnamed: HostSeen = { ...host, links: host.links.map((link) => ({ ...link, alias: null })) };
  const recovered = recover({ remembered: null, host: unnamed, cached: [] });
  expect(held(recovered)).toEqual([]);
  expect(free(recovered)).toEqual([]);
});

test("a pod that runs and that the checkpoint does not know keeps its address", () => {
  const recovered = recover({ remembered: remembering({ allocations: [A] }) });
  expect(held(recovered)).toEqual(["a 10.0.0.5", "b 10.0.1.5"]);
});

// --- After a boot ------------------------------------------------------------------------------------------------------

test("after a boot every sandbox is gone, and nothing is given out before it has rested since the boot", () => {
  const remembered = remembering({
    sameBoot: false,
    cooling: [{ eni: both[0]?.id ?? A.eni, ip: ipv4("10.0.0.6"), until: instant(9_999_999) }], // By the clock of the boot before.
  });
  const recovered = recover({ remembered, host: EMPTY_HOST, netnsLives: () => true });
  expect(held(recovered)).toEqual([]);
  expect(free(recovered, instant(SETTINGS.cooldownMs - 1))).toEqual([]);
  expect(free(recovered, after(NOW, SETTINGS.cooldownMs))).toHaveLength(6);
});

// --- What was begun ----------------------------------------------------------------------------------------------------

test("within a boot an address rests on from the deadline it had", () => {
  const until = after(NOW, 12_345);
  const recovered = recover({
    remembered: remembering({ cooling: [{ eni: A.eni, ip: ipv4("10.0.0.6"), until }] }),
  });
  expect(recovered.state.enis.get(A.eni)?.addresses.get(ipv4("10.0.0.6"))).toMatchObject({
    kind: "cooling",
    until,
  });
  expect(kindsOf(recovered, "10.0.0.7")).toEqual(["warm"]);
});

test("an address on its way back stays on it, whether its ENI is still there or not", () => {
  const recovered = recover({
    remembered: remembering({
      leaving: [
        { eni: A.eni, ips: [ipv4("10.0.0.6"), ipv4("10.0.0.99")] },
        { eni: "eni-gone" as EniId, ips: [ipv4("10.0.9.9")] },
      ],
    }),
  });
  expect(kindsOf(recovered, "10.0.0.6", "10.0.0.7", "10.0.0.99")).toEqual(["leaving", "warm", undefined]);
});

test("an address on its way back that a pod holds all the same stays the pod's", () => {
  const recovered = recover({ remembered: remembering({ leaving: [{ eni: A.eni, ips: [A.ip] }] }) });
  expect(kindsOf(recovered, A.ip)).toEqual(["allocated"]);
});

test("a loose ENI is remembered, unless it is attached by now", () => {
  const loose = [
    { id: "eni-loose" as EniId, attachmentId: null, since: instant(77) },
    { id: "eni-1" as EniId, attachmentId: null, since: instant(77) },
  ];
  expect([...recover({ remembered: remembering({ loose }) }).state.loose.values()]).toEqual([loose[0]]);
});

test("a loose ENI of an earlier boot is due by this boot's clock", () => {
  const loose = [{ id: "eni-loose" as EniId, attachmentId: null, since: instant(9_999_999) }];
  const recovered = recover({ remembered: remembering({ sameBoot: false, loose }) });
  expect(recovered.state.loose.get("eni-loose" as EniId)?.since).toBe(NOW);
});

test("an ENI of ours that is being detached is to be deleted, though nothing was written down; another's is not", () => {
  const detaching = attachmentAt({ networkCard: 0, deviceIndex: 1 }, { status: "detaching" });
  const ours = recover({
    enis: [eniSeen(0), eniSeen(1, { attachment: detaching })],
    remembered: null,
    host: EMPTY_HOST,
  });
  expect([...ours.state.loose.values()]).toEqual([{ id: "eni-1", attachmentId: detaching.id, since: NOW }]);
  const enis = [eniSeen(0), eniSeen(1, { attachment: detaching, tags: new Map() })];
  expect(recover({ enis, remembered: null, host: EMPTY_HOST }).state.loose.size).toBe(0);
});

test("a creation without known outcome is in doubt", () => {
  const creation = {
    clientToken: "token",
    slot: { networkCard: 0, deviceIndex: 2 },
    subnetId: SUBNET_A,
    securityGroups: [GROUP],
    addressCount: 3,
    prefixCount: 0,
    since: wallTime(5),
  };
  const { state } = recover({ remembered: remembering({ creation }) });
  expect(state.creation).toEqual(creation);
  expect(state.inDoubt).toEqual({ operation: "CreateNetworkInterface", eni: null, since: NOW });
});

// --- EC2's word --------------------------------------------------------------------------------------------------------

test("foreign ENIs take a slot and give no address", () => {
  const enis: EniSeen[] = [...both, eniSeen(2, { interfaceType: "efa" })];
  const { state } = recover({ enis });
  expect([...state.enis.keys()]).toEqual(["eni-0", "eni-1"]);
  expect(state.foreign).toMatchObject([{ id: "eni-2", reason: "efa", slot: { deviceIndex: 2 } }]);
});

test("an ENI whose subnet is not known is left out until it is", () => {
  const { state } = recover({ subnetCidrs: new Map(), remembered: null, host: EMPTY_HOST, cached: [] });
  expect(state.enis.size).toBe(0);
});

test("an address that EC2 does not list stays its pod's, and is given to nobody when EC2 lists it again", () => {
  const recovered = recover({ enis: [eniSeen(0, { secondaryIps: [] }), eniSeen(1)] });
  expect(held(recovered)).toEqual(["a 10.0.0.5", "b 10.0.1.5"]);
  expect(free(recovered)).not.toContain(A.ip);
});

test("an address that EC2 has put on another ENI since stays its pod's there", () => {
  const recovered = recover({
    enis: [eniSeen(0, { secondaryIps: [] }), eniSeen(1, { secondaryIps: [A.ip, B.ip] })],
  });
  expect(recovered.state.allocations.get(A.id)).toMatchObject({ ip: A.ip, eni: "eni-1", eniSlot: B.eniSlot });
  expect(kindsOf(recovered, A.ip)).toEqual(["allocated"]);
});

test("a pod on a prefix keeps its address", () => {
  const prefix = cidr4("10.0.32.0/28");
  const pod = { ...A, ip: ipv4("10.0.32.9") };
  const recovered = recover({
    enis: [eniSeen(0, { prefixes: [prefix] }), eniSeen(1)],
    remembered: remembering({ allocations: [pod] }),
    host: plumbed(pod),
    cached: cacheOf(pod),
  });
  expect(held(recovered)).toEqual(["a 10.0.32.9"]);
  expect(recovered.state.enis.get(A.eni)?.addresses.get(pod.ip)).toMatchObject({
    by: "prefix",
    kind: "allocated",
  });
});

// --- What a lagging view shows -----------------------------------------------------------------------------------------

test("of two ENIs with one own address, the one that has its link here is right, and an old list of its address on another is old", () => {
  const deleted = eniSeen(2, { primaryIp: both[1]?.primaryIp ?? null });
  const owner = eniSeen(0, {
    secondaryIps: [ipv4("10.0.0.5"), ipv4("10.0.1.4")],
    prefixes: [cidr4("10.0.1.0/28")],
  });
  const link = {
    name: "eth1",
    index: 3,
    mac: eniSeen(1).mac,
    mtu: 9001,
    up: true,
    group: 0,
    alias: null,
    kind: null,
  };
  const host = plumbed(A, B);
  for (const enis of [
    [owner, eniSeen(1), deleted],
    [deleted, eniSeen(1), owner],
  ]) {
    const recovered = recover({ enis, host: { ...host, links: [...host.links, link] } });
    expect([...recovered.state.enis.keys()].toSorted()).toEqual(["eni-0", "eni-1"]);
    expect(held(recovered)).toEqual(["a 10.0.0.5", "b 10.0.1.5"]);
    expect(checkInvariants(recovered.state)).toEqual([]);
  }
});
