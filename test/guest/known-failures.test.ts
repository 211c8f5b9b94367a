// Each piece of an ipvlan pod that is there for the sake of one flow: with it the flow is right, without it the flow fails as users told, and no
// other piece makes up for it. Threads are of lyft/cni-ipvlan-vpc-k8s unless named.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type LabNode, waitUntil } from "../../src/lab/node.ts";
import { ask } from "../../src/lab/probes.ts";
import { must } from "../../src/lab/processes.ts";
import type { Stage } from "../../src/lab/matrix/stage.ts";
import { firstNode, seenBy, smallStage } from "../support/stage.ts";

let stage: Stage;
let node: LabNode;
let at: Stage["places"];
let podLink: string;

beforeAll(async () => {
  stage = await smallStage({ BERTH_DATA_PATH: "ipvlan" });
  node = firstNode(stage);
  at = stage.places;
  await stage.loadKubeProxy("nftables");
  const { allocations } = await node.state();
  podLink = allocations.find(({ ip }) => ip === at.pod.ip)?.hostLink ?? "none";
  await node.stopDaemon("SIGTERM"); // Nobody heals what is broken here.
});
afterAll(async () => await stage.close());

type Break = {
  readonly failure: string;
  readonly flow: () => Promise<string>;
  readonly right: () => string;
  readonly wrong?: () => string;
  readonly where: "pod" | "node";
  readonly breakIt: () => string;
  readonly undo: () => string;
};

/** The table as it is, to be loaded again. */
const saved = (table: string): string => `nft list table ${table} > /tmp/saved; `;
const loaded = (table: string): string => `nft delete table ${table} 2>/dev/null; nft -f /tmp/saved`;
const without = (table: string, words: string): string =>
  `${saved(table)} { echo delete table ${table}; grep -v '${words}' /tmp/saved; } > /tmp/broken; nft -f /tmp/broken`;

const keptByNodePort = async (): Promise<string> =>
  await seenBy(at.client, at.node.ip, { port: stage.nodePortOf("to-pod-local") });
const clusterIp = async (): Promise<string> => await seenBy(at.pod, stage.clusterIpOf("to-remote"));
const spoofed = async (): Promise<string> => {
  // The pod knows the other's MAC already: asked for with a neighbour's address, ARP's answer would go to the neighbour's slave.
  await seenBy(at.pod, at["other-node"].ip);
  await must(["ip", "address", "add", `${at.neighbour.ip}/32`, "dev", "lo"], { netns: at.pod.netns });
  const answer = await ask({
    netns: at.pod.netns,
    protocol: "icmp",
    ip: at["other-node"].ip,
    port: 0,
    fromIp: at.neighbour.ip,
    watchedIn: at["other-node"].netns,
    patienceMs: 600,
  });
  await must(["ip", "address", "del", `${at.neighbour.ip}/32`, "dev", "lo"], { netns: at.pod.netns });
  return answer.kind === "seen" ? answer.ip : "nobody";
};

const BREAKS: readonly Break[] = [
  {
    failure: "#38: a NodePort client that keeps its address is a martian on a link without address",
    flow: keptByNodePort,
    right: () => at.client.ip,
    where: "pod",
    // With a link's last address the kernel takes its routes, which are not what is asked here.
    breakIt: () =>
      [
        "ip address del 169.254.1.2/32 dev veth0",
        `ip route replace ${at.node.ip} dev veth0 scope link`,
        ...["main", "101"].map(
          (table) => `ip route replace default via ${at.node.ip} dev veth0 table ${table}`,
        ),
      ].join(" && "),
    undo: () => "ip address add 169.254.1.2/32 dev veth0 scope host",
  },
  {
    failure: "#38: the answer to a NodePort leaves by the ENI, and its client hears of no such connection",
    flow: keptByNodePort,
    right: () => at.client.ip,
    where: "pod",
    breakIt: () => "ip rule del priority 513",
    undo: () => "ip rule add priority 513 fwmark 0x40/0x40 lookup 101 protocol 98",
  },
  {
    failure: "the answer to a client off the VPC that came by the ENI leaves by the node",
    flow: async () => await seenBy(at.outside, stage.publicIps.neighbour),
    right: () => at.outside.ip,
    where: "pod",
    breakIt: () => without("ip berth", 'iifname "eth0"'),
    undo: () => loaded("ip berth"),
  },
  {
    failure: "a Service's endpoint elsewhere in the VPC is not reached, since the node sends for itself",
    flow: clusterIp,
    right: () => at.pod.ip,
    where: "node",
    breakIt: () => `ip rule del priority 1537 iif ${podLink}`,
    undo: () => "true",
  },
  {
    failure: "what comes back into the pod with the pod's own address is a martian",
    flow: clusterIp,
    right: () => at.pod.ip,
    where: "node",
    breakIt: () => without("inet berth", "rt ip nexthop"),
    undo: () => loaded("inet berth"),
  },
  {
    failure: "the answer of a Service's endpoint, out of the pod, is taken for a forged one",
    flow: clusterIp,
    right: () => at.pod.ip,
    where: "node",
    breakIt: () => without("inet berth", "ct direction reply ct status snat accept"),
    undo: () => loaded("inet berth"),
  },
  {
    failure: "the pod does not pass on what the node sends back into it",
    flow: clusterIp,
    right: () => at.pod.ip,
    where: "pod",
    breakIt: () => "sysctl -qw net.ipv4.conf.veth0.forwarding=0",
    undo: () => "sysctl -qw net.ipv4.conf.veth0.forwarding=1",
  },
  {
    failure: "two pods of an ENI use each other's address, which the VPC cannot see",
    flow: spoofed,
    right: () => "nobody",
    wrong: () => at.neighbour.ip,
    where: "pod",
    breakIt: () => without("ip berth", "ip saddr !="),
    undo: () => loaded("ip berth"),
  },
];

test.each(BREAKS)(
  "$failure",
  async ({ flow, right, wrong = () => "nobody", where, breakIt, undo, failure }) => {
    // The flow to the pod's neighbour is about the neighbour.
    const pod = failure.includes("off the VPC") ? at.neighbour : at.pod;
    const { netns } = where === "pod" ? pod : at.node;
    const run = async (command: string): Promise<void> => void (await must(["sh", "-c", command], { netns }));
    expect(`whole: ${await flow()}`).toBe(`whole: ${right()}`);
    await run(breakIt());
    const broken = await flow();
    await run(undo());
    expect(`broken: ${broken}`).toBe(`broken: ${wrong()}`);
    if (undo() !== "true") expect(`mended: ${await flow()}`).toBe(`mended: ${right()}`);
    else {
      await node.startDaemon();
      await waitUntil("the daemon has healed it", 20_000, async () => (await flow()) === right());
      await node.stopDaemon("SIGTERM");
    }
  },
);
