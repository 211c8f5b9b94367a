/** The story that `npm run demo` tells: two nodes in an emulated VPC, real daemons, real CNI calls, real packets. */
import { ec2Differences, kernelDifferences } from "./agreement.ts";
import { createCluster, type Cluster } from "./cluster.ts";
import { difference, kernelObjects } from "./kernel-view.ts";
import { waitUntil, type LabNode } from "./node.ts";
import { askTcp, ping, serveTcp, startPing } from "./packets.ts";
import { must, run } from "./processes.ts";
import { createReport, printJson, printTable } from "./report.ts";
import {
  addPods,
  byRole,
  countPings,
  deletePods,
  failures,
  type Placed,
  poolSettles,
  type Roles,
  type Stage,
  totalOf,
} from "./stage.ts";

const INSTANCE_TYPE = "m5.xlarge"; // 4 ENIs of 15 addresses: room for 56 pods.
const PODS_AT_FIRST = 20; // A node.
const BURST_PODS = 24;
const MINIMUM_IPS = 24;
const WARM_IPS = 6;
const PORT = 8_080;

/** Times as on a real cloud's good day, but short enough to watch; the pool is tuned so that one sees it breathe. */
const EMULATOR = {
  timings: {
    call: 40,
    "link-up": 400,
    attached: 300,
    detached: 600,
    "imds-attach": 500,
    "describe-lag": 200,
  },
  buckets: { scale: 1, drained: 0 },
} as const;

const SETTINGS = {
  WARM_IP_TARGET: `${WARM_IPS}`,
  MINIMUM_IP_TARGET: `${MINIMUM_IPS}`,
  IP_COOLDOWN_PERIOD: "3",
  BERTH_ENI_LIFE_MIN_SECONDS: "1",
  BERTH_SWEEP_INTERVAL_SECONDS: "2",
  BERTH_LEAK_AGE_SECONDS: "3",
} as const;

/** Returns the exit code: 0 when every check passed. With `json`, stdout holds one object and nothing else. */
export async function demo(options: { readonly json: boolean }): Promise<number> {
  const began = performance.now();
  const report = createReport((text) => void (options.json ? process.stderr : process.stdout).write(text));
  let cluster: Cluster | null = null;
  try {
    report.step("a VPC, its router, an internet gateway, an outside host; two instances boot");
    cluster = await createCluster({
      nodes: [
        { name: "n1", type: INSTANCE_TYPE },
        { name: "n2", type: INSTANCE_TYPE },
      ],
      settings: SETTINGS,
      emulator: EMULATOR,
    });
    const [first, second] = cluster.nodes;
    if (first === undefined || second === undefined) throw new Error("the cluster has no two nodes");
    report.tally.nodes = 2;
    const stage: Stage = {
      report,
      cluster,
      nodes: [first, second],
      pods: new Map([
        [first, []],
        [second, []],
      ]),
    };
    await tell(stage);
  } catch (cause) {
    report.check(
      "the story was told to its end",
      false,
      cause instanceof Error ? cause.message : String(cause),
    );
    for (const node of cluster?.nodes ?? [])
      report.note(`${node.name}: ${node.log().trim().split("\n").slice(-8).join("\n         ")}`);
  }
  await cluster
    ?.close()
    .catch((cause: unknown) => report.check("the lab ended in order", false, String(cause)));
  const wallSeconds = (performance.now() - began) / 1_000;
  const ok = report.checks.length > 0 && report.checks.every((check) => check.ok);
  process.stdout.write(options.json ? printJson(report, wallSeconds, ok) : printTable(report, wallSeconds));
  return ok ? 0 : 1;
}

async function tell(stage: Stage): Promise<void> {
  const before = await poolFills(stage);
  await podsStart(stage);
  await packetsFlow(stage);
  await burstIsHeld(stage);
  await halfLeaves(stage);
  await flushedIsHealed(stage);
  await killedAndBack(stage);
  await leakedEniGoes(stage);
  await lastPodLeaves(stage, before);
}

async function poolFills(stage: Stage): Promise<ReadonlyMap<LabNode, readonly string[]>> {
  const { report, cluster, nodes } = stage;
  report.step("the daemons start and fill their warm pools through the AWS SDK");
  await Promise.all(nodes.map((node) => node.startDaemon()));
  for (const node of nodes) await poolSettles(node);
  const states = await Promise.all(nodes.map((node) => node.state()));
  const warm = states.map((state) => state.census.warm);
  const differences = (await Promise.all(nodes.map((node) => ec2Differences(cluster, node)))).flat();
  report.check(
    "each pool is filled before the first pod",
    warm.every((count) => count >= MINIMUM_IPS),
    `${warm.join(" and ")} warm addresses on ${states.map((state) => state.census.enis).join(" and ")} ENIs`,
  );
  report.check("EC2 has what the daemons believe", differences.length === 0, differences.join("; "));
  return new Map(
    await Promise.all(nodes.map(async (node) => [node, await kernelObjects(node.netns)] as const)),
  );
}

