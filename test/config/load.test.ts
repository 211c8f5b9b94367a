import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as v from "valibot";
import { agentSettings, plumbingSettings, poolSettings } from "../../src/config/for-rooms.ts";
import { type ConfigNotice, loadConfig, type LoadedConfig, printNotice } from "../../src/config/load.ts";
import { rowOf, settingKeys, settingRows } from "../../src/config/settings.ts";
import type { AgentSettings } from "../../src/agent/ports.ts";
import { ENI_MARK_MASK } from "../../src/core/plumbing/names.ts";
import type { PlumbingSettings } from "../../src/core/plumbing/settings.ts";
import { POOL_SETTINGS_DEFAULT } from "../../src/core/pool/targets.ts";

type Environment = Readonly<Record<string, string>>;

function good(environment: Environment): LoadedConfig {
  const loaded = loadConfig(environment);
  if (!loaded.ok) throw new Error(loaded.error.map(printNotice).join("\n"));
  return loaded.value;
}

function wrong(environment: Environment): readonly ConfigNotice[] {
  const loaded = loadConfig(environment);
  return loaded.ok ? [] : loaded.error;
}

describe("defaults", () => {
  test("an empty environment gives a config, without a warning", () => {
    const { config, warnings } = good({});
    expect(warnings).toEqual([]);
    expect(config).toMatchObject({
      warmEniTarget: 1,
      warmPrefixTarget: 1, // The manifest's; the incumbent's code says 0.
      ipv4: true, // Likewise; the code says false, and does not start.
      networkPolicyMode: "standard",
      cooldownMs: 30_000,
      checkpointPath: "/run/berth/checkpoint.json",
      cniSocketPath: "/run/berth/berth.sock",
      journalDirectory: "/var/lib/berth/journal",
      metricsBind: { kind: "tcp", host: "0.0.0.0", port: 61_678 },
      introspectionBind: { kind: "tcp", host: "127.0.0.1", port: 61_679 },
      logFile: null,
    });
  });

  test("every row's default is a value that the row itself allows", () => {
    for (const row of settingRows()) expect(v.is(row.schema, row.default), row.name).toBe(true);
  });

  test("the pool's defaults are the planner's own", () => {
    expect(poolSettings(good({}).config)).toEqual(POOL_SETTINGS_DEFAULT);
  });

  test("what other rooms go by comes in their own shapes", () => {
    const { config } = good({ AWS_VPC_K8S_CNI_EXTERNALSNAT: "true", POD_MTU: "1500" });
    const agent: AgentSettings = agentSettings(config);
    const plumbing: PlumbingSettings = plumbingSettings(config);
    expect(agent.podMtu).toBe(1_500);
    expect(plumbing).toMatchObject({ snat: null, eniMtu: 9_001, mainMark: 0x80, nodePort: true });
  });
});

