/**
 * What the cluster's people are told as Kubernetes events: why pods wait on this node, which right is missing, where kubelet's number of
 * pods is not the pool's. Each with its remedy, each once in a while: an event is for people, and the API server is everybody's.
 */
import { after, type Instant, MINUTE_MS, SECOND_MS } from "../../lib/time.ts";
import type { HoldReason } from "../model/action.ts";
import type { NodeSeen, PodSeen } from "../model/cluster.ts";
import type { Obstacle } from "../state/node-state.ts";

export type EventToWrite = {
  readonly about: {
    readonly kind: "Pod" | "Node";
    readonly namespace: string; // "" for the node.
    readonly name: string;
    readonly uid: string;
  };
  readonly type: "Warning" | "Normal";
  readonly reason: EventReason;
  readonly message: string;
};

export type EventReason =
  | "PodWaitsForAddress"
  | "PodAddressesShort"
  | "MissingIAMPermissions"
  | "MaxPodsDiffers";

export type EventFacts = {
  readonly node: NodeSeen | null;
  readonly ownPod: PodSeen | null; // The daemon's; rights are told there, as the incumbent does.
  readonly waiting: number; // ADDs that are held.
  readonly unserved: readonly { readonly pod: PodSeen; readonly since: Instant }[]; // Expected pods.
  readonly why: { readonly blocked: HoldReason | null; readonly detail: string };
  readonly obstacles: readonly Obstacle[];
  readonly without: (operation: string) => string | null; // What is lacking without the right.
  readonly maxPods: number; // What the pool can serve.
};

/** When each event was told last, by who and what, and how many may be told at once still. */
export type EventMemory = {
  readonly told: ReadonlyMap<string, Instant>;
  readonly tokens: number;
  readonly filledAt: Instant;
};

const AGAIN_MS = 10 * MINUTE_MS;
const BURST = 10;
const TOKEN_MS = 6 * SECOND_MS; // Ten a minute.
const REMEMBERED_MAX = 500;
/** A pod that has its address a moment later needs no event. */
const PATIENCE_MS = 10 * SECOND_MS;

export function newEventMemory(now: Instant): EventMemory {
  return { told: new Map(), tokens: BURST, filledAt: now };
}

/** What to do, in a clause that ends a sentence. The reasons of docs/reference/errors.md. */
export const REMEDIES: Readonly<Record<HoldReason, string>> = {
  "on-target": "nothing is to be done",
  "eni-limit": "lower the node's max-pods, take a larger instance type, or switch prefix delegation on",
  "max-pods": "raise BERTH_MAX_PODS_COUNT, or leave it unset",
  "subnet-exhausted": "free addresses in the subnet, or name another in BERTH_POD_SUBNET_IDS",
  "prefixes-exhausted": "reserve a block by a subnet CIDR reservation, or switch prefix delegation off",
  throttled: "it slows down by itself; fewer changes, or a higher request quota, help",
  "access-denied": "give the daemon's role the permissions that Berth documents",
  failing: "look at the EC2 endpoint, the proxy and EC2's own health",
  "call-in-doubt": "nothing, unless it stays: then the way to EC2 is broken",
  "link-awaited": "nothing, unless it stays: then look at the kernel's log",
  "provisioning-off": "attach addresses by other means, or unset DISABLE_NETWORK_RESOURCE_PROVISIONING",
  cordoned: "uncordon the node, or set AWS_MANAGE_ENIS_NON_SCHEDULABLE",
  cooling: "nothing: they are free again when they have rested; a shorter IP_COOLDOWN_PERIOD helps",
};

/** Passing states, of which no event is made: they end by themselves within seconds. */
const PASSING: readonly HoldReason[] = ["on-target", "call-in-doubt", "link-awaited", "cooling"];

export function planEvents(
  memory: EventMemory,
  facts: EventFacts,
  now: Instant,
): { readonly events: readonly EventToWrite[]; readonly memory: EventMemory } {
  const earned = Math.floor((now - memory.filledAt) / TOKEN_MS);
  let tokens = Math.min(BURST, memory.tokens + earned);
  const filledAt = tokens === BURST ? now : after(memory.filledAt, earned * TOKEN_MS);
  const told = new Map([...memory.told].filter(([, at]) => now < after(at, AGAIN_MS)));
  const events: EventToWrite[] = [];
  for (const event of wanted(facts, now)) {
    const key = `${event.about.uid}/${event.reason}`;
    if (tokens === 0 || told.has(key) || told.size >= REMEMBERED_MAX) continue;
    tokens -= 1;
    told.set(key, now);
    events.push(event);
  }
  return { events, memory: { told, tokens, filledAt } };
}

function wanted(facts: EventFacts, now: Instant): readonly EventToWrite[] {
  const { node, ownPod, why } = facts;
  const events: EventToWrite[] = [];
  for (const obstacle of facts.obstacles) {
    if (obstacle.kind !== "access-denied" || ownPod === null) continue;
    const without = facts.without(obstacle.operation);
    const lacking = without === null ? "" : ` Without it, ${without}.`;
    const message = `EC2 denies ec2:${obstacle.operation}.${lacking} Remedy: ${REMEDIES["access-denied"]}.`;
    events.push(warning(aboutPod(ownPod), "MissingIAMPermissions", message));
  }
  if (facts.waiting > 0 && why.blocked !== null && !PASSING.includes(why.blocked)) {
    const words = `${why.detail}. Remedy: ${REMEDIES[why.blocked]}.`;
    if (node !== null)
      events.push(warning(aboutNode(node), "PodAddressesShort", `${facts.waiting} pods wait: ${words}`));
    for (const { pod, since } of facts.unserved)
      if (now >= after(since, PATIENCE_MS))
        events.push(warning(aboutPod(pod), "PodWaitsForAddress", `The node has no address for it: ${words}`));
  }
  if (node !== null && node.podCapacity !== null && node.podCapacity > facts.maxPods) {
    const message =
      `kubelet takes ${node.podCapacity} pods, and the node can have addresses for ${facts.maxPods}. ` +
      `Remedy: set kubelet's max-pods to ${facts.maxPods}, or switch prefix delegation on.`;
    events.push(warning(aboutNode(node), "MaxPodsDiffers", message));
  }
  return events;
}

function warning(about: EventToWrite["about"], reason: EventReason, message: string): EventToWrite {
  return { about, type: "Warning", reason, message: message.slice(0, 1_000) }; // events.v1 takes 1,024 bytes.
}

function aboutPod({ namespace, name, uid }: PodSeen): EventToWrite["about"] {
  return { kind: "Pod", namespace, name, uid };
}

function aboutNode({ name, uid }: NodeSeen): EventToWrite["about"] {
  return { kind: "Node", namespace: "", name, uid };
}
