import { isIPv6, SocketAddress } from "node:net";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  addressesOfCidr4,
  cidr4,
  cidr4Contains,
  cidr4Overlap,
  cidr4Size,
  compareIpv4,
  ipv4,
  ipv4Plus,
  ipv4ToNumber,
  isIpv4,
  networkOf,
  numberToIpv4,
  parseCidr4,
  parseIpv4,
  parseIpv6,
  printCidr4,
} from "../../src/lib/ip.ts";

const arbNumber = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const arbLength = fc.integer({ min: 0, max: 32 });

test.each(["0.0.0.0", "10.0.0.1", "255.255.255.255", "169.254.1.1"])("%s is an IPv4 address", (text) => {
  expect(parseIpv4(text)).toEqual({ ok: true, value: text });
  expect(isIpv4(ipv4(text))).toBe(true);
});

test.each([
  "",
  "1.2.3",
  "1.2.3.4.5",
  "1.2.3.256",
  "01.2.3.4",
  "1.2.3.4 ",
  "1.2.3.-4",
  "1.2.3.4/24",
  "::1",
  "1.2.3.1e1",
  "1..2.3",
])("%j is no IPv4 address", (text) => {
  expect(parseIpv4(text).ok).toBe(false);
  expect(() => ipv4(text)).toThrow("not an IPv4 address");
});

test("addresses and numbers are two forms of the same", () => {
  expect(ipv4ToNumber(ipv4("10.0.0.1"))).toBe(0x0a00_0001);
  fc.assert(fc.property(arbNumber, (n) => ipv4ToNumber(numberToIpv4(n)) === n));
});

test("counting on from an address crosses octets, and goes round at the end", () => {
  expect(ipv4Plus(ipv4("10.0.0.255"), 1)).toBe("10.0.1.0");
  expect(ipv4Plus(ipv4("10.0.1.0"), -1)).toBe("10.0.0.255");
  expect(ipv4Plus(ipv4("255.255.255.255"), 1)).toBe("0.0.0.0");
});

test("addresses are ordered as numbers, not as text", () => {
  const ips = ["10.0.0.10", "10.0.0.9", "9.255.0.0"].map(ipv4);
  expect(ips.sort(compareIpv4)).toEqual(["9.255.0.0", "10.0.0.9", "10.0.0.10"]);
});

test.each(["0.0.0.0/0", "10.0.0.0/8", "10.0.0.16/28", "1.2.3.4/32"])("%s is a CIDR", (text) => {
  expect(printCidr4(cidr4(text))).toBe(text);
});

test.each([
  ["10.0.0.1/8", "did you mean 10.0.0.0/8"],
  ["10.0.0.0/33", "not an IPv4 CIDR"],
  ["10.0.0.0", "not an IPv4 CIDR"],
  ["10.0.0.0/", "not an IPv4 CIDR"],
  ["10.0.0.0/1e1", "not an IPv4 CIDR"],
  ["10.0.0/8", "not an IPv4 CIDR"],
  ["x".repeat(500), "not an IPv4 CIDR"],
])("%s is no CIDR", (text, told) => {
  const parsed = parseCidr4(text);
  if (parsed.ok) throw new Error("it was taken");
  expect(parsed.error).toContain(told);
  expect(parsed.error.length).toBeLessThan(120);
});

test("a block contains just its addresses", () => {
  const block = cidr4("10.0.0.16/28");
  const all = [...addressesOfCidr4(block)];
  expect([all[0], all.at(-1), all.length]).toEqual(["10.0.0.16", "10.0.0.31", 16]);
  expect(all.every((ip) => cidr4Contains(block, ip))).toBe(true);
  expect([ipv4("10.0.0.15"), ipv4("10.0.0.32")].some((ip) => cidr4Contains(block, ip))).toBe(false);
});

test("an address is in the block of its own network, and two blocks overlap when one holds the other's first address", () => {
  fc.assert(
    fc.property(arbNumber, arbLength, arbNumber, arbLength, (n, length, m, otherLength) => {
      const block = { network: networkOf(numberToIpv4(n), length), prefixLength: length };
      const other = { network: networkOf(numberToIpv4(m), otherLength), prefixLength: otherLength };
      const first = ipv4ToNumber(block.network);
      expect(n >= first && n < first + cidr4Size(block)).toBe(true);
      expect(cidr4Contains(block, numberToIpv4(m))).toBe(m >= first && m < first + cidr4Size(block));
      const overlap = cidr4Contains(block, other.network) || cidr4Contains(other, block.network);
      expect(cidr4Overlap(block, other)).toBe(overlap);
      expect(cidr4Overlap(other, block)).toBe(overlap);
    }),
  );
});

// --- IPv6, by RFC 5952 -------------------------------------------------------------------------------------------------

test.each([
  ["::", "::"],
  ["::1", "::1"],
  ["1::", "1::"],
  ["2001:DB8::1", "2001:db8::1"], // 4.3: lower case
  ["2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1"], // 4.1: no leading zeros
  ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"], // 4.2.2: one group is not shortened
  ["2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
  ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"], // 4.2.3: the longest run
  ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"], // 4.2.3: of equal ones the first
  ["fe80:0:0:0:0:0:0:0", "fe80::"],
  ["0:0:0:0:0:0:0:1", "::1"],
])("%s is written %s", (text, canonical) => {
  expect(parseIpv6(text)).toEqual({ ok: true, value: canonical });
});

test.each([
  "",
  ":",
  ":::",
  "1",
  "1:2:3:4:5:6:7",
  "1:2:3:4:5:6:7:8:9",
  "1::2::3",
  "1:2:3:4:5:6:7:8::",
  "12345::",
  "g::",
  "::1%eth0",
  "::ffff:1.2.3.4",
  "1.2.3.4",
  ":1:2:3:4:5:6:7",
  "1:2:3:4:5:6:7:",
])("%j is no IPv6 address that EC2 or the kernel would write", (text) => {
  expect(parseIpv6(text).ok).toBe(false);
});

test("every IPv6 address has one text, the one that the platform writes too", () => {
  const arbWords = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff })), {
    minLength: 8,
    maxLength: 8,
  });
  fc.assert(
    fc.property(arbWords, (words) => {
      const text = words.map((word) => word.toString(16).padStart(4, "0")).join(":");
      const parsed = parseIpv6(text);
      if (!parsed.ok) throw new Error(parsed.error);
      expect(isIPv6(parsed.value)).toBe(true);
      expect(parseIpv6(parsed.value)).toEqual(parsed);
      // The platform writes ::ffff:1.2.3.4 and ::1.2.3.4 in its own way.
      if (words.slice(0, 5).some((word) => word !== 0))
        expect(parsed.value).toBe(new SocketAddress({ family: "ipv6", address: text }).address);
    }),
  );
});
