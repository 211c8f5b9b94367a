// The client and IMDS edge against our emulator of EC2, over HTTP, with the instance role's credentials and nothing in the environment but the two endpoints.
import { afterEach, expect, test } from "vitest";
import type { AttachmentId, EniId, SubnetId } from "../../src/core/model/eni.ts";
import type { InstanceId } from "../../src/core/model/instance.ts";
import { createEmulator, type Emulator, type EmulatorOptions } from "../../src/emulator/emulator.ts";
import { wallTime } from "../../src/lib/time.ts";
import { type Rig, rig } from "./setup.ts";

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

type Node = Rig & {
  readonly emulator: Emulator;
  readonly vpcId: string;
  readonly subnetId: SubnetId;
  readonly instance: InstanceId;
};

async function node(shape: { cidr?: string; type?: string; options?: EmulatorOptions } = {}): Promise<Node> {
  const { cidr = "10.0.0.0/24", type = "m5.large", options = {} } = shape;
  const emulator = createEmulator({ accessKeys: "issued", ...options });
  cleanUps.push(() => emulator.close());
  const { vpcId } = emulator.seed.vpc({ cidrs: ["10.0.0.0/16", "100.64.0.0/16"] });
  const subnetId = emulator.seed.subnet({ vpcId, cidr });
  const { instanceId } = emulator.seed.launch({ type, subnetId });
  const [ec2, imds] = [await emulator.listen(), await emulator.listenImds(instanceId)];
  const made = rig({ AWS_ENDPOINT_URL_EC2: ec2.url, AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url });
  cleanUps.push(made.close);
  return { ...made, emulator, vpcId, subnetId: subnetId as SubnetId, instance: instanceId as InstanceId };
}

const creation = (
  of: Node,
  addressCount: number,
  clientToken = "token",
): Parameters<Node["ec2"]["createEni"]>[0] => ({
  instance: of.instance,
  subnetId: of.subnetId,
  securityGroups: [],
  addressCount,
  prefixCount: 0,
  clientToken,
  createdAt: wallTime(Date.UTC(2026, 7, 1)),
});

function value<T>(
  result: { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: unknown },
): T {
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
}

test("IMDS and EC2 tell the same story of a fresh instance", async () => {
  const made = await node({ type: "m5.4xlarge" });
  const instance = value(await made.imds.readInstance());
  expect(instance).toMatchObject({
    id: made.instance,
    type: "m5.4xlarge",
    region: "eu-west-1",
    vpcId: made.vpcId,
  });
  const [byImds] = value(await made.imds.readEnis());
  const [byEc2, ...others] = value(await made.ec2.describeInstanceEnis(made.instance));
  expect(others).toEqual([]);
  expect(byEc2).toMatchObject({
    id: byImds?.id,
    mac: byImds?.mac,
    subnetId: byImds?.subnetId,
    primaryIp: instance.primaryIp,
  });
  expect(byEc2?.attachment).toMatchObject({
    instanceId: made.instance,
    slot: byImds?.slot,
    status: "attached",
  });
  expect(byEc2?.securityGroups).toEqual(instance.securityGroups);
  expect(value(await made.ec2.describeVpcCidrs(made.vpcId))).toEqual(instance.vpcCidrs);
  expect(value(await made.ec2.describeInstanceLimits("m5.4xlarge"))).toEqual({
    addressesPerEni: 30,
    nitro: true,
    networkCards: [{ enis: 8 }],
  });
  expect(value(await made.ec2.describeSubnets([made.subnetId]))).toMatchObject([
    { id: made.subnetId, availableAddressCount: 250 },
  ]);
});

