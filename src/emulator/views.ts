/** Who sees which world: describes lag behind writes, IMDS lags in its own way, and may be frozen. Committed state is the engine's. */
import { after, type Instant, instant } from "../lib/time.ts";
import type { Process } from "./timings.ts";
import { attachmentsOf, type World } from "./world.ts";

export type Views = {
  /** To be told of each commit. */
  readonly committed: (before: World, now: World) => void;
  /** To be told of what a seed made: it counts as having been there for ever. */
  readonly seeded: (now: World) => void;
  /** What a describe of that node sees. Each draws its lag anew, so two describes may go back in time, as EC2's do. */
  readonly describe: (node: string) => World;
  /** What that instance's IMDS shows. It never goes back. */
  readonly imds: (instanceId: string) => World;
  readonly freezeImds: (instanceId: string, until: Instant) => void;
};

type Dated = { readonly at: Instant; readonly world: World };
type ImdsView = { shown: World; waiting: Dated[]; frozenUntil: Instant | null };

/** Older worlds are shown to nobody: the describe lag is cut off here. */
const HISTORY_MS = 30_000;

export function createViews(
  ports: {
    readonly lags: boolean;
    readonly now: () => Instant;
    readonly lagMs: (process: Process, subject: string) => number;
  },
  current: () => World,
): Views {
  const history: Dated[] = [];
  const imdsViews = new Map<string, ImdsView>();

  function viewOf(instanceId: string, first: World): ImdsView {
    const view = imdsViews.get(instanceId) ?? {
      shown: sliceFor(first, instanceId),
      waiting: [],
      frozenUntil: null,
    };
    imdsViews.set(instanceId, view);
    const now = ports.now();
    if (view.frozenUntil !== null && view.frozenUntil > now) return view;
    view.frozenUntil = null;
    while (view.waiting[0] !== undefined && view.waiting[0].at <= now)
      view.shown = view.waiting.shift()?.world ?? view.shown;
    return view;
  }

  return {
    committed(before, now) {
      const at = ports.now();
      if (ports.lags) history.push({ at, world: now }); // Where nothing lags, old worlds would only cost memory.
      // The newest world older than the horizon stays: it is what the longest lag sees.
      while (history.length > 1 && (history[1]?.at ?? at) <= at - HISTORY_MS) history.shift();
      for (const [instanceId, moved] of touchedInstances(before, now)) {
        const known = before.instances.has(instanceId);
        const view = viewOf(instanceId, known ? before : now);
        // An instance's first metadata are there when it is.
        const lagMs = known ? ports.lagMs(moved ? "imds-attach" : "imds-change", instanceId) : 0;
        // In order: a later change is never seen before an earlier one.
        const visibleAt = Math.max(after(at, lagMs), view.waiting.at(-1)?.at ?? 0) as Instant; // The greater of two instants.
        view.waiting.push({ at: visibleAt, world: sliceFor(now, instanceId) });
      }
    },
    seeded(now) {
      history.length = 0;
      history.push({ at: instant(Number.NEGATIVE_INFINITY), world: now });
      for (const [instanceId, view] of imdsViews)
        Object.assign(view, { shown: sliceFor(now, instanceId), waiting: [] });
    },
    describe(node) {
      const lagMs = Math.min(ports.lagMs("describe-lag", node), HISTORY_MS);
      if (lagMs <= 0) return current();
      const seenAt = ports.now() - lagMs;
      return history.findLast(({ at }) => at <= seenAt)?.world ?? history[0]?.world ?? current();
    },
    imds: (instanceId) => viewOf(instanceId, current()).shown,
    freezeImds(instanceId, until) {
      viewOf(instanceId, current()).frozenUntil = until;
    },
  };
}

/** The world as far as one instance's metadata tell of it: keeping whole old worlds for each instance costs 300 KB an instance. */
function sliceFor(world: World, instanceId: string): World {
  const instance = world.instances.get(instanceId);
  return {
    ...world,
    instances: new Map(instance === undefined ? [] : [[instanceId, instance]]),
    enis: new Map(attachmentsOf(world, instanceId).map((eni) => [eni.id, eni])),
    remembered: new Map(),
  };
}

/** Instances of which IMDS would say something new, and whether an attachment moved. */
function touchedInstances(before: World, now: World): ReadonlyMap<string, boolean> {
  const touched = new Map<string, boolean>();
  const touch = (instanceId: string | undefined, moved: boolean): void => {
    if (instanceId !== undefined) touched.set(instanceId, moved || touched.get(instanceId) === true);
  };
  for (const instance of now.instances.values())
    if (before.instances.get(instance.id) !== instance) touch(instance.id, false);
  if (before.enis === now.enis) return touched;
  for (const old of before.enis.values()) {
    const eni = now.enis.get(old.id);
    if (eni !== old) touch(old.attachment?.instanceId, eni?.attachment?.id !== old.attachment?.id);
  }
  for (const eni of now.enis.values()) {
    const old = before.enis.get(eni.id);
    if (eni !== old) touch(eni.attachment?.instanceId, eni.attachment?.id !== old?.attachment?.id);
  }
  return touched;
}
