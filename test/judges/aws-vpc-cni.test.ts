// The AWS VPC CNI itself, unchanged, lives on our EC2, IMDS and fabric: what stops it is a fault of theirs. And its documented warm pool
// comes out the same in its hands and in ours.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Cluster, createCluster } from "../../src/lab/cluster.ts";
import { type LabNode, waitUntil } from "../../src/lab/node.ts";
import { ping } from "../../src/lab/packets.ts";
import type { Pod } from "../../src/lab/runtime.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { type AwsNode, createAwsNode } from "./aws-node.ts";
import { AWS_VPC_CNI_VERSION } from "./aws-vpc-cni.ts";
import { findJudges } from "./build.ts";
import { tellFigures } from "./figures.ts";
import { findPeerPrograms } from "./peer-programs.ts";
import { type Held, WARM_POOL_ROWS, type WarmPoolRow } from "./warm-pool-rows.ts";

const judges = findJudges();
const programs = findPeerPrograms();
for (const each of [judges, programs]) if (!each.ok) process.stderr.write(`${each.error}\n`);

const PODS = 100; // Their addresses are on four of its ENIs.
const PREFIX_PODS = 40; // Three prefixes.
const ADDRESSES_PER_ENI = 29; // Of an m5.4xlarge.
const FOLDER = "/run/berth-aws-vpc-cni";

