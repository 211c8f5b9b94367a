import { expect, test } from "vitest";
import { planAnnotations } from "../../../src/core/cluster/annotations.ts";
import { eniConfigName, eniConfigOf } from "../../../src/core/cluster/eni-config.ts";
import { type EventFacts, newEventMemory, planEvents, REMEDIES } from "../../../src/core/cluster/events.ts";
import type { NodeSeen } from "../../../src/core/model/cluster.ts";
import type { Allocation } from "../../../src/core/state/node-state.ts";
import { instant } from "../../../src/lib/time.ts";
import { pod } from "../../support/pods.ts";

const at = (ms: number) => instant(1_000_000 + ms);
const NODE: NodeSeen = {
  uid: "uid-n1",
  name: "n1",
  unschedulable: false,
  labels: {},
  annotations: {},
  podCapacity: 29,
};
const CALM: EventFacts = {
  node: NODE,
  ownPod: pod("berth-x"),
  waiting: 0,
  unserved: [],
  why: { blocked: null, detail: "" },
  obstacles: [],
  without: () => "the node serves what it has",
  maxPods: 29,
};
const EXHAUSTED: EventFacts = {
  ...CALM,
  waiting: 2,
  unserved: [{ pod: pod("web"), since: at(-20_000) }],
  why: { blocked: "subnet-exhausted", detail: "subnet-1 has no free address" },
};

test("a calm node tells nothing", () => {
  expect(planEvents(newEventMemory(at(0)), CALM, at(0)).events).toEqual([]);
});

test("pods that wait and their node are told why, and what to do", () => {
  const { events } = planEvents(newEventMemory(at(0)), EXHAUSTED, at(0));
  expect(events.map(({ about, reason }) => `${about.kind} ${about.name} ${reason}`)).toEqual([
    "Node n1 PodAddressesShort",
    "Pod web PodWaitsForAddress",
  ]);
  for (const { message } of events) {
    expect(message).toContain("subnet-1 has no free address");
    expect(message).toContain(REMEDIES["subnet-exhausted"]);
  }
});

test("a pod that came a moment ago, and a wait that ends by itself, make no event", () => {
  const young = { ...EXHAUSTED, unserved: [{ pod: pod("web"), since: at(-1_000) }] };
  expect(planEvents(newEventMemory(at(0)), young, at(0)).events.map((each) => each.about.kind)).toEqual([
    "Node",
  ]);
  const passing = { ...EXHAUSTED, why: { blocked: "link-awaited" as const, detail: "eni-1 attached" } };
  expect(planEvents(newEventMemory(at(0)), passing, at(0)).events).toEqual([]);
});

test("the same is told again after ten minutes, and not before", () => {
  const first = planEvents(newEventMemory(at(0)), EXHAUSTED, at(0));
  expect(planEvents(first.memory, EXHAUSTED, at(599_000)).events).toEqual([]);
  expect(planEvents(first.memory, EXHAUSTED, at(600_000)).events).toHaveLength(2);
});

test("however much there is to tell, ten events are told at once and ten a minute", () => {
  const unserved = Array.from({ length: 250 }, (_, index) => ({ pod: pod(`p${index}`), since: at(-60_000) }));
  const facts = { ...EXHAUSTED, unserved };
  let memory = newEventMemory(at(0));
  let told = 0;
  for (let second = 0; second <= 60; second += 2) {
    const planned = planEvents(memory, facts, at(second * 1_000));
    memory = planned.memory;
    told += planned.events.length;
  }
  expect(told).toBe(20);
});

test("a right that is missing is told on the daemon's own pod, as the incumbent does, with what is lacking", () => {
  const obstacles = [
    { kind: "access-denied", operation: "CreateNetworkInterface", attempt: 1, until: at(1) } as const,
  ];
  const { events } = planEvents(newEventMemory(at(0)), { ...CALM, obstacles }, at(0));
  expect(events).toHaveLength(1);
  expect(events[0]).toMatchObject({ reason: "MissingIAMPermissions", about: { name: "berth-x" } });
  expect(events[0]?.message).toContain("ec2:CreateNetworkInterface");
  expect(events[0]?.message).toContain("the node serves what it has");
});

test("a kubelet that takes more pods than there can be addresses is told the number", () => {
  const { events } = planEvents(newEventMemory(at(0)), { ...CALM, maxPods: 17 }, at(0));
  expect(events).toMatchObject([{ reason: "MaxPodsDiffers", about: { kind: "Node" } }]);
  expect(events[0]?.message).toContain("set kubelet's max-pods to 17");
});

const allocation = (name: string, ip: string): Allocation =>
  // Only these two are looked at.
  ({ pod: { namespace: "default", name }, ip }) as unknown as Allocation;

test("annotations follow what pods have, also where a write was lost", () => {
  const pods = new Map(
    [
      pod("new"),
      pod("told", { annotatedIps: "10.0.0.2" }),
      pod("moved", { annotatedIps: "10.0.0.9" }),
      pod("done", { finished: true, annotatedIps: "10.0.0.4" }),
      pod("leaving", { leaving: true }),
      pod("host", { hostNetwork: true }),
      pod("no-address-yet"),
    ].map((each) => [each.uid, each]),
  );
  const held = ["new 10.0.0.1", "told 10.0.0.2", "moved 10.0.0.3", "leaving 10.0.0.5"].map((each) =>
    each.split(" "),
  );
  const allocations = new Map(held.map(([name = "", ip = ""]) => [name, allocation(name, ip)]));
  expect(planAnnotations(pods, allocations).map(({ pod, ips }) => `${pod.name}=${ips}`)).toEqual([
    "new=10.0.0.1",
    "moved=10.0.0.3",
    "done=",
  ]);
});

test("an ENIConfig is chosen by label of others, annotation, label of the operator, or the name default", () => {
  const keys = { annotation: "k8s.amazonaws.com/eniConfig", label: "topology.kubernetes.io/zone" };
  const name = (labels: Record<string, string>, annotations: Record<string, string> = {}): string =>
    eniConfigName({ ...NODE, labels, annotations }, keys);
  expect(name({})).toBe("default");
  expect(name({ "topology.kubernetes.io/zone": "a" })).toBe("a");
  expect(name({ "topology.kubernetes.io/zone": "a" }, { "k8s.amazonaws.com/eniConfig": "b" })).toBe("b");
  const external = { "vpc.amazonaws.com/externalEniConfig": "c" };
  expect(name(external, { "k8s.amazonaws.com/eniConfig": "b" })).toBe("c");
  const one = { uid: "1", name: "a", subnet: "subnet-1", securityGroups: [] };
  expect(eniConfigOf(new Map([["1", one]]), "a")).toBe(one);
  expect(eniConfigOf(new Map([["1", { ...one, subnet: null }]]), "a")).toBeNull();
  expect(eniConfigOf(null, "a")).toBeNull();
});
