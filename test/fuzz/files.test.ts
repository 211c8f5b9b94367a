// What stands on disk may have been written by anybody with a right checksum: it is believed no more than its form.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { isSandboxKey } from "../../src/core/model/sandbox.ts";
import { wallTime } from "../../src/lib/time.ts";
import { parseCheckpoint, printCheckpoint } from "../../src/store/checkpoint.ts";
import { parseJournalRecord } from "../../src/store/journal.ts";
import { arbNodeState } from "../support/arbitraries.ts";
import { reframed } from "../support/checkpoint-frame.ts";
import { arbMutatedBytes, arbMutatedJson, FUZZ_TIMEOUT_MS, fuzzing, withCoverage } from "./tools.ts";

const HEAD = { bootId: "6e1e7b2c", savedAt: wallTime(1_700_000_000_000) };
const texts = fc
  .sample(
    arbNodeState.filter((state) => state.allocations.size > 0),
    { numRuns: 6, seed: 3 },
  )
  .map((state) => printCheckpoint(state, HEAD));
const creation = {
  row: "creation",
  clientToken: "token",
  slot: { networkCard: 0, deviceIndex: 7 },
  subnetId: "subnet-1",
  securityGroups: ["sg-1"],
  addressCount: 3,
  prefixCount: 0,
  since: 5,
};
const rows = texts.map((text) => [
  ...text
    .split("\n")
    .slice(1, -2)
    .map((line): unknown => JSON.parse(line)),
  { row: "loose", id: "eni-0loose", attachmentId: "eni-attach-0a", since: 12.5 },
  creation,
]);

function holds(text: string): void {
  const parsed = parseCheckpoint(text);
  if (!parsed.ok) return;
  for (const { key, netns, hostLink, eni, mtu, requestId } of parsed.value.allocations) {
    expect(isSandboxKey(key)).toBe(true);
    expect(netns.path).not.toContain("\0");
    expect(hostLink).not.toMatch(/[/:\s]|^\.\.?$/);
    expect(eni).toMatch(/^eni-[0-9A-Za-z-]+$/);
    expect(mtu).toBeLessThanOrEqual(65_535);
    expect(requestId).toMatch(/^[\x21-\x7e]*$/);
  }
  const ips = parsed.value.allocations.map(({ ip }) => ip);
  expect(new Set(ips).size).toBe(ips.length);
  for (const { id } of parsed.value.loose) expect(id).toMatch(/^eni-[0-9A-Za-z-]+$/);
}

test("no checkpoint with a right checksum brings its reader down, and each id that it tells has its form", {
  timeout: 4 * FUZZ_TIMEOUT_MS,
}, async () => {
  await withCoverage(["src/store/checkpoint.ts"], () =>
    fc.assert(
      fc.property(arbMutatedJson(rows), (mutated) => {
        const lines = Array.isArray(mutated)
          ? mutated.map((row) => JSON.stringify(row) ?? "")
          : [JSON.stringify(mutated) ?? ""];
        holds(reframed(1, `berth/1 x ${lines.length}\n${lines.join("\n")}\nend\n`));
      }),
      fuzzing(),
    ),
  );
});

test("no bytes in a checkpoint's place do either", { timeout: FUZZ_TIMEOUT_MS }, () => {
  const samples = texts.map((text) => new TextEncoder().encode(text));
  fc.assert(
    fc.property(arbMutatedBytes(samples), (input) => holds(new TextDecoder().decode(input))),
    fuzzing(),
  );
});

const keys = [
  { network: "pods", containerId: "c0ffee", ifName: "eth0" },
  { network: "a", containerId: "b", ifName: "c" },
];

test("no record of the journal brings its reader down, and each key that it tells is a sandbox's", {
  timeout: FUZZ_TIMEOUT_MS,
}, async () => {
  await withCoverage(["src/store/journal.ts"], () =>
    fc.assert(
      fc.property(arbMutatedJson(keys), fc.boolean(), (mutated, whole) => {
        const line = new TextEncoder().encode(`${JSON.stringify(mutated) ?? ""}\n`);
        const head = new TextEncoder().encode(`berth-del/1 ${whole ? fnv(line) : "0123456789abcdef"}\n`);
        const read = parseJournalRecord(Uint8Array.from([...head, ...line]));
        if (read.ok) expect(whole && isSandboxKey(read.value)).toBe(true);
      }),
      fuzzing(),
    ),
  );
});

test("no bytes in a record's place do either", { timeout: FUZZ_TIMEOUT_MS }, () => {
  const samples = keys.map((key) => {
    const line = new TextEncoder().encode(`${JSON.stringify(key)}\n`);
    return Uint8Array.from([...new TextEncoder().encode(`berth-del/1 ${fnv(line)}\n`), ...line]);
  });
  fc.assert(
    fc.property(arbMutatedBytes(samples), (input) => {
      const read = parseJournalRecord(input);
      if (read.ok) expect(isSandboxKey(read.value)).toBe(true);
    }),
    fuzzing(),
  );
});

function fnv(bytes: Uint8Array): string {
  let hash = 14695981039346656037n;
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 1099511628211n);
  return hash.toString(16).padStart(16, "0");
}
