import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { AttachmentId, Eni, EniId, SecurityGroupId } from "../../../src/core/model/eni.ts";
import { sandboxId, type SandboxId } from "../../../src/core/model/sandbox.ts";
import { checkInvariants } from "../../../src/core/state/invariants.ts";
import type { NodeState, Obstacle } from "../../../src/core/state/node-state.ts";
import {
  addressAllocated,
  addressesAssigned,
  addressesGone,
  addressesLeaving,
  addressesStayed,
  addressReleased,
  allocationRecovered,
  callInDoubt,
  coolingRecovered,
  doubtResolved,
  eniAttached,
  eniCreated,
  eniCreationBegan,
  eniCreationFailed,
  eniDeleted,
  eniDetached,
  eniGroupsChanged,
  eniLeaving,
  eniLinkLost,
  eniOwnerSeen,
  eniReady,
  eniStayed,
  foreignEnisSeen,
  instanceChanged,
  looseEniFound,
  obstacleMet,
  obstaclesCleared,
  prefixesAssigned,
  prefixesGone,
  prefixesLeaving,
  prefixesStayed,
  schedulableChanged,
  waitingChanged,
} from "../../../src/core/state/transitions.ts";
import { cidr4, ipv4, type Ipv4 } from "../../../src/lib/ip.ts";
import { after, wallTime } from "../../../src/lib/time.ts";
import { arbNodeState, NOW } from "../../support/arbitraries.ts";
import {
  allocationOf,
  bootedNode,
  eniAt,
  GROUP,
  keyOf,
  M5_LARGE,
  SUBNET_A,
} from "../../support/pool-world.ts";

const PRIMARY = "eni-0" as EniId;
const SECOND = "eni-1" as EniId;
const [IP1, IP2, IP3] = [ipv4("10.0.0.11"), ipv4("10.0.0.12"), ipv4("10.0.0.13")];
const PREFIX = cidr4("10.0.32.0/28");
const [P0, P5] = [ipv4("10.0.32.0"), ipv4("10.0.32.5")];

/** A primary ENI with three single addresses and a prefix, and a second ENI without any. */
function node(): NodeState {
  let state = addressesAssigned(bootedNode(M5_LARGE), PRIMARY, [IP1, IP2, IP3]);
  state = prefixesAssigned(state, PRIMARY, [PREFIX]);
  const second = eniAt(state, { networkCard: 0, deviceIndex: 1 }, SUBNET_A, NOW);
  return eniReady(eniAttached(state, second), SECOND);
}

function eniOf(state: NodeState, id: EniId): Eni {
  const eni = state.enis.get(id);
  if (eni === undefined) throw new Error(`no ${id}`);
  return eni;
}

const allocation = (name: string, ip: Ipv4, id = PRIMARY) => allocationOf(name, eniOf(node(), id), ip);
const pod = (name: string): SandboxId => sandboxId(keyOf(name));

/** `10.0.0.11 warm`, by address; prefixes' own only where they are not warm. */
function addresses(state: NodeState, id = PRIMARY): string[] {
  return [...eniOf(state, id).addresses.values()]
    .filter((each) => each.by === "secondary" || each.kind !== "warm")
    .map((each) => {
      if (each.kind === "allocated") return `${each.ip} allocated ${each.sandbox}`;
      return each.kind === "cooling" ? `${each.ip} cooling ${each.until}` : `${each.ip} ${each.kind}`;
    });
}

/** Sound before and after. */
function sound(state: NodeState): NodeState {
  expect(checkInvariants(state)).toEqual([]);
  return state;
}

