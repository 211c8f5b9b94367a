/** IMDSv2: tokens, status codes, listings and every item that a CNI reads. */
import { expect, test } from "vitest";
import { createEmulator } from "../../src/emulator/emulator.ts";
import { attachEni, call, oneNode, type World1 } from "./support.ts";

const TTL = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN = "x-aws-ec2-metadata-token";

const ask = (
  { emulator, instanceId }: World1,
  method: string,
  path: string,
  headers: Record<string, string> = {},
) => emulator.imds(instanceId, { method, path, headers });

const get = (world: World1, path: string): string | number => {
  const token = ask(world, "PUT", "/latest/api/token", { [TTL]: "60" }).body;
  const { status, body } = ask(world, "GET", `/latest/${path}`, { [TOKEN]: token });
  return status === 200 ? body : status;
};

test("a token comes by PUT with a lifetime between 1 and 21600 seconds, which is echoed", () => {
  const world = oneNode();
  const given = ask(world, "PUT", "/latest/api/token", { [TTL]: "21600" });
  expect([given.status, given.headers[TTL], given.headers["Content-Type"]]).toEqual([
    200,
    "21600",
    "text/plain",
  ]);
  expect(given.body).toMatch(/^[\w-]{54}==$/);
  const statuses = ["", "0", "21601", "sixty", "-1"].map(
    (ttl) => ask(world, "PUT", "/latest/api/token", { [TTL]: ttl }).status,
  );
  expect(statuses).toEqual([400, 400, 400, 400, 400]);
  expect(ask(world, "PUT", "/latest/api/token").status).toBe(400);
});

test("a token is refused behind a proxy and on a versioned path, and comes by no other method", () => {
  const world = oneNode();
  expect(ask(world, "PUT", "/latest/api/token", { [TTL]: "60", "x-forwarded-for": "10.0.0.9" }).status).toBe(
    403,
  );
  expect(ask(world, "PUT", "/2021-07-15/api/token", { [TTL]: "60" }).status).toBe(403);
  expect(ask(world, "GET", "/latest/api/token", { [TTL]: "60" }).status).toBe(405);
  expect(ask(world, "POST", "/latest/meta-data/", {}).status).toBe(405);
});

test("a read without a token, or with a wrong, foreign or expired one, is 401", async () => {
  const world = oneNode();
  const other = world.emulator.seed.launch({ type: "m5.large", subnetId: world.subnetId });
  const read = (headers: Record<string, string>) =>
    ask(world, "GET", "/latest/meta-data/instance-id", headers).status;
  const token = ask(world, "PUT", "/latest/api/token", { [TTL]: "5" }).body;
  const foreign = ask({ ...world, instanceId: other.instanceId }, "PUT", "/latest/api/token", {
    [TTL]: "5",
  }).body;
  expect([read({}), read({ [TOKEN]: "x" }), read({ [TOKEN]: foreign }), read({ [TOKEN]: token })]).toEqual([
    401, 401, 401, 200,
  ]);
  await world.clock.advance(5_000);
  expect(read({ [TOKEN]: token })).toBe(401);
});

test("where tokens are optional, none is well and a wrong one is not; where IMDS is off, all is 403", () => {
  const optional = oneNode({ options: { imds: { tokenRequired: false } } });
  expect(ask(optional, "GET", "/latest/meta-data/instance-id").body).toBe(optional.instanceId);
  expect(ask(optional, "GET", "/latest/meta-data/instance-id", { [TOKEN]: "x" }).status).toBe(401);
  const off = oneNode({ options: { imds: { enabled: false } } });
  expect([
    ask(off, "PUT", "/latest/api/token", { [TTL]: "60" }).status,
    ask(off, "GET", "/latest/").status,
  ]).toEqual([403, 403]);
});

test("items that a CNI reads of its node", () => {
  const world = oneNode();
  const items = [
    "instance-id",
    "instance-type",
    "mac",
    "local-ipv4",
    "placement/availability-zone",
    "placement/region",
    "hostname",
  ];
  expect(items.map((item) => get(world, `meta-data/${item}`))).toEqual([
    world.instanceId,
    "m5.large",
    world.mac,
    world.primary,
    "eu-west-1a",
    "eu-west-1",
    `ip-${world.primary.replaceAll(".", "-")}.eu-west-1.compute.internal`,
  ]);
  const document = JSON.parse(String(get(world, "dynamic/instance-identity/document"))) as Record<
    string,
    unknown
  >; // A JSON object by its format.
  expect(document).toMatchObject({
    region: "eu-west-1",
    instanceId: world.instanceId,
    instanceType: "m5.large",
    accountId: "123456789012",
  });
});

