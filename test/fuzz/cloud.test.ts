// What IMDS and EC2 answer: garbage is told as absurd, never guessed at, and ids have their form before anything is done with them.
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
import { readEnis, readInstance } from "../../src/aws/imds.ts";
import type { EniSeen } from "../../src/core/model/ec2.ts";
import type { EniId } from "../../src/core/model/eni.ts";
import type { InstanceId } from "../../src/core/model/instance.ts";
import { parseIpv4 } from "../../src/lib/ip.ts";
import { ok } from "../../src/lib/result.ts";
import { keys, rig } from "../aws/setup.ts";
import { scriptedServer } from "../support/scripted-server.ts";
import { arbMutatedBytes, arbMutatedJson, FUZZ_TIMEOUT_MS, fuzzing, withCoverage } from "./tools.ts";

const ENI = "eni-0123456789abcdef0" as EniId; // Of its form.
const ID = /^(eni|subnet|sg|i|eni-attach|ela-attach)-[0-9A-Za-z-]{1,62}$/;
const eni = {
  NetworkInterfaceId: ENI,
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
};
const samples = [
  { NetworkInterfaces: [eni, { ...eni, NetworkInterfaceId: "eni-1" }], NextToken: "more" },
  { NetworkInterface: eni },
  {
    Subnets: [
      {
        SubnetId: "subnet-1",
        CidrBlock: "10.0.0.0/24",
        AvailableIpAddressCount: 9,
        AvailabilityZone: "a",
        Tags: [],
      },
    ],
  },
  {
    Vpcs: [
      {
        VpcId: "vpc-1",
        CidrBlock: "10.0.0.0/16",
        CidrBlockAssociationSet: [{ CidrBlock: "100.64.0.0/16", CidrBlockState: { State: "associated" } }],
      },
    ],
  },
  {
    InstanceTypes: [
      {
        InstanceType: "m5.large",
        Hypervisor: "nitro",
        NetworkInfo: {
          Ipv4AddressesPerInterface: 10,
          MaximumNetworkInterfaces: 3,
          NetworkCards: [{ NetworkCardIndex: 0, MaximumNetworkInterfaces: 3 }],
        },
      },
    ],
  },
  { AttachmentId: "eni-attach-0a" },
  {
    NetworkInterfaceId: ENI,
    AssignedPrivateIpAddresses: [{ PrivateIpAddress: "10.0.0.9" }],
    AssignedIpv4Prefixes: [{ Ipv4Prefix: "10.0.1.16/28" }],
  },
];

