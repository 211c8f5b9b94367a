/** Instances: launch, terminate, describe. An instance here is what a CNI sees of one: a type, a state, and ENIs. */
import { err, ok, type Result } from "../../lib/result.ts";
import type { XmlObject } from "../ec2-xml.ts";
import {
  attachmentLimitExceeded,
  eniQuotaExceeded,
  type Failure,
  idempotentMismatch,
  invalidCombination,
  invalidValueText,
  launchAddressesLimitExceeded,
  missingParameter,
  prefixesNeedNitro,
} from "../failures.ts";
import type { FilterFields } from "../filters.ts";
import { carriesPrefixes, type InstanceType } from "../instance-types.ts";
import { fingerprint, list, type Parameters, required, structures, wholeNumber } from "../parameters.ts";
import {
  attachmentsOf,
  callRemembered,
  deleteOnTerminationSet,
  eniAttached,
  eniAttaching,
  eniAvailable,
  eniCreated,
  type Instance,
  instanceLaunched,
  type InstanceState,
  instanceStateChanged,
  newId,
  subnetOf,
  typeNamed,
  type World,
} from "../world.ts";
import { addressSet, groupSet, prefixSet, privateDnsName } from "./describe-eni.ts";
import { explicitFree, groupsFor, primaryFirst, readCreateAsk, slotsAsked } from "./interfaces.ts";
import {
  type Call,
  changed,
  find,
  findAll,
  type Later,
  type Operation,
  read,
  tagSet,
  timestamp,
} from "./operation.ts";
import { pageOf } from "./pages.ts";
import { place } from "./placement.ts";
import { tagsFor } from "./tags.ts";

const STATE_CODES: Readonly<Record<InstanceState, number>> = {
  pending: 0,
  running: 16,
  "shutting-down": 32,
  terminated: 48,
  stopping: 64,
  stopped: 80,
};

/** Launches with the addresses that the call asks for, so that a pool can exist before anything on the instance runs. */
export const runInstances: Operation = {
  effect: "write",
  parameters: [
    "InstanceType",
    "ImageId",
    "MinCount",
    "MaxCount",
    "SubnetId",
    "SecurityGroupId",
    "PrivateIpAddress",
    "NetworkInterface",
    "TagSpecification",
    "ClientToken",
    "IamInstanceProfile",
    "KeyName",
    "UserData",
    "MetadataOptions",
  ],
  notEmulated: ["LaunchTemplate", "Ipv6AddressCount", "Ipv6Address", "InstanceMarketOptions"],
  run(call) {
    const { parameters, world } = call;
    const image = required(parameters, "ImageId");
    if (!image.ok) return image;
    const count = wholeNumber(parameters, "MinCount", 1);
    if (!count.ok) return count;
    const most = wholeNumber(parameters, "MaxCount", 1);
    if (!most.ok) return most;
    if (count.value === null || most.value === null)
      return err(missingParameter(count.value === null ? "minCount" : "maxCount"));
    const typeName = parameters.get("InstanceType") ?? "m1.small";
    const type = typeNamed(typeName);
    if (type === null) return err(invalidValueText(`Invalid value '${typeName}' for InstanceType.`));

    const token = parameters.get("ClientToken");
    const key = `RunInstances ${token}`;
    const print = fingerprint(parameters, ["ClientToken"]);
    const remembered = token === undefined ? undefined : world.remembered.get(key);
    if (remembered !== undefined) {
      if (remembered.fingerprint !== print) return err(idempotentMismatch());
      return read(call, remembered.answer as XmlObject); // Put there by this function, below.
    }

    const role =
      parameters.get("IamInstanceProfile.Name") ??
      parameters.get("IamInstanceProfile.Arn")?.split("/").at(-1) ??
      null;
    let next = world;
    const launched: string[] = [];
    const later: Later[] = [];
    for (let i = 0; i < most.value; i += 1) {
      const one = launchOne({ ...call, world: next }, { type, imageId: image.value, role });
      if (!one.ok) {
        if (launched.length >= count.value) break; // Between the least and the most, as many as there is room for.
        return one;
      }
      next = one.value.world;
      launched.push(one.value.instanceId);
      later.push({ kind: "instance-running", instanceId: one.value.instanceId });
    }
    const answer: XmlObject = {
      reservationId: reservationId(launched[0] ?? ""),
      ownerId: world.accountId,
      groupSet: [],
      instancesSet: launched.flatMap((id) => {
        const instance = next.instances.get(id);
        return instance === undefined ? [] : [describeInstance(next, instance)];
      }),
    };
    return changed(
      token === undefined ? next : callRemembered(next, key, { fingerprint: print, answer }),
      answer,
      later,
    );
  },
};

