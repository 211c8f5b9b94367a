/**
 * What can go wrong, each with its rate, and whether it goes wrong now. Every fault draws from a source of its own, so that a run without
 * one of them is otherwise the same run: that is what lets shrink.ts find the few that matter.
 */
import { type Random, seededRandom } from "../lib/random.ts";
import type { VirtualClock } from "./clock.ts";

/** `chance` is at each occasion (a call, a save, a step of the kernel's); `hourly` is how often a node meets it in an hour. */
type Rate = { readonly chance: number } | { readonly hourly: number };

export const FAULT_RATES = {
  // EC2
  "ec2-throttled": { chance: 0.01 },
  "ec2-failing": { chance: 0.015 },
  "ec2-denied": { chance: 0.002 },
  "ec2-slow": { chance: 0.02 }, // Some seconds.
  "ec2-hangs": { chance: 0.006 }, // Nothing is done, nothing is answered.
  "ec2-unanswered": { chance: 0.012 }, // Committed, and the answer lost.
  "ec2-answered-late": { chance: 0.012 }, // Committed after we gave up.
  "ec2-outage": { hourly: 0.05 }, // All calls fail for some minutes.
  "describe-lagged": { chance: 0 }, // Counted where a describe showed another world than the one of now.
  "imds-stale": { hourly: 0.1 },
  "imds-down": { hourly: 0.08 },
  "link-late": { chance: 0.15 },
  "link-never": { chance: 0.02 }, // Until the ENI is detached.
  "detach-stuck": { chance: 0.1 },
  "foreign-eni-in-tag-space": { hourly: 0.05 },
  "foreign-eni-on-instance": { hourly: 0.04 },
  "dead-nodes-eni": { hourly: 0.05 },
  "subnet-exhausted": { hourly: 0.06 },
  "subnet-fragmented": { hourly: 0.03 },
  "limit-met": { chance: 0 }, // Counted where EC2 refused for a limit of the instance type.
  "group-or-subnet-deleted": { hourly: 0.04 },
  // The machine
  "wall-clock-jump": { hourly: 0.1 },
  "daemon-crash": { chance: 0.0012 }, // Before or after any effect.
  "daemon-restart": { hourly: 0.1 },
  "settings-changed": { chance: 0.4 }, // At a restart.
  reboot: { hourly: 0.06 },
  "node-dies": { hourly: 0.02 }, // Where there are others that outlive it.
  // The disk
  "disk-full": { hourly: 0.05 },
  "write-torn": { chance: 0.5 }, // At a power cut.
  "fsync-lies": { hourly: 0.08 },
  "checkpoint-lost": { chance: 0.06 }, // At a start.
  "checkpoint-older": { chance: 0.06 },
  "checkpoint-flipped": { chance: 0.05 },
  "checkpoint-of-another-node": { chance: 0.04 },
  "cache-lost": { hourly: 0.1 },
  // The runtime
  "del-lost": { chance: 0.02 },
  "del-late": { chance: 0.02 },
  "del-doubled": { chance: 0.03 },
  "del-before-add-ended": { chance: 0.02 },
  "shim-killed": { chance: 0.01 },
  "answer-lost": { chance: 0.02 }, // The shim asks again with the same request id.
  "gc-with-wrong-list": { hourly: 0.2 },
  // The kernel
  "kernel-enobufs": { chance: 0.0006 },
  "kernel-eexist": { chance: 0.0003 },
  "kernel-enoent": { chance: 0.0003 },
  // People
  "operator-deletes-route": { hourly: 0.12 },
  "operator-deletes-rule": { hourly: 0.08 },
  "operator-deletes-link": { hourly: 0.06 },
  "operator-adds-eni-address": { hourly: 0.05 },
  "operator-detaches-eni": { hourly: 0.03 },
  "operator-unassigns-address": { hourly: 0.04 },
  "operator-clears-delete-on-termination": { hourly: 0.05 },
  "operator-tags-no-manage": { hourly: 0.02 },
  cordoned: { hourly: 0.03 },
} as const satisfies Readonly<Record<string, Rate>>;

export type FaultName = keyof typeof FAULT_RATES;
export const FAULT_NAMES = Object.keys(FAULT_RATES) as readonly FaultName[]; // The record's own keys.

export const FAULT_PROFILES = { none: 0, calm: 0.1, harsh: 1 } as const;
export type FaultProfile = keyof typeof FAULT_PROFILES;

export type FaultOptions = {
  readonly seed: string;
  readonly profile: FaultProfile;
  readonly without: ReadonlySet<FaultName>;
  readonly fromMs: number; // Nothing goes wrong before.
};

const HOUR_MS = 3_600_000;

export class Faults {
  readonly counts = new Map<FaultName, number>(FAULT_NAMES.map((name) => [name, 0]));
  /** From here on nothing goes wrong any more. */
  over = false;
  readonly #options: FaultOptions;
  readonly #clock: VirtualClock;
  readonly #sources = new Map<string, Random>();
  readonly #factor: number;
  readonly #told: (name: FaultName, node: string) => void;

  constructor(clock: VirtualClock, options: FaultOptions, told: (name: FaultName, node: string) => void) {
    this.#clock = clock;
    this.#options = options;
    this.#factor = FAULT_PROFILES[options.profile];
    this.#told = told;
  }

  /** A source of chance for one purpose of one node. */
  source(name: string, node: string): Random {
    const key = `${name}/${node}`;
    let source = this.#sources.get(key);
    if (source === undefined)
      this.#sources.set(key, (source = seededRandom(`${this.#options.seed}/fault/${key}`)));
    return source;
  }

  /** One occasion: does it go wrong? */
  hits(name: FaultName, node: string): boolean {
    const rate = FAULT_RATES[name];
    if (!("chance" in rate) || this.#factor === 0) return false;
    const drawn = this.source(name, node)();
    if (drawn >= rate.chance * this.#factor || !this.#isOn(name)) return false;
    this.happened(name, node);
    return true;
  }

  /** Again and again at the fault's rate. `act` says false when there was nothing that it could befall. */
  recur(name: FaultName, node: string, act: (chance: Random) => boolean): void {
    const rate = FAULT_RATES[name];
    if (!("hourly" in rate) || this.#factor === 0) return;
    const source = this.source(name, node);
    const next = (): void => {
      const waitMs = (-Math.log(1 - source()) * HOUR_MS) / (rate.hourly * this.#factor);
      this.#clock.after(waitMs, () => {
        if (this.#isOn(name) && act(this.source(`${name} how`, node))) this.happened(name, node);
        if (!this.over) next();
      });
    };
    next();
  }

  happened(name: FaultName, node: string): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    this.#told(name, node);
  }

  #isOn(name: FaultName): boolean {
    return !this.over && !this.#options.without.has(name) && this.#clock.now >= this.#options.fromMs;
  }
}
