/** The few things that every walk needs. Made once, by the daemon or by a simulator. */
import type { PoolSettings } from "../core/pool/targets.ts";
import type { SandboxId } from "../core/model/sandbox.ts";
import { Cell } from "./cell.ts";
import { Departures } from "./departures.ts";
import type { AgentSettings, Ports } from "./ports.ts";
import { WaitingRoom } from "./waiting-room.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { Wake } from "./loop.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { Instant } from "../lib/time.ts";

export type Agent = {
  readonly ports: Ports;
  readonly settings: AgentSettings;
  readonly pool: PoolSettings;
  readonly cell: Cell;
  readonly waiting: WaitingRoom;
  readonly departures: Departures;
  readonly beingAdded: Set<SandboxId>; // In the state, not yet plumbed: nobody else may plumb them.
  /** Why no pod may be started now, in words for operators; null when all is well. */
  readonly blocked: { packetFilter: string | null; dataPath: string | null };
  /** `behind`: the last save failed, so that the checkpoint tells of an earlier state. */
  readonly record: { behind: boolean };
  /** What EC2 took back, and when: a view from before then still lists it. */
  readonly givenBack: Map<Ipv4, Instant>;
  readonly wakeRefill: Wake;
  readonly wakeRepair: Wake; // Something in the kernel may have changed.
  readonly wakeFilter: Wake; // Something in nftables may have.
};

/** The first of the reasons why no pod may be started now; null when all is well. */
export function blockedBy({ blocked }: Pick<Agent, "blocked">): string | null {
  return blocked.dataPath ?? blocked.packetFilter;
}

export function createAgent(
  ports: Ports,
  settings: AgentSettings,
  pool: PoolSettings,
  state: NodeState,
): Agent {
  const cell = new Cell(state);
  const wakeRefill = new Wake();
  const wakeRepair = new Wake();
  const wakeFilter = new Wake();
  const waiting = new WaitingRoom(cell, ports.time, pool, (what) =>
    what === "waits" ? wakeRefill.call() : wakeRefill.callSoon(ports.time),
  );
  const record = { behind: false };
  const save: Ports["save"] = async (state) => {
    const saved = await ports.save(state);
    record.behind = !saved.ok;
    return saved;
  };
  return {
    ports: { ...ports, save },
    settings,
    pool,
    cell,
    waiting,
    departures: new Departures(),
    beingAdded: new Set(),
    blocked: { packetFilter: null, dataPath: null },
    record,
    givenBack: new Map(),
    wakeRefill,
    wakeRepair,
    wakeFilter,
  };
}
