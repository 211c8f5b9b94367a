/** Each refusal that a CNI meets, with EC2's code, HTTP status and text. Goal: a client tested here knows the real thing. */
import { expect, test } from "vitest";
import { attachEni, call, createEni, oneNode, texts, type World1 } from "./support.ts";

type Row = {
  readonly when: string;
  readonly code: string;
  readonly status?: number;
  readonly message: string | RegExp;
  readonly arrange?: (world: World1) => Promise<Readonly<Record<string, string | number | boolean>>>;
  readonly action: string;
  readonly parameters?: (world: World1) => Readonly<Record<string, string | number | boolean>>;
};

const NO_ENI = "eni-0123456789abcdef0";
const rows: readonly Row[] = [
  {
    when: "the action does not exist",
    action: "DescribeUnicorns",
    code: "InvalidAction",
    message: /^The action DescribeUnicorns is not valid for this web service\./,
  },
  {
    when: "a parameter does not exist",
    action: "DescribeVpcs",
    parameters: () => ({ VpcIdd: "x" }),
    code: "UnknownParameter",
    message: "The parameter VpcIdd is not recognized",
  },
  {
    when: "a parameter of EC2 is not emulated",
    action: "CreateNetworkInterface",
    parameters: ({ subnetId }) => ({ SubnetId: subnetId, Ipv6AddressCount: 1 }),
    code: "UnsupportedOperation",
    message: "The emulator does not support Ipv6AddressCount.",
  },
  {
    when: "a parameter is missing",
    action: "AttachNetworkInterface",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId }),
    code: "MissingParameter",
    message: "The request must contain the parameter instanceId",
  },
  {
    when: "a dry run would have succeeded",
    action: "DeleteNetworkInterface",
    arrange: async (world) => ({ NetworkInterfaceId: await createEni(world), DryRun: true }),
    code: "DryRunOperation",
    status: 412,
    message: "Request would have succeeded, but DryRun flag is set.",
  },
  // ---- unknown things ----
  {
    when: "the ENI is unknown",
    action: "DescribeNetworkInterfaces",
    parameters: () => ({ "NetworkInterfaceId.1": NO_ENI }),
    code: "InvalidNetworkInterfaceID.NotFound",
    message: `The networkInterface ID '${NO_ENI}' does not exist`,
  },
  {
    when: "the ENI id is malformed",
    action: "DeleteNetworkInterface",
    parameters: () => ({ NetworkInterfaceId: "eni-xyz" }),
    code: "InvalidNetworkInterfaceId.Malformed",
    message: /eni-xyz/,
  },
  {
    when: "the instance is unknown",
    action: "AttachNetworkInterface",
    arrange: async (world) => ({
      NetworkInterfaceId: await createEni(world),
      InstanceId: "i-0123456789abcdef0",
      DeviceIndex: 1,
    }),
    code: "InvalidInstanceID.NotFound",
    message: "The instance ID 'i-0123456789abcdef0' does not exist",
  },
  {
    when: "the subnet is unknown",
    action: "CreateNetworkInterface",
    parameters: () => ({ SubnetId: "subnet-0123456789abcdef0" }),
    code: "InvalidSubnetID.NotFound",
    message: "The subnet ID 'subnet-0123456789abcdef0' does not exist",
  },
  {
    when: "the group is unknown",
    action: "CreateNetworkInterface",
    parameters: ({ subnetId }) => ({ SubnetId: subnetId, "SecurityGroupId.1": "sg-0123456789abcdef0" }),
    code: "InvalidGroup.NotFound",
    message: "The security group 'sg-0123456789abcdef0' does not exist",
  },
  {
    when: "the attachment is unknown",
    action: "DetachNetworkInterface",
    parameters: () => ({ AttachmentId: "eni-attach-0123456789abcdef0" }),
    code: "InvalidAttachmentID.NotFound",
    message: "The interface attachment 'eni-attach-0123456789abcdef0' does not exist.",
  },
  {
    when: "the tagged resource is unknown",
    action: "CreateTags",
    parameters: () => ({ "ResourceId.1": NO_ENI, "Tag.1.Key": "a", "Tag.1.Value": "b" }),
    code: "InvalidNetworkInterfaceID.NotFound",
    message: `The networkInterface ID '${NO_ENI}' does not exist`,
  },
  {
    when: "the instance type is unknown",
    action: "DescribeInstanceTypes",
    parameters: () => ({ "InstanceType.1": "m5.lage" }),
    code: "InvalidInstanceType",
    message: "The following supplied instance types do not exist: [m5.lage]",
  },
  // ---- subnet space ----
  {
    when: "the subnet is full",
    action: "CreateNetworkInterface",
    arrange: async ({ emulator, subnetId }) => {
      emulator.fault({ kind: "fill-subnet", subnetId, leaveFree: 0 });
      return { SubnetId: subnetId };
    },
    code: "InsufficientFreeAddressesInSubnet",
    message: "The specified subnet does not have enough free addresses to satisfy the request.",
  },
  {
    when: "the subnet has fewer addresses than asked for",
    action: "AssignPrivateIpAddresses",
    arrange: async ({ emulator, subnetId, eniId }) => {
      emulator.fault({ kind: "fill-subnet", subnetId, leaveFree: 3 });
      return { NetworkInterfaceId: eniId, SecondaryPrivateIpAddressCount: 4 };
    },
    code: "InvalidParameterValue",
    message: "There aren't sufficient free Ipv4 addresses or prefixes",
  },
  {
    when: "the subnet has fewer addresses than a prefix",
    action: "CreateNetworkInterface",
    arrange: async ({ emulator, subnetId }) => {
      emulator.fault({ kind: "fill-subnet", subnetId, leaveFree: 15 });
      return { SubnetId: subnetId, Ipv4PrefixCount: 1 };
    },
    code: "InvalidParameterValue",
    message: "There aren't sufficient free Ipv4 addresses or prefixes",
  },
  {
    when: "the subnet is fragmented",
    action: "AssignPrivateIpAddresses",
    arrange: async ({ emulator, subnetId, eniId }) => {
      emulator.fault({ kind: "fragment-subnet", subnetId });
      return { NetworkInterfaceId: eniId, Ipv4PrefixCount: 1 };
    },
    code: "InsufficientCidrBlocks",
    message: "The specified subnet does not have enough free cidr blocks to satisfy the request.",
  },
  // ---- limits ----
  {
    when: "an ENI would have too many addresses",
    action: "AssignPrivateIpAddresses",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId, SecondaryPrivateIpAddressCount: 10 }),
    code: "PrivateIpAddressLimitExceeded",
    message: "Number of private addresses will exceed limit.",
  },
  {
    when: "a prefix would be one slot too many",
    action: "AssignPrivateIpAddresses",
    arrange: async (world) => {
      await call(world.emulator, "AssignPrivateIpAddresses", {
        NetworkInterfaceId: world.eniId,
        SecondaryPrivateIpAddressCount: 9,
      });
      return { NetworkInterfaceId: world.eniId, Ipv4PrefixCount: 1 };
    },
    code: "PrivateIpAddressLimitExceeded",
    message: "Number of private addresses will exceed limit.",
  },
  {
    when: "an instance is launched with too many addresses",
    action: "RunInstances",
    parameters: ({ subnetId }) => ({
      ImageId: "ami-1",
      InstanceType: "m5.large",
      MinCount: 1,
      MaxCount: 1,
      "NetworkInterface.1.DeviceIndex": 0,
      "NetworkInterface.1.SubnetId": subnetId,
      "NetworkInterface.1.SecondaryPrivateIpAddressCount": 10,
    }),
    code: "InvalidInterface.IpAddressLimitExceeded",
    message: /m5\.large/,
  },
  {
    when: "an instance has all its ENIs",
    action: "AttachNetworkInterface",
    arrange: async (world) => {
      await attachEni(world, 1);
      await attachEni(world, 2);
      return { NetworkInterfaceId: await createEni(world), InstanceId: world.instanceId, DeviceIndex: 3 };
    },
    code: "AttachmentLimitExceeded",
    message: "Interface count 4 exceeds the limit for m5.large",
  },
  {
    when: "the Region has all its ENIs",
    action: "CreateNetworkInterface",
    arrange: async (world) => {
      for (let i = 0; i < 5; i += 1) await createEni(world);
      return { SubnetId: world.subnetId };
    },
    code: "NetworkInterfaceLimitExceeded",
    message: /maximum number of network interfaces/,
  },
  // ---- attachments ----
  {
    when: "the device index is taken",
    action: "AttachNetworkInterface",
    arrange: async (world) => ({
      NetworkInterfaceId: await createEni(world),
      InstanceId: world.instanceId,
      DeviceIndex: 0,
    }),
    code: "InvalidParameterValue",
    message: /^Instance 'i-[0-9a-f]{17}' already has an interface attached at device index '0'\.$/,
  },
  {
    when: "the ENI is attached elsewhere",
    action: "AttachNetworkInterface",
    parameters: ({ eniId, instanceId }) => ({
      NetworkInterfaceId: eniId,
      InstanceId: instanceId,
      DeviceIndex: 1,
    }),
    code: "InvalidNetworkInterface.InUse",
    message: /^Interface: \[eni-[0-9a-f]{17}\] in use\.$/,
  },
  {
    when: "the instance is terminated",
    action: "AttachNetworkInterface",
    arrange: async (world) => {
      const eniId = await createEni(world);
      world.emulator.fault({ kind: "terminate-instance", instanceId: world.instanceId });
      return { NetworkInterfaceId: eniId, InstanceId: world.instanceId, DeviceIndex: 1 };
    },
    code: "IncorrectState",
    message: /^Instance 'i-[0-9a-f]{17}' is not 'running'\.$/,
  },
  {
    when: "ENI and instance are in two zones",
    action: "AttachNetworkInterface",
    arrange: async (world) => {
      const subnetId = world.emulator.seed.subnet({
        vpcId: world.vpcId,
        cidr: "10.0.9.0/24",
        availabilityZone: "eu-west-1b",
      });
      return {
        NetworkInterfaceId: await createEni({ ...world, subnetId }),
        InstanceId: world.instanceId,
        DeviceIndex: 1,
      };
    },
    code: "InvalidParameterCombination",
    message: /not in the same availability zone$/,
  },
  {
    when: "the primary ENI is detached",
    action: "DetachNetworkInterface",
    parameters: ({ attachmentId }) => ({ AttachmentId: attachmentId }),
    code: "OperationNotPermitted",
    message: "The network interface at device index 0 and networkCard index 0 cannot be detached.",
  },
  {
    when: "the attachment is a service's",
    action: "DetachNetworkInterface",
    arrange: async ({ emulator, subnetId, instanceId }) => {
      emulator.fault({ kind: "foreign-eni", subnetId, instanceId, managedBy: "amazon-elb" });
      const eni = [...emulator.world().enis.values()].find(({ managedBy }) => managedBy === "amazon-elb");
      return { AttachmentId: eni?.attachment?.id ?? "" };
    },
    code: "OperationNotPermitted",
    message: "You are not allowed to manage 'ela-attach' attachments.",
  },
  {
    when: "an attached ENI is deleted",
    action: "DeleteNetworkInterface",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId }),
    code: "InvalidParameterValue",
    message: /^Network interface 'eni-[0-9a-f]{17}' is currently in use\.$/,
  },
  {
    when: "DeleteOnTermination is set through another ENI's attachment",
    action: "ModifyNetworkInterfaceAttribute",
    arrange: async (world) => ({
      NetworkInterfaceId: await createEni(world),
      "Attachment.AttachmentId": world.attachmentId,
      "Attachment.DeleteOnTermination": true,
    }),
    code: "InvalidAttachmentID.NotFound",
    message: /^The interface attachment 'eni-attach-[0-9a-f]{17}' does not exist\.$/,
  },
  // ---- explicit addresses ----
  {
    when: "an address belongs to another ENI",
    action: "AssignPrivateIpAddresses",
    arrange: async (world) => {
      await createEni(world, { "PrivateIpAddresses.1.PrivateIpAddress": "10.0.0.77" });
      return { NetworkInterfaceId: world.eniId, "PrivateIpAddress.1": "10.0.0.77" };
    },
    code: "InvalidParameterValue",
    message: "[10.0.0.77] assigned, but move is not allowed.",
  },
  {
    when: "an address is inside another ENI's prefix",
    action: "AssignPrivateIpAddresses",
    arrange: async (world) => {
      await createEni(world, { "Ipv4Prefix.1.Ipv4Prefix": "10.0.0.64/28" });
      return { NetworkInterfaceId: world.eniId, "PrivateIpAddress.1": "10.0.0.77", AllowReassignment: true };
    },
    code: "InvalidParameterValue",
    message: "[10.0.0.77] assigned, but move is not allowed.",
  },
  {
    when: "another ENI's primary address is to be moved",
    action: "AssignPrivateIpAddresses",
    arrange: async (world) => {
      await createEni(world, { PrivateIpAddress: "10.0.0.78" });
      return { NetworkInterfaceId: world.eniId, "PrivateIpAddress.1": "10.0.0.78", AllowReassignment: true };
    },
    code: "InvalidParameterValue",
    message: "secondary-addresses",
  },
  {
    when: "an ENI is created with an address in use",
    action: "CreateNetworkInterface",
    parameters: ({ subnetId, primary }) => ({ SubnetId: subnetId, PrivateIpAddress: primary }),
    code: "InvalidIPAddress.InUse",
    message: "The specified address is already in use.",
  },
  {
    when: "an address is outside the subnet",
    action: "AssignPrivateIpAddresses",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId, "PrivateIpAddress.1": "10.0.1.5" }),
    code: "InvalidParameterValue",
    message: "Address does not fall within the subnet's address range",
  },
  {
    when: "an address is reserved",
    action: "AssignPrivateIpAddresses",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId, "PrivateIpAddress.1": "10.0.0.255" }),
    code: "InvalidParameterValue",
    message: "Address is in subnet's reserved address range",
  },
  {
    when: "an address is none",
    action: "AssignPrivateIpAddresses",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId, "PrivateIpAddress.1": "10.0.0.256" }),
    code: "InvalidParameterValue",
    message: "invalid value for parameter address: 10.0.0.256",
  },
  {
    when: "an unassigned address is not there",
    action: "UnassignPrivateIpAddresses",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId, "PrivateIpAddress.1": "10.0.0.200" }),
    code: "InvalidParameterValue",
    message: /^Some of the specified addresses are not assigned to interface eni-[0-9a-f]{17}$/,
  },
  {
    when: "the primary address is unassigned",
    action: "UnassignPrivateIpAddresses",
    parameters: ({ eniId, primary }) => ({ NetworkInterfaceId: eniId, "PrivateIpAddress.1": primary }),
    code: "InvalidParameterValue",
    message:
      /^Value \(10\.0\.0\.\d+\) for parameter privateIpAddress is invalid\. The primary IP address of an interface cannot be unassigned\.$/,
  },
  {
    when: "an assign asks for nothing",
    action: "AssignPrivateIpAddresses",
    parameters: ({ eniId }) => ({ NetworkInterfaceId: eniId }),
    code: "InvalidParameter",
    message: /^One of privateIpAddressSet or .* must be specified\.$/,
  },
  {
    when: "an assign asks for two things",
    action: "AssignPrivateIpAddresses",
    parameters: ({ eniId }) => ({
      NetworkInterfaceId: eniId,
      SecondaryPrivateIpAddressCount: 1,
      Ipv4PrefixCount: 1,
    }),
    code: "InvalidParameterCombination",
    message: /^You may specify one and only one of /,
  },
  {
    when: "prefixes are asked for on an instance that is not Nitro",
    action: "AssignPrivateIpAddresses",
    arrange: async ({ emulator, subnetId }) => ({
      NetworkInterfaceId: emulator.seed.launch({ type: "m4.large", subnetId }).eniId,
      Ipv4PrefixCount: 1,
    }),
    code: "UnsupportedOperation",
    message: /m4\.large/,
  },
  {
    when: "a subnet with an ENI is deleted",
    action: "DeleteSubnet",
    parameters: ({ subnetId }) => ({ SubnetId: subnetId }),
    code: "DependencyViolation",
    message: /^The subnet 'subnet-[0-9a-f]{17}' has dependencies and cannot be deleted\.$/,
  },
  {
    when: "a group on an ENI is deleted",
    action: "DeleteSecurityGroup",
    parameters: ({ groupId }) => ({ GroupId: groupId }),
    code: "DependencyViolation",
    message: /^resource sg-[0-9a-f]{17} has a dependent object$/,
  },
  {
    when: "two CIDR reservations of a subnet overlap",
    action: "CreateSubnetCidrReservation",
    arrange: async ({ emulator, subnetId }) => {
      const reserve = { SubnetId: subnetId, Cidr: "10.0.0.64/26", ReservationType: "prefix" };
      await call(emulator, "CreateSubnetCidrReservation", reserve);
      return { ...reserve, Cidr: "10.0.0.96/28" };
    },
    code: "InvalidParameterValue",
    message: /overlaps/,
  },
  // ---- other parameters ----
  {
    when: "a description has a letter that EC2 does not take",
    action: "CreateNetworkInterface",
    parameters: ({ subnetId }) => ({ SubnetId: subnetId, Description: "naïve" }),
    code: "InvalidParameterValue",
    message: /description/,
  },
  {
    when: "group and subnet are in two VPCs",
    action: "CreateNetworkInterface",
    arrange: async ({ emulator, subnetId }) => ({
      SubnetId: subnetId,
      "SecurityGroupId.1": emulator.seed.vpc({ cidrs: ["10.9.0.0/16"] }).groupId,
    }),
    code: "InvalidParameterValue",
    message: /^Security group sg-[0-9a-f]{17} and subnet subnet-[0-9a-f]{17} belong to different networks\.$/,
  },
  {
    when: "an ENI has six groups",
    action: "ModifyNetworkInterfaceAttribute",
    arrange: async ({ emulator, vpcId, eniId }) => {
      const groups = Array.from({ length: 6 }, (_, i) =>
        emulator.seed.securityGroup({ vpcId, name: `g${i}` }),
      );
      return {
        NetworkInterfaceId: eniId,
        ...Object.fromEntries(groups.map((id, i) => [`SecurityGroupId.${i + 1}`, id])),
      };
    },
    code: "SecurityGroupsPerInterfaceLimitExceeded",
    message: /maximum number of security groups/,
  },
  {
    when: "a resource has 51 tags",
    action: "CreateTags",
    parameters: ({ eniId }) => ({
      "ResourceId.1": eniId,
      ...Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`Tag.${i + 1}.Key`, `k${i}`])),
    }),
    code: "TagLimitExceeded",
    message: "More than 50 tags specified",
  },
  {
    when: "a tag is AWS's own",
    action: "CreateTags",
    parameters: ({ eniId }) => ({ "ResourceId.1": eniId, "Tag.1.Key": "aws:x" }),
    code: "InvalidParameterValue",
    message: "Tag keys starting with 'aws:' are reserved for internal use",
  },
  {
    when: "a filter does not exist",
    action: "DescribeNetworkInterfaces",
    parameters: () => ({ "Filter.1.Name": "colour", "Filter.1.Value.1": "red" }),
    code: "InvalidParameterValue",
    message: "The filter 'colour' is invalid",
  },
  {
    when: "a page is too small",
    action: "DescribeNetworkInterfaces",
    parameters: () => ({ MaxResults: 4 }),
    code: "InvalidMaxResults",
    message: /between 5 and 1000/,
  },
  {
    when: "a page's token is another's",
    action: "DescribeNetworkInterfaces",
    parameters: () => ({ MaxResults: 5, NextToken: "nonsense" }),
    code: "InvalidPaginationToken",
    message: "Value (nonsense) for parameter nextToken is invalid.",
  },
  {
    when: "ids and pages are asked for together",
    action: "DescribeInstances",
    parameters: ({ instanceId }) => ({ "InstanceId.1": instanceId, MaxResults: 5 }),
    code: "InvalidParameterCombination",
    message: "The parameter instancesSet cannot be used with the parameter maxResults",
  },
];