async function podsStart(stage: Stage): Promise<void> {
  const { report, nodes } = stage;
  report.step(`${PODS_AT_FIRST} pods on each node, all CNI calls at once`);
  const answers = (await Promise.all(nodes.map((node) => addPods(stage, node, "pod", PODS_AT_FIRST)))).flat();
  const slowest = Math.max(...answers.map((answer) => answer.finished.durationMs));
  report.check(
    `${answers.length} ADDs succeed`,
    answers.every((answer) => answer.ok),
    `${failures(answers)}slowest ${slowest.toFixed(0)} ms`,
  );
  const enis = await Promise.all(
    nodes.map(
      async (node) => new Set((await node.state()).allocations.map((allocation) => allocation.eni)).size,
    ),
  );
  report.check(
    "pods have addresses of more than one ENI",
    enis.every((count) => count > 1),
    `${enis.join(" and ")} ENIs in use`,
  );
}

async function packetsFlow(stage: Stage): Promise<void> {
  const { report, cluster, nodes } = stage;
  const [first, second] = nodes;
  report.step("packets: pod to pod, node to pod, in and out of the VPC");
  const mine = await byRole(stage, first);
  const theirs = await byRole(stage, second);
  const flows: [name: string, from: string, to: string][] = [
    ["ping between pods of one node, same ENI", mine.primary.pod.netns, mine.primary2.ip],
    ["ping between pods of one node, two ENIs", mine.primary.pod.netns, mine.secondary.ip],
    ["ping between pods of two nodes", mine.primary.pod.netns, theirs.primary.ip],
    ["ping between pods of two nodes, both on secondary ENIs", mine.secondary.pod.netns, theirs.secondary.ip],
    ["ping from a node to its own pod on a secondary ENI", first.netns, mine.secondary.ip],
    ["ping from a node to a pod of the other", first.netns, theirs.secondary.ip],
    [
      "ping from a host of the VPC to a pod on a secondary ENI",
      `/run/netns/${cluster.fabric.client?.netns}`,
      mine.secondary.ip,
    ],
    ["ping from a pod to the internet", mine.secondary.pod.netns, cluster.fabric.outside.ip],
  ];
  const counts = await Promise.all(
    flows.map(async ([, from, to]) => await ping(from, to, { count: 80, intervalMs: 12 })),
  );
  for (const [at, [name]] of flows.entries()) {
    const { sent, received } = counts[at] ?? { sent: 0, received: 0 };
    countPings(report, { sent, received });
    report.check(name, received === sent && sent > 0, `${received} of ${sent}`);
  }
  await tcpKeepsSources(stage, mine, theirs);
}

async function tcpKeepsSources(stage: Stage, mine: Roles, theirs: Roles): Promise<void> {
  const { report, cluster, nodes } = stage;
  const outside = `/run/netns/${cluster.fabric.outside.netns}`;
  const servers = await Promise.all([
    serveTcp(theirs.secondary.pod.netns, PORT),
    serveTcp(mine.primary.pod.netns, PORT),
    serveTcp(outside, PORT),
  ]);
  const asked: [name: string, from: Placed, to: string, expected: string][] = [
    [
      "TCP between two nodes: the source address is the pod's",
      mine.secondary,
      theirs.secondary.ip,
      mine.secondary.ip,
    ],
    [
      "TCP within a node: the source address is the pod's",
      mine.secondary,
      mine.primary.ip,
      mine.secondary.ip,
    ],
    [
      "TCP to the internet: the source address is the node's public one",
      mine.secondary,
      cluster.fabric.outside.ip,
      cluster.fabric.publicIpOf(nodes[0].instanceId) ?? "none",
    ],
  ];
  for (const [name, from, to, expected] of asked) {
    const seen = await askTcp(from.pod.netns, to, PORT);
    report.check(name, seen === expected, seen === expected ? seen : `saw ${seen}, expected ${expected}`);
  }
  for (const server of servers) server.close();
}

async function burstIsHeld(stage: Stage): Promise<void> {
  const { report, nodes } = stage;
  const [first] = nodes;
  const warm = (await first.state()).census.warm;
  report.step(
    `a burst of ${BURST_PODS} pods where ${warm} addresses are warm: the rest is held until EC2 gives more`,
  );
  const answers = await addPods(stage, first, "burst", BURST_PODS);
  const held = (await first.state()).counters.heldAdds;
  const slowest = Math.max(...answers.map((answer) => answer.finished.durationMs));
  report.check(
    "no ADD of the burst fails",
    answers.every((answer) => answer.ok),
    `${failures(answers)}${held} held, slowest ${(slowest / 1_000).toFixed(1)} s`,
  );
  report.check("ADDs beyond the warm pool were held, not failed", held > 0, `${held} held`);
}

