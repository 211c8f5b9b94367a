/**
 * LocalStack's account as the emulator's own kind of world: looked at again and again, so that our fabric and our IMDS serve what it
 * says. LocalStack has neither packets nor metadata; and it tells nobody what changed, so two looks are compared.
 */
import { DescribeNetworkInterfacesCommand, type EC2Client, type NetworkInterface } from "@aws-sdk/client-ec2";
import { type EmulatorEvent, eventsBetween, linkUpEvent } from "../src/emulator/events.ts";
import { answerImds, type ImdsReply, type ImdsRequest, metadataTree } from "../src/emulator/imds.ts";
import { instanceTypes } from "../src/emulator/instance-types.ts";
import { emptySpace } from "../src/emulator/subnet-space.ts";
import { type Attachment, emptyWorld, type Eni, type Instance, type World } from "../src/emulator/world.ts";
import { cidr4, ipv4, type Ipv4 } from "../src/lib/ip.ts";
import { instant, wallTime } from "../src/lib/time.ts";
import { type Account, type Network, REGION, said } from "./seed.ts";

export type FollowedWorld = {
  readonly onChange: (listener: (event: EmulatorEvent) => void) => () => void;
  readonly imds: (instanceId: string, request: ImdsRequest) => ImdsReply;
  /** Looks at LocalStack now; what it tells has been handed on when this resolves. */
  readonly look: () => Promise<void>;
  readonly world: () => World;
  /** Addresses that two ENIs have, or that EC2 would never give out: LocalStack draws without looking. Each is told once, in words. */
  readonly collisions: () => readonly string[];
  readonly close: () => Promise<void>;
};

export type Launched = { readonly instanceId: string; readonly type: string };

/** A link appears within this time after EC2 says that it is attached: less than on a real node. */
const LOOK_EVERY_MS = 250;

/** The first look is the caller's: whoever listens by then hears of every link that is up already. */
export function followLocalStack(
  account: Account,
  network: Network,
  instances: readonly Launched[],
): FollowedWorld {
  const listeners = new Set<(event: EmulatorEvent) => void>();
  const tokens = new Map<string, Map<string, ReturnType<typeof instant>>>();
  const collisions = new Set<string>();
  const began = wallTime(Date.now());
  let world = ground(account, network, instances);
  let made = 0;

  const lookOnce = async (): Promise<void> => {
    const enis = await describeEnis(account.ec2, network.vpcId, world.enis);
    const next = { ...world, enis };
    const events = eventsBetween(world, next);
    world = next;
    for (const told of collisionsIn(world)) collisions.add(told);
    for (const event of events) {
      if (event.kind !== "attachment-began") tell(event);
      else {
        const eni = enis.get(event.eniId);
        if (eni?.attachment) tell(linkUpEvent(world, eni, eni.attachment));
      }
    }
  };
  const tell = (event: EmulatorEvent): void => {
    for (const listener of listeners) listener(event);
  };
  // One look after another: two at once could hand on the older one last.
  let looking: Promise<void> = Promise.resolve();
  const look = (): Promise<void> => {
    const asked = looking.then(lookOnce);
    looking = asked.catch(() => {}); // Whoever asked hears of it; the next look is a new one.
    return asked;
  };
  const timer = setInterval(() => {
    // What nobody hears would be lost: the next look tells only what has changed since.
    if (listeners.size > 0) look().catch(() => {}); // The next one may be luckier.
  }, LOOK_EVERY_MS);

  return {
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    imds(instanceId, request) {
      const instance = world.instances.get(instanceId);
      if (instance === undefined) return { status: 404, headers: {}, body: "" };
      const own = tokens.get(instanceId) ?? new Map<string, ReturnType<typeof instant>>();
      tokens.set(instanceId, own);
      return answerImds(request, {
        policy: { tokenRequired: true, enabled: true },
        now: () => instant(performance.now()),
        makeToken: () => `token-${(made += 1)}`,
        tokens: own,
        // The role's access key is the account, so that the daemon's calls go to the world that the test has seeded.
        tree: () =>
          metadataTree(world, instance, {
            accessKeyId: account.id,
            secretAccessKey: "unchecked",
            token: "unchecked",
            madeAt: began,
            endsAt: wallTime(began + 6 * 3_600_000),
          }),
      });
    },
    look,
    world: () => world,
    collisions: () => [...collisions],
    async close() {
      clearInterval(timer);
      await looking;
    },
  };
}

