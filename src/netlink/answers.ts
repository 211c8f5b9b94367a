/**
 * What the kernel answers: acks with errno and its own words, and the objects of a dump as typed records. A message that
 * cannot be read is null and counted by the caller; it never ends a dump (the codec throws on RTA_VIA, for one).
 */
import { constants } from "node:os";
import * as ifla from "netlink/dist/rt/ifla.js";
import * as rt from "netlink/dist/rt/structs.js";
import * as structs from "netlink/dist/structs.js";
import type { KernelObject, LinkSeen } from "../core/plumbing/object.ts";
import { ipv4, type Ipv4 } from "../lib/ip.ts";
import { AF_INET, IPV4_DEVCONF } from "./messages.ts";

const NLM_F_CAPPED = 0x100; // linux/netlink.h: the request's payload is not repeated in its error.
const NLM_F_ACK_TLVS = 0x200; // Extended ack attributes follow.
const NLMSGERR_ATTR_MSG = 1;

const RTNH_F_ONLINK = 4; // linux/rtnetlink.h
const FRA_MAX_KNOWN = 24; // linux/fib_rules.h, FRA_DPORT_RANGE: the last one that the codec knows. It drops later ones unseen.
// The codec reads enums as names or as numbers; we compare numbers.
const UNICAST: number = rt.RouteType.UNICAST;
const SCOPE_LINK: number = rt.RouteScope.LINK;
const LOOKUP: number = rt.RuleAction.toTbl;

/** A request that the kernel refused. `code` is the name of `errno` ("EEXIST"); `detail` is the kernel's own text, often empty. */
export type NetlinkError = {
  readonly errno: number;
  readonly code: string;
  readonly detail: string;
  readonly what: string; // The request, like an `ip` command.
};

/** Not the kernel's: the answer did not come. Whether the request was carried out is unknown. */
export const NO_ANSWER = "ENOANSWER";

const nameOfErrno = new Map<number, string>();
for (const [name, value] of Object.entries(constants.errno)) {
  if (!nameOfErrno.has(value)) nameOfErrno.set(value, name);
}
nameOfErrno.set(constants.errno.EOPNOTSUPP, "EOPNOTSUPP"); // ENOTSUP is the same number; the kernel's headers say this.

export function errnoName(errno: number): string {
  return nameOfErrno.get(errno) ?? `E${errno}`;
}

/**
 * The payload of NLMSG_ERROR or of NLMSG_DONE, which have errno in front: 0 or a negative number.
 * Source: linux/netlink.h, struct nlmsgerr and enum nlmsgerr_attrs.
 */
export function parseAck(message: structs.NetlinkMessage): {
  readonly errno: number;
  readonly detail: string;
} {
  const { data, flags } = message;
  const errno = data.length >= 4 ? Math.abs(structs.readS32.call(data, 0)) : 0;
  if ((flags & NLM_F_ACK_TLVS) === 0 || data.length < 20) return { errno, detail: "" };
  // After errno stands the request's header and, unless capped, its payload; the attributes come behind.
  const repeated = (flags & NLM_F_CAPPED) === 0 ? structs.readU32.call(data, 4) : structs.HEADER_LENGTH;
  return { errno, detail: extendedAckText(data.subarray(4 + structs.align(repeated))) };
}

/** The attributes of a dump's NLMSG_DONE come right after errno. */
export function parseDone(message: structs.NetlinkMessage): {
  readonly errno: number;
  readonly detail: string;
} {
  const { data, flags } = message;
  const errno = data.length >= 4 ? Math.abs(structs.readS32.call(data, 0)) : 0;
  return { errno, detail: (flags & NLM_F_ACK_TLVS) === 0 ? "" : extendedAckText(data.subarray(4)) };
}

function extendedAckText(attributes: Buffer): string {
  let text = "";
  readable(() =>
    structs.parseAttributes(attributes, ({ type, data }) => {
      if (type === NLMSGERR_ATTR_MSG) text = structs.getString(data);
    }),
  );
  return text;
}

/**
 * A link, from RTM_NEWLINK or RTM_DELLINK. Only the attributes that we use are looked at: newer kernels add and lengthen others,
 * and a link of ours must not become invisible because of one. Source: linux/if_link.h, IFLA_*.
 */
