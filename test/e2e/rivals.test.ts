// Other programs of a node's OS configure, rename and flush what they find. What each of them does is done by hand here, while pods talk and the
// daemon runs; it has to be put right within seconds, and nothing of theirs that is not in our way may be touched.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { waitUntil, type LabNode } from "../../src/lab/node.ts";
import { must, run } from "../../src/lab/processes.ts";
import type { Stage } from "../../src/lab/matrix/stage.ts";
import { firstNode, ip, restartWith, seenBy, smallStage, spoofedSince } from "../support/stage.ts";

let stage: Stage;
let node: LabNode;
let at: Stage["places"];
let spoofed: () => Promise<number>;

/** What must go on: by the pod's own ENI, in from outside to a NodePort, and out by the primary ENI. */
async function wrongFlows(): Promise<readonly string[]> {
  const asked = [
    { what: "other node", seen: await seenBy(at.pod, at.remote.ip), right: at.pod.ip },
    { what: "outside", seen: await seenBy(at.pod, at.outside.ip), right: stage.publicIps.node },
    {
      what: "NodePort",
      seen: await seenBy(at.outside, stage.publicIps.node, { port: stage.nodePortOf("to-pod-local") }),
      right: at.outside.ip,
    },
    { what: "node's own way out", seen: await seenBy(at.node, at.outside.ip), right: stage.publicIps.node },
    { what: "node in the VPC", seen: await seenBy(at.node, at.remote.ip), right: at.node.ip },
  ];
  return asked.filter(({ seen, right }) => seen !== right).map(({ what, seen }) => `${what}: ${seen}`);
}

/** Within seconds: the flows are right, `holds` is true, and no packet of these questions takes a wrong way. */
async function healed(
  holds: () => Promise<boolean> = async () => await Promise.resolve(true),
): Promise<void> {
  const state = async () => {
    await spoofed(); // What was sent before counts for nothing.
    return { wrong: await wrongFlows(), holds: await holds(), spoofed: await spoofed() };
  };
  const right = { wrong: [], holds: true, spoofed: 0 };
  let last: object = {};
  await waitUntil("it is put right", 10_000, async () => {
    last = await state();
    return JSON.stringify(last) === JSON.stringify(right);
  }).catch(() => expect(last).toEqual(right)); // Which tells what is wrong still.
}

const shown = async (command: string): Promise<string> =>
  await must(command.split(" "), { netns: node.netns });

beforeAll(async () => {
  stage = await smallStage({ BERTH_REPAIR_INTERVAL_SECONDS: "60" }); // So that events alone can explain a quick repair.
  node = firstNode(stage);
  at = stage.places;
  spoofed = spoofedSince(stage);
  await stage.loadKubeProxy("nftables");
});
afterAll(async () => await stage.close());
beforeEach(async () => await healed());

test("udev renames a secondary ENI's link (eth1 becomes ens6): the link is down for that, and loses its routes", async () => {
  await ip(node, "link set eth1 down", "link set eth1 name ens6", "link set ens6 up");
  await healed(async () =>
    (await shown("ip route show table 10001")).includes("default via 10.0.0.1 dev ens6"),
  );
  await ip(node, "link set ens6 down", "link set ens6 name eth1", "link set eth1 up");
  await healed(async () => (await shown("ip route show table 10001")).includes("dev eth1"));
});

test("udev renames the primary ENI's link: the packet filter follows the name", async () => {
  const rename = async (from: string, to: string): Promise<void> =>
    await ip(
      node,
      `link set ${from} down`,
      `link set ${from} name ${to}`,
      `link set ${to} up`,
      `route add default via 10.0.0.1 dev ${to}`, // The OS configures its own link again.
    );
  await rename("eth0", "ens5");
  await healed(async () => (await shown("nft list table inet berth")).includes('iifname "ens5"'));
  await rename("ens5", "eth0");
  await healed(async () => (await shown("nft list table inet berth")).includes('iifname "eth0"'));
});

test("#1600, #3309: systemd-networkd restarts and flushes all rules and routes that are not its own", async () => {
  const before = [await shown("ip rule"), await shown("ip route show table all type unicast")];
  await must(
    [
      "sh",
      "-c",
      "set -e; ip rule flush; ip rule add priority 32766 lookup main; ip rule add priority 32767 lookup default; ip route flush table 100; ip route flush table 10001",
    ],
    { netns: node.netns },
  );
  await healed(async () => {
    const after = [await shown("ip rule"), await shown("ip route show table all type unicast")];
    return after.map(sorted).join("\n") === before.map(sorted).join("\n");
  });
});

test("cilium/cilium#9446: dhclient puts the ENI's address on the link with its connected route, and another one", async () => {
  const { enis } = await node.state();
  const own = enis.find(({ deviceIndex }) => deviceIndex === 1)?.primaryIp ?? "";
  await ip(node, `address del ${own}/22 dev eth1`, `address add ${own}/22 dev eth1`);
  await run(["ip", "address", "add", "169.254.99.9/16", "dev", "eth1"], { netns: node.netns });
  await healed(async () => {
    const addresses = await shown("ip -o -4 address show dev eth1");
    const main = await shown("ip route show table main dev eth1");
    return addresses.trim().split("\n").length === 1 && addresses.includes(own) && main.trim() === "";
  });
});

