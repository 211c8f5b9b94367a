// Settings and circumstances that change what the daemon may do: cordoned, no provisioning, prefixes, a type that no table knows,
// a full disk, a missing program; and what it leaves for others to read.
import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { instanceLimits } from "../../src/core/model/instance-limits.ts";
import { instanceTypes } from "../../src/emulator/instance-types.ts";
import { waitUntil } from "../../src/lab/node.ts";
import { must } from "../../src/lab/processes.ts";
import { askTcp, ping, serveTcp } from "../../src/lab/packets.ts";
import { addPods, eventOf, failures, oneNode } from "../support/lab-node.ts";

const WRITES = /^(Create|Delete|Attach|Detach|Modify|Assign|Unassign)/;

test("a node that is cordoned by its file attaches no ENI; pods beyond are told, and served once it is back", async () => {
  const { cluster, node } = await oneNode({ settings: { WARM_IP_TARGET: "2", BERTH_ADD_HOLD_SECONDS: "3" } });
  await node.startDaemon();
  const file = join(dirname(node.checkpointPath), "cordoned");
  writeFileSync(file, "");
  const first = await addPods(node, 9);
  expect(failures(first)).toEqual([]);
  const [late] = await addPods(node, 1);
  expect(late === undefined ? "" : eventOf(late.answer)).toContain("the node is cordoned");
  expect(cluster.emulator.callCounts().get("CreateNetworkInterface") ?? 0).toBe(0);
  rmSync(file);
  const [again] = await addPods(node, 1);
  expect(again === undefined ? "" : failures([again])).toEqual([]);
});

test("with provisioning off EC2 is never changed: pods use what is there, and the next is told which setting it is", async () => {
  const { cluster, node } = await oneNode({
    secondaryCount: 2,
    settings: { DISABLE_NETWORK_RESOURCE_PROVISIONING: "true" },
  });
  await node.startDaemon();
  const pods = await addPods(node, 3);
  const failed = failures(pods);
  expect(failed.length).toBe(1);
  expect(failed[0]).toContain("DISABLE_NETWORK_RESOURCE_PROVISIONING");
  expect([...cluster.emulator.callCounts().keys()].filter((action) => WRITES.test(action))).toEqual([]);
});

test("with WARM_ENI_TARGET=0 and MAX_ENI=1 one address is kept ready, and pods are served up to the ENI's last", async () => {
  const { node } = await oneNode({ settings: { WARM_IP_TARGET: "0", WARM_ENI_TARGET: "0", MAX_ENI: "1" } });
  await node.startDaemon();
  const pods = await addPods(node, 9);
  expect(failures(pods)).toEqual([]);
});

test("with prefix delegation pods get addresses of /28s, and reach each other, the node and the internet", async () => {
  const { cluster, node } = await oneNode({
    settings: { ENABLE_PREFIX_DELEGATION: "true", WARM_IP_TARGET: "0", WARM_PREFIX_TARGET: "1" },
  });
  await node.startDaemon();
  const pods = await addPods(node, 20);
  expect(failures(pods)).toEqual([]);
  const state = await node.state();
  expect(state.enis.flatMap((eni) => eni.prefixes).length).toBeGreaterThan(1);
  const [first, last] = [pods[0], pods[19]];
  if (first === undefined || last === undefined) throw new Error("no pods");
  const reached = { sent: 3, received: 3 };
  expect(await ping(first.pod.netns, last.answer.ip ?? "", { count: 3 })).toEqual(reached);
  expect(await ping(node.netns, last.answer.ip ?? "", { count: 3 })).toEqual(reached);
  const outside = await serveTcp(`/run/netns/${cluster.fabric.outside.netns}`, 8080);
  expect(await askTcp(last.pod.netns, cluster.fabric.outside.ip, 8080)).toMatch(/^203\.0\.113\./);
  outside.close();
});