describe("the incumbent's tolerance", () => {
  test('WARM_ENI_TARGET="null", as real clusters carry it, means 1 and is told once', () => {
    const { config, warnings } = good({ WARM_ENI_TARGET: "null" });
    expect(config.warmEniTarget).toBe(1);
    expect(warnings).toMatchObject([
      { kind: "bad-value", setting: "WARM_ENI_TARGET", read: "null", used: "1" },
    ]);
  });

  test.each([
    ["WARM_IP_TARGET", "-3", "warmIpTarget", null],
    ["MINIMUM_IP_TARGET", "many", "minimumIpTarget", null],
    ["MAX_ENI", "four", "maxEni", null],
    ["ENABLE_PREFIX_DELEGATION", "yes", "prefixDelegation", false],
    ["ENABLE_PREFIX_DELEGATION", "", "prefixDelegation", false],
    ["AWS_VPC_K8S_CNI_RANDOMIZESNAT", "dice", "randomizeSnat", "prng"],
    ["AWS_VPC_K8S_CNI_LOGLEVEL", "LOUD", "logLevel", "DEBUG"],
    ["ADDITIONAL_ENI_TAGS", "{", "additionalEniTags", {}],
    ["HTTP_TIMEOUT", "5", "ec2AttemptTimeoutMs", 10_000],
    ["AWS_VPC_ENI_MTU", "", "eniMtu", 9_001],
    [
      "INTROSPECTION_BIND_ADDRESS",
      "0.0.0.0:61679",
      "introspectionBind",
      { kind: "tcp", host: "127.0.0.1", port: 61_679 },
    ],
  ] as const)("%s=%j gives the default and one warning", (name, text, key, value) => {
    const { config, warnings } = good({ [name]: text });
    expect(config[key]).toEqual(value);
    expect(warnings).toMatchObject([{ kind: "bad-value", setting: name, read: text }]);
  });

  test.each(["1", "t", "T", "TRUE", "true", "True"])("%s is true, as Go reads it", (text) => {
    const { config, warnings } = good({ AWS_VPC_K8S_CNI_EXTERNALSNAT: text, DISABLE_METRICS: text });
    expect([config.externalSnat, config.metrics, warnings]).toEqual([true, false, []]);
  });

  test.each([
    ["MAX_ENI", "0", "maxEni", null],
    ["POD_MTU", "", "podMtu", 9_001], // Which keeps the incumbent's node NotReady.
    ["MAX_ENI", "3", "maxEni", 3],
    ["WARM_IP_TARGET", "0", "warmIpTarget", null],
    ["WARM_IP_TARGET", "7", "warmIpTarget", 7],
    ["IP_COOLDOWN_PERIOD", "0", "cooldownMs", 0],
    ["AWS_VPC_K8S_CNI_CONNMARK", "0x40000", "connmark", 0x40000],
    ["AWS_VPC_K8S_CNI_LOGLEVEL", "info", "logLevel", "INFO"],
    [
      "INTROSPECTION_BIND_ADDRESS",
      "unix:/run/x.sock",
      "introspectionBind",
      { kind: "unix", path: "/run/x.sock" },
    ],
    ["AWS_VPC_K8S_CNI_LOG_FILE", "/var/log/a.log", "logFile", "/var/log/a.log"],
    ["AWS_VPC_K8S_CNI_LOG_FILE", "stderr", "logFile", null],
  ] as const)("%s=%s is read without a warning", (name, text, key, value) => {
    const { config, warnings } = good({ [name]: text });
    expect([config[key], warnings]).toEqual([value, []]);
  });

  test("blocks that are no IPv4 CIDRs are left out of a list, and named", () => {
    const { config, warnings } = good({
      AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: "10.9.0.0/16, fd00::/8,bad,192.168.1.1/24,172.16.0.0/12",
    });
    expect(config.excludeSnatCidrs.map((cidr) => `${cidr.network}/${cidr.prefixLength}`)).toEqual([
      "10.9.0.0/16",
      "172.16.0.0/12",
    ]);
    expect(warnings.map(printNotice).join()).toMatch(/fd00::\/8.*bad.*192\.168\.1\.1\/24/);
  });

  test("tags that would pass for ours are left out, and named", () => {
    const { config, warnings } = good({
      ADDITIONAL_ENI_TAGS: '{"team":"net","node.k8s.amazonaws.com/instance_id":"i-1"}',
    });
    expect(config.additionalEniTags).toEqual({ team: "net" });
    expect(warnings).toMatchObject([{ kind: "cleaned", setting: "ADDITIONAL_ENI_TAGS" }]);
  });

  test.each([
    ["AWS_VPC_ENI_MTU", "575"],
    ["AWS_VPC_ENI_MTU", "9002"],
    ["POD_MTU", "big"],
    ["IP_COOLDOWN_PERIOD", "30s"],
    ["AWS_VPC_K8S_CNI_VETHPREFIX", "toolong"],
    ["AWS_VPC_K8S_CNI_VETHPREFIX", "eth"],
    ["AWS_VPC_K8S_CNI_VETHPREFIX", "en"], // Would match ens5.
    ["NETWORK_POLICY_ENFORCING_MODE", "deny"],
  ])("%s=%s stops the daemon, as it stops the incumbent or would break a promise", (name, text) => {
    expect(wrong({ [name]: text })).toMatchObject([
      { kind: "bad-value", setting: name, read: text, used: null },
    ]);
  });
});

