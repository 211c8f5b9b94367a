// Failures that users of the AWS VPC CNI met, by the thread that tells of them (aws/amazon-vpc-cni-k8s unless named). Each test sees the flow
// work, breaks the one rule that the failure broke while no daemon watches, sees the flow fail as it was told, and sees the daemon's start heal it.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { waitUntil, type LabNode } from "../../src/lab/node.ts";
import { ask, listen } from "../../src/lab/probes.ts";
import { must } from "../../src/lab/processes.ts";
import { PORT, type Place, type Stage } from "../../src/lab/matrix/stage.ts";
import type { ServiceName } from "../../src/lab/matrix/flows.ts";
import { firstNode, ip, nft, ourTable, restartWith, seenBy, smallStage } from "../support/stage.ts";

let stage: Stage;
let node: LabNode;
let at: Stage["places"];

beforeAll(async () => {
  stage = await smallStage();
  node = firstNode(stage);
  at = stage.places;
});
afterAll(async () => await stage.close());

/** What the flow's other side sees, in three states of the node. */
async function brokenAndHealed(
  flow: () => Promise<string>,
  right: string,
  breakIt: () => Promise<void>,
  wrong = "nobody",
): Promise<void> {
  // A packet that left by the wrong ENI in the test before also asked for that ENI's gateway with a wrong address, and the kernel takes some
  // seconds to ask again.
  const becomesRight = async (state: string): Promise<void> => {
    await waitUntil("the flow is right", 5_000, async () => (await flow()) === right).catch(() => {});
    expect(`${state}: ${await flow()}`).toBe(`${state}: ${right}`);
  };
  await becomesRight("whole");
  await node.stopDaemon("SIGTERM");
  await breakIt();
  expect(`broken: ${await flow()}`).toBe(`broken: ${wrong}`);
  await node.startDaemon();
  await becomesRight("healed");
}

/** Our table with one of its words changed, as an older or a lesser version would have it. */
async function rewritten(from: RegExp, to: string): Promise<void> {
  const before = await ourTable(node);
  const after = before.replace(from, to);
  expect(after).not.toBe(before);
  await nft(node, `delete table inet berth\n${after}`);
}

async function sh(script: string): Promise<void> {
  await must(["sh", "-c", script], { netns: node.netns });
}

const nodePort = async (service: ServiceName): Promise<string> =>
  await seenBy(at.outside, stage.publicIps.node, { port: stage.nodePortOf(service) });
const clusterIp = async (from: Place, service: ServiceName): Promise<string> =>
  await seenBy(from, stage.clusterIpOf(service));