describe("an address and its sandbox", () => {
  test("a warm address is allocated, released to rest, and allocated again once it has rested", () => {
    let state = sound(addressAllocated(node(), allocation("a", IP1), NOW));
    expect(addresses(state)[0]).toBe(`${IP1} allocated ${pod("a")}`);
    state = sound(addressReleased(state, pod("a"), after(NOW, 30_000)));
    expect(addresses(state)[0]).toBe(`${IP1} cooling ${NOW + 30_000}`);
    expect(state.allocations.size).toBe(0);
    expect(() => addressAllocated(state, allocation("b", IP1), after(NOW, 29_999))).toThrow("cooling");
    state = sound(addressAllocated(state, allocation("b", IP1), after(NOW, 30_000)));
    expect(addresses(state)[0]).toBe(`${IP1} allocated ${pod("b")}`);
  });

  test("no address is given twice, no sandbox gets two, and what leaves is given to nobody", () => {
    const state = addressAllocated(node(), allocation("a", IP1), NOW);
    expect(() => addressAllocated(state, allocation("b", IP1), NOW)).toThrow("broken promise");
    expect(() => addressAllocated(state, allocation("a", IP2), NOW)).toThrow("broken promise");
    expect(() =>
      addressAllocated(addressesLeaving(state, PRIMARY, [IP2]), allocation("b", IP2), NOW),
    ).toThrow("leaving");
    expect(() => addressAllocated(state, allocation("b", ipv4("10.0.0.99")), NOW)).toThrow("is not on");
  });

  test("an address of a prefix keeps belonging to it, whoever held it", () => {
    const state = addressReleased(addressAllocated(node(), allocation("a", P5), NOW), pod("a"), NOW);
    expect(sound(state).enis.get(PRIMARY)?.addresses.get(P5)).toEqual({
      ip: P5,
      by: "prefix",
      kind: "cooling",
      until: NOW,
    });
  });

  test("a release whose address or ENI EC2 has taken away is a release all the same", () => {
    const held = addressAllocated(node(), allocation("a", IP1), NOW);
    const taken = addressReleased(addressesGone(held, PRIMARY, [IP1]), pod("a"), NOW);
    expect(sound(taken).allocations.size).toBe(0);
    expect(addresses(taken)).toEqual([`${IP2} warm`, `${IP3} warm`]);
    expect(() => addressReleased(taken, pod("a"), NOW)).toThrow("no address to release");
  });

  test("what was recovered holds its address, on the ENI that EC2 has it on", () => {
    const found = allocation("a", IP1);
    expect(addresses(sound(allocationRecovered(node(), found)))[0]).toBe(`${IP1} allocated ${pod("a")}`);
    const moved = addressesAssigned(addressesGone(node(), PRIMARY, [IP1]), SECOND, [IP1]);
    const state = sound(allocationRecovered(moved, found));
    expect(state.allocations.get(pod("a"))?.eni).toBe(SECOND);
    expect(() => allocationRecovered(state, allocation("b", IP1))).toThrow("two sandboxes");
  });

  test("what was recovered without an address at EC2 gets it back when EC2 lists it", () => {
    const lost = allocationRecovered(addressesGone(node(), PRIMARY, [IP1]), allocation("a", IP1));
    expect(addresses(sound(lost))).toEqual([`${IP2} warm`, `${IP3} warm`]);
    const back = sound(addressesAssigned(lost, PRIMARY, [IP1]));
    expect(addresses(back)).toContain(`${IP1} allocated ${pod("a")}`);
  });

  test("a recovered rest is for warm addresses that are there", () => {
    const held = addressAllocated(node(), allocation("a", IP1), NOW);
    let state = coolingRecovered(held, PRIMARY, IP1, NOW);
    state = coolingRecovered(state, PRIMARY, IP2, NOW);
    state = coolingRecovered(state, PRIMARY, ipv4("10.0.0.99"), NOW);
    state = coolingRecovered(state, "eni-gone" as EniId, IP3, NOW);
    expect(addresses(sound(state))).toEqual([
      `${IP1} allocated ${pod("a")}`,
      `${IP2} cooling ${NOW}`,
      `${IP3} warm`,
    ]);
  });
});

