/** EC2's `Filter.N.Name` / `Filter.N.Value.M`, and pages of results. All filters must match; of one filter's values any may. */
import { err, ok, type Result } from "../lib/result.ts";
import {
  type Failure,
  filterLimitExceeded,
  invalidFilter,
  invalidMaxResults,
  invalidPaginationToken,
  tooManyResults,
} from "./failures.ts";
import { list, type Parameters, structures } from "./parameters.ts";
import type { Tags } from "./world.ts";

/** What a filter compares with, by the filter's name. An entity may have several values of a kind, or none. */
export type FilterFields<T> = Readonly<Record<string, (entity: T) => readonly string[]>>;

type Entity = { readonly serial: number; readonly tags: Tags };

/** Keeps what all filters match. `*` stands for any characters and `?` for one; `\` takes their meaning away. */
export function filtered<T extends Entity>(
  entities: Iterable<T>,
  parameters: Parameters,
  fields: FilterFields<T>,
): Result<readonly T[], Failure> {
  const tests: ((entity: T) => boolean)[] = [];
  let valueCount = 0;
  for (const filter of structures(parameters, "Filter")) {
    const name = filter.get("Name") ?? "";
    const patterns = list(filter, "Value").map(wildcard);
    valueCount += patterns.length;
    const read = fieldNamed(name, fields);
    if (read === null) return err(invalidFilter(name));
    tests.push((entity) => read(entity).some((value) => patterns.some((pattern) => pattern.test(value))));
  }
  if (valueCount > 200) return err(filterLimitExceeded());
  return ok([...entities].filter((entity) => tests.every((test) => test(entity))));
}

function fieldNamed<T extends Entity>(
  name: string,
  fields: FilterFields<T>,
): ((entity: T) => readonly string[]) | null {
  if (name === "tag-key") return ({ tags }) => Object.keys(tags);
  if (name.startsWith("tag:")) {
    const key = name.slice("tag:".length);
    return ({ tags }) => (Object.hasOwn(tags, key) ? [tags[key] ?? ""] : []);
  }
  return Object.hasOwn(fields, name) ? (fields[name] ?? null) : null;
}

function wildcard(pattern: string): RegExp {
  const source = pattern.replaceAll(
    /\\([\s\S])|([\s\S])/g,
    (_whole, escaped: string | undefined, plain: string | undefined) => {
      if (escaped !== undefined) return literal(escaped);
      return plain === "*" ? "[\\s\\S]*" : plain === "?" ? "[\\s\\S]" : literal(plain ?? "");
    },
  );
  return new RegExp(`^${source}$`, "u");
}

function literal(character: string): string {
  return /[\^$\\.*+?()[\]{}|/]/.test(character) ? `\\${character}` : character;
}

export type Page<T> = { readonly items: readonly T[]; readonly nextToken: string | undefined };

/**
 * One page, in order of creation. A token names the last entity of its page and the query, so that a deletion between two pages skips
 * nothing, and a token of another query is refused.
 */
export function page<T extends { readonly serial: number }>(
  entities: readonly T[],
  parameters: Parameters,
  limits: { readonly least: number; readonly most: number; readonly unpagedMost: number },
): Result<Page<T>, Failure> {
  const ordered = [...entities].sort((left, right) => left.serial - right.serial);
  const asked = parameters.get("MaxResults");
  const token = parameters.get("NextToken");
  if (
    asked !== undefined &&
    (!/^\d{1,6}$/.test(asked) || Number(asked) < limits.least || Number(asked) > limits.most)
  ) {
    return err(invalidMaxResults(asked, limits.least, limits.most));
  }
  let start = 0;
  if (token !== undefined && token !== "") {
    const last = serialOf(token, parameters);
    if (last === null) return err(invalidPaginationToken(token));
    start = ordered.findIndex((entity) => entity.serial > last);
    if (start === -1) return ok({ items: [], nextToken: undefined });
  }
  if (asked === undefined) {
    const unfiltered = ![...parameters.keys()].some((name) => name.startsWith("Filter."));
    if (unfiltered && ordered.length > limits.unpagedMost) return err(tooManyResults());
    return ok({ items: ordered.slice(start), nextToken: undefined });
  }
  const items = ordered.slice(start, start + Number(asked));
  const last = items.at(-1);
  const more = start + items.length < ordered.length && last !== undefined;
  return ok({ items, nextToken: more ? `${queryHash(parameters)}.${last.serial.toString(36)}` : undefined });
}

function serialOf(token: string, parameters: Parameters): number | null {
  const [hash, serial] = token.split(".");
  return hash === queryHash(parameters) && serial !== undefined && /^[0-9a-z]+$/.test(serial)
    ? Number.parseInt(serial, 36)
    : null;
}

/** A short mark of the query, so that a token of one query is of no use in another. */
function queryHash(parameters: Parameters): string {
  const query = [...parameters].filter(([name]) => name.startsWith("Filter.") || name === "Action");
  const text = JSON.stringify(query.sort(([left], [right]) => (left < right ? -1 : 1)));
  let hash = 0x811c_9dc5;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}
