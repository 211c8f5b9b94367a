/** Builds a world without calls: VPCs, subnets, groups, and instances with the ENIs that a test or a lab wants. */
import { assert } from "../lib/assert.ts";
import { cidr4, type Ipv4, ipv4 } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import type { WallTime } from "../lib/time.ts";
import { place } from "./operations/placement.ts";
import { primaryFirst } from "./operations/interfaces.ts";
import type { HandOutOrder } from "./subnet-space.ts";
import {
  eniAttached,
  eniAttaching,
  eniAvailable,
  eniCreated,
  groupCreated,
  instanceLaunched,
  newId,
  subnetCreated,
  subnetOf,
  type Tags,
  typeNamed,
  vpcCidrsChanged,
  vpcCreated,
  type World,
} from "./world.ts";

export type LaunchOptions = {
  readonly type: string;
  readonly subnetId: string;
  /** The VPC's default group when not given. */
  readonly groupIds?: readonly string[];
  readonly mac?: string;
  readonly primary?: string;
  readonly secondaryCount?: number;
  readonly prefixCount?: number;
  readonly tags?: Tags;
  readonly eniTags?: Tags;
  /** `berth-node` when not given; null: IMDS has no credentials. */
  readonly role?: string | null;
  /** A fixed id, for tests that want to know it beforehand. */
  readonly instanceId?: string;
};

export type Launched = {
  readonly instanceId: string;
  readonly eniId: string;
  readonly attachmentId: string;
  readonly mac: string;
  readonly primary: Ipv4;
};

/** Every function commits at once and returns ids. Mistakes are broken promises: a seed is written by us. */
export type Seeder = {
  /** The VPC's default security group is made with it. */
  readonly vpc: (options: { readonly cidrs: readonly string[]; readonly tags?: Tags }) => {
    readonly vpcId: string;
    readonly groupId: string;
  };
  /** All that the VPC has from now on: as AssociateVpcCidrBlock and its opposite leave it. */
  readonly vpcCidrs: (vpcId: string, cidrs: readonly string[]) => void;
  readonly subnet: (options: {
    readonly vpcId: string;
    readonly cidr: string;
    readonly availabilityZone?: string;
    readonly tags?: Tags;
  }) => string;
  readonly securityGroup: (options: {
    readonly vpcId: string;
    readonly name: string;
    readonly tags?: Tags;
  }) => string;
  /** A running instance with its primary ENI attached and its link up. */
  readonly launch: (options: LaunchOptions) => Launched;
};

export function createSeeder(ports: {
  readonly world: () => World;
  readonly commit: (world: World) => void;
  readonly random: Random;
  readonly now: () => WallTime;
  readonly handOut: HandOutOrder;
}): Seeder {
  function group(vpcId: string, name: string, tags: Tags): string {
    const [spent, id] = newId(ports.world(), "sg");
    ports.commit(groupCreated(spent, { id, vpcId, name, description: `${name} VPC security group`, tags }));
    return id;
  }
  return {
    vpc({ cidrs, tags = {} }) {
      assert(cidrs.length > 0, "a VPC has a CIDR block");
      const [spent, vpcId] = newId(ports.world(), "vpc");
      ports.commit(vpcCreated(spent, { id: vpcId, cidrs: cidrs.map(cidr4), tags }));
      return { vpcId, groupId: group(vpcId, "default", {}) };
    },
    vpcCidrs: (vpcId, cidrs) => ports.commit(vpcCidrsChanged(ports.world(), vpcId, cidrs.map(cidr4))),
    subnet({ vpcId, cidr, availabilityZone, tags = {} }) {
      const world = ports.world();
      const [spent, id] = newId(world, "subnet");
      const zone = availabilityZone ?? `${world.region}a`;
      ports.commit(subnetCreated(spent, { id, vpcId, availabilityZone: zone, cidr: cidr4(cidr), tags }));
      return id;
    },
    securityGroup: ({ vpcId, name, tags = {} }) => group(vpcId, name, tags),
    launch(options) {
      const type = typeNamed(options.type);
      assert(type !== null, `${options.type} is an instance type`);
      const { vpcId, space } = subnetOf(ports.world(), options.subnetId);
      const fallback = [...ports.world().groups.values()].find(
        (group) => group.vpcId === vpcId && group.name === "default",
      );
      const groupIds = options.groupIds ?? (fallback === undefined ? [] : [fallback.id]);
      const primaryGiven = options.primary === undefined ? null : ipv4(options.primary);
      const counts = {
        ipCount: (options.secondaryCount ?? 0) + (primaryGiven === null ? 1 : 0),
        prefixCount: options.prefixCount ?? 0,
      };
      const placed = place(
        space,
        { ips: primaryGiven === null ? [] : [primaryGiven], prefixes: [] },
        counts,
        ports,
      );
      assert(placed.ok, "the subnet has room for the instance");
      const [primary, ...secondaries] = primaryFirst(placed.value.ips, primaryGiven);
      assert(primary !== undefined, "an ENI has a primary address");

      const [afterInstance, drawnId] = newId(ports.world(), "i");
      const instanceId = options.instanceId ?? drawnId;
      const [afterEni, eniId] = newId(afterInstance, "eni");
      const [spent, attachmentId] = newId(afterEni, "eni-attach");
      const launched = instanceLaunched(spent, {
        id: instanceId,
        type,
        state: "running",
        subnetId: options.subnetId,
        imageId: "ami-0123456789abcdef0",
        launchedAt: ports.now(),
        role: options.role === undefined ? "berth-node" : options.role,
        tags: options.tags ?? {},
      });
      const created = eniCreated(launched, {
        id: eniId,
        subnetId: options.subnetId,
        description: "",
        interfaceType: "interface",
        groupIds,
        primary,
        secondaries,
        prefixes: placed.value.prefixes,
        sourceDestCheck: true,
        managedBy: null,
        tags: options.eniTags ?? {},
        ...(options.mac === undefined ? {} : { mac: options.mac }),
      });
      const attachment = {
        id: attachmentId,
        instanceId,
        deviceIndex: 0,
        networkCardIndex: type.defaultNetworkCard,
        deleteOnTermination: true,
        attachedAt: ports.now(),
      };
      const done = eniAttached(eniAttaching(eniAvailable(created, eniId), eniId, attachment), eniId);
      ports.commit(done);
      return { instanceId, eniId, attachmentId, mac: done.enis.get(eniId)?.mac ?? "", primary };
    },
  };
}