describe("EC2's addresses and prefixes", () => {
  test("known ones and the ENI's own address are left as they are", () => {
    const held = addressAllocated(node(), allocation("a", IP1), NOW);
    const own = eniOf(held, PRIMARY).primaryIp;
    const state = addressesAssigned(held, PRIMARY, [own, IP1, ipv4("10.0.0.14")]);
    expect(addresses(sound(state))).toEqual([...addresses(held), "10.0.0.14 warm"]);
    expect(prefixesAssigned(held, PRIMARY, [PREFIX])).toEqual(held);
  });

  test("an address is on one ENI: the latest news wins, and its pod and its rest go with it", () => {
    let state = addressAllocated(node(), allocation("a", IP1), NOW);
    state = addressReleased(addressAllocated(state, allocation("b", IP2), NOW), pod("b"), after(NOW, 5));
    state = sound(addressesAssigned(state, SECOND, [IP1, IP2, IP3]));
    expect(addresses(state, PRIMARY)).toEqual([]);
    expect(addresses(state, SECOND)).toEqual([
      `${IP1} allocated ${pod("a")}`,
      `${IP2} cooling ${NOW + 5}`,
      `${IP3} warm`,
    ]);
    expect(state.allocations.get(pod("a"))).toMatchObject({ eni: SECOND, eniSlot: { deviceIndex: 1 } });
    expect(addresses(sound(addressReleased(state, pod("a"), NOW)), SECOND)[0]).toBe(`${IP1} cooling ${NOW}`);
  });

  test("a prefix is on one ENI, too; with one of its addresses an old owner loses it whole", () => {
    const moved = sound(prefixesAssigned(node(), SECOND, [PREFIX]));
    expect([eniOf(moved, PRIMARY).prefixes, eniOf(moved, SECOND).prefixes]).toEqual([[], [PREFIX]]);
    const split = sound(addressesAssigned(node(), SECOND, [P5]));
    expect(eniOf(split, PRIMARY).prefixes).toEqual([]);
    expect(addresses(split, SECOND)).toEqual([`${P5} warm`]);
  });

  test("what EC2 puts on an ENI that is leaving is not taken up, whoever held it", () => {
    const held = addressAllocated(node(), allocation("a", IP1), NOW);
    const leaving = eniLeaving(held, SECOND, NOW);
    const state = sound(addressesAssigned(leaving, SECOND, [IP1, IP2]));
    expect(addresses(state, SECOND)).toEqual([]);
    expect(addresses(state)).toEqual([`${IP3} warm`]);
    expect(state.allocations.get(pod("a"))?.eni).toBe(PRIMARY);
    const prefix = sound(prefixesAssigned(leaving, SECOND, [PREFIX]));
    expect([eniOf(prefix, PRIMARY).prefixes, eniOf(prefix, SECOND).prefixes]).toEqual([[], []]);
  });

  test("a new ENI takes its addresses, and its own one, from where an old view had them", () => {
    const third = eniAt(node(), { networkCard: 0, deviceIndex: 2 }, SUBNET_A, NOW);
    const warm = { ip: IP1, by: "secondary", kind: "warm" } as const;
    const state = eniAttached(node(), { ...third, primaryIp: IP2, addresses: new Map([[IP1, warm]]) });
    expect(addresses(sound(state), PRIMARY)).toEqual([`${IP3} warm`]);
    expect(addresses(state, third.id)).toEqual([`${IP1} warm`]);
  });

  test("a prefix takes in the single addresses that we believed to have by themselves, and their pods", () => {
    const [single, held] = [ipv4("10.0.48.1"), ipv4("10.0.48.2")];
    let state = addressesAssigned(node(), PRIMARY, [single, held]);
    state = addressAllocated(state, allocationOf("a", eniOf(state, PRIMARY), held), NOW);
    state = sound(prefixesAssigned(state, PRIMARY, [cidr4("10.0.48.0/28")]));
    expect(eniOf(state, PRIMARY).addresses.get(single)).toMatchObject({ by: "prefix", kind: "warm" });
    expect(eniOf(state, PRIMARY).addresses.get(held)).toMatchObject({ by: "prefix", sandbox: pod("a") });
  });

  describe("an ENI's own address, which EC2 never moves while the ENI exists", () => {
    const own = eniOf(node(), SECOND).primaryIp;
    const filled = addressesAssigned(node(), SECOND, [ipv4("10.0.0.21")]);
    const held = addressAllocated(filled, allocationOf("a", eniOf(filled, SECOND), ipv4("10.0.0.21")), NOW);
    const third = { ...eniAt(node(), { networkCard: 0, deviceIndex: 2 }, SUBNET_A, NOW), primaryIp: own };
    const gone = { id: SECOND, attachmentId: "eni-attach-1", since: NOW };

    test("on a new ENI proves that the old one is gone: it is to be deleted, and its pods stay on record", () => {
      const state = sound(eniAttached(held, third));
      expect([...state.enis.keys()]).toEqual([PRIMARY, third.id]);
      expect(state.loose.get(SECOND)).toEqual(gone);
      expect(state.allocations.has(pod("a"))).toBe(true);
    });

    test("of an ENI that we may not detach: it is forgotten, not deleted", () => {
      const owner = { detachable: false, attachmentId: "eni-attach-1" as AttachmentId };
      const state = sound(eniAttached(eniOwnerSeen(held, SECOND, owner), third));
      expect([state.enis.has(SECOND), state.loose.size]).toEqual([false, 0]);
    });

    test("among another's addresses proves the same where its link is missing, and nothing where the kernel has it", () => {
      const lost = eniLinkLost(held, SECOND, NOW);
      const news = sound(addressesAssigned(lost, PRIMARY, [own]));
      expect([news.enis.has(SECOND), news.loose.get(SECOND)]).toEqual([false, gone]);
      expect(addresses(news)).toContain(`${own} warm`);
      const stale = sound(addressesAssigned(held, PRIMARY, [own]));
      expect(stale).toEqual(held);
    });

    test("within another's prefix likewise", () => {
      const prefix = cidr4("10.0.0.0/28"); // Holds the own addresses of both.
      expect(sound(prefixesAssigned(held, SECOND, [prefix]))).toEqual(held);
      const higher = sound(eniAttached(node(), { ...third, primaryIp: ipv4("10.0.48.3") }));
      const taken = sound(prefixesAssigned(higher, SECOND, [cidr4("10.0.48.0/28")]));
      expect([taken.enis.has(third.id), taken.loose.has(third.id)]).toEqual([false, true]);
      expect(eniOf(taken, SECOND).addresses.size).toBe(16);
      const ready = eniReady(higher, third.id);
      expect(sound(prefixesAssigned(ready, SECOND, [cidr4("10.0.48.0/28")]))).toEqual(ready);
    });
  });

  test("what leaves may be said to leave again, and stays or goes as EC2 says", () => {
    let state = addressReleased(addressAllocated(node(), allocation("a", IP2), NOW), pod("a"), after(NOW, 9));
    state = addressesLeaving(addressesLeaving(state, PRIMARY, [IP1, IP2]), PRIMARY, [IP1, IP2]);
    expect(addresses(sound(state))).toEqual([`${IP1} leaving`, `${IP2} leaving`, `${IP3} warm`]);
    expect(addresses(sound(addressesStayed(state, PRIMARY, [IP1, IP3])))).toEqual([
      `${IP1} warm`,
      `${IP2} leaving`,
      `${IP3} warm`,
    ]);
    expect(addresses(sound(addressesGone(state, PRIMARY, [IP1, IP2])))).toEqual([`${IP3} warm`]);
  });

  test("what a sandbox holds cannot leave, alone or with its prefix", () => {
    const single = addressAllocated(node(), allocation("a", IP1), NOW);
    expect(() => addressesLeaving(single, PRIMARY, [IP1])).toThrow("held by a sandbox");
    const inside = addressAllocated(node(), allocation("a", P5), NOW);
    expect(() => prefixesLeaving(inside, PRIMARY, [PREFIX])).toThrow("held by a sandbox");
  });

  test("a prefix leaves, stays and goes as a whole", () => {
    const leaving = sound(prefixesLeaving(node(), PRIMARY, [PREFIX]));
    expect(addresses(leaving).filter((line) => line.endsWith("leaving"))).toHaveLength(16);
    expect(prefixesStayed(leaving, PRIMARY, [PREFIX])).toEqual(node());
    const gone = sound(prefixesGone(leaving, PRIMARY, [PREFIX]));
    expect(eniOf(gone, PRIMARY).prefixes).toEqual([]);
    expect(eniOf(gone, PRIMARY).addresses.has(P0)).toBe(false);
  });
});

