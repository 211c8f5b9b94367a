// One ipvlan pod's plumbing in a real kernel: made, looked at with `ip` and `nft`, broken piece by piece, and taken away without a trace.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { Mac } from "../../src/core/model/eni.ts";
import type { NetnsRef } from "../../src/core/model/sandbox.ts";
import { ipvlanPathOf, ipvlanPlumbing } from "../../src/core/plumbing/ipvlan.ts";
import type { SandboxPlumbing } from "../../src/core/plumbing/object.ts";
import { printPodFilter } from "../../src/core/plumbing/pod-filter.ts";
import type { KernelFailure } from "../../src/kernel/failure.ts";
import { createHostKernel, type HostKernel } from "../../src/kernel/kernel.ts";
import { allocation, eni1, instance, limits } from "../core/plumbing/fixtures.ts";
import { makeNetns, median, nameOf, removeAllNetns, sh } from "../kernel/sandboxes.ts";

let kernel: HostKernel;
let netns: NetnsRef;
const late: KernelFailure[] = [];

beforeAll(() => {
  const created = createHostKernel({ onLateFailure: (failure) => late.push(failure) });
  if (!created.ok) throw new Error(JSON.stringify(created.error));
  kernel = created.value;
  // The node's ENI: a link of the right MAC, called like the pod's own.
  sh(
    `ip link add eth0 mtu 9001 address ${eni1.mac} type veth peer name wire mtu 9001 && ip link set eth0 up && ip link set wire up`,
  );
});
beforeEach(() => {
  const [made] = makeNetns(1);
  if (made === undefined) throw new Error("no namespace");
  netns = made;
});
afterEach(() => {
  removeAllNetns();
  sh("while ip rule del priority 1537 2>/dev/null; do :; done"); // Of pods that ended without a DEL.
  expect(late.splice(0)).toEqual([]);
});
afterAll(async () => {
  await kernel.close();
  sh("ip link del eth0");
});

function plumbingOf(name: string, ip: string, mac: Mac = eni1.mac): SandboxPlumbing {
  const ipvlan = ipvlanPathOf({ ...eni1, mac }, instance);
  return ipvlanPlumbing({ ...allocation(name, ip, 1), ipvlan }, limits);
}

/** A link whose pod was refused goes by and by. */
const PATIENCE = { timeout: 20_000, interval: 50 };

const plumbing = plumbingOf("c1", "10.0.1.20");
const inside = (command: string): string => sh(`ip netns exec ${nameOf(netns)} ${command}`);

/** All of ours in the node's namespace. */
function hostLines(): string {
  return sh(
    "ip rule show proto 98; ip route show table all proto 98; ip neigh show nud permanent; ip -o link show type veth",
  );
}

test("a plumbed ipvlan pod is seen by ip and nft as the golden text has it, and CHECK finds nothing", () => {
  expect(kernel.ipvlanMissing()).toBeNull();
  expect(kernel.plumbSandbox(netns, plumbing)).toEqual({ ok: true, value: null });
  expect(inside("ip -d link show eth0")).toMatch(/ipvlan\s+mode l2/);
  expect(inside("ip -6 address show dev eth0")).toBe(""); // All slaves would have one link-local address.
  expect(inside("ip -4 -o address show")).toContain("10.0.1.20/24");
  expect(inside("nft list table ip berth").replaceAll("\t", "  ")).toBe(
    printPodFilter({ slave: "eth0", veth: "veth0", ip: plumbing.filter?.ip ?? eni1.primaryIp }),
  );
  expect(inside("ip route get 8.8.8.8")).toContain("via 10.0.0.10 dev veth0 src 10.0.1.20");
  expect(inside("ip route get 10.0.9.9")).toContain("via 10.0.1.1 dev eth0 src 10.0.1.20");
  expect(kernel.checkSandbox(netns, plumbing)).toEqual({ ok: true, value: [] });
});

test.each([
  ["ip rule del priority 512", /rule 512/],
  ["ip rule del priority 513", /rule 513/],
  ["ip route flush table 102", /table 102/],
  ["ip route del default", /default|0\.0\.0\.0\/0/],
  ["ip neigh del 10.0.0.10 dev veth0", /neighbour 10\.0\.0\.10/],
  ["ip address del 10.0.1.20/24 dev eth0", /address 10\.0\.1\.20/],
  ["ip address del 169.254.1.2/32 dev veth0", /address 169\.254\.1\.2/],
  ["ip link set eth0 down", /eth0/],
  ["sysctl -qw net.ipv4.conf.veth0.forwarding=0", /veth0 does not forward/],
  ["sysctl -qw net.ipv4.conf.eth0.rp_filter=1", /eth0 does not forward/],
  ["nft delete table ip berth", /chain guard is missing/],
  ["nft flush chain ip berth source", /chain source is missing/],
  ["nft add rule ip berth enter drop", /chain enter is not ours/],
])("CHECK sees it when somebody in the pod says `%s`", (command, expected) => {
  expect(kernel.plumbSandbox(netns, plumbing).ok).toBe(true);
  inside(command);
  const checked = kernel.checkSandbox(netns, plumbing);
  expect(checked.ok && checked.value.join("\n")).toMatch(expected);
});

