/** An ENI as answers show it, and what its filters look at. */
import type { Ipv4 } from "../../lib/ip.ts";
import type { XmlObject } from "../ec2-xml.ts";
import type { FilterFields } from "../filters.ts";
import { PREFIX_LENGTH } from "../subnet-space.ts";
import { type Eni, subnetOf, type World } from "../world.ts";
import { tagSet, timestamp } from "./operation.ts";

/** An ENI as describes show it: the primary address first among its addresses, prefixes apart. */
export function describeEni(world: World, eni: Eni): XmlObject {
  const subnet = subnetOf(world, eni.subnetId);
  return {
    networkInterfaceId: eni.id,
    subnetId: eni.subnetId,
    vpcId: subnet.vpcId,
    availabilityZone: subnet.availabilityZone,
    description: eni.description,
    ownerId: world.accountId,
    requesterId: eni.managedBy ?? undefined,
    requesterManaged: eni.managedBy !== null,
    status: eni.status,
    macAddress: eni.mac,
    privateIpAddress: eni.primary,
    privateDnsName: privateDnsName(world, eni.primary),
    sourceDestCheck: eni.sourceDestCheck,
    groupSet: groupSet(world, eni),
    attachment: eni.attachment === null ? undefined : describeAttachment(world, eni),
    tagSet: tagSet(eni.tags),
    privateIpAddressesSet: addressSet(world, eni),
    ipv4PrefixSet: eni.prefixes.length === 0 ? undefined : prefixSet(eni),
    ipv6AddressesSet: [],
    interfaceType: eni.interfaceType,
  };
}

export function addressSet(world: World, eni: Eni): readonly XmlObject[] {
  return [eni.primary, ...eni.secondaries].map((ip, index) => ({
    privateIpAddress: ip,
    privateDnsName: privateDnsName(world, ip),
    primary: index === 0,
  }));
}

export function prefixSet(eni: Eni): readonly XmlObject[] {
  return eni.prefixes.map((prefix) => ({ ipv4Prefix: `${prefix}/${PREFIX_LENGTH}` }));
}

export function groupSet(world: World, eni: Eni): readonly XmlObject[] {
  return eni.groupIds.map((groupId) => ({ groupId, groupName: world.groups.get(groupId)?.name ?? "" }));
}

export function privateDnsName(world: World, ip: Ipv4): string {
  return `ip-${ip.replaceAll(".", "-")}.${world.region === "us-east-1" ? "ec2" : `${world.region}.compute`}.internal`;
}

function describeAttachment(world: World, eni: Eni): XmlObject | undefined {
  if (eni.attachment === null) return undefined;
  const { id, instanceId, deviceIndex, networkCardIndex, status, attachedAt, deleteOnTermination } =
    eni.attachment;
  return {
    attachmentId: id,
    instanceId,
    instanceOwnerId: eni.managedBy ?? world.accountId,
    deviceIndex,
    networkCardIndex,
    status,
    attachTime: timestamp(attachedAt),
    deleteOnTermination,
  };
}

export function eniFilters(world: World): FilterFields<Eni> {
  const some = (value: string | undefined): readonly string[] => (value === undefined ? [] : [value]);
  return {
    "network-interface-id": ({ id }) => [id],
    "subnet-id": ({ subnetId }) => [subnetId],
    "vpc-id": ({ subnetId }) => [subnetOf(world, subnetId).vpcId],
    "availability-zone": ({ subnetId }) => [subnetOf(world, subnetId).availabilityZone],
    description: ({ description }) => [description],
    status: ({ status }) => [status],
    "interface-type": ({ interfaceType }) => [interfaceType],
    "mac-address": ({ mac }) => [mac],
    "owner-id": () => [world.accountId],
    "requester-id": ({ managedBy }) => some(managedBy ?? undefined),
    "requester-managed": ({ managedBy }) => [String(managedBy !== null)],
    "source-dest-check": ({ sourceDestCheck }) => [String(sourceDestCheck)],
    "group-id": ({ groupIds }) => groupIds,
    "group-name": ({ groupIds }) => groupIds.map((id) => world.groups.get(id)?.name ?? ""),
    "private-ip-address": ({ primary, secondaries }) => [primary, ...secondaries],
    "private-dns-name": ({ primary }) => [privateDnsName(world, primary)],
    "addresses.private-ip-address": ({ primary, secondaries }) => [primary, ...secondaries],
    "addresses.primary": ({ secondaries }) => (secondaries.length > 0 ? ["true", "false"] : ["true"]),
    "attachment.attachment-id": ({ attachment }) => some(attachment?.id),
    "attachment.instance-id": ({ attachment }) => some(attachment?.instanceId),
    "attachment.instance-owner-id": ({ attachment }) =>
      some(attachment === null ? undefined : world.accountId),
    "attachment.device-index": ({ attachment }) => some(attachment?.deviceIndex.toString()),
    "attachment.network-card-index": ({ attachment }) => some(attachment?.networkCardIndex.toString()),
    "attachment.status": ({ attachment }) => some(attachment?.status),
    "attachment.delete-on-termination": ({ attachment }) => some(attachment?.deleteOnTermination.toString()),
    "attachment.attach-time": ({ attachment }) =>
      some(attachment === null ? undefined : timestamp(attachment.attachedAt)),
  };
}