describe("ENIs", () => {
  const creation = {
    clientToken: "token",
    slot: { networkCard: 0, deviceIndex: 2 },
    subnetId: SUBNET_A,
    securityGroups: [GROUP],
    addressCount: 1,
    prefixCount: 0,
    since: wallTime(0),
  };
  const loose = { id: "eni-2" as EniId, attachmentId: null, since: NOW };

  test("one is created at a time: begun, created, loose, attached, ready", () => {
    let state = sound(eniCreationBegan(node(), creation));
    expect(() => eniCreationBegan(state, creation)).toThrow("one ENI is created at a time");
    expect(eniCreationFailed(state)).toEqual(node());
    state = sound(eniCreated(state, loose));
    expect([state.creation, state.loose.get(loose.id)]).toEqual([null, loose]);
    const eni = eniAt(state, creation.slot, SUBNET_A, NOW);
    state = sound(eniAttached(state, eni));
    expect([state.loose.size, eniOf(state, eni.id).phase.kind]).toEqual([0, "awaiting-link"]);
    expect(() => eniAttached(state, eni)).toThrow("attached already");
    expect(eniOf(sound(eniReady(state, eni.id)), eni.id).phase).toEqual({ kind: "ready" });
  });

  test("an ENI that leaves takes its addresses with it, and brings them back when it stays", () => {
    const filled = addressesAssigned(node(), SECOND, [ipv4("10.0.0.21"), ipv4("10.0.0.22")]);
    const leaving = sound(eniLeaving(filled, SECOND, NOW));
    expect(addresses(leaving, SECOND)).toEqual(["10.0.0.21 leaving", "10.0.0.22 leaving"]);
    expect(eniOf(sound(eniLeaving(leaving, SECOND, NOW)), SECOND).phase.kind).toBe("leaving"); // Said again before a repeat.
    expect(sound(eniStayed(leaving, SECOND))).toEqual(filled);
  });

  test("the primary ENI, one that is not ours to detach, and one with a pod cannot leave", () => {
    expect(() => eniLeaving(node(), PRIMARY, NOW)).toThrow("not ours to detach");
    const kept = eniOwnerSeen(node(), SECOND, {
      detachable: false,
      attachmentId: "eni-attach-9" as AttachmentId,
    });
    expect(() => eniLeaving(kept, SECOND, NOW)).toThrow("not ours to detach");
    const held = addressesAssigned(node(), SECOND, [ipv4("10.0.0.21")]);
    const busy = addressAllocated(held, allocation("a", ipv4("10.0.0.21"), SECOND), NOW);
    expect(() => eniLeaving(busy, SECOND, NOW)).toThrow("held by a sandbox");
  });

  test("a detached ENI is loose until it is deleted", () => {
    const detached = sound(
      eniDetached(eniLeaving(node(), SECOND, NOW), SECOND, "eni-attach-1" as AttachmentId, NOW),
    );
    expect(detached.enis.has(SECOND)).toBe(false);
    expect(detached.loose.get(SECOND)).toEqual({ id: SECOND, attachmentId: "eni-attach-1", since: NOW });
    expect(sound(eniDeleted(detached, SECOND)).loose.size).toBe(0);
    expect(sound(eniDeleted(node(), SECOND)).enis.has(SECOND)).toBe(false); // EC2 does not know an attached one any more.
  });

  test("what is seen of an ENI is written to that ENI alone", () => {
    const lost = sound(eniLinkLost(node(), SECOND, NOW));
    expect(eniOf(lost, SECOND).phase).toEqual({ kind: "awaiting-link", since: NOW });
    const groups = ["sg-2" as SecurityGroupId];
    expect(eniOf(sound(eniGroupsChanged(node(), SECOND, groups)), SECOND).securityGroups).toBe(groups);
    const owner = { detachable: false, attachmentId: "eni-attach-9" as AttachmentId };
    expect(eniOf(sound(eniOwnerSeen(node(), SECOND, owner)), SECOND)).toMatchObject(owner);
    for (const state of [
      lost,
      eniGroupsChanged(node(), SECOND, groups),
      eniOwnerSeen(node(), SECOND, owner),
    ]) {
      expect(eniOf(state, PRIMARY)).toEqual(eniOf(node(), PRIMARY));
    }
    expect(() => eniReady(node(), "eni-none" as EniId)).toThrow("is not on this instance");
  });

  test("loose and foreign ENIs are as they were found", () => {
    expect(sound(looseEniFound(node(), loose)).loose.get(loose.id)).toBe(loose);
    const { id, mac, slot } = eniAt(node(), creation.slot, SUBNET_A, NOW);
    const foreign = [{ id, mac, slot, reason: "efa" as const }];
    expect(sound(foreignEnisSeen(node(), foreign)).foreign).toBe(foreign);
  });
});

