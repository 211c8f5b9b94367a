// Each source of credentials, from a bundle made as the production bundle is made, in a process of its own: what a bundler leaves out or
// breaks (lazy imports above all) shows only here. EC2 refuses the first credentials once they were used, so each source must rotate too.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { build } from "esbuild";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { makeCertificates } from "../support/certificates.ts";
import {
  ec2Answer,
  ec2Error,
  type ScriptedServer,
  scriptedServer,
  type Step,
} from "../support/scripted-server.ts";
import type { ProbeAnswer } from "./credentials-probe.ts";

/** Whether the production bundle takes packages' ES modules before their CommonJS: half of the code, and other lazy imports. */
const modulesFirst = readFileSync("scripts/build.mjs", "utf8").includes('mainFields: ["module", "main"]');

const folder = mkdtempSync(join(tmpdir(), "berth-bundle-"));

beforeAll(async () => {
  await build({
    entryPoints: { probe: "test/e2e/credentials-probe.ts" },
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    minify: true,
    splitting: true,
    ...(modulesFirst ? { mainFields: ["module", "main"] } : {}),
    chunkNames: "chunk-[hash]",
    banner: {
      js: 'import{createRequire as berthRequire}from"node:module";const require=berthRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
});
afterAll(() => rmSync(folder, { recursive: true }));

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function serve(step: Step, tls?: Parameters<typeof scriptedServer>[1]): Promise<ScriptedServer> {
  const server = await scriptedServer(step, tls);
  cleanUps.push(() => server.close());
  return server;
}

/** EC2 that serves each access key once and calls it expired from then on. `seen` lists who signed. */
async function ec2ThatTires(
  seen: string[],
  tls?: Parameters<typeof scriptedServer>[1],
): Promise<ScriptedServer> {
  return serve((asked, response) => {
    const key = /Credential=(\w+)\//.exec(asked.headers.authorization ?? "")?.[1] ?? "nobody";
    const again = seen.includes(key);
    seen.push(key);
    const step = again
      ? ec2Error(400, "ExpiredToken", "The security token included in the request is expired")
      : ec2Answer("DescribeNetworkInterfaces", "<networkInterfaceSet/>");
    step(asked, response);
  }, tls);
}

async function probe(environment: Record<string, string>): Promise<ProbeAnswer> {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [join(folder, "probe.mjs")], {
    env: environment,
    timeout: 60_000,
  });
  expect(stderr).toBe("");
  return JSON.parse(stdout) as ProbeAnswer; // The probe prints one object.
}

const bothAnswered = { first: { ok: true, value: [] }, second: { ok: true, value: [] } };

const json = (name: string): string =>
  JSON.stringify({
    AccessKeyId: name,
    SecretAccessKey: "s",
    Token: "t",
    Expiration: new Date(Date.now() + 3_600_000).toISOString(),
  });

/** key1, key2, … */
function freshKeys(): () => string {
  let count = 0;
  return () => `key${(count += 1)}`;
}

test("the bundle signs with keys of the environment", async () => {
  const seen: string[] = [];
  const ec2 = await ec2ThatTires(seen);
  const answer = await probe({
    AWS_ACCESS_KEY_ID: "static",
    AWS_SECRET_ACCESS_KEY: "s",
    AWS_REGION: "eu-west-1",
    AWS_ENDPOINT_URL_EC2: ec2.url,
  });
  // Static keys do not rotate: the second call is refused, asked once more, and told.
  expect(answer).toMatchObject({
    source: "environment",
    first: { ok: true },
    second: { ok: false, error: { kind: "denied", code: "ExpiredToken" } },
  });
  expect(seen).toEqual(["static", "static", "static"]);
});

test("the bundle takes the region and a rotating instance role from IMDS", async () => {
  const seen: string[] = [];
  const ec2 = await ec2ThatTires(seen);
  const nextKey = freshKeys();
  const imds = await serve((asked, response) => {
    if (asked.path === "/latest/api/token") response.end("token");
    else if (asked.headers["x-aws-ec2-metadata-token"] !== "token") response.writeHead(401).end();
    else if (asked.path === "/latest/meta-data/placement/region") response.end("eu-north-1");
    else response.end(asked.path.endsWith("security-credentials/") ? "node-role" : json(nextKey()));
  });
  const answer = await probe({ AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url, AWS_ENDPOINT_URL_EC2: ec2.url });
  expect(answer).toMatchObject({ source: "instance-role", ...bothAnswered });
  expect(seen).toEqual(["key1", "key1", "key2"]);
  expect(ec2.asked[0]?.headers.authorization).toContain("/eu-north-1/ec2/");
});

test("the bundle trades a web identity token at STS, and again when the credentials end", async () => {
  const seen: string[] = [];
  const ec2 = await ec2ThatTires(seen);
  const nextKey = freshKeys();
  const sts = await serve((asked, response) =>
    ec2Answer(
      "AssumeRoleWithWebIdentity",
      `<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>${nextKey()}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>` +
        `<Expiration>${new Date(Date.now() + 3_600_000).toISOString()}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>`,
    )(asked, response),
  );
  const token = join(folder, "web-identity-token");
  writeFileSync(token, "the-token");
  const answer = await probe({
    AWS_REGION: "eu-west-1",
    AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/berth",
    AWS_WEB_IDENTITY_TOKEN_FILE: token,
    AWS_ENDPOINT_URL_STS: sts.url,
    AWS_ENDPOINT_URL_EC2: ec2.url,
  });
  expect(answer).toMatchObject({ source: "web-identity", ...bothAnswered });
  expect(seen).toEqual(["key1", "key1", "key2"]);
  expect(sts.asked.map((one) => one.form.get("WebIdentityToken"))).toEqual(["the-token", "the-token"]);
});

test("the bundle asks the pod identity agent with its token, and again when the credentials end", async () => {
  const seen: string[] = [];
  const ec2 = await ec2ThatTires(seen);
  const nextKey = freshKeys();
  const agent = await serve((_asked, response) => response.end(json(nextKey())));
  const token = join(folder, "pod-identity-token");
  writeFileSync(token, "the-token");
  const answer = await probe({
    AWS_REGION: "eu-west-1",
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `${agent.url}/v1/credentials`,
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: token,
    AWS_ENDPOINT_URL_EC2: ec2.url,
  });
  expect(answer).toMatchObject({ source: "container", ...bothAnswered });
  expect(seen).toEqual(["key1", "key1", "key2"]);
  expect(agent.asked.map((one) => one.headers.authorization)).toEqual(["the-token", "the-token"]);
});

test.each(["AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"])(
  "the bundle trusts the authority that %s names",
  async (name) => {
    const tls = makeCertificates();
    const ca = join(folder, `${name}.pem`);
    writeFileSync(ca, tls.ca);
    const ec2 = await serve(ec2Answer("DescribeNetworkInterfaces", "<networkInterfaceSet/>"), tls);
    const environment = {
      AWS_ACCESS_KEY_ID: "static",
      AWS_SECRET_ACCESS_KEY: "s",
      AWS_REGION: "eu-west-1",
      AWS_ENDPOINT_URL: ec2.url,
    };
    expect(await probe({ ...environment, [name]: ca })).toMatchObject(bothAnswered);
    expect(await probe(environment)).toMatchObject({ first: { ok: false, error: { kind: "failing" } } });
  },
);
