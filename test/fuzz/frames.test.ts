import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  decodeAnswer,
  decodeRequest,
  encodeAnswer,
  encodeRequest,
  FIELDS,
  requestSize,
  STDIN_SIZE_MAX,
  versionServed,
} from "../../src/cni/wire.ts";
import { arbMutatedBytes, FUZZ_TIMEOUT_MS, fuzzing, withCoverage } from "./tools.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const request = (stdin: string): Uint8Array =>
  encodeRequest({
    version: 1,
    id: "00112233445566778899aabbccddeeff",
    deadlineMs: 1_000,
    fields: Object.fromEntries(FIELDS.map((name) => [name, bytes(name === "stdin" ? stdin : name)])) as never, // Each name is there.
  });
const requests = [request(""), request('{"name":"pods"}'), request("x".repeat(300))];
const answers = [
  encodeAnswer({ kind: "again" }),
  encodeAnswer({ kind: "done", exitCode: 1, stdout: bytes("{}") }),
];

test("no bytes on the socket bring the frames' reader down, and what it reads is within its bounds", {
  timeout: FUZZ_TIMEOUT_MS,
}, async () => {
  await withCoverage(["src/cni/wire.ts"], () =>
    fc.assert(
      fc.property(arbMutatedBytes(requests), (input) => {
        const size = requestSize(input);
        const decoded = decodeRequest(input);
        if (!size.ok) expect(decoded.ok).toBe(false);
        if (!size.ok || !decoded.ok) return;
        expect(size.value).toBe(input.length);
        expect(versionServed(decoded.value.version)).toBe(true);
        expect(decoded.value.id).toMatch(/^[0-9a-f]{32}$/);
        expect(decoded.value.fields.stdin.length).toBeLessThanOrEqual(STDIN_SIZE_MAX);
        // What was read is written and read again as the same.
        expect(decodeRequest(encodeRequest(decoded.value))).toEqual(decoded);
      }),
      fuzzing(),
    ),
  );
});

test("no bytes bring the answers' reader down", { timeout: FUZZ_TIMEOUT_MS }, () => {
  fc.assert(
    fc.property(arbMutatedBytes(answers), (input) => {
      const decoded = decodeAnswer(input);
      if (decoded.ok && decoded.value?.kind === "done")
        expect(decoded.value.stdout.length).toBeLessThanOrEqual(input.length);
    }),
    fuzzing(),
  );
});