// No second try: its nodes would not be new ones.
describe.skipIf(!judges.ok || !programs.ok)("the AWS VPC CNI", { retry: 0 }, () => {
  let cluster: Cluster;
  let apiServer: ApiServer;
  const awsNodes = new Map<string, AwsNode>();
  let client: string; // A host of the VPC that is no node.
  const figures = { started: false, adds: 0, failed: 0 };

  beforeAll(async () => {
    const rows = WARM_POOL_ROWS.flatMap((_, at) => [`theirs${at}`, `ours${at}`]);
    cluster = await createCluster({
      prefix: "vpc-",
      folder: FOLDER,
      nodes: [
        { name: "life", type: "m5.4xlarge" },
        { name: "prefix", type: "m5.4xlarge" },
        ...rows.map((name) => ({ name, type: "m5.xlarge" })),
      ],
      emulator: { timings: { call: 10, "link-up": 100 } },
    });
    client = `/run/netns/${cluster.fabric.client?.netns}`;
    if (!programs.ok) throw new Error(programs.error);
    apiServer = await startApiServer({
      ...programs.value,
      folder: `${FOLDER}/api-server`,
      netns: `/run/netns/${cluster.fabric.vpc.netns}`,
      address: cluster.fabric.vpc.ec2Address,
      nodeNames: [],
    });
    for (const { name } of cluster.nodes) await apiServer.addNode(name);
  });

  afterAll(async () => {
    for (const each of awsNodes.values()) await each.close();
    await apiServer.close();
    await cluster.close();
  });

  const nodeNamed = (name: string): LabNode => {
    const node = cluster.nodes.find((each) => each.name === `vpc-${name}`);
    if (node === undefined) throw new Error(`there is no node ${name}`);
    return node;
  };

  const makeAwsNode = async (name: string, settings: Readonly<Record<string, string>>): Promise<AwsNode> => {
    if (!programs.ok) throw new Error(programs.error);
    const made = await createAwsNode({
      programs: programs.value,
      node: nodeNamed(name),
      folder: `${FOLDER}/aws-${name}`,
      ec2Url: `http://${cluster.fabric.vpc.ec2Address}`,
      imdsUrl: `http://${cluster.fabric.vpc.imdsAddress}`,
      kubeconfig: apiServer.kubeconfig,
      settings,
    });
    awsNodes.set(name, made);
    return made;
  };

  /** What EC2 has of the node. */
  const held = (name: string): Held => {
    const { instanceId } = nodeNamed(name);
    const enis = [...cluster.emulator.world().enis.values()].filter(
      ({ attachment }) => attachment?.instanceId === instanceId,
    );
    return {
      enis: enis.length,
      addresses: enis.reduce((sum, { secondaries }) => sum + secondaries.length, 0),
      prefixes: enis.reduce((sum, { prefixes }) => sum + prefixes.length, 0),
    };
  };

  /** All at once, each again every second until it has an address, as kubelet would do it more slowly. Counts into the figures. */
  const addUntilServed = async (aws: AwsNode, pods: readonly Pod[]): Promise<readonly string[]> => {
    if (!judges.ok) throw new Error(judges.error);
    const folder = judges.value;
    const deadline = performance.now() + 180_000;
    const served = await Promise.all(
      pods.map(async (pod) => {
        for (;;) {
          const answer = await aws.cnitool(folder, "add", pod);
          if (answer.ok && answer.ip !== null) return answer.ip;
          if (performance.now() > deadline) return null;
          await new Promise((resolve) => setTimeout(resolve, 1_000));
        }
      }),
    );
    const ips = served.filter((ip) => ip !== null);
    figures.adds += ips.length;
    figures.failed += served.length - ips.length;
    return ips;
  };

  const removeAll = async (aws: AwsNode, pods: readonly Pod[]): Promise<void> => {
    if (!judges.ok) throw new Error(judges.error);
    const folder = judges.value;
    const answers = await Promise.all(pods.map(async (pod) => await aws.cnitool(folder, "del", pod)));
    expect(answers.filter(({ ok }) => !ok).map(({ finished }) => finished.stderr)).toEqual([]);
  };

  const answering = async (ips: readonly string[]): Promise<readonly string[]> => {
    const heard: string[] = [];
    for (const ip of ips)
      if ((await ping(client, ip, { count: 2, intervalMs: 10 })).received === 2) heard.push(ip);
    return heard;
  };

  test("starts, grows, serves, outlives kill -9, shrinks, and in prefix mode serves too", {
    timeout: 600_000,
  }, async () => {
    const life = await makeAwsNode("life", {});
    await life.startDaemon();
    figures.started = true;
    expect(held("life").addresses).toBeGreaterThanOrEqual(ADDRESSES_PER_ENI);

    const pods = await nodeNamed("life").runtime.makeSandboxes(
      Array.from({ length: PODS }, (_, at) => `pod-${at}`),
    );
    const ips = await addUntilServed(life, pods);
    expect(new Set(ips).size).toBe(PODS);
    expect(await answering(ips)).toEqual(ips);
    // Four hold 116 addresses, and more than its Node's 110 pods need it does not want.
    await waitUntil("it has grown to its target", 60_000, () => held("life").enis === 4);
    await hasAssigned(life, PODS);
    const [first] = pods;
    expect(
      (await ping(first?.netns ?? "", cluster.fabric.outside.ip, { count: 2, intervalMs: 10 })).received,
    ).toBe(2);

    await life.stopDaemon("SIGKILL");
    expect(await answering(ips.slice(0, 10))).toEqual(ips.slice(0, 10));
    await life.startDaemon();
    await hasAssigned(life, PODS);
    const [late] = await nodeNamed("life").runtime.makeSandboxes(["late"]);
    if (late === undefined) throw new Error("no sandbox was made");
    const [lateIp = ""] = await addUntilServed(life, [late]);
    expect(ips).not.toContain(lateIp);
    expect(await answering([lateIp, ...ips])).toEqual([lateIp, ...ips]);

    await removeAll(life, [...pods, late]);
    expect(await answering(ips.slice(0, 5))).toEqual([]);

    // Meanwhile its ENIs grow old enough to go.
    const prefix = await makeAwsNode("prefix", { ENABLE_PREFIX_DELEGATION: "true" });
    await prefix.startDaemon();
    const prefixPods = await nodeNamed("prefix").runtime.makeSandboxes(
      Array.from({ length: PREFIX_PODS }, (_, at) => `pod-${at}`),
    );
    const prefixIps = await addUntilServed(prefix, prefixPods);
    expect(new Set(prefixIps).size).toBe(PREFIX_PODS);
    expect(await answering(prefixIps)).toEqual(prefixIps);
    expect(held("prefix")).toMatchObject({ enis: 1, addresses: 0 });
    expect(held("prefix").prefixes).toBeGreaterThanOrEqual(Math.ceil(PREFIX_PODS / 16));
    await removeAll(prefix, prefixPods);

    await waitUntil(
      "it has detached and deleted what it needs no more",
      240_000,
      () => held("life").enis <= 2,
    );
    const leftOver = [...cluster.emulator.world().enis.values()].filter(
      ({ status }) => status === "available",
    );
    await waitUntil("no ENI is left behind", 60_000, () =>
      leftOver.every(({ id }) => !cluster.emulator.world().enis.has(id)),
    );
    await life.stopDaemon("SIGKILL");
    await prefix.stopDaemon("SIGKILL");
  });

  test("its documented warm pool comes out the same in its hands and in ours", async () => {
    const settling: Promise<{ readonly row: WarmPoolRow; readonly theirs: Held; readonly ours: Held }>[] = [];
    for (const [at, row] of WARM_POOL_ROWS.entries()) {
      // One after the other: on a busy machine three dozen starts at once let its first metadata call run into its deadline.
      const theirs = await makeAwsNode(`theirs${at}`, row.settings);
      const ours = nodeNamed(`ours${at}`);
      await theirs.startDaemon();
      await ours.startDaemon(row.settings);
      const bothSettle = async (): Promise<Awaited<(typeof settling)[number]>> => {
        const [theirHeld, ourHeld] = await Promise.all([
          settledAt(() => held(`theirs${at}`), row.holds),
          settledAt(() => held(`ours${at}`), row.holds),
        ]);
        await Promise.all([theirs.stopDaemon("SIGKILL"), ours.stopDaemon("SIGKILL")]);
        return { row, theirs: theirHeld, ours: ourHeld };
      };
      settling.push(bothSettle());
    }
    const outcomes = await Promise.all(settling);
    const right = outcomes.filter(
      ({ row, theirs, ours }) => agrees(theirs, row.holds) && agrees(ours, row.holds),
    );
    tellFigures("awsVpcCni", {
      version: AWS_VPC_CNI_VERSION,
      ...figures,
      poolRows: outcomes.length,
      poolRowsRight: right.length,
    });
    expect(outcomes.filter((each) => !right.includes(each))).toEqual([]);
    expect(figures).toEqual({ started: true, adds: PODS + 1 + PREFIX_PODS, failed: 0 });
  });
});

/** Its introspection opens a little after the plugin's socket. */
async function hasAssigned(aws: AwsNode, count: number): Promise<void> {
  await waitUntil(`it says that ${count} addresses are assigned`, 30_000, async () => {
    return (await aws.pool().catch(() => null))?.assigned === count;
  });
}

/** Its loop looks every 5 s: what stays that long through two looks is settled. */
const SETTLED_MS = 12_000;
const SETTLE_AT_MOST_MS = 120_000;

/** What is held once that has been as expected for a while; or in the end, when it never was. */
async function settledAt(look: () => Held, expected: Partial<Held>): Promise<Held> {
  const deadline = performance.now() + SETTLE_AT_MOST_MS;
  let since: number | null = null;
  for (;;) {
    const now = performance.now();
    const seen = look();
    since = agrees(seen, expected) ? (since ?? now) : null;
    if ((since !== null && now - since >= SETTLED_MS) || now > deadline) return seen;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function agrees(seen: Held, expected: Partial<Held>): boolean {
  return Object.entries(expected).every(([what, count]) => seen[what as keyof Held] === count); // Object.entries loses the names.
}
