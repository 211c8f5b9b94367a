/**
 * Nodes in LocalStack's world: real daemons that know no better than that they run on EC2, our fabric and our IMDS behind them.
 * Each test has a lab of its own, in an account of its own.
 */
import { mkdirSync, rmSync } from "node:fs";
import { createServer, request as httpRequest, type RequestListener } from "node:http";
import { join } from "node:path";
import { inject, test } from "vitest";
import { type Account, freshAccount, launch, type Network, seedNetwork } from "../../localstack/seed.ts";
import { followLocalStack, type FollowedWorld, type Launched } from "../../localstack/world.ts";
import { attachFabric } from "../../src/emulator/fabric/attach.ts";
import { createFabric, type Fabric } from "../../src/emulator/fabric/fabric.ts";
import { createImdsListener } from "../../src/emulator/imds-server.ts";
import { createNode, type LabNode } from "../../src/lab/node.ts";
import { inNetns } from "../../src/lab/processes.ts";
import type { CniAnswer, Pod } from "../../src/lab/runtime.ts";
import { cidr4 } from "../../src/lib/ip.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Where LocalStack listens, or why it does not. */
    localstack: { readonly url: string } | { readonly missing: string };
  }
}

/** One call of a daemon, and what LocalStack answered. */
export type Seen = {
  readonly node: string;
  readonly action: string;
  readonly status: number;
  readonly answer: string;
  readonly accessKeyId: string;
};

export type Lab = {
  readonly account: Account;
  readonly network: Network;
  readonly world: FollowedWorld;
  readonly fabric: Fabric;
  readonly nodes: readonly LabNode[];
  readonly node: LabNode; // The first.
  /** Calls of all daemons, in the order in which they were answered. */
  readonly calls: readonly Seen[];
  readonly close: () => Promise<void>;
};

export type LabOptions = {
  readonly nodes?: readonly { readonly name: string; readonly type: string }[];
  readonly settings?: Readonly<Record<string, string>>;
};

const PREFIX = "ls";
const FOLDER = "/run/berth-localstack";
const WRITES = /^(?:Create|Delete|Attach|Detach|Modify|Assign|Unassign)/;

export function localStackUrl(): string {
  const given = inject("localstack");
  return "url" in given ? given.url : "";
}

/**
 * A test with a lab of its own, whose daemons have not started. LocalStack draws addresses blindly, so now and then two ENIs get the same
 * one and the test's promise cannot hold: that is told aloud, and the test begins anew elsewhere. Nothing else is forgiven.
 */
export function labTest(name: string, options: LabOptions, body: (lab: Lab) => Promise<void>): void {
  const missing = inject("localstack");
  test.skipIf("missing" in missing)(name, async () => {
    for (let attempt = 1; ; attempt += 1) {
      const lab = await createLab(options);
      try {
        await body(lab);
        return;
      } catch (cause) {
        const collisions = lab.world.collisions();
        for (const node of lab.nodes) process.stderr.write(`--- ${node.name}\n${node.log().slice(-3_000)}\n`);
        if (collisions.length === 0 || attempt === 3) throw cause;
        process.stderr.write(`COLLISION in LocalStack (attempt ${attempt}): ${collisions.join("; ")}\n`);
      } finally {
        await lab.close();
      }
    }
  });
}

async function createLab({
  nodes = [{ name: "n1", type: "m5.large" }],
  settings = {},
}: LabOptions): Promise<Lab> {
  const account = freshAccount(localStackUrl());
  const network = await seedNetwork(account);
  const instances: Launched[] = [];
  for (const [at, { type }] of nodes.entries()) {
    const { instanceId } = await launch(account, network, { type, primary: `10.0.100.${10 + at}` });
    instances.push({ instanceId, type });
  }
  const fabric = await createFabric({ prefix: PREFIX, vpcCidrs: network.cidrs.map(cidr4) });
  const world = followLocalStack(account, network, instances);
  const failures: string[] = [];
  const detach = attachFabric(world, fabric, (failure, event) =>
    failures.push(`${event.kind}: ${String(failure)}`),
  );
  for (const [at, { instanceId }] of instances.entries())
    await fabric.addNode({ instanceId, netns: `${PREFIX}${nodes[at]?.name}` });
  await world.look();
  await fabric.settled();

  const calls: Seen[] = [];
  const byPrimary = new Map(
    instances.map(({ instanceId }, at) => [`10.0.100.${10 + at}`, { instanceId, at }]),
  );
  const callerOf = (address: string | undefined): { instanceId: string; at: number } | null =>
    byPrimary.get((address ?? "").replace(/^::ffff:/, "")) ?? null;
  const imds = createImdsListener(world, (asked) => callerOf(asked.socket.remoteAddress)?.instanceId ?? null);
  const ec2 = forwarder((seen, address) => {
    const at = callerOf(address)?.at;
    calls.push({ ...seen, node: at === undefined ? "" : (nodes[at]?.name ?? "") });
    // What the daemon has just been told is true now: its link may come.
    if (WRITES.test(seen.action)) world.look().catch(() => {}); // The timer looks again.
  });
  const server = createServer((asked, answer) => {
    const own = (asked.socket.localAddress ?? "").replace(/^::ffff:/, "");
    if (own === fabric.vpc.imdsAddress) imds(asked, answer);
    else ec2(asked, answer);
  });
  const listening = new Promise<void>((resolve, reject) => {
    server.once("listening", resolve).once("error", reject);
  });
  inNetns(`/run/netns/${fabric.vpc.netns}`, () => server.listen(80));
  await listening;

  mkdirSync(FOLDER, { recursive: true });
  const made = nodes.map(({ name }, at) =>
    createNode({
      name: `${PREFIX}${name}`,
      instanceId: instances[at]?.instanceId ?? "",
      folder: join(FOLDER, name),
      ec2Url: `http://${fabric.vpc.ec2Address}`,
      imdsUrl: `http://${fabric.vpc.imdsAddress}`,
      settings,
    }),
  );
  const [node] = made;
  if (node === undefined) throw new Error("a lab has a node");
  return {
    account,
    network,
    world,
    fabric,
    nodes: made,
    node,
    calls,
    close: async () => {
      await Promise.all(made.map(async (each) => await each.stopDaemon("SIGKILL")));
      await Promise.all(made.map(async (each) => await each.runtime.close()));
      detach();
      await world.close();
      server.closeAllConnections();
      server.close();
      await fabric.close();
      account.ec2.destroy();
      rmSync(FOLDER, { recursive: true, force: true });
      if (failures.length > 0 && world.collisions().length === 0)
        throw new Error(`the fabric fell behind the world: ${failures.join("; ")}`);
    },
  };
}

