import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readAwsEnvironment } from "../../src/aws/environment.ts";
import { ec2Answer, scriptedServer } from "../support/scripted-server.ts";
import { keys, rig } from "./setup.ts";

test("the endpoint of EC2 is the most particular one that is set", async () => {
  const urls = {
    AWS_ENDPOINT_URL_EC2: "http://a.test",
    AWS_EC2_ENDPOINT: "http://b.test/",
    AWS_ENDPOINT_URL: "https://c.test",
  };
  const endpointOf = (environment: Record<string, string>): string | null => {
    const read = readAwsEnvironment(environment);
    if (!read.ok) throw new Error(read.error.join());
    return read.value.ec2Endpoint;
  };
  expect(endpointOf(urls)).toBe("http://a.test");
  expect(endpointOf({ ...urls, AWS_ENDPOINT_URL_EC2: "" })).toBe("http://b.test");
  expect(endpointOf({ AWS_ENDPOINT_URL: urls.AWS_ENDPOINT_URL })).toBe("https://c.test");
  expect(endpointOf({})).toBeNull();
});

test.each(["AWS_ENDPOINT_URL_EC2", "AWS_EC2_ENDPOINT", "AWS_ENDPOINT_URL"])(
  "calls go to %s",
  async (name) => {
    const server = await scriptedServer(ec2Answer("DescribeNetworkInterfaces", "<networkInterfaceSet/>"));
    const { ec2, close } = rig({ ...keys, [name]: server.url });
    expect(await ec2.describeInstanceEnis("i-1" as Parameters<typeof ec2.describeInstanceEnis>[0])).toEqual({
      ok: true,
      value: [],
    });
    expect(server.asked).toHaveLength(1);
    close();
    await server.close();
  },
);

test("all mistakes are told at once, each by its name and without a proxy's password", () => {
  const read = readAwsEnvironment({
    AWS_ENDPOINT_URL_EC2: "ec2.test:443",
    AWS_EC2_METADATA_SERVICE_ENDPOINT: "ftp://169.254.169.254",
    AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: "IPv5",
    HTTPS_PROXY: "socks5://me:secret@proxy.test",
    AWS_CA_BUNDLE: "/nowhere/ca.pem",
  });
  const problems = read.ok ? [] : read.error;
  expect(problems.map((text) => text.split(/[ :]/)[0])).toEqual([
    "AWS_ENDPOINT_URL_EC2",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "HTTPS_PROXY",
    "AWS_CA_BUNDLE",
  ]);
  expect(problems.join()).not.toContain("secret");
});

test("regions, IMDS modes and proxies are read as other AWS tools read them", () => {
  const folder = mkdtempSync(join(tmpdir(), "berth-"));
  const pem = join(folder, "empty.pem");
  writeFileSync(pem, "not a certificate\n");
  expect(readAwsEnvironment({ NODE_EXTRA_CA_CERTS: pem })).toEqual({
    ok: false,
    error: [`NODE_EXTRA_CA_CERTS: ${pem} holds no certificate`],
  });
  rmSync(folder, { recursive: true });
  const six = readAwsEnvironment({
    AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: "IPv6",
    AWS_DEFAULT_REGION: "eu-north-1",
  });
  expect(six).toMatchObject({
    ok: true,
    value: { imdsEndpoint: "http://[fd00:ec2::254]", region: "eu-north-1" },
  });
  const proxied = readAwsEnvironment({
    AWS_REGION: "a-b-1",
    AWS_DEFAULT_REGION: "c-d-1",
    https_proxy: "proxy.test:3128",
    HTTPS_PROXY: "http://other.test",
    NO_PROXY: ".internal",
  });
  expect(proxied).toMatchObject({
    ok: true,
    value: {
      region: "a-b-1",
      imdsEndpoint: "http://169.254.169.254",
      proxies: { HTTPS_PROXY: "http://proxy.test:3128", NO_PROXY: ".internal" },
    },
  });
});
