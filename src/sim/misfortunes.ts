/** The faults that befall a node from time to time, whatever it is doing: what machines, people, neighbours and EC2 itself do behind its back. */
import { CLUSTER_TAG, CREATED_AT_TAG, NO_MANAGE_TAG, OWNER_TAG } from "../core/model/eni-names.ts";
import { attachmentsOf, type Eni } from "../emulator/world.ts";
import { type Random, randomInteger } from "../lib/random.ts";
import { HOUR_MS, MINUTE_MS, printWallTime, SECOND_MS, wallTime } from "../lib/time.ts";
import type { FaultName } from "./faults.ts";
import type { SimNode } from "./node.ts";
import type { Sim } from "./sim.ts";

const minutes = (chance: Random, low: number, high: number): number =>
  (low + chance() * (high - low)) * MINUTE_MS;

export function befall(sim: Sim, node: SimNode): void {
  const { clock, faults, engine } = sim;
  const { instanceId } = node;
  const recur = (name: FaultName, act: (chance: Random) => boolean): void =>
    faults.recur(name, node.name, (chance) => !node.gone && act(chance));

  recur("ec2-outage", (chance) => {
    sim.outageUntil = clock.now + minutes(chance, 1, 10);
    return true;
  });
  recur("group-or-subnet-deleted", (chance) => {
    sim.createFailsUntil = clock.now + minutes(chance, 2, 20);
    return true;
  });
  recur("imds-stale", (chance) => {
    engine.fault({ kind: "stale-imds", instanceId, forMs: minutes(chance, 1, 15) });
    return true;
  });
  recur("imds-down", (chance) => {
    node.imdsDownUntil = clock.now + minutes(chance, 0.2, 4);
    return true;
  });
  recur("subnet-exhausted", (chance) => {
    engine.fault({ kind: "fill-subnet", subnetId: sim.subnetId, leaveFree: randomInteger(chance, 0, 3) });
    clock.after(minutes(chance, 3, 20), () => engine.fault({ kind: "empty-subnet", subnetId: sim.subnetId }));
    return true;
  });
  recur("subnet-fragmented", (chance) => {
    engine.fault({ kind: "fragment-subnet", subnetId: sim.subnetId });
    clock.after(minutes(chance, 3, 20), () => engine.fault({ kind: "empty-subnet", subnetId: sim.subnetId }));
    return true;
  });
  recur("foreign-eni-on-instance", (chance) => attachForeign(sim, node, chance));
  recur("foreign-eni-in-tag-space", (chance) => {
    const tags: Record<string, string> =
      chance() < 0.5
        ? { [OWNER_TAG]: instanceId }
        : { [OWNER_TAG]: "i-0123456789abcdef0", [CLUSTER_TAG]: "another" };
    const description = chance() < 0.5 ? "made by hand" : "aws-K8S-i-0123456789abcdef0";
    if (tags[CLUSTER_TAG] === undefined && description.startsWith("aws-K8S-")) return false; // That one would be ours.
    return addForeign(sim, { subnetId: sim.subnetId, description, tags });
  });
  recur("dead-nodes-eni", (chance) => {
    if (freeAddresses(sim) < 3) return false;
    const owner = `i-${(0xdead_0000_0000 + Math.floor(chance() * 0xffff)).toString(16).padStart(17, "0")}`;
    const createdAt = printWallTime(wallTime(Date.UTC(2026, 0, 1) + clock.now - HOUR_MS));
    const tags = { [OWNER_TAG]: owner, [CLUSTER_TAG]: sim.clusterName, [CREATED_AT_TAG]: createdAt };
    engine.fault({ kind: "foreign-eni", subnetId: sim.subnetId, description: `aws-K8S-${owner}`, tags });
    return true;
  });
  recur("wall-clock-jump", (chance) => {
    node.wallSkewMs += (chance() - 0.5) * 4 * HOUR_MS;
    return true;
  });
  recur("daemon-restart", () => {
    if (node.life === null) return false;
    node.kill();
    return true;
  });
  recur("reboot", () => {
    if (clock.now < node.bootAt) return false;
    const torn = faults.hits("write-torn", node.name) ? faults.source("write-torn where", node.name)() : null;
    node.reboot(torn);
    return true;
  });
  recur("node-dies", () => {
    if (sim.nodes.filter((each) => !each.gone).length < 2) return false;
    engine.fault({ kind: "terminate-instance", instanceId });
    node.terminate();
    return true;
  });
  recur("disk-full", (chance) => {
    node.diskFullUntil = clock.now + minutes(chance, 0.5, 10);
    return true;
  });
  recur("fsync-lies", (chance) => {
    node.fsyncLiesUntil = clock.now + minutes(chance, 5, 60);
    return true;
  });
  recur("cache-lost", (chance) => node.runtime.loseCacheEntry(chance()));
  recur("gc-with-wrong-list", (chance) => {
    node.runtime.collectGarbage(chance() < 0.8);
    return true;
  });
  recur("cordoned", (chance) => {
    node.cordonedUntil = clock.now + minutes(chance, 5, 30);
    return true;
  });
  vandalise(node, recur);
  meddle(sim, node, recur);
}

