/**
 * The incumbent's /v1 pages in its shape, so that log collectors and scripts go on working. Views of NodeState; the page in our own
 * words, /state, is the daemon's.
 */
import type { Eni } from "../core/model/eni.ts";
import type { Allocation, NodeState } from "../core/state/node-state.ts";
import { networkOf, printCidr4 } from "../lib/ip.ts";

/**
 * `/v1/enis`, keyed by network card since the incumbent's v1.20. Container id and interface name are blank, as in its v1.23.
 * A time that never was is Go's zero time, which its readers expect.
 */
export function incumbentEnis(state: NodeState, routeTable: (eni: Eni) => number): unknown {
  const cards = new Map<number, Eni[]>();
  for (const eni of state.enis.values()) {
    const card = cards.get(eni.slot.networkCard) ?? [];
    cards.set(eni.slot.networkCard, [...card, eni]);
  }
  if (!cards.has(0)) cards.set(0, []);
  const byCard = [...cards].sort(([left], [right]) => left - right);
  return Object.fromEntries(
    byCard.map(([card, enis]) => {
      const addresses = enis.flatMap((eni) => [...eni.addresses.values()]);
      return [
        `${card}`,
        {
          TotalIPs: addresses.length,
          AssignedIPs: addresses.filter((address) => address.kind === "allocated").length,
          ENIs: Object.fromEntries(
            enis.map((eni) => [eni.id, { ...incumbentEni(eni, state), RouteTableID: routeTable(eni) }]),
          ),
        },
      ];
    }),
  );
}

const GO_ZERO_TIME = "0001-01-01T00:00:00Z";

function incumbentEni(eni: Eni, state: NodeState) {
  return {
    ID: eni.id,
    IsPrimary: eni.role === "primary",
    IsTrunk: false,
    IsEFA: false,
    DeviceNumber: eni.slot.deviceIndex,
    AvailableIPv4Cidrs: incumbentCidrs(eni, state),
    IPv6Cidrs: {},
    IsExcludedForPodIPs: false,
    SubnetID: eni.subnetId,
  };
}

function incumbentCidrs(eni: Eni, state: NodeState): Readonly<Record<string, unknown>> {
  const holders = new Map([...state.allocations.values()].map((each) => [each.ip, each]));
  const cidrs: Record<
    string,
    { Cidr: string; IPAddresses: Record<string, unknown>; IsPrefix: boolean; AddressFamily: string }
  > = {};
  for (const prefix of eni.prefixes) cidrs[printCidr4(prefix)] = incumbentCidr(printCidr4(prefix), true);
  for (const address of eni.addresses.values()) {
    const inPrefix = address.by === "prefix";
    const prefixLength = inPrefix ? 28 : 32;
    const cidr = printCidr4({ network: networkOf(address.ip, prefixLength), prefixLength });
    const entry = (cidrs[cidr] ??= incumbentCidr(cidr, inPrefix));
    const holder = holders.get(address.ip);
    // The incumbent lists an address of a prefix only once it has been used.
    if (inPrefix && address.kind === "warm") continue;
    entry.IPAddresses[address.ip] = incumbentAddress(address.ip, holder);
  }
  return cidrs;
}

function incumbentCidr(cidr: string, isPrefix: boolean) {
  return { Cidr: cidr, IPAddresses: {}, IsPrefix: isPrefix, AddressFamily: "" };
}

function incumbentAddress(ip: string, holder: Allocation | undefined): unknown {
  return {
    Address: ip,
    IPAMKey: { networkName: holder?.key.network ?? "", containerID: "", ifName: "" },
    IPAMMetadata:
      holder?.pod == null
        ? {}
        : { k8sPodNamespace: holder.pod.namespace, k8sPodName: holder.pod.name, interfacesCount: 1 },
    AssignedTime: holder === undefined ? GO_ZERO_TIME : new Date(holder.since).toISOString(),
    UnassignedTime: GO_ZERO_TIME,
  };
}

/** `/v1/pods`, gone from the incumbent in 2020 and still in its docs: pod to address. */
export function incumbentPods(state: NodeState): unknown {
  return Object.fromEntries(
    [...state.allocations.values()]
      .filter((allocation) => allocation.pod !== null)
      .map(({ pod, ip, eniSlot }) => [
        `${pod?.namespace ?? ""}/${pod?.name ?? ""}`,
        { IP: ip, DeviceNumber: eniSlot.deviceIndex },
      ]),
  );
}