export function parseLink(message: structs.NetlinkMessage): LinkSeen | null {
  return readable(() => {
    const header = rt.parseLink(message.data.subarray(0, rt.__LENGTH_Link));
    let name: string | null = null;
    let mac = "";
    let mtu = 0;
    let group = 0;
    let alias: string | null = null;
    let kind: string | null = null;
    structs.parseAttributes(message.data.subarray(rt.__LENGTH_Link), ({ type, data }) => {
      if (type === 1) mac = macText(data);
      else if (type === 3) name = structs.getString(data);
      else if (type === 4) mtu = structs.getU32(data);
      else if (type === 18) kind = readable(() => ifla.parseInfo(data).kind ?? null);
      else if (type === 20) alias = structs.getString(data);
      else if (type === 27) group = structs.getU32(data);
    });
    if (name === null || header.index === undefined) return null;
    const up = header.flags?.up === true;
    return { name, index: header.index, mac: mac as LinkSeen["mac"], mtu, up, group, alias, kind }; // macText makes the form of a Mac.
  });
}

/** The index of a veth's other end in that end's namespace: IFLA_LINK. Null where the kernel does not tell. */
export function parsePeerIndex(message: structs.NetlinkMessage): number | null {
  return readable(() => {
    let index: number | null = null;
    structs.parseAttributes(message.data.subarray(rt.__LENGTH_Link), ({ type, data }) => {
      if (type === 5) index = structs.getU32(data);
    });
    return index;
  });
}

/** A link's switches of net.ipv4.conf, as far as `forwards` asks for them. Null where the kernel does not tell. */
export function parseForwards(
  message: structs.NetlinkMessage,
): { readonly name: string; readonly forwards: boolean } | null {
  return readable(() => {
    let name = "";
    let forwards = false;
    structs.parseAttributes(message.data.subarray(rt.__LENGTH_Link), ({ type, data }) => {
      if (type === 3) name = structs.getString(data);
      if (type !== 26) return; // IFLA_AF_SPEC, in it AF_INET, in it IFLA_INET_CONF: an array of u32, the first is number 1.
      structs.parseAttributes(data, (family) => {
        if (family.type !== AF_INET) return;
        structs.parseAttributes(family.data, (conf) => {
          const at = (number: number): number => structs.readU32.call(conf.data, 4 * (number - 1));
          if (conf.type === 1)
            forwards = at(IPV4_DEVCONF.forwarding) === 1 && at(IPV4_DEVCONF.rpFilter) === 2;
        });
      });
    });
    return { name, forwards };
  });
}

export type AddressSeen = {
  readonly linkIndex: number;
  readonly ip: Ipv4;
  readonly prefixLength: number;
  readonly noPrefixRoute: boolean;
};

/** An IPv4 address. On point-to-point links IFA_LOCAL is ours and IFA_ADDRESS the peer's. */
export function parseAddress(message: structs.NetlinkMessage): AddressSeen | null {
  return readable(() => {
    const { data, attrs } = rt.parseAddressMessage(message.data);
    const ip = attrs.local ?? attrs.address;
    if (ip === undefined || data.index === undefined) return null;
    return {
      linkIndex: data.index,
      ip: ipText(ip),
      prefixLength: data.prefixlen ?? 0,
      noPrefixRoute: attrs.flags?.noprefixroute === true,
    };
  });
}

/** A unicast IPv4 route with one link. `linkIndex` stands where a desired route has its link's name. */
export type RouteSeen = Omit<Extract<KernelObject, { kind: "route" }>, "link"> & {
  readonly linkIndex: number;
  readonly protocol: number;
};

