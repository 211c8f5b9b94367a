import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  decodeAssignedAddresses,
  decodeAssignedPrefixes,
  decodeAttachmentId,
  decodeCreatedEni,
  decodeEniPage,
  decodeInstanceLimits,
  decodeSubnetPage,
  decodeVpcCidrs,
} from "../../src/aws/decode.ts";
import type { EniId } from "../../src/core/model/eni.ts";

const eni = "eni-0123456789abcdef0" as EniId;

/** As the SDK hands it over. Made fresh, so that a test may spoil it. */
const attached = (): Record<string, unknown> => ({
  NetworkInterfaceId: eni,
  MacAddress: "02:AB:cd:00:00:01",
  Status: "in-use",
  SubnetId: "subnet-0123456789abcdef0",
  Description: "aws-K8S-i-0123456789abcdef0",
  InterfaceType: "interface",
  RequesterManaged: false,
  Groups: [{ GroupId: "sg-0123456789abcdef0", GroupName: "nodes" }],
  TagSet: [{ Key: "node.k8s.amazonaws.com/instance_id", Value: "i-0123456789abcdef0" }],
  PrivateIpAddress: "10.0.0.10",
  PrivateIpAddresses: [
    { PrivateIpAddress: "10.0.0.10", Primary: true },
    { PrivateIpAddress: "10.0.0.11", Primary: false },
  ],
  Ipv4Prefixes: [{ Ipv4Prefix: "10.0.1.16/28" }],
  Attachment: {
    AttachmentId: "eni-attach-0123456789abcdef0",
    InstanceId: "i-0123456789abcdef0",
    DeviceIndex: 1,
    NetworkCardIndex: 0,
    Status: "attached",
    DeleteOnTermination: true,
  },
  AFieldOfTheFuture: { anything: true },
});

test("a described ENI becomes facts, its own address apart from the others", () => {
  const page = decodeEniPage({ NetworkInterfaces: [attached()], NextToken: "more" });
  expect(page).toEqual({
    ok: true,
    value: {
      nextToken: "more",
      items: [
        {
          id: eni,
          mac: "02:ab:cd:00:00:01",
          status: "in-use",
          subnetId: "subnet-0123456789abcdef0",
          description: "aws-K8S-i-0123456789abcdef0",
          interfaceType: "interface",
          requesterManaged: false,
          securityGroups: ["sg-0123456789abcdef0"],
          tags: new Map([["node.k8s.amazonaws.com/instance_id", "i-0123456789abcdef0"]]),
          primaryIp: "10.0.0.10",
          secondaryIps: ["10.0.0.11"],
          prefixes: [{ network: "10.0.1.16", prefixLength: 28 }],
          attachment: {
            id: "eni-attach-0123456789abcdef0",
            instanceId: "i-0123456789abcdef0",
            slot: { networkCard: 0, deviceIndex: 1 },
            status: "attached",
            deleteOnTermination: true,
          },
        },
      ],
    },
  });
});

test("what EC2 leaves out when there is none is none", () => {
  const bare = attached();
  for (const name of [
    "Description",
    "Groups",
    "TagSet",
    "Ipv4Prefixes",
    "Attachment",
    "PrivateIpAddress",
    "PrivateIpAddresses",
  ]) {
    delete bare[name];
  }
  const decoded = decodeCreatedEni({ NetworkInterface: bare });
  expect(decoded).toMatchObject({
    ok: true,
    value: {
      primaryIp: null,
      secondaryIps: [],
      prefixes: [],
      attachment: null,
      description: "",
      securityGroups: [],
    },
  });
});

test("an attachment of a service names no instance", () => {
  const service = attached();
  service["RequesterManaged"] = true;
  service["Attachment"] = {
    AttachmentId: "ela-attach-0123456789abcdef0",
    DeviceIndex: 1,
    Status: "attached",
    DeleteOnTermination: false,
  };
  expect(decodeCreatedEni({ NetworkInterface: service })).toMatchObject({
    ok: true,
    value: {
      requesterManaged: true,
      attachment: { instanceId: null, slot: { networkCard: 0, deviceIndex: 1 } },
    },
  });
});

