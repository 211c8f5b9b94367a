/**
 * EC2's error table: code, HTTP status and text of each refusal, as people have seen them. One function a situation, so that a text stands
 * in one place. Sources: "Error codes for the Amazon EC2 API", and issue threads; texts that nobody has shown us are marked (uncertain).
 */

import { unreachable } from "../lib/assert.ts";

export type Failure = { readonly code: string; readonly status: number; readonly message: string };

function refuse(code: string, message: string, status = 400): Failure {
  return { code, status, message };
}

// ---- the account and the service ----

export const requestLimitExceeded = (): Failure =>
  refuse("RequestLimitExceeded", "Request limit exceeded.", 503);
export const internalError = (): Failure => refuse("InternalError", "An internal error has occurred", 500);
export const unavailable = (): Failure =>
  refuse("Unavailable", "The service is unavailable. Please try again shortly.", 503);
export const unauthorized = (): Failure =>
  refuse("UnauthorizedOperation", "You are not authorized to perform this operation.", 403);
/** Status (uncertain): 401 or 403. */
export const authFailure = (): Failure =>
  refuse("AuthFailure", "AWS was not able to validate the provided access credentials", 401);
export const missingAuthentication = (): Failure =>
  refuse("MissingAuthenticationToken", "The request must contain a valid access key ID.", 403);
