/**
 * PoolAction → EC2 calls → transitions. The only file that changes EC2. Each case may end after any line: what must be found
 * again is saved before the call, and a call whose outcome is unknown is recorded as in doubt, never repeated blindly.
 */
import type { PoolAction } from "../core/model/action.ts";
import type { Ec2Failure, EniSeen } from "../core/model/ec2.ts";
import type { EniId, SubnetId } from "../core/model/eni.ts";
import { eniFromSeen } from "../core/reconcile/recover.ts";
import type { EniCreation, NodeState } from "../core/state/node-state.ts";
import {
  addressesAssigned,
  addressesGone,
  addressesLeaving,
  addressesStayed,
  callInDoubt,
  eniAttached,
  eniCreated,
  eniCreationBegan,
  eniCreationFailed,
  eniDeleted,
  eniDetached,
  eniLeaving,
  eniStayed,
  LATE_CALL_MS,
  obstacleMet,
  obstaclesCleared,
  prefixesAssigned,
  prefixesGone,
  prefixesLeaving,
  prefixesStayed,
  unassignDoubted,
} from "../core/state/transitions.ts";
import { addressesOfCidr4, type Cidr4, type Ipv4 } from "../lib/ip.ts";
import { after, backoffMs, MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";

/** What stood in the way, or null when the action was done. It is in the state, too. */
export type Outcome = Ec2Failure | null;

export async function perform(agent: Agent, action: PoolAction): Promise<Outcome> {
  const { ec2 } = agent.ports;
  switch (action.kind) {
    case "assign-addresses": {
      const assigned = await ec2.assignAddresses(action.eni, action.count);
      if (!assigned.ok) return met(agent, assigned.error, action.eni, unchanged, action.count);
      return done(agent, "AssignPrivateIpAddresses", (state) =>
        addressesAssigned(state, action.eni, assigned.value),
      );
    }
    case "assign-prefixes": {
      const assigned = await ec2.assignPrefixes(action.eni, action.count);
      if (!assigned.ok) return met(agent, assigned.error, action.eni);
      return done(agent, "AssignPrivateIpAddresses", (state) =>
        prefixesAssigned(state, action.eni, assigned.value),
      );
    }
    case "unassign-addresses": {
      const undo = undoOf(agent, action.eni, action.ips, (state) =>
        addressesStayed(state, action.eni, action.ips),
      );
      await announce(agent, (state) => addressesLeaving(state, action.eni, action.ips));
      const taken = await ec2.unassignAddresses(action.eni, action.ips);
      if (taken.ok)
        return givenBack(agent, action.ips, (state) => addressesGone(state, action.eni, action.ips));
      mayComeLate(agent, action.eni, action.ips, taken.error);
      return met(agent, taken.error, action.eni, undo);
    }
    case "unassign-prefixes": {
      const ips = action.prefixes.flatMap((prefix) => [...addressesOfCidr4(prefix)]);
      const undo = undoOf(agent, action.eni, ips, (state) =>
        prefixesStayed(state, action.eni, action.prefixes),
      );
      await announce(agent, (state) => prefixesLeaving(state, action.eni, action.prefixes));
      const taken = await ec2.unassignPrefixes(action.eni, action.prefixes);
      if (taken.ok) return givenBack(agent, ips, (state) => prefixesGone(state, action.eni, action.prefixes));
      mayComeLate(agent, action.eni, ips, taken.error);
      return met(agent, taken.error, action.eni, undo);
    }
    case "attach-eni": {
      const { slot, subnetId, securityGroups, addressCount, prefixCount } = action;
      const [clientToken, since] = [agent.ports.newToken(), agent.ports.time.wallNow()];
      const creation = { clientToken, slot, subnetId, securityGroups, addressCount, prefixCount, since };
      await announce(agent, (state) => eniCreationBegan(state, creation)); // Its token finds the ENI again, whatever becomes of us.
      return await finishCreation(agent, creation, { repeated: false });
    }
    case "detach-eni": {
      const eni = agent.cell.state.enis.get(action.eni);
      const undo =
        eni?.phase.kind === "leaving"
          ? unchanged
          : undoOf(agent, action.eni, [...(eni?.addresses.keys() ?? [])], (state) =>
              eniStayed(state, action.eni),
            );
      await announce(agent, (state) => eniLeaving(state, action.eni, agent.ports.time.now()));
      const taken = await ec2.detachEni(action.attachmentId);
      if (taken.ok || taken.error.kind === "gone") {
        const now = agent.ports.time.now();
        return done(agent, "DetachNetworkInterface", (state) =>
          eniDetached(state, action.eni, action.attachmentId, now),
        );
      }
      return met(agent, taken.error, action.eni, undo);
    }
    case "delete-eni": {
      const deleted = await ec2.deleteEni(action.eni);
      if (deleted.ok || deleted.error.kind === "gone") {
        return done(agent, "DeleteNetworkInterface", (state) => eniDeleted(state, action.eni));
      }
      // A loose ENI is asked for again whatever was answered, so no doubt is recorded. `in-use` means that its detach is not done;
      // but one that we never saw attached hangs on an instance, so the attach came through after all.
      const attachmentKnown = agent.cell.state.loose.get(action.eni)?.attachmentId !== null;
      if (deleted.error.kind === "in-use" && !attachmentKnown) return met(agent, deleted.error, action.eni);
      const level = deleted.error.kind === "in-use" ? "debug" : "warn";
      agent.ports.log({ level, message: "eni not deleted yet", eni: action.eni, failure: deleted.error });
      return deleted.error;
    }
  }
}

function mayComeLate({ cell, ports }: Agent, eni: EniId, ips: readonly Ipv4[], failure: Ec2Failure): void {
  if (failure.kind !== "in-doubt") return;
  cell.set(unassignDoubted(cell.state, eni, ips, after(ports.time.now(), LATE_CALL_MS)));
}

/**
 * What a refusal takes back. Nothing, when EC2 was asked for the same before: that call had no known outcome, and may have been done.
 * Given out again, such an address could be another instance's by now.
 */
function undoOf(
  agent: Agent,
  id: EniId,
  ips: readonly Ipv4[],
  undo: (state: NodeState) => NodeState,
): (state: NodeState) => NodeState {
  const addresses = agent.cell.state.enis.get(id)?.addresses;
  return ips.some((ip) => addresses?.get(ip)?.kind === "leaving") ? unchanged : undo;
}

function unchanged(state: NodeState): NodeState {
  return state;
}

/**
 * CreateNetworkInterface and all that follows. Asked again with the same token and arguments it gives the same ENI, so this is
 * also how a creation that was never answered is resolved: then a refusal for the moment leaves it in doubt.
 */
export async function finishCreation(
  agent: Agent,
  creation: EniCreation,
  { repeated }: { readonly repeated: boolean },
): Promise<Outcome> {
  const { ports, cell } = agent;
  const { clientToken, subnetId, securityGroups, addressCount, prefixCount, since } = creation;
  const instance = cell.state.instance.id;
  const request = {
    instance,
    subnetId,
    securityGroups,
    addressCount,
    prefixCount,
    clientToken,
    createdAt: since,
  };
  const created = await ports.ec2.createEni(request);
  if (!created.ok) {
    const { kind, operation } = created.error;
    const stillInDoubt = repeated && (kind === "throttled" || kind === "failing");
    const undo = stillInDoubt ? unchanged : eniCreationFailed;
    const outcome = met(agent, created.error, null, undo, prefixCount > 0 ? 1 : addressCount + 1);
    if (stillInDoubt) doubt(agent, operation, null);
    return outcome;
  }
  if (cell.state.enis.has(created.value.id)) {
    cell.set(eniCreationFailed(cell.state)); // It was attached by an earlier life that could not write it down.
    return null;
  }
  await announce(agent, (state) =>
    eniCreated(state, { id: created.value.id, attachmentId: null, since: ports.time.now() }),
  );
  return await attachCreated(agent, created.value, creation);
}

async function attachCreated(agent: Agent, seen: EniSeen, creation: EniCreation): Promise<Outcome> {
  const { ports, cell } = agent;
  const { slot } = creation;
  const attached = await ports.ec2.attachEni({ eni: seen.id, instance: cell.state.instance.id, slot });
  if (!attached.ok) return met(agent, attached.error, seen.id); // Loose now: it is deleted, or found attached when EC2 is looked at.
  const kept = await ports.ec2.setDeleteOnTermination(seen.id, attached.value);
  if (!kept.ok)
    ports.log({
      level: "warn",
      message: "eni would outlive its instance; the sweep will try again",
      eni: seen.id,
      failure: kept.error,
    });
  const subnetCidr = await subnetCidrOf(agent, creation.subnetId);
  const attachment = {
    id: attached.value,
    instanceId: cell.state.instance.id,
    slot,
    status: "attached",
    deleteOnTermination: kept.ok,
  } as const;
  const subnetCidrs = new Map(subnetCidr === null ? [] : [[creation.subnetId, subnetCidr]]);
  const eni = eniFromSeen(
    { ...seen, attachment },
    { instance: cell.state.instance, subnetCidrs },
    true,
    ports.time.now(),
  );
  if (eni === null) return doubt(agent, "AttachNetworkInterface", seen.id); // Its subnet cannot be read: look at EC2, then adopt it.
  done(agent, "AttachNetworkInterface", (state) =>
    eniAttached(obstaclesCleared(state, "CreateNetworkInterface"), eni),
  );
  agent.wakeRepair.call();
  return null;
}

/** How long EC2 may still list what it has taken back. */
export const OLD_VIEW_MS = MINUTE_MS;

export async function subnetCidrOf(agent: Agent, id: SubnetId): Promise<Cidr4 | null> {
  for (const eni of agent.cell.state.enis.values()) if (eni.subnetId === id) return eni.subnetCidr;
  const described = await agent.ports.ec2.describeSubnets([id]);
  if (!described.ok) return null;
  return described.value.find((subnet) => subnet.id === id)?.cidr ?? null;
}

/** The state says what is about to be asked, and so does the disk, before EC2 is asked. */
async function announce(agent: Agent, transition: (state: NodeState) => NodeState): Promise<void> {
  agent.cell.set(transition(agent.cell.state));
  const saved = await agent.ports.save(agent.cell.state);
  // A full disk must not stop the pool: EC2's own tags and describes find what was not written down.
  if (!saved.ok)
    agent.ports.log({ level: "error", message: "intention not written down", error: saved.error });
}

function givenBack(agent: Agent, ips: readonly Ipv4[], transition: (state: NodeState) => NodeState): null {
  const now = agent.ports.time.now();
  for (const [ip, at] of agent.givenBack) if (now - at >= OLD_VIEW_MS) agent.givenBack.delete(ip);
  for (const ip of ips) agent.givenBack.set(ip, now);
  return done(agent, "UnassignPrivateIpAddresses", transition);
}

function done(agent: Agent, operation: string, transition: (state: NodeState) => NodeState): null {
  agent.cell.set(obstaclesCleared(transition(agent.cell.state), operation));
  return null;
}

function doubt(agent: Agent, operation: string, eni: EniId | null): null {
  agent.cell.set(callInDoubt(agent.cell.state, { operation, eni, since: agent.ports.time.now() }));
  return null;
}

/** Records what stood in the way. `undo` is for a call that is known to have done nothing; `asked` is how many addresses were refused. */
function met(
  agent: Agent,
  failure: Ec2Failure,
  eni: EniId | null,
  undo: (state: NodeState) => NodeState = unchanged,
  asked = 1,
): Ec2Failure {
  const { cell, ports, settings } = agent;
  const now = ports.time.now();
  const { operation, code, message } = failure;
  const before = cell.state;
  const attempt = 1 + attemptsAt(before, operation);
  const soon = after(now, backoffMs(attempt, ports.random(), { baseMs: SECOND_MS, maxMs: MINUTE_MS }));
  const failing = {
    kind: "failing",
    operation,
    attempt,
    detail: `${code}: ${message}`,
    until: soon,
  } as const;
  switch (failure.kind) {
    // The obstacle is over before the look that follows, unless it comes again and again: a group or subnet that is gone stays gone.
    case "in-doubt":
      cell.set(callInDoubt(obstacleMet(before, failing), { operation, eni, since: now }));
      break;
    // Our view of EC2 is old: nothing is given out again on its strength until EC2 has been looked at.
    case "gone":
    case "in-use":
    case "address-limit":
    case "eni-limit": {
      const known = operation === "CreateNetworkInterface" ? undo(before) : before;
      cell.set(callInDoubt(obstacleMet(known, failing), { operation, eni, since: now }));
      break;
    }
    case "throttled":
      cell.set(obstacleMet(undo(before), { kind: "throttled", operation, attempt, until: soon }));
      break;
    case "subnet-exhausted":
    case "prefixes-exhausted": {
      const subnetId =
        before.creation?.subnetId ?? (eni === null ? undefined : before.enis.get(eni)?.subnetId);
      const until = after(now, settings.obstacleMs);
      if (subnetId === undefined) cell.set(undo(before));
      else if (failure.kind === "prefixes-exhausted")
        cell.set(obstacleMet(undo(before), { kind: failure.kind, subnetId, until }));
      else cell.set(obstacleMet(undo(before), { kind: failure.kind, subnetId, asked, until }));
      break;
    }
    case "denied":
      cell.set(
        obstacleMet(undo(before), {
          kind: "access-denied",
          operation,
          attempt,
          until: after(now, MINUTE_MS),
        }),
      );
      break;
    case "failing":
    case "invalid":
      cell.set(obstacleMet(undo(before), failing));
      break;
  }
  ports.log({ level: "warn", message: "ec2 call did not succeed", eni, failure });
  return failure;
}

/** How often the operation has been refused on end, in whatever way; -1 for never. */
function attemptsAt(state: NodeState, operation: string): number {
  const attempts = state.obstacles.map((each) =>
    "operation" in each && each.operation === operation ? each.attempt : -1,
  );
  return Math.max(-1, ...attempts);
}
