/**
 * Kernel objects as rtnetlink requests, and the requests that read them back. The npm package `netlink` encodes; what it
 * lacks (the peer of a veth pair, requests that say what they are) is added here. Its socket is never used.
 * Every function is pure: a link's index comes in, bytes go out. Sequence numbers are the connection's.
 */
import * as ifla from "netlink/dist/rt/ifla.js";
import * as rt from "netlink/dist/rt/structs.js";
import * as structs from "netlink/dist/structs.js";
import type { Mac } from "../core/model/eni.ts";
import { ROUTE_PROTOCOL } from "../core/plumbing/names.ts";
import type { IpvlanSlave, KernelObject, VethPair } from "../core/plumbing/object.ts";
import { assert, unreachable } from "../lib/assert.ts";
import type { Ipv4 } from "../lib/ip.ts";

/** One request without its sequence number. `what` is the same as an `ip` command, for errors and logs. */
export type NetlinkRequest = {
  readonly type: number;
  readonly flags: number; // NLM_F_REQUEST and NLM_F_ACK are the connection's.
  readonly body: Uint8Array;
  readonly what: string;
};

export const NLM_F_REQUEST = 0x1; // linux/netlink.h
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP = 0x300;
const NLM_F_REPLACE = 0x100;
const NLM_F_EXCL = 0x200;
const NLM_F_CREATE = 0x400;

export const AF_INET = 2; // bits/socket.h
const RT_SCOPE_HOST = 254;
const RTNH_F_ONLINK = 4; // linux/rtnetlink.h
const VETH_INFO_PEER = 1; // linux/veth.h
const AF_INET6 = 10;
const IFLA_IPVLAN_MODE = 1; // linux/if_link.h
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
const IFLA_INET_CONF = 1;
/** linux/ip.h: the switches of net.ipv4.conf.LINK, by number. */
export const IPV4_DEVCONF = { forwarding: 1, rpFilter: 8 } as const;
const RTEXT_FILTER_SKIP_STATS = 8; // linux/rtnetlink.h: statistics are half of a link's answer, and nobody here reads them.

/* oxlint-disable typescript/no-unsafe-enum-assignment -- The package's enum has the protocols with a name; the field is any byte. */
const RTPROT_UNSPEC = 0 as rt.RouteProtocol; // "Any", in a deletion.
const OUR_PROTOCOL = ROUTE_PROTOCOL as rt.RouteProtocol;
/* oxlint-enable typescript/no-unsafe-enum-assignment */

/** A link by index, or by name where the index is not known yet: the kernel looks it up (IFLA_IFNAME). */
export type LinkRef = { readonly index: number } | { readonly name: string };

/**
 * The kernel gives a veth a queue for each possible CPU, and each queue its objects in sysfs: a fifth of the time that a pair takes on 2
 * CPUs, several times the rest on 96. A veth without XDP uses one.
 */
const ONE_QUEUE = { numTxQueues: 1, numRxQueues: 1 } as const;

/**
 * RTM_NEWLINK that makes a veth pair, its peer inside the namespace behind `netnsFd`. The host end is up at once; the peer
 * cannot be (ENOTCONN when IFF_UP stands in its half), so its own namespace brings it up.
 *
 * The kernel ignores an alias here: it takes a `linkSetRequest` in the same batch. EEXIST: either name is taken.
 * Source: drivers/net/veth.c, veth_newlink. By hand: `ip link add eniX address M mtu N numtxqueues 1 numrxqueues 1 group G type veth peer name eth0 address M numtxqueues 1 numrxqueues 1 netns NS`.
 */