describe("our own names are strict", () => {
  test.each([
    ["BERTH_SWEEP_INTERVAL_SECONDS", "0"],
    ["BERTH_SWEEP_INTERVAL_SECONDS", "1.5"],
    ["BERTH_SWEEP_INTERVAL_SECONDS", ""],
    ["BERTH_ADD_HOLD_SECONDS", "29"], // The plugin would give up first.
    ["BERTH_CHAIN_PORTMAP", "True"],
    ["BERTH_RUN_DIRECTORY", "run/berth"],
    ["BERTH_RUN_DIRECTORY", "/run/../etc"],
    ["BERTH_DATA_PATH", "macvlan"],
    ["BERTH_POD_SUBNET_IDS", "subnet-0123456789abcdef0,sg-1"],
    ["BERTH_METRICS_BIND_ADDRESS", "example.com:80"],
    ["BERTH_METRICS_BIND_ADDRESS", "127.0.0.1:65536"],
    ["BERTH_PROBE_BIND_ADDRESS", "unix:/run/probe.sock"],
    ["BERTH_MAX_PODS_COUNT", "0"],
  ])("%s=%j is refused, with what is allowed", (name, text) => {
    const [notice, ...more] = wrong({ [name]: text });
    expect(more).toEqual([]);
    expect(notice).toMatchObject({ kind: "bad-value", setting: name, read: text, used: null });
    expect(notice === undefined ? "" : printNotice(notice)).toContain(
      `${name} is ${JSON.stringify(text)}, allowed is `,
    );
  });

  test("files follow the run directory unless they are set", () => {
    const { config } = good({
      BERTH_RUN_DIRECTORY: "/run/other",
      BERTH_CHECKPOINT_PATH: "/var/lib/berth/c.json",
    });
    expect(config.cniSocketPath).toBe("/run/other/berth.sock");
    expect(config.stateSocketPath).toBe("/run/other/state.sock");
    expect(config.checkpointPath).toBe("/var/lib/berth/c.json");
  });

  test("no name of ours may be one that Kubernetes makes for a Service", () => {
    for (const row of settingRows()) expect(row.name).not.toMatch(/_(SERVICE_HOST|SERVICE_PORT|PORT)$/);
  });

  test("an integer outside of its range is never taken, whatever the setting", () => {
    const bounded = settingRows().flatMap((row) => {
      const range = /^an integer from (\d+) to (\d+)/.exec(row.allowed);
      return range === null ? [] : [{ row, low: Number(range[1]), high: Number(range[2]) }];
    });
    expect(bounded.length).toBeGreaterThan(15);
    fc.assert(
      fc.property(
        fc.constantFrom(...bounded),
        fc.integer({ min: -10, max: 20_000_000_000 }),
        ({ row, low, high }, n) => {
          expect(v.is(row.schema, `${n}`)).toBe(n >= low && n <= high);
        },
      ),
    );
  });
});

describe("names", () => {
  test.each([
    ["BERTH_SWEEP_INTERVAL_SECOND", "BERTH_SWEEP_INTERVAL_SECONDS"],
    ["BERTH_CHEKPOINT_PATH", "BERTH_CHECKPOINT_PATH"],
    ["BERTH_SWEEP_SECONDS", "BERTH_SWEEP_INTERVAL_SECONDS"],
    ["BERTH_MAX_PODS", "BERTH_MAX_PODS_COUNT"],
    ["BERTH_TELEPORT_PODS", null],
  ])("%s stops the daemon; meant was %s", (name, nearest) => {
    expect(wrong({ [name]: "1" })).toEqual([{ kind: "unknown-name", setting: name, nearest }]);
  });

  test.each([
    ["WARM_IP_TRAGET", "WARM_IP_TARGET"],
    ["ENABLE_IPV4", "ENABLE_IPv4"],
    ["ENABLE_PREFIX_DELEGATON", "ENABLE_PREFIX_DELEGATION"],
    ["AWS_VPC_K8S_CNI_EXTERNAL_SNAT", "AWS_VPC_K8S_CNI_EXTERNALSNAT"],
    ["MINIMUM_IP_TARGETS", "MINIMUM_IP_TARGET"],
    ["Berth_RUN_DIRECTORY", "BERTH_RUN_DIRECTORY"],
    ["AWS_VPC_CNI_FUTURE_FEATURE", null],
  ])("%s is passed over aloud; meant was %s", (name, nearest) => {
    expect(good({ [name]: "1" }).warnings).toEqual([{ kind: "unknown-name", setting: name, nearest }]);
  });

  test.each([
    "POD_IP",
    "POD_NAMESPACE",
    "PATH",
    "AWS_PROFILE",
    "ENABLE_SOMETHING_ELSE",
    "BERTH_SERVICE_HOST",
    "BERTH_METRICS_SERVICE_PORT_HTTP",
    "BERTH_METRICS_PORT",
    "BERTH_METRICS_PORT_61678_TCP_ADDR",
  ])("%s is somebody else's, and not worth a word", (name) => {
    expect(good({ [name]: "x" }).warnings).toEqual([]);
  });
});

