import { expect, test } from "vitest";
import type { EniSeen } from "../../../src/core/model/ec2.ts";
import type { AttachmentId, SecurityGroupId } from "../../../src/core/model/eni.ts";
import { NO_MANAGE_TAG, OWNER_TAG } from "../../../src/core/model/eni-names.ts";
import { findDrift, foreignEnis } from "../../../src/core/reconcile/drift.ts";
import type { NodeState } from "../../../src/core/state/node-state.ts";
import { addressAllocated, addressesLeaving, prefixesLeaving } from "../../../src/core/state/transitions.ts";
import { cidr4, ipv4 } from "../../../src/lib/ip.ts";
import { allocationOf, GROUP } from "../../support/pool-world.ts";
import { attachmentAt, believing, eniSeen, INSTANCE, NOW } from "./worlds.ts";

const PREFIX = cidr4("10.0.32.0/28");
const OPTIONS = { manageUntagged: true, wantedGroups: [GROUP] };

/** Each difference as one line. */
function drift(state: NodeState, seen: readonly EniSeen[], options = OPTIONS): string[] {
  return findDrift(state, seen, options).map((each) => {
    const { kind, key: _key, ...fields } = each;
    const eni = each.kind === "eni-unknown" ? each.seen.id : each.eni;
    const believed = "believed" in fields ? ` ${fields.believed}` : "";
    const ip = "ip" in fields ? ` ${fields.ip}` : "";
    return `${kind} ${eni}${ip}${believed}`;
  });
}

const both = [eniSeen(0), eniSeen(1)];

test("a node that believes what EC2 says has no drift", () => {
  expect(drift(believing(both), both)).toEqual([]);
});

type Row = { readonly what: string; readonly seen: readonly EniSeen[]; readonly told: readonly string[] };

test.each<Row>([
  { what: "an ENI of ours more", seen: [...both, eniSeen(2)], told: ["eni-unknown eni-2"] },
  {
    what: "an ENI that is still attaching",
    seen: [
      ...both,
      eniSeen(2, { attachment: attachmentAt({ networkCard: 0, deviceIndex: 2 }, { status: "attaching" }) }),
    ],
    told: ["eni-unknown eni-2"],
  },
  {
    what: "an ENI on its way off",
    seen: [
      ...both,
      eniSeen(2, { attachment: attachmentAt({ networkCard: 0, deviceIndex: 2 }, { status: "detaching" }) }),
    ],
    told: [],
  },
  { what: "another's ENI more", seen: [...both, eniSeen(2, { interfaceType: "efa" })], told: [] },
  {
    what: "an ENI that is past, by whose own address another has its link here",
    seen: [...both, eniSeen(2, { primaryIp: both[1]?.primaryIp ?? null })],
    told: [],
  },
  { what: "an ENI less", seen: [eniSeen(0)], told: ["eni-missing eni-1"] },
  {
    what: "an address more",
    seen: [eniSeen(0), eniSeen(1, { secondaryIps: [5, 6, 7, 8].map((last) => ipv4(`10.0.1.${last}`)) })],
    told: ["address-unknown eni-1 10.0.1.8"],
  },
  {
    what: "an address less",
    seen: [eniSeen(0), eniSeen(1, { secondaryIps: [5, 6].map((last) => ipv4(`10.0.1.${last}`)) })],
    told: ["address-missing eni-1 10.0.1.7 warm"],
  },
  {
    what: "a prefix more",
    seen: [eniSeen(0), eniSeen(1, { prefixes: [PREFIX] })],
    told: ["prefix-unknown eni-1"],
  },
  {
    what: "an ENI that would outlive its instance",
    seen: [
      eniSeen(0),
      eniSeen(1, {
        attachment: attachmentAt({ networkCard: 0, deviceIndex: 1 }, { deleteOnTermination: false }),
      }),
    ],
    told: ["outlives-instance eni-1"],
  },
  {
    what: "other security groups",
    seen: [eniSeen(0), eniSeen(1, { securityGroups: ["sg-2" as SecurityGroupId] })],
    told: ["groups-differ eni-1"],
  },
  {
    what: "other security groups on the primary ENI, whose they are",
    seen: [eniSeen(0, { securityGroups: ["sg-2" as SecurityGroupId] }), eniSeen(1)],
    told: [],
  },
  {
    what: "an ENI that lost our tag: it stays as it is from now on",
    seen: [eniSeen(0), eniSeen(1, { tags: new Map(), securityGroups: [] })],
    told: ["owner-differs eni-1"],
  },
  {
    what: "an ENI that somebody tagged no_manage",
    seen: [
      eniSeen(0),
      eniSeen(1, {
        tags: new Map([
          [OWNER_TAG, INSTANCE.id],
          [NO_MANAGE_TAG, "true"],
        ]),
      }),
    ],
    told: ["eni-foreign eni-1", "owner-differs eni-1"],
  },
  {
    what: "another attachment of the same ENI",
    seen: [
      eniSeen(0),
      eniSeen(1, {
        attachment: {
          ...attachmentAt({ networkCard: 0, deviceIndex: 1 }),
          id: "eni-attach-x" as AttachmentId,
        },
      }),
    ],
    told: ["owner-differs eni-1"],
  },
])("EC2 lists $what", ({ seen, told }) => {
  expect(drift(believing(both), seen)).toEqual(told);
});

test("what we believe of an address or prefix that is missing is told with it", () => {
  const withPrefixes = [eniSeen(0, { prefixes: [PREFIX, cidr4("10.0.32.16/28"), cidr4("10.0.32.32/28")] })];
  let state = believing(withPrefixes);
  const eni = state.enis.get(withPrefixes[0]?.id ?? eniSeen(0).id);
  if (eni === undefined) throw new Error("no ENI");
  state = addressAllocated(state, allocationOf("a", eni, ipv4("10.0.0.5")), NOW);
  state = addressAllocated(state, allocationOf("b", eni, ipv4("10.0.32.3")), NOW);
  state = addressesLeaving(state, eni.id, [ipv4("10.0.0.6")]);
  state = prefixesLeaving(state, eni.id, [cidr4("10.0.32.16/28")]);
  expect(drift(state, [eniSeen(0, { secondaryIps: [], prefixes: [] })])).toEqual([
    "address-missing eni-0 10.0.0.5 allocated",
    "address-missing eni-0 10.0.0.6 leaving",
    "address-missing eni-0 10.0.0.7 warm",
    "prefix-missing eni-0 allocated",
    "prefix-missing eni-0 leaving",
    "prefix-missing eni-0 free",
  ]);
});

test("each difference has a key of its own", () => {
  const seen = [eniSeen(0, { secondaryIps: [], prefixes: [PREFIX] }), eniSeen(2)];
  const keys = findDrift(believing(both), seen, OPTIONS).map((each) => each.key);
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys.length).toBeGreaterThan(4);
});

test("foreign ENIs are known by slot and reason, and nothing more", () => {
  const seen = [
    ...both,
    eniSeen(2, { interfaceType: "trunk" }),
    eniSeen(3, { interfaceType: "efa", attachment: null }),
  ];
  expect(foreignEnis(seen, { manageUntagged: true, limits: INSTANCE.limits })).toEqual([
    { id: "eni-2", mac: "02:00:00:00:01:02", slot: { networkCard: 0, deviceIndex: 2 }, reason: "trunk" },
  ]);
});
