/**
 * Where LocalStack is not EC2: what was asked, what LocalStack answers, what EC2 does. Each row is tried on both, LocalStack and our
 * emulator, so it says who is right, and fails on the day when LocalStack is. localstack/differences.md is made from these rows.
 */
import {
  AssignPrivateIpAddressesCommand,
  AttachNetworkInterfaceCommand,
  CreateNetworkInterfaceCommand,
  type CreateNetworkInterfaceCommandInput,
  CreateTagsCommand,
  DeleteNetworkInterfaceCommand,
  DeleteSubnetCommand,
  DescribeInstancesCommand,
  DescribeNetworkInterfacesCommand,
  DescribeSubnetsCommand,
  type EC2Client,
  ModifyNetworkInterfaceAttributeCommand,
  type NetworkInterface,
  RunInstancesCommand,
  TerminateInstancesCommand,
  UnassignPrivateIpAddressesCommand,
} from "@aws-sdk/client-ec2";
import { said } from "../../localstack/seed.ts";

/** A VPC 10.0.0.0/16 with two m5.large in one subnet, and a small subnet; all a row may do it does through `ec2`. */
export type Stage = {
  readonly ec2: EC2Client;
  readonly subnetId: string; // 10.0.0.0/20
  readonly smallSubnetId: string; // A /28.
  readonly instanceId: string;
  readonly otherInstanceId: string;
  /** Lets everything settle that takes time. */
  readonly settle: () => Promise<void>;
};

export type Difference = {
  readonly call: string;
  readonly asked: string;
  /** Tells in one word or code what came of it. */
  readonly observe: (stage: Stage) => Promise<string>;
  readonly localstack: string;
  readonly ec2: string;
};

const NO_ENI = "eni-0123456789abcdef0";

