/**
 * Nothing is taken away on one look: EC2's describes and IMDS lag behind the truth, in both directions. A finding is acted on
 * only when it has been made again and again for long enough. One look without it, and it is forgotten.
 */
import type { Instant } from "../../lib/time.ts";

export type Suspicions = ReadonlyMap<string, Instant>; // Finding's key → first seen.

export type Keyed = { readonly key: string };

/**
 * `findings` is all that this look found. `ripe` are those first found at least `graceMs` ago; they stay suspected until a
 * look no longer finds them.
 */
export function suspect<F extends Keyed>(
  before: Suspicions,
  findings: readonly F[],
  now: Instant,
  graceMs: (finding: F) => number,
): { readonly after: Suspicions; readonly ripe: readonly (F & { readonly sinceMs: number })[] } {
  const after = new Map<string, Instant>();
  const ripe: (F & { sinceMs: number })[] = [];
  for (const finding of findings) {
    const first = before.get(finding.key) ?? now;
    after.set(finding.key, first);
    const sinceMs = now - first;
    const grace = graceMs(finding);
    if (grace === 0 || (before.has(finding.key) && sinceMs >= grace)) ripe.push({ ...finding, sinceMs });
  }
  return { after, ripe };
}