export const terminateInstances: Operation = {
  effect: "write",
  parameters: ["InstanceId", "Force", "SkipOsShutdown"],
  notEmulated: [],
  run(call) {
    const ids = list(call.parameters, "InstanceId");
    if (ids.length === 0) return err(missingParameter("instanceId"));
    const instances = findAll(call.world.instances, "i", ids);
    if (!instances.ok) return instances;
    let { world } = call;
    const later: Later[] = [];
    const instancesSet = instances.value.map(({ id, state }) => {
      const gone = state === "terminated" || state === "shutting-down";
      if (!gone) {
        world = instanceStateChanged(world, id, "shutting-down");
        later.push({ kind: "instance-terminated", instanceId: id });
      }
      return {
        instanceId: id,
        currentState: stateOf(gone ? state : "shutting-down"),
        previousState: stateOf(state),
      };
    });
    return changed(world, { instancesSet }, later);
  },
};

export const describeInstances: Operation = {
  effect: "read",
  parameters: ["InstanceId", "Filter", "MaxResults", "NextToken"],
  notEmulated: [],
  run(call) {
    const { parameters, world } = call;
    const ids = list(parameters, "InstanceId");
    if (ids.length > 0 && parameters.has("MaxResults")) {
      return err(
        invalidCombination("The parameter instancesSet cannot be used with the parameter maxResults"),
      );
    }
    const chosen = ids.length > 0 ? findAll(world.instances, "i", ids) : ok([...world.instances.values()]);
    const paged = pageOf(call, chosen, instanceFilters(world));
    if (!paged.ok) return paged;
    const reservationSet = paged.value.items.map((instance) => ({
      reservationId: reservationId(instance.id),
      ownerId: world.accountId,
      groupSet: [],
      instancesSet: [describeInstance(world, instance)],
    }));
    return read(call, { reservationSet, nextToken: paged.value.nextToken });
  },
};

type Launch = { readonly type: InstanceType; readonly imageId: string; readonly role: string | null };

/** One instance with its ENIs, device 0 first. All or nothing. */
function launchOne(call: Call, launch: Launch): Result<{ world: World; instanceId: string }, Failure> {
  const { parameters, quotas } = call;
  const { type } = launch;
  const asked = structures(parameters, "NetworkInterface");
  const specs = asked.length > 0 ? asked : [plainSpec(parameters)];
  const tags = tagsFor(parameters, "instance");
  if (!tags.ok) return tags;
  const eniTags = tagsFor(parameters, "network-interface");
  if (!eniTags.ok) return eniTags;
  if (specs.length > type.eniCountMax) return err(attachmentLimitExceeded(specs.length, type.name));
  const firstSubnet = find(call.world.subnets, "subnet", specs[0]?.get("SubnetId") ?? "");
  if (!firstSubnet.ok) return firstSubnet;

  const [spent, instanceId] = newId(call.world, "i");
  let world = instanceLaunched(spent, {
    id: instanceId,
    ...launch,
    state: "pending",
    subnetId: firstSubnet.value.id,
    launchedAt: call.now,
    tags: tags.value,
  });
  for (const [index, spec] of specs.entries()) {
    const ask = readCreateAsk(spec);
    if (!ask.ok) return ask;
    const subnet = find(world.subnets, "subnet", spec.get("SubnetId") ?? firstSubnet.value.id);
    if (!subnet.ok) return subnet;
    const groupIds = groupsFor(world, subnet.value, list(spec, "SecurityGroupId"), quotas);
    if (!groupIds.ok) return groupIds;
    const slots = slotsAsked(ask.value);
    if (slots > type.ipv4SlotsPerEni) return err(launchAddressesLimitExceeded(type.name));
    if (slots > 1 + ask.value.secondaryCount && !carriesPrefixes(type))
      return err(prefixesNeedNitro(type.name));
    if (world.enis.size >= quotas.enisPerRegion) return err(eniQuotaExceeded());
    const free = explicitFree(subnet.value, ask.value.explicit);
    if (!free.ok) return free;
    const placed = place(subnet.value.space, ask.value.explicit, ask.value, call);
    if (!placed.ok) return placed;
    const [primary, ...secondaries] = primaryFirst(placed.value.ips, ask.value.primary);
    if (primary === undefined) return err(invalidCombination("A primary private IP address is needed."));
    const [withEniId, eniId] = newId(world, "eni");
    const [withAttachmentId, attachmentId] = newId(withEniId, "eni-attach");
    world = eniCreated(withAttachmentId, {
      id: eniId,
      subnetId: subnet.value.id,
      description: spec.get("Description") ?? "",
      interfaceType: "interface",
      groupIds: groupIds.value,
      primary,
      secondaries,
      prefixes: placed.value.prefixes,
      sourceDestCheck: true,
      managedBy: null,
      tags: eniTags.value,
    });
    const deviceIndex = Number(spec.get("DeviceIndex") ?? index);
    const networkCardIndex = Number(spec.get("NetworkCardIndex") ?? type.defaultNetworkCard);
    const attachment = {
      id: attachmentId,
      instanceId,
      deviceIndex,
      networkCardIndex,
      deleteOnTermination: true,
      attachedAt: call.now,
    };
    world = eniAttached(eniAttaching(eniAvailable(world, eniId), eniId, attachment), eniId);
    if (spec.get("DeleteOnTermination") === "false") world = deleteOnTerminationSet(world, eniId, false);
  }
  return ok({ world, instanceId });
}