/** What does not change while a test runs. */
function ground(account: Account, network: Network, instances: readonly Launched[]): World {
  const began = wallTime(Date.now());
  const subnet = (
    id: string,
    cidr: string,
  ): [string, World["subnets"] extends ReadonlyMap<string, infer S> ? S : never] => [
    id,
    {
      serial: 1,
      id,
      vpcId: network.vpcId,
      availabilityZone: `${REGION}a`,
      space: emptySpace(cidr4(cidr)),
      reservations: [],
      tags: {},
    },
  ];
  return {
    ...emptyWorld({ accountId: account.id, region: REGION, salt: 0 }),
    vpcs: new Map([
      [network.vpcId, { serial: 1, id: network.vpcId, cidrs: network.cidrs.map(cidr4), tags: {} }],
    ]),
    subnets: new Map([
      subnet(network.subnetId, network.subnetCidr),
      subnet(network.otherSubnetId, network.otherSubnetCidr),
    ]),
    groups: new Map([
      [
        network.groupId,
        { serial: 1, id: network.groupId, vpcId: network.vpcId, name: "nodes", description: "", tags: {} },
      ],
    ]),
    instances: new Map(
      instances.map(({ instanceId, type }): [string, Instance] => [
        instanceId,
        {
          serial: 1,
          id: instanceId,
          type: said(instanceTypes().get(type)),
          state: "running",
          subnetId: network.subnetId,
          imageId: "ami-0123456789abcdef0",
          launchedAt: began,
          role: "berth-node",
          tags: {},
        },
      ]),
    ),
  };
}

/** Unchanged ENIs are the same objects as before: changes are found by identity. */
async function describeEnis(
  ec2: EC2Client,
  vpcId: string,
  before: ReadonlyMap<string, Eni>,
): Promise<ReadonlyMap<string, Eni>> {
  const filter = { Filters: [{ Name: "vpc-id", Values: [vpcId] }] };
  const { NetworkInterfaces = [] } = await ec2.send(new DescribeNetworkInterfacesCommand(filter));
  return new Map(
    NetworkInterfaces.map((seen) => {
      const id = said(seen.NetworkInterfaceId);
      return [id, settled(eniOf(seen), before.get(id))];
    }),
  );
}

function eniOf(seen: NetworkInterface): Eni {
  const addresses = (seen.PrivateIpAddresses ?? []).map(({ PrivateIpAddress, Primary }) => ({
    ip: ipv4(said(PrivateIpAddress)),
    primary: Primary === true,
  }));
  const primary = addresses.find((each) => each.primary)?.ip ?? ipv4(said(seen.PrivateIpAddress));
  return {
    serial: 1,
    id: said(seen.NetworkInterfaceId),
    subnetId: said(seen.SubnetId),
    description: seen.Description ?? "",
    interfaceType: "interface",
    mac: said(seen.MacAddress),
    groupIds: (seen.Groups ?? []).map(({ GroupId }) => said(GroupId)),
    primary,
    secondaries: addresses.flatMap(({ ip }) => (ip === primary ? [] : [ip])),
    prefixes: [],
    status: seen.Attachment === undefined ? "available" : "in-use",
    attachment: attachmentOf(seen),
    sourceDestCheck: seen.SourceDestCheck ?? true,
    managedBy: null,
    tags: Object.fromEntries((seen.TagSet ?? []).map(({ Key = "", Value = "" }) => [Key, Value])),
  };
}

function attachmentOf({ Attachment: seen }: NetworkInterface): Attachment | null {
  if (seen?.InstanceId === undefined) return null;
  return {
    id: said(seen.AttachmentId),
    instanceId: seen.InstanceId,
    deviceIndex: said(seen.DeviceIndex),
    networkCardIndex: 0,
    status: "attached",
    deleteOnTermination: seen.DeleteOnTermination ?? false,
    attachedAt: wallTime(0),
  };
}

function settled(eni: Eni, before: Eni | undefined): Eni {
  if (before === undefined) return eni;
  if (JSON.stringify(eni) === JSON.stringify(before)) return before;
  const same = <T>(now: T, then: T): T => (JSON.stringify(now) === JSON.stringify(then) ? then : now);
  return {
    ...eni,
    secondaries: same(eni.secondaries, before.secondaries),
    prefixes: before.prefixes,
    attachment: same(eni.attachment, before.attachment),
  };
}

export function collisionsIn(world: World): readonly string[] {
  const owners = new Map<Ipv4, string>();
  const told: string[] = [];
  for (const eni of world.enis.values()) {
    for (const ip of [eni.primary, ...eni.secondaries]) {
      const other = owners.get(ip);
      if (other !== undefined) told.push(`${ip} is on ${other} and on ${eni.id}`);
      owners.set(ip, eni.id);
      const last = Number(ip.split(".")[3]);
      const third = Number(ip.split(".")[2]);
      // Of a /16: the first four addresses and the last.
      if ((third === 0 && last < 4) || (third === 255 && last === 255))
        told.push(`${ip} of ${eni.id} is reserved`);
    }
  }
  return told;
}
