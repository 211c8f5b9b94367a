import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { takeCensus } from "../../src/core/state/census.ts";
import { METRICS } from "../../src/telemetry/metric-rows.ts";
import { type AgentFact, createMetrics, type Metrics } from "../../src/telemetry/metrics.ts";
import { gaugesOf, type NodeLook } from "../../src/telemetry/node-gauges.ts";
import type { Observed } from "../../src/agent/ports.ts";
import { arbNodeState, NOW } from "../support/arbitraries.ts";

const TARGET = { warmAddresses: 9, minimumAddresses: 0, warmPrefixes: 0 };

async function withMetrics(
  look: () => NodeLook | null,
  body: (metrics: Metrics) => Promise<void>,
): Promise<void> {
  const metrics = createMetrics({ version: "0.1.0", look });
  try {
    await body(metrics);
  } finally {
    metrics.close();
  }
}

/** The page as name{labels} → value. */
async function samples(metrics: Metrics): Promise<ReadonlyMap<string, number>> {
  const lines = (await metrics.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(" ")),
      Number(line.slice(line.lastIndexOf(" ") + 1)),
    ]),
  );
}

test("every fact that the agent tells is one that the metrics take", () => {
  const told: (fact: Observed) => AgentFact = (fact) => fact; // Held by the compiler.
  expect(told({ kind: "looked", at: "ec2" })).toEqual({ kind: "looked", at: "ec2" });
});

test("ADDs and DELs are counted by outcome, with the incumbent's names beside ours", async () => {
  await withMetrics(
    () => null,
    async (metrics) => {
      metrics.observeFact({ kind: "add", outcome: "ok", durationMs: 3, heldMs: 0 });
      metrics.observeFact({ kind: "add", outcome: "ok", durationMs: 2_000, heldMs: 1_900 });
      metrics.observeFact({ kind: "add", outcome: "no-address", durationMs: 25_000, heldMs: 25_000 });
      metrics.observeFact({ kind: "del", outcome: "unknown", durationMs: 1 });
      metrics.observeFact({ kind: "hold", reason: "throttled" });
      const page = await samples(metrics);
      expect(page.get("awscni_add_ip_req_count")).toBe(3);
      expect(page.get("awscni_no_available_ip_addresses")).toBe(1);
      expect(page.get('berth_add_seconds_count{outcome="ok"}')).toBe(2);
      expect(page.get('berth_add_seconds_bucket{le="0.005",outcome="ok"}')).toBe(1);
      expect(page.get("berth_add_held_seconds_count")).toBe(2);
      expect(page.get("berth_add_held_seconds_sum")).toBeCloseTo(26.9);
      expect(page.get('awscni_del_ip_req_count{reason="unknown"}')).toBe(1);
      expect(page.get('berth_pool_holds_total{reason="throttled"}')).toBe(1);
    },
  );
});

test("EC2 calls are counted by operation and kind, and their time is a sum and a count for the incumbent's dashboards", async () => {
  await withMetrics(
    () => null,
    async (metrics) => {
      metrics.observeEc2Call({
        operation: "AttachNetworkInterface",
        outcome: "ok",
        code: null,
        durationMs: 400,
      });
      metrics.observeEc2Call({
        operation: "AttachNetworkInterface",
        outcome: "throttled",
        code: "RequestLimitExceeded",
        durationMs: 30,
      });
      const page = await samples(metrics);
      expect(page.get('awscni_ec2api_req_count{fn="AttachNetworkInterface"}')).toBe(2);
      expect(page.get('awscni_ec2api_error_count{fn="AttachNetworkInterface"}')).toBe(1);
      expect(
        page.get('awscni_aws_api_error_count{api="AttachNetworkInterface",error="RequestLimitExceeded"}'),
      ).toBe(1);
      expect(page.get('berth_ec2_failures_total{operation="AttachNetworkInterface",kind="throttled"}')).toBe(
        1,
      );
      expect(
        page.get('awscni_aws_api_latency_ms_sum{api="AttachNetworkInterface",error="false",status="200"}'),
      ).toBe(400);
      expect(
        [...page.keys()].filter((key) => key.includes("quantile") && key.includes("latency_ms")),
      ).toEqual([]);
    },
  );
});

test("what sweep and repair do is counted, leaked ENIs apart from forgotten ones", async () => {
  await withMetrics(
    () => null,
    async (metrics) => {
      metrics.observeFact({ kind: "removed", what: "eni", why: "leaked" });
      metrics.observeFact({ kind: "removed", what: "eni", why: "not-in-ec2" });
      metrics.observeFact({ kind: "removed", what: "allocation", why: "namespace-gone" });
      metrics.observeFact({ kind: "repaired", what: "packet-filter" });
      const page = await samples(metrics);
      expect(page.get('berth_removed_total{what="eni"}')).toBe(2);
      expect(page.get("awscni_force_removed_enis")).toBe(1);
      expect(page.get("awscni_force_removed_ips")).toBe(1);
      expect(page.get('berth_repaired_total{what="packet-filter"}')).toBe(1);
    },
  );
});