test.for(rows)(
  "EC2 refuses when $when",
  async ({ action, arrange, parameters, code, status = 400, message }) => {
    const world = oneNode({ options: { quotas: { enisPerRegion: 6 } } });
    const before = await arrange?.(world);
    const answer = await call(world.emulator, action, before ?? parameters?.(world) ?? {});
    expect({ code: answer.code, status: answer.status }).toEqual({ code, status });
    if (typeof message === "string") expect(answer.message).toBe(message);
    else expect(answer.message).toMatch(message);
  },
);

test("a refusal changes nothing", async () => {
  for (const { action, arrange, parameters } of rows) {
    const world = oneNode({ options: { quotas: { enisPerRegion: 6 } } });
    const given = (await arrange?.(world)) ?? parameters?.(world) ?? {};
    const before = world.emulator.world();
    await call(world.emulator, action, given);
    expect(world.emulator.world()).toBe(before);
  }
});

test("an error's envelope spells RequestID, and an answer's requestId", async () => {
  const { emulator } = oneNode();
  const refused = await call(emulator, "DescribeNetworkInterfaces", { "NetworkInterfaceId.1": NO_ENI });
  expect(refused.body).toMatch(
    /^<\?xml version="1\.0" encoding="UTF-8"\?>\n<Response><Errors><Error><Code>[^<]+<\/Code><Message>[^<]+<\/Message><\/Error><\/Errors><RequestID>[0-9a-f-]{36}<\/RequestID><\/Response>$/,
  );
  const answered = await call(emulator, "DescribeVpcs");
  expect(answered.body).toContain(
    '<DescribeVpcsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>',
  );
});

