// The daemon beside an API server that a test scripts: demand before ADDs, cordon, settings of one node, events and annotations; and no
// API server at all. The server stands in the test's namespace; a relay of bytes leads to it from the node's loopback.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type LabNode, waitUntil } from "../../src/lab/node.ts";
import {
  type KubeServer,
  makeKubeServer,
  nodeObject,
  NODES,
  podObject,
  PODS,
} from "../support/kube-server.ts";
import { addPods, failures, oneNode } from "../support/lab-node.ts";

const PORT = 18_443;
let server: KubeServer;
let folder: string;
let relay: ChildProcess | null = null;
let path: { close: () => void };

beforeEach(async () => {
  server = await makeKubeServer();
  folder = mkdtempSync(join(tmpdir(), "berth-api-"));
  const { port } = new URL(server.url);
  const door = createServer((from) => {
    const to = connect(Number(port), "127.0.0.1");
    for (const end of [from, to]) end.on("error", () => [from.destroy(), to.destroy()]);
    from.pipe(to).pipe(from);
  });
  door.listen(join(folder, "api.sock"));
  path = { close: () => door.close() };
});

afterEach(async () => {
  relay?.kill("SIGKILL");
  relay = null;
  path.close();
  await server.close();
  rmSync(folder, { recursive: true });
});

function openRelay(node: LabNode): void {
  const script = `
    const net = require("node:net");
    net.createServer((from) => {
      const to = net.connect(process.argv[1]);
      for (const end of [from, to]) end.on("error", () => { from.destroy(); to.destroy(); });
      from.pipe(to).pipe(from);
    }).listen(${PORT}, "127.0.0.1");`;
  relay = spawn(
    "nsenter",
    [`--net=${node.netns}`, process.execPath, "-e", script, join(folder, "api.sock")],
    {
      stdio: "inherit",
    },
  );
}

function settings(over: Record<string, string> = {}): Record<string, string> {
  const kubeconfig = join(folder, "kubeconfig");
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      "current-context": "c",
      contexts: [{ name: "c", context: { cluster: "c", user: "u" } }],
      clusters: [{ name: "c", cluster: { server: `http://127.0.0.1:${PORT}` } }],
      users: [{ name: "u", user: { token: "t" } }],
    }),
  );
  return {
    BERTH_KUBECONFIG: kubeconfig,
    BERTH_NODE_POOLS_FILE: join(folder, "pools.json"),
    MY_POD_NAME: "berth-self",
    ...over,
  };
}

async function page(node: LabNode, name: string): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const socketPath = join(dirname(node.pluginEnv["BERTH_SOCKET"] ?? ""), "state.sock");
    const asked = request({ socketPath, path: name }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => (body += text));
      response.on("end", () => resolve(JSON.parse(body)));
    });
    asked.on("error", reject);
    asked.end();
  });
}

test("pods that are bound to the node have their addresses warm before their ADDs come, and no other pod counts", async () => {
  server.put(NODES, nodeObject());
  server.serve(PODS);
  const { node } = await oneNode({ settings: settings() });
  openRelay(node);
  await node.startDaemon();
  await waitUntil("the pool is on target", 20_000, async () => (await node.state()).census.warm === 3);
  await waitUntil("pods are watched", 20_000, () => server.watching(PODS) === 1);
  for (let at = 0; at < 5; at += 1) server.put(PODS, podObject(`pod-${at}`));
  server.put(PODS, podObject("host", { hostNetwork: true }));
  server.put(PODS, podObject("done", { phase: "Succeeded" }));
  await waitUntil("there is one for each", 20_000, async () => (await node.state()).census.warm === 8);
  const added = await addPods(node, 5);
  expect(failures(added)).toEqual([]);
  await waitUntil("the spare is back", 20_000, async () => {
    const { census } = await node.state();
    return census.allocated === 5 && census.warm === 3;
  });
});

