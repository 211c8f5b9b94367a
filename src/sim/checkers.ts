/**
 * What must hold, one subject a checker. Each looks when something that it reads has changed: at an effect, or after a step. The first
 * violation ends the run. Checkers know the truth (EC2's world, the host, the pods) and compare it with what the daemon does.
 */
import type { NodeState } from "../core/state/node-state.ts";
import type { VirtualClock } from "./clock.ts";

export const CHECKERS = {
  "one-sandbox-an-address": "no address is in two sandboxes",
  "address-on-its-eni": "a sandbox's address is one that EC2 has on the ENI by which its packets leave",
  "never-taken-back-in-use": "no address that a sandbox has is in an unassign call",
  "cooldown-kept":
    "an address that a sandbox had rests before another has it, or EC2 does, over restarts too",
  "in-use-eni-stays": "an ENI with a sandbox's address is never detached",
  "foreign-untouched": "nothing of another owner is changed",
  "belief-meets-truth": "when faults stop, what the daemon believes becomes what is",
  "nothing-leaks": "when faults stop, no ENI, address, record, link, route or rule is left over",
  "add-ends": "every ADD ends within its budget, with a result or a reason",
  "pool-reaches-target": "when faults stop, the pool comes to its target",
  "ec2-calls-bounded": "calls to EC2 stay within a budget, an hour and a minute",
  "state-sound": "the state's own invariants hold",
  "pods-keep-plumbing": "a running pod that lost its link or routes has them back soon",
  "written-before-real": "an address is in the checkpoint before it is in a sandbox",
  "leaving-before-call": "what EC2 is asked to take back was said to be leaving, in the state and on disk",
  "one-creation": "no ENI is asked for while the outcome of the one before is unknown",
  "removal-is-told": "what is taken away is told in one log line",
  "start-serves": "a daemon that starts serves within its time",
  "no-broken-promise": "no assertion of the daemon fails",
  "ends-with-instance": "when faults stop, every attached ENI of ours ends with its instance",
} as const;

export type CheckerName = keyof typeof CHECKERS;
export const CHECKER_NAMES = Object.keys(CHECKERS) as readonly CheckerName[]; // The record's own keys.

export type Violation = { readonly checker: CheckerName; readonly detail: string; readonly atMs: number };

export class Checks {
  readonly counts = new Map<CheckerName, number>(CHECKER_NAMES.map((name) => [name, 0]));
  readonly violations: Violation[] = [];
  readonly #clock: VirtualClock;
  readonly #told: (violation: Violation) => void;

  constructor(clock: VirtualClock, told: (violation: Violation) => void) {
    this.#clock = clock;
    this.#told = told;
  }

  /** One look. `problem` is null, or false, when all is well. */
  look(checker: CheckerName, problem: string | null | false): void {
    this.counts.set(checker, (this.counts.get(checker) ?? 0) + 1);
    if (problem === null || problem === false) return;
    const violation = { checker, detail: problem, atMs: this.#clock.now };
    this.violations.push(violation);
    this.#told(violation);
  }
}

/** Calls in the last minute and the last hour, of one node. A start may look anew: it brings a few calls of its own. */
export class CallBudget {
  readonly #calls = { minute: new Window(60_000), hour: new Window(3_600_000) };
  readonly #starts = { minute: new Window(60_000), hour: new Window(3_600_000) };

  started(now: number): void {
    for (const window of [this.#starts.minute, this.#starts.hour]) window.add(now);
  }

  /** A sentence when there were too many. */
  called(now: number): string | null {
    for (const [name, most] of [
      ["minute", CALLS_A_MINUTE],
      ["hour", CALLS_AN_HOUR],
    ] as const) {
      const allowed = most + CALLS_A_START * this.#starts[name].count(now);
      const count = this.#calls[name].add(now);
      if (count > allowed) return `${count} EC2 calls within a ${name}, more than ${allowed}`;
    }
    return null;
  }
}

class Window {
  readonly #spanMs: number;
  #times: number[] = [];
  #from = 0;

  constructor(spanMs: number) {
    this.#spanMs = spanMs;
  }

  add(now: number): number {
    this.#times.push(now);
    return this.count(now);
  }

  count(now: number): number {
    while ((this.#times[this.#from] ?? now) <= now - this.#spanMs) this.#from += 1;
    if (this.#from > 2_000) {
      this.#times = this.#times.slice(this.#from);
      this.#from = 0;
    }
    return this.#times.length - this.#from;
  }
}

/** The stated budget of one node. */
export const CALLS_A_MINUTE = 60;
export const CALLS_AN_HOUR = 600;
export const CALLS_A_START = 20;

/** A link goes some 20 ms after its address was released; what is on it by then reaches nobody. */
const LINK_GOES_MS = 100;

/** When an address was last in a sandbox of this node, and left it, and the rest that was to follow. */
export class Rests {
  readonly #goneAt = new Map<
    string,
    { readonly at: number; readonly restMs: number; readonly sandbox: string }
  >();

  gone(ip: string, at: number, restMs: number, sandbox: string): void {
    this.#goneAt.set(ip, { at, restMs, sandbox });
  }

  /** The setting of a daemon that starts: what it releases itself rests by it, so where it changes the shortest one is asked for. */
  settingIs(cooldownMs: number): void {
    for (const [ip, gone] of this.#goneAt)
      if (gone.restMs > cooldownMs) this.#goneAt.set(ip, { ...gone, restMs: cooldownMs });
  }

  /** Nobody can know of what was before: neither record nor trace is left. */
  forget(): void {
    this.#goneAt.clear();
  }

  /**
   * A sentence when it has not rested. Where the setting changed meanwhile, the shorter one is asked for. The sandbox that had it may have it
   * again: somebody took its link away.
   */
  tooSoon(ip: string, now: number, cooldownMs: number, forWhom: string): string | null {
    const gone = this.#goneAt.get(ip);
    const restMs = Math.min(cooldownMs, gone?.restMs ?? 0);
    if (gone === undefined || gone.sandbox === forWhom || now - gone.at >= restMs - LINK_GOES_MS) return null;
    return `${ip} goes to ${forWhom} ${Math.round(now - gone.at)} ms after ${gone.sandbox} had it; it should rest ${restMs} ms`;
  }
}

/** The record of a sandbox as the disk has it. */
export function isWritten(written: NodeState | null, id: string, ip: string): boolean {
  if (written === null) return false;
  for (const allocation of written.allocations.values())
    if (allocation.id === id) return allocation.ip === ip;
  return false;
}