test("taken away, a pod leaves nothing in the node, no slave in its namespace, and its address to the next pod of the ENI", async () => {
  const before = hostLines();
  expect(kernel.plumbSandbox(netns, plumbing).ok).toBe(true);
  expect(hostLines()).not.toBe(before);
  const [next] = makeNetns(1);
  if (next === undefined) throw new Error("no namespace");
  const heir = plumbingOf("c2", "10.0.1.20");
  // Two slaves of an ENI with one address: the kernel refuses, and what was begun is undone.
  expect(kernel.plumbSandbox(next, heir)).toMatchObject({ ok: false, error: { errno: "EADDRINUSE" } });
  expect(sh(`ip -n ${nameOf(next)} -o link`)).not.toContain("ipvlan");
  expect(kernel.apply(plumbing.host.map((object) => ({ verb: "delete", object }) as const))).toEqual([]);
  expect(await kernel.deleteLink(plumbing.pair.hostName, { netns, plumbing })).toEqual({
    ok: true,
    value: null,
  });
  const unnumbered = (lines: string): string => lines.replaceAll(/\d+: /g, "");
  await expect.poll(() => unnumbered(hostLines()), PATIENCE).toBe(unnumbered(before));
  expect(inside("ip -o link show")).not.toMatch(/eth0|veth0/);
  expect(kernel.plumbSandbox(next, heir)).toEqual({ ok: true, value: null });
});

test("what a crash left of the same sandbox is replaced, at whatever point it came; another's eth0 is not", async () => {
  expect(kernel.plumbSandbox(netns, plumbing).ok).toBe(true);
  await kernel.deleteLink(plumbing.pair.hostName);
  expect(kernel.plumbSandbox(netns, plumbing)).toEqual({ ok: true, value: null }); // The slave alone.
  await kernel.deleteLink(plumbing.pair.hostName, { netns, plumbing });
  sh(`ip link add link eth0 name ${plumbing.slave?.bornAs} netns ${nameOf(netns)} type ipvlan mode l2`);
  expect(kernel.plumbSandbox(netns, plumbing)).toEqual({ ok: true, value: null }); // Born, and not yet named.
  expect(kernel.checkSandbox(netns, plumbing)).toEqual({ ok: true, value: [] });
  const [other] = makeNetns(1);
  if (other === undefined) throw new Error("no namespace");
  sh(`ip -n ${nameOf(other)} link add eth0 type dummy`);
  expect(kernel.plumbSandbox(other, plumbingOf("c3", "10.0.1.23"))).toMatchObject({
    ok: false,
    error: { code: "interface-exists", ifName: "eth0" },
  });
});

test("an ENI whose link is not there is named by its MAC", async () => {
  const lost = plumbingOf("c4", "10.0.1.24", "0a:00:00:00:00:77" as Mac);
  expect(kernel.plumbSandbox(netns, lost)).toMatchObject({
    ok: false,
    error: { code: "kernel-refused", errno: "ENODEV", detail: "no link has the ENI's MAC 0a:00:00:00:00:77" },
  });
  await expect.poll(() => sh("ip -o link show type veth"), PATIENCE).not.toContain(lost.pair.hostName);
});

test("a link that is a bridge's port already is refused with the kernel's word for it", () => {
  sh("ip link add br0 type bridge && ip link set eth0 master br0");
  const refused = kernel.plumbSandbox(netns, plumbing);
  sh("ip link set eth0 nomaster && ip link del br0");
  expect(refused).toMatchObject({ ok: false, error: { code: "kernel-refused", errno: "EBUSY" } });
});

test("an ipvlan pod is made in a few milliseconds, by no program", () => {
  const took = makeNetns(15).map((each, at) => {
    const one = plumbingOf(`t${at}`, `10.0.1.${100 + at}`);
    const began = performance.now();
    expect(kernel.plumbSandbox(each, one).ok).toBe(true);
    return performance.now() - began;
  });
  process.stdout.write(`an ipvlan pod: median ${median(took).toFixed(1)} ms in the guest\n`);
  expect(median(took)).toBeLessThan(500);
});
