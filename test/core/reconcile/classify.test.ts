import { expect, test } from "vitest";
import type { EniSeen } from "../../../src/core/model/ec2.ts";
import { CREATED_AT_TAG, NO_MANAGE_TAG, OWNER_TAG } from "../../../src/core/model/eni-names.ts";
import type { InstanceId } from "../../../src/core/model/instance.ts";
import { detachable, isLeaked, ownerOf } from "../../../src/core/reconcile/classify.ts";
import { parseWallTime, wallTime } from "../../../src/lib/time.ts";
import { attachmentAt, eniSeen, INSTANCE } from "./worlds.ts";

const { limits } = INSTANCE;
const tags = (...pairs: readonly (readonly [string, string])[]): Partial<EniSeen> => ({
  tags: new Map(pairs),
});
const owned = [OWNER_TAG, INSTANCE.id] as const;

type Row = {
  readonly what: string;
  readonly seen: EniSeen;
  readonly whenUntaggedAreManaged: string;
  readonly whenNot: string;
};

const ROWS: readonly Row[] = [
  { what: "the primary ENI", seen: eniSeen(0), whenUntaggedAreManaged: "ours", whenNot: "ours" },
  {
    what: "the primary ENI, whatever its tags",
    seen: eniSeen(0, { ...tags([NO_MANAGE_TAG, "true"]), requesterManaged: true }),
    whenUntaggedAreManaged: "ours",
    whenNot: "ours",
  },
  { what: "one with our owner tag", seen: eniSeen(1), whenUntaggedAreManaged: "ours", whenNot: "ours" },
  { what: "one without tags", seen: eniSeen(1, tags()), whenUntaggedAreManaged: "ours", whenNot: "untagged" },
  {
    what: "one tagged no_manage, and with our owner tag",
    seen: eniSeen(1, tags(owned, [NO_MANAGE_TAG, "true"])),
    whenUntaggedAreManaged: "no-manage",
    whenNot: "no-manage",
  },
  {
    what: "one tagged no_manage=false",
    seen: eniSeen(1, tags(owned, [NO_MANAGE_TAG, "false"])),
    whenUntaggedAreManaged: "ours",
    whenNot: "ours",
  },
  {
    what: "an EFA",
    seen: eniSeen(1, { interfaceType: "efa" }),
    whenUntaggedAreManaged: "efa",
    whenNot: "efa",
  },
  {
    what: "an EFA without IP",
    seen: eniSeen(1, { interfaceType: "efa-only" }),
    whenUntaggedAreManaged: "efa",
    whenNot: "efa",
  },
  {
    what: "a trunk",
    seen: eniSeen(1, { interfaceType: "trunk" }),
    whenUntaggedAreManaged: "trunk",
    whenNot: "trunk",
  },
  {
    what: "a branch",
    seen: eniSeen(1, { interfaceType: "branch" }),
    whenUntaggedAreManaged: "branch",
    whenNot: "branch",
  },
  {
    what: "a load balancer's",
    seen: eniSeen(1, { interfaceType: "network_load_balancer" }),
    whenUntaggedAreManaged: "service-managed",
    whenNot: "service-managed",
  },
  {
    what: "one that a service requested",
    seen: eniSeen(1, { requesterManaged: true }),
    whenUntaggedAreManaged: "service-managed",
    whenNot: "service-managed",
  },
  {
    what: "one in a slot that the instance type has not",
    seen: eniSeen(1, { attachment: attachmentAt({ networkCard: 0, deviceIndex: 3 }) }),
    whenUntaggedAreManaged: "beyond-limits",
    whenNot: "beyond-limits",
  },
  {
    what: "one on a card that the instance type has not",
    seen: eniSeen(1, { attachment: attachmentAt({ networkCard: 1, deviceIndex: 1 }) }),
    whenUntaggedAreManaged: "beyond-limits",
    whenNot: "beyond-limits",
  },
];

test.each(ROWS)(
  "$what is $whenUntaggedAreManaged, and $whenNot where untagged ENIs are left alone",
  (row) => {
    const verdict = (manageUntagged: boolean): string => {
      const owner = ownerOf(row.seen, { manageUntagged, limits });
      return owner.kind === "ours" ? "ours" : owner.reason;
    };
    expect([verdict(true), verdict(false)]).toEqual([row.whenUntaggedAreManaged, row.whenNot]);
  },
);

test("only what carries this instance's own tag may be detached", () => {
  expect(detachable(eniSeen(1), INSTANCE.id)).toBe(true);
  expect(detachable(eniSeen(1), "i-2" as InstanceId)).toBe(false);
  expect(detachable(eniSeen(1, tags()), INSTANCE.id)).toBe(false);
  expect(detachable(eniSeen(1, tags(owned, [NO_MANAGE_TAG, "true"])), INSTANCE.id)).toBe(false);
  expect(detachable(eniSeen(1, { requesterManaged: true }), INSTANCE.id)).toBe(false);
});

const CREATED = parseWallTime("2026-01-01T00:00:00.000Z") ?? wallTime(0);
const loose = (change: Partial<EniSeen> = {}): EniSeen =>
  eniSeen(1, { status: "available", attachment: null, ...change });

test.each<{
  readonly what: string;
  readonly seen: EniSeen;
  readonly ageMs: number;
  readonly leaked: boolean;
}>([
  { what: "old enough", seen: loose(), ageMs: 300_000, leaked: true },
  { what: "too young", seen: loose(), ageMs: 299_999, leaked: false },
  { what: "of the future", seen: loose(), ageMs: -1, leaked: false },
  { what: "attached", seen: eniSeen(1), ageMs: 300_000, leaked: false },
  { what: "being made", seen: loose({ status: "pending" }), ageMs: 300_000, leaked: false },
  { what: "of another maker", seen: loose({ description: "by hand" }), ageMs: 300_000, leaked: false },
  { what: "of another instance", seen: loose(tags([OWNER_TAG, "i-2"])), ageMs: 300_000, leaked: false },
  { what: "of unknown age", seen: loose(tags(owned)), ageMs: 300_000, leaked: false },
  {
    what: "of an age that is no date",
    seen: loose(tags(owned, [CREATED_AT_TAG, "old"])),
    ageMs: 300_000,
    leaked: false,
  },
])("an ENI that is $what is leaked: $leaked", ({ seen, ageMs, leaked }) => {
  expect(isLeaked(seen, INSTANCE.id, wallTime(CREATED + ageMs), 300_000)).toBe(leaked);
});
