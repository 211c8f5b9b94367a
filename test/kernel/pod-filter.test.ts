// The nft table of an ipvlan pod, by nfnetlink and by nft: what we encode is what nft reads. Any kernel will do: ipvlan itself is judged in test/guest.
import { afterEach, beforeEach, expect, test } from "vitest";
import type { NetnsRef } from "../../src/core/model/sandbox.ts";
import { printPodFilter } from "../../src/core/plumbing/pod-filter.ts";
import { loadPodFilter, podFilterDifferences } from "../../src/kernel/slave.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import { Connection, NETLINK_NETFILTER } from "../../src/netlink/connection.ts";
import { type NetnsConnection, openInNetns, withinNetns } from "../../src/netlink/netns.ts";
import { podFilterRequests } from "../../src/netlink/nftables.ts";
import { makeNetns, nameOf, removeAllNetns, sh } from "./sandboxes.ts";

let netns: NetnsRef;
let pod: NetnsConnection;
beforeEach(() => {
  const [made] = makeNetns(1);
  if (made === undefined) throw new Error("no namespace");
  netns = made;
  const opened = openInNetns(netns.path, netns);
  if (!opened.ok) throw new Error(JSON.stringify(opened.error));
  pod = opened.value;
});
afterEach(() => {
  pod.close();
  removeAllNetns();
});

const filter = { slave: "eth0", veth: "veth0", ip: ipv4("10.0.1.20") };
const inside = (command: string): string => sh(`ip netns exec ${nameOf(netns)} ${command}`);
const listed = (): string => inside("nft -s list table ip berth").replaceAll("\t", "  ");

test("nft lists the table that we loaded as the text that we print, and that text loaded by nft is no difference to us", () => {
  expect(loadPodFilter(pod, filter)).toBeNull();
  expect(listed()).toBe(printPodFilter(filter));
  expect(podFilterDifferences(pod, filter)).toEqual({ ok: true, value: [] });
  inside(
    `sh -c 'nft flush ruleset; echo ${Buffer.from(printPodFilter(filter)).toString("base64")} | base64 -d | nft -f -'`,
  );
  expect(podFilterDifferences(pod, filter)).toEqual({ ok: true, value: [] });
});

test("loading it again replaces what was there, another pod's address included, and leaves other tables alone", () => {
  inside("nft add table inet theirs");
  expect(loadPodFilter(pod, { ...filter, ip: ipv4("10.0.1.99") })).toBeNull();
  expect(podFilterDifferences(pod, filter)).toMatchObject({ ok: true, value: { length: 4 } }); // Two rules have the address.
  expect(loadPodFilter(pod, filter)).toBeNull();
  expect(listed()).toBe(printPodFilter(filter));
  expect(inside("nft list tables")).toBe("table inet theirs\ntable ip berth\n");
});

test("a transaction of which one part is refused leaves what was there", () => {
  expect(loadPodFilter(pod, filter)).toBeNull();
  const opened = withinNetns(pod.fd, () => Connection.open(NETLINK_NETFILTER));
  if (!opened.ok || !opened.value.ok) throw new Error("no socket");
  const [begin, add, remove, ...rest] = podFilterRequests({ ...filter, ip: ipv4("10.0.1.99") });
  if (begin === undefined || add === undefined || remove === undefined) throw new Error("no requests");
  const body = Buffer.from(Buffer.from(remove.body).toString("latin1").replace("berth", "other"), "latin1"); // There is no such table.
  const refused = opened.value.value.transaction([
    begin,
    add,
    remove,
    ...rest.slice(0, 3),
    { ...remove, body },
    ...rest.slice(3),
  ]);
  opened.value.value.close();
  expect(refused).toMatchObject({ ok: false, error: { code: "ENOENT" } });
  expect(listed()).toBe(printPodFilter(filter));
});
