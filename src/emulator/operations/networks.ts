/** VPCs, subnets and their CIDR reservations, security groups, route tables, zones: what a node looks around at. The seed makes them. */
import { cidr4Contains, cidr4Overlap, parseCidr4, printCidr4 } from "../../lib/ip.ts";
import { err, ok } from "../../lib/result.ts";
import type { XmlObject } from "../ec2-xml.ts";
import {
  groupHasDependencies,
  invalidValue,
  invalidValueText,
  notFound,
  subnetHasDependencies,
} from "../failures.ts";
import { filtered } from "../filters.ts";
import { list, required } from "../parameters.ts";
import {
  type CidrReservation,
  newId,
  groupDeleted,
  reservationsChanged,
  type SecurityGroup,
  type Subnet,
  subnetDeleted,
  type Vpc,
  type World,
} from "../world.ts";
import { changed, find, findAll, type Operation, read, tagSet } from "./operation.ts";
import { pageOf } from "./pages.ts";

export const describeVpcs: Operation = {
  effect: "read",
  parameters: ["VpcId", "Filter", "MaxResults", "NextToken"],
  notEmulated: [],
  run(call) {
    const ids = list(call.parameters, "VpcId");
    const chosen = ids.length > 0 ? findAll(call.world.vpcs, "vpc", ids) : ok([...call.world.vpcs.values()]);
    const paged = pageOf<Vpc>(call, chosen, {
      "vpc-id": ({ id }) => [id],
      cidr: ({ cidrs }) => cidrs.slice(0, 1).map(printCidr4),
      "cidr-block-association.cidr-block": ({ cidrs }) => cidrs.map(printCidr4),
      state: () => ["available"],
      "owner-id": () => [call.world.accountId],
    });
    if (!paged.ok) return paged;
    return read(call, {
      vpcSet: paged.value.items.map((vpc) => describeVpc(call.world, vpc)),
      nextToken: paged.value.nextToken,
    });
  },
};

export const describeSubnets: Operation = {
  effect: "read",
  parameters: ["SubnetId", "Filter", "MaxResults", "NextToken"],
  notEmulated: [],
  run(call) {
    const ids = list(call.parameters, "SubnetId");
    const chosen =
      ids.length > 0 ? findAll(call.world.subnets, "subnet", ids) : ok([...call.world.subnets.values()]);
    const paged = pageOf<Subnet>(call, chosen, {
      "subnet-id": ({ id }) => [id],
      "vpc-id": ({ vpcId }) => [vpcId],
      "availability-zone": ({ availabilityZone }) => [availabilityZone],
      "cidr-block": ({ space }) => [printCidr4(space.cidr)],
      cidr: ({ space }) => [printCidr4(space.cidr)],
      "available-ip-address-count": ({ space }) => [String(space.freeCount)],
      state: () => ["available"],
      "owner-id": () => [call.world.accountId],
    });
    if (!paged.ok) return paged;
    const subnetSet = paged.value.items.map((subnet) => describeSubnet(call.world, subnet));
    return read(call, { subnetSet, nextToken: paged.value.nextToken });
  },
};

export const describeSecurityGroups: Operation = {
  effect: "read",
  parameters: ["GroupId", "GroupName", "Filter", "MaxResults", "NextToken"],
  notEmulated: [],
  run(call) {
    const ids = list(call.parameters, "GroupId");
    const names = list(call.parameters, "GroupName");
    const all = [...call.world.groups.values()];
    const missing = names.filter((name) => !all.some((group) => group.name === name));
    if (missing.length > 0) return err(notFound("sg", missing));
    const chosen =
      ids.length > 0
        ? findAll(call.world.groups, "sg", ids)
        : ok(all.filter(({ name }) => names.length === 0 || names.includes(name)));
    const paged = pageOf<SecurityGroup>(call, chosen, {
      "group-id": ({ id }) => [id],
      "group-name": ({ name }) => [name],
      description: ({ description }) => [description],
      "vpc-id": ({ vpcId }) => [vpcId],
      "owner-id": () => [call.world.accountId],
    });
    if (!paged.ok) return paged;
    const securityGroupInfo = paged.value.items.map((group) => ({
      ownerId: call.world.accountId,
      groupId: group.id,
      groupName: group.name,
      groupDescription: group.description,
      vpcId: group.vpcId,
      ipPermissions: [],
      ipPermissionsEgress: [],
      tagSet: tagSet(group.tags),
    }));
    return read(call, { securityGroupInfo, nextToken: paged.value.nextToken });
  },
};