export function vethCreateRequest(pair: VethPair, netnsFd: number): NetlinkRequest {
  const peer = linkBody(
    {},
    {
      ifname: pair.podName,
      address: macBytes(pair.podMac),
      mtu: pair.podMtu,
      netNsFd: netnsFd,
      ...ONE_QUEUE,
    },
  );
  // VETH_INFO_PEER holds a whole link message: struct ifinfomsg and its attributes.
  const info = encode((out) =>
    out.emit(ifla.formatInfo({ kind: "veth", data: encode((o) => o.push(VETH_INFO_PEER, peer)) })),
  );
  const body = linkBody(
    { flags: { up: true }, change: { up: true } },
    {
      ifname: pair.hostName,
      address: macBytes(pair.hostMac),
      mtu: pair.hostMtu,
      group: pair.group,
      ...ONE_QUEUE,
      linkinfo: info,
    },
  );
  return {
    type: rt.MessageType.NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body,
    what: `link add ${pair.hostName} type veth peer ${pair.podName}`,
  };
}

/**
 * RTM_NEWLINK that makes an ipvlan slave (L2) of the link with that index in the connection's namespace, inside the namespace behind
 * `netnsFd`. It is down until its own namespace brings it up.
 *
 * EEXIST: either namespace has a link of that name. ENODEV: no such parent. EBUSY: it is a macvlan's or a bridge's already. EOPNOTSUPP: this kernel has no ipvlan.
 * Source: drivers/net/ipvlan/ipvlan_main.c, ipvlan_link_new. By hand: `ip link add link eth1 name ipvX netns NS mtu N type ipvlan mode l2`.
 */
export function ipvlanCreateRequest(
  slave: IpvlanSlave,
  parentIndex: number,
  netnsFd: number,
): NetlinkRequest {
  const mode = Buffer.alloc(2); // IPVLAN_MODE_L2 is 0, in either byte order.
  const info = encode((out) =>
    out.emit(ifla.formatInfo({ kind: "ipvlan", data: encode((o) => o.push(IFLA_IPVLAN_MODE, mode)) })),
  );
  const attributes = {
    ifname: slave.bornAs,
    link: structs.putU32(parentIndex),
    mtu: slave.mtu,
    netNsFd: netnsFd,
    linkinfo: info,
  };
  return {
    type: rt.MessageType.NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody({}, attributes),
    what: `link add ${slave.name} type ipvlan`,
  };
}

/**
 * Asks for an ipvlan link of nothing, which makes none. EOPNOTSUPP: this kernel has no ipvlan, not even as a module that it could load
 * (it tries). Any other refusal (EINVAL) comes from ipvlan itself.
 */
export const ipvlanProbeRequest: NetlinkRequest = {
  type: rt.MessageType.NEWLINK,
  flags: NLM_F_CREATE | NLM_F_EXCL,
  body: linkBody({}, { linkinfo: encode((out) => out.emit(ifla.formatInfo({ kind: "ipvlan" }))) }),
  what: "link add type ipvlan",
};

/** RTM_SETLINK: no IPv6 link-local address comes when the link goes up. EAFNOSUPPORT, EOPNOTSUPP: there is no IPv6 here. */
export function noLinkLocalRequest(link: LinkRef): NetlinkRequest {
  const mode = encode((out) => out.push(IFLA_INET6_ADDR_GEN_MODE, Buffer.from([IN6_ADDR_GEN_MODE_NONE])));
  return {
    type: rt.MessageType.SETLINK,
    flags: 0,
    body: linkBody(indexOf(link), { ...nameOf(link), afSpec: new Map([[AF_INET6, mode]]) }),
    what: `link set ${textOf(link)} addrgenmode none`,
  };
}

