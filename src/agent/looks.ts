/** When EC2 is looked at: by and by, soon where one more look decides something, at once after a lost answer, later where EC2 refuses. */
import { LOOK_OPERATION } from "../core/pool/obstacles.ts";
import type { InDoubt, Obstacle } from "../core/state/node-state.ts";
import { after, backoffMs, type Instant, MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";
import { leakMemory } from "./leaks.ts";
import { DOUBT_SETTLE_MS, DRIFT_GRACE_MS, lookAtEc2, type LookMemory } from "./look.ts";

export type Looks = {
  /** Of the next look that nothing asks for. */
  readonly nextAt: () => Instant;
  /** EC2's views settle first; then a look, or the creation that it asks for again, waits out what was refused last. */
  readonly dueInDoubt: (inDoubt: InDoubt) => Instant;
  /** Looks. How long to sleep after it: 0 when there may be more to do. */
  readonly look: () => Promise<number>;
};

export function createLooks(agent: Agent): Looks {
  const { ports, settings, cell } = agent;
  const memory: LookMemory = { suspicions: new Map(), leaks: leakMemory(agent), unripe: 0 };
  // The first look comes early, but not for all nodes of a rollout at once.
  let nextAt = after(ports.time.now(), ports.random() * Math.min(settings.sweepIntervalMs, MINUTE_MS));
  let attempt = 0;

  /** Spread, so that the looks of many nodes do not come together. What one more look will decide is not left for the next sweep. */
  const pauseMs = (): number => {
    const sweepMs = settings.sweepIntervalMs * (0.8 + 0.4 * ports.random());
    return memory.unripe === 0 ? sweepMs : Math.min(sweepMs, DRIFT_GRACE_MS * (1 + 0.2 * ports.random()));
  };

  const look: Looks["look"] = async () => {
    const looked = await lookAtEc2(agent, memory);
    attempt = looked ? 0 : attempt + 1;
    const waitMs = looked
      ? pauseMs()
      : backoffMs(attempt, ports.random(), { baseMs: SECOND_MS, maxMs: MINUTE_MS });
    nextAt = after(ports.time.now(), waitMs);
    return looked ? 0 : 1;
  };

  const dueInDoubt: Looks["dueInDoubt"] = ({ operation, since }) => {
    const { creation, obstacles } = cell.state;
    const settled = operation === LOOK_OPERATION ? since : after(since, DOUBT_SETTLE_MS);
    const refused = creation === null ? [] : obstacles.filter(standsBeforeCreation);
    const lookAgain = attempt > 0 ? nextAt : settled;
    return refused.map(({ until }) => until).reduce(later, later(settled, lookAgain));
  };
  return { nextAt: () => nextAt, dueInDoubt, look };
}

function standsBeforeCreation(obstacle: Obstacle): boolean {
  return "operation" in obstacle && obstacle.operation === "CreateNetworkInterface";
}

function later(left: Instant, right: Instant): Instant {
  return left < right ? right : left;
}
