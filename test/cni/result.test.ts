import { describe, expect, test } from "vitest";
import { parseNetworkConfig, type NetworkConfig } from "../../src/cni/netconf.ts";
import { prevResultDifferences, printResult, type Attached } from "../../src/cni/result.ts";
import { SPEC_VERSIONS } from "../../src/cni/wire.ts";
import type { Mac } from "../../src/core/model/eni.ts";
import { ipv4 } from "../../src/lib/ip.ts";

const attached: Attached = {
  ip: ipv4("10.0.1.7"),
  gateway: ipv4("169.254.1.1"),
  ifName: "eth0",
  netnsPath: "/run/netns/a",
  podMac: "0e:00:00:00:00:01" as Mac, // Test data.
  hostLink: "eni0123456789a",
  hostMac: "0a:00:00:00:00:01" as Mac,
  mtu: 9001,
};

function config(cniVersion: string, extra: object = {}): NetworkConfig {
  const parsed = parseNetworkConfig(JSON.stringify({ cniVersion, name: "pods", ...extra }));
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  return parsed.value;
}

type Printed = {
  readonly cniVersion: string;
  readonly interfaces: readonly Record<string, unknown>[];
  readonly ips: readonly Record<string, unknown>[];
  readonly routes: readonly Record<string, unknown>[];
  readonly dns?: unknown;
};
const print = (of: NetworkConfig): Printed => JSON.parse(printResult(attached, of)) as Printed; // Compared field by field below.

test.each(SPEC_VERSIONS)("the result in version %s", async (version) => {
  const pretty = `${JSON.stringify(print(config(version)), null, 2)}\n`;
  await expect(pretty).toMatchFileSnapshot(`../golden/cni/result-${version}.json`);
});

test("an ipvlan pod's address has its subnet's bits, and its ways into the VPC stand beside the default one", () => {
  const ipvlan: Attached = {
    ...attached,
    prefixLength: 24,
    gateway: ipv4("10.0.1.1"),
    defaultGateway: ipv4("10.0.0.10"),
    routes: [{ to: "10.0.0.0/16", gateway: ipv4("10.0.1.1") }],
  };
  const { ips, routes } = JSON.parse(printResult(ipvlan, config("1.0.0"))) as Printed; // As above.
  expect(ips).toEqual([{ interface: 1, address: "10.0.1.7/24", gateway: "10.0.1.1" }]);
  expect(routes).toEqual([
    { dst: "0.0.0.0/0", gw: "10.0.0.10" },
    { dst: "10.0.0.0/16", gw: "10.0.1.1" },
  ]);
});

test("it is one line", () => {
  expect(printResult(attached, config("1.0.0"))).toMatch(/^\{[^\n]*\}\n$/);
});

test.each(SPEC_VERSIONS)(
  "in version %s the address belongs to the pod's interface, and to no other",
  (version) => {
    const { interfaces, ips } = print(config(version));
    expect(ips.map((ip) => interfaces[Number(ip["interface"])])).toEqual([
      expect.objectContaining({ name: "eth0", sandbox: "/run/netns/a" }),
    ]);
    expect(interfaces.filter((each) => each["sandbox"] === undefined).map((each) => each["name"])).toEqual([
      "eni0123456789a",
    ]);
  },
);

test("the conflist's dns is passed on; without one it is printed empty in old versions and not at all in new ones", () => {
  const dns = { nameservers: ["10.0.0.2"], domain: "example" };
  expect(print(config("1.0.0", { dns })).dns).toEqual(dns);
  expect(print(config("0.4.0")).dns).toEqual({});
  expect(print(config("1.0.0"))).not.toHaveProperty("dns");
});

describe("behind other plugins", () => {
  const prevResult = {
    cniVersion: "1.1.0",
    interfaces: [{ name: "lo" }, { name: "net1", sandbox: "/run/netns/a", pciID: "0000:00:05.0" }],
    ips: [{ address: "192.168.0.3/24", interface: 1 }],
    routes: [{ dst: "192.168.0.0/16", table: 7 }],
    dns: { search: ["first"] },
    somethingOfTheirs: { kept: true },
  };

  test("what they made stays as it was, and ours comes after it with indexes that fit", () => {
    const printed = print(config("1.1.0", { prevResult }));
    expect(printed).toMatchObject({ somethingOfTheirs: { kept: true }, dns: { search: ["first"] } });
    expect(printed.interfaces.slice(0, 2)).toEqual(prevResult.interfaces);
    expect(printed.ips[0]).toEqual(prevResult.ips[0]);
    expect(printed.routes[0]).toEqual(prevResult.routes[0]);
    expect(printed.interfaces[Number(printed.ips[1]?.["interface"])]).toMatchObject({ name: "eth0" });
  });

  test("lists that are null or missing are empty ones", () => {
    const printed = print(config("1.0.0", { prevResult: { interfaces: null, ips: null } }));
    expect(printed.interfaces.length).toBe(2);
    expect(printed.ips).toMatchObject([{ interface: 1 }]);
  });
});

describe("what a CHECK compares", () => {
  const previous = () => {
    const { prevResult } = config("1.0.0", { prevResult: print(config("1.0.0")) });
    if (prevResult === null) throw new Error("no previous result");
    return prevResult;
  };

  test("our own result is as it should be, also when later plugins changed MAC and routes and added an interface", () => {
    expect(prevResultDifferences(previous(), attached)).toEqual([]);
    const [host = {}, pod = {}] = previous().interfaces ?? [];
    const changed = {
      ...previous(),
      interfaces: [host, { ...pod, mac: "02:00:00:00:00:09" }, { name: "bwp1" }],
      routes: [],
    };
    expect(prevResultDifferences(changed, attached)).toEqual([]);
  });

  test("another address, or another namespace, is a difference", () => {
    expect(prevResultDifferences(previous(), { ...attached, ip: ipv4("10.0.1.70") })).toHaveLength(1);
    expect(prevResultDifferences(previous(), { ...attached, netnsPath: "/run/netns/b" })).toHaveLength(1);
    expect(prevResultDifferences({}, attached)).toHaveLength(1);
  });
});