describe("what stands in the way", () => {
  const throttled = (operation: string, attempt: number): Obstacle => ({
    kind: "throttled",
    operation,
    attempt,
    until: after(NOW, attempt),
  });
  const exhausted: Obstacle = { kind: "subnet-exhausted", subnetId: SUBNET_A, until: NOW };

  test("an obstacle takes the place of an older one of its kind and object", () => {
    let state = obstacleMet(node(), throttled("Assign", 0));
    state = obstacleMet(obstacleMet(state, throttled("Create", 0)), exhausted);
    state = sound(obstacleMet(state, throttled("Assign", 1)));
    expect(state.obstacles).toEqual([throttled("Create", 0), exhausted, throttled("Assign", 1)]);
    expect(obstacleMet(state, { ...exhausted, until: after(NOW, 5) }).obstacles).toHaveLength(3);
  });

  test("a success clears what stood before its operation, and nothing else", () => {
    const state = obstacleMet(obstacleMet(node(), throttled("Assign", 0)), exhausted);
    expect(obstaclesCleared(state, "Assign").obstacles).toEqual([exhausted]);
    expect(obstaclesCleared(state, "Create")).toBe(state);
  });

  test("a doubt lasts until EC2 was observed", () => {
    const inDoubt = { operation: "Assign", eni: PRIMARY, since: NOW };
    const state = sound(callInDoubt(node(), inDoubt));
    expect(state.inDoubt).toBe(inDoubt);
    expect(doubtResolved(state)).toEqual(node());
  });

  test("waiting ADDs are counted, the node's schedulability and its instance noted", () => {
    expect(sound(waitingChanged(node(), 3)).waiting).toBe(3);
    expect(() => waitingChanged(node(), -1)).toThrow("fewer than no ADDs");
    expect(schedulableChanged(node(), false).schedulable).toBe(false);
    const instance = { ...node().instance, vpcCidrs: [cidr4("10.0.0.0/16"), cidr4("10.1.0.0/16")] };
    expect(sound(instanceChanged(node(), instance)).instance).toBe(instance);
  });
});