export const deleteSubnet: Operation = {
  effect: "write",
  parameters: ["SubnetId"],
  notEmulated: [],
  run(call) {
    const id = required(call.parameters, "SubnetId");
    if (!id.ok) return id;
    const subnet = find(call.world.subnets, "subnet", id.value);
    if (!subnet.ok) return subnet;
    const used = [...call.world.enis.values()].some(({ subnetId }) => subnetId === id.value);
    return used
      ? err(subnetHasDependencies(id.value))
      : changed(subnetDeleted(call.world, id.value), { return: true });
  },
};

export const deleteSecurityGroup: Operation = {
  effect: "write",
  parameters: ["GroupId"],
  notEmulated: ["GroupName"],
  run(call) {
    const id = required(call.parameters, "GroupId");
    if (!id.ok) return id;
    const group = find(call.world.groups, "sg", id.value);
    if (!group.ok) return group;
    const used = [...call.world.enis.values()].some(({ groupIds }) => groupIds.includes(id.value));
    const answer = { return: true, groupId: id.value };
    return used ? err(groupHasDependencies(id.value)) : changed(groupDeleted(call.world, id.value), answer);
  },
};

/** One main route table a VPC: its own blocks are local, the rest goes to the internet gateway. */
export const describeRouteTables: Operation = {
  effect: "read",
  parameters: ["RouteTableId", "Filter", "MaxResults", "NextToken"],
  notEmulated: [],
  run(call) {
    const all = [...call.world.vpcs.values()].map((vpc) => ({
      ...vpc,
      vpcId: vpc.id,
      id: vpc.id.replace(/^vpc-/, "rtb-"),
    }));
    const ids = list(call.parameters, "RouteTableId");
    const chosen =
      ids.length > 0 ? findAll(new Map(all.map((table) => [table.id, table])), "rtb", ids) : ok(all);
    const paged = pageOf(
      call,
      chosen,
      {
        "route-table-id": ({ id }) => [id],
        "vpc-id": ({ vpcId }) => [vpcId],
        "association.main": () => ["true"],
      },
      100,
    );
    if (!paged.ok) return paged;
    const routeTableSet = paged.value.items.map((table) => ({
      routeTableId: table.id,
      vpcId: table.vpcId,
      ownerId: call.world.accountId,
      routeSet: [
        ...table.cidrs.map((cidr) => ({
          destinationCidrBlock: printCidr4(cidr),
          gatewayId: "local",
          state: "active",
          origin: "CreateRouteTable",
        })),
        {
          destinationCidrBlock: "0.0.0.0/0",
          gatewayId: table.vpcId.replace(/^vpc-/, "igw-"),
          state: "active",
          origin: "CreateRoute",
        },
      ],
      associationSet: [
        {
          routeTableAssociationId: table.id.replace(/^rtb-/, "rtbassoc-"),
          routeTableId: table.id,
          main: true,
          associationState: { state: "associated" },
        },
      ],
      tagSet: [],
    }));
    return read(call, { routeTableSet, nextToken: paged.value.nextToken });
  },
};

export const describeAvailabilityZones: Operation = {
  effect: "read",
  parameters: ["ZoneName", "ZoneId", "Filter", "AllAvailabilityZones"],
  notEmulated: [],
  run(call) {
    const names = new Set([...call.world.subnets.values()].map(({ availabilityZone }) => availabilityZone));
    const zones = [...names]
      .sort()
      .map((name, index) => ({ name, id: zoneId(name), serial: index + 1, tags: {} }));
    const asked = list(call.parameters, "ZoneName");
    const matching = filtered(
      zones.filter(({ name }) => asked.length === 0 || asked.includes(name)),
      call.parameters,
      {
        "zone-name": ({ name }) => [name],
        "zone-id": ({ id }) => [id],
        "region-name": () => [call.world.region],
        state: () => ["available"],
      },
    );
    if (!matching.ok) return matching;
    const availabilityZoneInfo = matching.value.map(({ name, id }) => ({
      zoneName: name,
      zoneId: id,
      zoneState: "available",
      zoneType: "availability-zone",
      regionName: call.world.region,
      optInStatus: "opt-in-not-required",
    }));
    return read(call, { availabilityZoneInfo });
  },
};

