/**
 * Looks at EC2 and brings belief and truth together: at once for what we did ourselves (a call in doubt), slowly and after two
 * looks for everything else, since describes lag behind writes both ways. Leaked ENIs of this instance are found here too.
 */
import type { Ec2Failure, EniSeen } from "../core/model/ec2.ts";
import type { EniId, SecurityGroupId } from "../core/model/eni.ts";
import { LOOK_OPERATION } from "../core/pool/obstacles.ts";
import { findDrift, foreignEnis, type Drift } from "../core/reconcile/drift.ts";
import { eniFromSeen } from "../core/reconcile/recover.ts";
import { suspect, type Suspicions } from "../core/reconcile/suspicion.ts";
import type { Obstacle } from "../core/state/node-state.ts";
import {
  addressesAssigned,
  addressesGone,
  coolingRecovered,
  doubtResolved,
  eniAttached,
  eniCreationFailed,
  eniDeleted,
  eniGroupsChanged,
  eniOwnerSeen,
  foreignEnisSeen,
  obstacleMet,
  obstaclesCleared,
  prefixesAssigned,
  prefixesGone,
} from "../core/state/transitions.ts";
import { unreachable } from "../lib/assert.ts";
import { addressesOfCidr4, type Ipv4 } from "../lib/ip.ts";
import { after as instantAfter } from "../lib/time.ts";
import type { Instant } from "../lib/time.ts";
import type { Agent } from "./agent.ts";
import { type LeakMemory, lookForLeaks } from "./leaks.ts";
import { finishCreation, OLD_VIEW_MS, subnetCidrOf } from "./perform.ts";

/** A look that follows a lost answer waits for EC2's views to settle first. Source: EC2 API, "Eventual consistency". */
export const DOUBT_SETTLE_MS = 3_000;
/** How long a difference must last, over at least two looks, before we believe EC2 over ourselves. */
export const DRIFT_GRACE_MS = 60_000;

/** What one look remembers for the next. */
export type LookMemory = {
  suspicions: Suspicions;
  unripe: number; // Differences that one more look will decide.
  readonly leaks: LeakMemory;
};

/** False when EC2 could not be asked; nothing is changed then. */
export async function lookAtEc2(agent: Agent, memory: LookMemory): Promise<boolean> {
  const { ports, cell, settings } = agent;
  const seen = await ports.ec2.describeInstanceEnis(cell.state.instance.id);
  if (!seen.ok) {
    ports.log({ level: "warn", message: "ec2 could not be looked at", failure: seen.error });
    cell.set(obstacleMet(cell.state, blindness(seen.error, ports.time.now())));
    return false;
  }
  ports.observed({ kind: "looked", at: "ec2" });
  cell.set(obstaclesCleared(cell.state, LOOK_OPERATION));
  const rules = { manageUntagged: settings.manageUntagged, limits: cell.state.instance.limits };
  const foreign = foreignEnis(seen.value, rules);
  const notInOurCare = (): typeof foreign => foreign.filter((each) => !cell.state.enis.has(each.id));
  cell.set(foreignEnisSeen(cell.state, notInOurCare()));
  const wantedGroups =
    settings.podSecurityGroups.length > 0 ? settings.podSecurityGroups : primaryGroups(seen.value, agent);
  const drifts = findDrift(cell.state, seen.value, { manageUntagged: settings.manageUntagged, wantedGroups });
  const { after, ripe } = suspect(memory.suspicions, drifts, ports.time.now(), (drift) =>
    graceOf(drift, agent),
  );
  memory.suspicions = after;
  memory.unripe = after.size - ripe.length;
  for (const drift of ripe) {
    // What was settled before, or was done while EC2 was asked, may have ended an ENI that there is more to tell of.
    if ("eni" in drift && !cell.state.enis.has(drift.eni)) continue;
    if (drift.kind === "eni-unknown" && cell.state.enis.has(drift.seen.id)) continue;
    await settleDrift(agent, drift);
  }
  cell.set(foreignEnisSeen(cell.state, notInOurCare())); // Some may have left our care just now.
  if (settings.deleteLeakedEnis) await lookForLeaks(agent, memory.leaks);
  forgetElsewhere(agent);
  await resolveDoubt(agent);
  return true;
}