// --- What holds of every state -----------------------------------------------------------------------------------------

/** One thing that may happen next, by what is there. `pick` chooses among what it could happen to. */
function happens(state: NodeState, what: number, pick: number): NodeState {
  const choose = <T>(values: readonly T[]): T | undefined => values[pick % Math.max(1, values.length)];
  const enis = [...state.enis.values()];
  const eni = choose(enis);
  if (eni === undefined) return state;
  const all = enis.flatMap((each) => [...each.addresses.values()].map((address) => ({ each, address })));
  const holder = choose([...state.allocations.keys()]);
  const free = choose(
    all.filter(({ each, address }) => address.kind === "warm" && each.phase.kind === "ready"),
  );
  const idle = enis.find(
    (each) => each.detachable && [...each.addresses.values()].every(({ kind }) => kind !== "allocated"),
  );
  const stray = choose(all.filter(({ each }) => each.id !== eni.id));
  const prefix = choose(eni.prefixes);
  const later = after(NOW, 1_000);
  switch (what) {
    case 0:
      return free === undefined
        ? state
        : addressAllocated(state, allocationOf(`new-${pick}`, free.each, free.address.ip), NOW);
    case 1:
      return holder === undefined ? state : addressReleased(state, holder, later);
    case 2: {
      const ips = all.filter(
        ({ each, address }) => each === eni && address.kind !== "allocated" && address.by === "secondary",
      );
      return addressesLeaving(
        state,
        eni.id,
        ips.slice(0, 2).map(({ address }) => address.ip),
      );
    }
    case 3:
      return addressesGone(
        state,
        eni.id,
        [...eni.addresses.values()]
          .filter(({ by }) => by === "secondary")
          .slice(0, 1)
          .map(({ ip }) => ip),
      );
    case 4:
      // EC2 moved it: within the ENI's subnet, if that has room for it.
      return stray === undefined ||
        stray.each.subnetId !== eni.subnetId ||
        eni.addresses.size >= state.instance.limits.addressesPerEni - 1
        ? state
        : addressesAssigned(state, eni.id, [stray.address.ip]);
    case 5:
      return prefix === undefined ? state : prefixesGone(state, eni.id, [prefix]);
    case 6:
      return idle === undefined ? state : eniLeaving(state, idle.id, NOW);
    case 7:
      return idle?.phase.kind === "leaving" ? eniStayed(state, idle.id) : state;
    case 8:
      return idle?.phase.kind === "leaving" ? eniDetached(state, idle.id, idle.attachmentId, NOW) : state;
    case 9:
      return eni.role === "secondary" ? eniDeleted(state, eni.id) : state;
    default:
      return eni.phase.kind === "leaving" ? state : eniLinkLost(state, eni.id, NOW);
  }
}

test("from any sound state, whatever happens leads to a sound one", () => {
  const arbSteps = fc.array(fc.tuple(fc.integer({ min: 0, max: 10 }), fc.nat({ max: 200 })), {
    maxLength: 20,
  });
  fc.assert(
    fc.property(arbNodeState, arbSteps, (start, steps) => {
      let state = start;
      const names = new Set<number>();
      for (const [what, pick] of steps) {
        if (what === 0 && names.has(pick)) continue; // A name is used once.
        names.add(pick);
        const before = structuredClone(state);
        const next = happens(state, what, pick);
        expect(state).toEqual(before); // What was stays as it was: others may hold it.
        expect(checkInvariants(next)).toEqual([]);
        state = next;
      }
    }),
    { numRuns: 150 },
  );
});
