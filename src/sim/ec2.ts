/**
 * EC2 and IMDS as the agent's ports, over the emulator's engine in virtual time. Pace, retries, deadlines and the sorting of codes are
 * the production ones (src/aws); what aws/ec2-client.ts does with HTTP is done here with values.
 */
import type { Ec2, Ec2Failure, EniSeen, Imds, ImdsEni, ImdsFailure, SubnetSeen } from "../core/model/ec2.ts";
import type { AttachmentId, EniId, Mac, SecurityGroupId, SubnetId } from "../core/model/eni.ts";
import type { InstanceId, InstanceLimits } from "../core/model/instance.ts";
import { descriptionOfNewEni, tagsOfNewEni } from "../aws/eni-tags.ts";
import { CLUSTER_TAG, DESCRIPTION_PREFIX, OWNER_TAG } from "../core/model/eni-names.ts";
import { sortFailure } from "../aws/errors.ts";
import { type Ec2Operation, operationRow } from "../aws/operations.ts";
import { createPacer, waitBeforeRetry } from "../aws/pace.ts";
import type { Engine } from "../emulator/engine.ts";
import type { XmlObject, XmlValue } from "../emulator/ec2-xml.ts";
import { attachmentsOf, subnetOf } from "../emulator/world.ts";
import { parseCidr4, printCidr4, type Cidr4, type Ipv4 } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { instant } from "../lib/time.ts";
import type { VirtualClock } from "./clock.ts";
import { never } from "./disk.ts";

const ATTEMPT_MS = 10_000;
const DEADLINE_MS = 25_000;

export type Ec2Hooks = {
  /** Before a call is sent. May script a fault into the engine; true when the daemon dies instead. */
  readonly before: (operation: Ec2Operation, parameters: ReadonlyMap<string, string>) => boolean;
  /** After the answer, before the agent has it; true when the daemon dies. */
  readonly answered: (
    operation: Ec2Operation,
    parameters: ReadonlyMap<string, string>,
    failure: Ec2Failure | null,
  ) => boolean;
  readonly imdsDown: () => boolean;
  readonly described: (enis: readonly EniSeen[]) => void;
};

type Asked = "addresses" | "prefixes" | "other";
type Parameters = readonly (readonly [string, string])[];