test("an instance type that no table knows is asked of EC2", async () => {
  const type = [...instanceTypes().keys()].find((each) => instanceLimits(each) === null) ?? "none";
  const { cluster, node } = await oneNode({ type });
  await node.startDaemon();
  expect(failures(await addPods(node, 4))).toEqual([]);
  expect((await node.state()).instance.type).toBe(type);
  expect(cluster.emulator.callCounts().get("DescribeInstanceTypes")).toBe(1);
});

test("where the record cannot be written, an ADD says that the disk is full, no address is worn out, and all goes on when there is room", async () => {
  const { node } = await oneNode({ settings: { WARM_IP_TARGET: "3", IP_COOLDOWN_PERIOD: "30" } });
  const folder = dirname(node.checkpointPath);
  await must(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "small", folder]);
  try {
    await node.startDaemon();
    const first = await addPods(node, 1);
    expect(failures(first)).toEqual([]);
    const size = 4_096;
    const blocks: string[] = [];
    for (let at = 0; ; at += 1) {
      const path = join(folder, `fill-${at}`);
      try {
        writeFileSync(path, Buffer.alloc(size));
        blocks.push(path);
      } catch {
        rmSync(path, { force: true });
        break;
      }
    }
    await waitUntil("the pool is on target", 5_000, async () => (await node.state()).census.warm >= 3);
    const before = (await node.state()).census.total;
    for (let at = 0; at < 4; at += 1) {
      const [pod] = await addPods(node, 1);
      expect(pod === undefined ? "" : eventOf(pod.answer)).toContain("full or read-only");
    }
    const { total, cooling } = (await node.state()).census;
    expect([cooling, total - before]).toEqual([0, expect.toBeOneOf([0, 1])]); // The refill may have seen one ADD with its address.
    const [running] = first;
    if (running === undefined) throw new Error("no pod");
    for (const path of blocks) rmSync(path);
    expect(failures(await addPods(node, 2))).toEqual([]);
    expect((await node.runtime.call("DEL", running.pod)).ok).toBe(true);
  } finally {
    await node.stopDaemon("SIGKILL");
    await must(["umount", folder]);
  }
});

test("without nft the daemon is not ready and says what the image lacks, and no pod starts without its packet filter", async () => {
  const { node } = await oneNode();
  const bin = "/run/bin-without-nft";
  mkdirSync(bin);
  for (const program of ["nsenter", "unshare", "sh", "mount", "setpriv"]) {
    symlinkSync((await must(["sh", "-c", `command -v ${program}`])).trim(), join(bin, program));
  }
  const starting = node.startDaemon({ PATH: bin });
  starting.catch(() => {}); // It is never ready, and ends with the test.
  await waitUntil("the plugin's socket is open", 10_000, () => node.log().includes("serving"));
  expect(node.log()).toContain("the image must have nftables");
  const [pod] = await addPods(node, 1);
  expect(pod === undefined ? "" : eventOf(pod.answer)).toContain("the image must have nftables");
  expect((await node.state()).ready).toBe(false);
});

test("sockets, record and journal are root's alone, and the daemon has the capabilities of its DaemonSet", async () => {
  const { node } = await oneNode();
  await node.startDaemon();
  await addPods(node, 1);
  const folder = dirname(node.checkpointPath);
  const modes = (paths: readonly string[]): readonly string[] =>
    paths.map((path) => (statSync(path).mode & 0o777).toString(8));
  expect(modes([folder, node.pluginEnv["BERTH_JOURNAL"] ?? ""])).toEqual(["700", "700"]);
  const files = ["berth.sock", "state.sock", "checkpoint.json"].map((name) => join(folder, name));
  expect(modes(files)).toEqual(["600", "600", "600"]);
  const status = readFileSync(`/proc/${node.daemonPid()}/status`, "utf8");
  expect(/CapBnd:\t([0-9a-f]+)/.exec(status)?.[1]).toBe("0000000000201000"); // CAP_NET_ADMIN, CAP_SYS_ADMIN.
  expect(/CapEff:\t([0-9a-f]+)/.exec(status)?.[1]).toBe("0000000000201000");
});
