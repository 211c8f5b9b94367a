/**
 * The kernel objects that we own, as values. `core/plumbing` says which there should be; `kernel` says which there are and
 * makes the difference true. Nothing here knows netlink.
 */
import type { Ipv4 } from "../../lib/ip.ts";
import type { Mac } from "../model/eni.ts";

/** A destination: an address with its prefix length; `{ ip: "0.0.0.0", prefixLength: 0 }` is the default route. */
export type Destination = { readonly ip: Ipv4; readonly prefixLength: number };

/** One object in one network namespace. Links are named, since an index is known only once the link exists. */
export type KernelObject =
  /** A link that is already there (an ENI's, or a sandbox's) is to be up, with this MTU and, where given, group. */
  | {
      readonly kind: "link";
      readonly name: string;
      readonly mtu: number;
      readonly up: boolean;
      readonly group: number | null;
      /** Given for a sandbox's host link alone, since its pod knows it by a permanent neighbour; all other links keep theirs. */
      readonly mac?: Mac;
      /** Packets that enter here may be passed on, whatever their way back looks like (rp_filter 2). Set by netlink: no /proc/sys of a pod is needed. */
      readonly forwards?: true;
    }
  | {
      readonly kind: "address";
      readonly link: string;
      readonly ip: Ipv4;
      readonly prefixLength: number;
      readonly noPrefixRoute: boolean;
      readonly scope?: "host"; // Never chosen as a source; global when not given.
    }
  | {
      readonly kind: "route";
      readonly table: number; // 254 is main.
      readonly destination: Destination;
      readonly link: string;
      readonly gateway: Ipv4 | null;
      readonly scope: "link" | "global";
      readonly onlink: boolean;
      readonly mtu: number | null;
    }
  | {
      readonly kind: "rule";
      readonly priority: number;
      readonly mark: { readonly value: number; readonly mask: number } | null;
      readonly from: Destination | null;
      readonly to: Destination | null;
      readonly iif?: string; // The link that a packet came in by.
      readonly table: number;
    }
  /** A permanent neighbour. */
  | { readonly kind: "neighbour"; readonly link: string; readonly ip: Ipv4; readonly mac: Mac };

/** A veth pair across two namespaces. Made in one message, with its pod end inside the pod's namespace: moving it there later takes the kernel 20 ms. */
export type VethPair = {
  readonly hostName: string;
  readonly hostMac: Mac;
  readonly group: number; // The pod's ENI, see names.ts.
  readonly alias: string; // The sandbox id, at most 255 bytes.
  readonly podName: string; // CNI_IFNAME.
  readonly podMac: Mac;
  readonly hostMtu: number;
  readonly podMtu: number;
};

/** A slave of an ENI's link, born inside the pod's namespace. It has the ENI's MAC; the kernel tells slaves apart by their addresses. */
export type IpvlanSlave = {
  readonly name: string; // CNI_IFNAME.
  readonly bornAs: string; // Its name until it is renamed inside: see kernel/slave.ts.
  readonly parentMac: Mac;
  readonly mtu: number;
  readonly alias: string;
};

/** The nft table inside an ipvlan pod: a value, so that it can be printed, encoded and compared (pod-filter.ts). */
export type PodFilter = { readonly slave: string; readonly veth: string; readonly ip: Ipv4 };

/**
 * All that one sandbox needs, in the order it is made: the pair, the slave and the filter where there are any, then `pod` inside its
 * namespace, then `host`. Taken away by deleting `host` objects, the pair's host link and the slave; the rest dies with them.
 */
export type SandboxPlumbing = {
  readonly pair: VethPair;
  readonly slave?: IpvlanSlave;
  readonly filter?: PodFilter;
  readonly pod: readonly KernelObject[];
  readonly host: readonly KernelObject[];
};

/** One change to the host's namespace. `put` adds or replaces; `delete` of what is not there is done. */
export type KernelOp =
  | { readonly verb: "put"; readonly object: KernelObject }
  | { readonly verb: "delete"; readonly object: KernelObject }
  | { readonly verb: "delete-link"; readonly name: string };

/** A link as the kernel shows it. `kind` is rtnetlink's IFLA_INFO_KIND ("veth", "ipvlan", …), null for hardware. */
export type LinkSeen = {
  readonly name: string;
  readonly index: number;
  readonly mac: Mac;
  readonly mtu: number;
  readonly up: boolean;
  readonly group: number;
  readonly alias: string | null;
  readonly kind: string | null;
};

/** What the host's namespace holds: every link, and the addresses, routes and rules in it that may concern us. */
export type HostSeen = {
  readonly links: readonly LinkSeen[];
  readonly addresses: readonly { readonly link: string; readonly ip: Ipv4; readonly prefixLength: number }[];
  /** IPv4 unicast routes of all tables but local; `protocol` is rtm_protocol, ours is ROUTE_PROTOCOL. */
  readonly routes: readonly (Extract<KernelObject, { kind: "route" }> & { readonly protocol: number })[];
  /** `protocol` is FRA_PROTOCOL. Rules with selectors that we never use are left out, but counted. */
  readonly rules: readonly (Extract<KernelObject, { kind: "rule" }> & { readonly protocol: number })[];
  readonly unreadable: number;
  /** Permanent ones. Absent where nobody looked: they are then put again each time. */
  readonly neighbours?: readonly { readonly link: string; readonly ip: Ipv4; readonly mac: Mac }[];
};
