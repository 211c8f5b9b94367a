// Bounds that need no node: each is a row of the table in docs/ARCHITECTURE.md.
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { createImds } from "../../src/aws/imds.ts";
import { OperationsByKey } from "../../src/cni/operations-by-key.ts";
import type { InstanceId } from "../../src/core/model/instance.ts";
import type { SandboxId } from "../../src/core/model/sandbox.ts";
import { coolingRecovered } from "../../src/core/state/transitions.ts";
import { ipv4, ipv4Plus } from "../../src/lib/ip.ts";
import { ok } from "../../src/lib/result.ts";
import { instant, wallTime } from "../../src/lib/time.ts";
import { createCheckpointFile } from "../../src/store/file.ts";
import { openJournal } from "../../src/store/journal.ts";
import { createLog } from "../../src/telemetry/log.ts";
import { createMetrics } from "../../src/telemetry/metrics.ts";
import { keys, rig } from "../aws/setup.ts";
import { bootedNode, M5_LARGE } from "../support/pool-world.ts";

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function server(answer: (response: ServerResponse) => void): Promise<string> {
  const made = createServer((_, response) => answer(response));
  made.listen(0, "127.0.0.1");
  await new Promise((resolve) => made.once("listening", resolve));
  cleanUps.push(() => {
    made.closeAllConnections();
    made.close();
  });
  return `http://127.0.0.1:${(made.address() as AddressInfo).port}`; // A TCP server that listens has one.
}

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), "berth-bounds-"));
  cleanUps.push(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

test("an EC2 endpoint that drips a byte a second holds a call no longer than its deadline", async () => {
  const url = await server((response) => {
    response.writeHead(200, { "content-type": "text/xml" });
    response.write("<");
    const drip = setInterval(() => response.write("a"), 1_000);
    response.on("close", () => clearInterval(drip));
  });
  const client = rig(
    { ...keys, AWS_ENDPOINT_URL_EC2: url },
    { requestTimeoutMs: 1_200, callDeadlineMs: 2_500 },
  );
  cleanUps.push(client.close);
  const began = performance.now();
  const answer = await client.ec2.describeInstanceEnis("i-0123456789abcdef0" as InstanceId); // Of an instance's form.
  expect(answer).toMatchObject({ ok: false, error: { code: "Timeout" } });
  expect(performance.now() - began).toBeLessThan(8_000);
});

test("of an IMDS answer of 100 MB no more than some packets are read", async () => {
  let sentBytes = 0;
  const url = await server((response) => {
    response.writeHead(200);
    const piece = Buffer.alloc(64 * 1_024, "x");
    const push = (): void => {
      while (sentBytes < 100e6 && !response.destroyed) {
        sentBytes += piece.length;
        if (!response.write(piece)) return void response.once("drain", push);
      }
      response.end();
    };
    push();
  });
  const imds = createImds({ endpoint: url, random: () => 0, timeoutMs: 2_000, attempts: 1 });
  cleanUps.push(imds.close);
  expect(await imds.read("meta-data/instance-id")).toMatchObject({
    ok: false,
    error: { kind: "unreachable" },
  });
  expect(sentBytes).toBeLessThan(20e6);
});

test("an EC2 answer of 100 MB is refused before it fills the memory", async () => {
  let sentBytes = 0;
  const url = await server((response) => {
    response.writeHead(200, { "content-type": "text/xml" });
    const piece = Buffer.alloc(64 * 1_024, "x");
    const push = (): void => {
      while (sentBytes < 100e6 && !response.destroyed) {
        sentBytes += piece.length;
        if (!response.write(piece)) return void response.once("drain", push);
      }
      response.end();
    };
    push();
  });
  const client = rig({ ...keys, AWS_ENDPOINT_URL_EC2: url });
  cleanUps.push(client.close);
  const answer = await client.ec2.setDeleteOnTermination("eni-1" as never, "eni-attach-1" as never); // Forms do not matter here.
  expect(answer.ok).toBe(false);
  expect(sentBytes).toBeLessThan(40e6);
});

test("an EC2 endpoint that pages without end is given up", async () => {
  let pages = 0;
  const row =
    "<item><networkInterfaceId>eni-0a</networkInterfaceId><macAddress>02:00:00:00:00:01</macAddress><status>in-use</status>" +
    "<subnetId>subnet-1</subnetId><interfaceType>interface</interfaceType></item>";
  const url = await server((response) => {
    pages += 1;
    response.writeHead(200, { "content-type": "text/xml" });
    response.end(
      `<DescribeNetworkInterfacesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>` +
        `<networkInterfaceSet>${row.repeat(400)}</networkInterfaceSet><nextToken>t${pages}</nextToken></DescribeNetworkInterfacesResponse>`,
    );
  });
  const client = rig({ ...keys, AWS_ENDPOINT_URL_EC2: url });
  cleanUps.push(client.close);
  const answer = await client.ec2.describeInstanceEnis("i-0123456789abcdef0" as InstanceId);
  expect(answer).toMatchObject({ ok: false, error: { code: "AbsurdAnswer" } });
  expect(pages).toBeLessThan(40);
});

test("codes that an EC2 endpoint invents become no more than 51 labels, and none of them is long", async () => {
  const metrics = createMetrics({ version: "1", look: () => null });
  cleanUps.push(() => metrics.close());
  for (let at = 0; at < 5_000; at += 1)
    metrics.observeEc2Call({
      operation: "DescribeVpcs",
      outcome: "invalid",
      code: `Invented.${at}`,
      durationMs: 1,
    });
  const page = await metrics.text();
  expect(page.split("\n").filter((line) => line.startsWith("awscni_aws_api_error_count{"))).toHaveLength(51);
  const url = await server((response) => {
    response.statusCode = 400;
    response.end(
      `<Response><Errors><Error><Code>${'A"}{\n'.repeat(500)}</Code><Message>${"m".repeat(9_000)}</Message></Error></Errors><RequestID>${"r".repeat(5_000)}</RequestID></Response>`,
    );
  });
  const client = rig({ ...keys, AWS_ENDPOINT_URL_EC2: url });
  cleanUps.push(client.close);
  const answer = await client.ec2.describeInstanceEnis("i-0123456789abcdef0" as InstanceId);
  if (answer.ok) throw new Error("an error was expected");
  expect(answer.error.code).toMatch(/^[0-9A-Za-z._:?-]{1,100}$/);
  expect(answer.error.message.length).toBeLessThanOrEqual(1_000);
  expect((answer.error.requestId ?? "").length).toBeLessThanOrEqual(100);
});

test("a log line is no longer than its fields' bounds, whatever is in it", () => {
  const lines: string[] = [];
  const log = createLog({ level: "DEBUG", file: null, write: (line) => lines.push(line) });
  const long = "x".repeat(1_000_000);
  const nested: unknown[] = [];
  let inner = nested;
  for (let depth = 0; depth < 1_000; depth += 1) {
    const next: unknown[] = [];
    inner.push(next);
    inner = next;
  }
  log.warn({ verb: long, list: Array.from({ length: 100_000 }, () => "item"), nested }, "much");
  log.error({ error: new Error(long), map: new Map([["key", long]]) }, "much more");
  expect(lines).toHaveLength(2);
  for (const line of lines) expect(line.length).toBeLessThan(12_000);
  expect(lines[0]).toContain("… (1000000 characters)");
  expect(lines[0]).toContain("… (100000 in all)");
});

async function unknownSandbox(): Promise<{ readonly answer: null; readonly settled: Promise<unknown> }> {
  return await Promise.resolve({ answer: null, settled: Promise.resolve() });
}

test("10,000 ADDs and 100,000 DELs of as many sandboxes leave no lane behind and a bounded memory of them", async () => {
  const operations = new OperationsByKey();
  for (let at = 0; at < 10_000; at += 1) {
    const call = { key: `n/add-${at}/e` as SandboxId, id: `${at}`, arrival: at, stop: new AbortController() }; // Of its form.
    await operations.add(call, async () => await Promise.resolve(null));
  }
  for (let at = 0; at < 100_000; at += 1)
    await operations.del(`n/del-${at}/e` as SandboxId, 20_000 + at, unknownSandbox);
  await new Promise((resolve) => setTimeout(resolve, 0));
  expect(operations.busyCount).toBe(0);
  expect(operations.rememberedCount).toBeLessThanOrEqual(2 * 4_096);
});

test("checkpoints that are damaged again and again do not fill the disk: 16 are kept, the newest among them", () => {
  const path = join(folder(), "checkpoint");
  for (let at = 0; at < 40; at += 1) {
    writeFileSync(path, `damage ${at}`);
    createCheckpointFile({
      path,
      bootId: "b",
      wallNow: () => wallTime(1_700_000_000_000 + at * 1_000),
    }).load();
  }
  const kept = readdirSync(join(path, ".."));
  expect(kept).toHaveLength(16);
  expect(kept.sort().at(-1)).toContain("2023-11-14T22-13-59");
});

test("damaged records of the journal do not fill the disk: 256 are kept", async () => {
  const journal = join(folder(), "journal");
  mkdirSync(journal);
  for (let at = 0; at < 300; at += 1) writeFileSync(join(journal, `${at}.del`), "rubbish");
  const opened = await openJournal({
    folder: journal,
    wallNow: () => wallTime(1_700_000_000_000),
    lock: () => true,
    sleep: async () => {},
    lockWaitMs: 0,
  });
  if (!opened.ok) throw new Error(opened.error);
  const drained = await opened.value.drain(async () => ok(null));
  opened.value.close();
  expect(drained.damaged).toHaveLength(300);
  expect(readdirSync(journal).filter((name) => name !== "lock")).toHaveLength(256);
});

test("of addresses that rest without an ENI only the last 1,024 are remembered", () => {
  let state = bootedNode(M5_LARGE);
  const [eni] = [...state.enis.keys()];
  if (eni === undefined) throw new Error("no primary ENI");
  const ips = Array.from({ length: 1_500 }, (_, at) => ipv4Plus(ipv4("10.9.0.0"), at));
  for (const ip of ips) state = coolingRecovered(state, eni, ip, instant(1_000));
  expect(state.resting.size).toBe(1_024);
  expect(state.resting.has(ipv4Plus(ipv4("10.9.0.0"), 1_499))).toBe(true);
  expect(state.resting.has(ipv4("10.9.0.0"))).toBe(false);
});