/** RTM_SETLINK: changes what is given and leaves the rest. ENODEV: no such link. EINVAL or ERANGE: the MTU is not for this link. */
export function linkSetRequest(
  link: LinkRef,
  change: {
    readonly up?: boolean;
    readonly mtu?: number | undefined;
    readonly group?: number | undefined;
    readonly alias?: string;
    readonly rename?: string; // Of a link that is down, given by its index.
    readonly mac?: Mac | undefined;
    readonly forwards?: true | undefined;
  },
): NetlinkRequest {
  const { up, mtu, group, alias, rename, mac, forwards } = change;
  // A flag is set or cleared where `change` has it; the package writes a set flag as `true` and leaves out a cleared one.
  const flags =
    up === undefined ? {} : { flags: up ? { up: true as const } : {}, change: { up: true as const } };
  const attributes = {
    ...nameOf(link),
    ...(mtu === undefined ? {} : { mtu }),
    ...(group === undefined ? {} : { group }),
    ...(alias === undefined ? {} : { ifalias: alias }),
    ...(rename === undefined ? {} : { ifname: rename }),
    ...(mac === undefined ? {} : { address: macBytes(mac) }),
    ...(forwards === undefined ? {} : { afSpec: new Map([[AF_INET, FORWARDS]]) }),
  };
  return {
    type: rt.MessageType.SETLINK,
    flags: 0,
    body: linkBody({ ...indexOf(link), ...flags }, attributes),
    what: `link set ${textOf(link)}`,
  };
}

/** Source: net/ipv4/devinet.c, inet_set_link_af. */
const FORWARDS = encode((out) =>
  out.push(
    IFLA_INET_CONF,
    encode((conf) => {
      conf.push(IPV4_DEVCONF.forwarding, structs.putU32(1));
      conf.push(IPV4_DEVCONF.rpFilter, structs.putU32(2));
    }),
  ),
);

/** RTM_GETLINK of one link, without its statistics. ENODEV: no such link. */
export function linkGetRequest(link: LinkRef): NetlinkRequest {
  const attributes = { ...nameOf(link), extMask: structs.putU32(RTEXT_FILTER_SKIP_STATS) };
  return {
    type: rt.MessageType.GETLINK,
    flags: 0,
    body: linkBody(indexOf(link), attributes),
    what: `link show ${textOf(link)}`,
  };
}

/** RTM_DELLINK. The kernel waits for its readers inside the send: some 20 ms. See unlink.ts for the way that blocks nobody. */
export function linkDeleteRequest(link: LinkRef): NetlinkRequest {
  return {
    type: rt.MessageType.DELLINK,
    flags: 0,
    body: linkBody(indexOf(link), nameOf(link)),
    what: `link delete ${textOf(link)}`,
  };
}

/**
 * RTM_DELLINK of every link in a group, with one wait for all of them. ENODEV: none is in it. EOPNOTSUPP: one of them cannot
 * be deleted (hardware), and none was. Group 0 holds every link that nobody grouped, so it is refused here.
 */
export function linkGroupDeleteRequest(group: number): NetlinkRequest {
  assert(group > 0, "link group 0 is never deleted");
  return {
    type: rt.MessageType.DELLINK,
    flags: 0,
    body: linkBody({}, { group }),
    what: `link delete group ${group}`,
  };
}