function believable(seen: EniSeen): void {
  const ids = [
    seen.id,
    seen.subnetId,
    ...seen.securityGroups,
    ...(seen.attachment === null ? [] : [seen.attachment.id]),
  ];
  for (const id of ids) expect(id).toMatch(ID);
  expect(seen.mac).toMatch(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
  for (const ip of [...seen.secondaryIps, ...(seen.primaryIp === null ? [] : [seen.primaryIp])])
    expect(parseIpv4(ip).ok).toBe(true);
  for (const prefix of seen.prefixes) expect(prefix.prefixLength).toBe(28);
  if (seen.attachment !== null) expect(seen.attachment.slot.deviceIndex).toBeLessThanOrEqual(1_000);
}

test("no answer of EC2 brings its decoders down, and what they let through has its form", {
  timeout: FUZZ_TIMEOUT_MS,
}, async () => {
  await withCoverage(["src/aws/decode.ts"], () =>
    fc.assert(
      fc.property(arbMutatedJson(samples), (answer) => {
        const page = decodeEniPage(answer);
        if (page.ok) for (const seen of page.value.items) believable(seen);
        const created = decodeCreatedEni(answer);
        if (created.ok) believable(created.value);
        const subnets = decodeSubnetPage(answer);
        if (subnets.ok)
          for (const { id, availableAddressCount } of subnets.value.items)
            expect([ID.test(id), availableAddressCount >= 0]).toEqual([true, true]);
        const limits = decodeInstanceLimits(answer, "m5.large");
        if (limits.ok) expect(limits.value.addressesPerEni).toBeLessThanOrEqual(1_000);
        decodeVpcCidrs(answer, "vpc-1");
        const attachment = decodeAttachmentId(answer);
        if (attachment.ok) expect(attachment.value).toMatch(ID);
        const ips = decodeAssignedAddresses(answer, ENI);
        if (ips.ok) expect(new Set(ips.value).size).toBe(ips.value.length);
        decodeAssignedPrefixes(answer, ENI);
      }),
      fuzzing(),
    ),
  );
});

const MAC = "02:00:00:00:00:01";
const folder = `meta-data/network/interfaces/macs/${MAC}`;
const items: Readonly<Record<string, string>> = {
  "meta-data/instance-id": "i-0123456789abcdef0",
  "meta-data/instance-type": "m5.large",
  "meta-data/placement/region": "eu-west-1",
  "meta-data/placement/availability-zone": "eu-west-1a",
  "meta-data/mac": MAC,
  "meta-data/network/interfaces/macs/": `${MAC}/\n`,
  [`${folder}/interface-id`]: "eni-aaaa1",
  [`${folder}/device-number`]: "0",
  [`${folder}/network-card`]: "0",
  [`${folder}/subnet-id`]: "subnet-1",
  [`${folder}/subnet-ipv4-cidr-block`]: "10.0.0.0/24",
  [`${folder}/vpc-id`]: "vpc-1",
  [`${folder}/vpc-ipv4-cidr-blocks`]: "10.0.0.0/16\n100.64.0.0/16",
  [`${folder}/local-ipv4s`]: "10.0.0.10\n10.0.0.11",
  [`${folder}/ipv4-prefix`]: "10.0.1.16/28",
  [`${folder}/security-group-ids`]: "sg-1\nsg-2",
};

test("no answers of IMDS bring their readers down, and what they let through has its form", {
  timeout: FUZZ_TIMEOUT_MS,
}, async () => {
  await withCoverage(["src/aws/imds.ts"], () =>
    fc.assert(
      fc.asyncProperty(arbMutatedJson([items]), async (mutated) => {
        const table = new Map(Object.entries((mutated ?? {}) as Record<string, unknown>));
        const read = async (path: string) => {
          const value = table.get(path);
          return await Promise.resolve(
            ok(typeof value === "string" ? value : value === undefined ? null : JSON.stringify(value)),
          );
        };
        const instance = await readInstance(read);
        if (instance.ok) {
          expect(instance.value.id).toMatch(ID);
          expect(instance.value.type).toMatch(/^[a-z0-9.-]{3,65}$/);
          expect(instance.value.region).toMatch(/^[a-z0-9-]{4,40}$/);
          expect(instance.value.vpcCidrs.length).toBeGreaterThan(0);
        }
        const enis = await readEnis(read);
        if (!enis.ok) return;
        for (const { id, subnetId, securityGroups, localIps, prefixes } of enis.value) {
          for (const one of [id, subnetId, ...securityGroups]) expect(one).toMatch(ID);
          for (const ip of localIps) expect(parseIpv4(ip).ok).toBe(true);
          for (const prefix of prefixes) expect(prefix.prefixLength).toBe(28);
        }
      }),
      fuzzing(),
    ),
  );
});

test("no bytes that an EC2 endpoint sends bring the client down", { timeout: FUZZ_TIMEOUT_MS }, async () => {
  const xml = new TextEncoder().encode(
    `<?xml version="1.0"?><DescribeNetworkInterfacesResponse><requestId>r</requestId><networkInterfaceSet><item>` +
      `<networkInterfaceId>eni-0a</networkInterfaceId><macAddress>02:00:00:00:00:01</macAddress><status>in-use</status>` +
      `<subnetId>subnet-1</subnetId><interfaceType>interface</interfaceType></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>`,
  );
  const error = new TextEncoder().encode(
    "<Response><Errors><Error><Code>Unavailable</Code><Message>m</Message></Error></Errors><RequestID>r</RequestID></Response>",
  );
  let body: Uint8Array = xml;
  let status = 200;
  const server = await scriptedServer((_, response) => {
    response.statusCode = status;
    response.end(body);
  });
  const client = rig({ ...keys, AWS_ENDPOINT_URL_EC2: server.url });
  try {
    await fc.assert(
      fc.asyncProperty(
        arbMutatedBytes([xml, error]),
        fc.constantFrom(200, 200, 400, 403, 500, 503),
        async (bytes, code) => {
          [body, status] = [bytes, code];
          const answer = await client.ec2.describeInstanceEnis("i-0123456789abcdef0" as InstanceId); // Of its form.
          if (answer.ok) for (const seen of answer.value) believable(seen);
          else expect(answer.error.code).toMatch(/^[0-9A-Za-z._:?-]{1,100}$/);
        },
      ),
      { ...fuzzing(), numRuns: 300 }, // Each is a request or some: what the decoders get is fuzzed above.
    );
  } finally {
    client.close();
    await server.close();
  }
});