export function createSimEc2(options: {
  readonly engine: Engine;
  readonly clock: VirtualClock;
  readonly instanceId: string;
  readonly clusterName: string;
  readonly random: Random;
  readonly hooks: Ec2Hooks;
}): Ec2 {
  const { engine, clock, instanceId, hooks, random } = options;
  const pacer = createPacer();
  const now = (): ReturnType<typeof instant> => instant(clock.now);

  async function once(
    operation: Ec2Operation,
    asked: Asked,
    given: Parameters,
    timeoutMs: number,
  ): Promise<Result<XmlObject, Ec2Failure>> {
    const parameters = new Map(given);
    if (hooks.before(operation, parameters)) return await never();
    const reply = engine.call({
      action: operation,
      parameters,
      caller: { accessKeyId: "sim", userAgent: instanceId },
    });
    const answer = await orTimeout(clock, reply, timeoutMs);
    const trouble = (
      symptom: string,
      code: string | null,
      status: number | null,
      message: string,
    ): Result<never, Ec2Failure> =>
      err(sortFailure({ operation, asked, sent: true, status, code, symptom, message, requestId: null }));
    const result =
      answer === null
        ? trouble("Timeout", null, null, `no answer within ${timeoutMs} ms`)
        : answer.kind === "lost"
          ? trouble("ConnectionReset", null, null, "connection reset")
          : answer.kind === "failure"
            ? trouble("", answer.failure.code, answer.failure.status, answer.failure.message)
            : ok(answer.answer);
    if (hooks.answered(operation, parameters, result.ok ? null : result.error)) return await never();
    return result;
  }

  async function call(
    operation: Ec2Operation,
    given: Parameters,
    how: { asked?: Asked; repeatable?: boolean } = {},
  ): Promise<Result<XmlObject, Ec2Failure>> {
    const deadline = clock.now + DEADLINE_MS;
    for (let attempt = 0; ; attempt += 1) {
      const waitMs = pacer.take(operation, now(), deadline - clock.now);
      if (waitMs === null)
        return err({ kind: "throttled", operation, code: "PacedByNode", message: "", requestId: null });
      if (waitMs > 0) await clock.sleep(waitMs);
      const result = await once(
        operation,
        how.asked ?? "other",
        given,
        Math.min(ATTEMPT_MS, deadline - clock.now),
      );
      if (result.ok) {
        pacer.answered(operation, now());
        return result;
      }
      if (result.error.kind === "throttled") pacer.throttled(operation, now());
      const repeatable = how.repeatable === true || !operationRow(operation).mutating;
      const pauseMs = waitBeforeRetry({ failure: result.error, attempt, sent: true, repeatable }, random);
      if (pauseMs === null || clock.now + pauseMs >= deadline) return result;
      await clock.sleep(pauseMs);
    }
  }

  const describe = async (
    filters: readonly (readonly [string, readonly string[]])[],
  ): Promise<Result<readonly EniSeen[], Ec2Failure>> => {
    const given = filters.flatMap(
      ([name, values], index): Parameters => [
        [`Filter.${index + 1}.Name`, name],
        ...values.map((value, at) => [`Filter.${index + 1}.Value.${at + 1}`, value] as const),
      ],
    );
    const answer = await call("DescribeNetworkInterfaces", [...given, ["MaxResults", "1000"]]);
    if (!answer.ok) return answer;
    const enis = objects(answer.value["networkInterfaceSet"]).map(eniOf);
    hooks.described(enis);
    return ok(enis);
  };
  const nothing = async (
    answer: Promise<Result<XmlObject, Ec2Failure>>,
  ): Promise<Result<null, Ec2Failure>> => {
    const told = await answer;
    return told.ok ? ok(null) : told;
  };
  const numbered = (name: string, values: readonly string[]): Parameters =>
    values.map((value, index) => [`${name}.${index + 1}`, value] as const);

  return {
    describeInstanceEnis: (instance) => describe([["attachment.instance-id", [instance]]]),
    describeEnis: async (ids) =>
      ids.length === 0 ? ok([]) : await describe([["network-interface-id", ids]]),
    describeOwnedEnis: (instance) => describe([[`tag:${OWNER_TAG}`, [instance]]]),
    describeLooseEnis: (vpcId) =>
      describe([
        ["status", ["available"]],
        ["vpc-id", [vpcId]],
        ["description", [`${DESCRIPTION_PREFIX}*`]],
        ["tag-key", [OWNER_TAG]],
        [`tag:${CLUSTER_TAG}`, [options.clusterName]],
      ]),
    describeInstanceLimits: async (type) =>
      err({
        kind: "failing",
        operation: "DescribeInstanceTypes",
        code: "NotSimulated",
        message: type,
        requestId: null,
      }),
    describeSubnets: async (ids) => {
      const answer = await call("DescribeSubnets", numbered("SubnetId", ids));
      return answer.ok ? ok(objects(answer.value["subnetSet"]).map(subnetSeen)) : answer;
    },
    describeVpcCidrs: async () => ok([]),
    createEni: async (request) => {
      const tags = [
        ...tagsOfNewEni(request, { clusterName: options.clusterName, additionalTags: new Map() }),
      ];
      const given: Parameters = [
        ["SubnetId", request.subnetId],
        ["Description", descriptionOfNewEni(request)],
        ["ClientToken", request.clientToken],
        ["TagSpecification.1.ResourceType", "network-interface"],
        ...tags.flatMap(
          ([key, value], index): Parameters => [
            [`TagSpecification.1.Tag.${index + 1}.Key`, key],
            [`TagSpecification.1.Tag.${index + 1}.Value`, value],
          ],
        ),
        ...numbered("SecurityGroupId", request.securityGroups),
        ...(request.addressCount === 0
          ? []
          : [["SecondaryPrivateIpAddressCount", String(request.addressCount)] as const]),
        ...(request.prefixCount === 0 ? [] : [["Ipv4PrefixCount", String(request.prefixCount)] as const]),
      ];
      const asked = request.prefixCount > 0 ? "prefixes" : "addresses";
      const answer = await call("CreateNetworkInterface", given, { asked, repeatable: true });
      return answer.ok ? ok(eniOf(object(answer.value["networkInterface"]))) : answer;
    },
    attachEni: async ({ eni, instance, slot }) => {
      const answer = await call("AttachNetworkInterface", [
        ["NetworkInterfaceId", eni],
        ["InstanceId", instance],
        ["DeviceIndex", String(slot.deviceIndex)],
        ...(slot.networkCard === 0 ? [] : [["NetworkCardIndex", String(slot.networkCard)] as const]),
      ]);
      return answer.ok ? ok(text(answer.value["attachmentId"]) as AttachmentId) : answer;
    },
    setDeleteOnTermination: (eni, attachment) =>
      nothing(
        call("ModifyNetworkInterfaceAttribute", [
          ["NetworkInterfaceId", eni],
          ["Attachment.AttachmentId", attachment],
          ["Attachment.DeleteOnTermination", "true"],
        ]),
      ),
    setSecurityGroups: (eni, groups) =>
      nothing(
        call("ModifyNetworkInterfaceAttribute", [
          ["NetworkInterfaceId", eni],
          ...numbered("SecurityGroupId", groups),
        ]),
      ),
    detachEni: (attachment) => nothing(call("DetachNetworkInterface", [["AttachmentId", attachment]])),
    deleteEni: (eni) => nothing(call("DeleteNetworkInterface", [["NetworkInterfaceId", eni]])),
    assignAddresses: async (eni, count) => {
      const given: Parameters = [
        ["NetworkInterfaceId", eni],
        ["SecondaryPrivateIpAddressCount", String(count)],
      ];
      const answer = await call("AssignPrivateIpAddresses", given, { asked: "addresses" });
      if (!answer.ok) return answer;
      return ok(
        objects(answer.value["assignedPrivateIpAddressesSet"]).map(
          (each) => text(each["privateIpAddress"]) as Ipv4,
        ),
      );
    },
    assignPrefixes: async (eni, count) => {
      const given: Parameters = [
        ["NetworkInterfaceId", eni],
        ["Ipv4PrefixCount", String(count)],
      ];
      const answer = await call("AssignPrivateIpAddresses", given, { asked: "prefixes" });
      if (!answer.ok) return answer;
      return ok(objects(answer.value["assignedIpv4PrefixSet"]).map((each) => cidrOf(each["ipv4Prefix"])));
    },
    unassignAddresses: (eni, ips) =>
      nothing(
        call("UnassignPrivateIpAddresses", [
          ["NetworkInterfaceId", eni],
          ...numbered("PrivateIpAddress", ips),
        ]),
      ),
    unassignPrefixes: (eni, prefixes) =>
      nothing(
        call("UnassignPrivateIpAddresses", [
          ["NetworkInterfaceId", eni],
          ...numbered("Ipv4Prefix", prefixes.map(printCidr4)),
        ]),
      ),
    tagEni: async () =>
      err({ kind: "failing", operation: "CreateTags", code: "NotSimulated", message: "", requestId: null }),
  };
}

