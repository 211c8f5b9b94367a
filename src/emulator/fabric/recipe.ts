/**
 * What each namespace of the fabric holds, as text for `ip` and `nft`. The VPC's router has one veth an ENI and no bridge: a real VPC
 * delivers by its own map, answers ARP itself and learns nothing, and so does this one.
 *
 *   node eth0 ──┐                       ┌── 1:1 NAT ──┐
 *   node eth1 ──┤ vpc: the router,      │             │
 *   client    ──┘ IMDS, EC2's endpoint ─┴─── igw ─────┴── world
 */
import {
  addressesOfCidr4,
  type Cidr4,
  cidr4,
  ipv4Plus,
  type Ipv4,
  networkOf,
  printCidr4,
} from "../../lib/ip.ts";
import type { Act, Step } from "./run.ts";

export const IMDS_ADDRESS = "169.254.169.254";
/** Where the emulator's EC2 endpoint may listen: an address of the router that no subnet and no AWS service has. */
export const EC2_ADDRESS = "169.254.169.200";

const VPC_SIDE = "100.64.255.1"; // The link between router and internet gateway.
const IGW_SIDE = "100.64.255.2";
const ENI_MTU = 9_001;
const UNCONFIGURED_MTU = 1_500; // A hot-plugged ENI's, until somebody sets it.
const INTERNET_MTU = 1_500;

export type Namespaces = { readonly vpc: string; readonly igw: string; readonly world: string };

export type Ground = {
  readonly names: Namespaces;
  readonly vpcCidrs: readonly Cidr4[];
  readonly outsideIp: Ipv4;
  readonly imdsHopLimit: number;
};

/** An ENI's link: `port` is its end in the router, `link` its end in the node. */
export type Wire = {
  readonly port: string;
  readonly link: string;
  readonly mac: string;
  readonly primary: Ipv4;
  readonly subnetCidr: Cidr4;
};

/** Everything but nodes. Namespaces are made with `ip netns add`, so they are visible to `ip -n` while the fabric lives. */
export function groundSteps({ names, vpcCidrs, outsideIp, imdsHopLimit }: Ground): readonly Step[] {
  const outsideGateway = ipv4Plus(networkOf(outsideIp, 24), 1);
  return [
    ip(
      null,
      Object.values(names).map((name) => `netns add ${name}`),
    ),
    {
      netns: names.vpc,
      acts: [
        // Defaults go to each link made later. IPv6 is off, so that a counted frame is one that somebody sent on purpose.
        sysctl({
          "ipv4/ip_forward": "1",
          "ipv4/conf/default/proxy_arp": "1",
          "ipv4/conf/all/rp_filter": "0",
          "ipv4/conf/default/rp_filter": "0",
          "ipv4/conf/all/send_redirects": "0",
          "ipv4/conf/default/send_redirects": "0",
          "ipv6/conf/all/disable_ipv6": "1",
          "ipv6/conf/default/disable_ipv6": "1",
        }),
        {
          kind: "ip",
          lines: [
            "link set lo up",
            `address add ${IMDS_ADDRESS}/32 dev lo`,
            `address add ${EC2_ADDRESS}/32 dev lo`,
            `link add up0 mtu ${INTERNET_MTU} type veth peer name vpc0 mtu ${INTERNET_MTU} netns ${names.igw}`,
            `address add ${VPC_SIDE}/30 dev up0`,
            "link set up0 up",
            `route add default via ${IGW_SIDE}`,
            // Else the default route would make the router answer ARP for addresses that nobody owns. The VPC drops in silence.
            ...vpcCidrs.map((cidr) => `route add blackhole ${printCidr4(cidr)}`),
          ],
        },
        { kind: "nft", text: routerTables(imdsHopLimit) },
      ],
    },
    {
      netns: names.igw,
      acts: [
        sysctl({
          "ipv4/ip_forward": "1",
          "ipv4/conf/all/rp_filter": "0",
          "ipv4/conf/default/rp_filter": "0",
        }),
        {
          kind: "ip",
          lines: [
            "link set lo up",
            `link add out0 mtu ${INTERNET_MTU} type veth peer name eth0 mtu ${INTERNET_MTU} netns ${names.world}`,
            `address add ${IGW_SIDE}/30 dev vpc0`,
            `address add ${outsideGateway}/24 dev out0`,
            "link set vpc0 up",
            "link set out0 up",
            ...vpcCidrs.map((cidr) => `route add ${printCidr4(cidr)} via ${VPC_SIDE}`),
          ],
        },
        { kind: "nft", text: GATEWAY_TABLE },
      ],
    },
    ip(names.world, [
      "link set lo up",
      `address add ${outsideIp}/24 dev eth0`,
      "link set eth0 up",
      `route add default via ${outsideGateway}`,
    ]),
  ];
}

