/** Addresses of a subnet: what is handed out, and when a prefix still fits. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  chooseIps,
  choosePrefixes,
  countFree,
  emptySpace,
  giveBack,
  isReserved,
  take,
} from "../../src/emulator/subnet-space.ts";
import { cidr4, cidr4Contains, ipv4 } from "../../src/lib/ip.ts";
import { seededRandom } from "../../src/lib/random.ts";

const how = (seed: string, order: "random" | "lowest" = "random") => ({ order, random: seededRandom(seed) });

test("a /24 offers 251 addresses and 14 prefixes, a /20 254 prefixes, a /28 11 addresses and none", () => {
  expect(emptySpace(cidr4("10.0.0.0/24")).freeCount).toBe(251);
  expect(choosePrefixes(emptySpace(cidr4("10.0.0.0/24")), 14, how("a"))).toHaveLength(14);
  expect(choosePrefixes(emptySpace(cidr4("10.0.0.0/24")), 15, how("a"))).toBe("no-free-block");
  expect(choosePrefixes(emptySpace(cidr4("10.0.0.0/20")), 254, how("a"))).toHaveLength(254);
  expect(emptySpace(cidr4("10.0.0.0/28")).freeCount).toBe(11);
  expect(chooseIps(emptySpace(cidr4("10.0.0.0/28")), 11, how("a"))).toHaveLength(11);
  expect(choosePrefixes(emptySpace(cidr4("10.0.0.0/28")), 1, how("a"))).toBe("fewer-than-asked");
});

test("lowest-first begins after the four reserved addresses", () => {
  expect(chooseIps(emptySpace(cidr4("10.0.0.0/24")), 3, how("a", "lowest"))).toEqual([
    "10.0.0.4",
    "10.0.0.5",
    "10.0.0.6",
  ]);
  expect(choosePrefixes(emptySpace(cidr4("10.0.0.0/24")), 1, how("a", "lowest"))).toEqual(["10.0.0.16"]);
});

test("whatever is taken and given back, no reserved address is handed out and the free counter is true", () => {
  const steps = fc.array(
    fc.record({
      ips: fc.integer({ min: 0, max: 20 }),
      prefixes: fc.integer({ min: 0, max: 2 }),
      back: fc.boolean(),
    }),
  );
  fc.assert(
    fc.property(
      fc.constantFrom("10.0.0.0/24", "10.0.3.0/26", "10.0.0.0/23"),
      fc.string(),
      steps,
      (cidr, seed, steps) => {
        const random = { order: "random", random: seededRandom(seed) } as const;
        let space = emptySpace(cidr4(cidr));
        const held: {
          ips: readonly ReturnType<typeof ipv4>[];
          prefixes: readonly ReturnType<typeof ipv4>[];
        }[] = [];
        for (const step of steps) {
          const ips = chooseIps(space, step.ips, random);
          const prefixes = choosePrefixes(
            typeof ips === "string" ? space : take(space, { ips, prefixes: [] }),
            step.prefixes,
            random,
          );
          if (typeof ips === "string" || typeof prefixes === "string") continue;
          for (const ip of ips) expect(cidr4Contains(space.cidr, ip) && !isReserved(space, ip)).toBe(true);
          space = take(space, { ips, prefixes });
          if (step.back) space = giveBack(space, { ips, prefixes });
          else held.push({ ips, prefixes });
          expect(space.freeCount).toBe(countFree(space));
        }
        for (const what of held) space = giveBack(space, what);
        expect(space.freeCount).toBe(emptySpace(cidr4(cidr)).freeCount);
      },
    ),
  );
});

test("single addresses scattered over a fifth of a subnet leave hardly any room for prefixes", () => {
  // (1 - u)^16 of the blocks stay free: 2.8 % at 20 %.
  const empty = emptySpace(cidr4("10.0.0.0/16"));
  const scattered = chooseIps(empty, Math.floor(empty.freeCount / 5), how("scatter"));
  if (typeof scattered === "string") throw new Error(scattered);
  const crowded = take(empty, { ips: scattered, prefixes: [] });
  const free = [...crowded.blocks].filter((mask) => mask === 0).length / crowded.blocks.length;
  expect(free).toBeGreaterThan(0.018);
  expect(free).toBeLessThan(0.038);
});

test("taking twice, or what is reserved, is a broken promise", () => {
  const space = take(emptySpace(cidr4("10.0.0.0/24")), { ips: [ipv4("10.0.0.20")], prefixes: [] });
  expect(() => take(space, { ips: [ipv4("10.0.0.20")], prefixes: [] })).toThrow("on one ENI only");
  expect(() => take(space, { ips: [], prefixes: [ipv4("10.0.0.16")] })).toThrow("overlaps nothing");
  expect(() => take(space, { ips: [ipv4("10.0.0.3")], prefixes: [] })).toThrow("may be handed out");
  expect(() => take(space, { ips: [], prefixes: [ipv4("10.0.0.40")] })).toThrow("aligned");
});
