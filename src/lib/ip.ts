/** IPv4 and IPv6 addresses and CIDRs. An address is its canonical text, so that it can be a map's key and read in a log. */
import type { Brand } from "./brand.ts";
import { err, ok, type Result } from "./result.ts";

export type Ipv4 = Brand<string, "Ipv4">;
export type Ipv6 = Brand<string, "Ipv6">;
export type Ip = Ipv4 | Ipv6;

/** `network` is the first address of the block: host bits are zero. */
export type Cidr4 = { readonly network: Ipv4; readonly prefixLength: number };

export function parseIpv4(text: string): Result<Ipv4, string> {
  const parts = text.split(".");
  if (
    parts.length !== 4 ||
    !parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255)
  ) {
    return err(`not an IPv4 address: ${quote(text)}`);
  }
  return ok(text as Ipv4);
}

/** Throws on bad text: for constants and for text that was parsed before. */
export function ipv4(text: string): Ipv4 {
  const parsed = parseIpv4(text);
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}

export function isIpv4(ip: Ip): ip is Ipv4 {
  return !ip.includes(":");
}

/** The address as an unsigned 32-bit number, network order. */
export function ipv4ToNumber(ip: Ipv4): number {
  let value = 0;
  for (const part of ip.split(".")) value = value * 256 + Number(part);
  return value;
}

/** `value` is taken modulo 2^32. */
export function numberToIpv4(value: number): Ipv4 {
  const n = value >>> 0;
  return `${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}` as Ipv4;
}

export function ipv4Plus(ip: Ipv4, offset: number): Ipv4 {
  return numberToIpv4(ipv4ToNumber(ip) + offset);
}

/** `10.0.0.0/16`. Host bits must be zero: a block with them is a mistake worth an error. */
export function parseCidr4(text: string): Result<Cidr4, string> {
  const slash = text.indexOf("/");
  const lengthText = text.slice(slash + 1);
  const address = slash === -1 ? err("") : parseIpv4(text.slice(0, slash));
  if (!address.ok || !/^[0-9]{1,2}$/.test(lengthText) || Number(lengthText) > 32) {
    return err(`not an IPv4 CIDR: ${quote(text)}`);
  }
  const prefixLength = Number(lengthText);
  const network = networkOf(address.value, prefixLength);
  if (network !== address.value)
    return err(`${quote(text)} has host bits set; did you mean ${network}/${prefixLength}?`);
  return ok({ network, prefixLength });
}

/** Throws on bad text: for constants and for text that was parsed before. */
export function cidr4(text: string): Cidr4 {
  const parsed = parseCidr4(text);
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}

export function printCidr4(cidr: Cidr4): string {
  return `${cidr.network}/${cidr.prefixLength}`;
}

export function cidr4Size(cidr: Cidr4): number {
  return 2 ** (32 - cidr.prefixLength);
}

export function cidr4Contains(cidr: Cidr4, ip: Ipv4): boolean {
  return networkOf(ip, cidr.prefixLength) === cidr.network;
}

export function cidr4Overlap(left: Cidr4, right: Cidr4): boolean {
  const shorter = Math.min(left.prefixLength, right.prefixLength);
  return networkOf(left.network, shorter) === networkOf(right.network, shorter);
}

/** Every address of the block, network and broadcast included. */
export function* addressesOfCidr4(cidr: Cidr4): Generator<Ipv4> {
  const first = ipv4ToNumber(cidr.network);
  for (let offset = 0; offset < cidr4Size(cidr); offset += 1) yield numberToIpv4(first + offset);
}

export function networkOf(ip: Ipv4, prefixLength: number): Ipv4 {
  const mask = prefixLength === 0 ? 0 : (0xffff_ffff << (32 - prefixLength)) >>> 0;
  return numberToIpv4((ipv4ToNumber(ip) & mask) >>> 0);
}

export function compareIpv4(left: Ipv4, right: Ipv4): number {
  return ipv4ToNumber(left) - ipv4ToNumber(right);
}

/** Canonical text by RFC 5952. Zone ids and embedded IPv4 are refused: EC2 and the kernel use neither. */
export function parseIpv6(text: string): Result<Ipv6, string> {
  const bad = err(`not an IPv6 address: ${quote(text)}`);
  const halves = text.split("::");
  if (halves.length > 2) return bad;
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  const given = groups.flat();
  if (!given.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return bad;
  if (halves.length === 1 ? given.length !== 8 : given.length > 7) return bad;
  const zeros = Array.from({ length: 8 - given.length }, () => "0");
  const words = [...(groups[0] ?? []), ...zeros, ...(groups[1] ?? [])].map((group) =>
    Number.parseInt(group, 16),
  );
  return ok(printIpv6(words));
}

function printIpv6(words: readonly number[]): Ipv6 {
  let best = { start: -1, length: 1 }; // A single zero group is written out.
  for (let start = 0; start < 8; start += 1) {
    let length = 0;
    while (start + length < 8 && words[start + length] === 0) length += 1;
    if (length > best.length) best = { start, length };
  }
  const hex = (part: readonly number[]): string => part.map((word) => word.toString(16)).join(":");
  if (best.start === -1) return hex(words) as Ipv6;
  return `${hex(words.slice(0, best.start))}::${hex(words.slice(best.start + best.length))}` as Ipv6;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}
