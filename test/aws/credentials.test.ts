import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { chooseSource, createCredentials } from "../../src/aws/credentials.ts";
import { type Environment, readAwsEnvironment } from "../../src/aws/environment.ts";
import { createImds } from "../../src/aws/imds.ts";
import { createSender } from "../../src/aws/sender.ts";
import type { InstanceId } from "../../src/core/model/instance.ts";
import {
  ec2Answer,
  ec2Error,
  plainAnswer,
  type ScriptedServer,
  scriptedServer,
  type Step,
} from "../support/scripted-server.ts";
import { keys, rig } from "./setup.ts";

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const MINUTE = 60_000;
const start = Date.UTC(2026, 7, 1);

async function serve(steps: Step | readonly Step[]): Promise<ScriptedServer> {
  const server = await scriptedServer(steps);
  cleanUps.push(() => server.close());
  return server;
}

function file(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), "berth-"));
  cleanUps.push(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "token"), text);
  return join(folder, "token");
}

/** Credentials by `environment` with a clock that the test moves. */
function credentialsBy(environment: Environment): {
  clock: { now: number };
  credentials: ReturnType<typeof createCredentials>;
} {
  const aws = readAwsEnvironment(environment);
  if (!aws.ok) throw new Error(aws.error.join());
  const clock = { now: start };
  const sender = createSender(aws.value);
  const imds = createImds({ endpoint: aws.value.imdsEndpoint, random: () => 0, timeoutMs: 300, attempts: 1 });
  cleanUps.push(sender.close, imds.close);
  const credentials = createCredentials({
    environment,
    aws: aws.value,
    imds,
    handler: sender.handler,
    region: () => Promise.resolve("eu-west-1"),
    wallNow: () => clock.now,
  });
  return { clock, credentials };
}

const json = (name: string, expiry: number): string =>
  JSON.stringify({
    Code: "Success",
    AccessKeyId: name,
    SecretAccessKey: "s",
    Token: "t",
    Expiration: new Date(expiry).toISOString(),
  });

const stsAnswer = (name: string, expiry: number): Step =>
  ec2Answer(
    "AssumeRoleWithWebIdentity",
    `<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>${name}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>` +
      `<Expiration>${new Date(expiry).toISOString()}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>`,
  );

/** IMDS whose role credentials are `text()` at the time. */
const imdsRole =
  (text: () => string): Step =>
  (asked, response) => {
    if (asked.path.endsWith("/api/token")) response.end("token-1");
    else if (asked.path.endsWith("/security-credentials/")) response.end("node-role\n");
    else if (asked.path.endsWith("/security-credentials/node-role")) response.end(text());
    else response.writeHead(404).end();
  };

test("the source is the first that the environment names", () => {
  const all = {
    AWS_ACCESS_KEY_ID: "a",
    AWS_SECRET_ACCESS_KEY: "b",
    AWS_WEB_IDENTITY_TOKEN_FILE: "/t",
    AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/r",
    AWS_CONTAINER_CREDENTIALS_FULL_URI: "http://169.254.170.23/v1/credentials",
  };
  expect(chooseSource(all)).toBe("environment");
  expect(chooseSource({ ...all, AWS_SECRET_ACCESS_KEY: "" })).toBe("web-identity");
  expect(chooseSource({ ...all, AWS_ACCESS_KEY_ID: "", AWS_ROLE_ARN: "" })).toBe("container");
  expect(chooseSource({})).toBe("instance-role");
});

test("keys of the environment sign, with their session token", async () => {
  const { credentials } = credentialsBy({ ...keys, AWS_SESSION_TOKEN: "session" });
  expect(await credentials.current()).toEqual({
    ok: true,
    value: { accessKeyId: "AKIDTEST", secretAccessKey: "secret", sessionToken: "session" },
  });
});

test("the instance role's credentials are kept until shortly before they end, then fetched anew", async () => {
  let text = json("first", start + 60 * MINUTE);
  const server = await serve(imdsRole(() => text));
  const { clock, credentials } = credentialsBy({ AWS_EC2_METADATA_SERVICE_ENDPOINT: server.url });
  const many = await Promise.all([credentials.current(), credentials.current(), credentials.current()]);
  expect(many).toMatchObject(
    Array.from({ length: 3 }, () => ({ ok: true, value: { accessKeyId: "first", sessionToken: "t" } })),
  );
  expect(server.asked).toHaveLength(3); // Token, role, credentials: once for all who wait.
  text = json("second", start + 120 * MINUTE);
  clock.now = start + 54 * MINUTE;
  expect(await credentials.current()).toMatchObject({ value: { accessKeyId: "first" } });
  clock.now = start + 56 * MINUTE;
  expect(await credentials.current()).toMatchObject({ value: { accessKeyId: "second" } });
});

