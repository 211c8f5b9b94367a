/** What EC2 refused lately, and until when it is not asked for that again. */
import type { Instant } from "../../lib/time.ts";
import type { HoldReason, PoolAction } from "../model/action.ts";
import type { SubnetId } from "../model/eni.ts";
import type { NodeState, Obstacle } from "../state/node-state.ts";
import type { Unit } from "./targets.ts";

/** Something that keeps a way from being taken, as pods and people are told. When to come again is the plan's to say. */
export type Block = { readonly reason: HoldReason; readonly detail: string };

/** How EC2 is looked at. In doubt after a start without EC2: it was never looked at, and what it says the first time is believed. */
export const LOOK_OPERATION = "DescribeNetworkInterfaces";

/** The EC2 operations that an action is made of. */
export const OPERATIONS_OF = {
  "assign-addresses": ["AssignPrivateIpAddresses"],
  "assign-prefixes": ["AssignPrivateIpAddresses"],
  "unassign-addresses": ["UnassignPrivateIpAddresses"],
  "unassign-prefixes": ["UnassignPrivateIpAddresses"],
  "attach-eni": ["CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute"],
  "detach-eni": ["DetachNetworkInterface", "DeleteNetworkInterface"],
  "delete-eni": ["DeleteNetworkInterface"],
} as const satisfies Record<PoolAction["kind"], readonly string[]>;

/** The obstacles that still stand at `now`. */
export function standing(state: NodeState, now: Instant): readonly Obstacle[] {
  return state.obstacles.filter((obstacle) => obstacle.until > now);
}

/** Null when the action's operations may be called. */
export function operationBlock(obstacles: readonly Obstacle[], action: PoolAction["kind"]): Block | null {
  const operations: readonly string[] = OPERATIONS_OF[action];
  const obstacle = obstacles.find((each) => "operation" in each && operations.includes(each.operation));
  return obstacle === undefined ? null : blockOf(obstacle);
}

/** Null when the subnet may be asked for the unit. A subnet without free addresses has no free /28 either. */
export function subnetBlock(obstacles: readonly Obstacle[], subnetId: SubnetId, unit: Unit): Block | null {
  const of = (kind: "subnet-exhausted" | "prefixes-exhausted"): Obstacle | undefined =>
    obstacles.find((obstacle) => obstacle.kind === kind && obstacle.subnetId === subnetId);
  const obstacle = of("subnet-exhausted") ?? (unit === "prefix" ? of("prefixes-exhausted") : undefined);
  return obstacle === undefined ? null : blockOf(obstacle);
}

/**
 * How many addresses may still be asked of an exhausted subnet: EC2 gives all or none, so a refusal of many says nothing of few.
 * Half of what was refused last, so that some asking finds out; 0 when not even one was to be had.
 */
export function lastAddressesOf(obstacles: readonly Obstacle[], subnetId: SubnetId): number {
  const obstacle = obstacles.find((each) => each.kind === "subnet-exhausted" && each.subnetId === subnetId);
  return obstacle?.kind === "subnet-exhausted" ? Math.floor((obstacle.asked ?? 1) / 2) : 0;
}

/** What people should be told first: what they alone can change, then what time may change. */
const TELLING: readonly HoldReason[] = [
  "access-denied",
  "subnet-exhausted",
  "prefixes-exhausted",
  "throttled",
  "failing",
  "cordoned",
  "eni-limit",
];

/** The block to tell of when every way is barred. */
export function mostTelling(blocks: readonly Block[]): Block {
  for (const reason of TELLING) {
    const block = blocks.find((each) => each.reason === reason);
    if (block !== undefined) return block;
  }
  return { reason: "eni-limit", detail: "no ENI has room" };
}

export function earliest(instants: readonly (Instant | null)[]): Instant | null {
  return instants.reduce(
    (best, each) => (best === null || (each !== null && each < best) ? each : best),
    null,
  );
}

/** What the operation was answered the last time it was asked for, where that was a refusal; over or not. */
export function lastRefusal(state: NodeState, operation: string): Block | null {
  const obstacle = state.obstacles.find((each) => "operation" in each && each.operation === operation);
  return obstacle === undefined ? null : blockOf(obstacle);
}

function blockOf(obstacle: Obstacle): Block {
  return { reason: obstacle.kind, detail: detailOf(obstacle) };
}

function detailOf(obstacle: Obstacle): string {
  if ("subnetId" in obstacle) {
    if (obstacle.kind === "prefixes-exhausted") return `${obstacle.subnetId} has no free /28`;
    const { subnetId, asked = 1 } = obstacle;
    return asked > 1 ? `${subnetId} has not ${asked} free addresses` : `${subnetId} has no free address`;
  }
  if (obstacle.kind === "failing") return `${obstacle.operation}: ${obstacle.detail}`;
  return `EC2 ${obstacle.kind === "throttled" ? "throttles" : "denies"} ${obstacle.operation}`;
}
