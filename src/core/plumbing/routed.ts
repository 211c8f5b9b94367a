/** What a sandbox needs in veth mode: a link in its ENI's group and one route in the pods' table. No rule, and no nft object. */
import { assert } from "../../lib/assert.ts";
import { ipv4 } from "../../lib/ip.ts";
import type { InstanceLimits } from "../model/instance.ts";
import type { Allocation } from "../state/node-state.ts";
import { eniGroup, eniNumber, hostLinkAlias, MAIN_TABLE, PODS_TABLE, POD_GATEWAY_TEXT } from "./names.ts";
import { DEFAULT_ROUTE } from "./node-host.ts";
import type { KernelObject, SandboxPlumbing } from "./object.ts";

const POD_GATEWAY = ipv4(POD_GATEWAY_TEXT);
/** Linux's own; the link object wants one. */
export const LOOPBACK_MTU = 65_536;

/**
 * The plumbing of one allocation, from its record alone: the same on ADD, CHECK, repair and after a restart.
 *
 * The pod has P/32 and knows one neighbour, 169.254.1.1, that exists nowhere: its permanent entry holds the host end's MAC, so the host
 * end needs neither an address nor proxy ARP. All of it in the pod's main table, as other plugins of a chain expect.
 * The allocation's ENI must have a number (`eniNumber`).
 */
export function routedPlumbing(
  allocation: Pick<Allocation, "id" | "key" | "ip" | "eniSlot" | "hostLink" | "hostMac" | "podMac" | "mtu">,
  limits: InstanceLimits,
): SandboxPlumbing {
  const { id, ip, hostLink, hostMac, podMac, mtu } = allocation;
  const number = eniNumber(allocation.eniSlot, limits);
  assert(number !== null, "addresses are given out only on an ENI with a number");
  const group = eniGroup(number);
  const podLink = allocation.key.ifName;
  const own = { ip, prefixLength: 32 };
  const viaPodLink = { kind: "route", table: MAIN_TABLE, link: podLink, onlink: false, mtu: null } as const;

  const pod: readonly KernelObject[] = [
    { kind: "link", name: "lo", mtu: LOOPBACK_MTU, up: true, group: null },
    { kind: "link", name: podLink, mtu, up: true, group: null },
    { kind: "address", link: podLink, ...own, noPrefixRoute: false },
    { ...viaPodLink, destination: { ip: POD_GATEWAY, prefixLength: 32 }, gateway: null, scope: "link" },
    { ...viaPodLink, destination: DEFAULT_ROUTE, gateway: POD_GATEWAY, scope: "global" },
    { kind: "neighbour", link: podLink, ip: POD_GATEWAY, mac: hostMac },
  ];
  const host: readonly KernelObject[] = [
    {
      kind: "route",
      table: PODS_TABLE,
      destination: own,
      link: hostLink,
      gateway: null,
      scope: "link",
      onlink: false,
      mtu: null,
    },
  ];
  const pair = { hostName: hostLink, hostMac, group, alias: hostLinkAlias(id), podName: podLink, podMac };
  return { pair: { ...pair, hostMtu: mtu, podMtu: mtu }, pod, host };
}
