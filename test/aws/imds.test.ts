import * as fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { createImds, type ImdsEdge } from "../../src/aws/imds.ts";
import type { Asked, ScriptedServer, Step } from "../support/scripted-server.ts";
import { plainAnswer, scriptedServer } from "../support/scripted-server.ts";

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const mac1 = "02:00:00:00:00:01";
const mac2 = "02:00:00:00:00:02";
const macs = "meta-data/network/interfaces/macs";

/** Made fresh, so that a test may spoil it. */
const tree = (): Map<string, string> =>
  new Map([
    ["meta-data/instance-id", "i-0123456789abcdef0"],
    ["meta-data/instance-type", "m5.large"],
    ["meta-data/placement/region", "eu-west-1"],
    ["meta-data/placement/availability-zone", "eu-west-1a"],
    ["meta-data/mac", mac1],
    [`${macs}/`, `${mac1}/\n${mac2}/`],
    [`${macs}/${mac1}/interface-id`, "eni-aaaa1"],
    [`${macs}/${mac1}/device-number`, "0"],
    [`${macs}/${mac1}/subnet-id`, "subnet-1"],
    [`${macs}/${mac1}/subnet-ipv4-cidr-block`, "10.0.0.0/24"],
    [`${macs}/${mac1}/vpc-id`, "vpc-1"],
    [`${macs}/${mac1}/vpc-ipv4-cidr-blocks`, "10.0.0.0/16\n100.64.0.0/16"],
    [`${macs}/${mac1}/local-ipv4s`, "10.0.0.10\n10.0.0.11"],
    [`${macs}/${mac1}/security-group-ids`, "sg-1\nsg-2"],
    [`${macs}/${mac2}/interface-id`, "eni-aaaa2"],
    [`${macs}/${mac2}/device-number`, "1"],
    [`${macs}/${mac2}/network-card`, "1"],
    [`${macs}/${mac2}/subnet-id`, "subnet-2"],
    [`${macs}/${mac2}/subnet-ipv4-cidr-block`, "10.0.1.0/24"],
    [`${macs}/${mac2}/local-ipv4s`, "10.0.1.10"],
    [`${macs}/${mac2}/ipv4-prefix`, "10.0.1.32/28"],
    [`${macs}/${mac2}/security-group-ids`, "sg-1"],
  ]);

/** IMDSv2 over a tree of items; a token is good until `validTokens` no longer holds it. */
const serving =
  (items: ReadonlyMap<string, string>, validTokens = new Set(["token-1"])): Step =>
  (asked: Asked, response) => {
    if (asked.method === "PUT" && asked.path === "/latest/api/token") {
      response.end([...validTokens][0]);
      return;
    }
    const token = asked.headers["x-aws-ec2-metadata-token"];
    const item = items.get(asked.path.replace("/latest/", ""));
    response.statusCode =
      typeof token !== "string" || !validTokens.has(token) ? 401 : item === undefined ? 404 : 200;
    response.end(response.statusCode === 200 ? item : "<html>no</html>");
  };

async function imdsOf(steps: Step | readonly Step[]): Promise<{ imds: ImdsEdge; server: ScriptedServer }> {
  const server = await scriptedServer(steps);
  const imds = createImds({ endpoint: server.url, random: () => 0, timeoutMs: 300, attempts: 2 });
  cleanUps.push(() => server.close(), imds.close);
  return { imds, server };
}

test("the instance and its ENIs are read with one token over version 2", async () => {
  const { imds, server } = await imdsOf(serving(tree()));
  expect(await imds.readInstance()).toEqual({
    ok: true,
    value: {
      id: "i-0123456789abcdef0",
      type: "m5.large",
      region: "eu-west-1",
      availabilityZone: "eu-west-1a",
      vpcId: "vpc-1",
      vpcCidrs: [
        { network: "10.0.0.0", prefixLength: 16 },
        { network: "100.64.0.0", prefixLength: 16 },
      ],
      primaryMac: mac1,
      primaryIp: "10.0.0.10",
      primarySubnet: "subnet-1",
      securityGroups: ["sg-1", "sg-2"],
    },
  });
  expect(await imds.readEnis()).toMatchObject({
    ok: true,
    value: [
      {
        id: "eni-aaaa1",
        mac: mac1,
        slot: { networkCard: 0, deviceIndex: 0 },
        localIps: ["10.0.0.10", "10.0.0.11"],
        prefixes: [],
      },
      {
        id: "eni-aaaa2",
        mac: mac2,
        slot: { networkCard: 1, deviceIndex: 1 },
        prefixes: [{ network: "10.0.1.32", prefixLength: 28 }],
      },
    ],
  });
  expect(server.asked.filter((one) => one.method === "PUT")).toHaveLength(1);
  expect(server.asked[0]?.headers["x-aws-ec2-metadata-token-ttl-seconds"]).toBe("21600");
});

