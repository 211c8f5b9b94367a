/** The AWS SDK for JavaScript, which we did not write, reads each answer of the emulator over HTTP; so does its IMDS client. */
import {
  AssignPrivateIpAddressesCommand,
  AttachNetworkInterfaceCommand,
  CreateNetworkInterfaceCommand,
  CreateSubnetCidrReservationCommand,
  CreateTagsCommand,
  DeleteNetworkInterfaceCommand,
  DeleteSecurityGroupCommand,
  DeleteSubnetCidrReservationCommand,
  DeleteSubnetCommand,
  DeleteTagsCommand,
  DescribeAvailabilityZonesCommand,
  DescribeInstancesCommand,
  DescribeInstanceTypesCommand,
  DescribeNetworkInterfaceAttributeCommand,
  DescribeNetworkInterfacesCommand,
  DescribeRouteTablesCommand,
  DescribeSecurityGroupsCommand,
  DescribeSubnetsCommand,
  DescribeTagsCommand,
  DescribeVpcsCommand,
  DetachNetworkInterfaceCommand,
  EC2Client,
  GetSubnetCidrReservationsCommand,
  ModifyNetworkInterfaceAttributeCommand,
  paginateDescribeInstanceTypes,
  RunInstancesCommand,
  TerminateInstancesCommand,
  UnassignPrivateIpAddressesCommand,
} from "@aws-sdk/client-ec2";
import { MetadataService } from "@aws-sdk/ec2-metadata-service";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createEmulator, type Emulator } from "../../src/emulator/emulator.ts";
import { instanceTypes } from "../../src/emulator/instance-types.ts";
import { OPERATIONS } from "../../src/emulator/operations/table.ts";
import type { Launched } from "../../src/emulator/seeder.ts";

let emulator: Emulator;
let ec2: EC2Client;
let ec2Url: string;
let imdsUrl: string;
let node: Launched;
let subnetId: string;
let vpcId: string;
let groupId: string;

beforeAll(async () => {
  emulator = createEmulator({ credentialsLifetimeMs: 3_600_000 });
  ({ vpcId, groupId } = emulator.seed.vpc({
    cidrs: ["10.0.0.0/16", "100.64.0.0/16"],
    tags: { Name: "pods & nodes" },
  }));
  subnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.0.0/20", tags: { "kubernetes.io/role/cni": "1" } });
  node = emulator.seed.launch({
    type: "m5.large",
    subnetId,
    mac: "0a:00:00:00:00:01",
    primary: "10.0.0.10",
    secondaryCount: 2,
  });
  ec2Url = (await emulator.listen()).url;
  imdsUrl = (await emulator.listenImds(node.instanceId)).url;
  ec2 = new EC2Client({
    endpoint: ec2Url,
    region: "eu-west-1",
    maxAttempts: 1,
    credentials: { accessKeyId: "AKIASDK", secretAccessKey: "unchecked" },
  });
});

afterAll(async () => {
  ec2.destroy();
  await emulator.close();
});

test("the SDK reads VPCs, subnets, groups, route tables and zones", async () => {
  const { Vpcs } = await ec2.send(new DescribeVpcsCommand({ VpcIds: [vpcId] }));
  expect(Vpcs).toMatchObject([
    {
      VpcId: vpcId,
      CidrBlock: "10.0.0.0/16",
      State: "available",
      Tags: [{ Key: "Name", Value: "pods & nodes" }],
    },
  ]);
  expect(Vpcs?.[0]?.CidrBlockAssociationSet?.map(({ CidrBlock }) => CidrBlock)).toEqual([
    "10.0.0.0/16",
    "100.64.0.0/16",
  ]);
  const { Subnets } = await ec2.send(
    new DescribeSubnetsCommand({ Filters: [{ Name: "tag:kubernetes.io/role/cni", Values: ["1"] }] }),
  );
  expect(Subnets).toMatchObject([
    { SubnetId: subnetId, VpcId: vpcId, CidrBlock: "10.0.0.0/20", AvailabilityZone: "eu-west-1a" },
  ]);
  expect(Subnets?.[0]?.AvailableIpAddressCount).toBeLessThanOrEqual(4_096 - 5 - 3);
  const { SecurityGroups } = await ec2.send(
    new DescribeSecurityGroupsCommand({ Filters: [{ Name: "vpc-id", Values: [vpcId] }] }),
  );
  expect(SecurityGroups).toMatchObject([{ GroupId: groupId, GroupName: "default", VpcId: vpcId }]);
  const { RouteTables } = await ec2.send(new DescribeRouteTablesCommand({}));
  expect(RouteTables?.[0]?.Routes?.[0]).toMatchObject({
    DestinationCidrBlock: "10.0.0.0/16",
    GatewayId: "local",
  });
  const { AvailabilityZones } = await ec2.send(new DescribeAvailabilityZonesCommand({}));
  expect(AvailabilityZones).toMatchObject([
    { ZoneName: "eu-west-1a", ZoneId: "euw1-az1", RegionName: "eu-west-1" },
  ]);
});

