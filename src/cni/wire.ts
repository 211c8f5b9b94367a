/**
 * Frames between the shim and the daemon, as bytes, for both ends. One request and one answer a connection.
 * The shim is C: its header `shim/berth-wire.h` is printed from the tables here (`wireHeader`), and a test holds the two equal.
 *
 * A request is a fixed head and then fields, each a length and its bytes. Versions differ only by fields at the end: a reader skips
 * those it does not know and takes missing ones as empty. So neighbours understand each other, and a node can be upgraded in any order.
 */
import { err, ok, type Result } from "../lib/result.ts";

export const PROTOCOL_VERSION = 1;

/** The first four bytes of every frame: "BRTH". Whatever else changes, magic and version stay where they are. */
const MAGIC = [0x42, 0x52, 0x54, 0x48] as const;

/** Head of a request: name and size in bytes, in order. Numbers are little-endian. */
const REQUEST_HEAD = [
  ["magic", 4],
  ["version", 2],
  ["unused", 2],
  ["id", 16],
  ["deadline_ms", 4],
  ["body_size", 4],
] as const;

/** Head of an answer. `kind` is 1 for an answer, 2 for "again"; the body is what the shim prints on stdout. */
const ANSWER_HEAD = [
  ["magic", 4],
  ["version", 2],
  ["kind", 2],
  ["exit_code", 4],
  ["body_size", 4],
] as const;

/** The fields of a request, in order. Nothing else of the runtime's environment leaves the shim: it can hold secrets. */
export const FIELDS = [
  "CNI_COMMAND",
  "CNI_CONTAINERID",
  "CNI_NETNS",
  "CNI_IFNAME",
  "CNI_ARGS",
  "CNI_PATH",
  "TRACEPARENT",
  "TRACESTATE",
  "BAGGAGE",
  "stdin",
] as const;

export type FieldName = (typeof FIELDS)[number];

export const STDIN_SIZE_MAX = 1024 * 1024;
const VARIABLE_SIZE_MAX = 128 * 1024; // Linux: MAX_ARG_STRLEN.
const BODY_SIZE_MAX = STDIN_SIZE_MAX + (FIELDS.length - 1) * VARIABLE_SIZE_MAX + FIELDS.length * 4;
const ANSWER_SIZE_MAX = 2 * STDIN_SIZE_MAX;

export const REQUEST_HEAD_SIZE = sizeOf(REQUEST_HEAD);
export const ANSWER_HEAD_SIZE = sizeOf(ANSWER_HEAD);

const KIND_DONE = 1;
const KIND_AGAIN = 2;

/** The versions of the CNI specification that we serve, oldest first. VERSION lists them; the last is ours when the caller's is unknown. */
export const SPEC_VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
export type SpecVersion = (typeof SPEC_VERSIONS)[number];

export const SOCKET_PATH_DEFAULT = "/run/berth/berth.sock";
export const JOURNAL_FOLDER_DEFAULT = "/var/lib/berth/journal";
/** Beside the socket: its modification time tells when the daemon last served, its text how many ms of absence STATUS forgives. */
export const HEARTBEAT_SUFFIX = ".alive";
/** How many DELs the shims may leave in the journal; `store/journal.ts` reads as many. */
export const JOURNAL_FILE_COUNT_MAX = 8192;

export type RequestFrame = {
  readonly version: number;
  readonly id: string; // 32 hexadecimal digits. The same when the shim asks again because it lost its answer.
  readonly deadlineMs: number; // How long the caller still waits, counted from when the frame was sent.
  readonly fields: Readonly<Record<FieldName, Uint8Array>>;
};

export type AnswerFrame =
  | { readonly kind: "done"; readonly exitCode: number; readonly stdout: Uint8Array }
  /** The daemon is on its way out and has done nothing: ask its successor. */
  | { readonly kind: "again" };

/** What is wrong with a frame. `wrong-version` names what the other end speaks. */
export type FrameFault =
  | { readonly kind: "malformed"; readonly detail: string }
  | { readonly kind: "too-long"; readonly size: number; readonly sizeMax: number }
  | { readonly kind: "wrong-version"; readonly version: number };

/** One version back and one forth are understood. */
export function versionServed(version: number): boolean {
  return version >= 1 && Math.abs(version - PROTOCOL_VERSION) <= 1;
}

/** The size of the whole request that begins with `bytes`; null while its head is not all there. */
export function requestSize(bytes: Uint8Array): Result<number | null, FrameFault> {
  const head = checkedHead(bytes, REQUEST_HEAD, BODY_SIZE_MAX);
  if (!head.ok) return head;
  return ok(head.value === null ? null : REQUEST_HEAD_SIZE + head.value);
}

