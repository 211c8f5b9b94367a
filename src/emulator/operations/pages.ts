/** What the describes share: those that were asked for, of them what the filters let through, of that one page. */
import type { Result } from "../../lib/result.ts";
import type { Failure } from "../failures.ts";
import { type FilterFields, filtered, page } from "../filters.ts";
import type { Tags } from "../world.ts";
import type { Call } from "./operation.ts";

type Entity = { readonly serial: number; readonly tags: Tags };

/** `chosen` is all of a kind, or those named by id, or why they cannot be had. `most` is the largest page that EC2 gives of that kind. */
export function pageOf<T extends Entity>(
  call: Call,
  chosen: Result<readonly T[], Failure>,
  fields: FilterFields<T>,
  most = 1_000,
): ReturnType<typeof page<T>> {
  if (!chosen.ok) return chosen;
  const matching = filtered(chosen.value, call.parameters, fields);
  if (!matching.ok) return matching;
  return page(matching.value, call.parameters, { least: 5, most, unpagedMost: call.quotas.unpagedResults });
}
