// Our requests beside those that `ip` sent for the same command (test/golden/netlink/requests.json, captured with
// `strace -e trace=sendmsg,sendto -e write=all ip …`, iproute2 6.1, where eth9 has index 3 and eth8 index 2).
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { KernelObject, VethPair } from "../../src/core/plumbing/object.ts";
import type { Mac } from "../../src/core/model/eni.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import {
  deleteRequest,
  encodeRequest,
  linkGroupDeleteRequest,
  linkSetRequest,
  type NetlinkRequest,
  putRequest,
  vethCreateRequest,
} from "../../src/netlink/messages.ts";

const golden = JSON.parse(
  readFileSync(new URL("../golden/netlink/requests.json", import.meta.url), "utf8"),
) as {
  command: string;
  bytes: string;
}[];

const mac = (text: string): Mac => text as Mac; // A constant of this test.
const anywhere = { ip: ipv4("0.0.0.0"), prefixLength: 0 };
const address: KernelObject = {
  kind: "address",
  link: "eth9",
  ip: ipv4("10.0.0.5"),
  prefixLength: 32,
  noPrefixRoute: true,
};
const podRoute: KernelObject = {
  kind: "route",
  table: 100,
  destination: { ip: ipv4("10.1.2.3"), prefixLength: 32 },
  link: "eth9",
  gateway: null,
  scope: "link",
  onlink: false,
  mtu: null,
};
const defaultRoute: KernelObject = {
  kind: "route",
  table: 10_001,
  destination: anywhere,
  link: "eth9",
  gateway: ipv4("10.0.0.1"),
  scope: "global",
  onlink: true,
  mtu: 1500,
};
const rule: KernelObject = {
  kind: "rule",
  priority: 1536,
  mark: { value: 2, mask: 0x3f },
  from: null,
  to: null,
  table: 10_001,
};
const from = { ip: ipv4("10.0.0.9"), prefixLength: 32 };
const to = { ip: ipv4("10.9.0.0"), prefixLength: 16 };
const neighbour: KernelObject = {
  kind: "neighbour",
  link: "eth9",
  ip: ipv4("169.254.1.1"),
  mac: mac("0a:00:00:00:00:01"),
};
const pair: VethPair = {
  hostName: "eni0123456789a",
  hostMac: mac("0a:00:00:00:00:01"),
  group: 1001,
  alias: "net/abc/eth0",
  podName: "eth0",
  podMac: mac("0e:00:00:00:00:01"),
  hostMtu: 9001,
  podMtu: 8500,
};

const cases: readonly (readonly [command: string, ours: NetlinkRequest])[] = [
  ["link add", vethCreateRequest(pair, 4)], // `ip` had the namespace open as descriptor 4.
  ["link set eth8 alias", linkSetRequest({ index: 2 }, { alias: "net/abc/eth0" })],
  ["link set eth8 up", linkSetRequest({ index: 2 }, { up: true, mtu: 1400, group: 7 })],
  ["address replace", putRequest(address, 3)],
  ["address delete", deleteRequest({ ...address, noPrefixRoute: false }, 3)],
  ["route replace 10.1.2.3/32", putRequest(podRoute, 3)],
  ["route replace default", putRequest(defaultRoute, 3)],
  ["route delete", deleteRequest(podRoute, 3)],
  ["rule add priority 1536", putRequest(rule, 0)],
  ["rule add priority 32765", putRequest({ ...rule, priority: 32_765, mark: null, from }, 0)],
  ["rule add priority 1535", putRequest({ ...rule, priority: 1535, mark: null, to, table: 254 }, 0)],
  ["rule delete", deleteRequest(rule, 0)],
  ["neighbour replace", putRequest(neighbour, 3)],
  ["neighbour delete", deleteRequest(neighbour, 3)],
];

test.each(cases)("ip %s … and we ask the kernel for the same", (start, ours) => {
  const theirs = golden.find(({ command }) => command.startsWith(`ip ${start}`));
  expect(theirs, "a captured command").toBeDefined();
  expect(meaning(encodeRequest(ours, 1, 0x5))).toEqual(meaning(Buffer.from(theirs?.bytes ?? "", "hex")));
});

test("a message says its own length, flags and sequence number", () => {
  const bytes = encodeRequest(putRequest(rule, 0), 77, 0x5);
  expect(bytes.toString("hex")).toBe(
    "440000002000050" +
      "64d00000000000000" +
      "020000000000000100000000" +
      "0800060000060000" +
      "08000f0011270000" +
      "0500150062000000" +
      "08000a0002000000" +
      "080010003f000000",
  );
});

test("the group of links that nobody grouped is never deleted", () => {
  expect(() => linkGroupDeleteRequest(0)).toThrow("broken promise");
});

type Attributes = Record<string, string | object>;

/** Fixed header sizes by message type / 4: links, addresses, routes, neighbours, rules. */
const headerSizes = new Map([
  [16, 16],
  [20, 8],
  [24, 12],
  [28, 12],
  [32, 12],
]);

/**
 * A request without what two senders may write differently: order of attributes, a table below 256 in header or attribute, NUL at
 * a string's end, SETLINK or NEWLINK for a link that is there, a route's type and a rule's action in a deletion.
 */
function meaning(message: Buffer): unknown {
  const type = message.readUInt16LE(4) === 19 ? 16 : message.readUInt16LE(4);
  const base = type & ~3;
  const size = headerSizes.get(base) ?? 0;
  const header = Buffer.from(message.subarray(16, 16 + size));
  const attributes = attributesOf(message.subarray(16 + size, message.readUInt32LE(0)));
  if (base === 24 || base === 32) {
    const table = header[4] ?? 0;
    if (table !== 0) attributes["15"] = Buffer.from([table, 0, 0, 0]).toString("hex");
    header[4] = 0;
  }
  if (type === 25 || type === 33) header[7] = 0;
  if (base === 16) {
    for (const name of ["3", "20"]) withoutEnd(attributes, name);
    const info = attributes["18"];
    if (typeof info === "string") attributes["18"] = linkInfo(Buffer.from(info, "hex"));
  }
  return { type, flags: message.readUInt16LE(6), header: header.toString("hex"), attributes };
}

function linkInfo(bytes: Buffer): Attributes {
  const info = attributesOf(bytes);
  withoutEnd(info, "1");
  const peer = bytesIn(attributesOf(bytesIn(info["2"]))["1"]);
  const attributes = attributesOf(peer.subarray(16));
  withoutEnd(attributes, "3");
  info["2"] = { header: peer.subarray(0, 16).toString("hex"), attributes };
  return info;
}

function withoutEnd(attributes: Attributes, name: string): void {
  const value = attributes[name];
  if (typeof value === "string") attributes[name] = value.replace(/00$/, "");
}

function bytesIn(value: string | object | undefined): Buffer {
  return Buffer.from(typeof value === "string" ? value : "", "hex");
}

function attributesOf(bytes: Buffer): Attributes {
  const found: Attributes = {};
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    found[String(bytes.readUInt16LE(at + 2))] = bytes.subarray(at + 4, at + length).toString("hex");
    at += (length + 3) & ~3;
  }
  return found;
}
