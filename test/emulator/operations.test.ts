/** What calls answer when they succeed, filters, pages and idempotency tokens. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { instanceTypes } from "../../src/emulator/instance-types.ts";
import { checkWorld } from "../../src/emulator/invariants.ts";
import { attachEni, call, createEni, oneNode, texts } from "./support.ts";

test("an assign answers only the new addresses", async () => {
  const { emulator, eniId, primary } = oneNode();
  const first = await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    SecondaryPrivateIpAddressCount: 3,
  });
  const second = await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    SecondaryPrivateIpAddressCount: 2,
  });
  const [a, b] = [texts(first.body, "privateIpAddress"), texts(second.body, "privateIpAddress")];
  expect([a.length, b.length, new Set([primary, ...a, ...b]).size]).toEqual([3, 2, 6]);
  const described = await call(emulator, "DescribeNetworkInterfaces", { "NetworkInterfaceId.1": eniId });
  const [own, ...set] = texts(described.body, "privateIpAddress");
  expect([own, set]).toEqual([primary, [primary, ...a, ...b]]);
});

test("an assign that names addresses which the ENI has already answers only the others", async () => {
  const { emulator, eniId } = oneNode({ cidr: "10.0.0.0/20" });
  await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    "PrivateIpAddress.1": "10.0.9.1",
  });
  const again = await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    "PrivateIpAddress.1": "10.0.9.1",
    "PrivateIpAddress.2": "10.0.9.2",
  });
  expect(texts(again.body, "privateIpAddress")).toEqual(["10.0.9.2"]);
});

test("with AllowReassignment a secondary address and a prefix move to the new ENI", async () => {
  const world = oneNode({ cidr: "10.0.0.0/20" });
  const other = await createEni(world, { "PrivateIpAddresses.1.PrivateIpAddress": "10.0.9.1" });
  const third = await createEni(world, { "Ipv4Prefix.1.Ipv4Prefix": "10.0.10.0/28" });
  for (const what of [{ "PrivateIpAddress.1": "10.0.9.1" }, { "Ipv4Prefix.1": "10.0.10.0/28" }]) {
    const moved = await call(world.emulator, "AssignPrivateIpAddresses", {
      NetworkInterfaceId: world.eniId,
      AllowReassignment: true,
      ...what,
    });
    expect(moved.status).toBe(200);
  }
  const enis = world.emulator.world().enis;
  expect([enis.get(other)?.secondaries, enis.get(third)?.prefixes]).toEqual([[], []]);
  expect([enis.get(world.eniId)?.secondaries, enis.get(world.eniId)?.prefixes]).toEqual([
    ["10.0.9.1"],
    ["10.0.10.0"],
  ]);
  checkWorld(world.emulator.world());
});

test("an unassign with one wrong address takes none away", async () => {
  const { emulator, eniId } = oneNode();
  const { body } = await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    SecondaryPrivateIpAddressCount: 2,
  });
  const [first = ""] = texts(body, "privateIpAddress");
  const refused = await call(emulator, "UnassignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    "PrivateIpAddress.1": first,
    "PrivateIpAddress.2": "10.0.0.1",
  });
  expect([refused.code, emulator.world().enis.get(eniId)?.secondaries.length]).toEqual([
    "InvalidParameterValue",
    2,
  ]);
});

test("a prefix costs sixteen addresses of the subnet and one slot of the ENI", async () => {
  const { emulator, eniId, subnetId } = oneNode({ cidr: "10.0.0.0/20" });
  const free = async (): Promise<number> =>
    Number(
      texts(
        (await call(emulator, "DescribeSubnets", { "SubnetId.1": subnetId })).body,
        "availableIpAddressCount",
      )[0],
    );
  const before = await free();
  const assigned = await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    Ipv4PrefixCount: 9,
  });
  expect([texts(assigned.body, "ipv4Prefix").length, before - (await free())]).toEqual([9, 9 * 16]);
  const tenth = await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    Ipv4PrefixCount: 1,
  });
  expect(tenth.code).toBe("PrivateIpAddressLimitExceeded");
});

test("a create says pending, the next describe available, and an attached ENI outlives its instance unless told otherwise", async () => {
  const world = oneNode();
  const created = await call(world.emulator, "CreateNetworkInterface", { SubnetId: world.subnetId });
  expect(texts(created.body, "status")).toEqual(["pending"]);
  const [id = ""] = texts(created.body, "networkInterfaceId");
  expect(
    texts(
      (await call(world.emulator, "DescribeNetworkInterfaces", { "NetworkInterfaceId.1": id })).body,
      "status",
    ),
  ).toEqual(["available"]);
  const kept = await attachEni(world, 1);
  const goes = await attachEni(world, 2);
  await call(world.emulator, "ModifyNetworkInterfaceAttribute", {
    NetworkInterfaceId: goes.eniId,
    "Attachment.AttachmentId": goes.attachmentId,
    "Attachment.DeleteOnTermination": true,
  });
  await call(world.emulator, "TerminateInstances", { "InstanceId.1": world.instanceId });
  const { enis, instances } = world.emulator.world();
  expect([enis.get(kept.eniId)?.status, enis.has(goes.eniId), enis.has(world.eniId)]).toEqual([
    "available",
    false,
    false,
  ]);
  expect(instances.get(world.instanceId)?.state).toBe("terminated");
});

test("an instance is launched with the addresses and prefixes that the call asks for", async () => {
  const { emulator, subnetId } = oneNode({ cidr: "10.0.0.0/20" });
  const run = (extra: Record<string, string | number>) =>
    call(emulator, "RunInstances", {
      ImageId: "ami-1",
      InstanceType: "m5.xlarge",
      MinCount: 1,
      MaxCount: 1,
      "NetworkInterface.1.DeviceIndex": 0,
      "NetworkInterface.1.SubnetId": subnetId,
      ...extra,
    });
  const secondaries = await run({ "NetworkInterface.1.SecondaryPrivateIpAddressCount": 14 });
  expect(texts(secondaries.body, "primary")).toEqual(["true", ...Array.from({ length: 14 }, () => "false")]);
  const prefixes = await run({ "NetworkInterface.1.Ipv4PrefixCount": 3 });
  expect(texts(prefixes.body, "ipv4Prefix")).toHaveLength(3);
});

test("a launch gives as many instances as there is room for, between the least and the most", async () => {
  const { emulator, subnetId } = oneNode();
  emulator.fault({ kind: "fill-subnet", subnetId, leaveFree: 3 });
  const run = (least: number) =>
    call(emulator, "RunInstances", {
      ImageId: "ami-1",
      InstanceType: "m5.large",
      SubnetId: subnetId,
      MinCount: least,
      MaxCount: 5,
    });
  expect((await run(4)).code).toBe("InsufficientFreeAddressesInSubnet");
  expect(new Set(texts((await run(2)).body, "instanceId")).size).toBe(3);
});

test("an ENI on a second network card is attached beside device 0, and each card has its own limit", async () => {
  const world = oneNode({ type: "c8gn.48xlarge" });
  const attach = async (card: number, device: number) =>
    call(world.emulator, "AttachNetworkInterface", {
      NetworkInterfaceId: await createEni(world),
      InstanceId: world.instanceId,
      DeviceIndex: device,
      NetworkCardIndex: card,
    });
  expect((await attach(1, 0)).body).toContain("<networkCardIndex>1</networkCardIndex>");
  for (let device = 1; device < 12; device += 1) expect((await attach(1, device)).status).toBe(200);
  expect((await attach(1, 12)).message).toBe("Interface count 13 exceeds the limit for c8gn.48xlarge");
  expect((await attach(2, 0)).code).toBe("InvalidParameterValue");
});

test("the same client token and arguments give the same ENI; other arguments are refused", async () => {
  const { emulator, subnetId } = oneNode();
  const ask = { SubnetId: subnetId, ClientToken: "t-1", SecondaryPrivateIpAddressCount: 2 };
  const first = await call(emulator, "CreateNetworkInterface", ask);
  const again = await call(emulator, "CreateNetworkInterface", ask);
  expect(texts(again.body, "networkInterfaceId")).toEqual(texts(first.body, "networkInterfaceId"));
  expect(emulator.world().enis.size).toBe(2);
  const other = await call(emulator, "CreateNetworkInterface", { ...ask, SecondaryPrivateIpAddressCount: 3 });
  expect(other).toMatchObject({
    code: "IdempotentParameterMismatch",
    message:
      "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
  });
});

test("filters know wildcards, tags and attachments, and all of them must match", async () => {
  const world = oneNode();
  const tagged = await createEni(world, {
    Description: "aws-K8S-i-1",
    "TagSpecification.1.ResourceType": "network-interface",
    "TagSpecification.1.Tag.1.Key": "owner",
    "TagSpecification.1.Tag.1.Value": "berth*",
  });
  const other = await createEni(world, { Description: "something" });
  const { eniId: attached } = await attachEni(world, 1);
  const find = async (filters: readonly (readonly [string, ...string[]])[]): Promise<readonly string[]> => {
    const parameters = Object.fromEntries(
      filters.flatMap(([name, ...values], i) => [
        [`Filter.${i + 1}.Name`, name],
        ...values.map((value, j) => [`Filter.${i + 1}.Value.${j + 1}`, value]),
      ]),
    ) as Record<string, string>; // Pairs of texts, as made just above.
    return texts(
      (await call(world.emulator, "DescribeNetworkInterfaces", parameters)).body,
      "networkInterfaceId",
    );
  };
  expect(await find([["description", "aws-K8S-*"]])).toEqual([tagged]);
  expect(await find([["description", "some?hing"]])).toEqual([other]);
  expect(await find([["tag:owner", "berth\\*"]])).toEqual([tagged]);
  expect(await find([["tag:owner", "berthX"]])).toEqual([]);
  expect(await find([["tag:owner", "bert\\*"]])).toEqual([]); // The star is a letter here.
  expect(await find([["tag-key", "owner"]])).toEqual([tagged]);
  expect(await find([["status", "available"]])).toEqual([tagged, other]);
  expect(
    await find([
      ["status", "available"],
      ["description", "something", "nothing"],
    ]),
  ).toEqual([other]);
  expect(
    await find([
      ["attachment.instance-id", world.instanceId],
      ["attachment.device-index", "1"],
    ]),
  ).toEqual([attached]);
  expect(await find([["addresses.private-ip-address", world.primary]])).toEqual([world.eniId]);
  expect(
    await find([
      ["vpc-id", world.vpcId],
      ["subnet-id", world.subnetId],
    ]),
  ).toHaveLength(4);
});

test("pages join to the whole list, also when an ENI goes between two of them", async () => {
  const world = oneNode();
  const all = [world.eniId];
  for (let i = 0; i < 11; i += 1) all.push(await createEni(world));
  const pageOf = (extra: Record<string, string>) =>
    call(world.emulator, "DescribeNetworkInterfaces", { MaxResults: 5, ...extra });
  const first = await pageOf({});
  const [token = ""] = texts(first.body, "nextToken");
  await call(world.emulator, "DeleteNetworkInterface", { NetworkInterfaceId: all[4] ?? "" });
  const second = await pageOf({ NextToken: token });
  const third = await pageOf({ NextToken: texts(second.body, "nextToken")[0] ?? "" });
  expect([first, second, third].flatMap(({ body }) => texts(body, "networkInterfaceId"))).toEqual(all);
  expect(texts(third.body, "nextToken")).toEqual([]);
});

test("tags are set, shown and deleted, a value that differs keeps its tag", async () => {
  const { emulator, eniId } = oneNode();
  await call(emulator, "CreateTags", {
    "ResourceId.1": eniId,
    "Tag.1.Key": "a",
    "Tag.1.Value": "1",
    "Tag.2.Key": "b",
    "Tag.2.Value": "<&>",
  });
  const shown = await call(emulator, "DescribeTags", {
    "Filter.1.Name": "resource-id",
    "Filter.1.Value.1": eniId,
  });
  expect([texts(shown.body, "key"), texts(shown.body, "value")]).toEqual([
    ["a", "b"],
    ["1", "&lt;&amp;&gt;"],
  ]);
  await call(emulator, "DeleteTags", {
    "ResourceId.1": eniId,
    "Tag.1.Key": "a",
    "Tag.1.Value": "2",
    "Tag.2.Key": "b",
  });
  expect(emulator.world().enis.get(eniId)?.tags).toEqual({ a: "1" });
});

test("a prefix reservation feeds prefixes first and gives no single address", async () => {
  const world = oneNode({ cidr: "10.0.0.0/24", type: "m5.4xlarge" });
  await call(world.emulator, "CreateSubnetCidrReservation", {
    SubnetId: world.subnetId,
    Cidr: "10.0.0.128/25",
    ReservationType: "prefix",
  });
  const prefix = await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    Ipv4PrefixCount: 1,
  });
  expect(Number(texts(prefix.body, "ipv4Prefix")[0]?.split(/[./]/)[3])).toBeGreaterThanOrEqual(128);
  const singles = await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    SecondaryPrivateIpAddressCount: 28,
  });
  for (const ip of texts(singles.body, "privateIpAddress"))
    expect(Number(ip.split(".")[3])).toBeLessThan(128);
});

test("the table of instance types is large, plausible, and has network cards", () => {
  const types = instanceTypes();
  expect(types.size).toBeGreaterThanOrEqual(300);
  const facts = [
    "t3.small",
    "t3.medium",
    "m5.large",
    "m5.xlarge",
    "m5.4xlarge",
    "m5.16xlarge",
    "p4d.24xlarge",
  ].map((name) => {
    const type = types.get(name);
    return [name, type?.eniCountMax, type?.ipv4SlotsPerEni, type?.networkCards.length];
  });
  expect(facts).toEqual([
    ["t3.small", 3, 4, 1],
    ["t3.medium", 3, 6, 1],
    ["m5.large", 3, 10, 1],
    ["m5.xlarge", 4, 15, 1],
    ["m5.4xlarge", 8, 30, 1],
    ["m5.16xlarge", 15, 50, 1],
    ["p4d.24xlarge", 60, 50, 4],
  ]);
});

test("whatever calls come in whatever order, the world stays sound and no id returns", async () => {
  const step = fc.record({
    kind: fc.integer({ min: 0, max: 7 }),
    pick: fc.nat(1000),
    count: fc.integer({ min: 1, max: 4 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), fc.string(), async (steps, seed) => {
      const world = oneNode({ cidr: "10.0.0.0/26", options: { seed } });
      const { emulator } = world;
      const seen = new Set(emulator.world().enis.keys());
      let alive = new Set(seen);
      for (const { kind, pick, count } of steps) {
        const enis = [...emulator.world().enis.values()];
        const eni = enis[pick % enis.length];
        const NetworkInterfaceId = eni?.id ?? "";
        if (kind === 0)
          await call(emulator, "CreateNetworkInterface", {
            SubnetId: world.subnetId,
            SecondaryPrivateIpAddressCount: count,
          });
        if (kind === 1)
          await call(emulator, "AssignPrivateIpAddresses", {
            NetworkInterfaceId,
            SecondaryPrivateIpAddressCount: count,
          });
        if (kind === 2)
          await call(emulator, "AssignPrivateIpAddresses", { NetworkInterfaceId, Ipv4PrefixCount: 1 });
        if (kind === 3)
          await call(emulator, "UnassignPrivateIpAddresses", {
            NetworkInterfaceId,
            "PrivateIpAddress.1": eni?.secondaries[0] ?? "",
          });
        if (kind === 4)
          await call(emulator, "AttachNetworkInterface", {
            NetworkInterfaceId,
            InstanceId: world.instanceId,
            DeviceIndex: count,
          });
        if (kind === 5)
          await call(emulator, "DetachNetworkInterface", { AttachmentId: eni?.attachment?.id ?? "" });
        if (kind === 6) await call(emulator, "DeleteNetworkInterface", { NetworkInterfaceId });
        if (kind === 7) {
          const ip = enis[(pick + 1) % enis.length]?.secondaries[0] ?? "";
          await call(emulator, "AssignPrivateIpAddresses", {
            NetworkInterfaceId,
            "PrivateIpAddress.1": ip,
            AllowReassignment: true,
          });
        }
        checkWorld(emulator.world());
        const now = new Set(emulator.world().enis.keys());
        for (const id of now) if (!alive.has(id)) expect(seen.has(id)).toBe(false);
        for (const id of now) seen.add(id);
        alive = now;
      }
    }),
    { numRuns: 40 },
  );
});

test("a Nitro instance is said to run on xen, as EC2 says of all; Assign says what is new and no more", async () => {
  const world = oneNode();
  const instances = await call(world.emulator, "DescribeInstances", {});
  expect(texts(instances.body, "hypervisor")).toEqual(["xen"]);
  const assigned = await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    SecondaryPrivateIpAddressCount: 1,
  });
  expect(texts(assigned.body, "return")).toEqual([]); // AWS's model of the operation has no such member.
});
