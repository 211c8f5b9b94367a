/** NodeState: the one value that the daemon believes. Transitions make it, the planner reads it, the cell holds it. */
import type { Ipv4 } from "../../lib/ip.ts";
import type { Instant, WallTime } from "../../lib/time.ts";
import type {
  AttachmentId,
  Eni,
  EniId,
  EniSlot,
  ForeignEni,
  Mac,
  SecurityGroupId,
  SubnetId,
} from "../model/eni.ts";
import type { Instance } from "../model/instance.ts";
import type { NetnsRef, PodName, SandboxId, SandboxKey } from "../model/sandbox.ts";
import type { IpvlanPath } from "../plumbing/ipvlan.ts";

/** Who got which address, and what was plumbed for it. The checkpoint owns this truth. */
export type Allocation = {
  readonly id: SandboxId;
  readonly key: SandboxKey;
  readonly pod: PodName | null;
  readonly netns: NetnsRef;
  readonly ip: Ipv4;
  readonly eni: EniId;
  readonly eniSlot: EniSlot;
  readonly hostLink: string;
  readonly hostMac: Mac;
  readonly podMac: Mac;
  readonly mtu: number;
  readonly ipvlan?: IpvlanPath; // Absent: routed. So says every checkpoint from before there was a choice.
  /** The `type` of another plugin that makes the links: we are its IPAM, and give an address alone. Absent: the links are ours. */
  readonly plumbedBy?: string;
  readonly requestId: string; // Of the ADD: a shim that lost its answer may ask for it again.
  readonly since: WallTime;
};

/** CreateNetworkInterface was sent, or is about to be. Saved before the call, so that the ENI is found whatever happens. */
export type EniCreation = {
  readonly clientToken: string;
  readonly slot: EniSlot;
  readonly subnetId: SubnetId;
  readonly securityGroups: readonly SecurityGroupId[];
  readonly addressCount: number;
  readonly prefixCount: number;
  readonly since: WallTime; // Goes into a tag, so it belongs to what the token stands for.
};

/** An ENI of ours that hangs on no instance (created and not attached, or detached and not deleted), or is being detached. */
export type LooseEni = {
  readonly id: EniId;
  readonly attachmentId: AttachmentId | null;
  readonly since: Instant;
};

/** What keeps the pool from growing, for a while. */
export type Obstacle =
  /** `asked`: so many addresses were refused, and fewer may be there; not given: there is none. */
  | {
      readonly kind: "subnet-exhausted";
      readonly subnetId: SubnetId;
      readonly asked?: number;
      readonly until: Instant;
    }
  | { readonly kind: "prefixes-exhausted"; readonly subnetId: SubnetId; readonly until: Instant }
  | {
      readonly kind: "throttled";
      readonly operation: string;
      readonly attempt: number;
      readonly until: Instant;
    }
  | {
      readonly kind: "access-denied";
      readonly operation: string;
      readonly attempt: number;
      readonly until: Instant;
    }
  | {
      readonly kind: "failing";
      readonly operation: string;
      readonly attempt: number;
      readonly detail: string;
      readonly until: Instant;
    };

/** An EC2 call whose outcome is not known. EC2 is observed before anything else is asked of it. */
export type InDoubt = { readonly operation: string; readonly eni: EniId | null; readonly since: Instant };

export type NodeState = {
  readonly instance: Instance;
  readonly enis: ReadonlyMap<EniId, Eni>;
  readonly foreign: readonly ForeignEni[];
  readonly loose: ReadonlyMap<EniId, LooseEni>;
  readonly allocations: ReadonlyMap<SandboxId, Allocation>;
  /** Released addresses that EC2 did not list then, and until when they rest. Its view may be old: what it lists later rests on. */
  readonly resting: ReadonlyMap<Ipv4, { readonly eni: EniId; readonly until: Instant }>;
  readonly creation: EniCreation | null;
  readonly inDoubt: InDoubt | null;
  readonly obstacles: readonly Obstacle[];
  readonly waiting: number; // ADDs that are held for an address.
  readonly schedulable: boolean; // False on a cordoned node.
};
