/** Every EC2 effect that the core can ask for. Flat values: printable, loggable, countable. */
import type { Cidr4, Ipv4 } from "../../lib/ip.ts";
import type { Instant } from "../../lib/time.ts";
import type { AttachmentId, EniId, EniSlot, SecurityGroupId, SubnetId } from "./eni.ts";

export type PoolAction =
  /** AssignPrivateIpAddresses with a count, or with a count of /28 prefixes. */
  | { readonly kind: "assign-addresses"; readonly eni: EniId; readonly count: number }
  | { readonly kind: "assign-prefixes"; readonly eni: EniId; readonly count: number }
  /** UnassignPrivateIpAddresses. Each address is `leaving` before the call is made. */
  | { readonly kind: "unassign-addresses"; readonly eni: EniId; readonly ips: readonly Ipv4[] }
  | { readonly kind: "unassign-prefixes"; readonly eni: EniId; readonly prefixes: readonly Cidr4[] }
  /** CreateNetworkInterface, AttachNetworkInterface, ModifyNetworkInterfaceAttribute (DeleteOnTermination). */
  | {
      readonly kind: "attach-eni";
      readonly slot: EniSlot;
      readonly subnetId: SubnetId;
      readonly securityGroups: readonly SecurityGroupId[];
      readonly addressCount: number; // Secondary addresses asked for at creation; 0 in prefix mode.
      readonly prefixCount: number;
    }
  /** DetachNetworkInterface, then DeleteNetworkInterface. The ENI is `leaving` before the call is made. */
  | { readonly kind: "detach-eni"; readonly eni: EniId; readonly attachmentId: AttachmentId }
  /** DeleteNetworkInterface of an ENI that hangs on nothing: a leaked one, or one whose detach is done. */
  | { readonly kind: "delete-eni"; readonly eni: EniId };

/**
 * One action, or none with the reason why not. `detail` says it in words for people.
 * `retryAt`: until then the plan stays the same unless the state changes; null when only a change can alter it.
 */
export type PoolPlan =
  | { readonly kind: "act"; readonly action: PoolAction; readonly reason: string }
  | {
      readonly kind: "hold";
      readonly reason: HoldReason;
      readonly detail: string;
      readonly retryAt: Instant | null;
    };

/** Why nothing is done. All but `on-target` are told to pods that wait. */
export type HoldReason =
  | "on-target"
  | "eni-limit" // No room on any ENI and no slot for another.
  | "max-pods" // As many addresses as the node may have pods.
  | "subnet-exhausted"
  | "prefixes-exhausted"
  | "throttled"
  | "access-denied"
  | "failing" // EC2 refuses for another reason, or cannot be reached.
  | "call-in-doubt"
  | "link-awaited" // An ENI is attached; its link has not come.
  | "provisioning-off" // DISABLE_NETWORK_RESOURCE_PROVISIONING
  | "cordoned"
  | "cooling"; // Only cooling addresses could serve; they will, at `retryAt`.