export const requestExpired = (): Failure => refuse("RequestExpired", "Request has expired.");
/** Status (uncertain). */
export const dryRunOperation = (): Failure =>
  refuse("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412);
export const invalidAction = (action: string, version: string): Failure =>
  refuse("InvalidAction", `The action ${action} is not valid for this web service. (version ${version})`);
export const tooManyResults = (): Failure =>
  refuse("OperationNotPermitted", "The request would return too many results. Use filters or MaxResults."); // Text (uncertain).

// ---- parameters ----

export const missingParameter = (name: string): Failure =>
  refuse("MissingParameter", `The request must contain the parameter ${name}`);
export const unknownParameter = (name: string): Failure =>
  refuse("UnknownParameter", `The parameter ${name} is not recognized`);
/** What EC2 has and this emulator has not: said aloud, so that no test passes on absence. */
export const notEmulated = (what: string): Failure =>
  refuse("UnsupportedOperation", `The emulator does not support ${what}.`);
export const invalidValue = (value: string, name: string, why = ""): Failure =>
  refuse(
    "InvalidParameterValue",
    `Value (${value}) for parameter ${name} is invalid.${why === "" ? "" : ` ${why}`}`,
  );
export const invalidValueText = (message: string): Failure => refuse("InvalidParameterValue", message);
export const invalidCombination = (message: string): Failure =>
  refuse("InvalidParameterCombination", message);
export const noneGiven = (names: readonly string[]): Failure =>
  refuse("InvalidParameter", `One of ${names.join(" or ")} must be specified.`);
export const moreThanOneGiven = (names: readonly string[]): Failure =>
  invalidCombination(`You may specify one and only one of ${names.join(", ")}.`);
export const invalidFilter = (name: string): Failure => invalidValueText(`The filter '${name}' is invalid`);
export const filterLimitExceeded = (): Failure =>
  refuse("FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200");
export const invalidPaginationToken = (token: string): Failure =>
  refuse("InvalidPaginationToken", `Value (${token}) for parameter nextToken is invalid.`);
export const invalidMaxResults = (value: string, least: number, most: number): Failure =>
  refuse(
    "InvalidMaxResults",
    `Value ( ${value} ) for parameter maxResults is invalid. Expecting a value between ${least} and ${most}.`,
  );
export const idempotentMismatch = (): Failure =>
  refuse(
    "IdempotentParameterMismatch",
    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
  );

// ---- unknown things ----

export type IdKind = "eni" | "i" | "subnet" | "vpc" | "sg" | "eni-attach" | "rtb" | "scr";

export function malformedId(kind: IdKind, id: string): Failure {
  switch (kind) {
    case "eni":
      return refuse("InvalidNetworkInterfaceId.Malformed", `Invalid id: "${id}" (expecting "eni-...")`);
    case "i":
      return refuse("InvalidInstanceID.Malformed", `Invalid id: "${id}"`);
    case "sg":
      return refuse("InvalidGroupId.Malformed", `Invalid id: "${id}" (expecting "sg-...")`);
    case "subnet":
      return refuse("InvalidSubnetID.Malformed", `Invalid id: "${id}" (expecting "subnet-...")`);
    case "vpc":
      return refuse("InvalidVpcID.Malformed", `Invalid id: "${id}" (expecting "vpc-...")`);
    case "eni-attach":
      return refuse("InvalidAttachmentID.Malformed", `Invalid id: "${id}" (expecting "eni-attach-...")`);
    case "rtb":
      return refuse("InvalidRouteTableId.Malformed", `Invalid id: "${id}" (expecting "rtb-...")`);
    case "scr":
      return refuse("InvalidSubnetCidrReservationID.Malformed", `Invalid id: "${id}" (expecting "scr-...")`);
    default:
      return unreachable(kind);
  }
}

export function notFound(kind: IdKind, ids: readonly string[]): Failure {
  const id = ids.join(", ");
  const s = ids.length === 1 ? "" : "s";
  const verb = ids.length === 1 ? "does" : "do";
  switch (kind) {
    case "eni":
      return refuse("InvalidNetworkInterfaceID.NotFound", `The networkInterface ID '${id}' does not exist`);
    case "i":
      return refuse("InvalidInstanceID.NotFound", `The instance ID${s} '${id}' ${verb} not exist`);
    case "sg":
      return refuse("InvalidGroup.NotFound", `The security group '${id}' does not exist`);
    case "subnet":
      return refuse("InvalidSubnetID.NotFound", `The subnet ID '${id}' does not exist`);
    case "vpc":
      return refuse("InvalidVpcID.NotFound", `The vpc ID '${id}' does not exist`);
    case "eni-attach":
      return refuse("InvalidAttachmentID.NotFound", `The interface attachment '${id}' does not exist.`);
    case "rtb":
      return refuse("InvalidRouteTableID.NotFound", `The routeTable ID '${id}' does not exist`);
    case "scr":
      return refuse(
        "InvalidSubnetCidrReservationID.NotFound",
        `The subnet CIDR reservation ID '${id}' does not exist`,
      );
    default:
      return unreachable(kind);
  }
}

export const invalidInstanceType = (names: readonly string[]): Failure =>
  refuse("InvalidInstanceType", `The following supplied instance types do not exist: [${names.join(", ")}]`);
export const invalidResourceId = (id: string): Failure => refuse("InvalidID", `The ID '${id}' is not valid`);

// ---- subnet space ----

export const subnetFull = (): Failure =>
  refuse(
    "InsufficientFreeAddressesInSubnet",
    "The specified subnet does not have enough free addresses to satisfy the request.",
  );
export const fewerThanAsked = (): Failure =>
  invalidValueText("There aren't sufficient free Ipv4 addresses or prefixes");
export const noFreeBlock = (): Failure =>
  refuse(
    "InsufficientCidrBlocks",
    "The specified subnet does not have enough free cidr blocks to satisfy the request.",
  );

// ---- addresses ----

export const notAnAddress = (text: string): Failure =>
  invalidValueText(`invalid value for parameter address: ${text}`);
export const outsideSubnet = (): Failure =>
  invalidValueText("Address does not fall within the subnet's address range");
export const reservedAddress = (): Failure =>
  invalidValueText("Address is in subnet's reserved address range");
export const moveNotAllowed = (ips: readonly string[]): Failure =>
  invalidValueText(`[${ips.join(", ")}] assigned, but move is not allowed.`);
export const cannotMovePrimary = (): Failure => invalidValueText("secondary-addresses");
export const addressInUse = (): Failure =>
  refuse("InvalidIPAddress.InUse", "The specified address is already in use.");
export const addressesLimitExceeded = (): Failure =>
  refuse("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.");
export const launchAddressesLimitExceeded = (type: string): Failure =>
  refuse(
    "InvalidInterface.IpAddressLimitExceeded",
    `The number of IP addresses on the interface exceeds the limit for ${type}`, // Text (uncertain).
  );
export const notAssigned = (eniId: string): Failure =>
  invalidValueText(`Some of the specified addresses are not assigned to interface ${eniId}`);
export const cannotUnassignPrimary = (ip: string): Failure =>
  invalidValue(ip, "privateIpAddress", "The primary IP address of an interface cannot be unassigned.");
export const prefixesNeedNitro = (type: string): Failure =>
  refuse("UnsupportedOperation", `Prefix delegation is not supported on instance type ${type}.`); // (uncertain)

// ---- ENIs and attachments ----

export const eniInUse = (eniId: string): Failure =>
  refuse("InvalidNetworkInterface.InUse", `Interface: [${eniId}] in use.`);
/** Of a delete. It is not `*.InUse`, and is also said while the ENI is still detaching. */
export const eniCurrentlyInUse = (eniId: string): Failure =>
  invalidValueText(`Network interface '${eniId}' is currently in use.`);
export const deviceIndexTaken = (instanceId: string, deviceIndex: number): Failure =>
  invalidValueText(
    `Instance '${instanceId}' already has an interface attached at device index '${deviceIndex}'.`,
  );
export const attachmentLimitExceeded = (count: number, type: string): Failure =>
  refuse("AttachmentLimitExceeded", `Interface count ${count} exceeds the limit for ${type}`);
export const noSuchNetworkCard = (index: number, type: string): Failure =>
  invalidValueText(`Network card index ${index} is not valid for instance type ${type}`); // Text (uncertain).
export const otherAvailabilityZone = (): Failure =>
  invalidCombination(
    "You may not attach a network interface to an instance if they are not in the same availability zone",
  );
/** Of an attach to an instance that is going or gone. The pair is (uncertain); volumes are refused this way. */
export const instanceNotRunning = (instanceId: string): Failure =>
  refuse("IncorrectState", `Instance '${instanceId}' is not 'running'.`);
export const primaryCannotBeDetached = (): Failure =>
  refuse(
    "OperationNotPermitted",
    "The network interface at device index 0 and networkCard index 0 cannot be detached.",
  );
export const notYoursToManage = (): Failure =>
  refuse("OperationNotPermitted", "You are not allowed to manage 'ela-attach' attachments.");
export const badDescription = (): Failure =>
  invalidValueText(
    "Invalid value for parameter description. Character sets beyond ASCII are not supported; use fewer than 256 of a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
  );
export const groupOfOtherVpc = (groupId: string, subnetId: string): Failure =>
  invalidValueText(`Security group ${groupId} and subnet ${subnetId} belong to different networks.`);
export const tooManyGroups = (): Failure =>
  refuse(
    "SecurityGroupsPerInterfaceLimitExceeded",
    "The maximum number of security groups per interface has been reached.",
  );
/** Text (uncertain). */
export const eniQuotaExceeded = (): Failure =>
  refuse("NetworkInterfaceLimitExceeded", "The maximum number of network interfaces has been reached.");

// ---- tags, subnets ----

export const tooManyTags = (): Failure => refuse("TagLimitExceeded", "More than 50 tags specified");
export const reservedTagKey = (): Failure =>
  invalidValueText("Tag keys starting with 'aws:' are reserved for internal use");
export const duplicateTagKey = (key: string): Failure =>
  invalidValueText(`Duplicate tag key '${key}' specified.`);
export const subnetHasDependencies = (subnetId: string): Failure =>
  refuse("DependencyViolation", `The subnet '${subnetId}' has dependencies and cannot be deleted.`);
export const groupHasDependencies = (groupId: string): Failure =>
  refuse("DependencyViolation", `resource ${groupId} has a dependent object`);
