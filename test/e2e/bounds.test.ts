// A real daemon that is asked more than anybody should ask: its memory, its log and its answers to others keep within bounds.
import { readFileSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { decodeAnswer, encodeRequest, FIELDS, type AnswerFrame, type FieldName } from "../../src/cni/wire.ts";
import { createCluster, type Cluster } from "../../src/lab/cluster.ts";
import { SHIM, waitUntil, type LabNode } from "../../src/lab/node.ts";
import { run } from "../../src/lab/processes.ts";
import type { Pod } from "../../src/lab/runtime.ts";

let cluster: Cluster | null = null;
let node: LabNode;
let pod: Pod;

beforeAll(async () => {
  cluster = await createCluster({
    nodes: [{ name: "n1", type: "t3.small" }],
    settings: {
      WARM_IP_TARGET: "1",
      IP_COOLDOWN_PERIOD: "1",
      BERTH_ADD_HOLD_SECONDS: "0",
      DISABLE_METRICS: "true",
    },
  });
  const [first] = cluster.nodes;
  if (first === undefined) throw new Error("no node");
  node = first;
  await node.startDaemon();
  const [made] = await node.runtime.makeSandboxes(["one"]);
  if (made === undefined) throw new Error("no sandbox");
  pod = made;
});
afterAll(async () => {
  await cluster?.close();
});

const encoder = new TextEncoder();
const CONFIG = encoder.encode(JSON.stringify({ cniVersion: "1.0.0", name: "berth", type: "berth-cni" }));
let requests = 0;

/** One request as the shim would send it, without a process for each. Null when the daemon hung up without an answer. */
async function ask(verb: "ADD" | "DEL", containerId: string): Promise<AnswerFrame | null> {
  requests += 1;
  const texts: Partial<Record<FieldName, string>> = {
    CNI_COMMAND: verb,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: pod.netns,
    CNI_IFNAME: `e${requests % 1_000}`, // An ADD waits for the link of the one before, were the name the same.
  };
  const fields = Object.fromEntries(
    FIELDS.map((name) => [name, name === "stdin" ? CONFIG : encoder.encode(texts[name] ?? "")]),
  ) as Record<FieldName, Uint8Array>; // Each name of FIELDS.
  const id = requests.toString(16).padStart(32, "0");
  return await new Promise((resolve) => {
    const socket = connect(node.pluginEnv["BERTH_SOCKET"] ?? "");
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", () => {}); // "close" follows.
    socket.on("close", () => {
      const answer = decodeAnswer(Buffer.concat(chunks));
      resolve(answer.ok ? answer.value : null);
    });
    socket.end(encodeRequest({ version: 1, id, deadlineMs: 10_000, fields }));
  });
}

async function askMany(verb: "ADD" | "DEL", count: number, prefix: string): Promise<Map<string, number>> {
  const outcomes = new Map<string, number>();
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let at = next; at < count; at = next) {
      next += 1;
      const answer = await ask(verb, `${prefix}${at}`);
      const outcome =
        answer === null ? "none" : answer.kind === "again" ? "again" : `exit ${answer.exitCode}`;
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: 24 }, worker));
  return outcomes;
}

function memoryMb(): number {
  const status = readFileSync(`/proc/${node.daemonPid()}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1_024;
}

const logBytes = (): number => statSync("/run/berth-lab/n1/daemon.log").size;

/** All of them in the long run (BERTH_BOUNDS_FULL); a share of them shows the same growth. */
const FULL = process.env["BERTH_BOUNDS_FULL"] !== undefined;
const ADDS = FULL ? 10_000 : 1_000;
const DELS = FULL ? 100_000 : 4_000;

test("ADDs without a DEL, and DELs of nothing, leave memory and log as they were, however many", {
  timeout: FULL ? 900_000 : 90_000,
}, async () => {
  await askMany("DEL", 1_000, "warm-up"); // What the first requests load and compile is not what is looked for.
  const before = { memory: memoryMb(), log: logBytes() };
  const adds = await askMany("ADD", ADDS, "never-deleted");
  const dels = await askMany("DEL", DELS, "unknown");
  expect([...dels]).toEqual([["exit 0", DELS]]);
  expect([...adds.values()].reduce((sum, each) => sum + each, 0)).toBe(ADDS);
  expect(adds.get("exit 0") ?? 0).toBeLessThanOrEqual(9); // As many as the instance holds, and no sandbox has two.
  const state = await node.state();
  expect(state.waiting).toBe(0);
  expect(memoryMb() - before.memory).toBeLessThan(40);
  expect(logBytes() - before.log).toBeLessThan(100_000);
});

test("1,000 connections that say nothing are gone after five seconds, and pods are served", {
  timeout: 60_000,
}, async () => {
  const before = memoryMb();
  const closed = { count: 0 };
  const silent: Socket[] = Array.from({ length: 1_000 }, () => {
    const socket = connect(node.pluginEnv["BERTH_SOCKET"] ?? "");
    socket.on("error", () => {}); // "close" follows.
    socket.on("close", () => (closed.count += 1));
    return socket;
  });
  await waitUntil("the silent ones are sent away", 15_000, () => closed.count === silent.length);
  const answer = await ask("DEL", "after-the-silence");
  expect(answer).toMatchObject({ kind: "done", exitCode: 0 });
  expect(memoryMb() - before).toBeLessThan(30);
  expect(node.log()).toContain('"reason":"silent"');
});

test("nothing of the runtime's environment and configuration is logged or kept beside what names the sandbox", async () => {
  const secret = "a-secret-that-nobody-may-find";
  const { env, input } = node.runtime.request("ADD", pod, { token: secret, args: { password: secret } });
  const secrets = {
    REGISTRY_PASSWORD: secret,
    BAGGAGE: `user=${secret}`,
    TRACESTATE: `s=${secret}`,
    CNI_ARGS: `${env["CNI_ARGS"]};SECRET=${secret}`,
  };
  await run([SHIM], { netns: node.netns, input, env: { ...env, ...secrets } });
  await run([SHIM], { netns: node.netns, input: input.slice(0, -1), env: { ...env, ...secrets } }); // A broken one: errors tell most.
  await run([SHIM], { netns: node.netns, input, env: { ...env, ...secrets, CNI_COMMAND: "DEL" } });
  const kept = [node.log(), readFileSync(node.checkpointPath, "utf8"), JSON.stringify(await node.state())];
  for (const text of kept) expect(text).not.toContain(secret);
});

test("who is not root cannot speak on the socket, and cannot read what the daemon keeps", async () => {
  const folder = (node.pluginEnv["BERTH_SOCKET"] ?? "").replace(/\/[^/]*$/, "");
  for (const path of [folder, node.pluginEnv["BERTH_JOURNAL"] ?? ""])
    expect((statSync(path).mode & 0o777).toString(8)).toBe("700");
  for (const path of [node.checkpointPath, node.pluginEnv["BERTH_SOCKET"] ?? "", `${folder}/state.sock`])
    expect((statSync(path).mode & 0o077).toString(8)).toBe("0");
  const asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
  expect((await run([...asNobody, "cat", node.checkpointPath])).exitCode).not.toBe(0);
  const { env, input } = node.runtime.request("DEL", pod);
  const asked = await run([...asNobody, SHIM], {
    netns: node.netns,
    input,
    env: { ...env, BERTH_CONNECT_BUDGET_MS: "200" },
  });
  expect([asked.exitCode, asked.stdout]).toEqual([1, expect.stringContaining("Permission denied")]);
});
