/**
 * EC2 and IMDS of one account in memory: what the agent asks for comes true at once, by EC2's rules (limits, slots, one owner an address,
 * client tokens, detaches that take their time, describes that lag). Failures are scripted: the nth call of an operation is refused, or its
 * answer is lost after it was done, or it never ends.
 */
import type {
  CreateEniRequest,
  Ec2,
  Ec2Failure,
  Ec2FailureKind,
  EniSeen,
  Imds,
} from "../../src/core/model/ec2.ts";
import type {
  AttachmentId,
  EniId,
  EniSlot,
  Mac,
  SecurityGroupId,
  SubnetId,
} from "../../src/core/model/eni.ts";
import type { Instance, InstanceId } from "../../src/core/model/instance.ts";
import { eniCountMax } from "../../src/core/model/instance.ts";
import { CREATED_AT_TAG, DESCRIPTION_PREFIX, OWNER_TAG } from "../../src/core/model/eni-names.ts";
import {
  addressesOfCidr4,
  cidr4,
  cidr4Contains,
  cidr4Size,
  type Cidr4,
  ipv4Plus,
  type Ipv4,
  printCidr4,
} from "../../src/lib/ip.ts";
import { err, ok, type Result } from "../../src/lib/result.ts";
import { printWallTime } from "../../src/lib/time.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** EC2's own names of the calls that the agent makes. */
export type Operation =
  | "DescribeNetworkInterfaces"
  | "DescribeSubnets"
  | "DescribeVpcs"
  | "DescribeInstanceTypes"
  | "CreateNetworkInterface"
  | "AttachNetworkInterface"
  | "ModifyNetworkInterfaceAttribute"
  | "DetachNetworkInterface"
  | "DeleteNetworkInterface"
  | "AssignPrivateIpAddresses"
  | "UnassignPrivateIpAddresses"
  | "CreateTags";

export type Fault =
  /** Answered with a failure; nothing is done. */
  | { readonly how: "refuse"; readonly kind: Ec2FailureKind }
  /** Done, and the answer lost. */
  | { readonly how: "lose-answer" }
  /** Not done, and nobody knows. */
  | { readonly how: "lose-request" };

export type Call = { readonly operation: Operation; readonly at: number };

export type FakeEni = Omit<EniSeen, "status" | "attachment" | "secondaryIps" | "prefixes"> & {
  secondaryIps: Ipv4[];
  prefixes: Cidr4[];
  tags: Map<string, string>;
  securityGroups: readonly SecurityGroupId[];
  attachment: {
    readonly id: AttachmentId;
    readonly instanceId: InstanceId;
    readonly slot: EniSlot;
    deleteOnTermination: boolean;
    /** From then on it is detached. */
    detachedAt: number | null;
  } | null;
};

export type FakeEc2Options = {
  readonly instance: Instance;
  readonly subnets?: ReadonlyMap<SubnetId, Cidr4>;
  readonly callMs?: number; // How long each call takes.
  readonly detachMs?: number; // How long an ENI is `detaching`.
  readonly lagMs?: number; // How old the views are that describes give.
};

export type FakeEc2 = ReturnType<typeof createFakeEc2>;

export const SUBNET = "subnet-a" as SubnetId;
export const OTHER_SUBNET = "subnet-b" as SubnetId;