/** The request that makes `object` so: added, or replaced where the kernel has a replace. A rule that is there answers EEXIST. */
export function putRequest(object: KernelObject, linkIndex: number): NetlinkRequest {
  switch (object.kind) {
    case "link":
      return linkSetRequest(
        { name: object.name },
        {
          up: object.up,
          mtu: object.mtu,
          group: object.group ?? undefined,
          mac: object.mac,
          forwards: object.forwards,
        },
      );
    case "address":
      return addressRequest(object, linkIndex, rt.MessageType.NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    case "route":
      return routeRequest(object, linkIndex, "replace");
    case "rule":
      return ruleRequest(object, rt.MessageType.NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
    case "neighbour":
      return neighbourRequest(object, linkIndex, rt.MessageType.NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    default:
      return unreachable(object);
  }
}

/**
 * The request that takes `object` away. A route goes whatever its protocol, since the object says which one is meant.
 * Links are not taken away by object: an ENI's link belongs to the machine (see linkDeleteRequest).
 */
export function deleteRequest(
  object: Exclude<KernelObject, { kind: "link" }>,
  linkIndex: number,
): NetlinkRequest {
  switch (object.kind) {
    case "address":
      return addressRequest(object, linkIndex, rt.MessageType.DELADDR, 0);
    case "route":
      return routeRequest(object, linkIndex, "delete");
    case "rule":
      return ruleRequest(object, rt.MessageType.DELRULE, 0);
    case "neighbour":
      return neighbourRequest(object, linkIndex, rt.MessageType.DELNEIGH, 0);
    default:
      return unreachable(object);
  }
}

/** Dumps: each asks for all objects of its kind (IPv4) in the namespace of the connection. */
export const dumpRequests = {
  links: dump(
    rt.MessageType.GETLINK,
    linkBody({}, { extMask: structs.putU32(RTEXT_FILTER_SKIP_STATS) }),
    "link show",
  ),
  addresses: dump(rt.MessageType.GETADDR, Buffer.from(rt.formatAddress({ family: AF_INET })), "address show"),
  routes: dump(
    rt.MessageType.GETROUTE,
    Buffer.from(rt.formatRoute({ family: AF_INET })),
    "route show table all",
  ),
  rules: dump(rt.MessageType.GETRULE, Buffer.from(rt.formatRule({ family: AF_INET })), "rule show"),
  neighbours: dump(
    rt.MessageType.GETNEIGH,
    Buffer.from(rt.formatNeighbor({ family: AF_INET })),
    "neighbour show",
  ),
} as const;

/** The whole message. Host byte order, as rtnetlink wants it. */
export function encodeRequest(request: NetlinkRequest, sequence: number, flags: number): Buffer {
  return Buffer.concat(
    structs.formatMessage({
      type: request.type,
      flags: request.flags | flags,
      seq: sequence,
      port: 0, // The kernel.
      data: request.body,
    }),
  );
}

export function macBytes(mac: string): Buffer {
  return Buffer.from(mac.replaceAll(":", ""), "hex");
}

function ipBytes(ip: Ipv4): Buffer {
  return Buffer.from(ip.split(".").map(Number));
}

function addressRequest(
  object: Extract<KernelObject, { kind: "address" }>,
  index: number,
  type: rt.MessageType,
  flags: number,
): NetlinkRequest {
  const ip = ipBytes(object.ip);
  const message: rt.AddressMessage = {
    kind: "address",
    data: {
      family: AF_INET,
      prefixlen: object.prefixLength,
      index,
      ...(object.scope === undefined ? {} : { scope: RT_SCOPE_HOST }),
    },
    // Flags above 8 bits have an attribute of their own; the header's byte stays 0.
    attrs: {
      local: ip,
      address: ip,
      ...(object.noPrefixRoute ? { flags: { noprefixroute: true as const } } : {}),
    },
  };
  const verb = type === rt.MessageType.DELADDR ? "delete" : "replace";
  return {
    type,
    flags,
    body: encode((out) => rt.formatAddressMessage(message, out)),
    what: `address ${verb} ${object.ip}/${object.prefixLength} dev ${object.link}`,
  };
}

/**
 * RTM_NEWROUTE that adds the route or replaces the one with the same destination and table, or RTM_DELROUTE.
 * `table` may exceed 255, so it goes in RTA_TABLE and rtm_table stays 0.
 * Kernel answers: ENETUNREACH when the gateway is not on the link, ENODEV when the link is gone, ESRCH when there is none to delete.
 */
function routeRequest(
  object: Extract<KernelObject, { kind: "route" }>,
  index: number,
  verb: "replace" | "delete",
): NetlinkRequest {
  const { destination, gateway, mtu, table } = object;
  const replacing = verb === "replace";
  const message: rt.RouteMessage = {
    kind: "route",
    data: {
      family: AF_INET,
      dstLen: destination.prefixLength,
      type: rt.RouteType.UNICAST,
      // A deletion names no protocol and any scope ("nowhere" means that): whoever made the route, it goes.
      protocol: replacing ? OUR_PROTOCOL : RTPROT_UNSPEC,
      scope: !replacing
        ? rt.RouteScope.NOWHERE
        : object.scope === "link"
          ? rt.RouteScope.LINK
          : rt.RouteScope.UNIVERSE,
      flags: { __unknown: replacing && object.onlink ? RTNH_F_ONLINK : 0 },
    },
    attrs: {
      table,
      ...(destination.prefixLength === 0 ? {} : { dst: ipBytes(destination.ip) }),
      oif: index,
      ...(gateway === null ? {} : { gateway: ipBytes(gateway) }),
      ...(replacing && mtu !== null ? { metrics: { mtu: structs.putU32(mtu) } } : {}),
    },
  };
  const to = destination.prefixLength === 0 ? "default" : `${destination.ip}/${destination.prefixLength}`;
  return {
    type: replacing ? rt.MessageType.NEWROUTE : rt.MessageType.DELROUTE,
    flags: replacing ? NLM_F_CREATE | NLM_F_REPLACE : 0,
    body: encode((out) => rt.formatRouteMessage(message, out)),
    what: `route ${verb} ${to}${gateway === null ? "" : ` via ${gateway}`} dev ${object.link} table ${table}`,
  };
}

/** Rules carry FRA_PROTOCOL, so that ours can be told from others', and a deletion never takes another's twin. */
function ruleRequest(
  object: Extract<KernelObject, { kind: "rule" }>,
  type: rt.MessageType,
  flags: number,
): NetlinkRequest {
  const { from, to, mark, priority, table } = object;
  const message: rt.RuleMessage = {
    kind: "rule",
    data: {
      family: AF_INET,
      action: rt.RuleAction.toTbl,
      srcLen: from?.prefixLength ?? 0,
      dstLen: to?.prefixLength ?? 0,
    },
    attrs: {
      priority,
      table,
      protocol: ROUTE_PROTOCOL,
      ...(from === null || from.prefixLength === 0 ? {} : { src: ipBytes(from.ip) }),
      ...(to === null || to.prefixLength === 0 ? {} : { dst: ipBytes(to.ip) }),
      ...(mark === null ? {} : { fwmark: mark.value, fwmask: mark.mask }),
      ...(object.iif === undefined ? {} : { iifname: object.iif }),
    },
  };
  const verb = type === rt.MessageType.DELRULE ? "delete" : "add";
  return {
    type,
    flags,
    body: encode((out) => rt.formatRuleMessage(message, out)),
    what: `rule ${verb} priority ${priority} lookup ${table}`,
  };
}

function neighbourRequest(
  object: Extract<KernelObject, { kind: "neighbour" }>,
  ifindex: number,
  type: rt.MessageType,
  flags: number,
): NetlinkRequest {
  const message: rt.NeighborMessage = {
    kind: "neighbor",
    data: { family: AF_INET, ifindex, state: { permanent: true } },
    attrs: { dst: ipBytes(object.ip), lladdr: macBytes(object.mac) },
  };
  const verb = type === rt.MessageType.DELNEIGH ? "delete" : "replace";
  return {
    type,
    flags,
    body: encode((out) => rt.formatNeighborMessage(message, out)),
    what: `neighbour ${verb} ${object.ip} dev ${object.link}`,
  };
}

function dump(type: number, body: Buffer, what: string): NetlinkRequest {
  return { type, flags: NLM_F_DUMP, body, what };
}

function linkBody(data: rt.Link, attrs: ifla.LinkAttrs): Buffer {
  return encode((out) => rt.formatLinkMessage({ kind: "link", data, attrs }, out));
}

function encode(write: (out: structs.AttrStream) => void): Buffer {
  const out = new structs.AttrStream();
  write(out);
  return Buffer.concat(out.bufs);
}

function nameOf(link: LinkRef): { ifname?: string } {
  return "name" in link ? { ifname: link.name } : {};
}

function indexOf(link: LinkRef): { index?: number } {
  return "index" in link ? { index: link.index } : {};
}

function textOf(link: LinkRef): string {
  return "name" in link ? link.name : `index ${link.index}`;
}
