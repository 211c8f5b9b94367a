/** What we ask of EC2 and IMDS and what they answer, as plain values. `aws` speaks it, `agent` uses it, a simulator can play it. */
import type { Cidr4, Ipv4 } from "../../lib/ip.ts";
import type { Result } from "../../lib/result.ts";
import type { WallTime } from "../../lib/time.ts";
import type { AttachmentId, EniId, EniSlot, Mac, SecurityGroupId, SubnetId } from "./eni.ts";
import type { Instance, InstanceId, InstanceLimits } from "./instance.ts";

/**
 * Why an EC2 call has no good answer, sorted once, at the edge that knows the codes.
 * Only `in-doubt` may have happened all the same: the answer was lost, late or unreadable.
 */
export type Ec2FailureKind =
  | "throttled" // RequestLimitExceeded and kin: come again later.
  | "subnet-exhausted"
  | "prefixes-exhausted" // No aligned free /28, though single addresses may be free.
  | "address-limit" // The ENI is full: our view of it is old.
  | "eni-limit" // The instance, or the Region, has no room for another ENI.
  | "gone" // The ENI, attachment, address, subnet, group or instance is not there.
  | "in-use" // The ENI is attached or still detaching; the device index is taken.
  | "denied" // UnauthorizedOperation, credentials refused or expired.
  | "failing" // EC2 answered with a server error, or could not be reached: nothing happened.
  | "invalid" // EC2 calls our request wrong: a defect of ours, or a setting.
  | "in-doubt";

export type Ec2Failure = {
  readonly kind: Ec2FailureKind;
  readonly operation: string; // EC2's own name: "AssignPrivateIpAddresses".
  readonly code: string; // EC2's code, or "Timeout", "ConnectionReset", …
  readonly message: string;
  readonly requestId: string | null;
};

/** An ENI as EC2 describes it now (DescribeNetworkInterfaces): facts, without our beliefs about its addresses. */
export type EniSeen = {
  readonly id: EniId;
  readonly mac: Mac;
  readonly status: "pending" | "available" | "associated" | "attaching" | "in-use" | "detaching";
  readonly subnetId: SubnetId;
  readonly description: string;
  readonly interfaceType: string; // "interface", "efa", "efa-only", "trunk", "branch", …
  readonly requesterManaged: boolean;
  readonly securityGroups: readonly SecurityGroupId[];
  readonly tags: ReadonlyMap<string, string>;
  readonly primaryIp: Ipv4 | null; // Null on an IPv6-only ENI.
  readonly secondaryIps: readonly Ipv4[];
  readonly prefixes: readonly Cidr4[];
  readonly attachment: {
    readonly id: AttachmentId;
    readonly instanceId: InstanceId | null;
    readonly slot: EniSlot;
    readonly status: "attaching" | "attached" | "detaching" | "detached";
    readonly deleteOnTermination: boolean;
  } | null;
};

export type SubnetSeen = {
  readonly id: SubnetId;
  readonly cidr: Cidr4;
  readonly availableAddressCount: number;
  readonly availabilityZone: string;
  readonly tags: ReadonlyMap<string, string>;
};

type Answer<T> = Promise<Result<T, Ec2Failure>>;

/** The calls. Each has its own deadline and paces itself; none retries a call whose outcome is unknown. */
export type Ec2 = {
  /** Every ENI attached to the instance, foreign ones too. DescribeNetworkInterfaces by attachment.instance-id. */
  readonly describeInstanceEnis: (instance: InstanceId) => Answer<readonly EniSeen[]>;
  /** Those of `ids` that exist; an unknown id is left out, not an error. By filter network-interface-id. */
  readonly describeEnis: (ids: readonly EniId[]) => Answer<readonly EniSeen[]>;
  /** ENIs that carry this instance's owner tag, attached or not. By tag node.k8s.amazonaws.com/instance_id. */
  readonly describeOwnedEnis: (instance: InstanceId) => Answer<readonly EniSeen[]>;
  /** Unattached ENIs of this cluster by description prefix and (with a cluster name) tag: candidates for the leak sweep. */
  readonly describeLooseEnis: (vpcId: string) => Answer<readonly EniSeen[]>;
  readonly describeInstanceLimits: (type: string) => Answer<InstanceLimits>;
  readonly describeSubnets: (ids: readonly SubnetId[]) => Answer<readonly SubnetSeen[]>;
  readonly describeVpcCidrs: (vpcId: string) => Answer<readonly Cidr4[]>;
  readonly createEni: (request: CreateEniRequest) => Answer<EniSeen>;
  readonly attachEni: (request: {
    readonly eni: EniId;
    readonly instance: InstanceId;
    readonly slot: EniSlot;
  }) => Answer<AttachmentId>;
  readonly setDeleteOnTermination: (eni: EniId, attachment: AttachmentId) => Answer<null>;
  readonly setSecurityGroups: (eni: EniId, groups: readonly SecurityGroupId[]) => Answer<null>;
  readonly detachEni: (attachment: AttachmentId) => Answer<null>;
  readonly deleteEni: (eni: EniId) => Answer<null>;
  /** The addresses that EC2 says it assigned. LocalStack lists all the ENI has: transitions leave known ones alone. */
  readonly assignAddresses: (eni: EniId, count: number) => Answer<readonly Ipv4[]>;
  readonly assignPrefixes: (eni: EniId, count: number) => Answer<readonly Cidr4[]>;
  readonly unassignAddresses: (eni: EniId, ips: readonly Ipv4[]) => Answer<null>;
  readonly unassignPrefixes: (eni: EniId, prefixes: readonly Cidr4[]) => Answer<null>;
  readonly tagEni: (eni: EniId, tags: ReadonlyMap<string, string>) => Answer<null>;
};

export type CreateEniRequest = {
  readonly instance: InstanceId;
  readonly subnetId: SubnetId;
  readonly securityGroups: readonly SecurityGroupId[];
  readonly addressCount: number;
  readonly prefixCount: number;
  readonly clientToken: string;
  readonly createdAt: WallTime; // Goes into the tag node.k8s.amazonaws.com/createdAt.
};

/** One ENI as IMDS lists it. IMDS lags behind EC2 both ways; EC2 decides where they differ. */
export type ImdsEni = {
  readonly id: EniId;
  readonly mac: Mac;
  readonly slot: EniSlot;
  readonly subnetId: SubnetId;
  readonly subnetCidr: Cidr4;
  readonly localIps: readonly Ipv4[]; // The ENI's own address first.
  readonly prefixes: readonly Cidr4[];
  readonly securityGroups: readonly SecurityGroupId[];
};

export type ImdsFailure = {
  readonly kind: "unreachable" | "absurd" | "refused";
  readonly path: string;
  readonly detail: string;
};

export type Imds = {
  /** Who we are. `limits` is not IMDS's to tell, so it is absent. */
  readonly readInstance: () => Promise<Result<Omit<Instance, "limits">, ImdsFailure>>;
  readonly readEnis: () => Promise<Result<readonly ImdsEni[], ImdsFailure>>;
};