export function createFakeEc2(clock: VirtualTime, options: FakeEc2Options) {
  const { instance, callMs = 0, detachMs = 3_000 } = options;
  const subnets =
    options.subnets ??
    new Map([
      [SUBNET, cidr4("10.0.0.0/20")],
      [OTHER_SUBNET, cidr4("10.0.16.0/20")],
    ]);
  const enis = new Map<EniId, FakeEni>();
  const taken = new Set<Ipv4>(); // By others than our ENIs.
  const tokens = new Map<string, EniId>();
  const calls: Call[] = [];
  const faults: { operation: Operation; skip: number; times: number; fault: Fault }[] = [];
  const attachListeners: ((eni: FakeEni) => void)[] = [];
  const detachListeners: ((eni: FakeEni) => void)[] = [];
  const views: { readonly at: number; readonly enis: readonly EniSeen[] }[] = [];
  let [lagMs, numbers] = [options.lagMs ?? 0, 0];
  /** Called around each call's deed; what it gives back is waited for. */
  let around: (operation: Operation, when: "before" | "after") => Promise<void> = async () =>
    await Promise.resolve();

  const id = (prefix: string): string => `${prefix}-${(numbers += 1).toString().padStart(4, "0")}`;
  const macOf = (number: number): Mac => `02:00:00:00:00:${number.toString(16).padStart(2, "0")}` as Mac;

  const tick = (): void => {
    for (const eni of enis.values()) {
      const at = eni.attachment?.detachedAt;
      if (at !== null && at !== undefined && at <= clock.now()) eni.attachment = null;
    }
  };
  const statusOf = (eni: FakeEni): EniSeen["status"] => {
    if (eni.attachment === null) return "available";
    return eni.attachment.detachedAt === null ? "in-use" : "detaching";
  };
  const seen = (eni: FakeEni): EniSeen => ({
    ...eni,
    status: statusOf(eni),
    tags: new Map(eni.tags),
    secondaryIps: [...eni.secondaryIps],
    prefixes: [...eni.prefixes],
    attachment:
      eni.attachment === null
        ? null
        : {
            id: eni.attachment.id,
            instanceId: eni.attachment.instanceId,
            slot: eni.attachment.slot,
            status: eni.attachment.detachedAt === null ? "attached" : "detaching",
            deleteOnTermination: eni.attachment.deleteOnTermination,
          },
  });
  const truth = (): EniSeen[] => {
    tick();
    return [...enis.values()].map(seen);
  };
  /** What a describe shows: the truth of `lagMs` ago. */
  const view = (): readonly EniSeen[] => {
    if (lagMs === 0) return truth();
    const old = views.filter((each) => each.at <= clock.now() - lagMs).at(-1);
    return (old ?? views[0])?.enis ?? [];
  };
  const changed = (): void => void views.push({ at: clock.now(), enis: truth() });

  const used = (): Set<Ipv4> => {
    const all = new Set(taken);
    for (const eni of enis.values()) {
      if (eni.primaryIp !== null) all.add(eni.primaryIp);
      for (const ip of eni.secondaryIps) all.add(ip);
      for (const prefix of eni.prefixes) for (const ip of addressesOfCidr4(prefix)) all.add(ip);
    }
    return all;
  };
  /** The lowest free ones, so that what was given back is soon given out again. */
  const freeAddresses = (subnetId: SubnetId, count: number): Ipv4[] | null => {
    const all = used();
    const cidr = subnets.get(subnetId) ?? cidr4("10.0.0.0/20");
    const found: Ipv4[] = [];
    const last = ipv4Plus(cidr.network, cidr4Size(cidr) - 1);
    for (let ip = ipv4Plus(cidr.network, 4); found.length < count && ip !== last; ip = ipv4Plus(ip, 1)) {
      if (!all.has(ip)) found.push(ip);
    }
    return found.length < count ? null : found;
  };
  const freePrefixes = (subnetId: SubnetId, count: number): Cidr4[] | null => {
    const all = used();
    const cidr = subnets.get(subnetId) ?? cidr4("10.0.0.0/20");
    const found: Cidr4[] = [];
    for (
      let at = ipv4Plus(cidr.network, 16);
      found.length < count && cidr4Contains(cidr, at);
      at = ipv4Plus(at, 16)
    ) {
      const prefix = { network: at, prefixLength: 28 };
      if (![...addressesOfCidr4(prefix)].some((ip) => all.has(ip))) found.push(prefix);
    }
    return found.length < count ? null : found;
  };

  type Deed<T> = () => Result<T, { readonly kind: Ec2FailureKind; readonly message: string }>;
  const failure = (operation: Operation, kind: Ec2FailureKind, message = ""): Ec2Failure => ({
    kind,
    operation,
    code: kind === "in-doubt" ? "Timeout" : kind,
    message,
    requestId: null,
  });
  const call = async <T>(operation: Operation, deed: Deed<T>): Promise<Result<T, Ec2Failure>> => {
    calls.push({ operation, at: clock.now() });
    await around(operation, "before");
    if (callMs > 0) await clock.time.sleep(callMs, NEVER_ABORTED);
    const fault = nextFault(operation);
    if (fault?.how === "refuse") return err(failure(operation, fault.kind, "scripted"));
    if (fault?.how === "lose-request") return err(failure(operation, "in-doubt", "never arrived"));
    tick();
    const done = deed();
    changed();
    await around(operation, "after");
    if (fault?.how === "lose-answer") return err(failure(operation, "in-doubt", "answer lost"));
    return done.ok ? done : err(failure(operation, done.error.kind, done.error.message));
  };
  const nextFault = (operation: Operation): Fault | null => {
    const script = faults.find((each) => each.operation === operation && each.times > 0);
    if (script === undefined) return null;
    if (script.skip > 0) {
      script.skip -= 1;
      return null;
    }
    script.times -= 1;
    return script.fault;
  };
  const no = (kind: Ec2FailureKind, message = ""): ReturnType<Deed<never>> => err({ kind, message });
  const roomOf = (eni: FakeEni): number =>
    instance.limits.addressesPerEni - 1 - eni.secondaryIps.length - eni.prefixes.length;

  const create: (request: CreateEniRequest) => ReturnType<Deed<EniSeen>> = (request) => {
    const before = tokens.get(request.clientToken);
    const known = before === undefined ? undefined : enis.get(before);
    if (known !== undefined) return ok(seen(known));
    const ips = freeAddresses(request.subnetId, 1 + request.addressCount);
    if (ips === null) return no("subnet-exhausted");
    const prefixes = freePrefixes(request.subnetId, request.prefixCount);
    if (prefixes === null) return no("prefixes-exhausted");
    const eniId = id("eni") as EniId;
    const eni: FakeEni = {
      id: eniId,
      mac: macOf(numbers),
      subnetId: request.subnetId,
      description: `${DESCRIPTION_PREFIX}${request.instance}`,
      interfaceType: "interface",
      requesterManaged: false,
      securityGroups: request.securityGroups,
      tags: new Map([
        [OWNER_TAG, request.instance],
        [CREATED_AT_TAG, printWallTime(request.createdAt)],
      ]),
      primaryIp: ips[0] ?? null,
      secondaryIps: ips.slice(1),
      prefixes,
      attachment: null,
    };
    enis.set(eniId, eni);
    tokens.set(request.clientToken, eniId);
    return ok({ ...seen(eni), status: "pending" });
  };

  const attach = (request: {
    eni: EniId;
    instance: InstanceId;
    slot: EniSlot;
  }): ReturnType<Deed<AttachmentId>> => {
    const eni = enis.get(request.eni);
    if (eni === undefined) return no("gone");
    if (eni.attachment !== null) return no("in-use", "attached already");
    const here = [...enis.values()].filter((each) => each.attachment?.instanceId === request.instance);
    if (here.length >= eniCountMax(instance.limits)) return no("eni-limit");
    const { networkCard, deviceIndex } = request.slot;
    const rival = here.find(
      ({ attachment }) =>
        attachment?.slot.networkCard === networkCard && attachment.slot.deviceIndex === deviceIndex,
    );
    if (rival !== undefined) return no("in-use", "device index taken");
    const attachmentId = id("eni-attach") as AttachmentId;
    eni.attachment = {
      id: attachmentId,
      instanceId: request.instance,
      slot: request.slot,
      deleteOnTermination: false,
      detachedAt: null,
    };
    for (const listener of attachListeners) listener(eni);
    return ok(attachmentId);
  };

  const detach = (attachmentId: AttachmentId): ReturnType<Deed<null>> => {
    const eni = [...enis.values()].find((each) => each.attachment?.id === attachmentId);
    if (eni?.attachment === undefined || eni.attachment === null) return no("gone");
    if (eni.attachment.detachedAt === null) {
      eni.attachment.detachedAt = clock.now() + detachMs;
      for (const listener of detachListeners) listener(eni);
    }
    return ok(null);
  };

  const eniCall = <T>(
    operation: Operation,
    eniId: EniId,
    deed: (eni: FakeEni) => ReturnType<Deed<T>>,
  ): Promise<Result<T, Ec2Failure>> =>
    call(operation, () => {
      const eni = enis.get(eniId);
      return eni === undefined ? no("gone") : deed(eni);
    });

  const ec2: Ec2 = {
    describeInstanceEnis: (instanceId) =>
      call("DescribeNetworkInterfaces", () =>
        ok(view().filter((eni) => eni.attachment?.instanceId === instanceId)),
      ),
    describeEnis: (ids) =>
      call("DescribeNetworkInterfaces", () => ok(view().filter((eni) => ids.includes(eni.id)))),
    describeOwnedEnis: (instanceId) =>
      call("DescribeNetworkInterfaces", () =>
        ok(view().filter((eni) => eni.tags.get(OWNER_TAG) === instanceId)),
      ),
    describeLooseEnis: () =>
      call("DescribeNetworkInterfaces", () => ok(view().filter((eni) => eni.attachment === null))),
    describeInstanceLimits: () => call("DescribeInstanceTypes", () => ok(instance.limits)),
    describeSubnets: (ids) =>
      call("DescribeSubnets", () =>
        ok(
          [...subnets]
            .filter(([subnetId]) => ids.includes(subnetId))
            .map(([subnetId, cidr]) => ({
              id: subnetId,
              cidr,
              availableAddressCount: 100,
              availabilityZone: instance.availabilityZone,
              tags: new Map<string, string>(),
            })),
        ),
      ),
    describeVpcCidrs: () => call("DescribeVpcs", () => ok(instance.vpcCidrs)),
    createEni: (request) => call("CreateNetworkInterface", () => create(request)),
    attachEni: (request) => call("AttachNetworkInterface", () => attach(request)),
    setDeleteOnTermination: (eniId) =>
      eniCall("ModifyNetworkInterfaceAttribute", eniId, (eni) => {
        if (eni.attachment === null) return no("gone");
        eni.attachment.deleteOnTermination = true;
        return ok(null);
      }),
    setSecurityGroups: (eniId, groups) =>
      eniCall("ModifyNetworkInterfaceAttribute", eniId, (eni) => {
        eni.securityGroups = groups;
        return ok(null);
      }),
    detachEni: (attachmentId) => call("DetachNetworkInterface", () => detach(attachmentId)),
    deleteEni: (eniId) =>
      eniCall("DeleteNetworkInterface", eniId, (eni) => {
        if (eni.attachment !== null) return no("in-use");
        enis.delete(eniId);
        return ok(null);
      }),
    assignAddresses: (eniId, count) =>
      eniCall("AssignPrivateIpAddresses", eniId, (eni) => {
        if (roomOf(eni) < count) return no("address-limit");
        const ips = freeAddresses(eni.subnetId, count);
        if (ips === null) return no("subnet-exhausted");
        eni.secondaryIps.push(...ips);
        return ok(ips);
      }),
    assignPrefixes: (eniId, count) =>
      eniCall("AssignPrivateIpAddresses", eniId, (eni) => {
        if (roomOf(eni) < count) return no("address-limit");
        const prefixes = freePrefixes(eni.subnetId, count);
        if (prefixes === null) return no("prefixes-exhausted");
        eni.prefixes.push(...prefixes);
        return ok(prefixes);
      }),
    unassignAddresses: (eniId, ips) =>
      eniCall("UnassignPrivateIpAddresses", eniId, (eni) => {
        if (!ips.every((ip) => eni.secondaryIps.includes(ip))) return no("gone", "not assigned");
        eni.secondaryIps = eni.secondaryIps.filter((ip) => !ips.includes(ip));
        return ok(null);
      }),
    unassignPrefixes: (eniId, prefixes) =>
      eniCall("UnassignPrivateIpAddresses", eniId, (eni) => {
        const texts = new Set(prefixes.map(printCidr4));
        if (eni.prefixes.filter((each) => texts.has(printCidr4(each))).length < texts.size) return no("gone");
        eni.prefixes = eni.prefixes.filter((each) => !texts.has(printCidr4(each)));
        return ok(null);
      }),
    tagEni: (eniId, tags) =>
      eniCall("CreateTags", eniId, (eni) => {
        for (const [key, value] of tags) eni.tags.set(key, value);
        return ok(null);
      }),
  };

  const { limits: _, ...identity } = instance;
  let imdsAway = 0;
  const imds: Imds = {
    readInstance: async () => {
      await Promise.resolve();
      if (imdsAway === 0) return ok(identity);
      imdsAway -= 1;
      return err({ kind: "unreachable", path: "/latest/meta-data", detail: "scripted" });
    },
    readEnis: async () => {
      await Promise.resolve();
      return ok(
        truth().flatMap((eni) => {
          const cidr = subnets.get(eni.subnetId);
          if (eni.attachment?.instanceId !== instance.id || eni.primaryIp === null || cidr === undefined)
            return [];
          const { id: eniId, mac, subnetId, prefixes, securityGroups } = eni;
          const localIps = [eni.primaryIp, ...eni.secondaryIps];
          const { slot } = eni.attachment;
          return [{ id: eniId, mac, slot, subnetId, subnetCidr: cidr, localIps, prefixes, securityGroups }];
        }),
      );
    },
  };

  /** An ENI that somebody else made. Without a slot it hangs on nothing. */
  const plant = (change: Partial<FakeEni> & { readonly slot?: EniSlot }): FakeEni => {
    const { slot, ...rest } = change;
    const eniId = id("eni") as EniId;
    const number = numbers;
    const [primaryIp] = freeAddresses(rest.subnetId ?? SUBNET, 1) ?? [];
    const eni: FakeEni = {
      id: eniId,
      mac: macOf(number),
      subnetId: SUBNET,
      description: "",
      interfaceType: "interface",
      requesterManaged: false,
      securityGroups: instance.securityGroups,
      tags: new Map(),
      primaryIp: primaryIp ?? null,
      secondaryIps: [],
      prefixes: [],
      attachment: null,
      ...rest,
    };
    enis.set(eni.id, eni);
    if (slot !== undefined) {
      attach({ eni: eni.id, instance: instance.id, slot });
      if (eni.attachment !== null) eni.attachment.deleteOnTermination = true;
    }
    changed();
    return eni;
  };
  const primary = plant({
    mac: instance.primaryMac,
    primaryIp: instance.primaryIp,
    slot: { networkCard: 0, deviceIndex: 0 },
  });

  return {
    ec2,
    imds,
    enis,
    primary,
    calls,
    plant,
    /** Addresses that belong to others: EC2 does not give them out. */
    taken,
    truth,
    onAttach: (listener: (eni: FakeEni) => void): void => void attachListeners.push(listener),
    onDetach: (listener: (eni: FakeEni) => void): void => void detachListeners.push(listener),
    /** The next `times` calls of the operation, after `skip` that go well. */
    script: (operation: Operation, fault: Fault, { skip = 0, times = 1 } = {}): void =>
      void faults.push({ operation, skip, times, fault }),
    forgive: (): void => void faults.splice(0),
    setLag: (ms: number): void => {
      changed();
      lagMs = ms;
    },
    setAround: (next: typeof around): void => {
      around = next;
    },
    imdsAwayFor: (times: number): void => {
      imdsAway = times;
    },
    countOf: (operation: Operation): number => calls.filter((each) => each.operation === operation).length,
    /** Somebody did something by hand: describes see it, as late as they see all else. */
    changed,
  };
}

const NEVER_ABORTED = {
  aborted: false,
  addEventListener: () => undefined,
  removeEventListener: () => undefined,
};
