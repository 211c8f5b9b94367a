/**
 * Conntrack entries of one address, by ctnetlink: the request that deletes them, and, for kernels that cannot delete by filter
 * (before 6.5), the dump that finds them and the request that deletes one. Source: linux/netfilter/nfnetlink_conntrack.h.
 */
import * as structs from "netlink/dist/structs.js";
import type { Ipv4 } from "../lib/ip.ts";
import { AF_INET, NLM_F_DUMP, type NetlinkRequest } from "./messages.ts";

const NFNL_SUBSYS_CTNETLINK = 1; // linux/netfilter/nfnetlink.h
const IPCTNL_MSG_CT_GET = 1;
const IPCTNL_MSG_CT_DELETE = 2;
const NFGENMSG_SIZE = 4;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_TUPLE_IP = 1; // Inside a tuple; and inside that:
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_FILTER_ORIG_FLAGS = 1; // Inside a filter. Flag n says that the tuple's field n counts:
const CTA_FILTER_REPLY_FLAGS = 2;
const FILTER_IP_SRC = 1;
const FILTER_IP_DST = 2;

/** Where an address may stand in an entry. DNAT to a pod shows it as the source of replies only, so all four are asked. */
export type ConntrackPlace = {
  readonly tuple: "original" | "reply";
  readonly end: "source" | "destination";
};
export const CONNTRACK_PLACES: readonly ConntrackPlace[] = [
  { tuple: "original", end: "source" },
  { tuple: "original", end: "destination" },
  { tuple: "reply", end: "source" },
  { tuple: "reply", end: "destination" },
];

/**
 * Deletes all IPv4 entries with the address in that place. ENOENT: there was none. EINVAL: the kernel is too old for it, and did nothing:
 * such a kernel takes the tuple for a whole one and misses its protocol, so it never deletes more than was meant.
 */
export function conntrackDeleteRequest(ip: Ipv4, place: ConntrackPlace): NetlinkRequest {
  return request(
    IPCTNL_MSG_CT_DELETE,
    0,
    filter(ip, place),
    `conntrack delete ${place.tuple} ${place.end} ${ip}`,
  );
}

/** Dumps them. Kernels before 5.8 do not know the filter and show all entries: compare `ips`. */
export function conntrackDumpRequest(ip: Ipv4, place: ConntrackPlace): NetlinkRequest {
  return request(
    IPCTNL_MSG_CT_GET,
    NLM_F_DUMP,
    filter(ip, place),
    `conntrack list ${place.tuple} ${place.end} ${ip}`,
  );
}

/** An entry, as much of it as names it to the kernel. */
export type ConntrackEntry = {
  readonly ips: readonly string[];
  readonly identity: readonly { readonly type: number; readonly data: Buffer }[];
};

export function parseConntrackEntry(message: structs.NetlinkMessage): ConntrackEntry | null {
  try {
    const ips: string[] = [];
    const identity: { type: number; data: Buffer }[] = [];
    structs.parseAttributes(message.data.subarray(NFGENMSG_SIZE), ({ type, data }) => {
      if (type === CTA_TUPLE_ORIG || type === CTA_TUPLE_REPLY) ips.push(...tupleIps(data));
      if (type === CTA_TUPLE_ORIG || type === CTA_ID || type === CTA_ZONE)
        identity.push({ type, data: Buffer.from(data) });
    });
    return { ips, identity };
  } catch {
    return null;
  }
}

/** Deletes this one entry, and not a later one with the same tuple: the kernel compares CTA_ID. ENOENT: it is gone. */
export function conntrackEntryDeleteRequest(entry: ConntrackEntry): NetlinkRequest {
  const attributes = entry.identity.map(({ type, data }) => attribute(type, data, type === CTA_TUPLE_ORIG));
  return request(IPCTNL_MSG_CT_DELETE, 0, Buffer.concat(attributes), "conntrack delete one entry");
}

function request(message: number, flags: number, attributes: Buffer, what: string): NetlinkRequest {
  const header = Buffer.from([AF_INET, 0, 0, 0]); // struct nfgenmsg: family, version 0, resource 0.
  return {
    type: (NFNL_SUBSYS_CTNETLINK << 8) | message,
    flags,
    body: Buffer.concat([header, attributes]),
    what,
  };
}

function filter(ip: Ipv4, place: ConntrackPlace): Buffer {
  const source = place.end === "source";
  const original = place.tuple === "original";
  const address = attribute(
    source ? CTA_IP_V4_SRC : CTA_IP_V4_DST,
    Buffer.from(ip.split(".").map(Number)),
    false,
  );
  const tuple = attribute(
    original ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY,
    attribute(CTA_TUPLE_IP, address, true),
    true,
  );
  const flags = structs.putU32(source ? FILTER_IP_SRC : FILTER_IP_DST);
  const none = structs.putU32(0);
  const flagged = [
    attribute(CTA_FILTER_ORIG_FLAGS, original ? flags : none, false),
    attribute(CTA_FILTER_REPLY_FLAGS, original ? none : flags, false),
  ];
  return Buffer.concat([tuple, attribute(CTA_FILTER, Buffer.concat(flagged), true)]);
}

/** Unlike rtnetlink's old families, this one insists on the flag of nested attributes. */
function attribute(type: number, data: Buffer, nested: boolean): Buffer {
  return Buffer.concat(structs.pad([...structs.formatAttribute({ type, data, nested })]));
}

function tupleIps(tuple: Buffer): readonly string[] {
  const ips: string[] = [];
  structs.parseAttributes(tuple, ({ type, data }) => {
    if (type !== CTA_TUPLE_IP) return;
    structs.parseAttributes(data, (address) => {
      if (address.data.length === 4) ips.push(address.data.join("."));
    });
  });
  return ips;
}