test("the SDK reads an instance with its ENIs", async () => {
  const { Reservations } = await ec2.send(new DescribeInstancesCommand({ InstanceIds: [node.instanceId] }));
  const instance = Reservations?.[0]?.Instances?.[0];
  expect(instance).toMatchObject({
    InstanceId: node.instanceId,
    InstanceType: "m5.large",
    State: { Name: "running", Code: 16 },
    PrivateIpAddress: "10.0.0.10",
    Placement: { AvailabilityZone: "eu-west-1a" },
    NetworkInterfaces: [
      {
        NetworkInterfaceId: node.eniId,
        MacAddress: "0a:00:00:00:00:01",
        Status: "in-use",
        Attachment: {
          AttachmentId: node.attachmentId,
          DeviceIndex: 0,
          NetworkCardIndex: 0,
          Status: "attached",
          DeleteOnTermination: true,
        },
      },
    ],
  });
  expect(instance?.NetworkInterfaces?.[0]?.PrivateIpAddresses?.map(({ Primary }) => Primary)).toEqual([
    true,
    false,
    false,
  ]);
  expect(instance?.LaunchTime).toBeInstanceOf(Date);
});

test("the SDK reads the limits of instance types, one and all", async () => {
  const { InstanceTypes } = await ec2.send(
    new DescribeInstanceTypesCommand({ InstanceTypes: ["p4d.24xlarge"] }),
  );
  expect(InstanceTypes?.[0]).toMatchObject({
    InstanceType: "p4d.24xlarge",
    Hypervisor: "nitro",
    NetworkInfo: {
      MaximumNetworkInterfaces: 60,
      Ipv4AddressesPerInterface: 50,
      MaximumNetworkCards: 4,
      DefaultNetworkCardIndex: 0,
    },
  });
  expect(InstanceTypes?.[0]?.NetworkInfo?.NetworkCards?.map((card) => card.MaximumNetworkInterfaces)).toEqual(
    [15, 15, 15, 15],
  );
  let count = 0;
  for await (const page of paginateDescribeInstanceTypes({ client: ec2 }, { MaxResults: 100 }))
    count += page.InstanceTypes?.length ?? 0;
  expect(count).toBe(instanceTypes().size);
});

