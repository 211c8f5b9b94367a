/** One figure for both: a value each round, its median and spread, and the goal that issue and README name for the ratio. */
import { median, rounded } from "../statistics.ts";

export type Figure = {
  readonly name: string;
  readonly unit: string;
  readonly ours: number; // Medians of the rounds.
  readonly peer: number;
  readonly ratio: number | null; // Null where the peer's is 0.
  readonly goalRatio: number | null;
  readonly holds: boolean;
  readonly spread: { readonly ours: readonly [number, number]; readonly peer: readonly [number, number] }; // Least and most.
};

/** What each of both had, a value a round. */
export type Values = { readonly ours: number[]; readonly peer: number[] };

export function noValues(): Values {
  return { ours: [], peer: [] };
}

export function figureOf(name: string, unit: string, values: Values, goalRatio: number | null): Figure {
  const [ours, peer] = [median(values.ours), median(values.peer)];
  return {
    name,
    unit,
    ours: rounded(ours),
    peer: rounded(peer),
    ratio: peer === 0 ? null : rounded(ours / peer),
    goalRatio,
    holds: goalRatio === null || ours <= goalRatio * peer,
    spread: { ours: spreadOf(values.ours), peer: spreadOf(values.peer) },
  };
}

function spreadOf(values: readonly number[]): readonly [number, number] {
  return [rounded(Math.min(...values)), rounded(Math.max(...values))];
}