function vandalise(node: SimNode, recur: (name: FaultName, act: (chance: Random) => boolean) => void): void {
  for (const [name, what] of [
    ["operator-deletes-route", "route"],
    ["operator-deletes-rule", "rule"],
    ["operator-deletes-link", "link"],
    ["operator-adds-eni-address", "eni-address"],
  ] as const) {
    recur(name, (chance) => {
      const done = node.kernel.vandalise(what, chance());
      if (done) node.kernelEvent();
      return done;
    });
  }
}

/** People with EC2's console open. */
function meddle(
  sim: Sim,
  node: SimNode,
  recur: (name: FaultName, act: (chance: Random) => boolean) => void,
): void {
  const { engine } = sim;
  const call = (action: string, parameters: readonly (readonly [string, string])[]): void =>
    void engine.call({
      action,
      parameters: new Map(parameters),
      caller: { accessKeyId: "operator", userAgent: "console" },
    });
  const secondary = (chance: Random): (Eni & { attachment: NonNullable<Eni["attachment"]> }) | undefined => {
    const enis = attachmentsOf(engine.world(), node.instanceId).filter(
      (eni) =>
        eni.attachment.deviceIndex > 0 &&
        eni.managedBy === null &&
        !sim.foreignEnis.has(eni.id) &&
        eni.tags[NO_MANAGE_TAG] === undefined,
    );
    return enis[Math.floor(chance() * enis.length)];
  };
  recur("operator-detaches-eni", (chance) => {
    const eni = secondary(chance);
    if (eni === undefined || eni.attachment.status !== "attached") return false;
    sim.steal([...eni.secondaries, ...prefixIps(eni)]);
    sim.changed(eni.id);
    call("DetachNetworkInterface", [["AttachmentId", eni.attachment.id]]);
    return true;
  });
  recur("operator-unassigns-address", (chance) => {
    const eni = attachmentsOf(engine.world(), node.instanceId)[0];
    const ip = eni?.secondaries[Math.floor(chance() * eni.secondaries.length)];
    if (eni === undefined || ip === undefined) return false;
    sim.steal([ip]);
    call("UnassignPrivateIpAddresses", [
      ["NetworkInterfaceId", eni.id],
      ["PrivateIpAddress.1", ip],
    ]);
    return true;
  });
  recur("operator-clears-delete-on-termination", (chance) => {
    const eni = secondary(chance);
    if (eni === undefined) return false;
    call("ModifyNetworkInterfaceAttribute", [
      ["NetworkInterfaceId", eni.id],
      ["Attachment.AttachmentId", eni.attachment.id],
      ["Attachment.DeleteOnTermination", "false"],
    ]);
    return true;
  });
  recur("operator-tags-no-manage", (chance) => {
    const eni = secondary(chance);
    if (eni === undefined) return false;
    sim.changed(eni.id);
    call("CreateTags", [
      ["ResourceId.1", eni.id],
      ["Tag.1.Key", NO_MANAGE_TAG],
      ["Tag.1.Value", "true"],
    ]);
    return true;
  });
}

function prefixIps(eni: Eni): string[] {
  return eni.prefixes.flatMap((prefix) => {
    const [a, b, c, d] = prefix.split(".").map(Number);
    return Array.from({ length: 16 }, (_, index) => `${a}.${b}.${c}.${(d ?? 0) + index}`);
  });
}

function attachForeign(sim: Sim, node: SimNode, chance: Random): boolean {
  const world = sim.engine.world();
  const type = world.instances.get(node.instanceId)?.type;
  const attached = attachmentsOf(world, node.instanceId);
  // One slot is left to the daemon: a node that has none is another test.
  if (type === undefined || attached.length + 1 >= (type.networkCards[0] ?? 0)) return false;
  const kinds = [
    { tags: { [NO_MANAGE_TAG]: "true" } },
    { interfaceType: "efa" },
    { managedBy: "123456789999" },
    ...(node.settings.agent.manageUntagged ? [] : [{ tags: { Name: "by hand" } }]),
  ] as const;
  const kind = kinds[Math.floor(chance() * kinds.length)] ?? kinds[0];
  return addForeign(sim, { subnetId: sim.subnetId, instanceId: node.instanceId, ...kind });
}

function addForeign(
  sim: Sim,
  foreign: Omit<Extract<Parameters<Sim["engine"]["fault"]>[0], { kind: "foreign-eni" }>, "kind">,
): boolean {
  if (freeAddresses(sim) < 3) return false;
  const before = sim.engine.world().enis;
  sim.engine.fault({ kind: "foreign-eni", ...foreign });
  for (const id of sim.engine.world().enis.keys()) if (!before.has(id)) sim.foreignEnis.add(id);
  return true;
}

function freeAddresses(sim: Sim): number {
  return sim.engine.world().subnets.get(sim.subnetId)?.space.freeCount ?? 0;
}

/** Faults stop: what is broken for a time is whole again, and the neighbours give back what they took. */
export function heal(sim: Sim): void {
  sim.faults.over = true;
  sim.outageUntil = 0;
  sim.createFailsUntil = 0;
  sim.engine.clearFaults();
  sim.engine.fault({ kind: "empty-subnet", subnetId: sim.subnetId });
  for (const node of sim.nodes) {
    node.diskFullUntil = 0;
    node.fsyncLiesUntil = 0;
    node.imdsDownUntil = 0;
    node.cordonedUntil = 0;
  }
}

export const TICK_MS = 20 * SECOND_MS;
