import { expect, test } from "vitest";
import { CNI_CODE, cniErrorOf, frameError, printCniError } from "../../src/cni/errors.ts";
import type { NodeError } from "../../src/core/model/error.ts";

// One of each kind, with the code that a runtime sees on ADD. A code once given is a promise.
const rows: readonly (readonly [NodeError, number])[] = [
  [{ code: "no-address", blocked: null, detail: "", waitedMs: 29_000 }, 11],
  [{ code: "kernel-refused", step: "make the pair", errno: "EEXIST", detail: "" }, 100],
  [{ code: "netns-invalid", path: "/run/netns/a", detail: "ENOENT" }, 8],
  [{ code: "sandbox-exists", sandbox: "a/b/c", detail: "" }, 101],
  [{ code: "interface-exists", ifName: "eth0", path: "/run/netns/a" }, 102],
  [{ code: "checkpoint-unwritable", path: "/run/berth", detail: "ENOSPC" }, 5],
  [{ code: "cancelled", detail: "" }, 11],
  [{ code: "not-ready", detail: "" }, 11],
  [{ code: "check-failed", differences: ["no route", "link down"] }, 103],
  [{ code: "config-refused", key: "mtu", detail: "" }, 2],
];

test.each(rows)("$code is told to the runtime with its code and words", (error, code) => {
  const told = cniErrorOf(error, "ADD");
  expect(told.code).toBe(code);
  expect(told.message.length).toBeGreaterThan(20);
  expect(told.message).not.toContain("undefined");
});

test.each([
  "eni-limit",
  "max-pods",
  "subnet-exhausted",
  "prefixes-exhausted",
  "throttled",
  "access-denied",
  "failing",
  "call-in-doubt",
  "link-awaited",
  "provisioning-off",
  "cordoned",
  "cooling",
] as const)("a pod without an address hears why, in words that belong to the reason: %s", (blocked) => {
  const slow = cniErrorOf({ code: "no-address", blocked: null, detail: "d", waitedMs: 1_500 }, "ADD");
  const told = cniErrorOf({ code: "no-address", blocked, detail: "d", waitedMs: 1_500 }, "ADD");
  expect(told.message).toContain("1.5 s");
  expect(told.message).not.toBe(slow.message);
  expect(told.details).toBe("d");
});

test("a daemon that is not ready is 50 for STATUS and 11 for all else", () => {
  expect(cniErrorOf({ code: "not-ready", detail: "" }, "STATUS").code).toBe(CNI_CODE.notAvailable);
  expect(cniErrorOf({ code: "not-ready", detail: "" }, "DEL").code).toBe(CNI_CODE.tryAgain);
});

test("a frame that cannot be read is told what the other end spoke", () => {
  expect(frameError({ kind: "wrong-version", version: 7 }).message).toContain("7");
  expect(frameError({ kind: "too-long", size: 3_000_000, sizeMax: 1_048_576 }).message).toContain("1048576");
});

test("an error is one line of JSON with the caller's version, or ours where the caller's is not known", () => {
  const error = { code: CNI_CODE.io, message: "m", details: "d" };
  expect(printCniError(error, "0.4.0")).toBe('{"cniVersion":"0.4.0","code":5,"msg":"m","details":"d"}\n');
  expect(printCniError(error, null)).toContain('"cniVersion":"1.1.0"');
});