const primary = { PrivateIpAddress: "10.0.0.10", Primary: true };
const spoiled: readonly [path: string, spoil: (fields: Record<string, unknown>) => void][] = [
  ["NetworkInterface.NetworkInterfaceId", (e) => delete e["NetworkInterfaceId"]],
  ["NetworkInterface.NetworkInterfaceId", (e) => (e["NetworkInterfaceId"] = "i-0123456789abcdef0")],
  ["NetworkInterface.NetworkInterfaceId", (e) => (e["NetworkInterfaceId"] = "eni-1 dev eth0")],
  ["NetworkInterface.MacAddress", (e) => (e["MacAddress"] = "02:00:00:202x:17602x:9102x")],
  ["NetworkInterface.Status", (e) => (e["Status"] = "dancing")],
  ["NetworkInterface.SubnetId", (e) => (e["SubnetId"] = "")],
  ["NetworkInterface.InterfaceType", (e) => delete e["InterfaceType"]],
  ["NetworkInterface.Groups[0].GroupId", (e) => (e["Groups"] = [{}])],
  ["NetworkInterface.TagSet[0].Key", (e) => (e["TagSet"] = [{ Value: "x" }])],
  ["NetworkInterface.PrivateIpAddresses", (e) => (e["PrivateIpAddresses"] = "10.0.0.10")],
  [
    "NetworkInterface.PrivateIpAddresses",
    (e) => (e["PrivateIpAddresses"] = [primary, { ...primary, Primary: false }]),
  ],
  [
    "NetworkInterface.PrivateIpAddresses",
    (e) => (e["PrivateIpAddresses"] = [primary, { ...primary, PrivateIpAddress: "10.0.0.11" }]),
  ],
  [
    "NetworkInterface.PrivateIpAddresses",
    (e) => (e["PrivateIpAddresses"] = [{ ...primary, Primary: false }]),
  ],
  [
    "NetworkInterface.PrivateIpAddresses[0].Primary",
    (e) => (e["PrivateIpAddresses"] = [{ PrivateIpAddress: "10.0.0.10" }]),
  ],
  [
    "NetworkInterface.PrivateIpAddresses[0].PrivateIpAddress",
    (e) => (e["PrivateIpAddresses"] = [{ ...primary, PrivateIpAddress: "10.0.0.256" }]),
  ],
  ["NetworkInterface.PrivateIpAddress", (e) => (e["PrivateIpAddress"] = "10.0.0.11")],
  [
    "NetworkInterface.Ipv4Prefixes[0].Ipv4Prefix",
    (e) => (e["Ipv4Prefixes"] = [{ Ipv4Prefix: "10.0.1.16/27" }]),
  ],
  [
    "NetworkInterface.Ipv4Prefixes[0].Ipv4Prefix",
    (e) => (e["Ipv4Prefixes"] = [{ Ipv4Prefix: "10.0.0.0/24" }]),
  ],
  [
    "NetworkInterface.Ipv4Prefixes[0].Ipv4Prefix",
    (e) => (e["Ipv4Prefixes"] = [{ Ipv4Prefix: "10.0.1.17/28" }]),
  ],
  [
    "NetworkInterface.Attachment.DeviceIndex",
    (e) => (e["Attachment"] = { AttachmentId: "eni-attach-1", DeviceIndex: -1 }),
  ],
  [
    "NetworkInterface.Attachment.DeviceIndex",
    (e) => (e["Attachment"] = { AttachmentId: "eni-attach-1", DeviceIndex: Number.NaN }),
  ],
  ["NetworkInterface.Attachment.AttachmentId", (e) => (e["Attachment"] = { DeviceIndex: 1 })],
  ["NetworkInterface.Attachment", (e) => (e["Attachment"] = [])],
];

test.each(spoiled)("an ENI with a bad %s is an error that names it", (path, spoil) => {
  const fields = attached();
  spoil(fields);
  expect(decodeCreatedEni({ NetworkInterface: fields })).toMatchObject({ ok: false, error: { path } });
});

test("an answer without its list is an error, never an empty list: a proxy's page has no ENIs either", () => {
  expect(decodeEniPage({})).toMatchObject({ ok: false, error: { path: "NetworkInterfaces" } });
  expect(decodeSubnetPage({})).toMatchObject({ ok: false, error: { path: "Subnets" } });
  expect(decodeVpcCidrs({}, "vpc-1")).toMatchObject({ ok: false, error: { path: "Vpcs" } });
  expect(decodeInstanceLimits({}, "m5.large")).toMatchObject({ ok: false, error: { path: "InstanceTypes" } });
  expect(decodeAssignedAddresses({ NetworkInterfaceId: eni }, eni)).toMatchObject({
    ok: false,
    error: { path: "AssignedPrivateIpAddresses" },
  });
  expect(decodeAttachmentId(null)).toMatchObject({ ok: false, error: { path: "answer" } });
});

test("any field of any type in an ENI's place gives facts or an error with a path, and never throws", () => {
  const names = [...Object.keys(attached()), "Attachment"];
  fc.assert(
    fc.property(fc.constantFrom(...names), fc.anything(), (name, value) => {
      const fields = attached();
      fields[name] = value;
      const decoded = decodeEniPage({ NetworkInterfaces: [fields] });
      if (!decoded.ok) expect(decoded.error.path).toMatch(/^NetworkInterfaces\[0\]\.\w/);
      else {
        const found = decoded.value.items[0];
        expect(found?.secondaryIps).not.toContain(found?.primaryIp);
        expect(found?.id).toMatch(/^eni-/);
      }
    }),
    { numRuns: 400 },
  );
});

