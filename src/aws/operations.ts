/**
 * Every EC2 operation that the node calls, once. The IAM policy, the permissions page, the pace of each operation and the
 * advice for an operator who lacks a right are all made from these rows; a call that has no row does not compile.
 */

export type Ec2Operation =
  | "DescribeNetworkInterfaces"
  | "DescribeInstanceTypes"
  | "DescribeSubnets"
  | "DescribeVpcs"
  | "CreateNetworkInterface"
  | "AttachNetworkInterface"
  | "ModifyNetworkInterfaceAttribute"
  | "DetachNetworkInterface"
  | "DeleteNetworkInterface"
  | "AssignPrivateIpAddresses"
  | "UnassignPrivateIpAddresses"
  | "CreateTags";

export type Ec2OperationRow = {
  readonly operation: Ec2Operation;
  readonly action: `ec2:${Ec2Operation}`;
  /** A mutating call whose answer is lost may have happened all the same. */
  readonly mutating: boolean;
  /** What the IAM statement is bound to. EC2 has no resource-level rights for the Describe calls. */
  readonly resource: "*" | "network-interface";
  readonly why: string;
  /** What the node does less well without this right. It never stops for one. */
  readonly without: string;
  /** Whether AWS's managed policy AmazonEKS_CNI_Policy grants it, so that a migrated cluster needs nothing new. */
  readonly inManagedPolicy: boolean;
};

export const EC2_OPERATIONS: readonly Ec2OperationRow[] = [
  {
    operation: "DescribeNetworkInterfaces",
    action: "ec2:DescribeNetworkInterfaces",
    mutating: false,
    resource: "*",
    why: "reads the ENIs of the instance with their addresses, prefixes, tags and attachments, and finds leaked ones",
    without:
      "the pool neither grows nor shrinks, and nothing is swept: the node serves the addresses that the instance metadata lists",
    inManagedPolicy: true,
  },
  {
    operation: "DescribeInstanceTypes",
    action: "ec2:DescribeInstanceTypes",
    mutating: false,
    resource: "*",
    why: "reads how many ENIs and addresses an instance type allows, when the type is newer than the built-in table",
    without: "an instance type that the built-in table lacks gets no ENI beyond its first",
    inManagedPolicy: true,
  },
  {
    operation: "DescribeSubnets",
    action: "ec2:DescribeSubnets",
    mutating: false,
    resource: "*",
    why: "reads the range and the free addresses of the subnets that new ENIs may go to",
    without:
      "new ENIs go to the subnet of the primary ENI, and an exhausted subnet is noticed only by its refusal",
    inManagedPolicy: true,
  },
  {
    operation: "DescribeVpcs",
    action: "ec2:DescribeVpcs",
    mutating: false,
    resource: "*",
    why: "reads the ranges of the VPC, which some instance types list incompletely in their metadata",
    without:
      "the ranges come from the instance metadata alone: a range added later may be source-translated for a while",
    inManagedPolicy: false,
  },
  {
    operation: "CreateNetworkInterface",
    action: "ec2:CreateNetworkInterface",
    mutating: true,
    resource: "*",
    why: "makes a further ENI, with its first addresses or prefixes and its tags, when the attached ones are full",
    without: "the node has the addresses of its attached ENIs and no more",
    inManagedPolicy: true,
  },
  {
    operation: "AttachNetworkInterface",
    action: "ec2:AttachNetworkInterface",
    mutating: true,
    resource: "*",
    why: "attaches a new ENI to the instance",
    without: "the node has the addresses of its attached ENIs and no more",
    inManagedPolicy: true,
  },
  {
    operation: "ModifyNetworkInterfaceAttribute",
    action: "ec2:ModifyNetworkInterfaceAttribute",
    mutating: true,
    resource: "*",
    why: "lets an attached ENI go with its instance (DeleteOnTermination), and keeps its security groups those of the primary ENI",
    without:
      "ENIs outlive a terminated instance until a sweep finds them, and changed security groups do not reach pods on them",
    inManagedPolicy: true,
  },
  {
    operation: "DetachNetworkInterface",
    action: "ec2:DetachNetworkInterface",
    mutating: true,
    resource: "*",
    why: "gives an empty ENI back when the pool is larger than its target",
    without: "the node keeps every ENI that it once attached",
    inManagedPolicy: true,
  },
  {
    operation: "DeleteNetworkInterface",
    action: "ec2:DeleteNetworkInterface",
    mutating: true,
    resource: "*",
    why: "deletes an ENI after its detach, one that could not be attached, and leaked ones",
    without: "unattached ENIs stay, with the subnet addresses that they hold",
    inManagedPolicy: true,
  },
  {
    operation: "AssignPrivateIpAddresses",
    action: "ec2:AssignPrivateIpAddresses",
    mutating: true,
    resource: "*",
    why: "puts further addresses or /28 prefixes on an attached ENI that has room",
    without: "an attached ENI keeps the addresses that it was created with",
    inManagedPolicy: true,
  },
  {
    operation: "UnassignPrivateIpAddresses",
    action: "ec2:UnassignPrivateIpAddresses",
    mutating: true,
    resource: "*",
    why: "gives warm addresses or empty prefixes back to the subnet when the pool is larger than its target",
    without: "the node keeps every address until the whole ENI can go",
    inManagedPolicy: true,
  },
  {
    operation: "CreateTags",
    action: "ec2:CreateTags",
    mutating: true,
    resource: "network-interface",
    why: "tags ENIs with their instance, cluster and time of creation, in the call that creates them and later",
    without:
      "EC2 refuses to create tagged ENIs, so the node has the addresses of its attached ENIs and no more",
    inManagedPolicy: true,
  },
];

