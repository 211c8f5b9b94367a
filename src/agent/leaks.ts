/**
 * ENIs that nobody owns any more: those of our own earlier life or of a call that we gave up on, and those that a node of the same cluster
 * left behind when its instance ended. Nothing is taken on one look, nor by the wall clock alone, which may have jumped.
 */
import type { EniSeen } from "../core/model/ec2.ts";
import type { EniId } from "../core/model/eni.ts";
import { CREATED_AT_TAG, OWNER_TAG } from "../core/model/eni-names.ts";
import type { InstanceId } from "../core/model/instance.ts";
import { detachableIfLoose, isLeaked } from "../core/reconcile/classify.ts";
import { suspect, type Suspicions } from "../core/reconcile/suspicion.ts";
import { looseEniFound } from "../core/state/transitions.ts";
import { after, HOUR_MS, type Instant, MINUTE_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";

export type LeakMemory = {
  suspicions: Suspicions; // Of our own.
  deadNodes: Suspicions;
  nextTurn: Instant;
};

/**
 * Each node looks for the ENIs of dead ones once in this time, give or take half: by turns, since who comes first cleans up and the next finds
 * nothing. Cost: one DescribeNetworkInterfaces a node and hour while there is nothing to find, and one more for each owner that is in question.
 */
const TURN_MS = HOUR_MS;
/** Owners asked about in one turn; the others wait for the next one. */
const OWNERS_MAX = 10;

export function leakMemory(agent: Agent): LeakMemory {
  const { time, random } = agent.ports;
  return { suspicions: new Map(), deadNodes: new Map(), nextTurn: after(time.now(), TURN_MS * random()) };
}

export async function lookForLeaks(agent: Agent, memory: LeakMemory): Promise<void> {
  await lookForOwn(agent, memory);
  if (agent.ports.time.now() >= memory.nextTurn) await lookForDeadNodes(agent, memory);
}

async function lookForOwn(agent: Agent, memory: LeakMemory): Promise<void> {
  const { ports, cell, settings } = agent;
  const { id } = cell.state.instance;
  const owned = await ports.ec2.describeOwnedEnis(id);
  if (!owned.ok)
    return ports.log({ level: "warn", message: "leaked enis could not be looked for", failure: owned.error });
  const found = owned.value.filter((seen) => isLoose(agent, seen) && detachableIfLoose(seen, id));
  // An old one needs a second look; one whose age we cannot tell, or that seems young, must have been seen for its whole age.
  const { after: suspicions, ripe } = suspect(
    memory.suspicions,
    found.map(keyed),
    ports.time.now(),
    ({ seen }) =>
      isLeaked(seen, id, ports.time.wallNow(), settings.leakGraceMs)
        ? Math.min(MINUTE_MS, settings.leakGraceMs)
        : settings.leakGraceMs,
  );
  memory.suspicions = suspicions;
  for (const { seen, sinceMs } of ripe) take(agent, seen, sinceMs, "leaked");
}

/** Their instance is gone when EC2 lists nothing on it: an instance that lives has its primary ENI. */
async function lookForDeadNodes(agent: Agent, memory: LeakMemory): Promise<void> {
  const { ports, cell, settings } = agent;
  const { id, vpcId } = cell.state.instance;
  const loose = await ports.ec2.describeLooseEnis(vpcId);
  if (!loose.ok) {
    memory.nextTurn = after(ports.time.now(), MINUTE_MS * (1 + ports.random()));
    return ports.log({
      level: "warn",
      message: "enis of dead nodes could not be looked for",
      failure: loose.error,
    });
  }
  const others = loose.value.filter(
    (seen) => ownerIn(seen) !== id && isLoose(agent, seen) && detachableIfLoose(seen, ownerIn(seen)),
  );
  const owners = [...new Set(others.map(ownerIn))].slice(0, OWNERS_MAX);
  const dead = new Set<InstanceId>();
  for (const owner of owners) {
    const onIt = await ports.ec2.describeInstanceEnis(owner);
    if (onIt.ok && onIt.value.length === 0) dead.add(owner);
  }
  const found = others.filter((seen) => dead.has(ownerIn(seen)));
  const { after: suspicions, ripe } = suspect(
    memory.deadNodes,
    found.map(keyed),
    ports.time.now(),
    () => settings.leakGraceMs,
  );
  memory.deadNodes = suspicions;
  for (const { seen, sinceMs } of ripe) take(agent, seen, sinceMs, "node-gone");
  const again = found.length > ripe.length ? settings.leakGraceMs : TURN_MS;
  memory.nextTurn = after(ports.time.now(), again * (0.5 + ports.random()));
}

/** It is deleted by the pool loop, as one that we detached ourselves. */
function take(agent: Agent, seen: EniSeen, sinceMs: number, why: "leaked" | "node-gone"): void {
  const { ports, cell } = agent;
  cell.set(looseEniFound(cell.state, { id: seen.id, attachmentId: null, since: ports.time.now() }));
  const [owner, createdAt] = [seen.tags.get(OWNER_TAG), seen.tags.get(CREATED_AT_TAG)];
  ports.log({
    level: "warn",
    message: "leaked eni found",
    eni: seen.id,
    reason: why,
    owner,
    createdAt,
    sinceMs,
  });
  ports.observed({ kind: "removed", what: "eni", why });
}

function isLoose(agent: Agent, seen: EniSeen): boolean {
  const { enis, loose } = agent.cell.state;
  return seen.status === "available" && seen.attachment === null && !enis.has(seen.id) && !loose.has(seen.id);
}

function keyed(seen: EniSeen): { readonly key: EniId; readonly seen: EniSeen } {
  return { key: seen.id, seen };
}

function ownerIn(seen: EniSeen): InstanceId {
  return (seen.tags.get(OWNER_TAG) ?? "") as InstanceId; // The tag's value is an instance id, or names no instance.
}
