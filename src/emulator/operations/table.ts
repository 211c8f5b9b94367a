/** Every action that the emulator answers. Anything else is refused with EC2's InvalidAction. */
import { assignPrivateIpAddresses, unassignPrivateIpAddresses } from "./addresses.ts";
import { attachNetworkInterface, detachNetworkInterface } from "./attachments.ts";
import { describeInstanceTypes } from "./instance-types.ts";
import { describeInstances, runInstances, terminateInstances } from "./instances.ts";
import {
  createNetworkInterface,
  deleteNetworkInterface,
  describeNetworkInterfaceAttribute,
  describeNetworkInterfaces,
  modifyNetworkInterfaceAttribute,
} from "./interfaces.ts";
import {
  createSubnetCidrReservation,
  deleteSecurityGroup,
  deleteSubnet,
  deleteSubnetCidrReservation,
  describeAvailabilityZones,
  describeRouteTables,
  describeSecurityGroups,
  describeSubnets,
  describeVpcs,
  getSubnetCidrReservations,
} from "./networks.ts";
import type { Operation } from "./operation.ts";
import { createTags, deleteTags, describeTags } from "./tags.ts";

export const OPERATIONS: ReadonlyMap<string, Operation> = new Map([
  ["AssignPrivateIpAddresses", assignPrivateIpAddresses],
  ["AttachNetworkInterface", attachNetworkInterface],
  ["CreateNetworkInterface", createNetworkInterface],
  ["CreateSubnetCidrReservation", createSubnetCidrReservation],
  ["CreateTags", createTags],
  ["DeleteNetworkInterface", deleteNetworkInterface],
  ["DeleteSecurityGroup", deleteSecurityGroup],
  ["DeleteSubnet", deleteSubnet],
  ["DeleteSubnetCidrReservation", deleteSubnetCidrReservation],
  ["DeleteTags", deleteTags],
  ["DescribeAvailabilityZones", describeAvailabilityZones],
  ["DescribeInstanceTypes", describeInstanceTypes],
  ["DescribeInstances", describeInstances],
  ["DescribeNetworkInterfaceAttribute", describeNetworkInterfaceAttribute],
  ["DescribeNetworkInterfaces", describeNetworkInterfaces],
  ["DescribeRouteTables", describeRouteTables],
  ["DescribeSecurityGroups", describeSecurityGroups],
  ["DescribeSubnets", describeSubnets],
  ["DescribeTags", describeTags],
  ["DescribeVpcs", describeVpcs],
  ["DetachNetworkInterface", detachNetworkInterface],
  ["GetSubnetCidrReservations", getSubnetCidrReservations],
  ["ModifyNetworkInterfaceAttribute", modifyNetworkInterfaceAttribute],
  ["RunInstances", runInstances],
  ["TerminateInstances", terminateInstances],
  ["UnassignPrivateIpAddresses", unassignPrivateIpAddresses],
]);
