/**
 * Tells that something in the namespace changed: links, IPv4 addresses, routes, rules, our nft table. It says which kind and
 * no more; whoever hears it looks at the truth. The sockets are polled: a blocking read on a pool thread would keep the
 * process from ever ending, and an empty poll costs under a microsecond.
 */
import * as structs from "netlink/dist/structs.js";
import { MessageType } from "netlink/dist/rt/structs.js";
import { err, ok, type Result } from "../lib/result.ts";
import * as libc from "../libc/libc.ts";
import { errnoName, type NetlinkError, parseLink } from "./answers.ts";
import { NETLINK_NETFILTER, NETLINK_ROUTE, receiveMessages } from "./connection.ts";

// linux/rtnetlink.h, RTNLGRP_*; group n is bit n - 1.
const ROUTE_GROUPS = [1, 5, 7, 8].reduce((mask, group) => mask | (1 << (group - 1)), 0); // LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE
const NFTABLES_GROUP = 1 << (7 - 1); // linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES
const NFNL_SUBSYS_NFTABLES = 10;
const NFGENMSG_SIZE = 4;
const NFTA_TABLE = 1; // The table's name is attribute 1 of tables, chains, rules, sets, elements and objects alike.
const RECEIVE_BUFFER_BYTES = 1 << 20;
/** More reads than this in one poll, and the monitor says "everything" instead of reading on. */
const READS_MAX = 256;

const KIND_OF_TYPE: ReadonlyMap<number, EventKind> = new Map([
  [MessageType.NEWLINK, "link"],
  [MessageType.DELLINK, "link"],
  [MessageType.NEWADDR, "address"],
  [MessageType.DELADDR, "address"],
  [MessageType.NEWROUTE, "route"],
  [MessageType.DELROUTE, "route"],
  [MessageType.NEWRULE, "rule"],
  [MessageType.DELRULE, "rule"],
]);

/** `pod-link`: a link for which `isPodLink` is true; apart, since they come and go all the time. */
export type EventKind = "link" | "pod-link" | "address" | "route" | "rule" | "nftables";
export const EVENT_KINDS: readonly EventKind[] = ["link", "pod-link", "address", "route", "rule", "nftables"];

export type MonitorOptions = {
  readonly pollMs: number;
  /** Each kind once for a whole poll. After an overflow, when events were lost, all kinds. */
  readonly onEvents: (kinds: ReadonlySet<EventKind>) => void;
  readonly isPodLink: (name: string) => boolean;
  /** Our own nft table; events of other tables are passed over. */
  readonly tableName: string;
  /** Ports (Connection.port) whose changes to addresses, routes and rules are our own, and are passed over. */
  readonly ownPorts: readonly number[];
};

export type Monitor = {
  /** Looks now instead of at the next tick. */
  readonly poll: () => void;
  /** False where the kernel has no nftables: then that kind never comes. */
  readonly seesNftables: boolean;
  readonly close: () => void;
};

/** Begins at once, in the namespace of the calling thread. What changed before is not told: start it, then look at everything. */
export function createMonitor(options: MonitorOptions): Result<Monitor, NetlinkError> {
  const route = openGroup(NETLINK_ROUTE, ROUTE_GROUPS);
  if (!route.ok) return route;
  const netfilter = openGroup(NETLINK_NETFILTER, NFTABLES_GROUP);
  const sockets = netfilter.ok ? [route.value, netfilter.value] : [route.value];
  const ownPorts = new Set(options.ownPorts);

  const kindOf = (message: structs.NetlinkMessage): EventKind | null => {
    if (message.type >> 8 === NFNL_SUBSYS_NFTABLES) {
      return tableOf(message) === options.tableName ? "nftables" : null;
    }
    const kind = KIND_OF_TYPE.get(message.type) ?? null;
    if (kind !== "link") return ownPorts.has(message.port) ? null : kind;
    const link = parseLink(message);
    return link !== null && options.isPodLink(link.name) ? "pod-link" : "link";
  };

  const poll = (): void => {
    const kinds = new Set<EventKind>();
    let overflow = false;
    for (const fd of sockets) {
      let reads = 0;
      for (let got = receiveMessages(fd); got !== "empty"; got = receiveMessages(fd)) {
        reads += 1;
        overflow ||= got === "overflow" || reads >= READS_MAX;
        // Once everything must be looked at anyway, the rest is read only to make room.
        if (overflow || got === "overflow") {
          if (reads >= 8 * READS_MAX) break;
          continue;
        }
        for (const message of got) {
          const kind = kindOf(message);
          if (kind !== null) kinds.add(kind);
        }
      }
    }
    if (overflow) options.onEvents(new Set(EVENT_KINDS));
    else if (kinds.size > 0) options.onEvents(kinds);
  };

  const timer = setInterval(poll, options.pollMs);
  const close = (): void => {
    clearInterval(timer);
    for (const fd of sockets.splice(0)) libc.close(fd);
  };
  return ok({ poll, seesNftables: netfilter.ok, close });
}

function openGroup(protocol: number, groups: number): Result<number, NetlinkError> {
  const what = "open a socket for kernel events";
  const opened = libc.socket(libc.AF_NETLINK, libc.SOCK_RAW | libc.SOCK_CLOEXEC, protocol);
  if (!opened.ok) return err({ errno: opened.error, code: errnoName(opened.error), detail: "", what });
  libc.setSocketOption(opened.value, libc.SOL_SOCKET, libc.SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES);
  const bound = libc.bindNetlink(opened.value, groups);
  if (bound.ok) return opened;
  libc.close(opened.value);
  return err({ errno: bound.error, code: errnoName(bound.error), detail: "", what });
}

/** The table that an nftables event is about; null where it names none (the end of a transaction). */
function tableOf(message: structs.NetlinkMessage): string | null {
  let name: string | null = null;
  try {
    structs.parseAttributes(message.data.subarray(NFGENMSG_SIZE), ({ type, data }) => {
      if (type === NFTA_TABLE && name === null && data.length < 64) name = structs.getString(data);
    });
  } catch {
    return null; // A new generation's message has numbers where others have the table's name.
  }
  return name;
}