test("#3524: NetworkManager or ec2-net-utils give a secondary ENI a default route, better than the primary one's", async () => {
  await ip(node, "route del default", "route add default via 10.0.0.1 dev eth0 metric 512");
  await ip(node, "route add default via 10.0.0.1 dev eth1 metric 101 onlink");
  await healed(async () => !(await shown("ip route show table main")).includes("eth1"));
  await ip(node, "route del default", "route add default via 10.0.0.1 dev eth0");
});

test("#3524: the OS configured the secondary ENI before the daemon came", async () => {
  await node.stopDaemon("SIGTERM");
  const { primaryIp = "" } = {
    primaryIp: (await shown("ip -o -4 address show dev eth1")).match(/inet ([0-9.]+)/)?.[1],
  };
  await ip(
    node,
    "link set eth1 down",
    "address flush dev eth1",
    "link set eth1 name enX1",
    "link set enX1 mtu 1500 up",
    `address add ${primaryIp}/22 dev enX1`,
    "route add default via 10.0.0.1 dev enX1 metric 200",
    "rule flush",
    "rule add priority 32766 lookup main",
    `rule add priority 10001 from ${primaryIp} lookup 10001`, // ec2-net-utils keeps tables of the same number.
  );
  await node.startDaemon();
  await healed(async () => !(await shown("ip route show table main")).includes("enX1"));
  expect(await shown("ip link show enX1")).toContain("mtu 9001");
  expect(await shown("ip rule")).toContain("10001:"); // Not ours and not in our way.
  await ip(
    node,
    "rule del priority 10001",
    "link set enX1 down",
    "link set enX1 name eth1",
    "link set eth1 up",
  );
});

test("PR 2170, awslabs/amazon-eks-ami#1136: nm-cloud-setup puts what IMDS lists, pods' addresses too, on the ENIs' links", async () => {
  const onPrimary = at["primary-pod"].ip;
  await ip(
    node,
    `address add ${onPrimary}/22 dev eth0`,
    `address add ${at.pod.ip}/22 dev eth1`,
    "route add default via 10.0.0.1 dev eth0 table 30400",
    `rule add priority 30400 from ${onPrimary} lookup 30400`,
  );
  await healed(async () => {
    const addresses = await shown("ip -o -4 address");
    return !addresses.includes(`${onPrimary}/`) && !addresses.includes(`${at.pod.ip}/`);
  });
  expect(await seenBy(at.client, onPrimary)).toBe(at.client.ip);
  expect(await shown("ip rule")).toContain("30400:"); // Behind all of ours, so it is in nobody's way.
  await ip(node, "rule del priority 30400", "route flush table 30400");
});

test("#2103, flatcar/Flatcar#278: udev gives a running pod's host link another MAC under the pod's static neighbour", async () => {
  const [, link = ""] = (await shown(`ip -o route get ${at.pod.ip}`)).match(/dev (\S+)/) ?? [];
  await ip(node, `link set ${link} address 0a:11:22:33:44:55`);
  await healed();
  expect(await shown(`ip -o link show ${link}`)).not.toContain("0a:11:22:33:44:55");
});

test("#167, #356, #665: somebody sets an ENI's MTU back; and AWS_VPC_ENI_MTU and POD_MTU hold for every ENI and for new pods", async () => {
  await ip(node, "link set eth1 mtu 1500", "link set eth0 mtu 1500");
  const mtus = async (): Promise<string> =>
    [...(await shown("ip -o link")).matchAll(/: (eth\d)[@:].* mtu (\d+)/g)]
      .map((each) => `${each[1]}=${each[2]}`)
      .join(" ");
  await healed(async () => /^(eth\d=9001 ?)+$/.test(await mtus()));
  await restartWith(node, { AWS_VPC_ENI_MTU: "8500", POD_MTU: "1400" });
  await healed(async () => /^(eth\d=8500 ?)+$/.test(await mtus()));
  const [pod] = await node.runtime.makeSandboxes(["small"]);
  if (pod === undefined) throw new Error("no sandbox");
  expect((await node.runtime.call("ADD", pod)).error).toBeNull();
  expect(await must(["ip", "-o", "link", "show", "eth0"], { netns: pod.netns })).toContain("mtu 1400");
  expect(await must(["ip", "-o", "link", "show", "eth0"], { netns: at.pod.netns })).toContain("mtu 9001"); // Running pods keep theirs.
  await node.runtime.call("DEL", pod);
  await restartWith(node, {});
});

test("#619, #744: a node that does not forward is told of at start; its switch is the OS's", async () => {
  await must(["sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"], { netns: node.netns });
  await node.stopDaemon("SIGTERM");
  await node.startDaemon();
  const said = node
    .log()
    .split("\n")
    .filter((line) => line.includes("ip_forward"));
  await must(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"], { netns: node.netns });
  expect(said.at(-1)).toContain("ip_forward");
});

function sorted(text: string): string {
  return text
    .split("\n")
    .map((line) => line.trim().replace(/^\d+:\s*/, (priority) => priority.trim()))
    .sort()
    .join("\n");
}
