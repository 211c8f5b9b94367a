// libcni drives our plugin, alone and before the reference `portmap`, on real nodes with real packets. Neither is ours.
import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCluster, type Cluster } from "../../src/lab/cluster.ts";
import { type LabNode, SHIM, waitUntil } from "../../src/lab/node.ts";
import { askTcp, ping, serveTcp } from "../../src/lab/packets.ts";
import { must, run } from "../../src/lab/processes.ts";
import { createCnitool, type Cnitool, makePod, type PortMapping } from "./cnitool.ts";
import { findJudges } from "./build.ts";

const VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
const CONTAINER_PORT = 8_080;
const MAPPING: PortMapping = { hostPort: 30_080, containerPort: CONTAINER_PORT, protocol: "tcp" };
const PORTMAP = { type: "portmap", backend: "nftables", snat: true, capabilities: { portMappings: true } };

const judges = findJudges();
if (!judges.ok) process.stderr.write(`${judges.error}\n`);

describe.skipIf(!judges.ok)("libcni", () => {
  let cluster: Cluster;
  let node: LabNode; // Its pods are on secondary ENIs: a host port's answers must find back to the primary one.
  let other: LabNode;
  let cnitool: Cnitool;
  let nodeIp: string;
  let client: string;

  beforeAll(async () => {
    cluster = await createCluster({
      prefix: "judge-",
      folder: "/run/berth-judges",
      nodes: [
        { name: "n1", type: "m5.xlarge", settings: { BERTH_PODS_ON_PRIMARY_ENI: "false" } },
        { name: "n2", type: "m5.large" },
      ],
      settings: {
        WARM_IP_TARGET: "4",
        MINIMUM_IP_TARGET: "12",
        IP_COOLDOWN_PERIOD: "1",
        BERTH_REFILL_INTERVAL_SECONDS: "1",
      },
    });
    const [first, second] = cluster.nodes;
    if (first === undefined || second === undefined || !judges.ok) throw new Error("no two nodes");
    [node, other] = [first, second];
    await Promise.all(cluster.nodes.map(async (each) => await each.startDaemon()));
    cnitool = await createCnitool(judges.value, node);
    nodeIp = (await node.state()).enis.find((eni) => eni.role === "primary")?.primaryIp ?? "";
    client = `/run/netns/${cluster.fabric.client?.netns}`;
  });

  afterAll(async () => {
    cnitool.close();
    await cluster.close();
  });

  const reachable = async (from: string, ip: string): Promise<boolean> =>
    (await ping(from, ip, { count: 2, intervalMs: 20 })).received === 2;

  const allocatedIps = async (): Promise<readonly string[]> =>
    (await node.state()).allocations.map(({ ip }) => ip);

  describe.each(VERSIONS)("version %s", (cniVersion) => {
    test.each([
      { what: "alone", plugins: [{ type: "berth-cni" }], mappings: [] },
      { what: "before portmap", plugins: [{ type: "berth-cni" }, PORTMAP], mappings: [MAPPING] },
    ])("takes a pod through every verb that it has, $what", async ({ what, plugins, mappings }) => {
      const network = `judge-${cniVersion}-${plugins.length}`;
      cnitool.configure({ cniVersion, name: network, plugins });
      const pod = await makePod(node, what.replaceAll(" ", "-"));

      const result = resultOf(await cnitool.must("add", network, pod, mappings));
      expect(result.cniVersion).toBe(cniVersion);
      expect(result.addresses).toHaveLength(1);
      const ip = result.addresses[0]?.replace(/\/32$/, "") ?? "";
      expect(await allocatedIps()).toContain(ip);
      expect(await reachable(client, ip)).toBe(true);
      expect(await reachable(other.netns, ip)).toBe(true);
      if (mappings.length > 0) {
        const server = await serveTcp(pod.netns, CONTAINER_PORT);
        const seen = await askTcp(client, nodeIp, MAPPING.hostPort);
        const seenOfNode = await askTcp(other.netns, nodeIp, MAPPING.hostPort);
        server.close();
        expect(seen).toBe(cluster.fabric.client?.ip); // The host port keeps the caller's address.
        expect(seenOfNode).toMatch(/^10\.0\./);
      }

      if (cniVersion !== "0.3.1") await cnitool.must("check", network, pod, mappings);
      if (cniVersion === "1.1.0") await cnitool.must("status", network, pod);
      expect((await cnitool.call("add", network, pod, mappings)).exitCode).toBe(1); // It is there already, and stays.
      expect(await reachable(client, ip)).toBe(true);

      await cnitool.must("del", network, pod, mappings);
      await cnitool.must("del", network, pod, mappings);
      expect(await allocatedIps()).not.toContain(ip);
      expect(await reachable(client, ip)).toBe(false);
      if (mappings.length > 0) expect(await askTcp(client, nodeIp, MAPPING.hostPort)).toMatch(/^no answer/);

      // A pod that ended without a DEL: its namespace is gone, libcni's cache still names it.
      const again = resultOf(await cnitool.must("add", network, pod, mappings));
      expect(cnitool.cached().filter((name) => name.startsWith(network))).toHaveLength(1);
      await node.runtime.removeSandboxes([pod]);
      await cnitool.must("gc", network, pod);
      expect(cnitool.cached().filter((name) => name.startsWith(network))).toEqual([]);
      expect(await allocatedIps()).not.toContain(again.addresses[0]?.replace(/\/32$/, ""));
    });
  });

  test("the plugin names the versions that it serves", async () => {
    const done = await run([SHIM], { env: { CNI_COMMAND: "VERSION" }, input: "" });
    expect(done.exitCode).toBe(0);
    expect(JSON.parse(done.stdout)).toMatchObject({ supportedVersions: [...VERSIONS] });
  });

  test("CHECK says what is wrong when the pod's route was taken away, and is content when it was put back", async () => {
    const network = "judge-check";
    cnitool.configure({ cniVersion: "1.0.0", name: network, plugins: [{ type: "berth-cni" }] });
    const pod = await makePod(node, "check");
    const { addresses } = resultOf(await cnitool.must("add", network, pod));
    const ip = addresses[0] ?? "";
    await must(["ip", "route", "del", ip, "table", "100"], { netns: node.netns });
    const broken = await cnitool.call("check", network, pod);
    expect(broken.exitCode).toBe(1);
    expect(broken.stderr).toContain(ip);
    await waitUntil("the daemon has put the route back", 10_000, async () => {
      return (await cnitool.call("check", network, pod)).exitCode === 0;
    });
    await cnitool.must("del", network, pod);
    await node.runtime.removeSandboxes([pod]);
  });

  test("an address that libcni's cache names is not given out again when the checkpoint was lost", async () => {
    const network = "judge-cache";
    cnitool.configure({ cniVersion: "1.0.0", name: network, plugins: [{ type: "berth-cni" }] });
    const pod = await makePod(node, "running");
    const ip = resultOf(await cnitool.must("add", network, pod)).addresses[0]?.replace(/\/32$/, "") ?? "";

    // Only the cache shall tell: the link's alias, which names its sandbox too, goes with the checkpoint.
    const link = (await node.state()).allocations.find((each) => each.ip === ip)?.hostLink ?? "";
    await node.stopDaemon("SIGKILL");
    await must(["ip", "link", "set", link, "alias", ""], { netns: node.netns });
    rmSync(join(dirname(node.pluginEnv["BERTH_SOCKET"] ?? ""), "checkpoint.json"));
    await node.startDaemon();

    expect(await allocatedIps()).toContain(ip);
    // Nobody's without its alias, the link counts as half-made: it is made again at once.
    await waitUntil("the pod answers again", 5_000, async () => await reachable(client, ip));
    const later = await Promise.all(
      Array.from({ length: 10 }, async (_, at) => {
        const one = await makePod(node, `later-${at}`);
        const { addresses } = resultOf(await cnitool.must("add", network, one));
        return { one, ip: addresses[0]?.replace(/\/32$/, "") };
      }),
    );
    expect(later.map((each) => each.ip)).not.toContain(ip);
    for (const { one } of later) await cnitool.must("del", network, one);
    await cnitool.must("del", network, pod);
    expect(await allocatedIps()).toEqual([]);
    await node.runtime.removeSandboxes([pod, ...later.map(({ one }) => one)]);
  });
});

/** Of any version: addresses of pods are given with their prefix length. */
function resultOf(stdout: string): { readonly cniVersion: string; readonly addresses: readonly string[] } {
  const { cniVersion, ips = [] } = JSON.parse(stdout) as { cniVersion: string; ips?: { address: string }[] }; // libcni made it.
  return { cniVersion, addresses: ips.map(({ address }) => address) };
}
