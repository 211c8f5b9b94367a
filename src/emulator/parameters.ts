/** Reads the flat parameters of the query protocol (`Filter.1.Value.2=...`). */
import { err, ok, type Result } from "../lib/result.ts";
import { type Failure, invalidValue, missingParameter } from "./failures.ts";

export type Parameters = ReadonlyMap<string, string>;

/** The parameters below `prefix.N`, by N, each without that prefix: what one element of a list of structures says. */
export function structures(parameters: Parameters, prefix: string): readonly Parameters[] {
  const byIndex = new Map<number, Map<string, string>>();
  for (const [name, value] of parameters) {
    const match = name.startsWith(`${prefix}.`)
      ? /^(\d+)(?:\.(.*))?$/.exec(name.slice(prefix.length + 1))
      : null;
    if (match === null) continue;
    const index = Number(match[1]);
    const fields = byIndex.get(index) ?? new Map<string, string>();
    byIndex.set(index, fields.set(match[2] ?? "", value));
  }
  return [...byIndex].sort(([left], [right]) => left - right).map(([, fields]) => fields);
}

/** A list of plain values: `prefix.1`, `prefix.2`, in order. */
export function list(parameters: Parameters, prefix: string): readonly string[] {
  return structures(parameters, prefix).flatMap((fields) => fields.get("") ?? []);
}

/** EC2 names parameters in its errors with a small first letter. */
export function wireName(name: string): string {
  return name.slice(0, 1).toLowerCase() + name.slice(1);
}

export function required(parameters: Parameters, name: string): Result<string, Failure> {
  const value = parameters.get(name);
  return value === undefined || value === "" ? err(missingParameter(wireName(name))) : ok(value);
}

/** A whole number from `least` up, or null when the parameter is absent. */
export function wholeNumber(parameters: Parameters, name: string, least = 0): Result<number | null, Failure> {
  const text = parameters.get(name);
  if (text === undefined || text === "") return ok(null);
  if (!/^\d{1,9}$/.test(text) || Number(text) < least) return err(invalidValue(text, wireName(name)));
  return ok(Number(text));
}

export function truth(parameters: Parameters, name: string): Result<boolean | null, Failure> {
  const text = parameters.get(name);
  if (text === undefined) return ok(null);
  if (text !== "true" && text !== "false") return err(invalidValue(text, wireName(name)));
  return ok(text === "true");
}

/** One text for equal parameters, whatever their order: idempotent calls are compared by it. */
export function fingerprint(parameters: Parameters, without: readonly string[]): string {
  return JSON.stringify(
    [...parameters]
      .filter(([name]) => !without.includes(name))
      .sort(([left], [right]) => (left < right ? -1 : 1)),
  );
}
