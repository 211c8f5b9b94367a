/**
 * An attached sandbox as a CNI result, in each version served, merged into what earlier plugins of the chain made.
 * Only true data: no hidden state in fields, no address on a host-side interface (cri-o would count it as the pod's).
 * Source: CNI specification 0.3.1 to 1.1.0, "ADD Success".
 */
import type { Mac } from "../core/model/eni.ts";
import { isIpv4, type Ip } from "../lib/ip.ts";
import type { NetworkConfig, PrevResult } from "./netconf.ts";
import type { SpecVersion } from "./wire.ts";

/** What was made for a sandbox, as far as its runtime is told. */
export type Attached = {
  readonly ip: Ip;
  readonly gateway: Ip; // The pod's next hop, on its own link.
  readonly prefixLength?: number; // Of the address in the pod; not given: all bits.
  readonly defaultGateway?: Ip; // Where it is not `gateway`.
  readonly routes?: readonly { readonly to: string; readonly gateway: Ip }[]; // Beside the default one.
  readonly ifName: string;
  readonly netnsPath: string;
  readonly podMac: Mac;
  readonly hostLink: string;
  readonly hostMac: Mac;
  readonly mtu: number;
  readonly addressOnly?: true; // Another plugin makes the links and asked us, as its IPAM, for an address.
};

/** The result as one line of JSON. The host's end of the pair comes first and has no sandbox: `bandwidth` looks for it so. */
export function printResult(attached: Attached, config: NetworkConfig): string {
  const version = config.cniVersion;
  if (attached.addressOnly === true) return printIpamResult(attached, config);
  const previous: PrevResult = config.prevResult ?? {};
  const before = previous.interfaces ?? [];
  const podIndex = before.length + 1;
  const mtu = version === "1.1.0" ? { mtu: attached.mtu } : {};
  const host = { name: attached.hostLink, mac: attached.hostMac, ...mtu };
  const pod = { name: attached.ifName, mac: attached.podMac, sandbox: attached.netnsPath, ...mtu };
  const family = isIpv4(attached.ip) ? "4" : "6";
  const address = {
    ...(hasFamilies(version) ? { version: family } : {}), // 1.0.0 took it away: the address itself tells.
    interface: podIndex,
    address: `${attached.ip}/${attached.prefixLength ?? (family === "4" ? 32 : 128)}`,
    gateway: attached.gateway,
  };
  const { defaultGateway = attached.gateway, routes: others = [] } = attached;
  const routes = [
    { dst: family === "4" ? "0.0.0.0/0" : "::/0", gw: defaultGateway },
    ...others.map(({ to, gateway }) => ({ dst: to, gw: gateway })),
  ];
  const dns = dnsOf(previous, config);
  const result = {
    ...previous,
    cniVersion: version,
    interfaces: [...before, host, pod],
    ips: [...(previous.ips ?? []), address],
    routes: [...(previous.routes ?? []), ...routes],
    ...(dns === null ? {} : { dns }),
  };
  return `${JSON.stringify(result)}\n`;
}

/** For the plugin that asked: no interfaces, and addresses that point to none (CNI specification, "Delegated plugins (IPAM)"). */
function printIpamResult(attached: Attached, config: NetworkConfig): string {
  const version = config.cniVersion;
  const { ip, gateway, prefixLength = 32 } = attached;
  const address = {
    ...(hasFamilies(version) ? { version: "4" } : {}),
    address: `${ip}/${prefixLength}`,
    gateway,
  };
  const routes = [{ dst: "0.0.0.0/0", gw: gateway }];
  const dns = dnsOf({}, config);
  return `${JSON.stringify({ cniVersion: version, ips: [address], routes, ...(dns === null ? {} : { dns }) })}\n`;
}

/** Before 1.0.0 `dns` is always printed; since then it is left out when empty. */
function dnsOf(previous: PrevResult, config: NetworkConfig): object | null {
  const dns = { ...previous.dns, ...config.dns };
  return Object.keys(dns).length > 0 || hasFamilies(config.cniVersion) ? dns : null;
}

function hasFamilies(version: SpecVersion): boolean {
  return version === "0.3.1" || version === "0.4.0";
}

/**
 * What the runtime believes against what we know, for CHECK. Later plugins of the chain may change MAC, MTU and routes, so only
 * this must still hold: the sandbox's interface is listed, with our address on it. Empty when it does.
 */
export function prevResultDifferences(previous: PrevResult, attached: Attached): readonly string[] {
  const interfaces = previous.interfaces ?? [];
  const index = interfaces.findIndex(
    (each) => each["name"] === attached.ifName && each["sandbox"] === attached.netnsPath,
  );
  if (index === -1) return [`prevResult lists no ${attached.ifName} in ${attached.netnsPath}`];
  const ours = `${attached.ip}/`;
  const listed = (previous.ips ?? []).some(
    (each) => each.address.startsWith(ours) && (each["interface"] ?? index) === index,
  );
  return listed ? [] : [`prevResult does not list ${attached.ip} on ${attached.ifName}`];
}