test("an ENI that goes between the listing and the reading is left out", async () => {
  const items = tree();
  for (const path of items.keys()) if (path.startsWith(`${macs}/${mac2}/`)) items.delete(path);
  const { imds } = await imdsOf(serving(items));
  const enis = await imds.readEnis();
  expect(enis.ok && enis.value.map((eni) => eni.id)).toEqual(["eni-aaaa1"]);
});

test("a token that IMDS no longer takes is renewed once", async () => {
  const tokens = new Set(["token-1"]);
  const { imds, server } = await imdsOf(serving(tree(), tokens));
  expect(await imds.read("meta-data/instance-id")).toEqual({ ok: true, value: "i-0123456789abcdef0" });
  tokens.clear();
  tokens.add("token-2");
  expect(await imds.read("meta-data/instance-id")).toEqual({ ok: true, value: "i-0123456789abcdef0" });
  expect(server.asked.filter((one) => one.method === "PUT")).toHaveLength(2);
});

test("an IMDS that refuses the token is refused, one that never answers well is unreachable", async () => {
  const off = await imdsOf(plainAnswer(403, ""));
  expect(await off.imds.readInstance()).toMatchObject({
    ok: false,
    error: { kind: "refused", path: "api/token" },
  });
  const broken = await imdsOf(plainAnswer(500, ""));
  expect(await broken.imds.readInstance()).toMatchObject({
    ok: false,
    error: { kind: "unreachable", detail: "HTTP 500" },
  });
  const silent = await imdsOf(() => {});
  expect(await silent.imds.readEnis()).toMatchObject({
    ok: false,
    error: { kind: "unreachable", detail: "no answer within 300 ms" },
  });
  expect(silent.server.asked).toHaveLength(2);
  await silent.server.close();
  cleanUps.splice(cleanUps.length - 2, 1);
  expect(await silent.imds.readInstance()).toMatchObject({ ok: false, error: { kind: "unreachable" } });
});

test("an endless answer is cut off", async () => {
  const { imds } = await imdsOf([plainAnswer(200, "token-1"), plainAnswer(200, "x".repeat(100_000))]);
  expect(await imds.read("meta-data/instance-id")).toMatchObject({
    ok: false,
    error: { kind: "unreachable", detail: "the answer is longer than 65536 bytes" },
  });
});

test("a passing throttle is waited out", async () => {
  const serve = serving(tree());
  const { imds } = await imdsOf([serve, plainAnswer(429, ""), serve]);
  expect(await imds.read("meta-data/instance-type")).toEqual({ ok: true, value: "m5.large" });
});

const spoiled: readonly [path: string, value: string | null][] = [
  ["meta-data/instance-id", null],
  ["meta-data/instance-id", "<html></html>"],
  ["meta-data/instance-type", "large one"],
  ["meta-data/placement/region", ""],
  ["meta-data/mac", "02:00:00:00:00"],
  [`${macs}/${mac1}/vpc-id`, "eni-1"],
  [`${macs}/${mac1}/vpc-ipv4-cidr-blocks`, "10.0.0.0/33"],
  [`${macs}/${mac1}/vpc-ipv4-cidr-blocks`, null],
  [`${macs}/${mac1}/interface-id`, "i-1"],
  [`${macs}/${mac1}/device-number`, "zero"],
  [`${macs}/${mac1}/subnet-id`, null],
  [`${macs}/${mac1}/subnet-ipv4-cidr-block`, "10.0.0.1/24"],
  [`${macs}/${mac1}/local-ipv4s`, "10.0.0.10 10.0.0.11"],
  [`${macs}/${mac1}/local-ipv4s`, null],
  [`${macs}/${mac1}/ipv4-prefix`, "10.0.0.0/24"],
  [`${macs}/${mac1}/security-group-ids`, "nodes"],
];

test.each(spoiled)("%s as %j is absurd, and is named", async (path, value) => {
  const items = tree();
  if (value === null) items.delete(path);
  else items.set(path, value);
  const { imds } = await imdsOf(serving(items));
  expect(await imds.readInstance()).toMatchObject({ ok: false, error: { kind: "absurd", path } });
});

test("whatever text stands in an item, the answer is facts or a failure", async () => {
  const items = tree();
  const { imds } = await imdsOf(serving(items));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...items.keys()), fc.string(), async (path, text) => {
      const before = items.get(path) ?? "";
      items.set(path, text);
      const instance = await imds.readInstance();
      const enis = await imds.readEnis();
      items.set(path, before);
      if (!instance.ok) expect(instance.error.kind).toBe("absurd");
      if (!enis.ok) expect(enis.error.kind).toBe("absurd");
    }),
    { numRuns: 30 },
  );
});
