/** ENIs and what EC2 put on them. EC2 owns these facts; this is what we believe of them. */
import type { Brand } from "../../lib/brand.ts";
import type { Cidr4, Ipv4 } from "../../lib/ip.ts";
import type { Instant } from "../../lib/time.ts";
import type { SandboxId } from "./sandbox.ts";

export type EniId = Brand<string, "EniId">; // eni-…
export type AttachmentId = Brand<string, "AttachmentId">; // eni-attach-…
export type SubnetId = Brand<string, "SubnetId">; // subnet-…
export type SecurityGroupId = Brand<string, "SecurityGroupId">; // sg-…
export type Mac = Brand<string, "Mac">; // Lower case, colons.

/** Where an ENI sits on the instance. Device indexes repeat on each network card. */
export type EniSlot = { readonly networkCard: number; readonly deviceIndex: number };

/**
 * One address that pods may use: a secondary address of its ENI, or one of the 16 addresses of a delegated /28.
 * At most one sandbox holds it; EC2 is asked to take back only what is `leaving`.
 * `by` tells what EC2 calls it: `secondary` is assigned and unassigned alone, `prefix` comes and goes with its /28.
 */
export type PoolAddress = { readonly ip: Ipv4; readonly by: "secondary" | "prefix" } & (
  | { readonly kind: "warm" }
  | { readonly kind: "allocated"; readonly sandbox: SandboxId }
  | { readonly kind: "cooling"; readonly until: Instant }
  | { readonly kind: "leaving" }
);

/**
 * Where an ENI stands between us, EC2 and the kernel.
 * - `awaiting-link`: attached, says EC2; the kernel's link has not come yet. Its addresses are not given out.
 * - `ready`: its link is plumbed; its addresses may be given to sandboxes.
 * - `leaving`: nothing uses it; it is on its way to detach and delete. Never chosen again.
 */
export type EniPhase =
  | { readonly kind: "awaiting-link"; readonly since: Instant }
  | { readonly kind: "ready" }
  | { readonly kind: "leaving"; readonly since: Instant };

/** An ENI of this instance that we manage: the primary one, or one that we attached. */
export type Eni = {
  readonly id: EniId;
  readonly mac: Mac;
  readonly role: "primary" | "secondary";
  readonly slot: EniSlot;
  readonly attachmentId: AttachmentId;
  readonly subnetId: SubnetId;
  readonly subnetCidr: Cidr4; // The VPC's router answers at its first address + 1.
  readonly securityGroups: readonly SecurityGroupId[];
  readonly primaryIp: Ipv4; // Never in `addresses`: an ENI's own address is not for pods.
  readonly detachable: boolean; // Carries our owner tag. Others may serve pods, but are never taken off the instance, nor shrunk.
  readonly phase: EniPhase;
  readonly attachedAt: Instant;
  readonly prefixes: readonly Cidr4[]; // Delegated /28s.
  readonly addresses: ReadonlyMap<Ipv4, PoolAddress>; // Secondary addresses, and those inside `prefixes`.
};

/** An ENI on this instance that is not ours to touch, and why. It occupies a slot. */
export type ForeignEni = {
  readonly id: EniId;
  readonly mac: Mac;
  readonly slot: EniSlot;
  /** `beyond-limits`: in a slot that its instance type does not have as far as we know, so that no mark could number it. */
  readonly reason:
    | "no-manage"
    | "efa"
    | "trunk"
    | "branch"
    | "service-managed"
    | "untagged"
    | "beyond-limits";
};
