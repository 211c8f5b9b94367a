/** Faults by script: the nth call to an action by a node fails as told, and the world moves behind a node's back. */
import { expect, test } from "vitest";
import { attachEni, call, createEni, oneNode, texts } from "./support.ts";

test("the second matching call fails with the scripted error, the others do not", async () => {
  const { emulator } = oneNode();
  emulator.fault({ kind: "error", action: "DescribeVpcs", nth: 2, code: "InternalError" });
  const statuses: number[] = [];
  for (let i = 0; i < 3; i += 1) statuses.push((await call(emulator, "DescribeVpcs")).status);
  expect(statuses).toEqual([200, 500, 200]);
});

test("a fault for one node leaves the others alone; a node is known by its IMDS credentials or its user agent", async () => {
  const { emulator, instanceId } = oneNode();
  const read = (path: string, token = ""): string =>
    emulator.imds(instanceId, {
      method: path === "/latest/api/token" ? "PUT" : "GET",
      path,
      headers: { "x-aws-ec2-metadata-token-ttl-seconds": "60", "x-aws-ec2-metadata-token": token },
    }).body;
  const token = read("/latest/api/token");
  const credentials = JSON.parse(read("/latest/meta-data/iam/security-credentials/berth-node", token)) as {
    AccessKeyId: string;
  }; // IMDS's own format.
  emulator.fault({ kind: "throttle", node: instanceId, times: 2 });
  expect((await call(emulator, "DescribeVpcs", {}, "AKIAOTHER")).status).toBe(200);
  expect((await call(emulator, "DescribeVpcs", {}, credentials.AccessKeyId)).code).toBe(
    "RequestLimitExceeded",
  );
  const caller = { accessKeyId: "AKIAOTHER", userAgent: `aws-sdk-js/3 app/${instanceId}` };
  const byAgent = await emulator.handle({ action: "DescribeVpcs", parameters: new Map(), caller });
  expect(byAgent.status).toBe(503);
  expect((await call(emulator, "DescribeVpcs", {}, credentials.AccessKeyId)).status).toBe(200);
});

test("a refusal by IAM is 403", async () => {
  const { emulator } = oneNode();
  emulator.fault({ kind: "error", action: "CreateNetworkInterface", code: "UnauthorizedOperation" });
  expect(await call(emulator, "CreateNetworkInterface")).toMatchObject({
    code: "UnauthorizedOperation",
    status: 403,
  });
});

test("a lost answer has happened; a hanging call has not", async () => {
  const world = oneNode();
  world.emulator.fault({ kind: "lost-answer", action: "CreateNetworkInterface" });
  expect((await call(world.emulator, "CreateNetworkInterface", { SubnetId: world.subnetId })).status).toBe(0);
  expect(world.emulator.world().enis.size).toBe(2);
  world.emulator.fault({ kind: "hang", action: "CreateNetworkInterface", forMs: 30_000 });
  let status: number | null = null;
  void call(world.emulator, "CreateNetworkInterface", { SubnetId: world.subnetId }).then((outcome) => {
    status = outcome.status;
  });
  await world.clock.advance(29_999);
  expect(status).toBeNull();
  await world.clock.advance(1);
  expect([status, world.emulator.world().enis.size]).toEqual([0, 2]);
});

test("a slow call takes as much longer as told", async () => {
  const world = oneNode();
  world.emulator.fault({ kind: "slow", action: "DescribeVpcs", forMs: 5_000 });
  let done = false;
  void call(world.emulator, "DescribeVpcs").then(() => {
    done = true;
  });
  await world.clock.advance(4_999);
  expect(done).toBe(false);
  await world.clock.advance(1);
  expect(done).toBe(true);
});

test("stale IMDS shows what it showed, for as long as told", async () => {
  const world = oneNode();
  const { emulator, instanceId } = world;
  const macs = (): number => {
    const headers = { "x-aws-ec2-metadata-token-ttl-seconds": "60" };
    const token = emulator.imds(instanceId, { method: "PUT", path: "/latest/api/token", headers }).body;
    const path = "/latest/meta-data/network/interfaces/macs/";
    return emulator
      .imds(instanceId, { method: "GET", path, headers: { "x-aws-ec2-metadata-token": token } })
      .body.split("\n").length;
  };
  emulator.fault({ kind: "stale-imds", instanceId, forMs: 10_000 });
  await attachEni(world, 1);
  expect(macs()).toBe(1);
  await world.clock.advance(9_999);
  expect(macs()).toBe(1);
  await world.clock.advance(1);
  expect(macs()).toBe(2);
});

