/** ENIs: create, delete, describe, modify. Their attachments are in attachments.ts, their addresses in addresses.ts. */
import { unreachable } from "../../lib/assert.ts";
import type { Ipv4 } from "../../lib/ip.ts";
import { err, ok, type Result } from "../../lib/result.ts";
import type { XmlObject } from "../ec2-xml.ts";
import {
  addressesLimitExceeded,
  addressInUse,
  badDescription,
  eniCurrentlyInUse,
  eniQuotaExceeded,
  type Failure,
  groupOfOtherVpc,
  idempotentMismatch,
  invalidCombination,
  invalidValue,
  moreThanOneGiven,
  notFound,
  notYoursToManage,
  tooManyGroups,
} from "../failures.ts";
import { UNATTACHED_SLOTS } from "../instance-types.ts";
import {
  fingerprint,
  list,
  type Parameters,
  required,
  structures,
  truth,
  wholeNumber,
} from "../parameters.ts";
import { type Addresses, isBlockFree, isTaken } from "../subnet-space.ts";
import {
  callRemembered,
  deleteOnTerminationSet,
  type Eni,
  eniChanged,
  eniCreated,
  eniDeleted,
  newId,
  type Subnet,
  subnetOf,
  type World,
} from "../world.ts";
import { describeEni, eniFilters } from "./describe-eni.ts";
import { changed, find, findAll, type Operation, type Quotas, read } from "./operation.ts";
import { pageOf } from "./pages.ts";
import { checkInside, parseIps, parsePrefixes, place } from "./placement.ts";
import { tagsFor } from "./tags.ts";

export const createNetworkInterface: Operation = {
  effect: "write",
  parameters: [
    "SubnetId",
    "Description",
    "PrivateIpAddress",
    "PrivateIpAddresses",
    "SecondaryPrivateIpAddressCount",
    "Ipv4Prefix",
    "Ipv4PrefixCount",
    "SecurityGroupId",
    "InterfaceType",
    "TagSpecification",
    "ClientToken",
  ],
  notEmulated: [
    "Ipv6AddressCount",
    "Ipv6Addresses",
    "Ipv6Prefix",
    "Ipv6PrefixCount",
    "EnablePrimaryIpv6",
    "ConnectionTrackingSpecification",
    "Operator",
  ],
  run(call) {
    const { parameters, world, quotas } = call;
    const subnetId = required(parameters, "SubnetId");
    if (!subnetId.ok) return subnetId;
    const ask = readCreateAsk(parameters);
    if (!ask.ok) return ask;
    const description = parameters.get("Description") ?? "";
    if (!validDescription(description)) return err(badDescription());
    const interfaceType = parameters.get("InterfaceType") ?? "interface";
    if (!isInterfaceType(interfaceType)) return err(invalidValue(interfaceType, "interfaceType"));
    const tags = tagsFor(parameters, "network-interface");
    if (!tags.ok) return tags;

    const found = find(world.subnets, "subnet", subnetId.value);
    if (!found.ok) return found;
    const subnet = found.value;
    const groupIds = groupsFor(world, subnet, list(parameters, "SecurityGroupId"), quotas);
    if (!groupIds.ok) return groupIds;

    // Explicit addresses are looked at before the token: that is how EC2 was seen to do it.
    const free = explicitFree(subnet, ask.value.explicit);
    if (!free.ok) return free;
    const token = parameters.get("ClientToken");
    const key = `CreateNetworkInterface ${token}`;
    const print = fingerprint(parameters, ["ClientToken"]);
    const remembered = token === undefined ? undefined : world.remembered.get(key);
    if (remembered !== undefined) {
      if (remembered.fingerprint !== print) return err(idempotentMismatch());
      return read(call, remembered.answer as XmlObject); // Put there by this function, below.
    }

    if (slotsAsked(ask.value) > UNATTACHED_SLOTS) return err(addressesLimitExceeded());
    if (world.enis.size >= quotas.enisPerRegion) return err(eniQuotaExceeded());
    const placed = place(subnet.space, ask.value.explicit, ask.value, call);
    if (!placed.ok) return placed;
    const [primary, ...secondaries] = primaryFirst(placed.value.ips, ask.value.primary);
    if (primary === undefined) return err(invalidCombination("A primary private IP address is needed."));

    const [spent, id] = newId(world, "eni");
    const created = eniCreated(spent, {
      id,
      subnetId: subnet.id,
      description,
      interfaceType,
      groupIds: groupIds.value,
      primary,
      secondaries,
      prefixes: placed.value.prefixes,
      sourceDestCheck: true,
      managedBy: null,
      tags: tags.value,
    });
    const answer = {
      networkInterface: describeEni(created, created.enis.get(id) as Eni),
      clientToken: token,
    }; // Created two lines above.
    const next = token === undefined ? created : callRemembered(created, key, { fingerprint: print, answer });
    return changed(next, answer, [{ kind: "eni-available", eniId: id }]);
  },
};