export const DIFFERENCES: readonly Difference[] = [
  {
    call: "RunInstances",
    asked: "a type that does not exist",
    observe: ({ ec2, subnetId }) =>
      outcome(async () => {
        const type = "m5.lage" as "m5.large"; // The point of the row.
        const one = { ImageId: "ami-0123456789abcdef0", MinCount: 1, MaxCount: 1, SubnetId: subnetId };
        await ec2.send(new RunInstancesCommand({ ...one, InstanceType: type }));
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "CreateNetworkInterface",
    asked: "an address that another ENI has",
    observe: (stage) =>
      outcome(async () => {
        await create(stage, { PrivateIpAddress: "10.0.5.5" });
        await create(stage, { PrivateIpAddress: "10.0.5.5" });
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "InvalidIPAddress.InUse",
  },
  {
    call: "CreateNetworkInterface",
    asked: "an address outside the subnet",
    observe: (stage) =>
      outcome(async () => (await create(stage, { PrivateIpAddress: "10.0.99.5" }), "accepted")),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "CreateNetworkInterface",
    asked: "the router's address",
    observe: (stage) =>
      outcome(async () => (await create(stage, { PrivateIpAddress: "10.0.0.1" }), "accepted")),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "CreateNetworkInterface",
    asked: "an unknown security group",
    observe: (stage) =>
      outcome(async () => (await create(stage, { Groups: ["sg-0123456789abcdef0"] }), "invented")),
    localstack: "invented",
    ec2: "InvalidGroup.NotFound",
  },
  {
    call: "CreateNetworkInterface",
    asked: "the same ClientToken twice",
    observe: (stage) =>
      outcome(async () => {
        const token = { ClientToken: "once-only", Description: "same" };
        const [first, second] = [await create(stage, token), await create(stage, token)];
        return first.NetworkInterfaceId === second.NetworkInterfaceId ? "one ENI" : "two ENIs";
      }),
    localstack: "two ENIs",
    ec2: "one ENI",
  },
  {
    call: "CreateNetworkInterface",
    asked: "the state in the answer",
    observe: (stage) => outcome(async () => (await create(stage, {})).Status ?? "none"),
    localstack: "available",
    ec2: "pending",
  },
  {
    call: "CreateNetworkInterface",
    asked: "one IPv4 prefix",
    observe: (stage) =>
      outcome(
        async () => `${(await create(stage, { Ipv4PrefixCount: 1 })).Ipv4Prefixes?.length ?? 0} prefixes`,
      ),
    localstack: "0 prefixes",
    ec2: "1 prefixes",
  },
  {
    call: "CreateNetworkInterface",
    asked: "more addresses than any type can carry (70)",
    observe: (stage) =>
      outcome(async () => (await create(stage, { SecondaryPrivateIpAddressCount: 70 }), "accepted")),
    localstack: "accepted",
    ec2: "PrivateIpAddressLimitExceeded",
  },
  {
    call: "AttachNetworkInterface",
    asked: "a device index that is taken",
    observe: (stage) =>
      outcome(async () => {
        await attach(stage, await createId(stage), 1);
        await attach(stage, await createId(stage), 1);
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "AttachNetworkInterface",
    asked: "a fourth ENI on a type for three",
    observe: (stage) =>
      outcome(async () => {
        for (const index of [1, 2, 3]) await attach(stage, await createId(stage), index);
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "AttachmentLimitExceeded",
  },
  {
    call: "AttachNetworkInterface",
    asked: "an ENI that is on another instance",
    observe: (stage) =>
      outcome(async () => {
        const eni = await createId(stage);
        await attach(stage, eni, 1);
        await attach({ ...stage, instanceId: stage.otherInstanceId }, eni, 1);
        return (await describe(stage, eni)).Attachment?.InstanceId === stage.otherInstanceId
          ? "moved"
          : "accepted";
      }),
    localstack: "moved",
    ec2: "InvalidNetworkInterface.InUse",
  },
  {
    call: "ModifyNetworkInterfaceAttribute",
    asked: "DeleteOnTermination",
    observe: (stage) =>
      outcome(async () => {
        const eni = await createId(stage);
        const AttachmentId = await attach(stage, eni, 1);
        await stage.settle();
        const Attachment = { AttachmentId, DeleteOnTermination: true };
        await stage.ec2.send(
          new ModifyNetworkInterfaceAttributeCommand({ NetworkInterfaceId: eni, Attachment }),
        );
        return (await describe(stage, eni)).Attachment?.DeleteOnTermination === true ? "set" : "forgotten";
      }),
    localstack: "forgotten",
    ec2: "set",
  },
  {
    call: "AssignPrivateIpAddresses",
    asked: "what the answer lists",
    observe: (stage) =>
      outcome(async () => {
        const eni = await createId(stage);
        await assign(stage, eni, { SecondaryPrivateIpAddressCount: 2 });
        const listed = await assign(stage, eni, { SecondaryPrivateIpAddressCount: 1 });
        const { PrivateIpAddress } = await describe(stage, eni);
        return listed[0] === PrivateIpAddress
          ? `all ${listed.length}, the primary first`
          : `the ${listed.length} new`;
      }),
    localstack: "all 4, the primary first",
    ec2: "the 1 new",
  },
  {
    call: "AssignPrivateIpAddresses",
    asked: "an address of another ENI, without AllowReassignment",
    observe: (stage) =>
      outcome(async () => {
        const owner = await createId(stage);
        const [ip = ""] = (await assign(stage, owner, { PrivateIpAddresses: ["10.0.5.7"] })).slice(-1);
        await assign(stage, await createId(stage), { PrivateIpAddresses: [ip] });
        const seen = (await describe(stage, owner)).PrivateIpAddresses ?? [];
        return seen.some((each) => each.PrivateIpAddress === ip) ? "both have it" : "moved";
      }),
    localstack: "both have it",
    ec2: "InvalidParameterValue",
  },
  {
    call: "AssignPrivateIpAddresses",
    asked: "an address outside the subnet",
    observe: (stage) =>
      outcome(
        async () => (
          await assign(stage, await createId(stage), { PrivateIpAddresses: ["10.0.99.9"] }), "accepted"
        ),
      ),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "AssignPrivateIpAddresses",
    asked: "nothing",
    observe: (stage) => outcome(async () => (await assign(stage, await createId(stage), {}), "accepted")),
    localstack: "accepted",
    ec2: "InvalidParameter",
  },
  {
    call: "AssignPrivateIpAddresses",
    asked: "sixty addresses in a /28",
    observe: (stage) =>
      outcome(async () => {
        const eni = said((await create(stage, { SubnetId: stage.smallSubnetId })).NetworkInterfaceId);
        const listed = await assign(stage, eni, { SecondaryPrivateIpAddressCount: 60 });
        return new Set(listed).size < listed.length ? "some of them twice" : "sixty";
      }),
    localstack: "some of them twice",
    ec2: "InvalidParameterValue",
  },
  {
    call: "AssignPrivateIpAddresses",
    asked: "one IPv4 prefix",
    observe: (stage) =>
      outcome(async () => {
        const request = { NetworkInterfaceId: await createId(stage), Ipv4PrefixCount: 1 };
        const { AssignedIpv4Prefixes = [] } = await stage.ec2.send(
          new AssignPrivateIpAddressesCommand(request),
        );
        return `${AssignedIpv4Prefixes.length} prefixes`;
      }),
    localstack: "0 prefixes",
    ec2: "1 prefixes",
  },
  {
    call: "AssignPrivateIpAddresses",
    asked: "more than the attached type carries (10 on an m5.large)",
    observe: (stage) =>
      outcome(async () => {
        const eni = await createId(stage);
        await attach(stage, eni, 1);
        await assign(stage, eni, { SecondaryPrivateIpAddressCount: 10 });
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "PrivateIpAddressLimitExceeded",
  },
  {
    call: "UnassignPrivateIpAddresses",
    asked: "an address that the ENI has not",
    observe: (stage) =>
      outcome(async () => (await unassign(stage, await createId(stage), "10.0.7.7"), "accepted")),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "UnassignPrivateIpAddresses",
    asked: "the primary address",
    observe: (stage) =>
      outcome(async () => {
        const eni = await createId(stage);
        await unassign(stage, eni, said((await describe(stage, eni)).PrivateIpAddress));
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "DescribeNetworkInterfaces",
    asked: "pages of five",
    observe: (stage) =>
      outcome(async () => {
        for (let made = 0; made < 6; made += 1) await create(stage, {});
        const { NetworkInterfaces = [] } = await stage.ec2.send(
          new DescribeNetworkInterfacesCommand({ MaxResults: 5 }),
        );
        return NetworkInterfaces.length === 5 ? "five" : "all";
      }),
    localstack: "all",
    ec2: "five",
  },
  {
    call: "DescribeNetworkInterfaces",
    asked: "the filter attachment.status",
    observe: ({ ec2 }) =>
      outcome(async () => {
        const Filters = [{ Name: "attachment.status", Values: ["attached"] }];
        await ec2.send(new DescribeNetworkInterfacesCommand({ Filters }));
        return "answered";
      }),
    localstack: "InternalFailure",
    ec2: "answered",
  },
  {
    call: "DescribeNetworkInterfaces",
    asked: "a malformed id",
    observe: ({ ec2 }) =>
      outcome(async () => {
        await ec2.send(new DescribeNetworkInterfacesCommand({ NetworkInterfaceIds: ["eni-xyz"] }));
        return "answered";
      }),
    localstack: "InvalidNetworkInterfaceID.NotFound",
    ec2: "InvalidNetworkInterfaceId.Malformed",
  },
  {
    call: "DescribeInstances",
    asked: "the filter network-interface.network-interface-id",
    observe: ({ ec2 }) =>
      outcome(async () => {
        const Filters = [{ Name: "network-interface.network-interface-id", Values: [NO_ENI] }];
        await ec2.send(new DescribeInstancesCommand({ Filters }));
        return "answered";
      }),
    localstack: "InternalFailure",
    ec2: "answered",
  },
  {
    call: "DeleteNetworkInterface",
    asked: "an attached ENI",
    observe: (stage) =>
      outcome(async () => {
        const eni = await createId(stage);
        await attach(stage, eni, 1);
        await stage.settle();
        await stage.ec2.send(new DeleteNetworkInterfaceCommand({ NetworkInterfaceId: eni }));
        return "deleted";
      }),
    localstack: "deleted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "CreateTags",
    asked: "an ENI that does not exist",
    observe: ({ ec2 }) =>
      outcome(async () => {
        await ec2.send(new CreateTagsCommand({ Resources: [NO_ENI], Tags: [{ Key: "a", Value: "b" }] }));
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "InvalidNetworkInterfaceID.NotFound",
  },
  {
    call: "CreateTags",
    asked: "a key that is reserved for AWS",
    observe: (stage) =>
      outcome(async () => {
        const Tags = [{ Key: "aws:mine", Value: "b" }];
        await stage.ec2.send(new CreateTagsCommand({ Resources: [await createId(stage)], Tags }));
        return "accepted";
      }),
    localstack: "accepted",
    ec2: "InvalidParameterValue",
  },
  {
    call: "DescribeSubnets",
    asked: "the free addresses of a /28 after twelve ENIs",
    observe: (stage) =>
      outcome(async () => {
        for (let made = 0; made < 12; made += 1) await create(stage, { SubnetId: stage.smallSubnetId });
        const { Subnets } = await stage.ec2.send(
          new DescribeSubnetsCommand({ SubnetIds: [stage.smallSubnetId] }),
        );
        return (Subnets?.[0]?.AvailableIpAddressCount ?? 0) < 0 ? "fewer than none" : "none";
      }),
    localstack: "fewer than none",
    ec2: "InsufficientFreeAddressesInSubnet",
  },
  {
    call: "DeleteSubnet",
    asked: "a subnet with an ENI in it",
    observe: (stage) =>
      outcome(async () => {
        await create(stage, { SubnetId: stage.smallSubnetId });
        await stage.ec2.send(new DeleteSubnetCommand({ SubnetId: stage.smallSubnetId }));
        return "deleted";
      }),
    localstack: "deleted",
    ec2: "DependencyViolation",
  },
  {
    call: "TerminateInstances",
    asked: "an ENI that outlives its instance",
    observe: (stage) =>
      outcome(async () => {
        const eni = await createId(stage);
        await attach(stage, eni, 1);
        await stage.settle();
        await stage.ec2.send(new TerminateInstancesCommand({ InstanceIds: [stage.instanceId] }));
        await stage.settle();
        return (await describe(stage, eni)).Status ?? "none";
      }),
    localstack: "in-use",
    ec2: "available",
  },
];

// --- Steps of the rows -------------------------------------------------------------------------------------------------

/** What `steps` say, or the code with which one of them was refused. */
async function outcome(steps: () => Promise<string>): Promise<string> {
  try {
    return await steps();
  } catch (error) {
    if (error instanceof Error && "$metadata" in error) return error.name; // The SDK's name of a service error is EC2's code.
    throw error;
  }
}

async function create(
  { ec2, subnetId }: Stage,
  more: Omit<CreateNetworkInterfaceCommandInput, "SubnetId"> & { readonly SubnetId?: string },
): Promise<NetworkInterface> {
  return said(
    (await ec2.send(new CreateNetworkInterfaceCommand({ SubnetId: subnetId, ...more }))).NetworkInterface,
  );
}

async function createId(stage: Stage): Promise<string> {
  return said((await create(stage, {})).NetworkInterfaceId);
}

async function attach({ ec2, instanceId }: Stage, eni: string, deviceIndex: number): Promise<string> {
  const slot = { NetworkInterfaceId: eni, InstanceId: instanceId, DeviceIndex: deviceIndex };
  return said((await ec2.send(new AttachNetworkInterfaceCommand(slot))).AttachmentId);
}

async function describe({ ec2 }: Stage, eni: string): Promise<NetworkInterface> {
  const asked = new DescribeNetworkInterfacesCommand({ NetworkInterfaceIds: [eni] });
  return said((await ec2.send(asked)).NetworkInterfaces?.[0]);
}

async function assign(
  { ec2 }: Stage,
  eni: string,
  what: { readonly SecondaryPrivateIpAddressCount?: number; readonly PrivateIpAddresses?: string[] },
): Promise<readonly string[]> {
  const answer = await ec2.send(new AssignPrivateIpAddressesCommand({ NetworkInterfaceId: eni, ...what }));
  return (answer.AssignedPrivateIpAddresses ?? []).map(({ PrivateIpAddress }) => said(PrivateIpAddress));
}

async function unassign({ ec2 }: Stage, eni: string, ip: string): Promise<void> {
  await ec2.send(
    new UnassignPrivateIpAddressesCommand({ NetworkInterfaceId: eni, PrivateIpAddresses: [ip] }),
  );
}

/** localstack/differences.md as it should stand on disk. */
export function differencesPage(): string {
  return `${[
    "# Where LocalStack is not EC2",
    "",
    "LocalStack 4.14.0 keeps records in EC2's wire format; it is no simulator of EC2. Each row is a test in `test/localstack/differences.test.ts`,",
    "made from the rows of `test/localstack/differences.ts` as this page is. A row is asked of LocalStack and of our own emulator: it fails on the day",
    "when LocalStack has come to do what EC2 does. The daemon is not bent for any of them; what it has to withstand is told below.",
    "",
    "| call | asked | LocalStack | EC2 |",
    "| --- | --- | --- | --- |",
    ...DIFFERENCES.map(
      ({ call, asked, localstack, ec2 }) => `| ${call} | ${asked} | ${localstack} | ${ec2} |`,
    ),
    ...HANGS.map(({ call, asked, localstack, ec2 }) => `| ${call} | ${asked} | ${localstack} | ${ec2} |`),
    "",
    "What the daemon withstands:",
    "",
    "- Assign's answer lists every address of the ENI: none that is known, and never the node's own, enters the pool.",
    "- Two ENIs may get the same address: subnets are seeded as wide as EC2 allows, and a collision is told by the test that meets it.",
    "- DeleteOnTermination is forgotten: the daemon asks again at each look, and works on.",
    "- A call that never ends is cut by the daemon's own deadline and counts as in doubt.",
    "",
    "What this suite therefore cannot prove stands in the emulator's own tests: limits, exhaustion, prefixes, conflicts, `pending` and `detaching`,",
    "paging, throttling, lag, client tokens. LocalStack has no metadata service and no packets: both are ours, fed from its describes (`world.ts`).",
  ].join("\n")}\n`;
}

/** Shown on a server of its own, which is killed afterwards: one core is busy for ever. */
export const HANGS: readonly Omit<Difference, "observe">[] = [
  {
    call: "AssignPrivateIpAddresses",
    asked: "more, where the ENI has every address of its subnet",
    localstack: "never answers",
    ec2: "InvalidParameterValue",
  },
];