test("a slow link and a stuck detach take as long as told, once", async () => {
  const world = oneNode({ options: { timings: { "link-up": 100, detached: 200 } } });
  const events: string[] = [];
  world.emulator.onChange(({ kind }) => void events.push(kind));
  world.emulator.fault({ kind: "slow-link", instanceId: world.instanceId, forMs: 150_000 });
  world.emulator.fault({ kind: "stuck-detaching", forMs: 200_000 });
  const { eniId, attachmentId } = await attachEni(world, 1);
  await world.clock.advance(149_999);
  expect(events).toEqual([]);
  await world.clock.advance(1);
  expect(events).toEqual(["link-up"]);
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: attachmentId });
  await world.clock.advance(199_999);
  expect(world.emulator.world().enis.get(eniId)?.attachment?.status).toBe("detaching");
  await world.clock.advance(1);
  expect(world.emulator.world().enis.get(eniId)?.status).toBe("available");
  const second = await attachEni(world, 2);
  await world.clock.advance(100);
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: second.attachmentId });
  await world.clock.advance(200);
  expect(events).toEqual(["link-up", "link-down", "link-up", "link-down"]);
});

test("Force ends a stuck detach", async () => {
  const world = oneNode({ options: { timings: { detached: 1_000_000 } } });
  const { eniId, attachmentId } = await attachEni(world, 1);
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: attachmentId });
  await call(world.emulator, "DetachNetworkInterface", { AttachmentId: attachmentId, Force: true });
  expect(world.emulator.world().enis.get(eniId)?.status).toBe("available");
  await world.clock.advance(1_000_000); // The first detach comes to its end, and finds nothing to do.
});

test("a foreign ENI stands in our tag space, attached when told", async () => {
  const world = oneNode();
  world.emulator.fault({
    kind: "foreign-eni",
    subnetId: world.subnetId,
    tags: { "node.k8s.amazonaws.com/instance_id": world.instanceId },
  });
  world.emulator.fault({
    kind: "foreign-eni",
    subnetId: world.subnetId,
    instanceId: world.instanceId,
    description: "theirs",
  });
  const tagged = await call(world.emulator, "DescribeNetworkInterfaces", {
    "Filter.1.Name": "tag-key",
    "Filter.1.Value.1": "node.k8s.*",
  });
  expect(texts(tagged.body, "status")).toEqual(["available"]);
  const attached = await call(world.emulator, "DescribeNetworkInterfaces", {
    "Filter.1.Name": "description",
    "Filter.1.Value.1": "theirs",
  });
  expect(texts(attached.body, "deviceIndex")).toEqual(["1"]);
});

test("a neighbour fills the subnet, and gives it back", async () => {
  const world = oneNode();
  world.emulator.fault({ kind: "fill-subnet", subnetId: world.subnetId, leaveFree: 1 });
  await createEni(world);
  expect((await call(world.emulator, "CreateNetworkInterface", { SubnetId: world.subnetId })).code).toBe(
    "InsufficientFreeAddressesInSubnet",
  );
  world.emulator.fault({ kind: "empty-subnet", subnetId: world.subnetId });
  await createEni(world);
});

test("a script that names what does not exist fails loudly", () => {
  const { emulator } = oneNode();
  expect(() => emulator.fault({ kind: "terminate-instance", instanceId: "i-0" })).toThrow("i-0 is known");
});

test("cleared faults do not fire", async () => {
  const { emulator } = oneNode();
  emulator.fault({ kind: "throttle" });
  emulator.clearFaults();
  expect((await call(emulator, "DescribeVpcs")).status).toBe(200);
});

test("on a bad day about one call in fifty is a server error, and every link comes in the end", async () => {
  const world = oneNode({ cidr: "10.0.0.0/20", options: { profile: "bad-day", buckets: null, seed: "bad" } });
  let troubles = 0;
  const calls = Array.from({ length: 1_000 }, async () => {
    const { status } = await call(world.emulator, "DescribeVpcs");
    if (status >= 500) troubles += 1;
  });
  await world.clock.advance(600_000);
  await Promise.all(calls);
  expect(troubles).toBeGreaterThan(5);
  expect(troubles).toBeLessThan(45);
});