describe("what is not available yet", () => {
  test.each([
    ["AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"],
    ["ENABLE_POD_ENI", "1"],
    ["ENABLE_IMDS_ONLY_MODE", "T"],
    ["NETWORK_POLICY_ENFORCING_MODE", "strict"],
  ])("%s=%s is refused: going on would break a promise", (name, text) => {
    expect(wrong({ [name]: text })).toMatchObject([{ kind: "not-available", setting: name, read: text }]);
  });

  test("IPv6 is refused as not available", () => {
    const notices = wrong({ ENABLE_IPv6: "true", ENABLE_IPv4: "false" });
    expect(notices).toMatchObject([{ kind: "not-available", setting: "ENABLE_IPv6" }]);
  });

  test.each(["ENABLE_BANDWIDTH_PLUGIN", "ENABLE_V6_EGRESS", "ENABLE_MULTI_NIC"])(
    "%s=true is told and passed over",
    (name) => {
      expect(good({ [name]: "true" }).warnings).toMatchObject([{ kind: "not-available", setting: name }]);
    },
  );

  test("each later setting is taken at its default without a word", () => {
    const later = settingRows().filter((row) => row.stage === "later");
    expect(later.length).toBeGreaterThan(15);
    const environment = Object.fromEntries(later.map((row) => [row.name, row.default]));
    expect(good(environment).warnings).toEqual([]);
  });

  test("the incumbent's manifest, as it ships, starts without a refusal", () => {
    const { warnings } = good({
      ADDITIONAL_ENI_TAGS: "{}",
      ANNOTATE_POD_IP: "false",
      AWS_VPC_CNI_NODE_PORT_SUPPORT: "true",
      AWS_VPC_ENI_MTU: "9001",
      AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: "false",
      AWS_VPC_K8S_CNI_EXTERNALSNAT: "false",
      AWS_VPC_K8S_CNI_LOGLEVEL: "DEBUG",
      AWS_VPC_K8S_CNI_LOG_FILE: "/host/var/log/aws-routed-eni/ipamd.log",
      AWS_VPC_K8S_CNI_RANDOMIZESNAT: "prng",
      AWS_VPC_K8S_CNI_VETHPREFIX: "eni",
      AWS_VPC_K8S_PLUGIN_LOG_FILE: "/var/log/aws-routed-eni/plugin.log",
      AWS_VPC_K8S_PLUGIN_LOG_LEVEL: "DEBUG",
      CLUSTER_ENDPOINT: "",
      DISABLE_INTROSPECTION: "false",
      DISABLE_METRICS: "false",
      DISABLE_NETWORK_RESOURCE_PROVISIONING: "false",
      ENABLE_IMDS_ONLY_MODE: "false",
      ENABLE_IPv4: "true",
      ENABLE_IPv6: "false",
      ENABLE_MULTI_NIC: "false",
      ENABLE_POD_ENI: "false",
      ENABLE_PREFIX_DELEGATION: "false",
      ENABLE_SUBNET_DISCOVERY: "true",
      NETWORK_POLICY_ENFORCING_MODE: "standard",
      VPC_CNI_VERSION: "v1.23.1",
      VPC_ID: "",
      WARM_ENI_TARGET: "1",
      WARM_PREFIX_TARGET: "1",
      MY_NODE_NAME: "ip-10-0-0-10.eu-central-1.compute.internal",
      MY_POD_NAME: "aws-node-abcde",
    });
    expect(warnings).toEqual([]);
  });

  test("a name that nobody reads any more gets one warning", () => {
    expect(good({ ENABLE_NFTABLES: "true" }).warnings).toMatchObject([
      { kind: "no-longer-read", setting: "ENABLE_NFTABLES" },
    ]);
  });
});