test("the SDK walks an ENI's whole life", async () => {
  const created = await ec2.send(
    new CreateNetworkInterfaceCommand({
      SubnetId: subnetId,
      Groups: [groupId],
      Description: "aws-K8S-i",
      SecondaryPrivateIpAddressCount: 2,
      ClientToken: "life",
      TagSpecifications: [{ ResourceType: "network-interface", Tags: [{ Key: "owner", Value: "berth" }] }],
    }),
  );
  const NetworkInterfaceId = created.NetworkInterface?.NetworkInterfaceId ?? "";
  expect(created.NetworkInterface).toMatchObject({
    Status: "pending",
    Description: "aws-K8S-i",
    TagSet: [{ Key: "owner", Value: "berth" }],
  });
  const attached = await ec2.send(
    new AttachNetworkInterfaceCommand({
      NetworkInterfaceId,
      InstanceId: node.instanceId,
      DeviceIndex: 1,
      NetworkCardIndex: 0,
    }),
  );
  const AttachmentId = attached.AttachmentId ?? "";
  await ec2.send(
    new ModifyNetworkInterfaceAttributeCommand({
      NetworkInterfaceId,
      Attachment: { AttachmentId, DeleteOnTermination: true },
    }),
  );
  await ec2.send(new ModifyNetworkInterfaceAttributeCommand({ NetworkInterfaceId, Groups: [groupId] }));
  await ec2.send(
    new ModifyNetworkInterfaceAttributeCommand({ NetworkInterfaceId, Description: { Value: "renamed" } }),
  );
  await ec2.send(
    new ModifyNetworkInterfaceAttributeCommand({ NetworkInterfaceId, SourceDestCheck: { Value: false } }),
  );
  const assigned = await ec2.send(
    new AssignPrivateIpAddressesCommand({ NetworkInterfaceId, SecondaryPrivateIpAddressCount: 2 }),
  );
  expect(assigned.AssignedPrivateIpAddresses).toHaveLength(2);
  const prefixed = await ec2.send(
    new AssignPrivateIpAddressesCommand({ NetworkInterfaceId, Ipv4PrefixCount: 1 }),
  );
  expect(prefixed.AssignedIpv4Prefixes?.[0]?.Ipv4Prefix).toMatch(/\/28$/);
  const attributeOf = (Attribute: "description" | "sourceDestCheck" | "groupSet" | "attachment") =>
    ec2.send(new DescribeNetworkInterfaceAttributeCommand({ NetworkInterfaceId, Attribute }));
  expect(await attributeOf("description")).toMatchObject({
    NetworkInterfaceId,
    Description: { Value: "renamed" },
  });
  expect(await attributeOf("sourceDestCheck")).toMatchObject({ SourceDestCheck: { Value: false } });
  expect(await attributeOf("groupSet")).toMatchObject({ Groups: [{ GroupId: groupId }] });
  expect(await attributeOf("attachment")).toMatchObject({
    Attachment: { AttachmentId, DeleteOnTermination: true },
  });
  const { NetworkInterfaces } = await ec2.send(
    new DescribeNetworkInterfacesCommand({
      Filters: [{ Name: "attachment.attachment-id", Values: [AttachmentId] }],
    }),
  );
  expect(NetworkInterfaces).toMatchObject([
    {
      NetworkInterfaceId,
      Description: "renamed",
      SourceDestCheck: false,
      Status: "in-use",
      Attachment: {
        AttachmentId,
        InstanceId: node.instanceId,
        DeviceIndex: 1,
        Status: "attached",
        DeleteOnTermination: true,
      },
      Ipv4Prefixes: prefixed.AssignedIpv4Prefixes,
    },
  ]);
  expect(NetworkInterfaces?.[0]?.PrivateIpAddresses).toHaveLength(5);
  await ec2.send(
    new UnassignPrivateIpAddressesCommand({
      NetworkInterfaceId,
      PrivateIpAddresses: assigned.AssignedPrivateIpAddresses?.map(
        ({ PrivateIpAddress }) => PrivateIpAddress ?? "",
      ),
    }),
  );
  await ec2.send(
    new UnassignPrivateIpAddressesCommand({
      NetworkInterfaceId,
      Ipv4Prefixes: prefixed.AssignedIpv4Prefixes?.map((prefix) => prefix.Ipv4Prefix ?? ""),
    }),
  );
  await ec2.send(
    new CreateTagsCommand({ Resources: [NetworkInterfaceId], Tags: [{ Key: "b", Value: "2" }] }),
  );
  await ec2.send(new DeleteTagsCommand({ Resources: [NetworkInterfaceId], Tags: [{ Key: "owner" }] }));
  const { Tags } = await ec2.send(
    new DescribeTagsCommand({ Filters: [{ Name: "resource-id", Values: [NetworkInterfaceId] }] }),
  );
  expect(Tags).toEqual([
    { Key: "b", Value: "2", ResourceId: NetworkInterfaceId, ResourceType: "network-interface" },
  ]);
  await ec2.send(new DetachNetworkInterfaceCommand({ AttachmentId }));
  await ec2.send(new DeleteNetworkInterfaceCommand({ NetworkInterfaceId }));
  const gone = ec2.send(new DescribeNetworkInterfacesCommand({ NetworkInterfaceIds: [NetworkInterfaceId] }));
  await expect(gone).rejects.toMatchObject({
    name: "InvalidNetworkInterfaceID.NotFound",
    message: `The networkInterface ID '${NetworkInterfaceId}' does not exist`,
    $metadata: { httpStatusCode: 400, requestId: expect.stringMatching(/^[0-9a-f-]{36}$/) },
  });
});

test("the SDK launches and terminates, with prefixes from the start", async () => {
  const run = await ec2.send(
    new RunInstancesCommand({
      ImageId: "ami-0123456789abcdef0",
      InstanceType: "c5.large",
      MinCount: 1,
      MaxCount: 1,
      NetworkInterfaces: [{ DeviceIndex: 0, SubnetId: subnetId, Groups: [groupId], Ipv4PrefixCount: 2 }],
    }),
  );
  const instance = run.Instances?.[0];
  expect(instance).toMatchObject({ State: { Name: "pending" }, InstanceType: "c5.large" });
  expect(instance?.NetworkInterfaces?.[0]?.Ipv4Prefixes).toHaveLength(2);
  const ended = await ec2.send(new TerminateInstancesCommand({ InstanceIds: [instance?.InstanceId ?? ""] }));
  expect(ended.TerminatingInstances).toMatchObject([
    { CurrentState: { Name: "shutting-down" }, PreviousState: { Name: "running" } },
  ]);
});

test("the SDK deletes an empty subnet and an unused group", async () => {
  const empty = emulator.seed.subnet({ vpcId, cidr: "10.0.16.0/24" });
  const unused = emulator.seed.securityGroup({ vpcId, name: "unused" });
  await ec2.send(new DeleteSubnetCommand({ SubnetId: empty }));
  await ec2.send(new DeleteSecurityGroupCommand({ GroupId: unused }));
  expect([emulator.world().subnets.has(empty), emulator.world().groups.has(unused)]).toEqual([false, false]);
});