/** Why EC2 cannot be looked at, for pods that wait for a look. It keeps nothing from being tried: it is over as it begins. */
export function blindness({ kind, code, message }: Ec2Failure, now: Instant): Obstacle {
  const operation = LOOK_OPERATION;
  if (kind === "throttled") return { kind, operation, attempt: 0, until: now };
  if (kind === "denied") return { kind: "access-denied", operation, attempt: 0, until: now };
  return { kind: "failing", operation, attempt: 0, detail: `${code}: ${message}`, until: now };
}

/** What was ours a moment ago needs no second look: after a lost answer, what EC2 lists is what came of it. */
function graceOf(drift: Drift, agent: Agent): number {
  const { inDoubt, loose } = agent.cell.state;
  const firstLook = inDoubt?.operation === LOOK_OPERATION;
  switch (drift.kind) {
    // One that we attach, not one that we detach: that one is listed as attached for a while by a view that lags.
    case "eni-unknown":
      return firstLook || loose.get(drift.seen.id)?.attachmentId === null ? 0 : DRIFT_GRACE_MS;
    case "address-unknown":
    case "prefix-unknown":
      return !isOldNews(drift, agent) &&
        (firstLook || (inDoubt?.operation === "AssignPrivateIpAddresses" && inDoubt.eni === drift.eni))
        ? 0
        : DRIFT_GRACE_MS;
    // What leaves is given to nobody, so a wrong look costs nothing.
    case "address-missing":
    case "prefix-missing":
      return drift.believed === "leaving" || (firstLook && drift.believed !== "allocated")
        ? 0
        : DRIFT_GRACE_MS;
    case "owner-differs":
    case "eni-foreign":
    case "outlives-instance":
    case "groups-differ":
      return 0;
    case "eni-missing":
      return DRIFT_GRACE_MS;
  }
}

/** A view from before EC2 took it back. Should EC2 have given it again since, the next look lists it, too. */
function isOldNews(
  drift: Extract<Drift, { kind: "address-unknown" | "prefix-unknown" }>,
  { givenBack, ports }: Agent,
): boolean {
  const ips = drift.kind === "address-unknown" ? [drift.ip] : addressesOfCidr4(drift.prefix);
  const since = ports.time.now() - OLD_VIEW_MS;
  return [...ips].some((ip) => (givenBack.get(ip) ?? -Infinity) > since);
}

async function settleDrift(agent: Agent, drift: Drift & { readonly sinceMs: number }): Promise<void> {
  const { ports, cell } = agent;
  const say = (message: string, fields: Readonly<Record<string, unknown>>): void => {
    ports.log({ level: "info", message, sinceMs: drift.sinceMs, ...fields });
  };
  switch (drift.kind) {
    case "eni-unknown":
      return await adopt(agent, drift.seen);
    case "owner-differs": {
      const { detachable, attachmentId } = drift;
      cell.set(eniOwnerSeen(cell.state, drift.eni, { detachable, attachmentId }));
      return say("eni's owner seen", { eni: drift.eni, detachable });
    }
    case "eni-foreign": {
      const eni = cell.state.enis.get(drift.eni);
      const held = [...(eni?.addresses.values() ?? [])].some((address) => address.kind === "allocated");
      if (held) return; // Its pods keep what they have; it goes from our care with the last of them.
      cell.set(eniDeleted(cell.state, drift.eni));
      return say("eni left alone: it is not ours any more", { eni: drift.eni, reason: drift.reason });
    }
    case "eni-missing":
      cell.set(eniDeleted(cell.state, drift.eni));
      ports.observed({ kind: "removed", what: "eni", why: "not-in-ec2" });
      return say("eni forgotten: ec2 does not list it here any more", { eni: drift.eni });
    case "address-unknown":
      cell.set(addressesAssigned(cell.state, drift.eni, [drift.ip]));
      restFound(agent, drift.eni, [drift.ip]);
      return say("address found on its eni", { eni: drift.eni, ip: drift.ip });
    case "address-missing":
      cell.set(addressesGone(cell.state, drift.eni, [drift.ip]));
      ports.observed({ kind: "removed", what: "address", why: "not-in-ec2" });
      if (drift.believed !== "allocated")
        return say("address forgotten: ec2 does not list it any more", { eni: drift.eni, ip: drift.ip });
      return ports.log({
        level: "error",
        message: "a running pod's address was taken off its eni",
        eni: drift.eni,
        ip: drift.ip,
      });
    case "prefix-unknown":
      cell.set(prefixesAssigned(cell.state, drift.eni, [drift.prefix]));
      restFound(agent, drift.eni, [...addressesOfCidr4(drift.prefix)]);
      return say("prefix found on its eni", { eni: drift.eni, prefix: drift.prefix });
    case "prefix-missing":
      cell.set(prefixesGone(cell.state, drift.eni, [drift.prefix]));
      ports.observed({ kind: "removed", what: "address", why: "not-in-ec2" });
      if (drift.believed === "allocated")
        return ports.log({
          level: "error",
          message: "a prefix with running pods' addresses was taken off its eni",
          eni: drift.eni,
          prefix: drift.prefix,
        });
      return say("prefix forgotten: ec2 does not list it any more", { eni: drift.eni, prefix: drift.prefix });
    case "outlives-instance": {
      if (!agent.settings.provisioning) return;
      const set = await ports.ec2.setDeleteOnTermination(drift.eni, drift.attachment);
      return say(set.ok ? "eni ends with its instance now" : "eni would outlive its instance", {
        eni: drift.eni,
      });
    }
    case "groups-differ": {
      if (!agent.settings.provisioning) return;
      const set = await ports.ec2.setSecurityGroups(drift.eni, drift.wanted);
      if (set.ok) cell.set(eniGroupsChanged(cell.state, drift.eni, drift.wanted));
      return say(
        set.ok
          ? "security groups follow the primary eni"
          : "security groups could not follow the primary eni",
        { eni: drift.eni },
      );
    }
    default:
      return unreachable(drift);
  }
}