export const createSubnetCidrReservation: Operation = {
  effect: "write",
  parameters: ["SubnetId", "Cidr", "ReservationType", "Description"],
  notEmulated: ["TagSpecification"],
  run(call) {
    const subnetId = required(call.parameters, "SubnetId");
    if (!subnetId.ok) return subnetId;
    const cidrText = required(call.parameters, "Cidr");
    if (!cidrText.ok) return cidrText;
    const type = required(call.parameters, "ReservationType");
    if (!type.ok) return type;
    if (type.value !== "prefix" && type.value !== "explicit")
      return err(invalidValue(type.value, "reservationType"));
    const cidr = parseCidr4(cidrText.value);
    if (!cidr.ok || cidr.value.prefixLength > 28) return err(invalidValue(cidrText.value, "cidr"));
    const subnet = find(call.world.subnets, "subnet", subnetId.value);
    if (!subnet.ok) return subnet;
    const { space, reservations } = subnet.value;
    if (!cidr4Contains(space.cidr, cidr.value.network) || cidr.value.prefixLength < space.cidr.prefixLength) {
      return err(invalidValueText(`CIDR ${cidrText.value} is not within subnet ${printCidr4(space.cidr)}`)); // Text (uncertain).
    }
    if (reservations.some((other) => cidr4Overlap(other.cidr, cidr.value))) {
      return err(invalidValueText(`CIDR ${cidrText.value} overlaps with an existing reservation`)); // Text (uncertain).
    }
    const [spent, id] = newId(call.world, "scr");
    const made: CidrReservation = {
      id,
      cidr: cidr.value,
      type: type.value,
      description: call.parameters.get("Description") ?? "",
    };
    const world = reservationsChanged(spent, subnetId.value, [...reservations, made]);
    return changed(world, { subnetCidrReservation: describeReservation(world, subnetId.value, made) });
  },
};

export const deleteSubnetCidrReservation: Operation = {
  effect: "write",
  parameters: ["SubnetCidrReservationId"],
  notEmulated: [],
  run(call) {
    const id = required(call.parameters, "SubnetCidrReservationId");
    if (!id.ok) return id;
    for (const subnet of call.world.subnets.values()) {
      const gone = subnet.reservations.find((reservation) => reservation.id === id.value);
      if (gone === undefined) continue;
      const rest = subnet.reservations.filter((reservation) => reservation !== gone);
      const world = reservationsChanged(call.world, subnet.id, rest);
      return changed(world, { deletedSubnetCidrReservation: describeReservation(world, subnet.id, gone) });
    }
    return err(notFound("scr", [id.value]));
  },
};

export const getSubnetCidrReservations: Operation = {
  effect: "read",
  parameters: ["SubnetId", "Filter", "MaxResults", "NextToken"],
  notEmulated: [],
  run(call) {
    const subnetId = required(call.parameters, "SubnetId");
    if (!subnetId.ok) return subnetId;
    const subnet = find(call.world.subnets, "subnet", subnetId.value);
    if (!subnet.ok) return subnet;
    const subnetIpv4CidrReservationSet = subnet.value.reservations.map((reservation) =>
      describeReservation(call.world, subnetId.value, reservation),
    );
    return read(call, { subnetIpv4CidrReservationSet, subnetIpv6CidrReservationSet: [] });
  },
};

function describeReservation(world: World, subnetId: string, reservation: CidrReservation): XmlObject {
  const { id, cidr, type, description } = reservation;
  return {
    subnetCidrReservationId: id,
    subnetId,
    cidr: printCidr4(cidr),
    reservationType: type,
    ownerId: world.accountId,
    description,
    tagSet: [],
  };
}

function describeVpc(world: World, vpc: Vpc): XmlObject {
  return {
    vpcId: vpc.id,
    ownerId: world.accountId,
    state: "available",
    cidrBlock: vpc.cidrs.slice(0, 1).map(printCidr4).join(""),
    cidrBlockAssociationSet: vpc.cidrs.map((cidr, index) => ({
      cidrBlock: printCidr4(cidr),
      associationId: `${vpc.id.replace(/^vpc-/, "vpc-cidr-assoc-")}${index}`,
      cidrBlockState: { state: "associated" },
    })),
    dhcpOptionsId: vpc.id.replace(/^vpc-/, "dopt-"),
    instanceTenancy: "default",
    isDefault: false,
    tagSet: tagSet(vpc.tags),
  };
}

function describeSubnet(world: World, subnet: Subnet): XmlObject {
  return {
    subnetId: subnet.id,
    subnetArn: `arn:aws:ec2:${world.region}:${world.accountId}:subnet/${subnet.id}`,
    state: "available",
    vpcId: subnet.vpcId,
    ownerId: world.accountId,
    cidrBlock: printCidr4(subnet.space.cidr),
    ipv6CidrBlockAssociationSet: [],
    availableIpAddressCount: subnet.space.freeCount,
    availabilityZone: subnet.availabilityZone,
    availabilityZoneId: zoneId(subnet.availabilityZone),
    defaultForAz: false,
    mapPublicIpOnLaunch: false,
    assignIpv6AddressOnCreation: false,
    tagSet: tagSet(subnet.tags),
  };
}

/** `eu-west-1a` → `euw1-az1`. In a real account letters and numbers are shuffled; here they are not. */
function zoneId(zone: string): string {
  const match = /^(\w+)-(\w)\w*-(\d+)([a-z])$/.exec(zone);
  return match === null
    ? zone
    : `${match[1]}${match[2]}${match[3]}-az${(match[4] ?? "a").charCodeAt(0) - 96}`;
}