describe("by which ENI a packet leaves", () => {
  test("#75, #231, #107: a NodePort's reply from a pod on a secondary ENI leaves by the primary one", async () => {
    await stage.loadKubeProxy("iptables-nft");
    await brokenAndHealed(
      async () => await nodePort("to-pod-local"),
      at.outside.ip,
      async () => await nft(node, "flush chain inet berth entry"),
    );
  });

  test("#75: strict rp_filter drops what comes to a NodePort's pod; the daemon sets it loose", async () => {
    await stage.loadKubeProxy("iptables-nft");
    await brokenAndHealed(
      async () => await seenBy(at.outside, stage.publicIps.neighbour),
      at.outside.ip,
      async () => await sh("for f in all eth0 eth1; do echo 1 >/proc/sys/net/ipv4/conf/$f/rp_filter; done"),
    );
  });

  test("#1392: a load balancer's IP target on a secondary ENI answers clients outside the VPC by that ENI", async () => {
    await brokenAndHealed(
      async () => await seenBy(at.outside, stage.publicIps.neighbour),
      at.outside.ip,
      async () => await rewritten(/ct direction original /, ""),
    );
  });

  test("#3563: a pod on a secondary ENI reaches ClusterIPs under kube-proxy's nftables mode: judged after DNAT", async () => {
    await stage.loadKubeProxy("nftables");
    await brokenAndHealed(
      async () => await clusterIp(at.pod, "to-remote"),
      at.pod.ip,
      async () => await rewritten(/priority dstnat \+ 10/, "priority dstnat - 10"),
    );
    expect(await clusterIp(at.pod, "to-outside")).toBe(stage.publicIps.node);
  });

  test("#3872: other programs' bits of the mark stay when ours are set", async () => {
    await nft(node, OTHERS_MARK);
    const kept = async (): Promise<string> => {
      await must(["nft", "reset", "counters", "table", "ip", "others"], node);
      await seenBy(at.pod, at.remote.ip);
      const counted = await must(["nft", "list", "counter", "ip", "others", "kept"], node);
      return Number(/packets (\d+)/.exec(counted)?.[1]) > 0 ? "kept" : "lost";
    };
    await brokenAndHealed(
      kept,
      "kept",
      async () => await rewritten(/meta mark set meta mark & 0xffffffc1 \| 0x0*1/, "meta mark set 0x1"),
      "lost",
    );
    await nft(node, "delete table ip others");
  });

  test("#3559, #3800: kube-proxy may change its mode while the node runs, and Services go on", async () => {
    for (const mode of ["iptables-nft", "nftables", "iptables-nft"] as const) {
      await stage.loadKubeProxy(mode);
      expect(await nodePort("to-pod-local")).toBe(at.outside.ip);
      expect(await clusterIp(at.pod, "to-outside")).toBe(stage.publicIps.node);
    }
  });

  test("#2025: what leaves the VPC is led to SNAT though NodePort support is off", async () => {
    const off = { AWS_VPC_CNI_NODE_PORT_SUPPORT: "false" };
    await restartWith(node, off);
    expect(await seenBy(at.pod, at.outside.ip)).toBe(stage.publicIps.node);
    await brokenAndHealed(
      async () => await seenBy(at.pod, at.outside.ip),
      stage.publicIps.node,
      async () => await rewritten(/\n[^\n]*fib daddr type != local meta mark set[^\n]*/, ""),
      stage.publicIps.gateway, // It left by its own ENI, untranslated; without a NAT gateway it would have got nowhere.
    );
  });

  test("#777, #469: a pod on a secondary ENI answers a peered VPC: the ENI's rule asks for no destination", async () => {
    await brokenAndHealed(
      async () => await seenBy(at.peer, at.pod.ip),
      at.peer.ip,
      async () =>
        await ip(
          node,
          "rule del priority 1536",
          "rule add priority 1536 fwmark 0x1/0x3f to 10.0.0.0/16 lookup 10001 protocol 98",
        ),
    );
  });

  test("#1327: a secondary ENI's own address answers", async () => {
    const { enis } = await node.state();
    const own = enis.find(({ deviceIndex }) => deviceIndex === 1)?.primaryIp ?? "";
    await brokenAndHealed(
      async () => await seenBy(at.client, own),
      at.client.ip,
      async () => await sh("while ip rule del priority 32765 2>/dev/null; do :; done"),
    );
  });

  test("two addresses of one ENI look alike to the VPC: a pod that uses its neighbour's is stopped on the node, by two guards", async () => {
    await must(["ip", "address", "add", `${at.neighbour.ip}/32`, "dev", "lo"], { netns: at.pod.netns });
    const arrives = async (): Promise<string> => {
      const { netns } = at["other-node"];
      const question = { netns: at.pod.netns, protocol: "icmp", ip: at["other-node"].ip, port: 0 } as const;
      const answer = await ask({ ...question, fromIp: at.neighbour.ip, watchedIn: netns, patienceMs: 500 });
      return answer.kind === "seen" ? answer.ip : "nobody";
    };
    await brokenAndHealed(
      arrives,
      "nobody",
      async () => {
        await rewritten(/\n[^\n]*counter name "spoofed" drop/, "");
        expect(await arrives()).toBe("nobody"); // The kernel's own check: even a loose one wants a way back by a link without an address.
        await sh("for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done");
      },
      at.neighbour.ip,
    );
    await must(["ip", "address", "del", `${at.neighbour.ip}/32`, "dev", "lo"], { netns: at.pod.netns });
  });
});

describe("what an earlier life, or an earlier pod, left", () => {
  test("#641, #705: pods of one node reach each other after a restart that lost their routes", async () => {
    await brokenAndHealed(
      async () => await seenBy(at.pod, at["primary-pod"].ip),
      at.pod.ip,
      async () => await ip(node, "route flush table 100"),
    );
  });

  test("#2048: an address that has moved to another node is reached from the old one: no stale route catches it", async () => {
    const [link = ""] =
      (await must(["ip", "-o", "route", "show", "table", "100"], node)).match(/eni[0-9a-f]+/) ?? [];
    await brokenAndHealed(
      async () => await seenBy(at.pod, at.remote.ip),
      at.pod.ip,
      async () => await ip(node, `route add ${at.remote.ip} dev ${link} scope link table 100 proto 98`),
    );
  });

  test("#344, #357, #166: a route that an earlier pod left at a new pod's address is replaced, not stumbled over", async () => {
    const { enis } = await node.state();
    const warm = enis.flatMap((eni) =>
      eni.addresses.filter(({ kind }) => kind === "warm").map((each) => each.ip),
    );
    const pid = node.daemonPid() ?? 0;
    process.kill(pid, "SIGSTOP"); // Nobody tidies up before the ADD comes.
    for (const each of warm) await ip(node, `route add ${each} dev eth0 scope link table 100 proto 98`);
    const [pod] = await node.runtime.makeSandboxes(["leftover"]);
    if (pod === undefined) throw new Error("no sandbox");
    const adding = node.runtime.call("ADD", pod);
    await new Promise((resolve) => setTimeout(resolve, 100));
    process.kill(pid, "SIGCONT");
    const added = await adding;
    expect(added.error).toBeNull();
    expect(warm).toContain(added.ip);
    const listener = await listen(pod.netns, PORT);
    expect(await seenBy(at.client, added.ip ?? "")).toBe(at.client.ip);
    listener.close();
    await node.runtime.call("DEL", pod);
  });

  test("#1094: no pod gets an ENI's own address, however many pods there are", async () => {
    const { enis, allocations } = await node.state();
    const own = enis.map(({ primaryIp }) => primaryIp);
    const pods = await node.runtime.makeSandboxes(
      Array.from({ length: 9 - allocations.length }, (_, n) => `full-${n}`),
    );
    const given: (string | null)[] = [];
    for (const pod of pods) given.push((await node.runtime.call("ADD", pod)).ip);
    expect(given).not.toContain(null); // Three ENIs of three: the node is full.
    expect(given.filter((each) => own.includes(each ?? ""))).toEqual([]);
    for (const pod of pods) await node.runtime.call("DEL", pod);
  });

  test("projectcalico/calico#10375, #1374: a StatefulSet's pod comes again before the old one's DEL, and keeps its link", async () => {
    const [old, young] = await node.runtime.makeSandboxes(["db-0", "db-0"]);
    if (old === undefined || young === undefined) throw new Error("no sandboxes");
    await node.runtime.call("ADD", old);
    const added = await node.runtime.call("ADD", young);
    const listener = await listen(young.netns, PORT);
    expect(await seenBy(at.client, added.ip ?? "")).toBe(at.client.ip);
    expect((await node.runtime.call("DEL", old)).error).toBeNull();
    await new Promise((resolve) => setTimeout(resolve, 300)); // Links go after the answer.
    expect(await seenBy(at.client, added.ip ?? "")).toBe(at.client.ip);
    listener.close();
    await node.runtime.call("DEL", young);
  });
});

