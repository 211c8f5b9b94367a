import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  decodeAnswer,
  decodeRequest,
  encodeAnswer,
  encodeRequest,
  FIELDS,
  PROTOCOL_VERSION,
  REQUEST_HEAD_SIZE,
  requestSize,
  versionServed,
  wireHeader,
  type FieldName,
  type RequestFrame,
} from "../../src/cni/wire.ts";

test("the shim's header is the one that the wire's tables print", async () => {
  await expect(wireHeader()).toMatchFileSnapshot("../../src/cni/shim/berth-wire.h");
});

const fields = fc.record(Object.fromEntries(FIELDS.map((name) => [name, fc.uint8Array({ maxLength: 300 })])));
const arbRequest: fc.Arbitrary<RequestFrame> = fc.record({
  version: fc.constantFrom(PROTOCOL_VERSION, PROTOCOL_VERSION + 1),
  id: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString("hex")),
  deadlineMs: fc.nat(0xffff_ffff),
  fields: fields as fc.Arbitrary<RequestFrame["fields"]>, // A record of FIELDS by construction.
});

test("a request that was written is read again", () => {
  fc.assert(
    fc.property(arbRequest, (request) => {
      const bytes = encodeRequest(request);
      expect(requestSize(bytes.subarray(0, REQUEST_HEAD_SIZE))).toEqual({ ok: true, value: bytes.length });
      expect(decodeRequest(bytes)).toEqual({ ok: true, value: request });
    }),
  );
});

test("no bytes whatever make the reader throw, and no beginning of a request is taken for a whole one", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(decodeRequest(bytes).ok).toBe(false);
      const headed = encodeRequest(requestOf({})).map((byte, at) =>
        at < 32 ? byte : (bytes[at - 32] ?? byte),
      );
      decodeRequest(headed);
    }),
  );
  const whole = encodeRequest(requestOf({ stdin: "{}" }));
  for (let length = 0; length < whole.length; length += 1) {
    const size = requestSize(whole.subarray(0, length));
    expect(size.ok && (size.value === null || size.value > length)).toBe(true);
    expect(decodeRequest(whole.subarray(0, length)).ok).toBe(false);
  }
});

test("a neighbour's extra fields are skipped, and those it lacks are empty", () => {
  const request = requestOf({ CNI_COMMAND: "ADD", stdin: "{}" });
  const bytes = encodeRequest(request);
  const more = new Uint8Array([...bytes, 3, 0, 0, 0, 1, 2, 3]);
  new DataView(more.buffer).setUint32(28, more.length - REQUEST_HEAD_SIZE, true);
  expect(decodeRequest(more)).toEqual({ ok: true, value: request });

  const fewer = bytes.slice(0, bytes.length - 4 - 2); // Without stdin, the last field.
  new DataView(fewer.buffer).setUint32(28, fewer.length - REQUEST_HEAD_SIZE, true);
  expect(decodeRequest(fewer)).toMatchObject({ ok: true, value: { fields: { stdin: new Uint8Array(0) } } });
});

test("versions beyond the neighbours are refused by name", () => {
  expect([0, 1, 2, 3].filter(versionServed)).toEqual([1, 2]);
  const far = encodeRequest({ ...requestOf({}), version: 3 });
  expect(requestSize(far.subarray(0, 6))).toEqual({
    ok: false,
    error: { kind: "wrong-version", version: 3 },
  });
});

test("an answer that was written is read again, and half of one is not", () => {
  const stdout = new TextEncoder().encode("{}");
  const bytes = encodeAnswer({ kind: "done", exitCode: 1, stdout });
  expect(decodeAnswer(bytes)).toEqual({ ok: true, value: { kind: "done", exitCode: 1, stdout } });
  for (let length = 0; length < bytes.length; length += 1)
    expect(decodeAnswer(bytes.subarray(0, length))).toEqual({ ok: true, value: null });
  expect(decodeAnswer(encodeAnswer({ kind: "again" }))).toEqual({ ok: true, value: { kind: "again" } });
});

function requestOf(texts: Partial<Record<FieldName, string>>): RequestFrame {
  const encoder = new TextEncoder();
  const entries = FIELDS.map((name) => [name, encoder.encode(texts[name] ?? "")] as const);
  return {
    version: PROTOCOL_VERSION,
    id: "5".repeat(32),
    deadlineMs: 1_000,
    fields: Object.fromEntries(entries) as RequestFrame["fields"], // Each name of FIELDS.
  };
}
