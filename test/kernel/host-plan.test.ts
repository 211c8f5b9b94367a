/** The planner against the real kernel: what one pass makes, the next finds whole, whatever was done to it in between. */
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { diffHost } from "../../src/core/plumbing/diff.ts";
import { planHost } from "../../src/core/plumbing/host.ts";
import { renderOp } from "../../src/core/plumbing/render.ts";
import { createHostKernel, type HostKernel } from "../../src/kernel/kernel.ts";
import { allocation, eni0, eni1, settings, state } from "../core/plumbing/fixtures.ts";

const pod = allocation("c1", "10.0.1.20", 1);
const failures: unknown[] = [];
let kernel: HostKernel;

const ip = (...lines: readonly string[]): string =>
  execFileSync("ip", ["-batch", "-"], { input: lines.join("\n"), encoding: "utf8" });

beforeAll(() => {
  // The ends of these pairs that stay nameless play the VPC.
  ip(
    `link add eth0 address ${eni0.mac} type veth peer name vpc0`,
    `link add eth1 address ${eni1.mac} type veth peer name vpc1`,
    `link add ${pod.hostLink} address ${pod.hostMac} group 1002 type veth peer name pod0`,
    `link set ${pod.hostLink} alias ${pod.id}`,
    "link set vpc0 up",
    "link set vpc1 up",
    "link set pod0 up",
    "link set eth0 up",
    "address add 10.0.0.10/24 dev eth0",
    "route add default via 10.0.0.1",
  );
  const created = createHostKernel({ onLateFailure: (failure) => failures.push(failure) });
  if (!created.ok) throw new Error(created.error.detail);
  kernel = created.value;
});

afterAll(async () => {
  await kernel.close();
  ip("link del eth0", "link del eth1", `link del ${pod.hostLink}`);
  ip("rule flush", "rule add priority 32766 lookup main", "rule add priority 32767 lookup default");
  expect(failures).toEqual([]);
});

/** One pass of the repair loop: what it did. */
function pass(): readonly string[] {
  const seen = kernel.observe();
  if (!seen.ok) throw new Error(seen.error.detail);
  const ops = diffHost(planHost(state([pod]), seen.value.links, settings).desired, seen.value);
  expect(kernel.apply(ops)).toEqual([]);
  return ops.map(renderOp);
}

test("the first pass makes everything, and the second finds nothing to do", () => {
  expect(pass()).toHaveLength(11);
  expect(pass()).toEqual([]);
  expect(ip("route show table main")).toMatch(
    /^default via 10.0.0.1 dev eth0 *\n10.0.0.0\/24 dev eth0 .*\n$/,
  );
});

test.each([
  ["the ENI's link goes down and up", ["link set eth1 down", "link set eth1 up"]],
  ["the pod's host link goes down", [`link set ${pod.hostLink} down`]],
  [
    "all rules but the OS's own go",
    ["rule flush", "rule add priority 32766 lookup main", "rule add priority 32767 lookup default"],
  ],
  ["the ENI's table and the pods' table are flushed", ["route flush table 10001", "route flush table 100"]],
  ["a DHCP client adds an address, with its connected route", ["address add 10.0.1.99/24 dev eth1"]],
  [
    "a DHCP client was first, so that ours is only second in the subnet, and would go with its address",
    ["address flush dev eth1", "address add 10.0.1.99/24 dev eth1", "address add 10.0.1.10/24 dev eth1"],
  ],
  ["only a DHCP client's address is there", ["address flush dev eth1", "address add 10.0.1.99/24 dev eth1"]],
  ["MTU and group are changed", ["link set eth1 mtu 1500", `link set ${pod.hostLink} group 0`]],
  [
    "a route of ours leads elsewhere, and a second rule and a stale route are there",
    [
      "route replace 10.0.1.20 dev eth0 scope link table 100 proto 98",
      "route add 10.0.1.29 dev eth0 scope link table 100 proto 98",
      "rule add priority 1536 fwmark 0x2/0x3f lookup 10002 protocol 98",
    ],
  ],
])("when %s, one pass mends it", (_, lines) => {
  const whole = snapshot();
  ip(...lines);
  expect(pass()).not.toEqual([]);
  expect(pass()).toEqual([]);
  expect(snapshot()).toBe(whole);
});

/** What decides where packets go, as `ip` tells it. */
function snapshot(): string {
  const show = (...args: readonly string[]): string => execFileSync("ip", [...args], { encoding: "utf8" });
  return [
    show("rule"),
    ...["main", "100", "10001"].map((table) => show("route", "show", "table", table)),
    ...["eth0", "eth1"].map((link) => show("-4", "-brief", "address", "show", "dev", link)),
  ].join("---\n");
}
