/** Hands for tests on a fabric: commands inside namespaces, servers that say whom they see, pods made from the printed plumbing. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { Mac } from "../../src/core/model/eni.ts";
import { eniObjects } from "../../src/core/plumbing/eni-host.ts";
import { NODE_SYSCTLS, nodeObjects } from "../../src/core/plumbing/node-host.ts";
import { packetFilter, printPacketFilter } from "../../src/core/plumbing/packet-filter.ts";
import type { PlumbingSettings } from "../../src/core/plumbing/settings.ts";
import { renderObject, renderSandbox } from "../../src/core/plumbing/render.ts";
import { routedPlumbing } from "../../src/core/plumbing/routed.ts";
import { type AttachedEni, createFabric, type Fabric } from "../../src/emulator/fabric/fabric.ts";
import { inNetns } from "../../src/emulator/fabric/run.ts";
import { cidr4, ipv4 } from "../../src/lib/ip.ts";
import { allocation, limits } from "../core/plumbing/fixtures.ts";

/** Runs `ip` with these lines; null is the namespace of this process. */
export function ip(netns: string | null, lines: readonly string[]): void {
  const command = ["ip", "-batch", "-"] as const;
  const [file, ...args] = netns === null ? command : inNetns(netns, command);
  execFileSync(file, args, { input: lines.join("\n"), stdio: ["pipe", "pipe", "pipe"] });
}

export function output(netns: string, command: readonly string[], input = ""): string {
  const [file, ...args] = inNetns(netns, command);
  return execFileSync(file, args, { encoding: "utf8", input, stdio: ["pipe", "pipe", "pipe"] });
}

/** True when an answer comes within half a second. `more` are arguments of ping. */
export function pings(netns: string, to: string, more: readonly string[] = []): boolean {
  const [file, ...args] = inNetns(netns, ["ping", "-n", "-q", "-c", "1", "-W", "0.5", ...more, to]);
  return spawnSync(file, args).status === 0;
}

/** A TCP server inside the namespace that answers each connection with the address it comes from. */
export async function serveWhoAreYou(netns: string, port: number, host = "0.0.0.0"): Promise<() => void> {
  const program = `require("net").createServer((s) => s.end(s.remoteAddress)).listen(${port}, "${host}", () => console.log("up"))`;
  const [file, ...args] = inNetns(netns, [process.execPath, "-e", program]);
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return () => child.kill("SIGKILL");
}

/** Whom a `serveWhoAreYou` at that address sees, or null when no connection is made within two seconds. */
export function seenAs(netns: string, host: string, port: number): string | null {
  const [file, ...args] = inNetns(netns, [
    "timeout",
    "2",
    "bash",
    "-c",
    `exec 3<>/dev/tcp/${host}/${port} && cat <&3`,
  ]);
  const done = spawnSync(file, args, { encoding: "utf8" });
  return done.status === 0 ? done.stdout : null;
}

const world = {
  vpcCidrs: [cidr4("10.0.0.0/16")],
  client: { ip: ipv4("10.0.9.5"), subnetCidr: cidr4("10.0.9.0/24") },
};

/** ENI `index` of node `n`: subnet 10.0.0.0/24 for primary ENIs, 10.0.1.0/24 for secondary ones. */
export function eniOf(n: number, index: number, pods: readonly string[] = []): AttachedEni {
  const primary = ipv4(`10.0.${index}.${9 + n}`);
  return {
    eniId: `eni-${n}${index}`,
    instanceId: `i-${n}`,
    mac: `0a:00:00:00:0${n}:0${index}` as Mac,
    networkCardIndex: 0,
    deviceIndex: index,
    primary,
    subnetCidr: cidr4(`10.0.${index}.0/24`),
    sourceDestCheck: true,
    ips: [primary, ...pods.map(ipv4)],
    prefixes: [],
  };
}

/** Two nodes `tn1` and `tn2`, each with its primary ENI up: 10.0.0.10 and 10.0.0.11. */
export async function twoNodes(): Promise<Fabric> {
  const fabric = await createFabric({ prefix: "t", ...world });
  await Promise.all([
    fabric.addNode({ instanceId: "i-1", netns: "tn1" }),
    fabric.addNode({ instanceId: "i-2", netns: "tn2" }),
    fabric.linkUp(eniOf(1, 0, ["10.0.0.20"])),
    fabric.linkUp(eniOf(2, 0)),
  ]);
  return fabric;
}

/** Makes a node's namespace what the daemon shall make it: sysctls, rules, its ENIs' objects, and the packet filter. */
export function plumbNode(node: string, enis: readonly AttachedEni[], settings: PlumbingSettings): void {
  const objects = enis.flatMap((eni) => {
    const { networkCardIndex: networkCard, deviceIndex, subnetCidr, primary: primaryIp } = eni;
    const role = deviceIndex === 0 ? ("primary" as const) : ("secondary" as const);
    const seen = { role, slot: { networkCard, deviceIndex }, subnetCidr, primaryIp };
    return eniObjects(seen, `eth${deviceIndex}`, limits, settings.eniMtu);
  });
  for (const { name, value } of NODE_SYSCTLS) {
    output(node, ["sh", "-c", `cat >/proc/sys/${name.replaceAll(".", "/")}`], value);
  }
  ip(node, [...nodeObjects(settings), ...objects].map(renderObject));
  plumbFilter(node, enis, settings);
}

export function plumbFilter(node: string, enis: readonly AttachedEni[], settings: PlumbingSettings): void {
  const primaryIp = enis[0]?.primary ?? ipv4("0.0.0.0");
  const filter = packetFilter({ limits, primaryIp, vpcCidrs: world.vpcCidrs }, "eth0", settings);
  output(node, ["nft", "-f", "-"], printPacketFilter(filter));
}

/** Plumbs a pod by hand, line by line as printed, into a new namespace of that name. */
export function plumbPod(node: string, pod: string, address: string, deviceIndex: number): void {
  const plumbing = routedPlumbing(allocation(pod, address, deviceIndex), limits);
  const lines = renderSandbox(plumbing, pod);
  ip(null, [`netns add ${pod}`]);
  ip(node, lines.pair);
  ip(pod, lines.pod);
  ip(node, lines.host);
}
