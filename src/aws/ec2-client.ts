/** EC2 as the agent's port: what each call asks and how its answer is read. Pace, retries and deadlines are caller.ts's business. */
import type { EC2Client, EC2ClientConfig, Filter } from "@aws-sdk/client-ec2";
import type { Ec2, Ec2Failure, EniSeen } from "../core/model/ec2.ts";
import { CLUSTER_TAG, DESCRIPTION_PREFIX, OWNER_TAG } from "../core/model/eni-names.ts";
import type { EniId } from "../core/model/eni.ts";
import { type Cidr4, type Ipv4, printCidr4 } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { Instant } from "../lib/time.ts";
import { createCaller, type Ec2CallSeen } from "./caller.ts";
import { type CredentialsSource, createCredentials } from "./credentials.ts";
import {
  type Decoded,
  decodeAssignedAddresses,
  decodeAssignedPrefixes,
  decodeAttachmentId,
  decodeCreatedEni,
  decodeEniPage,
  decodeInstanceLimits,
  decodeSubnetPage,
  decodeVpcCidrs,
  type Page,
} from "./decode.ts";
import { descriptionOfNewEni, type TagSettings, tagList, tagsOfNewEni } from "./eni-tags.ts";
import type { AwsEnvironment, Environment } from "./environment.ts";
import type { ImdsEdge } from "./imds.ts";
import type { Ec2Operation } from "./operations.ts";
import { createPacer } from "./pace.ts";
import type * as Sdk from "./sdk.ts";
import { createSender } from "./sender.ts";

export type Ec2Options = TagSettings & {
  readonly environment: Environment; // For credentials.
  readonly aws: AwsEnvironment;
  readonly imds: ImdsEdge; // For the region and the instance role, where the environment names none.
  readonly version: string; // Goes into the user agent.
  readonly now: () => Instant;
  readonly random: Random;
  readonly sleep?: (ms: number) => Promise<void>;
  readonly onCall?: (seen: Ec2CallSeen) => void;
  readonly requestTimeoutMs?: number; // HTTP_TIMEOUT; one attempt.
  readonly callDeadlineMs?: number;
  readonly callsPerSecond?: { readonly mutating: number; readonly reading: number }; // Steady pace of each operation.
};

export type Ec2Edge = Ec2 & {
  readonly credentialsSource: CredentialsSource;
  /** Loads the SDK ahead of the first call; never fails. */
  readonly warmUp: () => Promise<void>;
  readonly close: () => void;
};

/** EC2's own ceiling for one page. */
const PAGE_SIZE = 1_000;
/** EC2's own ceiling for the values of one filter. */
const FILTER_VALUES_MAX = 200;
/** An endpoint that pages without end must not hold us for ever, nor fill our memory. */
const PAGES_MAX = 100;
const ITEMS_MAX = 10_000;