export const deleteNetworkInterface: Operation = {
  effect: "write",
  parameters: ["NetworkInterfaceId"],
  notEmulated: [],
  run(call) {
    const id = required(call.parameters, "NetworkInterfaceId");
    if (!id.ok) return id;
    const eni = find(call.world.enis, "eni", id.value);
    if (!eni.ok) return eni;
    if (eni.value.managedBy !== null) return err(notYoursToManage());
    if (eni.value.attachment !== null) return err(eniCurrentlyInUse(eni.value.id));
    return changed(eniDeleted(call.world, eni.value.id), { return: true });
  },
};

export const describeNetworkInterfaces: Operation = {
  effect: "read",
  parameters: ["NetworkInterfaceId", "Filter", "MaxResults", "NextToken"],
  notEmulated: ["IncludeManagedResources"],
  run(call) {
    const { parameters, world } = call;
    const ids = list(parameters, "NetworkInterfaceId");
    if (ids.length > 0 && parameters.has("MaxResults")) {
      return err(
        invalidCombination(
          "The parameter networkInterfaceIdSet cannot be used with the parameter maxResults",
        ),
      );
    }
    const chosen = ids.length > 0 ? findAll(world.enis, "eni", ids) : ok([...world.enis.values()]);
    const paged = pageOf(call, chosen, eniFilters(world));
    if (!paged.ok) return paged;
    const networkInterfaceSet = paged.value.items.map((eni) => describeEni(world, eni));
    return read(call, { networkInterfaceSet, nextToken: paged.value.nextToken });
  },
};

/** One attribute a call, as EC2 asks for it. */
export const describeNetworkInterfaceAttribute: Operation = {
  effect: "read",
  parameters: ["NetworkInterfaceId", "Attribute"],
  notEmulated: [],
  run(call) {
    const id = required(call.parameters, "NetworkInterfaceId");
    if (!id.ok) return id;
    const attribute = required(call.parameters, "Attribute");
    if (!attribute.ok) return attribute;
    const eni = find(call.world.enis, "eni", id.value);
    if (!eni.ok) return eni;
    const { description, sourceDestCheck, groupSet, attachment } = describeEni(call.world, eni.value);
    const networkInterfaceId = eni.value.id;
    switch (attribute.value) {
      case "description":
        return read(call, { networkInterfaceId, description: { value: description } });
      case "sourceDestCheck":
        return read(call, { networkInterfaceId, sourceDestCheck: { value: sourceDestCheck } });
      case "groupSet":
        return read(call, { networkInterfaceId, groupSet });
      case "attachment":
        return read(call, { networkInterfaceId, attachment });
      default:
        return err(invalidValue(attribute.value, "attribute"));
    }
  },
};

const MODIFIABLE = ["Description", "SourceDestCheck", "SecurityGroupId", "Attachment"] as const;

/** One attribute a call. */
export const modifyNetworkInterfaceAttribute: Operation = {
  effect: "write",
  parameters: ["NetworkInterfaceId", ...MODIFIABLE],
  notEmulated: [
    "EnaSrdSpecification",
    "EnablePrimaryIpv6",
    "ConnectionTrackingSpecification",
    "AssociatePublicIpAddress",
    "AssociatedSubnetId",
  ],
  run(call) {
    const { parameters, world } = call;
    const id = required(parameters, "NetworkInterfaceId");
    if (!id.ok) return id;
    const given = MODIFIABLE.filter((name) =>
      [...parameters.keys()].some((key) => key.split(".")[0] === name),
    );
    const [attribute] = given;
    if (attribute === undefined) return err(invalidCombination("No attributes specified."));
    if (given.length > 1)
      return err(invalidCombination(`Fields for multiple attribute types specified: ${given.join(", ")}`));
    const found = find(world.enis, "eni", id.value);
    if (!found.ok) return found;
    const eni = found.value;
    if (eni.managedBy !== null) return err(notYoursToManage());

    switch (attribute) {
      case "Description": {
        const description = parameters.get("Description.Value") ?? "";
        if (!validDescription(description)) return err(badDescription());
        return changed(eniChanged(world, eni.id, { description }), { return: true });
      }
      case "SourceDestCheck": {
        const check = truth(parameters, "SourceDestCheck.Value");
        if (!check.ok) return check;
        return changed(eniChanged(world, eni.id, { sourceDestCheck: check.value ?? true }), { return: true });
      }
      case "SecurityGroupId": {
        const groupIds = groupsFor(
          world,
          subnetOf(world, eni.subnetId),
          list(parameters, "SecurityGroupId"),
          call.quotas,
        );
        if (!groupIds.ok) return groupIds;
        return changed(eniChanged(world, eni.id, { groupIds: groupIds.value }), { return: true });
      }
      case "Attachment": {
        const attachmentId = required(parameters, "Attachment.AttachmentId");
        if (!attachmentId.ok) return attachmentId;
        const deleteOnTermination = truth(parameters, "Attachment.DeleteOnTermination");
        if (!deleteOnTermination.ok) return deleteOnTermination;
        if (eni.attachment?.id !== attachmentId.value)
          return err(notFound("eni-attach", [attachmentId.value]));
        return changed(deleteOnTerminationSet(world, eni.id, deleteOnTermination.value ?? false), {
          return: true,
        });
      }
      default:
        return unreachable(attribute);
    }
  },
};

