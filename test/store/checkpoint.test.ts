import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { AttachmentId, EniId, SecurityGroupId, SubnetId } from "../../src/core/model/eni.ts";
import type { NodeState } from "../../src/core/state/node-state.ts";
import { eniCreationBegan, looseEniFound } from "../../src/core/state/transitions.ts";
import { instant, wallTime } from "../../src/lib/time.ts";
import { parseCheckpoint, printCheckpoint } from "../../src/store/checkpoint.ts";
import { arbNodeState } from "../support/arbitraries.ts";
import { reframed } from "../support/checkpoint-frame.ts";

const HEAD = { bootId: "6e1e7b2c", savedAt: wallTime(1_700_000_000_000) };

/** Some of everything that a checkpoint holds. */
function fullState(seed: number): NodeState {
  const [state] = fc.sample(
    arbNodeState.filter((each) => each.allocations.size > 1 && addressesOf(each, "cooling").length > 0),
    { numRuns: 1, seed },
  );
  if (state === undefined) throw new Error("no state");
  const loose = {
    id: "eni-0loose" as EniId, // Test data.
    attachmentId: "eni-attach-0a" as AttachmentId,
    since: instant(12.5),
  };
  return eniCreationBegan(looseEniFound({ ...state, creation: null }, loose), {
    clientToken: "token",
    slot: { networkCard: 0, deviceIndex: 7 },
    subnetId: "subnet-1" as SubnetId,
    securityGroups: ["sg-1" as SecurityGroupId],
    addressCount: 3,
    prefixCount: 0,
    since: wallTime(5),
  });
}

function addressesOf(state: NodeState, kind: "cooling" | "leaving") {
  return [...state.enis.values()].flatMap((eni) =>
    [...eni.addresses.values()]
      .filter((address) => address.kind === kind)
      .map((address) => ({ eni: eni.id, address })),
  );
}

test("what was printed is read again, whatever the node believed", () => {
  fc.assert(
    fc.property(arbNodeState, (state) => {
      const read = parseCheckpoint(printCheckpoint(state, HEAD));
      if (!read.ok) throw new Error(JSON.stringify(read.error));
      expect(read.value).toMatchObject(HEAD);
      expect(read.value.allocations).toEqual([...state.allocations.values()]);
      expect(read.value.loose).toEqual([...state.loose.values()]);
      expect(read.value.creation).toEqual(state.creation);
      const cooling = addressesOf(state, "cooling").map(({ eni, address }) => `${eni} ${address.ip}`);
      expect(read.value.cooling.map(({ eni, ip }) => `${eni} ${ip}`)).toEqual(cooling);
      const leaving = addressesOf(state, "leaving").map(({ eni, address }) => `${eni} ${address.ip}`);
      expect(read.value.leaving.flatMap(({ eni, ips }) => ips.map((ip) => `${eni} ${ip}`))).toEqual(leaving);
    }),
    { numRuns: 50 },
  );
});

test("cooling deadlines, loose ENIs and the creation that was begun are kept to the millisecond", () => {
  const state = fullState(1);
  const read = parseCheckpoint(printCheckpoint(state, HEAD));
  if (!read.ok) throw new Error(JSON.stringify(read.error));
  const untils = addressesOf(state, "cooling").map(({ address }) =>
    address.kind === "cooling" ? address.until : null,
  );
  expect(read.value.cooling.map(({ until }) => until)).toEqual(untils);
  expect(read.value.loose).toContainEqual({ id: "eni-0loose", attachmentId: "eni-attach-0a", since: 12.5 });
  expect(read.value.creation).toMatchObject({ clientToken: "token", addressCount: 3 });
});

test("a pod's data path is kept as it was plumbed; a record from before there was a choice tells of routed pods", () => {
  const state = fullState(3);
  const [first, second] = [...state.allocations.values()];
  if (first === undefined || second === undefined) throw new Error("too few pods");
  const cidr = { network: first.ip, prefixLength: 24 };
  const ipvlan = { parentMac: first.podMac, subnet: cidr, nodeIp: second.ip, vpcCidrs: [cidr] };
  const mixed = { ...state, allocations: new Map(state.allocations).set(first.id, { ...first, ipvlan }) };
  const text = printCheckpoint(mixed, HEAD);
  const read = parseCheckpoint(text);
  if (!read.ok) throw new Error(JSON.stringify(read.error));
  const pathOf = (id: string): unknown => read.value.allocations.find((each) => each.id === id)?.ipvlan;
  expect([pathOf(first.id), pathOf(second.id)]).toEqual([ipvlan, undefined]);
  // Its rows are those of the version before, so a daemon from before reads them as long as no pod is an ipvlan one.
  expect(printCheckpoint(state, HEAD)).not.toContain("ipvlan");
  const half = reframed(1, text.replace(/"parentMac":"[^"]*",/, ""));
  expect(parseCheckpoint(half)).toMatchObject({ ok: false, error: { kind: "damaged" } });
});

test("equal states print equal text, also the second time, from what is remembered of their rows", () => {
  const state = fullState(2);
  const first = printCheckpoint(state, HEAD);
  expect(printCheckpoint(state, HEAD)).toBe(first);
  expect(printCheckpoint(structuredClone(state), HEAD)).toBe(first);
});

describe("damage", () => {
  const text = printCheckpoint(fullState(3), HEAD);

  test("every beginning of a checkpoint, as a power cut leaves it, is recognised", () => {
    for (let length = 0; length < text.length; length += 1) {
      expect(parseCheckpoint(text.slice(0, length)), `the first ${length}`).toMatchObject({
        ok: false,
        error: { kind: "damaged" },
      });
    }
  });

  test("a tail of zeros, as some file systems leave it, is recognised", () => {
    for (let length = 0; length < text.length; length += 7) {
      const zeroed = text.slice(0, length) + "\0".repeat(text.length - length);
      expect(parseCheckpoint(zeroed)).toMatchObject({ ok: false, error: { kind: "damaged" } });
    }
  });

  test("every flipped bit is recognised, and none makes it look newer", () => {
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length; at += 1) {
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
      expect(parseCheckpoint(new TextDecoder().decode(flipped)), `byte ${at}`).toMatchObject({
        ok: false,
        error: { kind: "damaged" },
      });
    }
  });

  test("two rows that changed places are recognised", () => {
    const [head = "", first = "", second = "", ...rest] = text.split("\n");
    expect(parseCheckpoint([head, second, first, ...rest].join("\n"))).toMatchObject({
      error: { kind: "damaged" },
    });
  });
});

describe("versions", () => {
  test("a newer version is told from damage", () => {
    const newer = reframed(2, printCheckpoint(fullState(4), HEAD));
    expect(parseCheckpoint(newer)).toEqual({ ok: false, error: { kind: "newer", version: 2 } });
    expect(parseCheckpoint(newer.slice(0, -5))).toMatchObject({ error: { kind: "damaged" } });
  });

  test("an older version is brought up step by step, and one that was never written is damage", () => {
    const state = fullState(5);
    const older = reframed(0, printCheckpoint(state, HEAD));
    expect(parseCheckpoint(older)).toMatchObject({ error: { kind: "damaged" } });
    const migrated = parseCheckpoint(older, new Map([[0, (rows) => rows]]));
    expect(migrated.ok && migrated.value.allocations.length).toBe(state.allocations.size);
  });
});