export function createEc2(options: Ec2Options): Ec2Edge {
  const { aws, imds } = options;
  const sender = createSender(aws);
  const region = rememberFirst(async () => aws.region ?? (await regionByImds(imds)));
  const credentials = createCredentials({
    environment: options.environment,
    aws,
    imds,
    handler: sender.handler,
    region,
  });
  const client = rememberFirst(async () => {
    const sdk = await import("./sdk.ts");
    return { sdk, client: new sdk.EC2Client(await clientSettings()) };
  });
  const clientSettings = async (): Promise<EC2ClientConfig> => ({
    region: await region(),
    maxAttempts: 1, // Retries are ours: the SDK repeats calls whose outcome is unknown.
    requestHandler: sender.handler,
    customUserAgent: [["berth", options.version]],
    credentials: async () => {
      const current = await credentials.current();
      if (!current.ok) throw new Error(`${current.error.source}: ${current.error.detail}`);
      // The SDK keeps what it is given until shortly before it expires, and would go on signing with what EC2 has just refused. So it
      // is told that they have expired already, and asks for each request; keeping them is credentials.ts's business.
      return { ...current.value, expiration: new Date(0) };
    },
    ...(aws.ec2Endpoint === null ? {} : { endpoint: aws.ec2Endpoint }),
  });
  const call = createCaller({
    client,
    sender,
    credentials,
    pacer: createPacer(options.callsPerSecond),
    random: options.random,
    now: options.now,
    sleep: options.sleep ?? sleep,
    requestTimeoutMs: options.requestTimeoutMs ?? 10_000,
    callDeadlineMs: options.callDeadlineMs ?? 25_000,
    onCall: options.onCall ?? (() => {}),
  });

  const describeEnis = (filters: readonly Filter[]): Promise<Result<readonly EniSeen[], Ec2Failure>> =>
    allPages("DescribeNetworkInterfaces", (token) =>
      call({
        operation: "DescribeNetworkInterfaces",
        send: (sdk, ec2, how) =>
          ec2.send(
            new sdk.DescribeNetworkInterfacesCommand({
              Filters: [...filters],
              MaxResults: PAGE_SIZE,
              ...(token === null ? {} : { NextToken: token }),
            }),
            how,
          ),
        decode: decodeEniPage,
      }),
    );

  const modify = (
    send: (sdk: typeof Sdk, ec2: EC2Client, how: { abortSignal: AbortSignal }) => Promise<unknown>,
  ): Promise<Result<null, Ec2Failure>> =>
    call({ operation: "ModifyNetworkInterfaceAttribute", send, decode: nothing });

  const unassign = (
    eni: EniId,
    what: { PrivateIpAddresses: string[] } | { Ipv4Prefixes: string[] },
  ): Promise<Result<null, Ec2Failure>> =>
    call({
      operation: "UnassignPrivateIpAddresses",
      send: (sdk, ec2, how) =>
        ec2.send(new sdk.UnassignPrivateIpAddressesCommand({ NetworkInterfaceId: eni, ...what }), how),
      decode: nothing,
    });

  /** EC2 lists the new addresses; who lists more lists all, the ENI's own too, and that one we must know to leave it out. */
  const withoutOwnAddress = async (
    eni: EniId,
    listed: readonly Ipv4[],
  ): Promise<Result<readonly Ipv4[], Ec2Failure>> => {
    const enis = await describeEnis([filter("network-interface-id", [eni])]);
    if (!enis.ok) {
      // The addresses are assigned; which of them are new is what we cannot tell.
      const message = `answer lists more than was asked for, and the ENI cannot be described: ${enis.error.message}`;
      return err({ ...enis.error, kind: "in-doubt", operation: "AssignPrivateIpAddresses", message });
    }
    const own = enis.value[0]?.primaryIp ?? null;
    return ok(listed.filter((ip) => ip !== own));
  };

  return {
    credentialsSource: credentials.source,
    describeInstanceEnis: (instance) => describeEnis([filter("attachment.instance-id", [instance])]),
    describeEnis: (ids) => inChunks(ids, (chunk) => describeEnis([filter("network-interface-id", chunk)])),
    describeOwnedEnis: (instance) => describeEnis([filter(`tag:${OWNER_TAG}`, [instance])]),
    async describeLooseEnis(vpcId) {
      if (options.clusterName === null) return ok([]); // Whose a stranger's ENI is cannot be told: nothing is asked, and nothing taken.
      const filters = [
        filter("status", ["available"]),
        filter("vpc-id", [vpcId]),
        filter("description", [`${DESCRIPTION_PREFIX}*`]),
        filter("tag-key", [OWNER_TAG]),
        filter(`tag:${CLUSTER_TAG}`, [options.clusterName]),
      ];
      const found = await describeEnis(filters);
      if (!found.ok) return found;
      // Looked at again here: what follows is a deletion, and an endpoint may not know a filter.
      return ok(
        found.value.filter(
          (eni) =>
            eni.status === "available" &&
            eni.attachment === null &&
            eni.description.startsWith(DESCRIPTION_PREFIX) &&
            eni.tags.has(OWNER_TAG) &&
            eni.tags.get(CLUSTER_TAG) === options.clusterName,
        ),
      );
    },
    describeInstanceLimits: (type) =>
      call({
        operation: "DescribeInstanceTypes",
        send: (sdk, ec2, how) =>
          ec2.send(
            // The SDK's type lists the instance types of its own day; ours may be younger.
            new sdk.DescribeInstanceTypesCommand({ InstanceTypes: [type as "m5.large"] }),
            how,
          ),
        decode: (answer) => decodeInstanceLimits(answer, type),
      }),
    describeSubnets: (ids) =>
      inChunks(ids, (chunk) =>
        allPages("DescribeSubnets", (token) =>
          call({
            operation: "DescribeSubnets",
            send: (sdk, ec2, how) =>
              ec2.send(
                new sdk.DescribeSubnetsCommand({
                  Filters: [filter("subnet-id", chunk)],
                  MaxResults: PAGE_SIZE,
                  ...(token === null ? {} : { NextToken: token }),
                }),
                how,
              ),
            decode: decodeSubnetPage,
          }),
        ),
      ),
    describeVpcCidrs: (vpcId) =>
      call({
        operation: "DescribeVpcs",
        send: (sdk, ec2, how) => ec2.send(new sdk.DescribeVpcsCommand({ VpcIds: [vpcId] }), how),
        decode: (answer) => decodeVpcCidrs(answer, vpcId),
      }),
    createEni: (request) =>
      call({
        operation: "CreateNetworkInterface",
        asked: request.prefixCount > 0 ? "prefixes" : "addresses",
        repeatable: true, // By its ClientToken.
        send: (sdk, ec2, how) =>
          ec2.send(
            new sdk.CreateNetworkInterfaceCommand({
              SubnetId: request.subnetId,
              Description: descriptionOfNewEni(request),
              ClientToken: request.clientToken,
              TagSpecifications: [
                { ResourceType: "network-interface", Tags: tagList(tagsOfNewEni(request, options)) },
              ],
              ...(request.securityGroups.length === 0 ? {} : { Groups: [...request.securityGroups] }),
              ...(request.addressCount === 0 ? {} : { SecondaryPrivateIpAddressCount: request.addressCount }),
              ...(request.prefixCount === 0 ? {} : { Ipv4PrefixCount: request.prefixCount }),
            }),
            how,
          ),
        decode: decodeCreatedEni,
      }),
    attachEni: ({ eni, instance, slot }) =>
      call({
        operation: "AttachNetworkInterface",
        send: (sdk, ec2, how) =>
          ec2.send(
            new sdk.AttachNetworkInterfaceCommand({
              NetworkInterfaceId: eni,
              InstanceId: instance,
              DeviceIndex: slot.deviceIndex,
              // Unsaid for card 0, which every type has: types with one card once refused the parameter.
              ...(slot.networkCard === 0 ? {} : { NetworkCardIndex: slot.networkCard }),
            }),
            how,
          ),
        decode: decodeAttachmentId,
      }),
    setDeleteOnTermination: (eni, attachment) =>
      modify((sdk, ec2, how) =>
        ec2.send(
          new sdk.ModifyNetworkInterfaceAttributeCommand({
            NetworkInterfaceId: eni,
            Attachment: { AttachmentId: attachment, DeleteOnTermination: true },
          }),
          how,
        ),
      ),
    setSecurityGroups: (eni, groups) =>
      modify((sdk, ec2, how) =>
        ec2.send(
          new sdk.ModifyNetworkInterfaceAttributeCommand({ NetworkInterfaceId: eni, Groups: [...groups] }),
          how,
        ),
      ),
    detachEni: (attachment) =>
      call({
        operation: "DetachNetworkInterface",
        send: (sdk, ec2, how) =>
          ec2.send(new sdk.DetachNetworkInterfaceCommand({ AttachmentId: attachment }), how),
        decode: nothing,
      }),
    deleteEni: (eni) =>
      call({
        operation: "DeleteNetworkInterface",
        send: (sdk, ec2, how) =>
          ec2.send(new sdk.DeleteNetworkInterfaceCommand({ NetworkInterfaceId: eni }), how),
        decode: nothing,
      }),
    async assignAddresses(eni, count) {
      const assigned = await call({
        operation: "AssignPrivateIpAddresses",
        asked: "addresses",
        send: (sdk, ec2, how) =>
          ec2.send(
            new sdk.AssignPrivateIpAddressesCommand({
              NetworkInterfaceId: eni,
              SecondaryPrivateIpAddressCount: count,
            }),
            how,
          ),
        decode: (answer) => decodeAssignedAddresses(answer, eni),
      });
      if (!assigned.ok || assigned.value.length <= count) return assigned;
      return withoutOwnAddress(eni, assigned.value);
    },
    assignPrefixes: (eni, count) =>
      call({
        operation: "AssignPrivateIpAddresses",
        asked: "prefixes",
        send: (sdk, ec2, how) =>
          ec2.send(
            new sdk.AssignPrivateIpAddressesCommand({ NetworkInterfaceId: eni, Ipv4PrefixCount: count }),
            how,
          ),
        decode: (answer) => decodeAssignedPrefixes(answer, eni),
      }),
    unassignAddresses: (eni, ips) => unassign(eni, { PrivateIpAddresses: [...ips] }),
    unassignPrefixes: (eni, prefixes: readonly Cidr4[]) =>
      unassign(eni, { Ipv4Prefixes: prefixes.map(printCidr4) }),
    tagEni: (eni, tags) =>
      call({
        operation: "CreateTags",
        repeatable: true, // The same tags twice are the same tags.
        send: (sdk, ec2, how) =>
          ec2.send(new sdk.CreateTagsCommand({ Resources: [eni], Tags: tagList(tags) }), how),
        decode: nothing,
      }),
    async warmUp() {
      await client().catch(() => {}); // The first call meets the same error and reports it.
    },
    close() {
      sender.close();
    },
  };
}

