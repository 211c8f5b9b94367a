// What leaves the VPC from ipvlan pods, as settings and the VPC change while the pods run: their own routes stay, and the node sends back into
// them whatever is to leave by their ENI.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { LabNode } from "../../src/lab/node.ts";
import { waitUntil } from "../../src/lab/node.ts";
import { addHost } from "../../src/lab/hosts.ts";
import { listen } from "../../src/lab/probes.ts";
import { PORT, type Stage } from "../../src/lab/matrix/stage.ts";
import { firstNode, restartWith, seenBy, smallStage, spoofedSince } from "../support/stage.ts";

let stage: Stage;
let node: LabNode;
let spoofed: () => Promise<number>;

beforeAll(async () => {
  stage = await smallStage({ BERTH_DATA_PATH: "ipvlan" });
  node = firstNode(stage);
  spoofed = spoofedSince(stage);
  await spoofed();
});
afterAll(async () => await stage.close());

test("under external SNAT running ipvlan pods leave by their own ENI with their own address; without it again, as the node", async () => {
  const { pod, "primary-pod": primaryPod, node: own, peer, outside } = stage.places;
  expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.node);
  await restartWith(node, { AWS_VPC_K8S_CNI_EXTERNALSNAT: "true" });
  expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.gateway);
  expect(await seenBy(primaryPod, outside.ip)).toBe(stage.publicIps.gateway);
  expect(await seenBy(pod, peer.ip)).toBe(pod.ip);
  await restartWith(node, {});
  expect(await seenBy(pod, outside.ip)).toBe(stage.publicIps.node);
  expect(await seenBy(pod, peer.ip)).toBe(own.ip);
  expect(await spoofed()).toBe(0);
});

test("an excluded CIDR sees an ipvlan pod's own address", async () => {
  const { pod, node: own, peer } = stage.places;
  await restartWith(node, { AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: "172.31.0.0/16" });
  expect(await seenBy(pod, peer.ip)).toBe(pod.ip);
  await restartWith(node, {});
  expect(await seenBy(pod, peer.ip)).toBe(own.ip);
  expect(await spoofed()).toBe(0);
});

test("ipvlan pods are seen as themselves in a CIDR that the VPC gained while they ran (#35), and as the node once it is lost", async () => {
  const { pod, node: own } = stage.places;
  await restartWith(node, {});
  const { emulator, fabric } = stage.cluster;
  const [vpcId = ""] = emulator.world().vpcs.keys();
  const other = await addHost(fabric, {
    netns: "st-second",
    ip: "100.66.0.10",
    subnetCidr: "100.66.0.0/24",
  });
  const listener = await listen(other.netns, PORT);
  expect(await seenBy(pod, other.ip)).toBe(own.ip);
  const becomes = async (seen: string): Promise<void> =>
    await waitUntil(`pods are seen as ${seen}`, 30_000, async () => (await seenBy(pod, other.ip)) === seen);
  emulator.seed.vpcCidrs(vpcId, ["10.0.0.0/16", "100.66.0.0/16", "100.67.0.0/16"]);
  await becomes(pod.ip);
  emulator.seed.vpcCidrs(vpcId, ["10.0.0.0/16"]);
  await becomes(own.ip);
  listener.close();
  await fabric.removeNode("st-second");
  expect(await spoofed()).toBe(0);
});