async function halfLeaves(stage: Stage): Promise<void> {
  const { report, cluster, nodes } = stage;
  report.step("half the pods leave; their addresses cool down; the pools shrink");
  const totals = await Promise.all(nodes.map(totalOf));
  const answers = (
    await Promise.all(
      nodes.map(async (node) => {
        const pods = stage.pods.get(node) ?? [];
        return await deletePods(stage, node, pods.slice(0, Math.floor(pods.length / 2)));
      }),
    )
  ).flat();
  report.check(
    `${answers.length} DELs succeed, and so does each one's repetition`,
    answers.every((answer) => answer.ok),
    failures(answers),
  );
  const cooling = await Promise.all(nodes.map(async (node) => (await node.state()).census.cooling));
  report.check(
    "released addresses rest before they are used again",
    cooling.some((count) => count > 0),
    `${cooling.join(" and ")} cooling`,
  );
  for (const node of nodes) await poolSettles(node);
  const after = await Promise.all(nodes.map(totalOf));
  report.check(
    "the pool of the node with the burst shrinks",
    (after[0] ?? 0) < (totals[0] ?? 0),
    `${totals[0]} to ${after[0]} addresses`,
  );
  const differences = (await Promise.all(nodes.map((node) => ec2Differences(cluster, node)))).flat();
  report.check("EC2 agrees after growth and shrinking", differences.length === 0, differences.join("; "));
}

async function flushedIsHealed(stage: Stage): Promise<void> {
  const { report, nodes } = stage;
  const [first, second] = nodes;
  report.step("somebody flushes our nft table, all our rules, and the pods' routes");
  const [pod] = stage.pods.get(first) ?? [];
  const [other] = stage.pods.get(second) ?? [];
  if (pod === undefined || other === undefined) throw new Error("no pods are left");
  const before = await kernelObjects(first.netns, { enis: true });
  await must(["nft", "delete", "table", "inet", "berth"], { netns: first.netns });
  await must(["ip", "route", "flush", "table", "100"], { netns: first.netns });
  await run(
    [
      "sh",
      "-c",
      "for p in 512 1024; do ip rule del priority $p; done; while ip rule del priority 1536; do :; done",
    ],
    { netns: first.netns },
  );
  const gone = difference(before, await kernelObjects(first.netns, { enis: true })).length;
  const began = performance.now();
  await waitUntil(
    "the node's plumbing is healed",
    20_000,
    async () => difference(before, await kernelObjects(first.netns, { enis: true })).length === 0,
  );
  const seconds = (performance.now() - began) / 1_000;
  report.check(
    "what was flushed is put back",
    gone > 3 && seconds < 10,
    `${gone} objects in ${seconds.toFixed(1)} s`,
  );
  const count = await ping(pod.pod.netns, other.ip, { count: 20, intervalMs: 20 });
  countPings(report, count);
  report.check(
    "pods reach each other again",
    count.received === count.sent,
    `${count.received} of ${count.sent}`,
  );
}