/** Null when the time is over first. The call itself goes on: what it does then is done without us. */
async function orTimeout<T>(clock: VirtualClock, work: Promise<T>, ms: number): Promise<T | null> {
  return await new Promise((resolve) => {
    const timer = clock.after(ms, () => resolve(null));
    void work.then((value) => {
      clock.cancel(timer);
      resolve(value);
    });
  });
}

export function createSimImds(options: {
  readonly engine: Engine;
  readonly clock: VirtualClock;
  readonly instanceId: string;
  readonly hooks: Pick<Ec2Hooks, "imdsDown">;
}): Imds {
  const { engine, clock, instanceId, hooks } = options;
  const unreachable: ImdsFailure = { kind: "unreachable", path: "meta-data/", detail: "no answer" };
  return {
    readInstance: async () => {
      await clock.sleep(5);
      if (hooks.imdsDown()) return err(unreachable);
      const world = engine.shownByImds(instanceId);
      const instance = world.instances.get(instanceId);
      const primary = attachmentsOf(world, instanceId).find(
        (eni) => eni.attachment.deviceIndex === 0 && eni.attachment.networkCardIndex === 0,
      );
      if (instance === undefined || primary === undefined) return err(unreachable);
      const subnet = subnetOf(world, primary.subnetId);
      return ok({
        id: instanceId as InstanceId,
        type: instance.type.name,
        region: world.region,
        availabilityZone: subnet.availabilityZone,
        vpcId: subnet.vpcId,
        vpcCidrs: world.vpcs.get(subnet.vpcId)?.cidrs ?? [],
        primaryMac: primary.mac as Mac,
        primaryIp: primary.primary,
        primarySubnet: primary.subnetId as SubnetId,
        securityGroups: primary.groupIds as readonly SecurityGroupId[],
      });
    },
    readEnis: async () => {
      await clock.sleep(10);
      if (hooks.imdsDown()) return err(unreachable);
      const world = engine.shownByImds(instanceId);
      const enis = attachmentsOf(world, instanceId).map(
        (eni): ImdsEni => ({
          id: eni.id as EniId,
          mac: eni.mac as Mac,
          slot: { networkCard: eni.attachment.networkCardIndex, deviceIndex: eni.attachment.deviceIndex },
          subnetId: eni.subnetId as SubnetId,
          subnetCidr: subnetOf(world, eni.subnetId).space.cidr,
          localIps: [eni.primary, ...eni.secondaries],
          prefixes: eni.prefixes.map((network) => ({ network, prefixLength: 28 })),
          securityGroups: eni.groupIds as readonly SecurityGroupId[],
        }),
      );
      return ok(enis);
    },
  };
}

