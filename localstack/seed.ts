/** What a test finds in LocalStack before the daemon comes: an account of its own with a VPC, wide subnets, a group, and instances. */
import {
  AssociateVpcCidrBlockCommand,
  CreateSecurityGroupCommand,
  CreateSubnetCommand,
  CreateVpcCommand,
  EC2Client,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";

/** A 12-digit access key id is an account number to LocalStack: whoever has a fresh one sees nobody else's world. */
export type Account = { readonly id: string; readonly ec2: EC2Client };

export const REGION = "eu-west-1";
let accounts = 0;

export function freshAccount(url: string): Account {
  accounts += 1;
  const id = `${process.pid % 1_000_000}`.padStart(6, "1").padEnd(8, "0") + `${accounts}`.padStart(4, "0");
  const credentials = { accessKeyId: id, secretAccessKey: "unchecked" };
  return { id, ec2: new EC2Client({ endpoint: url, region: REGION, maxAttempts: 1, credentials }) };
}

export type Network = {
  readonly vpcId: string;
  readonly cidrs: readonly string[];
  readonly groupId: string;
  /** For instances and their primary ENIs. */
  readonly subnetId: string;
  readonly subnetCidr: string;
  /** Another one, in the VPC's second range, in the same zone. */
  readonly otherSubnetId: string;
  readonly otherSubnetCidr: string;
};

/**
 * Subnets are as wide as EC2 allows: LocalStack draws addresses at random and never looks whether one is taken, so in a small subnet two
 * ENIs would soon have the same.
 */
export async function seedNetwork(account: Account, subnetCidr = "10.0.0.0/16"): Promise<Network> {
  const { ec2 } = account;
  const cidrs = ["10.0.0.0/16", "10.1.0.0/16"] as const;
  const vpcId = said((await ec2.send(new CreateVpcCommand({ CidrBlock: cidrs[0] }))).Vpc?.VpcId);
  await ec2.send(new AssociateVpcCidrBlockCommand({ VpcId: vpcId, CidrBlock: cidrs[1] }));
  const group = { GroupName: "nodes", Description: "nodes and pods", VpcId: vpcId };
  const otherSubnetCidr = "10.1.16.0/20"; // The range has room for a test's own.
  return {
    vpcId,
    cidrs,
    otherSubnetCidr,
    subnetId: await seedSubnet(account, { vpcId }, subnetCidr),
    subnetCidr,
    otherSubnetId: await seedSubnet(account, { vpcId }, otherSubnetCidr),
    groupId: said((await ec2.send(new CreateSecurityGroupCommand(group))).GroupId),
  };
}

export async function seedSubnet(
  { ec2 }: Account,
  { vpcId }: Pick<Network, "vpcId">,
  cidr: string,
): Promise<string> {
  const zone = { VpcId: vpcId, CidrBlock: cidr, AvailabilityZone: `${REGION}a` };
  return said((await ec2.send(new CreateSubnetCommand(zone))).Subnet?.SubnetId);
}

export type Instance = { readonly instanceId: string; readonly primary: string };

/** One instance. Its address is explicit, so that what the seed itself makes never collides. */
export async function launch(
  { ec2 }: Account,
  network: Network,
  options: { readonly type: string; readonly primary: string },
): Promise<Instance> {
  const launched = await ec2.send(
    new RunInstancesCommand({
      ImageId: "ami-0123456789abcdef0",
      InstanceType: options.type as "m5.large", // Whatever it is: LocalStack takes any.
      MinCount: 1,
      MaxCount: 1,
      NetworkInterfaces: [
        {
          DeviceIndex: 0,
          SubnetId: network.subnetId,
          PrivateIpAddress: options.primary,
          Groups: [network.groupId],
          DeleteOnTermination: true,
        },
      ],
    }),
  );
  return { instanceId: said(launched.Instances?.[0]?.InstanceId), primary: options.primary };
}

/** What an answer must have said. */
export function said<T>(value: T | undefined | null): T {
  if (value === undefined || value === null) throw new Error("LocalStack left out what the test stands on");
  return value;
}
