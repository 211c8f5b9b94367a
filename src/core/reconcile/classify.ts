/** Whose ENI is it? Asked of everything that EC2 lists, before anything is done to it. Names: the AWS VPC CNI's README, "ENI tags related to Allocation". */
import type { EniSeen } from "../model/ec2.ts";
import { CREATED_AT_TAG, DESCRIPTION_PREFIX, NO_MANAGE_TAG, OWNER_TAG } from "../model/eni-names.ts";
import type { ForeignEni } from "../model/eni.ts";
import type { InstanceId, InstanceLimits } from "../model/instance.ts";
import { eniNumber } from "../plumbing/names.ts";
import { parseWallTime, type WallTime } from "../../lib/time.ts";

export type EniOwner =
  | { readonly kind: "ours" }
  | { readonly kind: "foreign"; readonly reason: ForeignEni["reason"] };

/** What whose-is-it depends on beside the ENI itself. */
export type OwnerRules = { readonly manageUntagged: boolean; readonly limits: InstanceLimits };

/**
 * An attached ENI. `ours` may be grown, shrunk and (unless it is the primary one) detached.
 * Untagged ENIs count as ours where `manageUntagged` says so, as the AWS VPC CNI has it by default: see `detachable`.
 */
export function ownerOf(seen: EniSeen, rules: OwnerRules): EniOwner {
  const slot = seen.attachment?.slot;
  if (slot?.networkCard === 0 && slot.deviceIndex === 0) return { kind: "ours" };
  if (seen.tags.get(NO_MANAGE_TAG) === "true") return { kind: "foreign", reason: "no-manage" };
  switch (seen.interfaceType) {
    case "interface":
      break;
    case "efa":
    case "efa-only":
      return { kind: "foreign", reason: "efa" };
    case "trunk":
      return { kind: "foreign", reason: "trunk" };
    case "branch":
      return { kind: "foreign", reason: "branch" };
    default:
      return { kind: "foreign", reason: "service-managed" };
  }
  if (seen.requesterManaged) return { kind: "foreign", reason: "service-managed" };
  if (!seen.tags.has(OWNER_TAG) && !rules.manageUntagged) return { kind: "foreign", reason: "untagged" };
  // Somebody may attach an ENI at any index. One without a number cannot be plumbed.
  if (slot !== undefined && eniNumber(slot, rules.limits) === null)
    return { kind: "foreign", reason: "beyond-limits" };
  return { kind: "ours" };
}

/**
 * Only what carries our own owner tag for this instance is ever taken away. An untagged ENI may serve pods, but somebody
 * attached it by hand: it stays.
 */
export function detachable(seen: EniSeen, instance: InstanceId): boolean {
  return (
    seen.tags.get(OWNER_TAG) === instance && seen.tags.get(NO_MANAGE_TAG) !== "true" && !seen.requesterManaged
  );
}

/** Made by one of us for this instance, and tagged in all ways that we tag: it may be deleted once nobody needs it. */
export function detachableIfLoose(seen: EniSeen, instance: InstanceId): boolean {
  const dated = parseWallTime(seen.tags.get(CREATED_AT_TAG) ?? "") !== null;
  return dated && detachable(seen, instance) && seen.description.startsWith(DESCRIPTION_PREFIX);
}

/** An ENI that hangs on nothing, was made for this instance, and is older than the grace time: nobody else will clean it up. */
export function isLeaked(seen: EniSeen, instance: InstanceId, now: WallTime, graceMs: number): boolean {
  if (seen.status !== "available" || seen.attachment !== null) return false;
  if (!detachableIfLoose(seen, instance)) return false;
  const createdAt = parseWallTime(seen.tags.get(CREATED_AT_TAG) ?? "");
  return createdAt !== null && now - createdAt >= graceMs;
}
