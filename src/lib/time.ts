import type { Brand } from "./brand.ts";

/** Monotonic milliseconds since the machine's boot (CLOCK_BOOTTIME or the like): one clock for all processes of a boot. */
export type Instant = Brand<number, "Instant">;

/** Wall-clock milliseconds since 1970. It may jump; it is for people and for EC2's tags, never for waiting. */
export type WallTime = Brand<number, "WallTime">;

export const SECOND_MS = 1_000;
export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;

export function instant(ms: number): Instant {
  return ms as Instant; // The only place that makes one from a bare number.
}

export function wallTime(ms: number): WallTime {
  return ms as WallTime;
}

export function after(start: Instant, ms: number): Instant {
  return (start + ms) as Instant;
}

/** Exponential backoff with full jitter: between half and all of `baseMs * 2^attempt`, at most `maxMs`. `chance` is in [0, 1). */
export function backoffMs(
  attempt: number,
  chance: number,
  options: { baseMs: number; maxMs: number },
): number {
  const whole = Math.min(options.baseMs * 2 ** Math.min(attempt, 30), options.maxMs);
  return Math.round(whole / 2 + (whole / 2) * chance);
}

/** RFC 3339 in UTC, as EC2's tags carry it. */
export function printWallTime(time: WallTime): string {
  return new Date(time).toISOString(); // Of a given time: it reads no clock.
}

/** Null when the text is no date. */
export function parseWallTime(text: string): WallTime | null {
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? null : wallTime(ms);
}