describe("connections of an address that changes hands", () => {
  test("#3634, #373: a UDP connection to a NodePort goes to the new pod once the old one is deleted", async () => {
    const [first, second] = await node.runtime.makeSandboxes(["udp-old", "udp-new"]);
    if (first === undefined || second === undefined) throw new Error("no sandboxes");
    const added = [await node.runtime.call("ADD", first), await node.runtime.call("ADD", second)].map(
      (each) => each.ip ?? "",
    );
    const [oldIp = "", newIp = ""] = added;
    const listeners = [await listen(first.netns, PORT), await listen(second.netns, PORT)];
    const forward = async (to: string): Promise<void> =>
      await nft(
        node,
        `table ip forward-one\ndelete table ip forward-one\ntable ip forward-one {
        chain enter { type nat hook prerouting priority dstnat; iifname "eth0" udp dport 30999 dnat to ${to}:${PORT}; }
      }`,
      );
    // The same ports every time, as a resolver or a QUIC client would: one connection, as the node sees it.
    const asks = async (): Promise<string> => {
      const question = {
        netns: at.client.netns,
        protocol: "udp",
        ip: at.node.ip,
        port: 30_999,
        fromPort: 5_353,
        patienceMs: 600,
      } as const;
      const answer = await ask(question);
      return answer.kind === "seen" ? answer.ip : "nobody";
    };
    const entries = async (): Promise<number> =>
      (await must(["cat", "/proc/net/nf_conntrack"], node))
        .split("\n")
        .filter((line) => line.includes(`=${oldIp} `)).length;
    await forward(oldIp);
    expect(await asks()).toBe(at.client.ip);
    expect(await entries()).toBeGreaterThan(0);
    await forward(newIp);
    await node.runtime.call("DEL", first);
    await waitUntil("its connections are forgotten", 3_000, async () => (await entries()) === 0);
    expect(await asks()).toBe(at.client.ip);
    for (const listener of listeners) listener.close();
    await node.runtime.call("DEL", second);
    await nft(node, "delete table ip forward-one");
  });

  test("connections of other pods are left alone when one is deleted", async () => {
    const [pod] = await node.runtime.makeSandboxes(["goes"]);
    if (pod === undefined) throw new Error("no sandbox");
    const own = (await node.runtime.call("ADD", pod)).ip ?? "";
    const entries = async (address: string): Promise<number> =>
      (await must(["cat", "/proc/net/nf_conntrack"], node))
        .split("\n")
        .filter((line) => line.includes(`=${address} `)).length;
    await seenBy(at.outside, stage.publicIps.neighbour, { protocol: "udp" });
    await seenBy({ netns: pod.netns, ip: own }, at.outside.ip, { protocol: "udp" });
    expect(await entries(own)).toBeGreaterThan(0);
    const before = await entries(at.neighbour.ip);
    expect(before).toBeGreaterThan(0);
    await node.runtime.call("DEL", pod);
    await waitUntil("its connections are forgotten", 3_000, async () => (await entries(own)) === 0);
    expect(await entries(at.neighbour.ip)).toBeGreaterThan(0);
  });
});

/** Another program's use of the mark: a bit on what pods send, counted when it leaves. */
const OTHERS_MARK = `table ip others {
  counter kept { }
  chain put { type filter hook prerouting priority -200; iifname "eni*" meta mark set meta mark | 0x10000; }
  chain look { type filter hook postrouting priority 300; oifname "eth1" meta mark & 0x10000 == 0x10000 counter name kept; }
}`;