/** The table of the judge's side: the agent's own is core/model/instance-limits.ts. */
export function limitsSeenBy(engine: Engine, instanceId: string): InstanceLimits | null {
  const type = engine.world().instances.get(instanceId)?.type;
  if (type === undefined) return null;
  return {
    addressesPerEni: type.ipv4SlotsPerEni,
    networkCards: type.networkCards.map((enis) => ({ enis })),
    nitro: type.hypervisor === "nitro",
  };
}

// --- Answers ---------------------------------------------------------------------------------------------------------------

// The emulator's answers are values of its own making: what is absent is absent, and what is there has its type. So the casts below
// say what describe-eni.ts writes.

function object(value: XmlValue | undefined): XmlObject {
  return value as XmlObject;
}

function objects(value: XmlValue | undefined): readonly XmlObject[] {
  return (value ?? []) as readonly XmlObject[];
}

function text(value: XmlValue | undefined): string {
  return value as string;
}

function cidrOf(value: XmlValue | undefined): Cidr4 {
  const parsed = parseCidr4(text(value));
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}

function eniOf(seen: XmlObject): EniSeen {
  const attachment = seen["attachment"] as XmlObject | undefined;
  const ips = objects(seen["privateIpAddressesSet"]).map((each) => text(each["privateIpAddress"]) as Ipv4);
  return {
    id: text(seen["networkInterfaceId"]) as EniId,
    mac: text(seen["macAddress"]) as Mac,
    status: text(seen["status"]) as EniSeen["status"],
    subnetId: text(seen["subnetId"]) as SubnetId,
    description: text(seen["description"]),
    interfaceType: text(seen["interfaceType"]),
    requesterManaged: seen["requesterManaged"] === true,
    securityGroups: objects(seen["groupSet"]).map((each) => text(each["groupId"]) as SecurityGroupId),
    tags: new Map(objects(seen["tagSet"]).map((each) => [text(each["key"]), text(each["value"])])),
    primaryIp: ips[0] ?? null,
    secondaryIps: ips.slice(1),
    prefixes: objects(seen["ipv4PrefixSet"]).map((each) => cidrOf(each["ipv4Prefix"])),
    attachment:
      attachment === undefined
        ? null
        : {
            id: text(attachment["attachmentId"]) as AttachmentId,
            instanceId: text(attachment["instanceId"]) as InstanceId,
            slot: {
              networkCard: attachment["networkCardIndex"] as number,
              deviceIndex: attachment["deviceIndex"] as number,
            },
            status: text(attachment["status"]) as "attached",
            deleteOnTermination: attachment["deleteOnTermination"] === true,
          },
  };
}

function subnetSeen(seen: XmlObject): SubnetSeen {
  return {
    id: text(seen["subnetId"]) as SubnetId,
    cidr: cidrOf(seen["cidrBlock"]),
    availableAddressCount: seen["availableIpAddressCount"] as number,
    availabilityZone: text(seen["availabilityZone"]),
    tags: new Map(),
  };
}
