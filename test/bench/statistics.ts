/** Medians with their spread: a mean would tell more of the machine's neighbours than of us. */

export type Summary = {
  readonly median: number;
  readonly p10: number;
  readonly p90: number;
  readonly count: number;
};

/** The q-th quantile by linear interpolation, 0 to 1. NaN for nothing. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function summarize(values: readonly number[]): Summary {
  return {
    median: rounded(median(values)),
    p10: rounded(quantile(values, 0.1)),
    p90: rounded(quantile(values, 0.9)),
    count: values.length,
  };
}

/** Three decimals: nobody here measures finer. */
export function rounded(value: number): number {
  return Math.round(value * 1_000) / 1_000;
}
