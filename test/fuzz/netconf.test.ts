import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  parseCniArgs,
  parseNetworkConfig,
  parseNetworkIdentity,
  parseSandboxKey,
  podNameOf,
  refusedWishes,
} from "../../src/cni/netconf.ts";
import { prevResultDifferences, printResult, type Attached } from "../../src/cni/result.ts";
import { SPEC_VERSIONS } from "../../src/cni/wire.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import { arbMutatedBytes, arbMutatedJson, FUZZ_TIMEOUT_MS, fuzzing, withCoverage } from "./tools.ts";

const full = {
  cniVersion: "1.1.0",
  name: "pods",
  type: "berth-cni",
  dns: { nameservers: ["10.0.0.2"], search: ["a.b"] },
  runtimeConfig: {
    portMappings: [{ hostPort: 80, containerPort: 8080, protocol: "TCP", hostIP: "" }],
    bandwidth: { ingressRate: 1, ingressBurst: 2, egressRate: 3, egressBurst: 4 },
    dns: { servers: ["10.0.0.2"], searches: [], options: ["ndots:5"] },
    ips: [],
    mac: "",
    cgroupPath: "/a",
    "io.kubernetes.cri.pod-annotations": { a: "b" },
  },
  prevResult: {
    cniVersion: "1.1.0",
    interfaces: [{ name: "eth0", mac: "02:00:00:00:00:01", sandbox: "/run/netns/a" }],
    ips: [{ address: "10.0.0.5/32", interface: 0, gateway: "169.254.1.1" }],
    routes: [{ dst: "0.0.0.0/0", gw: "169.254.1.1" }],
    dns: {},
  },
  "cni.dev/valid-attachments": [{ containerID: "c0ffee", ifname: "eth0" }],
};
const samples = [full, { ...full, cniVersion: "0.3.1" }, { cniVersion: "1.0.0", name: "pods" }];
const attached: Attached = {
  ip: ipv4("10.0.0.5"),
  gateway: ipv4("169.254.1.1"),
  ifName: "eth0",
  netnsPath: "/run/netns/a",
  podMac: "0e:00:00:00:00:01" as Attached["podMac"], // Of its form.
  hostLink: "eni0123456789a",
  hostMac: "0a:00:00:00:00:01" as Attached["hostMac"],
  mtu: 9_001,
};
const IDENTIFIER = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

function holds(stdin: string): void {
  for (const parse of [parseNetworkConfig, parseNetworkIdentity]) {
    const config = parse(stdin);
    if (!config.ok) {
      expect(config.error.message).not.toBe("");
      continue;
    }
    expect(config.value.name).toMatch(IDENTIFIER);
    expect(SPEC_VERSIONS).toContain(config.value.cniVersion);
    refusedWishes(config.value, new Map());
    if (config.value.prevResult !== null) prevResultDifferences(config.value.prevResult, attached);
    const result: unknown = JSON.parse(printResult(attached, config.value));
    expect(result).toMatchObject({ cniVersion: config.value.cniVersion });
  }
}

test("no network configuration brings its reader down, and names that it lets through are CNI's", {
  timeout: FUZZ_TIMEOUT_MS,
}, async () => {
  await withCoverage(["src/cni/netconf.ts", "src/cni/result.ts"], () =>
    fc.assert(
      fc.property(arbMutatedJson(samples), (value) => holds(JSON.stringify(value) ?? "")),
      fuzzing(),
    ),
  );
});

test("no bytes on stdin do either", { timeout: FUZZ_TIMEOUT_MS }, () => {
  const texts = samples.map((sample) => new TextEncoder().encode(JSON.stringify(sample)));
  fc.assert(
    fc.property(arbMutatedBytes(texts), (input) => holds(new TextDecoder().decode(input))),
    fuzzing(),
  );
});

test("of the environment only keys and pod names of the right form get through", {
  timeout: FUZZ_TIMEOUT_MS,
}, () => {
  const text = fc.oneof(
    fc.string({ unit: "binary", maxLength: 30 }),
    fc.constantFrom(
      "c0ffee",
      "eth0",
      "..",
      "a/b",
      "K8S_POD_NAME=x;K8S_POD_NAMESPACE=y",
      "K8S_POD_NAME=a\nb;K8S_POD_NAMESPACE=d",
      "=;=",
      ";",
    ),
  );
  fc.assert(
    fc.property(text, text, text, (containerId, ifName, args) => {
      const key = parseSandboxKey("pods", containerId, ifName);
      if (key.ok) {
        expect(key.value.containerId).toMatch(IDENTIFIER);
        expect(key.value.ifName).not.toMatch(/[/:\s\p{Cc}]|^\.\.?$/u);
        expect(new TextEncoder().encode(key.value.ifName).length).toBeLessThanOrEqual(15);
      }
      const pod = podNameOf(parseCniArgs(args));
      if (pod !== null) expect(`${pod.namespace}/${pod.name}`).toMatch(/^[a-z0-9.-]+\/[a-z0-9.-]+$/);
    }),
    fuzzing(),
  );
});