test("a source that goes away does not take good credentials with it, and is asked again soon", async () => {
  let text = json("first", start + 60 * MINUTE);
  const server = await serve(imdsRole(() => text));
  const { clock, credentials } = credentialsBy({ AWS_EC2_METADATA_SERVICE_ENDPOINT: server.url });
  await credentials.current();
  text = "not JSON";
  clock.now = start + 58 * MINUTE;
  expect(await credentials.current()).toMatchObject({ ok: true, value: { accessKeyId: "first" } });
  const asked = server.asked.length;
  clock.now += 5_000;
  await credentials.current();
  expect(server.asked).toHaveLength(asked);
  text = json("second", start + 120 * MINUTE);
  clock.now += 15_000;
  expect(await credentials.current()).toMatchObject({ ok: true, value: { accessKeyId: "second" } });
});

test("an instance without a role is refused; an IMDS that is away or talks nonsense is unavailable", async () => {
  const bare = await serve((asked, response) =>
    response.writeHead(asked.method === "PUT" ? 200 : 404).end("token-1"),
  );
  expect(
    await credentialsBy({ AWS_EC2_METADATA_SERVICE_ENDPOINT: bare.url }).credentials.current(),
  ).toMatchObject({
    ok: false,
    error: { kind: "refused", source: "instance-role", detail: "the instance has no role" },
  });
  const secret = JSON.stringify({ AccessKeyId: "AKIDREAL", SecretAccessKey: "very-secret" });
  for (const text of [
    "",
    "[]",
    secret,
    json("x", start).replace(/Expiration":"[^"]*/, 'Expiration":"soon'),
  ]) {
    const server = await serve(imdsRole(() => text));
    const current = await credentialsBy({
      AWS_EC2_METADATA_SERVICE_ENDPOINT: server.url,
    }).credentials.current();
    expect(current).toMatchObject({ ok: false, error: { kind: "unavailable" } });
    expect(JSON.stringify(current)).not.toContain("very-secret");
  }
});

test("web identity trades the token that is in the file now, and follows its rotation", async () => {
  const server = await serve([
    stsAnswer("first", start + 60 * MINUTE),
    stsAnswer("second", start + 120 * MINUTE),
  ]);
  const token = file("token-one");
  const { clock, credentials } = credentialsBy({
    AWS_WEB_IDENTITY_TOKEN_FILE: token,
    AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/berth",
    AWS_ROLE_SESSION_NAME: "node-a",
    AWS_ENDPOINT_URL_STS: server.url,
  });
  expect(await credentials.current()).toMatchObject({
    ok: true,
    value: { accessKeyId: "first", sessionToken: "t" },
  });
  writeFileSync(token, "token-two");
  clock.now = start + 56 * MINUTE;
  expect(await credentials.current()).toMatchObject({ ok: true, value: { accessKeyId: "second" } });
  expect(
    server.asked.map(({ form }) => [
      form.get("Action"),
      form.get("WebIdentityToken"),
      form.get("RoleArn"),
      form.get("RoleSessionName"),
    ]),
  ).toEqual([
    ["AssumeRoleWithWebIdentity", "token-one", "arn:aws:iam::123456789012:role/berth", "node-a"],
    ["AssumeRoleWithWebIdentity", "token-two", "arn:aws:iam::123456789012:role/berth", "node-a"],
  ]);
});

test("STS's refusal is a refusal; a missing token file or a silent STS is not", async () => {
  const role = { AWS_ROLE_ARN: "arn:aws:iam::123456789012:role/berth" };
  const denying = await serve((asked, response) =>
    response
      .writeHead(403)
      .end(
        `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error><RequestId>${asked.method}</RequestId></ErrorResponse>`,
      ),
  );
  const denied = credentialsBy({
    ...role,
    AWS_WEB_IDENTITY_TOKEN_FILE: file("t"),
    AWS_ENDPOINT_URL_STS: denying.url,
  });
  const answer = await denied.credentials.current();
  expect(answer).toMatchObject({ ok: false, error: { kind: "refused", source: "web-identity" } });
  expect(answer.ok ? "" : answer.error.detail).toContain(
    "Not authorized to perform sts:AssumeRoleWithWebIdentity",
  );
  const missing = credentialsBy({
    ...role,
    AWS_WEB_IDENTITY_TOKEN_FILE: "/nowhere/token",
    AWS_ENDPOINT_URL_STS: denying.url,
  });
  expect(await missing.credentials.current()).toMatchObject({ ok: false, error: { kind: "unavailable" } });
  const broken = await serve(plainAnswer(502, "<html></html>"));
  const away = credentialsBy({
    ...role,
    AWS_WEB_IDENTITY_TOKEN_FILE: file("t"),
    AWS_ENDPOINT_URL_STS: broken.url,
  });
  expect(await away.credentials.current()).toMatchObject({ ok: false, error: { kind: "unavailable" } });
});

test("pod identity sends the token that is in the file now, and follows both rotations", async () => {
  const server = await serve([
    plainAnswer(200, json("first", start + 60 * MINUTE)),
    plainAnswer(200, json("second", start + 120 * MINUTE)),
  ]);
  const token = file("token-one\n");
  const { clock, credentials } = credentialsBy({
    AWS_CONTAINER_CREDENTIALS_FULL_URI: `${server.url}/v1/credentials`,
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: token,
  });
  expect(await credentials.current()).toMatchObject({ ok: true, value: { accessKeyId: "first" } });
  writeFileSync(token, "token-two");
  clock.now = start + 56 * MINUTE;
  expect(await credentials.current()).toMatchObject({ ok: true, value: { accessKeyId: "second" } });
  expect(server.asked.map((one) => [one.method, one.path, one.headers.authorization])).toEqual([
    ["GET", "/v1/credentials", "token-one"],
    ["GET", "/v1/credentials", "token-two"],
  ]);
});

test("a pod identity token goes in the clear to this node only", async () => {
  for (const url of [
    "http://example.test/creds",
    "http://10.0.0.1/creds",
    "http://127.0.0.1.example.test/creds",
    "ftp://127.0.0.1/",
    "nonsense",
  ]) {
    const { credentials } = credentialsBy({
      AWS_CONTAINER_CREDENTIALS_FULL_URI: url,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: "t",
    });
    expect(await credentials.current()).toMatchObject({
      ok: false,
      error: { kind: "refused", source: "container" },
    });
  }
});

test("a pod identity agent's refusal, its outage and a broken token are told apart", async () => {
  const by = async (step: Step, token = "t"): Promise<unknown> => {
    const server = await serve(step);
    const environment = {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: server.url,
      AWS_CONTAINER_AUTHORIZATION_TOKEN: token,
    };
    const current = await credentialsBy(environment).credentials.current();
    return current.ok ? current : [current.error.kind, server.asked.length];
  };
  expect(await by(plainAnswer(400, '{"message":"no association"}'))).toEqual(["refused", 1]);
  expect(await by(plainAnswer(500, ""))).toEqual(["unavailable", 1]);
  expect(await by(plainAnswer(429, ""))).toEqual(["unavailable", 1]);
  expect(await by((_asked, response) => response.destroy())).toEqual(["unavailable", 1]);
  expect(await by(plainAnswer(200, "x".repeat(100_000)))).toEqual(["unavailable", 1]);
  expect(await by(plainAnswer(200, ""), "a\r\nb: c")).toEqual(["unavailable", 0]);
});

test("credentials that EC2 calls expired are fetched anew, and the call is made once more", async () => {
  let name = "first";
  const imds = await serve(imdsRole(() => json(name, Date.now() + 60 * MINUTE)));
  const seen: (string | undefined)[] = [];
  const ec2Server = await serve((asked, response) => {
    const by = /Credential=(\w+)/.exec(asked.headers.authorization ?? "")?.[1];
    seen.push(by);
    (by === "first"
      ? ec2Error(400, "ExpiredToken", "The security token included in the request is expired")
      : ec2Answer("DescribeNetworkInterfaces", "<networkInterfaceSet/>"))(asked, response);
  });
  const made = rig({
    AWS_REGION: "eu-west-1",
    AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url,
    AWS_ENDPOINT_URL_EC2: ec2Server.url,
  });
  cleanUps.push(made.close);
  expect(made.ec2.credentialsSource).toBe("instance-role");
  expect(await made.ec2.describeInstanceEnis("i-1" as InstanceId)).toMatchObject({
    ok: false,
    error: { kind: "denied", code: "ExpiredToken" },
  });
  expect(seen).toEqual(["first", "first"]); // Once more, and no more.
  name = "second";
  expect(await made.ec2.describeInstanceEnis("i-1" as InstanceId)).toEqual({ ok: true, value: [] });
  expect(seen).toEqual(["first", "first", "first", "second"]);
});

test("without credentials, a call says where they should have come from and sends nothing", async () => {
  const imds = await serve(plainAnswer(500, ""));
  const ec2Server = await serve(ec2Answer("DeleteNetworkInterface"));
  const made = rig({
    AWS_REGION: "eu-west-1",
    AWS_EC2_METADATA_SERVICE_ENDPOINT: imds.url,
    AWS_ENDPOINT_URL_EC2: ec2Server.url,
  });
  cleanUps.push(made.close);
  const answer = await made.ec2.describeInstanceEnis("i-1" as InstanceId);
  expect(answer).toMatchObject({ ok: false, error: { kind: "failing", code: "CredentialsUnavailable" } });
  expect(answer.ok ? "" : answer.error.message).toContain("instance-role");
  expect(ec2Server.asked).toEqual([]);
});
