import { connect, createServer as createTcpServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { afterEach, expect, test } from "vitest";
import type { AttachmentId, EniId, SecurityGroupId, SubnetId } from "../../src/core/model/eni.ts";
import type { InstanceId } from "../../src/core/model/instance.ts";
import { wallTime } from "../../src/lib/time.ts";
import { cidr4, ipv4 } from "../../src/lib/ip.ts";
import {
  ec2Answer,
  ec2Error,
  plainAnswer,
  type ScriptedServer,
  scriptedServer,
  type Step,
} from "../support/scripted-server.ts";
import { keys, type Rig, rig } from "./setup.ts";

const eni = "eni-0123456789abcdef0" as EniId;
const instance = "i-0123456789abcdef0" as InstanceId;

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function against(
  steps: Step | readonly Step[],
  more: Parameters<typeof rig>[1] = {},
): Promise<Rig & { server: ScriptedServer }> {
  const server = await scriptedServer(steps);
  const made = rig({ ...keys, AWS_ENDPOINT_URL_EC2: server.url }, more);
  cleanUps.push(() => server.close(), made.close);
  return { ...made, server };
}

const noEnis = ec2Answer("DescribeNetworkInterfaces", "<networkInterfaceSet/>");
const eniXml = (id: string, ip = "10.0.0.10", more = ""): string =>
  `<networkInterfaceId>${id}</networkInterfaceId><subnetId>subnet-1</subnetId><macAddress>02:00:00:00:00:01</macAddress>` +
  "<status>available</status><interfaceType>interface</interfaceType><requesterManaged>false</requesterManaged><description>aws-K8S-i-1</description>" +
  `<privateIpAddress>${ip}</privateIpAddress><privateIpAddressesSet><item><privateIpAddress>${ip}</privateIpAddress><primary>true</primary></item></privateIpAddressesSet>${more}`;
const someEnis = (inner: string, token = ""): Step =>
  ec2Answer(
    "DescribeNetworkInterfaces",
    `<networkInterfaceSet>${inner}</networkInterfaceSet>${token === "" ? "" : `<nextToken>${token}</nextToken>`}`,
  );

test("an ENI is created with the incumbent's description and tags, and with a token that EC2 knows again", async () => {
  const { ec2, server } = await against(
    ec2Answer("CreateNetworkInterface", `<networkInterface>${eniXml(eni)}</networkInterface>`),
  );
  const created = await ec2.createEni({
    instance,
    subnetId: "subnet-1" as SubnetId,
    securityGroups: ["sg-1" as SecurityGroupId],
    addressCount: 14,
    prefixCount: 0,
    clientToken: "token-1",
    createdAt: wallTime(Date.UTC(2026, 7, 1)),
  });
  expect(created).toMatchObject({ ok: true, value: { id: eni, primaryIp: "10.0.0.10" } });
  expect(Object.fromEntries(server.asked[0]?.form ?? [])).toEqual({
    Action: "CreateNetworkInterface",
    Version: "2016-11-15",
    SubnetId: "subnet-1",
    Description: "aws-K8S-i-0123456789abcdef0",
    "SecurityGroupId.1": "sg-1",
    SecondaryPrivateIpAddressCount: "14",
    ClientToken: "token-1",
    "TagSpecification.1.ResourceType": "network-interface",
    "TagSpecification.1.Tag.1.Key": "team",
    "TagSpecification.1.Tag.1.Value": "blue",
    "TagSpecification.1.Tag.2.Key": "node.k8s.amazonaws.com/instance_id",
    "TagSpecification.1.Tag.2.Value": instance,
    "TagSpecification.1.Tag.3.Key": "node.k8s.amazonaws.com/createdAt",
    "TagSpecification.1.Tag.3.Value": "2026-08-01T00:00:00.000Z",
    "TagSpecification.1.Tag.4.Key": "cluster.k8s.amazonaws.com/name",
    "TagSpecification.1.Tag.4.Value": "shop",
    "TagSpecification.1.Tag.5.Key": "eks:eni:owner",
    "TagSpecification.1.Tag.5.Value": "amazon-vpc-cni",
  });
  expect(server.asked[0]?.headers["user-agent"]).toContain("berth/1.2.3");
  expect(server.asked[0]?.headers.authorization).toContain("Credential=AKIDTEST/");
});

test("an operator's tag cannot take an ENI's owner away", async () => {
  const additionalTags = new Map([
    ["node.k8s.amazonaws.com/instance_id", "i-other"],
    ["a.k8s.amazonaws.com/b", "c"],
  ]);
  const step = ec2Answer("CreateNetworkInterface", `<networkInterface>${eniXml(eni)}</networkInterface>`);
  const { ec2, server } = await against(step, { additionalTags, clusterName: null });
  await ec2.createEni({
    instance,
    subnetId: "subnet-1" as SubnetId,
    securityGroups: [],
    addressCount: 0,
    prefixCount: 2,
    clientToken: "t",
    createdAt: wallTime(0),
  });
  const form = server.asked[0]?.form;
  const tags = [...(form ?? [])].filter(([name]) => name.includes("Tag.")).map(([, value]) => value);
  expect(tags).toEqual([
    "node.k8s.amazonaws.com/instance_id",
    instance,
    "node.k8s.amazonaws.com/createdAt",
    "1970-01-01T00:00:00.000Z",
  ]);
  expect(form?.get("Ipv4PrefixCount")).toBe("2");
  expect(form?.has("SecondaryPrivateIpAddressCount")).toBe(false);
});

test("each of the other calls asks what EC2 calls it", async () => {
  const { ec2, server } = await against((asked, response) => {
    const operation = asked.form.get("Action") ?? "";
    const inner: Record<string, string> = {
      AttachNetworkInterface: "<attachmentId>eni-attach-1</attachmentId>",
      AssignPrivateIpAddresses: `<networkInterfaceId>${eni}</networkInterfaceId><assignedIpv4PrefixSet><item><ipv4Prefix>10.0.1.0/28</ipv4Prefix></item></assignedIpv4PrefixSet>`,
      DescribeSubnets:
        "<subnetSet><item><subnetId>subnet-1</subnetId><cidrBlock>10.0.0.0/24</cidrBlock><availableIpAddressCount>7</availableIpAddressCount><availabilityZone>eu-west-1a</availabilityZone></item></subnetSet>",
      DescribeVpcs: "<vpcSet><item><vpcId>vpc-1</vpcId><cidrBlock>10.0.0.0/16</cidrBlock></item></vpcSet>",
      DescribeInstanceTypes:
        "<instanceTypeSet><item><instanceType>zz9.large</instanceType><hypervisor>nitro</hypervisor><networkInfo><maximumNetworkInterfaces>3</maximumNetworkInterfaces><ipv4AddressesPerInterface>10</ipv4AddressesPerInterface></networkInfo></item></instanceTypeSet>",
    };
    ec2Answer(operation, inner[operation])(asked, response);
  });
  const attachment = "eni-attach-1" as AttachmentId;
  expect(await ec2.attachEni({ eni, instance, slot: { networkCard: 1, deviceIndex: 2 } })).toEqual({
    ok: true,
    value: attachment,
  });
  expect(await ec2.setDeleteOnTermination(eni, attachment)).toEqual({ ok: true, value: null });
  expect(await ec2.setSecurityGroups(eni, ["sg-1", "sg-2"] as SecurityGroupId[])).toEqual({
    ok: true,
    value: null,
  });
  expect(await ec2.detachEni(attachment)).toEqual({ ok: true, value: null });
  expect(await ec2.deleteEni(eni)).toEqual({ ok: true, value: null });
  expect(await ec2.assignPrefixes(eni, 1)).toEqual({ ok: true, value: [cidr4("10.0.1.0/28")] });
  expect(await ec2.unassignAddresses(eni, [ipv4("10.0.0.11"), ipv4("10.0.0.12")])).toEqual({
    ok: true,
    value: null,
  });
  expect(await ec2.unassignPrefixes(eni, [cidr4("10.0.1.0/28")])).toEqual({ ok: true, value: null });
  expect(await ec2.tagEni(eni, new Map([["a", "b"]]))).toEqual({ ok: true, value: null });
  expect(await ec2.describeSubnets(["subnet-1" as SubnetId])).toMatchObject({
    ok: true,
    value: [{ availableAddressCount: 7 }],
  });
  expect(await ec2.describeVpcCidrs("vpc-1")).toEqual({ ok: true, value: [cidr4("10.0.0.0/16")] });
  expect(await ec2.describeInstanceLimits("zz9.large")).toEqual({
    ok: true,
    value: { addressesPerEni: 10, nitro: true, networkCards: [{ enis: 3 }] },
  });
  const asked = server.asked.map(({ body }) => decodeURIComponent(body.replace("&Version=2016-11-15", "")));
  expect(asked).toEqual([
    `Action=AttachNetworkInterface&NetworkInterfaceId=${eni}&InstanceId=${instance}&DeviceIndex=2&NetworkCardIndex=1`,
    `Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId=${eni}&Attachment.AttachmentId=eni-attach-1&Attachment.DeleteOnTermination=true`,
    `Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId=${eni}&SecurityGroupId.1=sg-1&SecurityGroupId.2=sg-2`,
    "Action=DetachNetworkInterface&AttachmentId=eni-attach-1",
    `Action=DeleteNetworkInterface&NetworkInterfaceId=${eni}`,
    `Action=AssignPrivateIpAddresses&NetworkInterfaceId=${eni}&Ipv4PrefixCount=1`,
    `Action=UnassignPrivateIpAddresses&NetworkInterfaceId=${eni}&PrivateIpAddress.1=10.0.0.11&PrivateIpAddress.2=10.0.0.12`,
    `Action=UnassignPrivateIpAddresses&NetworkInterfaceId=${eni}&Ipv4Prefix.1=10.0.1.0/28`,
    `Action=CreateTags&ResourceId.1=${eni}&Tag.1.Key=a&Tag.1.Value=b`,
    "Action=DescribeSubnets&Filter.1.Name=subnet-id&Filter.1.Value.1=subnet-1&MaxResults=1000",
    "Action=DescribeVpcs&VpcId.1=vpc-1",
    "Action=DescribeInstanceTypes&InstanceType.1=zz9.large",
  ]);
});

test("ENIs are read page by page, and asking for none asks nothing", async () => {
  const { ec2, server } = await against([
    someEnis(`<item>${eniXml("eni-aaa1")}</item>`, "next"),
    someEnis(`<item>${eniXml("eni-aaa2", "10.0.0.11")}</item>`),
  ]);
  const found = await ec2.describeInstanceEnis(instance);
  expect(found.ok && found.value.map((one) => one.id)).toEqual(["eni-aaa1", "eni-aaa2"]);
  expect(server.asked.map((one) => one.form.get("NextToken"))).toEqual([null, "next"]);
  expect(await ec2.describeEnis([])).toEqual({ ok: true, value: [] });
  expect(server.asked).toHaveLength(2);
});

test("the leak scan keeps only loose ENIs of this cluster with our name and tag, whatever the endpoint's filters do", async () => {
  const tagged = (cluster: string): string =>
    `<tagSet><item><key>node.k8s.amazonaws.com/instance_id</key><value>i-1</value></item><item><key>cluster.k8s.amazonaws.com/name</key><value>${cluster}</value></item></tagSet>`;
  const { ec2 } = await against(
    someEnis(
      [
        eniXml("eni-aaa1", "10.0.0.1", tagged("shop")),
        eniXml("eni-aaa2", "10.0.0.2", tagged("bank")),
        eniXml("eni-aaa3", "10.0.0.3"),
        eniXml("eni-aaa4", "10.0.0.4", tagged("shop")).replace("aws-K8S-", "aws-k8s-branch-eni"),
        eniXml("eni-aaa5", "10.0.0.5", tagged("shop")).replace("available", "in-use"),
        eniXml(
          "eni-aaa6",
          "10.0.0.6",
          `${tagged("shop")}<attachment><attachmentId>eni-attach-1</attachmentId><instanceId>i-1</instanceId><deviceIndex>1</deviceIndex><status>detaching</status><deleteOnTermination>true</deleteOnTermination></attachment>`,
        ),
      ]
        .map((one) => `<item>${one}</item>`)
        .join(""),
    ),
  );
  const found = await ec2.describeLooseEnis("vpc-1");
  expect(found.ok && found.value.map((one) => one.id)).toEqual(["eni-aaa1"]);
});

test("an answer that lists all addresses of an ENI does not give out the ENI's own", async () => {
  const listed = (ips: readonly string[]): Step =>
    ec2Answer(
      "AssignPrivateIpAddresses",
      `<networkInterfaceId>${eni}</networkInterfaceId><assignedPrivateIpAddressesSet>${ips.map((ip) => `<item><privateIpAddress>${ip}</privateIpAddress></item>`).join("")}</assignedPrivateIpAddressesSet>`,
    );
  const like = await against([
    listed(["10.0.0.10", "10.0.0.11", "10.0.0.12"]),
    someEnis(`<item>${eniXml(eni)}</item>`),
  ]);
  expect(await like.ec2.assignAddresses(eni, 1)).toEqual({ ok: true, value: ["10.0.0.11", "10.0.0.12"] });
  const real = await against(listed(["10.0.0.11"]));
  expect(await real.ec2.assignAddresses(eni, 1)).toEqual({ ok: true, value: ["10.0.0.11"] });
  expect(real.server.asked).toHaveLength(1);
});

test("a hung mutating call is in doubt at its deadline and is not sent again", async () => {
  const { ec2, server, calls } = await against(() => {}, { requestTimeoutMs: 300 });
  const began = performance.now();
  expect(await ec2.detachEni("eni-attach-1" as AttachmentId)).toMatchObject({
    ok: false,
    error: { kind: "in-doubt", code: "Timeout", operation: "DetachNetworkInterface" },
  });
  expect(performance.now() - began).toBeLessThan(3_000);
  expect(server.asked).toHaveLength(1);
  expect(calls).toMatchObject([
    { operation: "DetachNetworkInterface", outcome: "in-doubt", code: "Timeout", attempt: 0 },
  ]);
});

test("an attempt gets what is left of the call's deadline, which is no whole number of milliseconds", async () => {
  const { ec2, calls } = await against(() => {}, { requestTimeoutMs: 2_500, callDeadlineMs: 3_500 });
  expect(await ec2.describeSubnets(["subnet-1" as SubnetId])).toMatchObject({
    ok: false,
    error: { code: "Timeout" },
  });
  expect(calls.map(({ attempt, code }) => [attempt, code])).toEqual([
    [0, "Timeout"],
    [1, "Timeout"],
  ]);
  expect(calls[1]?.durationMs).toBeLessThan(2_000); // One of its own would have had 2,500.
});

test("a slow drip of an answer does not outlive the deadline", async () => {
  const { ec2 } = await against(
    (_asked, response) => {
      const timer = setInterval(() => response.write(" "), 20);
      response.on("close", () => clearInterval(timer));
    },
    { requestTimeoutMs: 300 },
  );
  expect(await ec2.deleteEni(eni)).toMatchObject({ ok: false, error: { kind: "in-doubt", code: "Timeout" } });
});

test("a connection cut after the request is in doubt when mutating, and repeated when reading", async () => {
  const cut: Step = (_asked, response) => response.destroy();
  const mutating = await against([cut, ec2Answer("DeleteNetworkInterface")]);
  expect(await mutating.ec2.deleteEni(eni)).toMatchObject({
    ok: false,
    error: { kind: "in-doubt", code: "ConnectionReset" },
  });
  expect(mutating.server.asked).toHaveLength(1);
  const reading = await against([cut, noEnis]);
  expect(await reading.ec2.describeInstanceEnis(instance)).toEqual({ ok: true, value: [] });
  expect(reading.calls.map((call) => call.outcome)).toEqual(["failing", "ok"]);
});

test("an answer cut in its middle is no answer", async () => {
  const half: Step = (_asked, response) => {
    response.setHeader("content-length", "5000");
    response.write("<DetachNetworkInterfaceResponse><requestId>r</requestId>");
    setTimeout(() => response.destroy(), 20);
  };
  const { ec2 } = await against(half);
  expect(await ec2.detachEni("eni-attach-1" as AttachmentId)).toMatchObject({
    ok: false,
    error: { kind: "in-doubt" },
  });
  const unframed = await against(
    plainAnswer(200, "<DetachNetworkInterfaceResponse><requestId>r</requestId>"),
  );
  expect(await unframed.ec2.detachEni("eni-attach-1" as AttachmentId)).toMatchObject({
    ok: false,
    error: { kind: "in-doubt", code: "UnreadableAnswer" },
  });
});

test.each([
  ["a page of HTML", plainAnswer(200, "<html><body>Sign in to the hotel's network</body></html>")],
  ["garbage", plainAnswer(200, "\u0000\u0001<<<>>>&&&")],
  ["nothing", plainAnswer(200, "")],
  ["a gateway's page", plainAnswer(502, "<html><body>Bad gateway</body></html>")],
  ["another operation's answer", ec2Answer("DescribeSubnets", "<subnetSet/>")],
])("%s is not taken for a success", async (_name, step) => {
  const { ec2 } = await against(step);
  expect(await ec2.deleteEni(eni)).toMatchObject({ ok: false, error: { kind: "in-doubt" } });
  expect(await ec2.describeInstanceEnis(instance)).toMatchObject({ ok: false, error: { kind: "failing" } });
});

test("a huge answer is refused before it fills the memory", async () => {
  const chunk = "x".repeat(1024 * 1024);
  const { ec2, calls } = await against((_asked, response) => {
    const more = (): void => {
      while (!response.destroyed) if (!response.write(chunk)) return void response.once("drain", more);
    };
    more();
  });
  expect(await ec2.deleteEni(eni)).toMatchObject({
    ok: false,
    error: { kind: "in-doubt", code: "AnswerTooLarge" },
  });
  expect(calls).toHaveLength(1);
});

test("throttling is waited out, slows the node, and is told when it goes on", async () => {
  const throttle = ec2Error(503, "RequestLimitExceeded", "Request limit exceeded.");
  const once = await against([throttle, ec2Answer("DeleteNetworkInterface")]);
  expect(await once.ec2.deleteEni(eni)).toEqual({ ok: true, value: null });
  expect(once.calls).toMatchObject([
    { outcome: "throttled", code: "RequestLimitExceeded", requestId: "req-bad" },
    { outcome: "ok" },
  ]);
  const always = await against(throttle);
  expect(await always.ec2.deleteEni(eni)).toMatchObject({
    ok: false,
    error: {
      kind: "throttled",
      code: "RequestLimitExceeded",
      message: "Request limit exceeded.",
      requestId: "req-bad",
    },
  });
  expect(always.calls).toHaveLength(4);
});

test("a server error is repeated where EC2 would know the call again, and nowhere else", async () => {
  const broken = ec2Error(500, "InternalError", "An internal error has occurred");
  const attach = await against(broken);
  expect(
    await attach.ec2.attachEni({ eni, instance, slot: { networkCard: 0, deviceIndex: 1 } }),
  ).toMatchObject({ ok: false, error: { kind: "failing", code: "InternalError" } });
  expect(attach.server.asked).toHaveLength(1);
  const create = await against([
    broken,
    ec2Answer("CreateNetworkInterface", `<networkInterface>${eniXml(eni)}</networkInterface>`),
  ]);
  const request = {
    instance,
    subnetId: "subnet-1" as SubnetId,
    securityGroups: [],
    addressCount: 1,
    prefixCount: 0,
    clientToken: "same",
    createdAt: wallTime(0),
  };
  expect(await create.ec2.createEni(request)).toMatchObject({ ok: true });
  expect(create.server.asked.map((one) => one.form.get("ClientToken"))).toEqual(["same", "same"]);
});

test("an EC2 that cannot be reached has done nothing", async () => {
  const server = createTcpServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // A TCP server that listens has one.
  server.close();
  await once(server, "close");
  await expect(once(connect(port, "127.0.0.1"), "connect")).rejects.toThrow("ECONNREFUSED");
  const made = rig({ ...keys, AWS_ENDPOINT_URL: `http://127.0.0.1:${port}` });
  cleanUps.push(made.close);
  expect(await made.ec2.detachEni("eni-attach-1" as AttachmentId)).toMatchObject({
    ok: false,
    error: { kind: "failing", code: "ConnectionRefused" },
  });
  expect(made.calls).toHaveLength(3); // Nothing was sent, so it may be sent again.
});

test("a refusal keeps EC2's own words", async () => {
  const { ec2 } = await against(
    ec2Error(
      403,
      "UnauthorizedOperation",
      "You are not authorized to perform: ec2:CreateTags &amp; more",
      "req-77",
    ),
  );
  expect(await ec2.tagEni(eni, new Map([["a", "b"]]))).toEqual({
    ok: false,
    error: {
      kind: "denied",
      operation: "CreateTags",
      code: "UnauthorizedOperation",
      message: "You are not authorized to perform: ec2:CreateTags & more",
      requestId: "req-77",
    },
  });
});