async function killedAndBack(stage: Stage): Promise<void> {
  const { report, nodes } = stage;
  const [first, second] = nodes;
  report.step(
    "SIGKILL in the middle of ADDs, while pings run; a DEL comes while nobody is there; the daemon starts again",
  );
  const mine = stage.pods.get(first) ?? [];
  const theirs = stage.pods.get(second) ?? [];
  const flows = mine
    .slice(0, 4)
    .map((placed, at) => startPing(placed.pod.netns, theirs[at % theirs.length]?.ip ?? "", 10));
  const adds = addPods(stage, first, "late", 8);
  await new Promise((resolve) => setTimeout(resolve, 25));
  await first.stopDaemon("SIGKILL");
  const leaver = mine.at(-1);
  if (leaver === undefined) throw new Error("no pods are left");
  const deleted = await first.runtime.call("DEL", leaver.pod);
  await first.runtime.removeSandboxes([leaver.pod]);
  stage.pods.set(
    first,
    (stage.pods.get(first) ?? []).filter((each) => each !== leaver),
  );
  report.check(
    "a DEL succeeds while the daemon is away",
    deleted.ok,
    `${deleted.error?.msg ?? "in the journal"}, ${(deleted.finished.durationMs / 1_000).toFixed(1)} s`,
  );
  const began = performance.now();
  await first.startDaemon();
  const ms = performance.now() - began;
  const state = await first.state();
  report.check("the daemon is back", true, `${ms.toFixed(0)} ms from start to ready`);
  report.check(
    "the DEL was played from the journal",
    !state.allocations.some((allocation) => allocation.id.includes(leaver.pod.containerId)),
    leaver.ip,
  );
  const answers = await adds;
  report.check(
    "the ADDs that the kill cut through succeed",
    answers.every((answer) => answer.ok),
    failures(answers),
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  const counts = await Promise.all(flows.map(async (flow) => await flow.stop()));
  for (const count of counts) countPings(report, count);
  const sent = counts.reduce((sum, count) => sum + count.sent, 0);
  const lost = counts.reduce((sum, count) => sum + count.sent - count.received, 0);
  report.check("no ping was lost meanwhile", lost === 0 && sent > 100, `${sent} sent, ${lost} lost`);
}

async function leakedEniGoes(stage: Stage): Promise<void> {
  const { report, cluster, nodes } = stage;
  report.step("an ENI that an earlier life left behind, and one that is somebody else's");
  const { instanceId } = nodes[0];
  const owner = {
    "node.k8s.amazonaws.com/instance_id": instanceId,
    "node.k8s.amazonaws.com/createdAt": "2020-01-01T00:00:00Z",
  };
  const { subnetId, emulator } = cluster;
  const before = new Set(emulator.world().enis.keys());
  const plant = (tags: Readonly<Record<string, string>>): string => {
    emulator.fault({ kind: "foreign-eni", subnetId, description: `aws-K8S-${instanceId}`, tags });
    const planted = [...emulator.world().enis.keys()].find((id) => !before.has(id));
    if (planted === undefined) throw new Error("no ENI was planted");
    before.add(planted);
    return planted;
  };
  const leaked = plant(owner);
  const foreign = plant({ ...owner, "node.k8s.amazonaws.com/no_manage": "true" });
  const began = performance.now();
  await waitUntil("the leaked ENI is deleted", 20_000, () => !emulator.world().enis.has(leaked));
  report.check(
    "the leaked ENI is found and deleted",
    true,
    `${((performance.now() - began) / 1_000).toFixed(1)} s`,
  );
  report.check("the ENI tagged no_manage is left alone", emulator.world().enis.has(foreign), foreign);
}

async function lastPodLeaves(stage: Stage, before: ReadonlyMap<LabNode, readonly string[]>): Promise<void> {
  const { report, cluster, nodes } = stage;
  report.step("do cloud, kernel and daemon agree? then the last pods leave");
  const differences = (
    await Promise.all(
      nodes.map(async (node) => [
        ...(await ec2Differences(cluster, node)),
        ...(await kernelDifferences(node)),
      ]),
    )
  ).flat();
  report.check(
    "EC2, kernel and daemon agree with pods running",
    differences.length === 0,
    differences.slice(0, 3).join("; "),
  );
  const answers = (
    await Promise.all(nodes.map((node) => deletePods(stage, node, stage.pods.get(node) ?? [])))
  ).flat();
  report.check(
    "all pods leave",
    answers.every((answer) => answer.ok),
    `${answers.length} DELs`,
  );
  for (const node of nodes) await poolSettles(node);
  let leaked: string[] = [];
  const look = async (): Promise<boolean> => {
    leaked = [];
    for (const node of nodes)
      leaked.push(
        ...difference(before.get(node) ?? [], await kernelObjects(node.netns)).map(
          (line) => `${node.name}: ${line}`,
        ),
      );
    return leaked.length === 0;
  };
  await waitUntil("no kernel object is left over", 10_000, look).catch(() => {});
  report.tally.leakedKernelObjects = leaked.length;
  report.check(
    "the kernels hold what they held before the first pod",
    leaked.length === 0,
    leaked.slice(0, 3).join("; "),
  );
  const states = await Promise.all(nodes.map((node) => node.state()));
  report.tally.leakedAddresses = states.reduce((sum, state) => sum + state.census.allocated, 0);
  const known = new Set(states.flatMap((state) => state.enis.map((eni) => eni.id)));
  const stray = [...cluster.emulator.world().enis.values()].filter(
    (eni) => !known.has(eni.id) && eni.tags["node.k8s.amazonaws.com/no_manage"] !== "true",
  );
  report.tally.leakedEnis = stray.length;
  report.check(
    "no ENI and no address is left over",
    stray.length === 0 && report.tally.leakedAddresses === 0,
    stray.map((eni) => eni.id).join(" "),
  );
  const agreed = (await Promise.all(nodes.map((node) => ec2Differences(cluster, node)))).flat();
  report.check("EC2 and the daemons agree at the end", agreed.length === 0, agreed.slice(0, 2).join("; "));
  const spoofed = await cluster.fabric.spoofedFrames();
  report.check(
    "the VPC saw no frame with a source that is not its ENI's",
    spoofed.length === 0,
    spoofed.map((frame) => `${frame.ip} by ${frame.eniId}`).join(" "),
  );
}
