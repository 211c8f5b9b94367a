/** The shape that all operations share: parameters and a world in; an answer, the next world, and what happens later, out. */
import { err, ok, type Result } from "../../lib/result.ts";
import type { Random } from "../../lib/random.ts";
import type { WallTime } from "../../lib/time.ts";
import type { XmlObject } from "../ec2-xml.ts";
import { type Failure, type IdKind, malformedId, notFound } from "../failures.ts";
import type { Parameters } from "../parameters.ts";
import type { HandOutOrder } from "../subnet-space.ts";
import type { Tags, World } from "../world.ts";

/** Limits of the account, all of which AWS can raise. */
export type Quotas = {
  readonly enisPerRegion: number;
  readonly groupsPerEni: number;
  /** An unfiltered describe without pages is refused beyond this. */
  readonly unpagedResults: number;
};

export type Call = {
  readonly parameters: Parameters;
  /** Committed state for writes; for reads what this reader sees, which may lag. */
  readonly world: World;
  /** Drawn from the source of this node and action. */
  readonly random: Random;
  readonly now: WallTime;
  readonly quotas: Quotas;
  readonly handOut: HandOutOrder;
};

/** What goes on after the answer. The engine draws how long it takes. */
export type Later =
  | { readonly kind: "eni-available"; readonly eniId: string }
  | { readonly kind: "eni-attached"; readonly eniId: string; readonly attachmentId: string }
  | {
      readonly kind: "eni-detached";
      readonly eniId: string;
      readonly attachmentId: string;
      readonly force: boolean;
    }
  | { readonly kind: "instance-running"; readonly instanceId: string }
  | { readonly kind: "instance-terminated"; readonly instanceId: string };

export type Done = { readonly world: World; readonly answer: XmlObject; readonly later: readonly Later[] };

export type Operation = {
  readonly effect: "read" | "write";
  /** First words of the parameters it reads (`Filter` for `Filter.1.Name`). Others are refused as unknown. */
  readonly parameters: readonly string[];
  /** Parameters that EC2 has and the emulator has not: refused aloud. */
  readonly notEmulated: readonly string[];
  readonly run: (call: Call) => Result<Done, Failure>;
};

/** An answer that changes nothing. */
export function read(call: Call, answer: XmlObject): Result<Done, never> {
  return ok({ world: call.world, answer, later: [] });
}

export function changed(world: World, answer: XmlObject, later: readonly Later[] = []): Result<Done, never> {
  return ok({ world, answer, later });
}

/** The entity called `id`, or EC2's refusal: malformed before unknown. */
export function find<T>(map: ReadonlyMap<string, T>, kind: IdKind, id: string): Result<T, Failure> {
  if (!wellFormed(kind, id)) return err(malformedId(kind, id));
  const found = map.get(id);
  return found === undefined ? err(notFound(kind, [id])) : ok(found);
}

/** All entities called `ids`; every unknown one is named in the refusal. */
export function findAll<T>(
  map: ReadonlyMap<string, T>,
  kind: IdKind,
  ids: readonly string[],
): Result<readonly T[], Failure> {
  const found: T[] = [];
  const missing: string[] = [];
  for (const id of new Set(ids)) {
    if (!wellFormed(kind, id)) return err(malformedId(kind, id));
    const entity = map.get(id);
    if (entity === undefined) missing.push(id);
    else found.push(entity);
  }
  return missing.length > 0 ? err(notFound(kind, missing)) : ok(found);
}

export function wellFormed(kind: IdKind, id: string): boolean {
  return id.startsWith(`${kind}-`) && /^(?:[0-9a-f]{8}|[0-9a-f]{17})$/.test(id.slice(kind.length + 1));
}

export function tagSet(tags: Tags): readonly XmlObject[] {
  return Object.entries(tags).map(([key, value]) => ({ key, value }));
}

/** EC2's timestamps, whole seconds in UTC. */
export function timestamp(time: WallTime): string {
  return new Date(time).toISOString().replace(/\.\d{3}Z$/, ".000Z");
}
