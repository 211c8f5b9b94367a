import { describe, expect, test } from "vitest";
import {
  parseCniArgs,
  parseNetworkConfig,
  parseNetworkIdentity,
  parseSandboxKey,
  podNameOf,
  refusedWishes,
} from "../../src/cni/netconf.ts";

const BASE = { cniVersion: "1.0.0", name: "pods", type: "berth-cni" };

function read(extra: object) {
  const parsed = parseNetworkConfig(JSON.stringify({ ...BASE, ...extra }));
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  return parsed.value;
}

function codeOf(text: string): number {
  const parsed = parseNetworkConfig(text);
  return parsed.ok ? 0 : parsed.error.code;
}

describe("capabilities", () => {
  // The left as cri-o and cnitool send them, the right as containerd does: its structs carry no JSON names.
  const lower = {
    portMappings: [{ hostPort: 8080, containerPort: 80, protocol: "tcp", hostIP: "" }],
    bandwidth: { ingressRate: 1_000, ingressBurst: 4_294_967_295, egressRate: 0, egressBurst: 0 },
    dns: { servers: ["10.0.0.2"], searches: ["svc.local"], options: ["ndots:5"] },
    cgroupPath: "/kubepods/a",
  };
  const capitalised = {
    portMappings: [{ HostPort: 8080, ContainerPort: 80, Protocol: "TCP", HostIP: "" }],
    bandwidth: { IngressRate: 1_000, IngressBurst: 4_294_967_295, EgressRate: 0, EgressBurst: 0 },
    dns: { Servers: ["10.0.0.2"], Searches: ["svc.local"], Options: ["ndots:5"] },
    cgroupPath: "/kubepods/a",
  };

  test("capitalised and lower-case keys are read alike", () => {
    expect(read({ runtimeConfig: capitalised }).capabilities).toEqual(
      read({ runtimeConfig: lower }).capabilities,
    );
    expect(read({ runtimeConfig: lower }).capabilities).toMatchObject({
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: "tcp", hostIp: "" }],
      bandwidth: lower.bandwidth,
      dns: lower.dns,
    });
  });

  test("the exact key goes before one in another case", () => {
    const runtimeConfig = { bandwidth: { INGRESSRATE: 1, ingressRate: 2 } };
    expect(read({ runtimeConfig }).capabilities.bandwidth?.ingressRate).toBe(2);
  });

  test("absent, null and empty are one", () => {
    const none = read({}).capabilities;
    expect(read({ runtimeConfig: null }).capabilities).toEqual(none);
    expect(read({ runtimeConfig: {} }).capabilities).toEqual(none);
    expect(
      read({ runtimeConfig: { portMappings: null, bandwidth: null, dns: null, ips: null, mac: null } })
        .capabilities,
    ).toEqual(none);
  });

  test("a pod's annotations may hold what CNI_ARGS cannot", () => {
    const runtimeConfig = { "io.kubernetes.cri.pod-annotations": { "a/b": "k=v;k=v" } };
    expect(read({ runtimeConfig }).capabilities.podAnnotations.get("a/b")).toBe("k=v;k=v");
  });

  test("capabilities and unknown keys in the request are kept, not refused", () => {
    const extra = { capabilities: { portMappings: true }, berthLater: { a: 1 }, "cni.dev/anything": 7 };
    expect(read(extra).all).toMatchObject(extra);
  });
});

describe("refusals", () => {
  const rows: readonly (readonly [string, string, number])[] = [
    ["no JSON", "{", 6],
    ["a list", "[]", 6],
    ["no name", JSON.stringify({ cniVersion: "1.0.0" }), 7],
    ["a name with a slash", JSON.stringify({ ...BASE, name: "a/b" }), 7],
    ["a name that is no string", JSON.stringify({ ...BASE, name: 1 }), 6],
    ["a version that is no string", JSON.stringify({ ...BASE, cniVersion: 1 }), 6],
    ["a version that is not served", JSON.stringify({ ...BASE, cniVersion: "0.2.0" }), 1],
    [
      "a host port out of range",
      JSON.stringify({ ...BASE, runtimeConfig: { portMappings: [{ hostPort: 70_000, containerPort: 80 }] } }),
      6,
    ],
    ["capabilities in a list", JSON.stringify({ ...BASE, runtimeConfig: [] }), 6],
    ["a previous result in a list", JSON.stringify({ ...BASE, prevResult: [] }), 6],
    ["an address without text", JSON.stringify({ ...BASE, prevResult: { ips: [{ address: 7 }] } }), 6],
  ];
  test.each(rows)("%s is refused with its code, a message and where it is", (_, text, code) => {
    expect(codeOf(text)).toBe(code);
    const parsed = parseNetworkConfig(text);
    expect(parsed.ok ? "" : parsed.error.message).toMatch(/\S/);
  });

  test("the place of a mistake is told by its path", () => {
    const parsed = parseNetworkConfig(JSON.stringify({ ...BASE, prevResult: { ips: [{ address: 7 }] } }));
    expect(parsed.ok ? "" : parsed.error.details).toContain("prevResult.ips.0.address");
  });

  test("for DEL only name and version must be readable", () => {
    const spoiled = { ...BASE, prevResult: "lost", runtimeConfig: [], dns: 7 };
    expect(codeOf(JSON.stringify(spoiled))).toBe(6);
    expect(parseNetworkIdentity(JSON.stringify(spoiled))).toMatchObject({
      ok: true,
      value: { name: "pods", cniVersion: "1.0.0" },
    });
    expect(parseNetworkIdentity(JSON.stringify({ ...spoiled, name: "" })).ok).toBe(false);
  });

  test.each([
    [{ ips: ["10.0.0.5/24"] }, "", 2],
    [{ mac: "02:00:00:00:00:01" }, "", 2],
    [{}, "IP=10.0.0.5", 2],
    [{}, "MAC=02:00:00:00:00:01", 2],
    [{ ips: [], mac: "" }, "IP=;K8S_POD_NAME=a", null],
  ])("a wish for an own address or MAC is refused: %j %s", (runtimeConfig, args, code) => {
    expect(refusedWishes(read({ runtimeConfig }), parseCniArgs(args))?.code ?? null).toBe(code);
  });
});

describe("CNI_ARGS", () => {
  test("a pair is split at its first =; empty pairs, a trailing semicolon and pairs without = do no harm", () => {
    expect([...parseCniArgs("A=1;;B=x=y;alone;=2;")]).toEqual([
      ["A", "1"],
      ["B", "x=y"],
    ]);
  });

  test("a pod is named by both its names or not at all", () => {
    expect(podNameOf(parseCniArgs("K8S_POD_NAME=cart;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop"))).toEqual({
      namespace: "shop",
      name: "cart",
    });
    expect(podNameOf(parseCniArgs("K8S_POD_NAME=cart"))).toBeNull();
  });
});

describe("the sandbox key", () => {
  test.each([
    ["", "eth0"],
    ["a/b", "eth0"],
    ["-a", "eth0"],
    ["a", ""],
    ["a", ".."],
    ["a", "e/0"],
    ["a", "e:0"],
    ["a", "e\u20030"],
    ["a", "e\0"],
  ])("no part of it may be empty or lead out of its place: %j %j", (containerId, ifName) => {
    expect(parseSandboxKey("pods", containerId, ifName).ok).toBe(false);
  });
});