test("assigned addresses are those that EC2 lists for the ENI that was asked about", () => {
  const answer = {
    NetworkInterfaceId: eni,
    AssignedPrivateIpAddresses: [{ PrivateIpAddress: "10.0.0.12" }, { PrivateIpAddress: "10.0.0.13" }],
  };
  expect(decodeAssignedAddresses(answer, eni)).toEqual({ ok: true, value: ["10.0.0.12", "10.0.0.13"] });
  expect(decodeAssignedAddresses(answer, "eni-other00" as EniId)).toMatchObject({
    ok: false,
    error: { path: "NetworkInterfaceId" },
  });
  const twice = {
    ...answer,
    AssignedPrivateIpAddresses: [{ PrivateIpAddress: "10.0.0.12" }, { PrivateIpAddress: "10.0.0.12" }],
  };
  expect(decodeAssignedAddresses(twice, eni)).toMatchObject({
    ok: false,
    error: { path: "AssignedPrivateIpAddresses" },
  });
  const prefixes = { NetworkInterfaceId: eni, AssignedIpv4Prefixes: [{ Ipv4Prefix: "10.0.1.0/28" }] };
  expect(decodeAssignedPrefixes(prefixes, eni)).toEqual({
    ok: true,
    value: [{ network: "10.0.1.0", prefixLength: 28 }],
  });
});

test("a type's limits count every network card, in order", () => {
  const type = {
    InstanceType: "p4d.24xlarge",
    Hypervisor: "nitro",
    NetworkInfo: {
      MaximumNetworkInterfaces: 60,
      Ipv4AddressesPerInterface: 50,
      NetworkCards: [1, 0, 3, 2].map((index) => ({ NetworkCardIndex: index, MaximumNetworkInterfaces: 15 })),
    },
  };
  expect(decodeInstanceLimits({ InstanceTypes: [type] }, "p4d.24xlarge")).toEqual({
    ok: true,
    value: { addressesPerEni: 50, nitro: true, networkCards: [15, 15, 15, 15].map((enis) => ({ enis })) },
  });
  const old = {
    InstanceType: "m4.large",
    Hypervisor: "xen",
    NetworkInfo: { MaximumNetworkInterfaces: 2, Ipv4AddressesPerInterface: 10 },
  };
  expect(decodeInstanceLimits({ InstanceTypes: [old] }, "m4.large")).toEqual({
    ok: true,
    value: { addressesPerEni: 10, nitro: false, networkCards: [{ enis: 2 }] },
  });
  const metal = { ...old, InstanceType: "m5.metal", Hypervisor: undefined, BareMetal: true };
  expect(decodeInstanceLimits({ InstanceTypes: [metal] }, "m5.metal")).toMatchObject({
    ok: true,
    value: { nitro: true },
  });
  const gap = {
    ...type,
    NetworkInfo: {
      ...type.NetworkInfo,
      NetworkCards: [{ NetworkCardIndex: 1, MaximumNetworkInterfaces: 15 }],
    },
  };
  expect(decodeInstanceLimits({ InstanceTypes: [gap] }, "p4d.24xlarge")).toMatchObject({
    ok: false,
    error: { path: "InstanceTypes[0].NetworkInfo.NetworkCards" },
  });
});

test("a subnet that is below empty is empty, and a VPC's ranges are those that stand", () => {
  const subnet = {
    SubnetId: "subnet-1",
    CidrBlock: "10.0.0.0/28",
    AvailableIpAddressCount: -8,
    AvailabilityZone: "eu-west-1a",
    Tags: [{ Key: "kubernetes.io/role/cni", Value: "1" }],
  };
  expect(decodeSubnetPage({ Subnets: [subnet] })).toMatchObject({
    ok: true,
    value: { items: [{ availableAddressCount: 0 }], nextToken: null },
  });
  const vpc = {
    VpcId: "vpc-1",
    CidrBlock: "10.0.0.0/16",
    CidrBlockAssociationSet: [
      { CidrBlock: "10.0.0.0/16", CidrBlockState: { State: "associated" } },
      { CidrBlock: "100.64.0.0/16", CidrBlockState: { State: "associated" } },
      { CidrBlock: "100.65.0.0/16", CidrBlockState: { State: "disassociated" } },
    ],
  };
  const cidrs = decodeVpcCidrs({ Vpcs: [vpc] }, "vpc-1");
  expect(cidrs).toEqual({
    ok: true,
    value: [
      { network: "10.0.0.0", prefixLength: 16 },
      { network: "100.64.0.0", prefixLength: 16 },
    ],
  });
  expect(decodeVpcCidrs({ Vpcs: [vpc] }, "vpc-2")).toMatchObject({ ok: false, error: { path: "Vpcs" } });
});
