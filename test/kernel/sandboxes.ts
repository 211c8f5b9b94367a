// Namespaces for kernel tests, and the plumbing of one pod as the routed mode makes it. `scripts/run-tests.mjs` runs these tests in
// namespaces of their own with a private /run/netns, so nothing here can be left on the machine.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import type { Mac } from "../../src/core/model/eni.ts";
import type { NetnsRef, SandboxId } from "../../src/core/model/sandbox.ts";
import { hostLinkName, PODS_TABLE, sandboxMac } from "../../src/core/plumbing/names.ts";
import type { SandboxPlumbing } from "../../src/core/plumbing/object.ts";
import { ipv4, type Ipv4, numberToIpv4 } from "../../src/lib/ip.ts";
import { lookAtNetns } from "../../src/kernel/sandbox.ts";

export function sh(command: string): string {
  return execFileSync("sh", ["-c", command], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

export function ipJson(command: string): Record<string, unknown>[] {
  const text = sh(`ip -j ${command}`).trim();
  return text === "" ? [] : (JSON.parse(text) as Record<string, unknown>[]); // The form of `ip -j`.
}

let made = 0;

/** So many fresh namespaces under /run/netns. */
export function makeNetns(count: number): readonly NetnsRef[] {
  const names = Array.from({ length: count }, () => `t${(made += 1)}`);
  sh(names.map((name) => `ip netns add ${name}`).join("\n"));
  return names.map((name) => {
    const ref = lookAtNetns(`/run/netns/${name}`);
    if (!ref.ok) throw new Error(JSON.stringify(ref.error));
    return ref.value;
  });
}

export function nameOf(netns: NetnsRef): string {
  return netns.path.slice("/run/netns/".length);
}

export function removeAllNetns(): void {
  sh("for n in $(ip netns list | cut -d' ' -f1); do ip netns delete $n; done");
}

export const gateway = ipv4("169.254.1.1");

export function podIp(number: number): Ipv4 {
  return numberToIpv4(0x0a00_0100 + number); // 10.0.1.n
}

/** Pod `number`'s plumbing: what core/plumbing/routed.ts would say, written out. */
export function plumbingOf(number: number): SandboxPlumbing {
  const id = `berth/c${number}/eth0` as SandboxId; // Three parts.
  const hostName = hostLinkName("eni", id);
  const hostMac: Mac = sandboxMac("host", id);
  const ip = podIp(number);
  const route = { kind: "route", table: 254, link: "eth0", onlink: false, mtu: null } as const;
  return {
    pair: {
      hostName,
      hostMac,
      group: 1001,
      alias: id,
      podName: "eth0",
      podMac: sandboxMac("pod", id),
      hostMtu: 9001,
      podMtu: 9001,
    },
    pod: [
      { kind: "link", name: "lo", mtu: 65_536, up: true, group: null },
      { kind: "link", name: "eth0", mtu: 9001, up: true, group: null },
      { kind: "address", link: "eth0", ip, prefixLength: 32, noPrefixRoute: false },
      { ...route, destination: { ip: gateway, prefixLength: 32 }, gateway: null, scope: "link" },
      { ...route, destination: { ip: ipv4("0.0.0.0"), prefixLength: 0 }, gateway, scope: "global" },
      { kind: "neighbour", link: "eth0", ip: gateway, mac: hostMac },
    ],
    host: [
      {
        ...route,
        table: PODS_TABLE,
        destination: { ip, prefixLength: 32 },
        link: hostName,
        gateway: null,
        scope: "link",
      },
    ],
  };
}

export function openDescriptors(): number {
  return Number(sh(`ls /proc/${process.pid}/fd | wc -l`));
}

/** The network namespaces that this process's threads are in: one, when all is well. */
export function threadNamespaces(): readonly string[] {
  return sh(`for t in /proc/${process.pid}/task/*; do readlink $t/ns/net; done | sort -u`).trim().split("\n");
}

export function memoryMb(): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) / 1024;
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}
