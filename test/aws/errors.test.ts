import { expect, test } from "vitest";
import type { Ec2FailureKind } from "../../src/core/model/ec2.ts";
import { type Asked, mayBeStaleCredentials, sortFailure, type Trouble } from "../../src/aws/errors.ts";
import type { Ec2Operation } from "../../src/aws/operations.ts";

const trouble = (more: Partial<Trouble>): Trouble => ({
  operation: "AssignPrivateIpAddresses",
  asked: "other",
  sent: true,
  status: 400,
  code: null,
  symptom: "NoAnswer",
  message: "",
  requestId: "req-1",
  ...more,
});

// EC2's codes and texts as seen in the field; the situations are those that a pool of ENIs meets.
const table: readonly [
  situation: string,
  operation: Ec2Operation,
  asked: Asked,
  status: number,
  code: string,
  message: string,
  kind: Ec2FailureKind,
][] = [
  [
    "an empty bucket",
    "AttachNetworkInterface",
    "other",
    503,
    "RequestLimitExceeded",
    "Request limit exceeded.",
    "throttled",
  ],
  ["another throttle", "AttachNetworkInterface", "other", 400, "Throttling", "Rate exceeded", "throttled"],
  ["an overloaded EC2", "DescribeSubnets", "other", 503, "Unavailable", "", "failing"],
  [
    "a bug of EC2",
    "CreateNetworkInterface",
    "other",
    500,
    "InternalError",
    "An internal error has occurred",
    "failing",
  ],
  [
    "a server's code that is new to us",
    "CreateNetworkInterface",
    "other",
    500,
    "SomethingNew",
    "",
    "failing",
  ],
  [
    "a subnet without addresses",
    "CreateNetworkInterface",
    "addresses",
    400,
    "InsufficientFreeAddressesInSubnet",
    "The specified subnet does not have enough free addresses to satisfy the request.",
    "subnet-exhausted",
  ],
  [
    "fewer addresses than asked for",
    "AssignPrivateIpAddresses",
    "addresses",
    400,
    "InvalidParameterValue",
    "There aren't sufficient free Ipv4 addresses or prefixes",
    "subnet-exhausted",
  ],
  [
    "fewer prefixes than asked for",
    "AssignPrivateIpAddresses",
    "prefixes",
    400,
    "InvalidParameterValue",
    "There aren't sufficient free Ipv4 addresses or prefixes",
    "prefixes-exhausted",
  ],
  [
    "no aligned /28",
    "AssignPrivateIpAddresses",
    "prefixes",
    400,
    "InsufficientCidrBlocks",
    "The specified subnet does not have enough free cidr blocks to satisfy the request.",
    "prefixes-exhausted",
  ],
  [
    "no aligned /28, other words",
    "CreateNetworkInterface",
    "prefixes",
    400,
    "InvalidParameterValue",
    "There are not enough free cidr blocks in the specified subnet to satisfy the request.",
    "prefixes-exhausted",
  ],
  [
    "a full ENI",
    "AssignPrivateIpAddresses",
    "addresses",
    400,
    "PrivateIpAddressLimitExceeded",
    "Number of private addresses will exceed limit.",
    "address-limit",
  ],
  [
    "a full instance",
    "AttachNetworkInterface",
    "other",
    400,
    "AttachmentLimitExceeded",
    "Interface count 9 exceeds the limit for m4.4xlarge",
    "eni-limit",
  ],
  ["a full Region", "CreateNetworkInterface", "other", 400, "NetworkInterfaceLimitExceeded", "", "eni-limit"],
  [
    "a taken device index",
    "AttachNetworkInterface",
    "other",
    400,
    "InvalidParameterValue",
    "Instance 'i-1' already has an interface attached at device index '1'.",
    "in-use",
  ],
  [
    "an ENI that hangs elsewhere",
    "AttachNetworkInterface",
    "other",
    400,
    "InvalidNetworkInterface.InUse",
    "Interface: [eni-1] in use.",
    "in-use",
  ],
  [
    "an ENI that is still detaching",
    "DeleteNetworkInterface",
    "other",
    400,
    "InvalidParameterValue",
    "Network interface 'eni-1' is currently in use.",
    "in-use",
  ],
  [
    "an unknown ENI",
    "DeleteNetworkInterface",
    "other",
    400,
    "InvalidNetworkInterfaceID.NotFound",
    "The networkInterface ID 'eni-1' does not exist",
    "gone",
  ],
  [
    "an unknown attachment",
    "DetachNetworkInterface",
    "other",
    400,
    "InvalidAttachmentID.NotFound",
    "The interface attachment 'eni-attach-1' does not exist.",
    "gone",
  ],
  [
    "an unknown instance",
    "AttachNetworkInterface",
    "other",
    400,
    "InvalidInstanceID.NotFound",
    "The instance ID 'i-1' does not exist",
    "gone",
  ],
  [
    "an unknown subnet",
    "CreateNetworkInterface",
    "other",
    400,
    "InvalidSubnetID.NotFound",
    "The subnet ID 'subnet-1' does not exist",
    "gone",
  ],
  [
    "an address that the ENI lost",
    "UnassignPrivateIpAddresses",
    "other",
    400,
    "InvalidParameterValue",
    "Some of the specified addresses are not assigned to interface eni-1",
    "gone",
  ],
  [
    "an odd ENI id",
    "DeleteNetworkInterface",
    "other",
    400,
    "InvalidNetworkInterfaceId.Malformed",
    "",
    "invalid",
  ],
  [
    "the primary address",
    "UnassignPrivateIpAddresses",
    "other",
    400,
    "InvalidParameterValue",
    "Value (10.0.0.5) for parameter privateIpAddress is invalid. The primary IP address of an interface cannot be unassigned.",
    "invalid",
  ],
  [
    "the primary ENI",
    "DetachNetworkInterface",
    "other",
    400,
    "OperationNotPermitted",
    "The network interface at device index 0 and networkCard index 0 cannot be detached.",
    "invalid",
  ],
  [
    "a token with other arguments",
    "CreateNetworkInterface",
    "other",
    400,
    "IdempotentParameterMismatch",
    "",
    "invalid",
  ],
  [
    "a missing right",
    "CreateNetworkInterface",
    "other",
    403,
    "UnauthorizedOperation",
    "You are not authorized to perform this operation.",
    "denied",
  ],
  [
    "bad credentials",
    "DescribeSubnets",
    "other",
    401,
    "AuthFailure",
    "AWS was not able to validate the provided access credentials",
    "denied",
  ],
  ["a clock that is off", "DescribeSubnets", "other", 400, "RequestExpired", "", "denied"],
  ["credentials that ended", "DescribeSubnets", "other", 400, "ExpiredToken", "", "denied"],
  [
    "CloudTrail's spelling",
    "AssignPrivateIpAddresses",
    "other",
    400,
    "Client.RequestLimitExceeded",
    "",
    "throttled",
  ],
];

