/** AttachNetworkInterface and DetachNetworkInterface. Both answer before they are done. */
import { err } from "../../lib/result.ts";
import {
  addressesLimitExceeded,
  attachmentLimitExceeded,
  deviceIndexTaken,
  eniInUse,
  instanceNotRunning,
  malformedId,
  missingParameter,
  noSuchNetworkCard,
  notFound,
  notYoursToManage,
  otherAvailabilityZone,
  prefixesNeedNitro,
  primaryCannotBeDetached,
} from "../failures.ts";
import { carriesPrefixes } from "../instance-types.ts";
import { required, truth, wholeNumber } from "../parameters.ts";
import {
  attachmentsOf,
  eniAttaching,
  eniDetaching,
  eniOfAttachment,
  newId,
  slotsUsed,
  subnetOf,
} from "../world.ts";
import { changed, find, type Operation, wellFormed } from "./operation.ts";

export const attachNetworkInterface: Operation = {
  effect: "write",
  parameters: ["NetworkInterfaceId", "InstanceId", "DeviceIndex", "NetworkCardIndex"],
  notEmulated: ["EnaSrdSpecification", "EnaQueueCount"],
  run(call) {
    const { parameters, world } = call;
    const eniId = required(parameters, "NetworkInterfaceId");
    if (!eniId.ok) return eniId;
    const instanceId = required(parameters, "InstanceId");
    if (!instanceId.ok) return instanceId;
    const deviceIndex = wholeNumber(parameters, "DeviceIndex");
    if (!deviceIndex.ok) return deviceIndex;
    if (deviceIndex.value === null) return err(missingParameter("deviceIndex"));
    const card = wholeNumber(parameters, "NetworkCardIndex");
    if (!card.ok) return card;
    const foundEni = find(world.enis, "eni", eniId.value);
    if (!foundEni.ok) return foundEni;
    const foundInstance = find(world.instances, "i", instanceId.value);
    if (!foundInstance.ok) return foundInstance;
    const eni = foundEni.value;
    const instance = foundInstance.value;
    const { type } = instance;
    const networkCardIndex = card.value ?? type.defaultNetworkCard;

    if (eni.managedBy !== null) return err(notYoursToManage());
    if (eni.attachment !== null) return err(eniInUse(eni.id));
    // Running, stopped and launching instances take an ENI: hot, warm and cold attach.
    if (instance.state === "shutting-down" || instance.state === "terminated")
      return err(instanceNotRunning(instance.id));
    const [here, there] = [subnetOf(world, eni.subnetId), subnetOf(world, instance.subnetId)];
    if (here.availabilityZone !== there.availabilityZone) return err(otherAvailabilityZone());
    const cardLimit = type.networkCards[networkCardIndex];
    if (cardLimit === undefined) return err(noSuchNetworkCard(networkCardIndex, type.name));
    const others = attachmentsOf(world, instance.id).map((other) => other.attachment);
    const sameCard = others.filter((other) => other.networkCardIndex === networkCardIndex);
    if (sameCard.some((other) => other.deviceIndex === deviceIndex.value))
      return err(deviceIndexTaken(instance.id, deviceIndex.value));
    if (others.length >= type.eniCountMax) return err(attachmentLimitExceeded(others.length + 1, type.name));
    if (sameCard.length >= cardLimit) return err(attachmentLimitExceeded(sameCard.length + 1, type.name));
    if (eni.prefixes.length > 0 && !carriesPrefixes(type)) return err(prefixesNeedNitro(type.name));
    if (slotsUsed(eni) > type.ipv4SlotsPerEni) return err(addressesLimitExceeded());

    const [spent, attachmentId] = newId(world, "eni-attach");
    const next = eniAttaching(spent, eni.id, {
      id: attachmentId,
      instanceId: instance.id,
      deviceIndex: deviceIndex.value,
      networkCardIndex,
      deleteOnTermination: false, // An ENI that was created apart outlives its instance unless somebody says otherwise.
      attachedAt: call.now,
    });
    return changed(next, { attachmentId, networkCardIndex }, [
      { kind: "eni-attached", eniId: eni.id, attachmentId },
    ]);
  },
};

/** A second detach while the first still runs is answered like the first (uncertain); `Force` makes EC2 stop waiting for the guest. */
export const detachNetworkInterface: Operation = {
  effect: "write",
  parameters: ["AttachmentId", "Force"],
  notEmulated: [],
  run(call) {
    const { world } = call;
    const attachmentId = required(call.parameters, "AttachmentId");
    if (!attachmentId.ok) return attachmentId;
    const force = truth(call.parameters, "Force");
    if (!force.ok) return force;
    if (!wellFormed("eni-attach", attachmentId.value))
      return err(malformedId("eni-attach", attachmentId.value));
    const eni = eniOfAttachment(world, attachmentId.value);
    if (eni === null || eni.attachment === null) return err(notFound("eni-attach", [attachmentId.value]));
    if (eni.managedBy !== null) return err(notYoursToManage());
    if (eni.attachment.deviceIndex === 0 && eni.attachment.networkCardIndex === 0)
      return err(primaryCannotBeDetached());
    const later = {
      kind: "eni-detached",
      eniId: eni.id,
      attachmentId: eni.attachment.id,
      force: force.value === true,
    } as const;
    const repeated = eni.attachment.status === "detaching" && !later.force;
    return changed(eniDetaching(world, eni.id), { return: true }, repeated ? [] : [later]);
  },
};