test("items that a CNI reads of each ENI: primary first, prefixes apart and absent when there are none", async () => {
  const world = oneNode({ cidr: "10.0.0.0/20" });
  const eni = `meta-data/network/interfaces/macs/${world.mac}`;
  expect(get(world, `${eni}/ipv4-prefix`)).toBe(404);
  expect(get(world, `${eni}/network-card`)).toBe(404);
  await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    "PrivateIpAddress.1": "10.0.9.9",
  });
  await call(world.emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: world.eniId,
    "Ipv4Prefix.1": "10.0.10.16/28",
  });
  const items = [
    "interface-id",
    "device-number",
    "local-ipv4s",
    "ipv4-prefix",
    "subnet-id",
    "subnet-ipv4-cidr-block",
  ];
  expect(items.map((item) => get(world, `${eni}/${item}`))).toEqual([
    world.eniId,
    "0",
    `${world.primary}\n10.0.9.9`,
    "10.0.10.16/28",
    world.subnetId,
    "10.0.0.0/20",
  ]);
  const rest = [
    "vpc-id",
    "vpc-ipv4-cidr-block",
    "vpc-ipv4-cidr-blocks",
    "security-group-ids",
    "security-groups",
    "owner-id",
    "mac",
  ];
  expect(rest.map((item) => get(world, `${eni}/${item}`))).toEqual([
    world.vpcId,
    "10.0.0.0/16",
    "10.0.0.0/16",
    world.groupId,
    "default",
    "123456789012",
    world.mac,
  ]);
});

test("directories list their names, sub-directories with a slash, without a last newline; what is absent is 404 in HTML", async () => {
  const world = oneNode();
  await attachEni(world, 1);
  const macs = String(get(world, "meta-data/network/interfaces/macs")).split("\n");
  expect(macs).toHaveLength(2);
  expect(macs.every((name) => /^[0-9a-f:]{17}\/$/.test(name))).toBe(true);
  expect(String(get(world, `meta-data/network/interfaces/macs/${world.mac}/`)).split("\n")).toContain(
    "local-ipv4s",
  );
  const token = ask(world, "PUT", "/latest/api/token", { [TTL]: "60" }).body;
  const absent = ask(world, "GET", "/latest/meta-data/spot", { [TOKEN]: token });
  expect([absent.status, absent.headers["Content-Type"], absent.body.includes("404 - Not Found")]).toEqual([
    404,
    "text/html",
    true,
  ]);
  expect(ask(world, "GET", "/latest/meta-data/constructor", { [TOKEN]: token }).status).toBe(404);
});

test("a type with several network cards says on which card an ENI is", () => {
  const world = oneNode({ type: "p4d.24xlarge" });
  expect(get(world, `meta-data/network/interfaces/macs/${world.mac}/network-card`)).toBe("0");
});

test("role credentials rotate before they end, and old ones expire", async () => {
  const world = oneNode({ options: { credentialsLifetimeMs: 100_000 } });
  const keys = (): { AccessKeyId: string; Expiration: string } =>
    JSON.parse(String(get(world, "meta-data/iam/security-credentials/berth-node"))) as {
      AccessKeyId: string;
      Expiration: string;
    }; // IMDS's own format.
  expect(get(world, "meta-data/iam/security-credentials/")).toBe("berth-node");
  const first = keys();
  await world.clock.advance(80_000);
  expect(keys().AccessKeyId).toBe(first.AccessKeyId);
  await world.clock.advance(10_000);
  const second = keys();
  expect(second.AccessKeyId).not.toBe(first.AccessKeyId);
  expect((await call(world.emulator, "DescribeVpcs", {}, first.AccessKeyId)).status).toBe(200);
  await world.clock.advance(10_000);
  expect(await call(world.emulator, "DescribeVpcs", {}, first.AccessKeyId)).toMatchObject({
    code: "RequestExpired",
    status: 400,
  });
  expect((await call(world.emulator, "DescribeVpcs", {}, second.AccessKeyId)).status).toBe(200);
});

test("an instance without a role has no credentials, and a terminated one no metadata", async () => {
  const world = oneNode();
  const { instanceId } = world.emulator.seed.launch({
    type: "m5.large",
    subnetId: world.subnetId,
    role: null,
  });
  expect(get({ ...world, instanceId }, "meta-data/iam/security-credentials/")).toBe(404);
  world.emulator.fault({ kind: "terminate-instance", instanceId });
  expect(get({ ...world, instanceId }, "meta-data/instance-id")).toBe(404);
});

test("over HTTP a listener serves the instance that the request comes from, in one write", async () => {
  const emulator = createEmulator();
  const { vpcId } = emulator.seed.vpc({ cidrs: ["10.0.0.0/16"] });
  const subnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.0.0/24" });
  const { instanceId } = emulator.seed.launch({ type: "m5.large", subnetId });
  const { url } = await emulator.listenImds((request) =>
    request.headers["user-agent"] === "stranger" ? null : instanceId,
  );
  const put = await fetch(`${url}/latest/api/token`, { method: "PUT", headers: { [TTL]: "60" } });
  expect([put.status, put.headers.get("server"), put.headers.get(TTL)]).toEqual([200, "EC2ws", "60"]);
  const token = await put.text();
  const read = await fetch(`${url}/latest/meta-data/instance-id`, { headers: { [TOKEN]: token } });
  expect([await read.text(), read.headers.get("content-length")]).toEqual([instanceId, "19"]);
  expect(
    (
      await fetch(`${url}/latest/api/token`, {
        method: "PUT",
        headers: { [TTL]: "60", "User-Agent": "stranger" },
      })
    ).status,
  ).toBe(404);
  await emulator.close();
});