/** `bytes` is one whole frame, as `requestSize` measured it. */
export function decodeRequest(bytes: Uint8Array): Result<RequestFrame, FrameFault> {
  const size = requestSize(bytes);
  if (!size.ok) return size;
  if (size.value !== bytes.length)
    return malformed(`${bytes.length} bytes, where the head says ${size.value}`);
  const view = viewOf(bytes);
  const fields = decodeFields(bytes.subarray(REQUEST_HEAD_SIZE));
  if (!fields.ok) return fields;
  return ok({
    version: view.getUint16(offsetOf(REQUEST_HEAD, "version"), true),
    id: hexOf(bytes.subarray(offsetOf(REQUEST_HEAD, "id"), offsetOf(REQUEST_HEAD, "id") + 16)),
    deadlineMs: view.getUint32(offsetOf(REQUEST_HEAD, "deadline_ms"), true),
    fields: fields.value,
  });
}

function decodeFields(body: Uint8Array): Result<Record<FieldName, Uint8Array>, FrameFault> {
  const view = viewOf(body);
  const read: Uint8Array[] = [];
  for (let at = 0; at < body.length; ) {
    if (at + 4 > body.length) return malformed("a field's length is cut");
    const size = view.getUint32(at, true);
    at += 4;
    if (size > body.length - at) return malformed("a field is longer than its frame");
    read.push(body.subarray(at, at + size));
    at += size;
    if (read.length > 4 * FIELDS.length) return malformed("far more fields than any version has");
  }
  const entries = FIELDS.map((name, index) => [name, read[index] ?? new Uint8Array(0)] as const);
  const fields = Object.fromEntries(entries) as Record<FieldName, Uint8Array>; // Each name of FIELDS is there by construction.
  if (fields.stdin.length > STDIN_SIZE_MAX)
    return err({ kind: "too-long", size: fields.stdin.length, sizeMax: STDIN_SIZE_MAX });
  return ok(fields);
}

/** For tests and tools; production requests are made by the shim. `id` must be 32 hexadecimal digits. */
export function encodeRequest(request: RequestFrame): Uint8Array {
  const body = FIELDS.map((name) => request.fields[name]);
  const bodySize = body.reduce((sum, field) => sum + 4 + field.length, 0);
  const bytes = new Uint8Array(REQUEST_HEAD_SIZE + bodySize);
  const view = viewOf(bytes);
  bytes.set(MAGIC, 0);
  view.setUint16(offsetOf(REQUEST_HEAD, "version"), request.version, true);
  bytes.set(bytesOfHex(request.id), offsetOf(REQUEST_HEAD, "id"));
  view.setUint32(offsetOf(REQUEST_HEAD, "deadline_ms"), request.deadlineMs, true);
  view.setUint32(offsetOf(REQUEST_HEAD, "body_size"), bodySize, true);
  let at = REQUEST_HEAD_SIZE;
  for (const field of body) {
    view.setUint32(at, field.length, true);
    bytes.set(field, at + 4);
    at += 4 + field.length;
  }
  return bytes;
}

/** Always in our own version: the shim checks it. */
export function encodeAnswer(answer: AnswerFrame, version = PROTOCOL_VERSION): Uint8Array {
  const stdout = answer.kind === "done" ? answer.stdout : new Uint8Array(0);
  const bytes = new Uint8Array(ANSWER_HEAD_SIZE + stdout.length);
  const view = viewOf(bytes);
  bytes.set(MAGIC, 0);
  view.setUint16(offsetOf(ANSWER_HEAD, "version"), version, true);
  view.setUint16(offsetOf(ANSWER_HEAD, "kind"), answer.kind === "done" ? KIND_DONE : KIND_AGAIN, true);
  view.setInt32(offsetOf(ANSWER_HEAD, "exit_code"), answer.kind === "done" ? answer.exitCode : 0, true);
  view.setUint32(offsetOf(ANSWER_HEAD, "body_size"), stdout.length, true);
  bytes.set(stdout, ANSWER_HEAD_SIZE);
  return bytes;
}

/** For tests and tools. Null while the frame is not all there. */
export function decodeAnswer(bytes: Uint8Array): Result<AnswerFrame | null, FrameFault> {
  const size = checkedHead(bytes, ANSWER_HEAD, ANSWER_SIZE_MAX);
  if (!size.ok) return size;
  if (size.value === null || bytes.length < ANSWER_HEAD_SIZE + size.value) return ok(null);
  const view = viewOf(bytes);
  const kind = view.getUint16(offsetOf(ANSWER_HEAD, "kind"), true);
  if (kind === KIND_AGAIN) return ok({ kind: "again" });
  if (kind !== KIND_DONE) return malformed(`answer of kind ${kind}`);
  const exitCode = view.getInt32(offsetOf(ANSWER_HEAD, "exit_code"), true);
  const stdout = bytes.subarray(ANSWER_HEAD_SIZE, ANSWER_HEAD_SIZE + size.value);
  return ok({ kind: "done", exitCode, stdout });
}

