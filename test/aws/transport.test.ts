import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect, type AddressInfo } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { InstanceId } from "../../src/core/model/instance.ts";
import type { EniId } from "../../src/core/model/eni.ts";
import { makeCertificates } from "../support/certificates.ts";
import { ec2Answer, scriptedServer } from "../support/scripted-server.ts";
import { keys, rig } from "./setup.ts";

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

const tls = makeCertificates();
const instance = "i-0123456789abcdef0" as InstanceId;
const noEnis = ec2Answer("DescribeNetworkInterfaces", "<networkInterfaceSet/>");

async function tlsServer(): Promise<Awaited<ReturnType<typeof scriptedServer>>> {
  const server = await scriptedServer(noEnis, tls);
  cleanUps.push(() => server.close());
  return server;
}

function bundle(text = tls.ca): string {
  const folder = mkdtempSync(join(tmpdir(), "berth-"));
  cleanUps.push(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "ca.pem"), text);
  return join(folder, "ca.pem");
}

function client(environment: Record<string, string>): ReturnType<typeof rig> {
  const made = rig({ ...keys, ...environment });
  cleanUps.push(made.close);
  return made;
}

/** An HTTP proxy that understands CONNECT and plain requests, and lists what it carried. */
async function proxy(): Promise<{ url: string; carried: string[] }> {
  const carried: string[] = [];
  const server = createServer((request, response) => {
    carried.push(`${request.method} ${request.url}`);
    noEnis({ method: "", path: "", headers: {}, body: "", form: new URLSearchParams() }, response);
  });
  server.on("connect", (request, socket, head) => {
    carried.push(`CONNECT ${request.url}`);
    const [host = "", port = ""] = (request.url ?? "").split(":");
    const far = connect(Number(port), host, () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      far.write(head);
      far.pipe(socket).pipe(far);
    });
    far.on("error", () => socket.destroy());
    socket.on("error", () => far.destroy());
    cleanUps.push(() => far.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanUps.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo; // A TCP server that listens has one.
  return { url: `http://127.0.0.1:${port}`, carried };
}

test("an authority that nobody vouches for is refused, and nothing was sent to it", async () => {
  const server = await tlsServer();
  const { ec2 } = client({ AWS_ENDPOINT_URL: server.url });
  expect(await ec2.describeInstanceEnis(instance)).toMatchObject({
    ok: false,
    error: { kind: "failing", code: expect.stringMatching(/CERT|SIGNATURE/) },
  });
  // A mutating call that never got past the handshake is not in doubt.
  expect(await ec2.deleteEni("eni-1" as EniId)).toMatchObject({ ok: false, error: { kind: "failing" } });
  expect(server.asked).toEqual([]);
});

test.each(["AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"])("an authority named by %s is trusted", async (name) => {
  const server = await tlsServer();
  const { ec2 } = client({ AWS_ENDPOINT_URL: server.url, [name]: bundle() });
  expect(await ec2.describeInstanceEnis(instance)).toEqual({ ok: true, value: [] });
});

test("another authority in the bundle does not help", async () => {
  const server = await tlsServer();
  const { ec2 } = client({ AWS_ENDPOINT_URL: server.url, AWS_CA_BUNDLE: bundle(makeCertificates().ca) });
  expect(await ec2.describeInstanceEnis(instance)).toMatchObject({ ok: false, error: { kind: "failing" } });
});

test("HTTPS_PROXY carries EC2's calls through a tunnel, with the bundle's authority at its far end", async () => {
  const server = await tlsServer();
  const { url, carried } = await proxy();
  const { ec2 } = client({ AWS_ENDPOINT_URL: server.url, HTTPS_PROXY: url, AWS_CA_BUNDLE: bundle() });
  expect(await ec2.describeInstanceEnis(instance)).toEqual({ ok: true, value: [] });
  expect(carried).toEqual([`CONNECT 127.0.0.1:${server.port}`]);
  expect(server.asked).toHaveLength(1);
});

test("HTTP_PROXY carries plain calls, and NO_PROXY keeps them from it", async () => {
  const server = await scriptedServer(noEnis);
  cleanUps.push(() => server.close());
  const { url, carried } = await proxy();
  const through = client({ AWS_ENDPOINT_URL: server.url, HTTP_PROXY: url });
  expect(await through.ec2.describeInstanceEnis(instance)).toEqual({ ok: true, value: [] });
  expect(carried).toEqual([`POST ${server.url}/`]);
  const around = client({ AWS_ENDPOINT_URL: server.url, HTTP_PROXY: url, NO_PROXY: "127.0.0.1" });
  expect(await around.ec2.describeInstanceEnis(instance)).toEqual({ ok: true, value: [] });
  expect(carried).toHaveLength(1);
  expect(server.asked).toHaveLength(1);
});

test("a proxy that is away means that nothing happened", async () => {
  const server = await tlsServer();
  const { ec2 } = client({
    AWS_ENDPOINT_URL: server.url,
    HTTPS_PROXY: "http://127.0.0.1:1",
    AWS_CA_BUNDLE: bundle(),
  });
  expect(await ec2.deleteEni("eni-1" as EniId)).toMatchObject({ ok: false, error: { kind: "failing" } });
  expect(server.asked).toEqual([]);
});

test("IMDS is never asked through a proxy", async () => {
  const imdsServer = await scriptedServer((_asked, response) => response.end("eu-west-1"));
  cleanUps.push(() => imdsServer.close());
  const { url, carried } = await proxy();
  const { imds } = client({ AWS_EC2_METADATA_SERVICE_ENDPOINT: imdsServer.url, HTTP_PROXY: url });
  expect(await imds.read("meta-data/placement/region")).toEqual({ ok: true, value: "eu-west-1" });
  expect(carried).toEqual([]);
});
