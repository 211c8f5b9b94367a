/** What the agent needs of its edges, as function types. The daemon fills them with the real world, a simulator with a pretend one. */
import type { Ec2, Imds } from "../core/model/ec2.ts";
import type { SecurityGroupId, SubnetId } from "../core/model/eni.ts";
import type { NodeError } from "../core/model/error.ts";
import type { NetnsRef, SandboxKey } from "../core/model/sandbox.ts";
import type { Sysctl } from "../core/plumbing/node-host.ts";
import type { HostSeen, KernelObject, KernelOp, LinkSeen, SandboxPlumbing } from "../core/plumbing/object.ts";
import type { PlumbingSettings } from "../core/plumbing/settings.ts";
import type { NodeState } from "../core/state/node-state.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import type { Result } from "../lib/result.ts";
import type { Instant, WallTime } from "../lib/time.ts";

export type Time = {
  readonly now: () => Instant;
  readonly wallNow: () => WallTime;
  /** Resolves after `ms`, or at once when `signal` is aborted. */
  readonly sleep: (ms: number, signal: AbortSignalLike) => Promise<void>;
};

/** The part of AbortSignal that pure files may lean on. */
export type AbortSignalLike = {
  readonly aborted: boolean;
  readonly addEventListener: (type: "abort", listener: () => void, options?: { once?: boolean }) => void;
  readonly removeEventListener: (type: "abort", listener: () => void) => void;
};

/** What the kernel said no to. */
export type KernelFailure = { readonly step: string; readonly errno: string; readonly detail: string };

/** All synchronous, but for links: deleting one waits some 20 ms for the kernel, off the main thread. */
export type Kernel = {
  readonly observe: () => Result<HostSeen, KernelFailure>;
  /** The links alone: cheap enough to ask often while an ENI's link is awaited. */
  readonly observeLinks: () => Result<readonly LinkSeen[], KernelFailure>;
  /** In order; goes on after a failure. The list of what failed, empty when all is done. */
  readonly apply: (ops: readonly KernelOp[]) => readonly (KernelFailure & { readonly op: KernelOp })[];
  readonly lookAtNetns: (path: string) => Result<NetnsRef, NodeError>;
  /** Makes all of it, or nothing: what was made before a failure is taken away again. */
  readonly plumbSandbox: (netns: NetnsRef, plumbing: SandboxPlumbing) => Result<null, NodeError>;
  /** Differences between the sandbox as it is and as it should be, for CHECK; empty when all is well. */
  readonly checkSandbox: (netns: NetnsRef, plumbing: SandboxPlumbing) => Result<readonly string[], NodeError>;
  /** `inside`: the sandbox, where its slave must go as well, since that dies only with its namespace. */
  readonly deleteLink: (
    name: string,
    inside?: { readonly netns: NetnsRef; readonly plumbing: SandboxPlumbing },
  ) => Promise<Result<null, KernelFailure>>;
  /** Puts objects inside a sandbox that was plumbed before; the first refusal, or null. Absent where no sandbox is of a kind to need it. */
  readonly putInside?: (netns: NetnsRef, objects: readonly KernelObject[]) => KernelFailure | null;
  /** Why no pod can be plumbed in ipvlan mode, with the remedy; null when one can. Absent where the host is known to have all. */
  readonly ipvlanMissing?: () => string | null;
  /** Our nft table as it should be. True when it had to be loaded. Runs a process: at start, on policy change, after an nftables event. */
  readonly ensurePacketFilter: (text: string) => Promise<Result<boolean, KernelFailure>>;
  readonly ensureSysctls: (sysctls: readonly Sysctl[]) => readonly KernelFailure[];
  /** Forgets connections of an address that has changed hands. */
  readonly forgetConnections: (ip: Ipv4) => void;
};

/** Which sandboxes live, as the runtime's own traces tell. */
export type LiveSandbox = {
  readonly key: SandboxKey;
  readonly netnsPath: string | null;
  readonly ips: readonly Ipv4[];
  readonly source: "libcni-cache";
};
export type Runtime = {
  readonly cachedSandboxes: () => Result<readonly LiveSandbox[], string>;
  /** An operator's word, or the API server's, that no pods are to come: the pool is left alone but for pods that wait. */
  readonly cordoned: () => boolean;
  /** True while the path is a namespace with this device and inode. */
  readonly netnsLives: (netns: NetnsRef) => boolean;
};

export type AgentEvent = {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly message: string;
} & Readonly<Record<string, unknown>>;

/** Facts for counters; the names are the metrics room's business. */
export type Observed =
  | {
      readonly kind: "add";
      readonly outcome: "ok" | NodeError["code"];
      readonly durationMs: number;
      readonly heldMs: number;
    }
  | {
      readonly kind: "del";
      readonly outcome: "ok" | "unknown" | NodeError["code"];
      readonly durationMs: number;
    }
  | { readonly kind: "hold"; readonly reason: string }
  | {
      readonly kind: "removed";
      readonly what: "eni" | "address" | "link" | "route" | "rule" | "allocation";
      readonly why: string;
    }
  | { readonly kind: "repaired"; readonly what: string }
  | { readonly kind: "looked"; readonly at: "ec2" | "kernel" };

export type AgentSettings = {
  readonly cooldownMs: number;
  readonly plumbing: PlumbingSettings;
  readonly podMtu: number;
  readonly repairIntervalMs: number; // The slowest that the kernel is looked at without an event.
  readonly sweepIntervalMs: number;
  readonly refillIntervalMs: number; // The slowest that the pool is looked at without an event.
  readonly leakGraceMs: number; // An unattached ENI of ours is deleted when it is this old.
  readonly obstacleMs: number; // How long an exhausted subnet is left alone.
  readonly provisioning: boolean; // False: nothing is asked of EC2 but to describe.
  readonly deleteLeakedEnis: boolean;
  readonly manageUntagged: boolean; // MANAGE_UNTAGGED_ENI
  readonly podSubnets: readonly SubnetId[]; // Empty: the node's own.
  readonly podSecurityGroups: readonly SecurityGroupId[]; // Empty: the primary ENI's.
};

export type Ports = {
  readonly time: Time;
  readonly random: Random;
  readonly newToken: () => string; // A fresh ClientToken.
  readonly ec2: Ec2;
  readonly imds: Imds;
  readonly kernel: Kernel;
  readonly runtime: Runtime;
  /** Returns when the state, or a later one, is safe. */
  readonly save: (state: NodeState) => Promise<Result<null, NodeError>>;
  readonly log: (event: AgentEvent) => void;
  readonly observed: (fact: Observed) => void;
};
