/** The EC2 instance that we run on: what its type allows, and what does not change while it runs. */
import type { Brand } from "../../lib/brand.ts";
import type { Cidr4, Ipv4 } from "../../lib/ip.ts";
import type { Mac, SecurityGroupId, SubnetId } from "./eni.ts";

export type InstanceId = Brand<string, "InstanceId">; // i-…

/** What an instance type allows. Source: the generated table in instance-limits.ts, or EC2 DescribeInstanceTypes for a type it lacks. */
export type InstanceLimits = {
  readonly addressesPerEni: number; // IPv4, the ENI's own address included; a /28 prefix costs one of them.
  readonly networkCards: readonly { readonly enis: number }[]; // By network card index; the primary ENI counts on card 0.
  readonly nitro: boolean; // Prefix delegation needs Nitro.
};

/** The instance we run on. What is here does not change while it runs, but for the VPC's CIDRs, which can grow. */
export type Instance = {
  readonly id: InstanceId;
  readonly type: string;
  readonly region: string;
  readonly availabilityZone: string;
  readonly vpcId: string;
  readonly vpcCidrs: readonly Cidr4[];
  readonly primaryMac: Mac;
  readonly primaryIp: Ipv4;
  readonly primarySubnet: SubnetId;
  readonly securityGroups: readonly SecurityGroupId[]; // Of the primary ENI; new ENIs get the same.
  readonly limits: InstanceLimits;
};

export function eniCountMax(limits: InstanceLimits): number {
  return limits.networkCards.reduce((sum, card) => sum + card.enis, 0);
}
