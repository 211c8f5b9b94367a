// What the kernel (Linux 6.18) said after an `ip` command, and what we read in it: test/golden/netlink/answers.json.
import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  errnoName,
  parseAck,
  parseAddress,
  parseLink,
  parseNeighbour,
  parseRoute,
  parseRule,
} from "../../src/netlink/answers.ts";

const golden = JSON.parse(
  readFileSync(new URL("../golden/netlink/answers.json", import.meta.url), "utf8"),
) as {
  kind: string;
  command: string;
  bytes: string;
}[];

const parsers = {
  links: parseLink,
  addresses: parseAddress,
  routes: parseRoute,
  rules: parseRule,
  neighbours: parseNeighbour,
};
const message = (data: Buffer, flags = 0) => ({ type: 0, flags, seq: 1, port: 0, data });

const route = { kind: "route", linkIndex: 3, gateway: null, scope: "global", onlink: false, mtu: null };
const rule = { kind: "rule", mark: null, from: null, to: null };

const readings: readonly (readonly [kind: keyof typeof parsers, start: string, reading: unknown])[] = [
  [
    "links",
    "ip link set eni0123456789a alias net/abc/eth0",
    {
      name: "eni0123456789a",
      index: 4,
      mac: "0a:00:00:00:00:01",
      mtu: 9001,
      up: true,
      group: 1001,
      alias: "net/abc/eth0",
      kind: "veth",
    },
  ],
  [
    "addresses",
    "ip address add 10.0.0.77/24",
    { linkIndex: 3, ip: "10.0.0.77", prefixLength: 24, noPrefixRoute: true },
  ],
  [
    "routes",
    "ip route add 10.1.2.3/32",
    {
      ...route,
      table: 10_001,
      destination: { ip: "10.1.2.3", prefixLength: 32 },
      scope: "link",
      protocol: 98,
    },
  ],
  [
    "routes",
    "ip route add 10.3.0.0/16",
    {
      ...route,
      table: 254,
      destination: { ip: "10.3.0.0", prefixLength: 16 },
      gateway: "10.0.0.1",
      onlink: true,
      mtu: 1500,
      protocol: 4,
    },
  ],
  ["routes", "ip route add blackhole", "other"],
  ["routes", "ip route add 10.5.0.0/16 via inet6", null],
  ["routes", "ip route add 10.6.0.0/16 nexthop", "other"],
  [
    "rules",
    "ip rule add priority 1537",
    { ...rule, priority: 1537, mark: { value: 2, mask: 0x3f }, table: 10_001, protocol: 98 },
  ],
  [
    "rules",
    "ip rule add priority 1538",
    { ...rule, priority: 1538, to: { ip: "10.9.0.0", prefixLength: 16 }, table: 254, protocol: 0 },
  ],
  ["rules", "ip rule add priority 1539", "other"],
  ["rules", "ip rule add priority 1540", { ...rule, priority: 1540, iif: "eth9", table: 100, protocol: 0 }],
  ["rules", "ip rule add priority 1541", "other"],
  [
    "neighbours",
    "ip neighbour replace",
    { linkIndex: 3, ip: "169.254.1.1", mac: "0a:00:00:00:00:01", permanent: true },
  ],
];

test.each(readings)("of the kernel's %s we read what `%s` made", (kind, start, reading) => {
  const captured = golden.find((each) => each.command.startsWith(start));
  expect(captured?.kind).toBe(kind);
  expect(parsers[kind](message(Buffer.from(captured?.bytes ?? "", "hex")))).toEqual(reading);
});

test("no bytes whatever make a parser throw: what cannot be read is null, and the dump goes on", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 120 }),
      fc.constantFrom(...Object.values(parsers)),
      (bytes, parse) => {
        const read = parse(message(Buffer.from(bytes)));
        expect(read === null || typeof read === "object" || read === "other").toBe(true);
      },
    ),
  );
});

test("a captured answer that was damaged is read or is null, and never throws", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...golden),
      fc.nat(),
      fc.integer({ min: 0, max: 255 }),
      ({ bytes, kind }, at, value) => {
        const damaged = Buffer.from(bytes, "hex");
        damaged[at % damaged.length] = value;
        expect(() => parsers[kind as keyof typeof parsers](message(damaged))).not.toThrow(); // Kinds are those of `parsers`.
      },
    ),
  );
});

test("a refusal keeps the errno and the kernel's own words", () => {
  const text = Buffer.from("Nexthop has invalid gateway\0");
  const attribute = Buffer.alloc(4 + text.length);
  attribute.writeUInt16LE(4 + text.length, 0);
  attribute.writeUInt16LE(1, 2); // NLMSGERR_ATTR_MSG
  text.copy(attribute, 4);
  const errno = Buffer.alloc(4);
  errno.writeInt32LE(-101);
  const capped = message(Buffer.concat([errno, Buffer.alloc(16), attribute]), 0x300);
  expect(parseAck(capped)).toEqual({ errno: 101, detail: "Nexthop has invalid gateway" });
  expect(errnoName(101)).toBe("ENETUNREACH");
  // Not capped: the request of 20 bytes is repeated before the words.
  const header = Buffer.alloc(20);
  header.writeUInt32LE(20, 0);
  expect(parseAck(message(Buffer.concat([errno, header, attribute]), 0x200)).detail).toBe(
    "Nexthop has invalid gateway",
  );
});

test("an ack is errno 0", () => {
  expect(parseAck(message(Buffer.alloc(20)))).toEqual({ errno: 0, detail: "" });
});