/** A launch without NetworkInterface.N: the plain parameters describe device 0. */
function plainSpec(parameters: Parameters): Parameters {
  const spec = new Map<string, string>();
  for (const [name, value] of parameters) {
    if (name === "SubnetId" || name === "PrivateIpAddress" || name.startsWith("SecurityGroupId."))
      spec.set(name, value);
  }
  return spec;
}

function describeInstance(world: World, instance: Instance): XmlObject {
  const subnet = subnetOf(world, instance.subnetId);
  const enis = attachmentsOf(world, instance.id);
  const primary = enis[0];
  return {
    instanceId: instance.id,
    imageId: instance.imageId,
    instanceState: stateOf(instance.state),
    privateDnsName: primary === undefined ? "" : privateDnsName(world, primary.primary),
    dnsName: "",
    instanceType: instance.type.name,
    launchTime: timestamp(instance.launchedAt),
    placement: { availabilityZone: subnet.availabilityZone, groupName: "", tenancy: "default" },
    subnetId: primary === undefined ? undefined : instance.subnetId,
    vpcId: primary === undefined ? undefined : subnet.vpcId,
    privateIpAddress: primary?.primary,
    sourceDestCheck: primary?.sourceDestCheck,
    groupSet: primary === undefined ? [] : groupSet(world, primary),
    architecture: "x86_64",
    virtualizationType: "hvm",
    hypervisor: "xen", // Said of Nitro instances, too. Source: API reference, Instance.
    iamInstanceProfile:
      instance.role === null
        ? undefined
        : { arn: `arn:aws:iam::${world.accountId}:instance-profile/${instance.role}`, id: "AIPAEMULATED" },
    tagSet: tagSet(instance.tags),
    networkInterfaceSet: enis.map((eni) => ({
      networkInterfaceId: eni.id,
      subnetId: eni.subnetId,
      vpcId: subnetOf(world, eni.subnetId).vpcId,
      description: eni.description,
      ownerId: world.accountId,
      status: eni.status,
      macAddress: eni.mac,
      privateIpAddress: eni.primary,
      privateDnsName: privateDnsName(world, eni.primary),
      sourceDestCheck: eni.sourceDestCheck,
      groupSet: groupSet(world, eni),
      attachment: {
        attachmentId: eni.attachment.id,
        deviceIndex: eni.attachment.deviceIndex,
        networkCardIndex: eni.attachment.networkCardIndex,
        status: eni.attachment.status,
        attachTime: timestamp(eni.attachment.attachedAt),
        deleteOnTermination: eni.attachment.deleteOnTermination,
      },
      privateIpAddressesSet: addressSet(world, eni),
      ipv4PrefixSet: eni.prefixes.length === 0 ? undefined : prefixSet(eni),
      interfaceType: eni.interfaceType,
    })),
  };
}

function instanceFilters(world: World): FilterFields<Instance> {
  const enisOf = (instance: Instance) => attachmentsOf(world, instance.id);
  return {
    "instance-id": ({ id }) => [id],
    "instance-type": ({ type }) => [type.name],
    "instance-state-name": ({ state }) => [state],
    "instance-state-code": ({ state }) => [String(STATE_CODES[state])],
    "image-id": ({ imageId }) => [imageId],
    "availability-zone": ({ subnetId }) => [subnetOf(world, subnetId).availabilityZone],
    "subnet-id": ({ subnetId }) => [subnetId],
    "vpc-id": ({ subnetId }) => [subnetOf(world, subnetId).vpcId],
    "private-ip-address": (instance) =>
      enisOf(instance)
        .slice(0, 1)
        .map((eni) => eni.primary),
    "private-dns-name": (instance) =>
      enisOf(instance)
        .slice(0, 1)
        .map((eni) => privateDnsName(world, eni.primary)),
    "network-interface.network-interface-id": (instance) => enisOf(instance).map((eni) => eni.id),
    "network-interface.attachment.attachment-id": (instance) =>
      enisOf(instance).map((eni) => eni.attachment.id),
    "network-interface.subnet-id": (instance) => enisOf(instance).map((eni) => eni.subnetId),
    "network-interface.addresses.private-ip-address": (instance) =>
      enisOf(instance).flatMap((eni) => [eni.primary, ...eni.secondaries]),
    "instance.group-id": (instance) =>
      enisOf(instance)
        .slice(0, 1)
        .flatMap((eni) => eni.groupIds),
  };
}

function stateOf(state: InstanceState): XmlObject {
  return { code: STATE_CODES[state], name: state };
}

function reservationId(instanceId: string): string {
  return instanceId.replace(/^i-/, "r-");
}