test.each(table)(
  "%s is sorted right (%s, %s)",
  (_situation, operation, asked, status, code, message, kind) => {
    const failure = sortFailure(trouble({ operation, asked, status, code, message }));
    expect(failure).toEqual({
      kind,
      operation,
      code: code.replace("Client.", ""),
      message,
      requestId: "req-1",
    });
  },
);

test("a mutating call without a readable answer is in doubt, a reading one has merely failed", () => {
  for (const status of [null, 200, 500, 502, 504]) {
    for (const symptom of ["Timeout", "ConnectionReset", "UnreadableAnswer"]) {
      const lost = { status, symptom, code: null } as const;
      expect(sortFailure(trouble({ ...lost, operation: "CreateNetworkInterface" }))).toMatchObject({
        kind: "in-doubt",
        code: symptom,
      });
      expect(sortFailure(trouble({ ...lost, operation: "DescribeNetworkInterfaces" })).kind).toBe("failing");
    }
  }
});

test("a request that never left did not happen", () => {
  const unsent = trouble({
    operation: "CreateNetworkInterface",
    sent: false,
    status: null,
    symptom: "ConnectionRefused",
  });
  expect(sortFailure(unsent)).toMatchObject({ kind: "failing", code: "ConnectionRefused" });
});

test("a proxy's own refusal, without a code of EC2, is told by its status", () => {
  expect(sortFailure(trouble({ status: 403 })).kind).toBe("denied");
  expect(sortFailure(trouble({ status: 429 })).kind).toBe("throttled");
  expect(sortFailure(trouble({ status: 404 })).kind).toBe("invalid");
});

test("only refusals that fresh credentials may cure ask for them", () => {
  const cured = (code: string): boolean => mayBeStaleCredentials(sortFailure(trouble({ code })));
  expect(["ExpiredToken", "RequestExpired", "AuthFailure"].map(cured)).toEqual([true, true, true]);
  expect(["UnauthorizedOperation", "RequestLimitExceeded"].map(cured)).toEqual([false, false]);
});
