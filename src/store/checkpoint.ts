/**
 * The checkpoint's text: what a daemon must remember of itself, that is who got which address, and what it had begun at EC2.
 * Everything else is observed anew at start.
 *
 * A first line with version, checksum and count; one JSON object a line; a last line `end`. This frame is the same in all
 * versions, so that damage and a newer version are told apart. Any cut, flip or filling with zeros is found by it.
 */
import * as v from "valibot";
import { parseIpv4, type Ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { instant, wallTime, type Instant, type WallTime } from "../lib/time.ts";
import type { AttachmentId, Eni, EniId, Mac, SecurityGroupId, SubnetId } from "../core/model/eni.ts";
import {
  isLinkName,
  isPodName,
  isSandboxKey,
  sandboxId,
  type PodName,
  type SandboxKey,
} from "../core/model/sandbox.ts";
import type { Allocation, EniCreation, LooseEni, NodeState } from "../core/state/node-state.ts";

export const CHECKPOINT_VERSION = 1;

export type Checkpoint = {
  readonly bootId: string; // /proc/sys/kernel/random/boot_id. Instants, and namespaces, are of that boot.
  readonly instanceId: string | null; // Whose it is; null where it does not say.
  readonly savedAt: WallTime;
  readonly allocations: readonly Allocation[];
  readonly cooling: readonly { readonly eni: EniId; readonly ip: Ipv4; readonly until: Instant }[];
  readonly leaving: readonly { readonly eni: EniId; readonly ips: readonly Ipv4[] }[];
  readonly loose: readonly LooseEni[];
  readonly creation: EniCreation | null;
};

export type CheckpointFault =
  | { readonly kind: "damaged"; readonly detail: string }
  | { readonly kind: "newer"; readonly version: number };

// --- Print -------------------------------------------------------------------------------------------------------------

/** A line and its two hashes. */
type Line = { readonly text: string; readonly hashes: Hashes };

/** Rows are immutable, so what was printed of one holds as long as it lives. An ADD changes two rows of hundreds. */
const printed = new WeakMap<Allocation | LooseEni | EniCreation | Eni, Line | null>();

/** Printed at each ADD and DEL: the cost is that of the rows that changed, and of joining the lines. */
export function printCheckpoint(
  state: NodeState,
  head: { readonly bootId: string; readonly savedAt: WallTime },
): string {
  const lines = [lineOf({ row: "head", ...head, instanceId: state.instance.id })];
  const put = <Row extends Allocation | LooseEni | EniCreation | Eni>(
    row: Row,
    print: (row: Row) => Line | null,
  ): void => {
    let line = printed.get(row);
    if (line === undefined) {
      line = print(row);
      printed.set(row, line);
    }
    if (line !== null) lines.push(line);
  };
  if (state.creation !== null) put(state.creation, (creation) => lineOf({ row: "creation", ...creation }));
  for (const loose of state.loose.values()) put(loose, (each) => lineOf({ row: "loose", ...each }));
  for (const eni of state.enis.values()) put(eni, eniLine);
  for (const [ip, { eni, until }] of state.resting)
    lines.push(lineOf({ row: "eni", id: eni, cooling: [[ip, until]], leaving: [] }));
  for (const allocation of state.allocations.values()) put(allocation, allocationLine);
  return framed(CHECKPOINT_VERSION, lines);
}

/** Without its id, which is made of its key again. */
function allocationLine(allocation: Allocation): Line {
  const { id: _, ...rest } = allocation;
  return lineOf({ row: "allocation", ...rest });
}

/** Null for an ENI none of whose addresses rests or leaves: EC2 tells the rest. */
function eniLine(eni: Eni): Line | null {
  const cooling: (readonly [Ipv4, Instant])[] = [];
  const leaving: Ipv4[] = [];
  for (const address of eni.addresses.values()) {
    if (address.kind === "cooling") cooling.push([address.ip, address.until]);
    if (address.kind === "leaving") leaving.push(address.ip);
  }
  if (cooling.length === 0 && leaving.length === 0) return null;
  return lineOf({ row: "eni", id: eni.id, cooling, leaving });
}

function lineOf(value: object): Line {
  const text = JSON.stringify(value);
  return { text, hashes: hashText(text) };
}

function framed(version: number, lines: readonly Line[]): string {
  const texts = lines.map(({ text }) => text).join("\n");
  return `berth/${version} ${checksum(version, lines)} ${lines.length}\n${texts}\nend\n`;
}

// --- Parse -------------------------------------------------------------------------------------------------------------

/** Makes the rows of one version into those of the next. Row by row values are unknown here: the newest schema checks them after. */
export type Migrations = ReadonlyMap<number, (rows: readonly unknown[]) => readonly unknown[]>;

const MIGRATIONS: Migrations = new Map();

/** Never throws. `newer` only where the frame is whole: what is cut or flipped is `damaged`, whatever its first line says. */
export function parseCheckpoint(text: string, migrations = MIGRATIONS): Result<Checkpoint, CheckpointFault> {
  const frame = parseFrame(text);
  if (!frame.ok) return damaged(frame.error);
  if (frame.value.version > CHECKPOINT_VERSION) return err({ kind: "newer", version: frame.value.version });
  let rows: readonly unknown[] = frame.value.rows;
  for (let version = frame.value.version; version < CHECKPOINT_VERSION; version += 1) {
    const migrate = migrations.get(version);
    if (migrate === undefined) return damaged(`version ${version} was never written`);
    rows = migrate(rows);
  }
  const parsed = v.safeParse(v.array(rowSchema), rows, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    return damaged(`${v.getDotPath(issue) ?? "a row"}: ${issue.message}`);
  }
  return gathered(parsed.output);
}

function parseFrame(
  text: string,
): Result<{ readonly version: number; readonly rows: readonly unknown[] }, string> {
  const head = /^berth\/([0-9]{1,9}) ([0-9a-f]{16}) ([0-9]{1,9})\n/.exec(text);
  if (head === null) return err("its first line is none of ours");
  const [whole, version, sum, count] = head;
  if (!text.endsWith("\nend\n")) return err("its end is missing");
  const lines = text.slice(whole.length, -"\nend\n".length).split("\n");
  if (lines.length !== Number(count)) return err(`it has ${lines.length} rows and should have ${count}`);
  const hashed = lines.map((line) => ({ text: line, hashes: hashText(line) }));
  if (checksum(Number(version), hashed) !== sum) return err("its checksum is wrong");
  try {
    return ok({ version: Number(version), rows: lines.map((line): unknown => JSON.parse(line)) });
  } catch (cause) {
    return err(String(cause)); // Somebody wrote a checksum over what is no JSON: not us.
  }
}

function gathered(rows: readonly v.InferOutput<typeof rowSchema>[]): Result<Checkpoint, CheckpointFault> {
  const [head, ...rest] = rows;
  if (head?.row !== "head") return damaged("its first row is not the head");
  const allocations: Allocation[] = [];
  const cooling: Checkpoint["cooling"][number][] = [];
  const leaving: Checkpoint["leaving"][number][] = [];
  const loose: LooseEni[] = [];
  let creation: EniCreation | null = null;
  for (const row of rest) {
    switch (row.row) {
      case "head":
        return damaged("it has two heads");
      case "allocation": {
        const { row: _, ...allocation } = row;
        allocations.push({ id: sandboxId(allocation.key), ...allocation });
        break;
      }
      case "eni":
        cooling.push(...row.cooling.map(([ip, until]) => ({ eni: row.id, ip, until })));
        if (row.leaving.length > 0) leaving.push({ eni: row.id, ips: row.leaving });
        break;
      case "loose": {
        const { row: _, ...each } = row;
        loose.push(each);
        break;
      }
      case "creation": {
        const { row: _, ...begun } = row;
        creation = begun;
        break;
      }
    }
  }
  // An address in two hands must not come out of a file, whoever wrote it.
  if (new Set(allocations.map(({ id }) => id)).size !== allocations.length)
    return damaged("a sandbox is in it twice");
  if (new Set(allocations.map(({ ip }) => ip)).size !== allocations.length)
    return damaged("an address is in it twice");
  const { bootId, instanceId = null, savedAt } = head;
  return ok({ bootId, instanceId, savedAt, allocations, cooling, leaving, loose, creation });
}

/** Only one of our brands may be made here, and only of what has its form. */
function branded<T extends string>(form: RegExp): v.GenericSchema<T> {
  return v.custom<T>(
    (value) => typeof value === "string" && form.test(value),
    `not of the form ${form.source}`,
  );
}

const ipSchema = v.custom<Ipv4>(
  (value) => typeof value === "string" && parseIpv4(value).ok,
  "not an IPv4 address",
);
const countSchema = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const msSchema = v.pipe(v.number(), v.finite());
const instantSchema = v.pipe(msSchema, v.transform(instant));
const wallTimeSchema = v.pipe(msSchema, v.transform(wallTime));
const eniIdSchema = branded<EniId>(/^eni-[0-9A-Za-z-]{1,60}$/);
const macSchema = branded<Mac>(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
const slotIndexSchema = v.pipe(countSchema, v.maxValue(1_000));
const slotSchema = v.strictObject({ networkCard: slotIndexSchema, deviceIndex: slotIndexSchema });
const keySchema = v.pipe(
  v.strictObject({ network: v.string(), containerId: v.string(), ifName: v.string() }),
  v.check((key: SandboxKey) => isSandboxKey(key), "not a sandbox's key"),
);
/** Nothing is decided by a pod's name, so one that cannot be believed is no reason to give up the whole file. */
const podSchema = v.fallback(
  v.nullable(
    v.pipe(
      v.strictObject({ namespace: v.string(), name: v.string() }),
      v.check((pod: PodName) => isPodName(pod)),
    ),
  ),
  null,
);
const tokenSchema = v.pipe(v.string(), v.regex(/^[\x21-\x7e]{0,64}$/)); // Ids of requests, boots and calls.
const pathSchema = v.pipe(v.string(), v.regex(/^[^\0]{0,4095}$/)); // linux/limits.h, PATH_MAX. Empty where it was not known.
const linkNameSchema = v.pipe(v.string(), v.check(isLinkName, "no link can have this name"));
const mtuSchema = v.pipe(countSchema, v.minValue(68), v.maxValue(65_535)); // RFC 791 at the least.

const cidrSchema = v.strictObject({ network: ipSchema, prefixLength: v.pipe(countSchema, v.maxValue(32)) });
const ipvlanSchema = v.strictObject({
  parentMac: macSchema,
  subnet: cidrSchema,
  nodeIp: ipSchema,
  vpcCidrs: v.array(cidrSchema),
});

const rowSchema = v.variant("row", [
  v.strictObject({
    row: v.literal("head"),
    bootId: tokenSchema,
    savedAt: wallTimeSchema,
    instanceId: v.optional(v.string()),
  }),
  v.strictObject({
    row: v.literal("allocation"),
    key: keySchema,
    pod: podSchema,
    netns: v.strictObject({ path: pathSchema, device: countSchema, inode: countSchema }),
    ip: ipSchema,
    eni: eniIdSchema,
    eniSlot: slotSchema,
    hostLink: linkNameSchema,
    hostMac: macSchema,
    podMac: macSchema,
    mtu: mtuSchema,
    ipvlan: v.exactOptional(ipvlanSchema),
    plumbedBy: v.exactOptional(v.pipe(v.string(), v.nonEmpty(), v.maxLength(255))), // A file name.
    requestId: tokenSchema,
    since: wallTimeSchema,
  }),
  v.strictObject({
    row: v.literal("eni"),
    id: eniIdSchema,
    cooling: v.array(v.strictTuple([ipSchema, instantSchema])),
    leaving: v.array(ipSchema),
  }),
  v.strictObject({
    row: v.literal("loose"),
    id: eniIdSchema,
    attachmentId: v.nullable(branded<AttachmentId>(/^(eni|ela)-attach-[0-9A-Za-z-]{1,60}$/)),
    since: instantSchema,
  }),
  v.strictObject({
    row: v.literal("creation"),
    clientToken: tokenSchema,
    slot: slotSchema,
    subnetId: branded<SubnetId>(/^subnet-[0-9A-Za-z-]{1,60}$/),
    securityGroups: v.array(branded<SecurityGroupId>(/^sg-[0-9A-Za-z-]{1,60}$/)),
    addressCount: countSchema,
    prefixCount: countSchema,
    since: wallTimeSchema,
  }),
]);

function damaged(detail: string): Result<never, CheckpointFault> {
  return err({ kind: "damaged", detail });
}

// --- Checksum ----------------------------------------------------------------------------------------------------------

/** Two FNV-1a of 32 bits with different beginnings. Each step is a bijection: one changed character always changes both. */
type Hashes = readonly [number, number];

function hashText(text: string): Hashes {
  let a = 0x811c_9dc5;
  let b = 0x1b87_3593;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    a = Math.imul(a ^ code, 0x0100_0193);
    b = Math.imul(b ^ code, 0x85eb_ca6b);
  }
  return [a, b];
}

/** Of the version and of the lines in their order, from their hashes. */
function checksum(version: number, lines: readonly Line[]): string {
  let [a, b] = hashText(`berth/${version}`);
  for (const { hashes, text } of lines) {
    a = Math.imul(a ^ hashes[0], 0x0100_0193);
    b = Math.imul(b ^ hashes[1], 0x85eb_ca6b) ^ text.length;
  }
  const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, "0");
  return hex(a) + hex(b);
}