test("the SDK reads subnet CIDR reservations", async () => {
  const made = await ec2.send(
    new CreateSubnetCidrReservationCommand({
      SubnetId: subnetId,
      Cidr: "10.0.8.0/24",
      ReservationType: "prefix",
    }),
  );
  expect(made.SubnetCidrReservation).toMatchObject({ Cidr: "10.0.8.0/24", ReservationType: "prefix" });
  const got = await ec2.send(new GetSubnetCidrReservationsCommand({ SubnetId: subnetId }));
  expect(got.SubnetIpv4CidrReservations).toHaveLength(1);
  const SubnetCidrReservationId = made.SubnetCidrReservation?.SubnetCidrReservationId ?? "";
  const gone = await ec2.send(new DeleteSubnetCidrReservationCommand({ SubnetCidrReservationId }));
  expect(gone.DeletedSubnetCidrReservation?.SubnetCidrReservationId).toBe(SubnetCidrReservationId);
});

test("every operation of the emulator was read by the SDK", () => {
  const called = new Set(emulator.callCounts().keys());
  expect([...OPERATIONS.keys()].filter((action) => !called.has(action))).toEqual([]);
});

test("the SDK sees a throttled call, a dry run, and a lost answer as what they are", async () => {
  emulator.fault({ kind: "throttle", action: "DescribeVpcs" });
  await expect(ec2.send(new DescribeVpcsCommand({}))).rejects.toMatchObject({
    name: "RequestLimitExceeded",
    $metadata: { httpStatusCode: 503 },
  });
  await expect(ec2.send(new DescribeVpcsCommand({ DryRun: true }))).rejects.toMatchObject({
    name: "DryRunOperation",
    $metadata: { httpStatusCode: 412 },
  });
  emulator.fault({ kind: "lost-answer", action: "CreateTags" });
  const lost = ec2.send(
    new CreateTagsCommand({ Resources: [node.eniId], Tags: [{ Key: "lost", Value: "1" }] }),
  );
  await expect(lost).rejects.toMatchObject({ code: "ECONNRESET" });
  expect(emulator.world().enis.get(node.eniId)?.tags).toEqual({ lost: "1" });
});

test("the SDK's metadata client reads IMDS, and signs with the credentials that it finds there", async () => {
  const imds = new MetadataService({ endpoint: imdsUrl });
  expect(await imds.request("/latest/meta-data/instance-id", {})).toBe(node.instanceId);
  expect(await imds.request("/latest/meta-data/network/interfaces/macs/", {})).toBe("0a:00:00:00:00:01/");
  const role = await imds.request("/latest/meta-data/iam/security-credentials/", {});
  const found: unknown = JSON.parse(
    await imds.request(`/latest/meta-data/iam/security-credentials/${role}`, {}),
  );
  const { AccessKeyId, SecretAccessKey, Token } = found as {
    AccessKeyId: string;
    SecretAccessKey: string;
    Token: string;
  }; // IMDS's own format.
  const own = new EC2Client({
    endpoint: ec2Url,
    region: "eu-west-1",
    maxAttempts: 1,
    credentials: { accessKeyId: AccessKeyId, secretAccessKey: SecretAccessKey, sessionToken: Token },
  });
  emulator.fault({ kind: "error", node: node.instanceId, code: "UnauthorizedOperation" });
  await expect(own.send(new DescribeVpcsCommand({}))).rejects.toMatchObject({
    name: "UnauthorizedOperation",
    $metadata: { httpStatusCode: 403 },
  });
  own.destroy();
});

test("the admin door takes faults and shows the world; metrics stand beside it", async () => {
  const post = (path: string, body: unknown) =>
    fetch(`${ec2Url}/_emulator/${path}`, { method: "POST", body: JSON.stringify(body) });
  expect((await post("faults", { kind: "throttle", action: "DescribeSubnets" })).status).toBe(200);
  await expect(ec2.send(new DescribeSubnetsCommand({}))).rejects.toMatchObject({
    name: "RequestLimitExceeded",
  });
  expect((await post("faults", { kind: "earthquake" })).status).toBe(400);
  expect((await post("nowhere", {})).status).toBe(404);
  const launched = (await (await post("launch", { type: "t3.small", subnetId })).json()) as Launched; // The seeder's own answer.
  const world = (await (await fetch(`${ec2Url}/_emulator/world`)).json()) as {
    instances: { id: string; type: string }[];
  }; // The door's format.
  expect(world.instances.find(({ id }) => id === launched.instanceId)?.type).toBe("t3.small");
  const metrics = await (await fetch(`${ec2Url}/metrics`)).text();
  expect(metrics).toContain("# TYPE emulator_calls_total counter");
});
