/** When a released address may be used again. Packets for its last pod may still be on their way; EC2 and peers remember it for a while. */
import { after, type Instant } from "../../lib/time.ts";
import type { PoolAddress } from "../model/eni.ts";

/** The instant until which an address released at `now` rests. */
export function coolingUntil(now: Instant, cooldownMs: number): Instant {
  return after(now, cooldownMs);
}

/** Ready to be given out: warm, or rested. A cooling address becomes free by time alone; nobody needs to say so. */
export function isFree(address: PoolAddress, now: Instant): boolean {
  return address.kind === "warm" || (address.kind === "cooling" && address.until <= now);
}

/** Since when an address has been free, for comparing: one never used yet has rested longest. */
export function freeSince(address: PoolAddress): number {
  return address.kind === "cooling" ? address.until : -Infinity;
}
