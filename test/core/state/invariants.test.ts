/** Each row breaks a sound node in one way; the sentence about it must say where. */
import { expect, test } from "vitest";
import type { Eni, EniId, PoolAddress } from "../../../src/core/model/eni.ts";
import { sandboxId, type SandboxId } from "../../../src/core/model/sandbox.ts";
import { checkInvariants } from "../../../src/core/state/invariants.ts";
import type { NodeState } from "../../../src/core/state/node-state.ts";
import { cidr4, ipv4, type Ipv4 } from "../../../src/lib/ip.ts";
import { instant } from "../../../src/lib/time.ts";
import { bootedNode, keyOf, M5_LARGE, podsStart, settingsOf, settle } from "../../support/pool-world.ts";

const NOW = instant(1_000_000);
const sound = podsStart(
  settle(bootedNode(M5_LARGE), settingsOf({ warmEniTarget: 2 }), NOW).state,
  settingsOf({}),
  NOW,
  12,
);
const prefixed = settle(bootedNode(M5_LARGE), settingsOf({ prefixDelegation: true }), NOW).state;
const [ZERO, ONE] = [...sound.enis.keys()] as [EniId, EniId]; // Two ENIs by construction.
const SANDBOX = sandboxId(keyOf("pod-0"));

function withEni(id: EniId, change: (eni: Eni) => Partial<Eni>, state: NodeState = sound): NodeState {
  const eni = state.enis.get(id);
  if (eni === undefined) throw new Error(`no ${id}`);
  return { ...state, enis: new Map(state.enis).set(id, { ...eni, ...change(eni) }) };
}

function withAddress(id: EniId, ip: Ipv4, address: PoolAddress, state: NodeState = sound): NodeState {
  return withEni(id, (eni) => ({ addresses: new Map(eni.addresses).set(ip, address) }), state);
}

const firstIp = [...(sound.enis.get(ZERO)?.addresses.keys() ?? [])][0] ?? ipv4("0.0.0.0");
const warm = (ip: Ipv4): PoolAddress => ({ ip, by: "secondary", kind: "warm" });
const primaryIp = (id: EniId): Ipv4 => sound.enis.get(id)?.primaryIp ?? ipv4("0.0.0.0");
const allocation = sound.allocations.get(SANDBOX);
if (allocation === undefined) throw new Error("pod-0 runs");

const rows: readonly (readonly [string, NodeState, string])[] = [
  [
    "an ENI filed under another id",
    { ...sound, enis: new Map(sound.enis).set("eni-x" as EniId, [...sound.enis.values()][1] as Eni) },
    "filed under eni-x",
  ],
  ["an address on two ENIs", withAddress(ONE, firstIp, warm(firstIp)), `${firstIp} is on eni-0 and on eni-1`],
  [
    "an ENI's own address in its pool",
    withAddress(ONE, primaryIp(ONE), warm(primaryIp(ONE))),
    "its own address",
  ],
  [
    "an ENI's own address in another's pool",
    withAddress(ZERO, primaryIp(ONE), warm(primaryIp(ONE))),
    "is on eni-",
  ],
  ["an address filed under another", withAddress(ZERO, firstIp, warm(ipv4("10.0.9.9"))), "filed under"],
  [
    "an address outside the subnet",
    withAddress(ZERO, ipv4("10.9.0.1"), warm(ipv4("10.9.0.1"))),
    "outside its subnet",
  ],
  [
    "too many addresses",
    withAddress(ZERO, ipv4("10.0.9.9"), warm(ipv4("10.0.9.9"))),
    "10 addresses and prefixes where 9",
  ],
  [
    "two ENIs in one slot",
    withEni(ONE, () => ({ slot: { networkCard: 0, deviceIndex: 0 } })),
    "both at card 0 index 0",
  ],
  [
    "one MAC twice",
    withEni(ONE, () => ({ mac: sound.enis.get(ZERO)?.mac ?? ("" as never) })),
    "have the MAC",
  ],
  ["two primary ENIs", withEni(ONE, () => ({ role: "primary" })), "both primary"],
  [
    "a card that is not there",
    withEni(ONE, () => ({ slot: { networkCard: 3, deviceIndex: 1 } })),
    "card that the instance has not",
  ],
  [
    "the primary ENI leaving",
    withEni(ZERO, () => ({ phase: { kind: "leaving", since: NOW } })),
    "primary ENI is leaving",
  ],
  [
    "an ENI leaving under a pod",
    withEni(ONE, () => ({ phase: { kind: "leaving", since: NOW } })),
    "is leaving while",
  ],
  [
    "an ENI attached and loose",
    { ...sound, loose: new Map([[ONE, { id: ONE, attachmentId: null, since: NOW }]]) },
    "attached and loose",
  ],
  [
    "an ENI ours and foreign",
    {
      ...sound,
      foreign: [
        {
          id: ONE,
          mac: "02:00:00:00:00:99" as never,
          slot: { networkCard: 0, deviceIndex: 2 },
          reason: "efa",
        },
      ],
    },
    "ours and foreign",
  ],
  [
    "an allocation without its address being allocated",
    withAddress(ZERO, firstIp, warm(firstIp)),
    "which is warm",
  ],
  [
    "an allocated address of no known sandbox",
    withAddress(ZERO, firstIp, { ...warm(firstIp), kind: "allocated", sandbox: "a/b/c" as SandboxId }),
    "of which there is no such record",
  ],
  [
    "one address given to two",
    {
      ...sound,
      allocations: new Map(sound.allocations).set("net/x/eth0" as SandboxId, {
        ...allocation,
        id: "net/x/eth0" as SandboxId,
        key: keyOf("x"),
      }),
    },
    "is given to",
  ],
  [
    "an allocation filed under another sandbox",
    { ...sound, allocations: new Map(sound.allocations).set(SANDBOX, { ...allocation, key: keyOf("x") }) },
    "is filed under",
  ],
  [
    "an allocation plumbed for another slot",
    {
      ...sound,
      allocations: new Map(sound.allocations).set(SANDBOX, {
        ...allocation,
        eniSlot: { networkCard: 0, deviceIndex: 2 },
      }),
    },
    "was plumbed for",
  ],
  [
    "a prefix that is not aligned",
    withEni(ZERO, () => ({ prefixes: [{ network: ipv4("10.0.32.8"), prefixLength: 28 }] }), prefixed),
    "not aligned",
  ],
  [
    "a prefix of another length",
    withEni(ZERO, () => ({ prefixes: [cidr4("10.0.32.0/27")] }), prefixed),
    "no /28",
  ],
  [
    "a prefix that is not ours any more",
    withEni(ZERO, () => ({ prefixes: [] }), prefixed),
    "of a prefix that it does not have",
  ],
  [
    "a prefix without all its addresses",
    withEni(ZERO, (eni) => ({ addresses: new Map([...eni.addresses].slice(1)) }), prefixed),
    "has 15 of its 16 addresses",
  ],
  ["half an ADD waiting", { ...sound, waiting: 0.5 }, "ADDs are waiting"],
];

test("a node that runs pods is sound", () => {
  expect(checkInvariants(sound)).toEqual([]);
  expect(checkInvariants(prefixed)).toEqual([]);
});

test.each(rows)("%s is found", (_, state, sentence) => {
  expect(checkInvariants(state).join("\n")).toContain(sentence);
});

test("an address that EC2 took away under a running pod leaves the record alone, and that is sound", () => {
  const gone = withEni(ZERO, (eni) => ({
    addresses: new Map([...eni.addresses].filter(([ip]) => ip !== firstIp)),
  }));
  expect(checkInvariants(gone)).toEqual([]);
});
