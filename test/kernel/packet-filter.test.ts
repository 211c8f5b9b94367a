/** The printed table against the real nft and kernel. Which packets it marks, drops and translates is judged in fabric.test.ts. */
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { packetFilter, printPacketFilter } from "../../src/core/plumbing/packet-filter.ts";
import { cidr4 } from "../../src/lib/ip.ts";
import { instance, limits, settings } from "../core/plumbing/fixtures.ts";

// Namespaces of this run are private (scripts/run-tests.mjs), so the table is loaded right here.
const nft = (args: readonly string[], input = ""): string =>
  execFileSync("nft", args, { input, encoding: "utf8" });
const ways = {
  "the default settings": settings,
  "external SNAT": { ...settings, snat: null },
  "NodePort support off": { ...settings, nodePort: false },
  "excluded CIDRs, each source port choice": {
    ...settings,
    snat: { ports: "hashrandom", excludedCidrs: [cidr4("10.0.3.0/24"), cidr4("172.31.0.0/16")] },
  },
} as const;

test.each(Object.entries(ways))("nft takes the table for %s, and again over the one before", (_, way) => {
  const text = printPacketFilter(packetFilter(instance, "eth0", way));
  nft(["-c", "-f", "-"], text);
  nft(["-f", "-"], text);
  const first = nft(["list", "table", "inet", "berth"]);
  nft(["-f", "-"], text);
  expect(nft(["list", "table", "inet", "berth"])).toBe(first);
  expect(nft(["list", "tables"])).toBe("table inet berth\n");
  nft(["delete", "table", "inet", "berth"]);
});

test("nft takes the table of an instance with 63 ENI slots on four network cards", () => {
  const networkCards = [{ enis: 15 }, { enis: 16 }, { enis: 16 }, { enis: 16 }];
  const large = { ...instance, limits: { ...limits, networkCards } };
  nft(["-c", "-f", "-"], printPacketFilter(packetFilter(large, "ens5", settings)));
});