/**
 * The source check, on frames and on ARP. `owned` lists each address with the port and MAC it may come from; whatever else enters is
 * dropped, and noted in `dropped` with its count. Replies of IMDS leave with the hop limit as TTL, so that they die one hop on.
 */
function routerTables(imdsHopLimit: number): string {
  const sets = `
  set owned { type ifname . ether_addr . ipv4_addr; }
  set unchecked { type ifname; }
  set dropped { type ifname . ether_addr . ipv4_addr; size 65535; flags dynamic; }`;
  return `
table ip vpc {${sets}
  chain source_check {
    type filter hook prerouting priority raw;
    notrack
    iifname { "up0", "lo" } accept
    iifname @unchecked accept
    iifname . ether saddr . ip saddr @owned accept
    update @dropped { iifname . ether saddr . ip saddr counter }
    drop
  }
  chain imds {
    type filter hook output priority raw;
    notrack
    ip saddr ${IMDS_ADDRESS} ip ttl set ${imdsHopLimit}
  }
}
table arp vpc {${sets}
  chain source_check {
    type filter hook input priority 0;
    iifname "up0" accept
    iifname @unchecked accept
    iifname . arp saddr ether . arp saddr ip @owned accept
    update @dropped { iifname . arp saddr ether . arp saddr ip counter }
    drop
  }
}`;
}

/** What leaves must come from an address with a public one, or from behind a NAT gateway; what enters must go to a public one. */
const GATEWAY_TABLE = `
table ip igw {
  map private_of { type ipv4_addr : ipv4_addr; }
  map public_of { type ipv4_addr : ipv4_addr; }
  set mapped { type ipv4_addr; }
  set natted { type ipv4_addr; flags interval; }
  counter unmapped { }
  chain enter {
    type nat hook prerouting priority dstnat;
    iifname "out0" dnat to ip daddr map @private_of
  }
  chain pass {
    type filter hook forward priority filter;
    iifname "vpc0" ct direction original ip saddr != @mapped ip saddr != @natted counter name unmapped drop
  }
  chain leave {
    type nat hook postrouting priority srcnat;
    oifname "out0" snat to ip saddr map @public_of
  }
}`;

/** A node's namespace as an AMI's OS leaves it before the primary ENI's link is there. */
export function nodeSteps(netns: string): readonly Step[] {
  return [
    ip(null, [`netns add ${netns}`]),
    {
      netns,
      acts: [
        sysctl({
          "ipv4/conf/all/rp_filter": "1",
          "ipv4/conf/default/rp_filter": "1",
          "ipv4/ip_forward": "1",
        }),
        { kind: "ip", lines: ["link set lo up"] },
      ],
    },
  ];
}

/**
 * The ENI's link comes into the node's namespace. The primary one is configured at once, as DHCP does; a secondary one is down and bare.
 * In the router, every address goes by the primary one as next hop, whose neighbour entry is permanent: a VPC never asks by ARP.
 */
export function wireSteps(
  names: Namespaces,
  netns: string,
  wire: Wire,
  role: "primary" | "secondary",
): readonly Step[] {
  const { port, link, mac, primary, subnetCidr } = wire;
  const { network, prefixLength } = subnetCidr;
  const gateway = ipv4Plus(network, 1);
  const mtu = role === "primary" ? ENI_MTU : UNCONFIGURED_MTU;
  const router: Step = {
    netns: names.vpc,
    acts: [
      {
        kind: "ip",
        lines: [
          `link add ${port} mtu ${ENI_MTU} type veth peer name ${link} mtu ${mtu} address ${mac} netns ${netns}`,
          `address add ${gateway}/32 dev ${port}`,
          `link set ${port} up`,
          `neighbour replace ${primary} lladdr ${mac} dev ${port} nud permanent`,
        ],
      },
      sysctl({ [`ipv4/neigh/${port}/proxy_delay`]: "0" }), // By default an answer is delayed by up to 0.8 s.
    ],
  };
  const node = ip(netns, [
    `address add ${primary}/${prefixLength} dev ${link}`,
    `link set ${link} up`,
    `route add default via ${gateway} dev ${link}`,
  ]);
  return role === "primary" ? [router, node] : [router];
}