test("saves, starts and running actions are told", async () => {
  await withMetrics(
    () => null,
    async (metrics) => {
      metrics.observeCheckpoint({ ok: true, durationMs: 2, bytes: 4_321 });
      metrics.observeCheckpoint({ ok: false, durationMs: 2, bytes: 9 });
      metrics.observeStart({ ok: true, failure: "", recoverMs: 300, totalMs: 400 });
      const ends = metrics.actionBegins("attach-eni");
      const during = await samples(metrics);
      ends();
      const afterwards = await samples(metrics);
      expect(during.get('awscni_ipamd_action_inprogress{fn="attach-eni"}')).toBe(1);
      expect(afterwards.get('awscni_ipamd_action_inprogress{fn="attach-eni"}')).toBe(0);
      expect(during.get("berth_checkpoint_bytes")).toBe(4_321);
      expect(during.get('berth_checkpoint_seconds_count{outcome="failed"}')).toBe(1);
      expect(
        during.get(
          'awscni_ipamd_startup_duration_seconds_sum{success="true",with_api_server="false",failure_reason=""}',
        ),
      ).toBeCloseTo(0.4);
    },
  );
});

describe("gauges of the node", () => {
  test("are absent until the daemon has recovered, and not 0", async () => {
    await withMetrics(
      () => null,
      async (metrics) => {
        const page = await samples(metrics);
        expect([...page.keys()].filter((key) => key.startsWith("berth_addresses"))).toEqual([]);
        expect(page.get("process_resident_memory_bytes")).toBeGreaterThan(1_000_000);
        expect(page.get("process_open_fds")).toBeGreaterThan(2);
      },
    );
  });

  test("agree with the census that the planner goes by, whatever the state", () => {
    fc.assert(
      fc.property(arbNodeState, (state) => {
        const census = takeCensus(state, NOW);
        const gauges = gaugesOf({ state, now: NOW, maxEni: null, prefixDelegation: false, target: TARGET });
        const value = (name: string, labels: Readonly<Record<string, string>> = {}) =>
          gauges.find((each) => each.name === name && JSON.stringify(each.labels) === JSON.stringify(labels))
            ?.value;
        for (const state of ["warm", "coming", "allocated", "cooling", "leaving"] as const) {
          expect(value("berth_addresses", { state })).toBe(census[state]);
        }
        expect(value("awscni_assigned_ip_addresses")).toBe(census.allocated);
        expect(value("awscni_total_ip_addresses")).toBe(census.total);
        const byCidr = gauges.filter((each) => each.name === "awscni_assigned_ip_per_cidr");
        expect(byCidr.reduce((sum, each) => sum + each.value, 0)).toBe(census.allocated);
        expect(value("awscni_eni_allocated")).toBe(state.enis.size);
      }),
      { numRuns: 50 },
    );
  });

  test("of an ENI that is gone leave no value behind", async () => {
    const [state] = fc.sample(
      arbNodeState.filter((each) => each.enis.size > 0),
      { numRuns: 1, seed: 7 },
    );
    if (state === undefined) throw new Error("no sample");
    let look: NodeLook = { state, now: NOW, maxEni: null, prefixDelegation: false, target: TARGET };
    await withMetrics(
      () => look,
      async (metrics) => {
        const ofEnis = (page: ReadonlyMap<string, number>) =>
          [...page.keys()].filter((key) => key.startsWith("awscni_assigned_ip_per_eni"));
        expect(ofEnis(await samples(metrics))).toHaveLength(state.enis.size);
        look = { ...look, state: { ...state, enis: new Map() } };
        expect(ofEnis(await samples(metrics))).toEqual([]);
      },
    );
  });

  test("tell the targets in force and the cap on ENIs", () => {
    const [state] = fc.sample(arbNodeState, { numRuns: 1, seed: 7 });
    if (state === undefined) throw new Error("no sample");
    const gauges = gaugesOf({
      state: { ...state, foreign: [] },
      now: NOW,
      maxEni: 1,
      prefixDelegation: true,
      target: TARGET,
    });
    const value = (name: string) => gauges.find((each) => each.name === name)?.value;
    expect(value("berth_target")).toBe(9);
    expect(value("awscni_eni_max")).toBe(1);
    expect(value("awscni_ip_max")).toBe((state.instance.limits.addressesPerEni - 1) * 16);
  });
});

test("names of our own end in their unit, and counters in _total", () => {
  const units =
    /_(seconds|bytes|total|info|held|schedulable|in_doubt|fds)$|^berth_(addresses|eni_addresses|enis|prefixes|address_slots|target|obstacles)$/;
  for (const [name, row] of Object.entries(METRICS)) {
    if (name.startsWith("awscni_")) continue;
    expect(name).toMatch(units);
    expect(name.endsWith("_total"), name).toBe(row.kind === "counter");
  }
});

test("every metric is on the page, with its help", async () => {
  await withMetrics(
    () => null,
    async (metrics) => {
      const text = await metrics.text();
      for (const [name, row] of Object.entries(METRICS)) expect(text).toContain(`# HELP ${name} ${row.help}`);
    },
  );
});