type CreateAsk = {
  readonly explicit: Addresses;
  readonly primary: Ipv4 | null;
  /** Addresses that EC2 chooses, the primary among them when it was not given. */
  readonly ipCount: number;
  readonly secondaryCount: number;
  readonly prefixCount: number;
};

/** Address slots that the new ENI will use. */
export function slotsAsked(ask: CreateAsk): number {
  return 1 + ask.secondaryCount + ask.prefixCount + ask.explicit.prefixes.length;
}

/** Secondary addresses or prefixes, given or counted: at most one of the four. The primary comes from either of two parameters. */
export function readCreateAsk(parameters: Parameters): Result<CreateAsk, Failure> {
  const structs = structures(parameters, "PrivateIpAddresses");
  const primaries = structs
    .filter((address) => address.get("Primary") === "true")
    .flatMap((address) => address.get("PrivateIpAddress") ?? []);
  const single = parameters.get("PrivateIpAddress");
  if (single !== undefined) primaries.push(single);
  const primary = parseIps(primaries);
  if (!primary.ok) return primary;
  if (primary.value.length > 1)
    return err(invalidCombination("Only one primary private IP address can be specified."));
  const others = parseIps(
    structs
      .filter((address) => address.get("Primary") !== "true")
      .flatMap((address) => address.get("PrivateIpAddress") ?? []),
  );
  if (!others.ok) return others;
  const prefixes = parsePrefixes(
    structures(parameters, "Ipv4Prefix").flatMap(
      (prefix) => prefix.get("Ipv4Prefix") ?? prefix.get("") ?? [],
    ),
  );
  if (!prefixes.ok) return prefixes;
  const count = wholeNumber(parameters, "SecondaryPrivateIpAddressCount");
  if (!count.ok) return count;
  const prefixCount = wholeNumber(parameters, "Ipv4PrefixCount");
  if (!prefixCount.ok) return prefixCount;
  const ways = [others.value.length, count.value ?? 0, prefixes.value.length, prefixCount.value ?? 0];
  if (ways.filter((way) => way > 0).length > 1) {
    return err(
      moreThanOneGiven([
        "privateIpAddressesSet",
        "secondaryPrivateIpAddressCount",
        "ipv4PrefixSet",
        "ipv4PrefixCount",
      ]),
    );
  }
  return ok({
    explicit: { ips: [...new Set([...primary.value, ...others.value])], prefixes: prefixes.value },
    primary: primary.value[0] ?? null,
    ipCount: (count.value ?? 0) + (primary.value.length === 0 ? 1 : 0),
    secondaryCount: Math.max(count.value ?? 0, others.value.length),
    prefixCount: prefixCount.value ?? 0,
  });
}

/** The ENI's addresses, primary first: the given one, or the last that EC2 chose. */
export function primaryFirst(ips: readonly Ipv4[], primary: Ipv4 | null): readonly Ipv4[] {
  const first = primary ?? ips.at(-1);
  return first === undefined ? [] : [first, ...ips.filter((ip) => ip !== first)];
}

/** Explicit addresses of a new ENI: inside, not reserved, and free, since a create never moves an address. */
export function explicitFree(subnet: Subnet, explicit: Addresses): Result<null, Failure> {
  const inside = checkInside(subnet.space, explicit);
  if (!inside.ok) return inside;
  const free =
    explicit.ips.every((ip) => !isTaken(subnet.space, ip)) &&
    explicit.prefixes.every((prefix) => isBlockFree(subnet.space, prefix));
  return free ? ok(null) : err(addressInUse());
}

/** The groups asked for, or the VPC's default group. */
export function groupsFor(
  world: World,
  subnet: Subnet,
  asked: readonly string[],
  quotas: Quotas,
): Result<readonly string[], Failure> {
  if (asked.length === 0) {
    const fallback = [...world.groups.values()].find(
      (group) => group.vpcId === subnet.vpcId && group.name === "default",
    );
    return ok(fallback === undefined ? [] : [fallback.id]);
  }
  const groups = findAll(world.groups, "sg", asked);
  if (!groups.ok) return groups;
  for (const group of groups.value)
    if (group.vpcId !== subnet.vpcId) return err(groupOfOtherVpc(group.id, subnet.id));
  return groups.value.length > quotas.groupsPerEni
    ? err(tooManyGroups())
    : ok(groups.value.map((group) => group.id));
}

function validDescription(text: string): boolean {
  return text.length < 256 && /^[a-zA-Z0-9. _\-:/()#,@[\]+=&;{}!$*]*$/.test(text);
}

function isInterfaceType(text: string): text is Eni["interfaceType"] {
  return (
    text === "interface" || text === "efa" || text === "efa-only" || text === "trunk" || text === "branch"
  );
}