const rowsByOperation: ReadonlyMap<string, Ec2OperationRow> = new Map(
  EC2_OPERATIONS.map((row) => [row.operation, row]),
);

export function operationRow(operation: Ec2Operation): Ec2OperationRow {
  const row = rowsByOperation.get(operation);
  if (row === undefined) throw new Error(`broken promise: ${operation} has no row in EC2_OPERATIONS`);
  return row;
}

export type PolicyDocument = {
  readonly Version: "2012-10-17";
  readonly Statement: readonly {
    readonly Sid: string;
    readonly Effect: "Allow";
    readonly Action: readonly string[];
    readonly Resource: string;
  }[];
};

/** The IAM policy for the node's role. `partition` is `aws`, `aws-cn` or `aws-us-gov`. */
export function policyDocument(partition = "aws"): PolicyDocument {
  const actions = (resource: Ec2OperationRow["resource"]): string[] =>
    EC2_OPERATIONS.filter((row) => row.resource === resource)
      .map((row) => row.action)
      .sort();
  return {
    Version: "2012-10-17",
    Statement: [
      { Sid: "BerthEnisAndAddresses", Effect: "Allow", Action: actions("*"), Resource: "*" },
      {
        Sid: "BerthEniTags",
        Effect: "Allow",
        Action: actions("network-interface"),
        Resource: `arn:${partition}:ec2:*:*:network-interface/*`,
      },
    ],
  };
}

/** docs/reference/permissions.md as it should stand on disk. */
export function permissionsPage(): string {
  const rows = EC2_OPERATIONS.map(
    (row) => `| \`${row.action}\` | ${row.why} | ${row.without} | ${row.inManagedPolicy ? "yes" : "no"} |`,
  );
  return `${[
    "# Permissions",
    "",
    "What the node's role may ask of EC2, made from `EC2_OPERATIONS` in `src/aws/operations.ts` (a test holds this page to it).",
    "A missing right degrades one feature, as told in the third column; it never stops the daemon.",
    "The last column tells whether the managed policy `AmazonEKS_CNI_Policy` grants it.",
    "",
    "| Action | Why | Without it | Managed policy |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
    "## IAM policy",
    "",
    "In the partitions `aws-cn` and `aws-us-gov` the resource name begins with `arn:aws-cn:` or `arn:aws-us-gov:`.",
    "",
    "```json",
    JSON.stringify(policyDocument(), null, 2),
    "```",
    "",
    "Nothing else is called: instance metadata needs no right, and credentials by web identity need only the role's own trust policy.",
  ].join("\n")}\n`;
}
