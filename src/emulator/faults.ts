/** Faults by script: which calls fail and how, and what the world does behind a node's back. Counting only; the engine acts. */
import type { Tags } from "./world.ts";

/** Which calls: by action and node, `*` or nothing for any. Fires from the `nth` matching call on (1 when not said), `times` times (1 when not said). */
export type CallMatch = {
  readonly action?: string;
  readonly node?: string;
  readonly nth?: number;
  readonly times?: number;
};

/** What befalls a call. */
export type CallFault = CallMatch &
  (
    | { readonly kind: "throttle" }
    /** Any EC2 error; status 400 and an empty-handed text unless said. */
    | { readonly kind: "error"; readonly code: string; readonly status?: number; readonly message?: string }
    /** Nothing is done and nothing is answered; after `forMs` the connection is reset. */
    | { readonly kind: "hang"; readonly forMs: number }
    /** Done and committed, but the caller sees a reset connection. */
    | { readonly kind: "lost-answer" }
    /** Takes `forMs` longer. */
    | { readonly kind: "slow"; readonly forMs: number }
  );

/** What befalls links and attachments: matched when the process begins. `instanceId` nothing or `*`: any. */
export type ProcessFault = { readonly instanceId?: string; readonly times?: number } & (
  | { readonly kind: "slow-link"; readonly forMs: number }
  | { readonly kind: "stuck-detaching"; readonly forMs: number }
);

/** What happens once, now. */
export type WorldFault =
  /** IMDS of that instance goes on showing what it shows now. */
  | { readonly kind: "stale-imds"; readonly instanceId: string; readonly forMs: number }
  /** An ENI that somebody else left in our tag space; attached when an instance is given. */
  | {
      readonly kind: "foreign-eni";
      readonly subnetId: string;
      readonly description?: string;
      readonly tags?: Tags;
      readonly instanceId?: string;
      readonly deviceIndex?: number;
      readonly interfaceType?: "interface" | "efa" | "trunk";
      readonly managedBy?: string;
    }
  /** A neighbour takes addresses until `leaveFree` are left, or one in each /28, so that no prefix is left. */
  | { readonly kind: "fill-subnet"; readonly subnetId: string; readonly leaveFree: number }
  | { readonly kind: "fragment-subnet"; readonly subnetId: string }
  /** The neighbour gives all back. */
  | { readonly kind: "empty-subnet"; readonly subnetId: string }
  | { readonly kind: "terminate-instance"; readonly instanceId: string };

export type Fault = CallFault | ProcessFault | WorldFault;

/** Who a neighbour's ENIs are managed by. */
export const NEIGHBOUR = "neighbour";

type Counted<T> = { readonly fault: T; readonly seen: number };

/** The faults that wait for their moment. */
export type FaultScript = {
  readonly calls: readonly Counted<CallFault>[];
  readonly processes: readonly Counted<ProcessFault>[];
};

export const NO_FAULTS: FaultScript = { calls: [], processes: [] };

// A record first, so that the compiler asks for a new kind.
const BEFALLS: Readonly<Record<Fault["kind"], "call" | "process" | "world">> = {
  throttle: "call",
  error: "call",
  hang: "call",
  "lost-answer": "call",
  slow: "call",
  "slow-link": "process",
  "stuck-detaching": "process",
  "stale-imds": "world",
  "foreign-eni": "world",
  "fill-subnet": "world",
  "fragment-subnet": "world",
  "empty-subnet": "world",
  "terminate-instance": "world",
};

/** Every kind of fault, and what it befalls. */
export const FAULT_KINDS: ReadonlyMap<string, "call" | "process" | "world"> = new Map(
  Object.entries(BEFALLS),
);

export function isCallFault(fault: Fault): fault is CallFault {
  return BEFALLS[fault.kind] === "call";
}

export function isProcessFault(fault: Fault): fault is ProcessFault {
  return BEFALLS[fault.kind] === "process";
}

export function faultAdded(script: FaultScript, fault: CallFault | ProcessFault): FaultScript {
  return isProcessFault(fault)
    ? { ...script, processes: [...script.processes, { fault, seen: 0 }] }
    : { ...script, calls: [...script.calls, { fault, seen: 0 }] };
}

/** Counts a call against every waiting fault; the first that is due befalls it. */
export function faultOfCall(
  script: FaultScript,
  call: { readonly action: string; readonly node: string },
): [FaultScript, CallFault | null] {
  let hit: CallFault | null = null;
  const calls: Counted<CallFault>[] = [];
  for (const { fault, seen } of script.calls) {
    if (!matches(fault.action, call.action) || !matches(fault.node, call.node)) {
      calls.push({ fault, seen });
      continue;
    }
    const first = fault.nth ?? 1;
    const last = first + (fault.times ?? 1) - 1;
    if (hit === null && seen + 1 >= first) hit = fault;
    if (seen + 1 < last) calls.push({ fault, seen: seen + 1 });
  }
  return [{ ...script, calls }, hit];
}

/** The same for a link that is to appear, or a detach that began. */
export function faultOfProcess(
  script: FaultScript,
  kind: ProcessFault["kind"],
  instanceId: string,
): [FaultScript, ProcessFault | null] {
  const index = script.processes.findIndex(
    ({ fault }) => fault.kind === kind && matches(fault.instanceId, instanceId),
  );
  const found = script.processes[index];
  if (found === undefined) return [script, null];
  const spent = found.seen + 1 >= (found.fault.times ?? 1);
  const next = spent ? [] : [{ ...found, seen: found.seen + 1 }];
  return [
    {
      ...script,
      processes: [...script.processes.slice(0, index), ...next, ...script.processes.slice(index + 1)],
    },
    found.fault,
  ];
}

function matches(wanted: string | undefined, actual: string): boolean {
  return wanted === undefined || wanted === "*" || wanted === actual;
}
