/** The daemon's table beside the emulator's, which comes from another source: where both are wrong alike, nobody would see it. */
import { expect, test } from "vitest";
import { instanceLimits, knownInstanceTypes } from "../../../src/core/model/instance-limits.ts";
import { eniCountMax } from "../../../src/core/model/instance.ts";
import { carriesPrefixes, instanceTypes } from "../../../src/emulator/instance-types.ts";

/** Two cards, says the AWS VPC CNI's table; one card with the sum, says Karpenter's. The daemon's view is the careful one. */
const CARDS_DIFFER = new Map([
  ["i7ie.48xlarge", [8, 7]],
  ["i7ie.metal-48xl", [8, 7]],
  ["i8ge.48xlarge", [12, 12]],
  ["i8ge.metal-48xl", [12, 12]],
]);

/** Karpenter leaves out what it does not launch (HPC, Trainium 2, high memory metal, withdrawn types). AWS's API model has no c7i.32xlarge. */
const ONLY_OURS =
  /^(bmn-sf1\.metal|c5ad?\.metal|cr1\.8xlarge|hs1\.8xlarge|hpc\w+\.\w+|trn2\.\d+xlarge|u-\d+tb1\.metal|c7i\.32xlarge)$/;

/** Not in the AWS VPC CNI's table: the daemon asks EC2 (DescribeInstanceTypes) for these. */
const ONLY_THEIRS = /^i3\.metal$/;

test("both tables say the same of each type, but for the known differences", () => {
  const different: string[] = [];
  for (const [name, theirs] of instanceTypes()) {
    const ours = instanceLimits(name);
    if (ours === null) continue;
    expect({ name, addresses: ours.addressesPerEni, nitro: ours.nitro, enis: eniCountMax(ours) }).toEqual({
      name,
      addresses: theirs.ipv4SlotsPerEni,
      nitro: carriesPrefixes(theirs),
      enis: theirs.networkCards.reduce((sum, enis) => sum + enis, 0),
    });
    const cards = ours.networkCards.map((card) => card.enis);
    if (cards.join() !== theirs.networkCards.join()) different.push(name);
    if (CARDS_DIFFER.has(name)) expect(cards).toEqual(CARDS_DIFFER.get(name));
  }
  expect(different.toSorted()).toEqual([...CARDS_DIFFER.keys()]);
});

test("each table knows the types that the other knows, but for those with a reason", () => {
  const [ours, theirs] = [knownInstanceTypes(), [...instanceTypes().keys()]];
  expect(ours.length).toBeGreaterThan(1_300);
  expect(new Set(ours).size).toBe(ours.length);
  expect(ours.filter((type) => !theirs.includes(type) && !ONLY_OURS.test(type))).toEqual([]);
  expect(theirs.filter((type) => !ours.includes(type) && !ONLY_THEIRS.test(type))).toEqual([]);
});

test("a type that the table lacks is null, whatever its name", () => {
  expect(instanceLimits("z99.nano")).toBeNull();
  expect(instanceLimits("c5")).toBeNull();
  expect(instanceLimits("")).toBeNull();
  expect(instanceLimits("c5.large c5.xlarge")).toBeNull();
  expect(instanceLimits("m5.4xlarge")).toEqual({
    addressesPerEni: 30,
    networkCards: [{ enis: 8 }],
    nitro: true,
  });
});

test("the sizes that operators know: ENIs times addresses, less one an ENI, and two pods on the host network", () => {
  const maxPods = (type: string): number | null => {
    const limits = instanceLimits(type);
    return limits === null ? null : (limits.networkCards[0]?.enis ?? 0) * (limits.addressesPerEni - 1) + 2;
  };
  const known = {
    "t3.small": 11,
    "t3.medium": 17,
    "m5.large": 29,
    "m5.xlarge": 58,
    "m5.4xlarge": 234,
    "m5.24xlarge": 737,
  };
  for (const [type, pods] of Object.entries(known))
    expect({ type, pods: maxPods(type) }).toEqual({ type, pods });
  expect(instanceLimits("p4d.24xlarge")?.networkCards).toEqual([
    { enis: 15 },
    { enis: 15 },
    { enis: 15 },
    { enis: 15 },
  ]);
  expect(instanceLimits("m4.large")?.nitro).toBe(false);
  expect(instanceLimits("c5.metal")?.nitro).toBe(true); // Names no hypervisor, takes prefixes all the same.
});
