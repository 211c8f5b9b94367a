/** Credentials of instance roles, as IMDS gives them out: each instance has its own, and they change before they end. */
import type { Random } from "../lib/random.ts";
import { type WallTime, wallTime } from "../lib/time.ts";
import type { RoleCredentials } from "./imds.ts";

export type Credentials = {
  /** What IMDS shows now: renewed when less than a tenth of the lifetime is left. */
  readonly current: (instanceId: string) => RoleCredentials;
  /** The instance that an access key was given to; null when it was not given out here. */
  readonly ownerOf: (accessKeyId: string) => string | null;
  readonly isOver: (accessKeyId: string) => boolean;
};

export function createCredentials(ports: {
  readonly lifetimeMs: number;
  readonly now: () => WallTime;
  readonly randomFor: (...names: readonly string[]) => Random;
}): Credentials {
  const current = new Map<string, RoleCredentials>();
  const issued = new Map<string, { readonly instanceId: string; readonly endsAt: WallTime }>();
  return {
    current(instanceId) {
      const now = ports.now();
      const held = current.get(instanceId);
      if (held !== undefined && held.endsAt - now > ports.lifetimeMs / 10) return held;
      const random = ports.randomFor(instanceId, "credentials");
      const fresh: RoleCredentials = {
        accessKeyId: `ASIA${letters(random, 16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")}`,
        secretAccessKey: letters(
          random,
          40,
          "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        ),
        token: `IQoJ${letters(random, 96, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")}==`,
        madeAt: now,
        endsAt: wallTime(now + ports.lifetimeMs),
      };
      current.set(instanceId, fresh);
      issued.set(fresh.accessKeyId, { instanceId, endsAt: fresh.endsAt });
      return fresh;
    },
    ownerOf: (accessKeyId) => issued.get(accessKeyId)?.instanceId ?? null,
    isOver: (accessKeyId) => (issued.get(accessKeyId)?.endsAt ?? Number.POSITIVE_INFINITY) <= ports.now(),
  };
}

function letters(random: Random, length: number, alphabet: string): string {
  return Array.from({ length }, () => alphabet[Math.floor(random() * alphabet.length)] ?? "").join("");
}
