import { expect, test } from "vitest";
import { packetFilter, printPacketFilter } from "../../../src/core/plumbing/packet-filter.ts";
import { cidr4 } from "../../../src/lib/ip.ts";
import { instance, settings } from "./fixtures.ts";

// The golden files are meant to be read; they are loaded into a real kernel by test/kernel/packet-filter.test.ts.
const golden = "../../golden/plumbing";

test("with the default settings the table marks, checks sources and translates", async () => {
  const text = printPacketFilter(packetFilter(instance, "eth0", settings));
  await expect(text).toMatchFileSnapshot(`${golden}/packet-filter.nft`);
});

test("under external SNAT pods leave by their own ENI: nothing is translated and off-VPC traffic is not marked", async () => {
  const text = printPacketFilter(packetFilter(instance, "eth0", { ...settings, snat: null }));
  await expect(text).toMatchFileSnapshot(`${golden}/packet-filter-external-snat.nft`);
});

test("without NodePort support no connection is marked", () => {
  const text = printPacketFilter(packetFilter(instance, "eth0", { ...settings, nodePort: false }));
  expect(text).not.toContain("ct mark");
  expect(text).toContain("meta mark set meta mark | 0x80"); // SNAT still needs the packet's mark.
});

test("each way to choose a source port has its word in nft", () => {
  const snatLine = (ports: "prng" | "hashrandom" | "none"): string | undefined =>
    printPacketFilter(packetFilter(instance, "eth0", { ...settings, snat: { ports, excludedCidrs: [] } }))
      .match(/snat ip to .*/)
      ?.at(0);
  expect(snatLine("prng")).toBe("snat ip to 10.0.0.10 fully-random");
  expect(snatLine("hashrandom")).toBe("snat ip to 10.0.0.10 random");
  expect(snatLine("none")).toBe("snat ip to 10.0.0.10");
});

test("an excluded CIDR inside the VPC, or given twice, is not written a second time, since nft refuses overlaps", () => {
  const excludedCidrs = [cidr4("10.0.7.0/24"), cidr4("192.168.0.0/16"), cidr4("192.168.0.0/16")];
  const filter = packetFilter(instance, "eth0", { ...settings, snat: { ports: "prng", excludedCidrs } });
  expect(filter.snat?.localCidrs).toEqual([cidr4("10.0.0.0/16"), cidr4("192.168.0.0/16")]);
});

test("every ENI slot of the instance type is in the table from the start, through all network cards", () => {
  const networkCards = [{ enis: 2 }, { enis: 1 }];
  const filter = packetFilter(
    { ...instance, limits: { ...instance.limits, networkCards } },
    "eth0",
    settings,
  );
  expect(printPacketFilter(filter)).toContain(
    "elements = { 1001 : jump eni0, 1002 : jump eni1, 1003 : jump eni2 }",
  );
});

test("a connection mark that covers the ENI's number is a broken promise", () => {
  expect(() => packetFilter(instance, "eth0", { ...settings, mainMark: 0x20 })).toThrow("broken promise");
});