/** "other" is a route of a shape that we never make: not unicast, several next hops, a source or a type of service. */
export function parseRoute(message: structs.NetlinkMessage): RouteSeen | "other" | null {
  return readable(() => {
    const { data, attrs } = rt.parseRouteMessage(message.data);
    const type = structs.putEnum(rt.RouteType, data.type ?? 0);
    const plain = type === UNICAST && !data.srcLen && !data.tos && attrs.multipath === undefined;
    const { oif, gateway, dst, metrics } = attrs;
    if (!plain || oif === undefined || attrs.via !== undefined) return "other";
    const mtu = metrics?.mtu;
    return {
      kind: "route",
      table: attrs.table ?? data.table ?? 0,
      destination: { ip: dst === undefined ? ipv4("0.0.0.0") : ipText(dst), prefixLength: data.dstLen ?? 0 },
      linkIndex: oif,
      gateway: gateway === undefined ? null : ipText(gateway),
      scope: structs.putEnum(rt.RouteScope, data.scope ?? 0) === SCOPE_LINK ? "link" : "global",
      onlink: ((data.flags?.__unknown ?? 0) & RTNH_F_ONLINK) !== 0,
      mtu: mtu === undefined ? null : structs.getU32(mtu),
      protocol: structs.putEnum(rt.RouteProtocol, data.protocol ?? 0),
    };
  });
}

export type RuleSeen = Extract<KernelObject, { kind: "rule" }> & { readonly protocol: number };

const RULE_ATTRIBUTES_WE_USE = new Set([
  "dst",
  "src",
  "priority",
  "fwmark",
  "fwmask",
  "table",
  "protocol",
  "iifname",
  "suppressPrefixlen",
]);

/** "other" is a rule that we never make: not a plain lookup, or with selectors such as ports, users, the way out, inversion. */
export function parseRule(message: structs.NetlinkMessage): RuleSeen | "other" | null {
  return readable(() => {
    const { data, attrs } = rt.parseRuleMessage(message.data);
    const action = structs.putEnum(rt.RuleAction, data.action ?? 0);
    let strange = Object.keys(attrs).some((key) => !RULE_ATTRIBUTES_WE_USE.has(key));
    structs.parseAttributes(
      message.data.subarray(rt.__LENGTH_Rule),
      ({ type }) => (strange ||= type > FRA_MAX_KNOWN),
    );
    strange ||= attrs.suppressPrefixlen !== undefined && structs.getS32(attrs.suppressPrefixlen) !== -1;
    if (action !== LOOKUP || strange || data.flags?.invert || data.tos) return "other";
    const { src, dst, fwmark, fwmask } = attrs;
    return {
      kind: "rule",
      priority: attrs.priority ?? 0,
      // A rule without a mark is shown with none, or with mask 0.
      mark: fwmark === undefined && !fwmask ? null : { value: fwmark ?? 0, mask: fwmask ?? 0xffff_ffff },
      from: src === undefined ? null : { ip: ipText(src), prefixLength: data.srcLen ?? 0 },
      to: dst === undefined ? null : { ip: ipText(dst), prefixLength: data.dstLen ?? 0 },
      table: attrs.table ?? data.table ?? 0,
      protocol: attrs.protocol ?? 0,
      ...(attrs.iifname === undefined ? {} : { iif: attrs.iifname }),
    };
  });
}

export type NeighbourSeen = {
  readonly linkIndex: number;
  readonly ip: Ipv4;
  readonly mac: LinkSeen["mac"] | null;
  readonly permanent: boolean;
};

export function parseNeighbour(message: structs.NetlinkMessage): NeighbourSeen | null {
  return readable(() => {
    const { data, attrs } = rt.parseNeighborMessage(message.data);
    if (attrs.dst === undefined || data.ifindex === undefined) return null;
    const mac = attrs.lladdr === undefined ? null : (macText(attrs.lladdr) as LinkSeen["mac"]); // The form of a Mac.
    return { linkIndex: data.ifindex, ip: ipText(attrs.dst), mac, permanent: data.state?.permanent === true };
  });
}

/** Null where the codec throws: the kernel said something that it does not know. */
function readable<T>(parse: () => T): T | null {
  try {
    return parse();
  } catch {
    return null; // Counted by whoever asked, as unreadable.
  }
}

function ipText(bytes: Buffer): Ipv4 {
  if (bytes.length !== 4) throw new Error(`an IPv4 address has 4 bytes, not ${bytes.length}`);
  return ipv4(bytes.join("."));
}

function macText(bytes: Buffer): string {
  return bytes.toString("hex").replaceAll(/..\B/g, "$&:");
}
