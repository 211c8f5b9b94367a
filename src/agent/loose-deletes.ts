/** When EC2 is asked to delete ENIs that hang on nothing. It refuses while one still detaches: the first try waits a little, others longer. */
import type { PoolAction } from "../core/model/action.ts";
import type { EniId } from "../core/model/eni.ts";
import { after, backoffMs, type Instant, MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";

export type LooseDeletes = {
  /** One whose time has come, or null. */
  readonly due: () => PoolAction | null;
  readonly answered: (eni: EniId, deleted: boolean) => void;
  /** Until the next one is due. */
  readonly waitMs: (now: Instant) => number;
};

export function createLooseDeletes({ ports, cell }: Agent): LooseDeletes {
  const tries = new Map<EniId, { readonly attempt: number; readonly at: Instant }>(); // Forgotten with their ENIs.

  const due: LooseDeletes["due"] = () => {
    const { loose } = cell.state;
    const now = ports.time.now();
    for (const id of tries.keys()) if (!loose.has(id)) tries.delete(id);
    for (const { id, attachmentId, since } of loose.values()) {
      const first = { attempt: -1, at: after(since, attachmentId === null ? 0 : 2 * SECOND_MS) };
      const next = tries.get(id) ?? first;
      if (next.at <= now) return { kind: "delete-eni", eni: id };
      tries.set(id, next);
    }
    return null;
  };

  const answered: LooseDeletes["answered"] = (eni, deleted) => {
    if (deleted) return void tries.delete(eni);
    const attempt = (tries.get(eni)?.attempt ?? -1) + 1;
    const waitMs = backoffMs(attempt, ports.random(), { baseMs: 2 * SECOND_MS, maxMs: MINUTE_MS });
    tries.set(eni, { attempt, at: after(ports.time.now(), waitMs) });
  };

  const waitMs: LooseDeletes["waitMs"] = (now) => {
    // One that is due already is held up by something else, which has its own time.
    const waits = [...tries.values()].map((each) => each.at - now).filter((ms) => ms > 0);
    return Math.min(MINUTE_MS, ...waits);
  };
  return { due, answered, waitMs };
}