/** The ENI's addresses change: `added` and `removed` are CIDRs. A removed one that has moved to another ENI must not be listed here. */
export function addressSteps(
  names: Namespaces,
  wire: Pick<Wire, "port" | "mac" | "primary">,
  added: readonly string[],
  removed: { readonly routes: readonly string[]; readonly owned: readonly string[] },
): readonly Step[] {
  const { port, mac, primary } = wire;
  const lines = [
    ...removed.routes.map((cidr) => `route del ${cidr} dev ${port}`),
    ...added.map((cidr) =>
      cidr === `${primary}/32`
        ? `route replace ${cidr} dev ${port}`
        : `route replace ${cidr} via ${primary} dev ${port} onlink`,
    ),
  ];
  const elements = (cidrs: readonly string[]): string =>
    cidrs
      .flatMap((cidr) =>
        [...addressesOfCidr4(cidr4(cidr))].map((address) => `"${port}" . ${mac} . ${address}`),
      )
      .join(", ");
  const change = (verb: "add" | "delete", cidrs: readonly string[]): readonly string[] =>
    cidrs.length === 0
      ? []
      : ["ip", "arp"].map((family) => `${verb} element ${family} vpc owned { ${elements(cidrs)} }`);
  const text = [...change("delete", removed.owned), ...change("add", added)].join("\n");
  const acts: Act[] = [];
  if (lines.length > 0) acts.push({ kind: "ip", lines });
  if (text !== "") acts.push({ kind: "nft", text });
  return acts.length === 0 ? [] : [{ netns: names.vpc, acts }];
}

/** Switches the source check of one ENI. To switch on what is on fails. */
export function sourceCheckSteps(names: Namespaces, port: string, enabled: boolean): readonly Step[] {
  const verb = enabled ? "delete" : "add";
  const text = ["ip", "arp"]
    .map((family) => `${verb} element ${family} vpc unchecked { "${port}" }`)
    .join("\n");
  return [{ netns: names.vpc, acts: [{ kind: "nft", text }] }];
}

/** The link goes from router and node; its routes and neighbours go with it. */
export function unwireSteps(names: Namespaces, port: string): readonly Step[] {
  return [{ netns: names.vpc, acts: [{ kind: "ip-if-there", line: `link del ${port}` }] }];
}

export function publicAddressSteps(
  names: Namespaces,
  verb: "add" | "delete",
  pair: { readonly privateIp: string; readonly publicIp: string },
): readonly Step[] {
  const { privateIp, publicIp } = pair;
  const text = [
    `${verb} element ip igw private_of { ${publicIp} : ${privateIp} }`,
    `${verb} element ip igw public_of { ${privateIp} : ${publicIp} }`,
    `${verb} element ip igw mapped { ${privateIp} }`,
  ].join("\n");
  return [{ netns: names.igw, acts: [{ kind: "nft", text }] }];
}

/** A NAT gateway for the addresses of a CIDR that have no public one of their own. */
export function natGatewaySteps(
  names: Namespaces,
  gateway: { readonly cidr: Cidr4; readonly publicIp: Ipv4 },
): readonly Step[] {
  const text = [
    `add element ip igw natted { ${printCidr4(gateway.cidr)} }`,
    `add rule ip igw leave oifname "out0" ip saddr ${printCidr4(gateway.cidr)} snat to ${gateway.publicIp}`,
  ].join("\n");
  return [{ netns: names.igw, acts: [{ kind: "nft", text }] }];
}

function ip(netns: string | null, lines: readonly string[]): Step {
  return { netns, acts: [{ kind: "ip", lines }] };
}

function sysctl(values: Readonly<Record<string, string>>): Act {
  return { kind: "sysctl", values };
}
