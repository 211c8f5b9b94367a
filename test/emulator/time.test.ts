/** What takes time: calls, attachments, links, and views that lag behind writes. Time is moved, not waited for. */
import { expect, test } from "vitest";
import type { EmulatorEvent } from "../../src/emulator/events.ts";
import { drawMs, PROFILES } from "../../src/emulator/timings.ts";
import { seededRandom } from "../../src/lib/random.ts";
import { attachEni, call, createEni, oneNode, texts, type World1 } from "./support.ts";

const imds = ({ emulator, instanceId }: World1, path: string): string | number => {
  const tokenAsk = {
    method: "PUT",
    path: "/latest/api/token",
    headers: { "x-aws-ec2-metadata-token-ttl-seconds": "60" },
  };
  const token = emulator.imds(instanceId, tokenAsk).body;
  const reply = emulator.imds(instanceId, {
    method: "GET",
    path: `/latest/meta-data/${path}`,
    headers: { "x-aws-ec2-metadata-token": token },
  });
  return reply.status === 200 ? reply.body : reply.status;
};

const statusOf = (world: World1, eniId: string): string => {
  const eni = world.emulator.world().enis.get(eniId);
  return `${eni?.status} ${eni?.attachment?.status ?? "-"}`;
};

test("an attach is answered first, the attachment settles later, and the link appears in its own time", async () => {
  const world = oneNode({ options: { timings: { attached: 400, "link-up": 1_600 } } });
  const events: EmulatorEvent[] = [];
  world.emulator.onChange((event) => void events.push(event));
  const { eniId } = await attachEni(world, 1, { SecondaryPrivateIpAddressCount: 2 });
  expect(statusOf(world, eniId)).toBe("in-use attaching");
  await world.clock.advance(400);
  expect([statusOf(world, eniId), events]).toEqual(["in-use attached", []]);
  await world.clock.advance(1_200);
  const eni = world.emulator.world().enis.get(eniId);
  expect(events).toMatchObject([
    {
      kind: "link-up",
      eniId,
      instanceId: world.instanceId,
      mac: eni?.mac,
      deviceIndex: 1,
      networkCardIndex: 0,
      primary: eni?.primary,
      prefixes: [],
    },
  ]);
  expect(events[0]).toMatchObject({
    ips: [eni?.primary, ...(eni?.secondaries ?? [])],
    subnetCidr: { network: "10.0.0.0", prefixLength: 24 },
  });
});

test("a detach goes through detaching to available; then the link goes", async () => {
  const world = oneNode({ options: { timings: { detached: 3_000 } } });
  const { eniId, attachmentId } = await attachEni(world, 1);
  const events: string[] = [];
  world.emulator.onChange(({ kind }) => void events.push(kind));
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: attachmentId });
  expect([statusOf(world, eniId), events]).toEqual(["in-use detaching", []]);
  await world.clock.advance(3_000);
  expect([statusOf(world, eniId), events]).toEqual(["available -", ["link-down"]]);
});

test("a link that would come after its ENI has left never comes", async () => {
  const world = oneNode({ options: { timings: { "link-up": 5_000 } } });
  const { attachmentId } = await attachEni(world, 1);
  const events: string[] = [];
  world.emulator.onChange(({ kind }) => void events.push(kind));
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: attachmentId });
  await world.clock.advance(10_000);
  expect(events).toEqual([]);
});

test("addresses and their loss are told to the fabric", async () => {
  const world = oneNode();
  const events: EmulatorEvent[] = [];
  world.emulator.onChange((event) => void events.push(event));
  const { body } = await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    SecondaryPrivateIpAddressCount: 1,
  });
  const [ip = ""] = texts(body, "privateIpAddress");
  await call(world.emulator, "UnassignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    "PrivateIpAddress.1": ip,
  });
  expect(events).toMatchObject([
    { kind: "addresses", eniId: world.eniId, instanceId: world.instanceId, ips: [world.primary, ip] },
    { kind: "addresses", eniId: world.eniId, ips: [world.primary] },
  ]);
});

test("an address that moves is taken from the one ENI before the other has it", async () => {
  const world = oneNode();
  const { eniId } = await attachEni(world, 1, { "PrivateIpAddresses.1.PrivateIpAddress": "10.0.0.99" });
  const events: EmulatorEvent[] = [];
  world.emulator.onChange((event) => void events.push(event));
  await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    "PrivateIpAddress.1": "10.0.0.99",
    AllowReassignment: true,
  });
  expect(events).toMatchObject([
    { kind: "addresses", eniId },
    { kind: "addresses", eniId: world.eniId, ips: [world.primary, "10.0.0.99"] },
  ]);
});