function filter(name: string, values: readonly string[]): Filter {
  return { Name: name, Values: [...values] };
}

/** For calls whose answer says no more than yes. */
function nothing(): Decoded<null> {
  return ok(null);
}

async function allPages<T>(
  operation: Ec2Operation,
  fetch: (token: string | null) => Promise<Result<Page<T>, Ec2Failure>>,
): Promise<Result<readonly T[], Ec2Failure>> {
  const items: T[] = [];
  let token: string | null = null;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const fetched: Result<Page<T>, Ec2Failure> = await fetch(token);
    if (!fetched.ok) return fetched;
    for (const item of fetched.value.items) items.push(item); // Spread out, a long page would be too many arguments.
    token = fetched.value.nextToken;
    if (token === null) return ok(items);
    if (items.length > ITEMS_MAX) break;
  }
  const message = `more than ${PAGES_MAX} pages, or more than ${ITEMS_MAX} rows`;
  return err({ kind: "failing", operation, code: "AbsurdAnswer", message, requestId: null });
}

/** No ids, no call: EC2 takes an empty filter for none at all, and would answer with the whole Region. */
async function inChunks<I extends string, T>(
  ids: readonly I[],
  ask: (chunk: readonly I[]) => Promise<Result<readonly T[], Ec2Failure>>,
): Promise<Result<readonly T[], Ec2Failure>> {
  const found: T[] = [];
  for (let start = 0; start < ids.length; start += FILTER_VALUES_MAX) {
    const answer = await ask(ids.slice(start, start + FILTER_VALUES_MAX));
    if (!answer.ok) return answer;
    found.push(...answer.value);
  }
  return ok(found);
}

async function regionByImds(imds: ImdsEdge): Promise<string> {
  const region = await imds.read("meta-data/placement/region");
  if (!region.ok)
    throw new Error(`region: IMDS is ${region.error.kind}: ${region.error.detail}; or set AWS_REGION`);
  const text = region.value?.trim() ?? "";
  if (!/^[a-z0-9-]{4,40}$/.test(text)) throw new Error("region: IMDS names none; set AWS_REGION");
  return text;
}

/** Made once; a failure is not kept. */
function rememberFirst<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => {
    made ??= make().catch((error: unknown) => {
      made = null;
      throw error;
    });
    return made;
  };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
