/** One node as the plumbing tests see it: an m5.large-like instance with two ENIs in two subnets, and a pod on each. */
import type { Mac } from "../../../src/core/model/eni.ts";
import type { InstanceLimits } from "../../../src/core/model/instance.ts";
import { sandboxId } from "../../../src/core/model/sandbox.ts";
import type { planHost } from "../../../src/core/plumbing/host.ts";
import { hostLinkName, sandboxMac } from "../../../src/core/plumbing/names.ts";
import type { LinkSeen } from "../../../src/core/plumbing/object.ts";
import type { PlumbingSettings } from "../../../src/core/plumbing/settings.ts";
import { cidr4, ipv4 } from "../../../src/lib/ip.ts";

export const limits: InstanceLimits = { addressesPerEni: 10, networkCards: [{ enis: 3 }], nitro: true };

export const settings: PlumbingSettings = {
  dataPath: "routed",
  eniMtu: 9001,
  hostLinkPrefix: "eni",
  mainMark: 0x80,
  nodePort: true,
  snat: { ports: "prng", excludedCidrs: [] },
  externalServiceCidrs: [],
};

export const instance = {
  limits,
  primaryIp: ipv4("10.0.0.10"),
  vpcCidrs: [cidr4("10.0.0.0/16")],
};

export const eni0 = {
  mac: "0a:00:00:00:00:10" as Mac,
  role: "primary",
  slot: { networkCard: 0, deviceIndex: 0 },
  subnetCidr: cidr4("10.0.0.0/24"),
  primaryIp: ipv4("10.0.0.10"),
} as const;

export const eni1 = {
  mac: "0a:00:00:00:00:11" as Mac,
  role: "secondary",
  slot: { networkCard: 0, deviceIndex: 1 },
  subnetCidr: cidr4("10.0.1.0/24"),
  primaryIp: ipv4("10.0.1.10"),
} as const;

export type TestAllocation = ReturnType<typeof allocation>;

/** An allocation as far as plumbing looks at it. */
export function allocation(containerId: string, ip: string, deviceIndex: number) {
  const key = { network: "berth", containerId, ifName: "eth0" };
  const id = sandboxId(key);
  return {
    id,
    key,
    ip: ipv4(ip),
    eniSlot: { networkCard: 0, deviceIndex },
    hostLink: hostLinkName("eni", id),
    hostMac: sandboxMac("host", id),
    podMac: sandboxMac("pod", id),
    mtu: 9001,
  };
}

export function link(name: string, more: Partial<LinkSeen> = {}): LinkSeen {
  const mac = "0e:00:00:00:00:01" as Mac;
  return { name, index: 7, mac, mtu: 9001, up: true, group: 0, alias: null, kind: null, ...more };
}

export const eniLinksSeen: readonly LinkSeen[] = [
  link("eth0", { mac: eni0.mac }),
  link("eth1", { mac: eni1.mac }),
];

export type TestState = Parameters<typeof planHost>[0];

/** A NodeState as far as planHost looks at it. */
export function state(allocations: readonly TestAllocation[]): TestState {
  const addressesOf = (deviceIndex: number) =>
    new Map(
      allocations.filter((each) => each.eniSlot.deviceIndex === deviceIndex).map((each) => [each.ip, each]),
    );
  const enis = new Map([
    ["eni-0", { id: "eni-0", ...eni0, addresses: addressesOf(0) }],
    ["eni-1", { id: "eni-1", ...eni1, addresses: addressesOf(1) }],
  ]);
  const held = new Map(allocations.map((each) => [each.id, each]));
  return { instance, enis, allocations: held } as unknown as TestState; // Whole ENIs and instances would drown what matters here.
}
