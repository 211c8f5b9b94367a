/** What the pool loop tells: what was done, why nothing is, and when the kind of addresses changes. What repeats is told once a minute. */
import type { PoolAction, PoolPlan } from "../core/model/action.ts";
import { ruleOf } from "../core/pool/targets.ts";
import { type Instant, MINUTE_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";

export type PoolLog = {
  readonly held: (plan: Extract<PoolPlan, { kind: "hold" }>) => void;
  readonly done: (action: PoolAction, reason: string, durationMs: number) => void;
};

export function createPoolLog(agent: Agent): PoolLog {
  sayUnitUnmet(agent);
  const { ports, pool, cell } = agent;
  let lastHold = "";
  const holdsTold = new Map<string, Instant>(); // By reason, of which there are a dozen.
  let splitting = false; // In prefix mode, but EC2 has single addresses only.

  /** Told once when it begins, and not more than once a minute: at the edge of a limit two reasons take turns with every pod. */
  const held: PoolLog["held"] = ({ reason }) => {
    ports.observed({ kind: "hold", reason });
    if (reason === lastHold) return;
    lastHold = reason;
    const now = ports.time.now();
    const told = holdsTold.get(reason);
    if (told !== undefined && now - told < MINUTE_MS) return;
    holdsTold.set(reason, now);
    ports.log({ level: reason === "on-target" ? "debug" : "info", message: "pool holds", reason });
  };

  /** That prefixes have run out, and that they are back: each is said once, for what lies between looks like singles at every assignment. */
  const saySplitting = (action: PoolAction): void => {
    if (ruleOf(pool, cell.state.instance.limits).unit !== "prefix") return;
    const attached = action.kind === "attach-eni" ? action : { addressCount: 0, prefixCount: 0 };
    const split = action.kind === "assign-addresses" || attached.addressCount > 0;
    const whole = action.kind === "assign-prefixes" || attached.prefixCount > 0;
    if (split && !splitting) {
      splitting = true;
      ports.log({ level: "warn", message: "no /28 is free: pods that wait get single addresses meanwhile" });
    } else if (whole && splitting) {
      splitting = false;
      ports.log({ level: "info", message: "a /28 is free again: single addresses go back as pods leave" });
    }
  };

  const done: PoolLog["done"] = (action, reason, durationMs) => {
    ports.log({ level: "info", message: DONE[action.kind], ...action, reason, durationMs });
    saySplitting(action);
  };
  return { held, done };
}

const DONE: Readonly<Record<PoolAction["kind"], string>> = {
  "assign-addresses": "addresses assigned",
  "assign-prefixes": "prefixes assigned",
  "unassign-addresses": "addresses unassigned",
  "unassign-prefixes": "prefixes unassigned",
  "attach-eni": "eni attached",
  "detach-eni": "eni detached",
  "delete-eni": "eni deleted",
};

function sayUnitUnmet({ ports, pool, cell }: Agent): void {
  const { type, limits } = cell.state.instance;
  if (!pool.prefixDelegation || limits.nitro) return;
  ports.log({
    level: "warn",
    message: "prefix delegation needs a Nitro instance: single addresses are used",
    type,
  });
}