test("an ENI that is still detaching is refused deletion like an attached one", async () => {
  const world = oneNode({ options: { timings: { detached: 3_000 } } });
  const { eniId, attachmentId } = await attachEni(world, 1);
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: attachmentId });
  const tooSoon = await call(world.emulator, "DeleteNetworkInterface", { NetworkInterfaceId: eniId });
  expect(tooSoon).toMatchObject({
    code: "InvalidParameterValue",
    message: `Network interface '${eniId}' is currently in use.`,
  });
  await world.clock.advance(3_000);
  expect((await call(world.emulator, "DeleteNetworkInterface", { NetworkInterfaceId: eniId })).status).toBe(
    200,
  );
});

test("whoever does not sign, or signs with a stranger's key, is refused at the door", async () => {
  const open = oneNode();
  expect(await call(open.emulator, "DescribeVpcs", {}, null)).toMatchObject({
    code: "MissingAuthenticationToken",
    status: 403,
  });
  const strict = oneNode({ options: { accessKeys: ["AKIAFRIEND"] } });
  expect(await call(strict.emulator, "DescribeVpcs", {}, "AKIASTRANGER")).toMatchObject({
    code: "AuthFailure",
    status: 401,
    message: "AWS was not able to validate the provided access credentials",
  });
  expect((await call(strict.emulator, "DescribeVpcs", {}, "AKIAFRIEND")).status).toBe(200);
});

test("a huge describe without filter or pages is refused", async () => {
  const world = oneNode({ options: { quotas: { unpagedResults: 3 } } });
  for (let i = 0; i < 3; i += 1) await createEni(world);
  expect(await call(world.emulator, "DescribeNetworkInterfaces")).toMatchObject({
    code: "OperationNotPermitted",
    status: 400,
  });
  const filtered = await call(world.emulator, "DescribeNetworkInterfaces", {
    "Filter.1.Name": "status",
    "Filter.1.Value.1": "available",
  });
  expect(texts(filtered.body, "networkInterfaceId")).toHaveLength(3);
});