test("a cordon, a pool's settings and a node's label act without a restart, and the page tells where each is from", async () => {
  server.put(NODES, nodeObject());
  server.serve(PODS);
  const { node } = await oneNode({ settings: settings() });
  openRelay(node);
  await node.startDaemon();
  await waitUntil("the pool is on target", 20_000, async () => (await node.state()).census.warm === 3);
  await waitUntil("the node is watched", 20_000, () => server.watching(NODES) === 1);
  server.put(NODES, nodeObject({ labels: { role: "batch" } }));
  writeFileSync(
    join(folder, "pools.json"),
    JSON.stringify({
      pools: [{ name: "batch", nodeLabels: { role: "batch" }, settings: { WARM_IP_TARGET: 6 } }],
    }),
  );
  await waitUntil("the pool's target is met", 20_000, async () => (await node.state()).census.warm === 6);
  expect(await page(node, "/settings")).toMatchObject({
    pool: "batch",
    settings: { WARM_IP_TARGET: { value: "6", origin: "pool batch" } },
  });
  server.put(NODES, nodeObject({ labels: { role: "batch", "berth.internal/WARM_IP_TARGET": "7" } }));
  await waitUntil("the label's target is met", 20_000, async () => (await node.state()).census.warm === 7);
  server.put(NODES, nodeObject({ labels: { role: "batch" }, unschedulable: true }));
  await waitUntil("the node is left alone", 20_000, async () => (await node.state()).plan.kind === "hold");
  await waitUntil("for the cordon", 20_000, async () => {
    const { plan } = await node.state();
    return plan.kind === "hold" && plan.reason === "cordoned";
  });
  server.remove(NODES, "uid-n1");
  server.put(NODES, nodeObject({ uid: "uid-again" }));
  await waitUntil(
    "a node made anew is an ordinary one",
    20_000,
    async () => (await node.state()).census.warm === 3,
  );
});

test("without an API server, and while it is away or denies, pods with warm addresses start", async () => {
  const { node } = await oneNode({ settings: settings({ ANNOTATE_POD_IP: "true" }) });
  await node.startDaemon(); // Nobody listens at its address.
  await waitUntil("the pool is on target", 20_000, async () => (await node.state()).census.warm === 3);
  expect(failures(await addPods(node, 3))).toEqual([]);
  server.setMood((_request, response) => {
    response.statusCode = 403;
    response.end("{}");
    return false;
  });
  openRelay(node);
  await waitUntil("it is asked", 30_000, () => server.asked.length > 0);
  const [pod] = await node.runtime.makeSandboxes(["while-denied"]);
  if (pod === undefined) throw new Error("no sandbox");
  await waitUntil("the pool is full again", 20_000, async () => (await node.state()).census.warm >= 1);
  expect((await node.runtime.call("ADD", pod)).ok).toBe(true);
  expect(node.log()).toContain("the API server does not tell; what it said last stands");
});

test("pods are annotated with their addresses, and those that wait for one are told why", async () => {
  server.put(NODES, nodeObject());
  server.put(PODS, podObject("berth-self", { namespace: "kube-system", hostNetwork: true }));
  for (let at = 0; at < 3; at += 1) server.put(PODS, podObject(`pod-${at}`));
  const { node } = await oneNode({ settings: settings({ ANNOTATE_POD_IP: "true", MAX_ENI: "1" }) });
  openRelay(node);
  await node.startDaemon();
  expect(failures(await addPods(node, 3))).toEqual([]);
  const annotated = () => server.wrote.filter((each) => each.method === "PATCH");
  await waitUntil("all are annotated", 20_000, () => annotated().length >= 3);
  expect(annotated()[0]).toMatchObject({
    path: "/api/v1/namespaces/default/pods/pod-0",
    contentType: "application/merge-patch+json",
    body: {
      metadata: {
        uid: "uid-pod-0",
        annotations: { "vpc.amazonaws.com/pod-ips": expect.stringMatching(/^10\./) },
      },
    },
  });
  await waitUntil("kubelet's number is found too high", 20_000, () =>
    server.wrote.some((each) => each.body["reason"] === "MaxPodsDiffers"),
  );
});