test("an ENI lives its whole life: created, attached, filled, emptied, detached, deleted", async () => {
  const made = await node();
  const { ec2 } = made;
  const created = value(await ec2.createEni(creation(made, 3)));
  expect(created.secondaryIps).toHaveLength(3);
  expect(created.tags.get("node.k8s.amazonaws.com/instance_id")).toBe(made.instance);
  expect(value(await ec2.createEni(creation(made, 3))).id).toBe(created.id); // The same token: the same ENI.
  expect(value(await ec2.describeLooseEnis(made.vpcId)).map((eni) => eni.id)).toEqual([created.id]);

  const attachment = value(
    await ec2.attachEni({
      eni: created.id,
      instance: made.instance,
      slot: { networkCard: 0, deviceIndex: 1 },
    }),
  );
  value(await ec2.setDeleteOnTermination(created.id, attachment));
  expect(value(await ec2.describeLooseEnis(made.vpcId))).toEqual([]);
  const assigned = value(await ec2.assignAddresses(created.id, 2));
  expect(assigned).toHaveLength(2);
  const prefixes = value(await ec2.assignPrefixes(created.id, 1));
  expect(prefixes).toMatchObject([{ prefixLength: 28 }]);
  value(await ec2.tagEni(created.id, new Map([["seen", "yes"]])));
  value(await ec2.setSecurityGroups(created.id, created.securityGroups));
  const [full] = value(await ec2.describeOwnedEnis(made.instance));
  expect(full).toMatchObject({
    id: created.id,
    prefixes,
    attachment: { id: attachment, deleteOnTermination: true },
  });
  expect(new Set(full?.secondaryIps)).toEqual(new Set([...created.secondaryIps, ...assigned]));
  expect(full?.tags.get("seen")).toBe("yes");

  value(await ec2.unassignAddresses(created.id, assigned));
  value(await ec2.unassignPrefixes(created.id, prefixes));
  expect(await ec2.unassignAddresses(created.id, assigned)).toMatchObject({
    ok: false,
    error: { kind: "gone" },
  });
  expect(await ec2.deleteEni(created.id)).toMatchObject({ ok: false, error: { kind: "in-use" } });
  value(await ec2.detachEni(attachment));
  value(await ec2.deleteEni(created.id));
  expect(value(await ec2.describeEnis([created.id]))).toEqual([]);
  expect(await ec2.deleteEni(created.id)).toMatchObject({
    ok: false,
    error: { kind: "gone", code: "InvalidNetworkInterfaceID.NotFound" },
  });
  expect(await ec2.detachEni(attachment)).toMatchObject({ ok: false, error: { kind: "gone" } });
});

test("each limit of EC2 is the kind of failure that the planner knows", async () => {
  const made = await node({ cidr: "10.0.0.0/28", type: "t3.small" });
  const { ec2 } = made;
  const [primary] = value(await ec2.describeInstanceEnis(made.instance));
  const eni = primary?.id as EniId; // An instance has a primary ENI.
  expect(await ec2.assignAddresses(eni, 4)).toMatchObject({ ok: false, error: { kind: "address-limit" } });
  expect(await ec2.assignPrefixes(eni, 1)).toMatchObject({
    ok: false,
    error: { kind: "prefixes-exhausted" },
  });
  const slot = (deviceIndex: number): { networkCard: number; deviceIndex: number } => ({
    networkCard: 0,
    deviceIndex,
  });
  const [one, two, three] = [
    value(await ec2.createEni(creation(made, 0, "1"))).id,
    value(await ec2.createEni(creation(made, 0, "2"))).id,
    value(await ec2.createEni(creation(made, 0, "3"))).id,
  ];
  value(await ec2.attachEni({ eni: one, instance: made.instance, slot: slot(1) }));
  expect(await ec2.attachEni({ eni: two, instance: made.instance, slot: slot(1) })).toMatchObject({
    ok: false,
    error: { kind: "in-use" },
  });
  expect(await ec2.attachEni({ eni: one, instance: made.instance, slot: slot(2) })).toMatchObject({
    ok: false,
    error: { kind: "in-use" },
  });
  value(await ec2.attachEni({ eni: two, instance: made.instance, slot: slot(2) }));
  expect(await ec2.attachEni({ eni: three, instance: made.instance, slot: slot(3) })).toMatchObject({
    ok: false,
    error: { kind: "eni-limit" },
  });
  made.emulator.fault({ kind: "fill-subnet", subnetId: made.subnetId, leaveFree: 0 });
  expect(await ec2.assignAddresses(one, 1)).toMatchObject({ ok: false, error: { kind: "subnet-exhausted" } });
  expect(await ec2.createEni(creation(made, 1, "4"))).toMatchObject({
    ok: false,
    error: { kind: "subnet-exhausted" },
  });
  expect(await ec2.detachEni("eni-attach-0000000000000000f" as AttachmentId)).toMatchObject({
    ok: false,
    error: { kind: "gone" },
  });
});