test("a call commits before it answers", async () => {
  const world = oneNode({ options: { timings: { CreateNetworkInterface: 1_000 } } });
  let answered = false;
  const pending = createEni(world).then((id) => {
    answered = true;
    return id;
  });
  await world.clock.advance(799);
  expect(world.emulator.world().enis.size).toBe(1);
  await world.clock.advance(1);
  expect([world.emulator.world().enis.size, answered]).toEqual([2, false]);
  await world.clock.advance(200);
  expect(answered).toBe(true);
  await pending;
});

test("describes lag behind writes, and a young ENI is NotFound", async () => {
  const world = oneNode({ options: { timings: { "describe-lag": 300 } } });
  const eniId = await createEni(world);
  expect(
    (await call(world.emulator, "DescribeNetworkInterfaces", { "NetworkInterfaceId.1": eniId })).code,
  ).toBe("InvalidNetworkInterfaceID.NotFound");
  await world.clock.advance(299);
  expect(
    (await call(world.emulator, "DescribeNetworkInterfaces", { "NetworkInterfaceId.1": eniId })).status,
  ).toBe(400);
  await world.clock.advance(1);
  expect(
    (await call(world.emulator, "DescribeNetworkInterfaces", { "NetworkInterfaceId.1": eniId })).status,
  ).toBe(200);
});

test("what a seed made was there for ever: no describe lags behind it", async () => {
  const world = oneNode({ options: { timings: { "describe-lag": 300 } } });
  expect((await call(world.emulator, "DescribeInstances", { "InstanceId.1": world.instanceId })).status).toBe(
    200,
  );
});

test("IMDS lags in its own way, in both directions", async () => {
  const world = oneNode({ options: { timings: { "imds-attach": 500, "imds-change": 200 } } });
  const macs = () => String(imds(world, "network/interfaces/macs/")).split("\n").length;
  const { attachmentId } = await attachEni(world, 1);
  expect(macs()).toBe(1);
  await world.clock.advance(500);
  expect(macs()).toBe(2);
  await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    SecondaryPrivateIpAddressCount: 1,
  });
  const ips = () =>
    String(imds(world, `network/interfaces/macs/${world.mac}/local-ipv4s`)).split("\n").length;
  expect(ips()).toBe(1);
  await world.clock.advance(200);
  expect(ips()).toBe(2);
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: attachmentId });
  expect([world.emulator.world().enis.size, macs()]).toEqual([2, 2]);
  await world.clock.advance(500);
  expect(macs()).toBe(1);
});

test("equal seeds give equal runs, whatever another node does in between", async () => {
  const run = async (withNeighbour: boolean): Promise<readonly string[]> => {
    const world = oneNode({ cidr: "10.0.0.0/20", options: { profile: "typical", seed: "s" } });
    const times: number[] = [];
    for (let i = 0; i < 5; i += 1) {
      if (withNeighbour)
        void call(
          world.emulator,
          "AssignPrivateIpAddresses",
          { NetworkInterfaceId: "eni-x", SecondaryPrivateIpAddressCount: 1 },
          "AKIAOTHER",
        );
      const begun = world.clock.now();
      const state = { done: false };
      void call(world.emulator, "AssignPrivateIpAddresses", {
        NetworkInterfaceId: world.eniId,
        SecondaryPrivateIpAddressCount: 1,
      }).then(() => {
        state.done = true;
      });
      while (!state.done) await world.clock.advance(1);
      times.push(world.clock.now() - begun);
    }
    return [...times.map(String), ...(world.emulator.world().enis.get(world.eniId)?.secondaries ?? [])];
  };
  const alone = await run(false);
  expect(await run(false)).toEqual(alone);
  expect(await run(true)).toEqual(alone);
});

test("the typical profile has the medians and 99th percentiles that others measured", () => {
  const random = seededRandom("typical");
  const draws = Array.from({ length: 20_000 }, () =>
    drawMs(PROFILES.typical, "AttachNetworkInterface", random, "call"),
  ).sort((a, b) => a - b);
  const [median = 0, p99 = 0] = [draws[10_000], draws[19_800]];
  expect(median).toBeGreaterThan(440 * 0.97);
  expect(median).toBeLessThan(440 * 1.03);
  expect(p99).toBeGreaterThan(1_600 * 0.9);
  expect(p99).toBeLessThan(1_600 * 1.1);
});