/** Hands each request to LocalStack as it came, and the answer back. */
function forwarder(
  onAnswer: (seen: Omit<Seen, "node">, address: string | undefined) => void,
): RequestListener {
  const target = new URL(localStackUrl());
  return (asked, answer) => {
    const address = asked.socket.remoteAddress;
    const body: Buffer[] = [];
    asked.on("data", (chunk: Buffer) => body.push(chunk));
    asked.on("end", () => {
      const text = Buffer.concat(body).toString("utf8");
      const action = new URLSearchParams(text).get("Action") ?? "";
      const accessKeyId = /Credential=([^/]+)\//.exec(asked.headers.authorization ?? "")?.[1] ?? "";
      const onward = httpRequest(
        {
          host: target.hostname,
          port: target.port,
          method: asked.method,
          path: asked.url,
          headers: { ...asked.headers, host: target.host },
        },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
          incoming.on("end", () => {
            const whole = Buffer.concat(chunks);
            const status = incoming.statusCode ?? 0;
            onAnswer({ action, status, answer: whole.toString("utf8"), accessKeyId }, address);
            const type = incoming.headers["content-type"] ?? "text/xml";
            answer.writeHead(status, { "Content-Type": type, "Content-Length": whole.length }).end(whole);
          });
        },
      );
      onward.on("error", () => answer.destroy());
      onward.end(text);
    });
  };
}

// --- What tests ask of a node ------------------------------------------------------------------------------------------

export type Placed = { readonly pod: Pod; readonly ip: string; readonly answer: CniAnswer };

/** Pods on the network, one ADD each, all at once. Every one must succeed. */
export async function addPods(node: LabNode, names: readonly string[]): Promise<readonly Placed[]> {
  const pods = await node.runtime.makeSandboxes(names);
  const answers = await Promise.all(pods.map((pod) => node.runtime.call("ADD", pod)));
  return pods.map((pod, at) => {
    const answer = answers[at];
    if (answer?.ip == null) throw new Error(`ADD of ${pod.name}: ${JSON.stringify(answer?.error)}`);
    return { pod, ip: answer.ip, answer };
  });
}

export async function removePods(node: LabNode, placed: readonly Placed[]): Promise<readonly CniAnswer[]> {
  const answers = await Promise.all(placed.map(({ pod }) => node.runtime.call("DEL", pod)));
  await node.runtime.removeSandboxes(placed.map(({ pod }) => pod));
  return answers;
}

/** What LocalStack has on the instance and what the daemon believes, ENI by ENI, as two equal values when they agree. */
export async function beliefs(
  lab: Lab,
  node: LabNode,
): Promise<{ readonly daemon: unknown; readonly localstack: unknown }> {
  await lab.world.look();
  const state = await node.state();
  const sorted = (ips: readonly string[]): readonly string[] => [...ips].sort();
  const byId = <T>(entries: readonly (readonly [string, T])[]): Record<string, T> =>
    Object.fromEntries([...entries].sort(([left], [right]) => (left < right ? -1 : 1)));
  return {
    daemon: byId(state.enis.map((eni) => [eni.id, sorted(eni.addresses.map(({ ip }) => ip))])),
    localstack: byId(
      [...lab.world.world().enis.values()]
        .filter((eni) => eni.attachment?.instanceId === node.instanceId)
        .map((eni) => [eni.id, sorted(eni.secondaries)]),
    ),
  };
}