/** The text of `shim/berth-wire.h`. A test compares; run with `-u` it writes the file anew. */
export function wireHeader(): string {
  const lines = [
    "/* Printed from the tables of ../wire.ts, and held equal by a test. Do not edit: vitest -u test/cni/wire.test.ts */",
    "#ifndef BERTH_WIRE_H",
    "#define BERTH_WIRE_H",
    "",
    `#define BERTH_PROTOCOL_VERSION ${PROTOCOL_VERSION}`,
    `#define BERTH_MAGIC "${String.fromCharCode(...MAGIC)}"`,
    `#define BERTH_STDIN_SIZE_MAX ${STDIN_SIZE_MAX}`,
    `#define BERTH_VARIABLE_SIZE_MAX ${VARIABLE_SIZE_MAX}`,
    `#define BERTH_ANSWER_SIZE_MAX ${ANSWER_SIZE_MAX}`,
    `#define BERTH_SPEC_VERSIONS { ${SPEC_VERSIONS.map((version) => `"${version}"`).join(", ")} }`,
    `#define BERTH_SOCKET_PATH_DEFAULT "${SOCKET_PATH_DEFAULT}"`,
    `#define BERTH_JOURNAL_FOLDER_DEFAULT "${JOURNAL_FOLDER_DEFAULT}"`,
    `#define BERTH_HEARTBEAT_SUFFIX "${HEARTBEAT_SUFFIX}"`,
    `#define BERTH_JOURNAL_FILE_COUNT_MAX ${JOURNAL_FILE_COUNT_MAX}`,
    "",
    ...offsetLines("REQUEST", REQUEST_HEAD),
    "",
    ...offsetLines("ANSWER", ANSWER_HEAD),
    `#define BERTH_ANSWER_KIND_DONE ${KIND_DONE}`,
    `#define BERTH_ANSWER_KIND_AGAIN ${KIND_AGAIN}`,
    "",
    "/* Environment variables that travel, in this order; stdin is the field after them. */",
    "#define BERTH_VARIABLES \\",
    `  { ${FIELDS.filter((name) => name !== "stdin")
      .map((name) => `"${name}"`)
      .join(", ")} }`,
    `#define BERTH_VARIABLE_COUNT ${FIELDS.length - 1}`,
    "",
    "#endif",
  ];
  return `${lines.join("\n")}\n`;
}

type Head = readonly (readonly [string, number])[];

function offsetLines(prefix: string, head: Head): string[] {
  const lines = head
    .filter(([name]) => name !== "unused")
    .map(([name]) => `#define BERTH_${prefix}_${name.toUpperCase()}_AT ${offsetOf(head, name)}`);
  return [...lines, `#define BERTH_${prefix}_HEAD_SIZE ${sizeOf(head)}`];
}

function sizeOf(head: Head): number {
  return head.reduce((sum, [, size]) => sum + size, 0);
}

function offsetOf(head: Head, wanted: string): number {
  let offset = 0;
  for (const [name, size] of head) {
    if (name === wanted) return offset;
    offset += size;
  }
  throw new Error(`broken promise: no ${wanted} in this head`);
}

/** Checks magic and version as soon as they are there, and the body's size against its bound; null while the head is not all there. */
function checkedHead(bytes: Uint8Array, head: Head, sizeMax: number): Result<number | null, FrameFault> {
  const seen = Math.min(bytes.length, MAGIC.length);
  for (let at = 0; at < seen; at += 1) {
    if (bytes[at] !== MAGIC[at]) return malformed("it does not begin as a frame does");
  }
  const versionAt = offsetOf(head, "version");
  if (bytes.length < versionAt + 2) return ok(null);
  const view = viewOf(bytes);
  const version = view.getUint16(versionAt, true);
  if (!versionServed(version)) return err({ kind: "wrong-version", version });
  if (bytes.length < sizeOf(head)) return ok(null);
  const size = view.getUint32(offsetOf(head, "body_size"), true);
  return size > sizeMax ? err({ kind: "too-long", size, sizeMax }) : ok(size);
}

function malformed(detail: string): Result<never, FrameFault> {
  return err({ kind: "malformed", detail });
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function hexOf(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bytesOfHex(hex: string): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, at) => Number.parseInt(hex.slice(2 * at, 2 * at + 2), 16));
}