test("a lost answer is in doubt, and looking shows that it happened", async () => {
  const made = await node();
  made.emulator.fault({ kind: "lost-answer", action: "CreateNetworkInterface" });
  made.emulator.fault({ kind: "lost-answer", action: "AssignPrivateIpAddresses" });
  expect(await made.ec2.createEni(creation(made, 2))).toMatchObject({
    ok: false,
    error: { kind: "in-doubt" },
  });
  const [found] = value(await made.ec2.describeLooseEnis(made.vpcId));
  expect(found?.secondaryIps).toHaveLength(2);
  const eni = found?.id as EniId; // Found above.
  expect(await made.ec2.assignAddresses(eni, 1)).toMatchObject({ ok: false, error: { kind: "in-doubt" } });
  expect(value(await made.ec2.describeEnis([eni]))[0]?.secondaryIps).toHaveLength(3);
});

test("throttling, server errors and foreign refusals pass or are told as they are", async () => {
  const made = await node();
  made.emulator.fault({ kind: "throttle", action: "DescribeNetworkInterfaces", times: 2 });
  expect(value(await made.ec2.describeInstanceEnis(made.instance))).toHaveLength(1);
  expect(made.calls.map((call) => call.outcome)).toEqual(["throttled", "throttled", "ok"]);
  made.emulator.fault({ kind: "error", action: "DescribeSubnets", code: "InternalError", status: 500 });
  expect(value(await made.ec2.describeSubnets([made.subnetId]))).toHaveLength(1);
  made.emulator.fault({
    kind: "error",
    action: "CreateTags",
    code: "UnauthorizedOperation",
    status: 403,
    message: "no",
  });
  const eni = value(await made.ec2.describeInstanceEnis(made.instance))[0]?.id as EniId; // An instance has a primary ENI.
  expect(await made.ec2.tagEni(eni, new Map([["a", "b"]]))).toMatchObject({
    ok: false,
    error: { kind: "denied", message: "no" },
  });
});

test("a node with thousands of ENIs around it reads them all, page by page", async () => {
  const made = await node({ cidr: "10.0.0.0/19" });
  for (let i = 0; i < 1_200; i += 1) {
    const tags = { "node.k8s.amazonaws.com/instance_id": "i-gone", "cluster.k8s.amazonaws.com/name": "shop" };
    made.emulator.fault({
      kind: "foreign-eni",
      subnetId: made.subnetId,
      description: "aws-K8S-i-gone",
      tags,
    });
  }
  const found = value(await made.ec2.describeLooseEnis(made.vpcId));
  expect(new Set(found.map((eni) => eni.id)).size).toBe(1_200);
  expect(made.calls).toHaveLength(2);
});

test("a role's credentials rotate under way, and no call notices", async () => {
  const made = await node({ options: { credentialsLifetimeMs: 400 } });
  const keys = new Set<string>();
  for (let i = 0; i < 6; i += 1) {
    expect(value(await made.ec2.describeInstanceEnis(made.instance))).toHaveLength(1);
    const role = value(await made.imds.read("meta-data/iam/security-credentials/berth-node"));
    keys.add(/"AccessKeyId"\s*:\s*"(\w+)"/.exec(role ?? "")?.[1] ?? "none");
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  expect(keys.size).toBeGreaterThan(1);
  expect(made.calls.map((call) => call.code)).toContain("RequestExpired"); // EC2 did refuse the old ones.
});
