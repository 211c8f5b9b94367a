/** Faults that change the world at once: foreign ENIs, neighbours in a subnet, an instance that is terminated. */
import { assert, unreachable } from "../lib/assert.ts";
import { type Ipv4, ipv4Plus } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import type { WallTime } from "../lib/time.ts";
import { NEIGHBOUR, type WorldFault } from "./faults.ts";
import type { Later } from "./operations/operation.ts";
import { chooseIps, isTaken, PREFIX_SIZE } from "./subnet-space.ts";
import {
  attachmentsOf,
  eniAttached,
  eniAttaching,
  eniAvailable,
  eniCreated,
  eniDeleted,
  instanceStateChanged,
  newId,
  subnetOf,
  type World,
} from "./world.ts";

/** The world after the fault. Throws when the fault names what does not exist: a script that is wrong must not pass in silence. */
export function applyWorldFault(
  world: World,
  fault: Exclude<WorldFault, { kind: "stale-imds" }>,
  ports: { readonly random: Random; readonly now: WallTime },
): { readonly world: World; readonly later: readonly Later[] } {
  const how = { order: "random", random: ports.random } as const;
  switch (fault.kind) {
    case "foreign-eni": {
      const primary = chooseIps(subnetOf(world, fault.subnetId).space, 1, how);
      assert(typeof primary !== "string", "a foreign ENI needs a free address");
      const [made, eniId] = foreignEni(world, { ...fault, ips: primary });
      if (fault.instanceId === undefined) return { world: made, later: [] };
      return {
        world: attached(made, eniId, { ...fault, instanceId: fault.instanceId }, ports.now),
        later: [],
      };
    }
    case "fill-subnet": {
      const { space } = subnetOf(world, fault.subnetId);
      const count = space.freeCount - fault.leaveFree;
      if (count <= 0) return { world, later: [] };
      const ips = chooseIps(space, count, how);
      assert(typeof ips !== "string", "free addresses can be taken");
      return {
        world: foreignEni(world, { subnetId: fault.subnetId, ips, managedBy: NEIGHBOUR })[0],
        later: [],
      };
    }
    case "fragment-subnet": {
      const { space } = subnetOf(world, fault.subnetId);
      const ips: Ipv4[] = [];
      for (let block = 0; block < space.blocks.length; block += 1) {
        const ip = ipv4Plus(space.cidr.network, block * PREFIX_SIZE + 8);
        if (!isTaken(space, ip)) ips.push(ip);
      }
      if (ips.length === 0) return { world, later: [] };
      return {
        world: foreignEni(world, { subnetId: fault.subnetId, ips, managedBy: NEIGHBOUR })[0],
        later: [],
      };
    }
    case "empty-subnet": {
      let next = world;
      for (const eni of world.enis.values()) {
        if (eni.subnetId === fault.subnetId && eni.managedBy === NEIGHBOUR) next = eniDeleted(next, eni.id);
      }
      return { world: next, later: [] };
    }
    case "terminate-instance": {
      const state = world.instances.get(fault.instanceId)?.state;
      assert(state !== undefined, `${fault.instanceId} is known`);
      if (state === "terminated" || state === "shutting-down") return { world, later: [] };
      return {
        world: instanceStateChanged(world, fault.instanceId, "shutting-down"),
        later: [{ kind: "instance-terminated", instanceId: fault.instanceId }],
      };
    }
    default:
      return unreachable(fault);
  }
}

type Foreign = Partial<Omit<Extract<WorldFault, { kind: "foreign-eni" }>, "kind">> & {
  readonly subnetId: string;
  readonly ips: readonly Ipv4[];
};

function foreignEni(world: World, foreign: Foreign): [World, string] {
  const [spent, id] = newId(world, "eni");
  const [primary, ...secondaries] = foreign.ips;
  assert(primary !== undefined, "an ENI has a primary address");
  const created = eniCreated(spent, {
    id,
    subnetId: foreign.subnetId,
    description: foreign.description ?? "",
    interfaceType: foreign.interfaceType ?? "interface",
    groupIds: [],
    primary,
    secondaries,
    prefixes: [],
    sourceDestCheck: true,
    managedBy: foreign.managedBy ?? null,
    tags: foreign.tags ?? {},
  });
  return [eniAvailable(created, id), id];
}

function attached(
  world: World,
  eniId: string,
  at: { readonly instanceId: string; readonly deviceIndex?: number },
  now: WallTime,
): World {
  const used = new Set(attachmentsOf(world, at.instanceId).map(({ attachment }) => attachment.deviceIndex));
  let deviceIndex = at.deviceIndex ?? 1;
  while (at.deviceIndex === undefined && used.has(deviceIndex)) deviceIndex += 1;
  const [spent, id] = newId(world, "eni-attach");
  const attachment = {
    id,
    instanceId: at.instanceId,
    deviceIndex,
    networkCardIndex: 0,
    deleteOnTermination: true,
    attachedAt: now,
  };
  return eniAttached(eniAttaching(spent, eniId, attachment), eniId);
}