/**
 * After a start without EC2, who had a found address of late is not known. Later it has been on its ENI for two looks, in nobody's hands, or is
 * what a call of ours brought.
 */
function restFound(agent: Agent, id: EniId, ips: readonly Ipv4[]): void {
  const { cell, ports, settings } = agent;
  if (cell.state.inDoubt?.operation !== LOOK_OPERATION) return;
  const until = instantAfter(ports.time.now(), settings.cooldownMs);
  cell.set(ips.reduce((state, ip) => coolingRecovered(state, id, ip, until), cell.state));
}

async function adopt(agent: Agent, seen: EniSeen): Promise<void> {
  const { ports, cell, settings } = agent;
  const cidr = await subnetCidrOf(agent, seen.subnetId);
  const known = {
    instance: cell.state.instance,
    subnetCidrs: new Map(cidr === null ? [] : [[seen.subnetId, cidr]]),
  };
  const eni = eniFromSeen(seen, known, settings.manageUntagged, ports.time.now());
  if (eni === null) return;
  cell.set(eniAttached(cell.state, eni));
  restFound(agent, eni.id, [...eni.addresses.keys()]);
  ports.log({
    level: "info",
    message: "eni found on this instance",
    eni: eni.id,
    detachable: eni.detachable,
  });
  agent.wakeRepair.call();
}

/** EC2 would not delete it, since it hangs on an instance, and that is not this one: somebody else uses it now. */
function forgetElsewhere(agent: Agent): void {
  const { ports, cell } = agent;
  const { inDoubt, enis, loose } = cell.state;
  const id = inDoubt?.operation === "DeleteNetworkInterface" ? inDoubt.eni : null;
  if (id === null || enis.has(id) || loose.get(id)?.attachmentId !== null) return;
  cell.set(eniDeleted(cell.state, id));
  ports.log({ level: "info", message: "eni left alone: it hangs on an instance after all", eni: id });
}

/** A creation without an answer is asked for again with its token; all other doubts end with the look itself. */
async function resolveDoubt(agent: Agent): Promise<void> {
  const { cell, settings } = agent;
  if (cell.state.inDoubt === null) return;
  cell.set(doubtResolved(cell.state));
  const { creation } = cell.state;
  if (creation === null) return;
  if (settings.provisioning) await finishCreation(agent, creation, { repeated: true });
  else cell.set(eniCreationFailed(cell.state)); // What came of it, if anything, bears our tags: a daemon that may will find it.
}

function primaryGroups(seen: readonly EniSeen[], agent: Agent): readonly SecurityGroupId[] {
  const { instance } = agent.cell.state;
  const primary: EniId | undefined = [...agent.cell.state.enis.values()].find(
    (eni) => eni.role === "primary",
  )?.id;
  return seen.find((each) => each.id === primary)?.securityGroups ?? instance.securityGroups;
}