describe("contradictions", () => {
  test.each([
    [{ ENABLE_PREFIX_DELEGATION: "true", WARM_PREFIX_TARGET: "0" }, "ENABLE_PREFIX_DELEGATION"],
    [{ ENABLE_IPv4: "false" }, "ENABLE_IPv4"],
    [{ MAX_ENI: "1", BERTH_PODS_ON_PRIMARY_ENI: "false" }, "MAX_ENI"],
    [{ BERTH_METRICS_BIND_ADDRESS: ":61680" }, "BERTH_METRICS_BIND_ADDRESS"],
    [{ BERTH_STATE_SOCKET_PATH: "/run/berth/berth.sock" }, "BERTH_SOCKET_PATH"],
    [{ BERTH_CHECKPOINT_PATH: "/var/run/aws-node/ipam.json" }, "BERTH_CHECKPOINT_PATH"],
  ])("%j is refused", (environment, first) => {
    expect(wrong(environment)).toMatchObject([
      { kind: "contradiction", settings: expect.arrayContaining([first]) },
    ]);
  });

  test.each([
    [{ WARM_ENI_TARGET: "3", WARM_IP_TARGET: "5" }, "WARM_ENI_TARGET"],
    [{ WARM_ENI_TARGET: "2", ENABLE_PREFIX_DELEGATION: "true" }, "WARM_ENI_TARGET"],
    [{ WARM_PREFIX_TARGET: "4" }, "WARM_PREFIX_TARGET"],
    [{ WARM_ENI_TARGET: "5", MAX_ENI: "2" }, "WARM_ENI_TARGET"],
    [{ MINIMUM_IP_TARGET: "50", BERTH_MAX_PODS_COUNT: "10" }, "MINIMUM_IP_TARGET"],
    [{ AWS_VPC_ENI_MTU: "1500", POD_MTU: "9001" }, "POD_MTU"],
    [{ AWS_VPC_K8S_CNI_CONNMARK: "0x4000" }, "AWS_VPC_K8S_CNI_CONNMARK"],
    [
      { AWS_VPC_K8S_CNI_EXTERNALSNAT: "true", AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS: "10.0.0.0/8" },
      "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
    ],
    [{ BERTH_LOG_FILE: "/a/b", AWS_VPC_K8S_CNI_LOG_FILE: "/c/d" }, "BERTH_LOG_FILE"],
  ])("%j is told, and the daemon goes on", (environment, first) => {
    expect(good(environment).warnings).toMatchObject([
      { kind: "contradiction", settings: expect.arrayContaining([first]) },
    ]);
  });

  test("a server that is switched off quarrels with no other about its port", () => {
    expect(wrong({ BERTH_METRICS_BIND_ADDRESS: ":61680", DISABLE_METRICS: "true" })).toEqual([]);
  });

  test("without provisioning no leaked ENI is deleted", () => {
    expect(good({ DISABLE_NETWORK_RESOURCE_PROVISIONING: "true" }).config.deleteLeakedEnis).toBe(false);
  });
});

test("all mistakes are told at once, each a line of its own", () => {
  const notices = wrong({
    AWS_VPC_ENI_MTU: "1",
    BERTH_MAX_PODS_COUNT: "-1",
    BERTH_SWEEP_INTERVAL_SECOND: "3",
    ENABLE_POD_ENI: "true",
    ENABLE_PREFIX_DELEGATION: "true",
    WARM_PREFIX_TARGET: "0",
  });
  expect(notices.map((notice) => notice.kind).sort()).toEqual([
    "bad-value",
    "bad-value",
    "contradiction",
    "not-available",
    "unknown-name",
  ]);
  for (const notice of notices) expect(printNotice(notice)).toMatch(/^[^\n]{20,400}$/);
});

test("whatever stands in the environment, loading answers and never throws", () => {
  const names = settingKeys().map((key) => rowOf(key).name);
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...names), fc.string({ maxLength: 200 })), (environment) => {
      const loaded = loadConfig(environment);
      if (!loaded.ok) expect(loaded.error.length).toBeGreaterThan(0);
      else expect(loaded.value.config.podMtu).toBeGreaterThanOrEqual(576);
    }),
  );
});

test("the mark may not touch the bits that number the ENIs", () => {
  for (let bit = 1; bit <= ENI_MARK_MASK; bit *= 2) {
    expect(good({ AWS_VPC_K8S_CNI_CONNMARK: `${bit}` }).config.connmark).toBe(0x80);
  }
});
