// The informer and its client against a scripted API server on loopback: good days, and the bad ones.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { PodSeen } from "../../src/core/model/cluster.ts";
import { createKubeClient, type KubeClient } from "../../src/kube/client.ts";
import { decodePod } from "../../src/kube/decode.ts";
import type { KubeError } from "../../src/kube/errors.ts";
import { type InformerPorts, keepInformed, type Resource } from "../../src/kube/informer.ts";
import { type KubeServer, makeKubeServer, podObject, PODS } from "../support/kube-server.ts";

const RESOURCE: Resource<PodSeen> = {
  name: "pods",
  path: PODS,
  query: { fieldSelector: "spec.nodeName=n1" },
  decode: decodePod,
};

let server: KubeServer;
let folder: string;
let stop: AbortController;

beforeEach(async () => {
  server = await makeKubeServer();
  server.serve(PODS);
  folder = mkdtempSync(join(tmpdir(), "berth-kube-"));
  writeFileSync(join(folder, "token"), "first");
  writeFileSync(join(folder, "ca.crt"), "");
  stop = new AbortController();
});

afterEach(async () => {
  stop.abort();
  await server.close();
  rmSync(folder, { recursive: true });
});

function clientOf(
  over: { deadlineMs?: number; silenceMs?: number; answerBytesMax?: number } = {},
): KubeClient {
  return createKubeClient({
    source: { kind: "service-account", directory: folder, server: server.url },
    userAgent: "berth-test",
    deadlineMs: 5_000,
    silenceMs: 60_000,
    answerBytesMax: 16 * 1024 * 1024,
    ...over,
  });
}

/** Runs an informer whose sleeps are short but real, and remembers everything. */
function inform(client: KubeClient = clientOf()) {
  let items: ReadonlyMap<string, PodSeen> = new Map();
  const unreadable: string[] = [];
  const outcomes: ("listed" | KubeError)[] = [];
  const slept: number[] = [];
  let clock = 0;
  const ports: InformerPorts = {
    sleep: async (ms, signal) => {
      slept.push(ms);
      clock += ms;
      if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, 2));
    },
    random: () => 0.5,
    now: () => clock,
    onUnreadable: (_resource, detail) => unreadable.push(detail),
    onOutcome: (_resource, outcome) => outcomes.push(outcome),
  };
  const ended = keepInformed(client, RESOURCE, ports, (next) => (items = new Map(next)), stop.signal);
  return {
    names: () => [...items.values()].map((pod) => pod.name).sort(),
    unreadable,
    outcomes,
    slept,
    ended,
  };
}

async function until(holds: () => boolean): Promise<void> {
  for (let tries = 0; !holds(); tries += 1) {
    if (tries > 4_000) throw new Error("waited in vain");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

test("what is there is listed from the server's cache, and what comes and goes is followed by one watch", async () => {
  server.put(PODS, podObject("a"));
  const seen = inform();
  await until(() => server.watching(PODS) === 1);
  expect(seen.names()).toEqual(["a"]);
  expect(server.lists(PODS)[0]?.query.get("resourceVersion")).toBe("0");
  expect(server.lists(PODS)[0]?.query.get("fieldSelector")).toBe("spec.nodeName=n1");
  server.put(PODS, podObject("b"));
  await until(() => seen.names().length === 2);
  server.remove(PODS, "uid-a");
  await until(() => seen.names().join() === "b");
  expect(server.lists(PODS)).toHaveLength(1);
  stop.abort();
  await seen.ended;
});

test("a watch that the server ends is taken up where it was, at the last bookmark, without a new list", async () => {
  const seen = inform();
  await until(() => server.watching(PODS) === 1);
  server.bookmark(PODS);
  const bookmarked = server.version();
  server.closeWatches();
  await until(() => server.watches(PODS).length === 2 && server.watching(PODS) === 1);
  expect(server.watches(PODS)[1]?.query.get("resourceVersion")).toBe(bookmarked);
  server.put(PODS, podObject("late"));
  await until(() => seen.names().length === 1);
  expect(server.lists(PODS)).toHaveLength(1);
});

test("a place that is too old to watch from leads to a new list, which is never older than what was seen", async () => {
  const seen = inform();
  await until(() => server.watching(PODS) === 1);
  const before = server.watches(PODS)[0]?.query.get("resourceVersion");
  server.forget();
  server.put(PODS, podObject("new"));
  server.cutWatches();
  await until(() => server.lists(PODS).length === 2 && seen.names().length === 1);
  expect(Number(server.lists(PODS)[1]?.query.get("resourceVersion"))).toBeGreaterThanOrEqual(Number(before));
  expect(seen.outcomes.some((each) => each !== "listed" && each.kind === "expired")).toBe(true);
});

test("a line that cannot be read is counted, and the picture is made anew, for nobody knows what the line told", async () => {
  server.put(PODS, podObject("a"));
  const seen = inform();
  await until(() => server.watching(PODS) === 1);
  server.say(PODS, "<html>a proxy's page</html>\n");
  await until(() => server.lists(PODS).length === 2);
  expect(seen.unreadable).toEqual(["<html>a proxy's page</html>"]);
  await until(() => server.watching(PODS) === 1);
  server.say(PODS, `${JSON.stringify({ type: "ADDED", object: { metadata: {} } })}\n`);
  await until(() => seen.unreadable.length === 2);
  expect(seen.names()).toEqual(["a"]);
});

test("an object that lacks what makes it one is counted, and hides no other", async () => {
  server.put(PODS, podObject("a"));
  server.put(PODS, { metadata: { name: "no-namespace", uid: "uid-odd" } });
  const seen = inform();
  await until(() => server.watching(PODS) === 1);
  expect(seen.names()).toEqual(["a"]);
  expect(seen.unreadable).toHaveLength(1);
});

test("a server that closes every watch is asked less and less often, and what it says still comes in", async () => {
  server.setMood((request, response) => {
    if (!(request.url ?? "").includes("watch=1")) return true;
    setImmediate(() => response.end());
    return true;
  });
  const seen = inform();
  await until(() => server.watches(PODS).length >= 8);
  expect(seen.slept.slice(0, 8)).toEqual([...seen.slept.slice(0, 8)].sort((left, right) => left - right));
  expect(Math.max(...seen.slept)).toBeLessThanOrEqual(5_000);
  server.put(PODS, podObject("b"));
  await until(() => seen.names().includes("b"));
  expect(server.lists(PODS)).toHaveLength(1);
});

test("a server that denies is asked again at growing intervals, and serves as soon as it allows", async () => {
  let denies = true;
  server.put(PODS, podObject("a"));
  server.setMood((_request, response) => {
    if (!denies) return true;
    response.statusCode = 403;
    response.end(JSON.stringify({ kind: "Status", message: 'pods is forbidden: User "x" cannot list' }));
    return false;
  });
  const seen = inform();
  await until(() => seen.outcomes.length >= 5);
  expect(seen.outcomes[0]).toMatchObject({ kind: "denied", status: 403 });
  expect(seen.slept[4] ?? 0).toBeGreaterThan((seen.slept[0] ?? 0) * 8);
  expect(Math.max(...seen.slept)).toBeLessThanOrEqual(60_000);
  denies = false;
  await until(() => seen.names().length === 1);
});

test("a server that asks to come later is not asked before", async () => {
  let first = true;
  server.setMood((_request, response) => {
    if (!first) return true;
    first = false;
    response.statusCode = 429;
    response.setHeader("retry-after", "17");
    response.end("{}");
    return false;
  });
  const seen = inform();
  await until(() => server.watching(PODS) === 1);
  expect(seen.slept[0]).toBeGreaterThanOrEqual(17_000);
});

test("a server that takes the request and never answers is given up at the deadline", async () => {
  server.setMood(() => false);
  const seen = inform(clientOf({ deadlineMs: 50 }));
  await until(() => seen.outcomes.length >= 2);
  expect(seen.outcomes[0]).toEqual({ kind: "unreachable", detail: "no answer within 50 ms" });
});

test("a watch that falls silent is begun again where it was", async () => {
  const seen = inform(clientOf({ silenceMs: 60 }));
  await until(() => server.watches(PODS).length >= 3);
  expect(server.lists(PODS)).toHaveLength(1);
  server.put(PODS, podObject("b"));
  await until(() => seen.names().includes("b"));
});

test("a server that speaks no HTTP, or none that is there, costs nothing but a later question", async () => {
  const raw = createServer((socket) => {
    socket.on("error", () => {});
    socket.write("\u0000\u0001 this is not HTTP \r\n\r\n", () => socket.destroy());
  });
  raw.listen(0, "127.0.0.1");
  await new Promise((resolve) => raw.once("listening", resolve));
  const address = raw.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const client = createKubeClient({
    source: { kind: "service-account", directory: folder, server: `http://127.0.0.1:${port}` },
    userAgent: "berth-test",
    deadlineMs: 5_000,
    silenceMs: 60_000,
    answerBytesMax: 1_000_000,
  });
  const seen = inform(client);
  await until(() => seen.outcomes.length >= 1);
  expect(seen.outcomes[0]).toMatchObject({ kind: "unreachable" });
  await new Promise((resolve) => raw.close(resolve));
  await until(() =>
    seen.outcomes.some((each) => each !== "listed" && /ECONNREFUSED/.test(JSON.stringify(each))),
  );
});

test("5,000 pods in one list are read; where that is too large for one answer, page by page", async () => {
  for (let at = 0; at < 5_000; at += 1) server.put(PODS, podObject(`pod-${at}`));
  const seen = inform(clientOf({ answerBytesMax: 200_000 }));
  await until(() => server.watching(PODS) === 1);
  expect(seen.names()).toHaveLength(5_000);
  expect(server.lists(PODS)).toHaveLength(1 + 20);
  expect(seen.unreadable).toEqual([]);
});

test("a kind that the server has not is asked for after minutes, and found when it is installed", async () => {
  const client = clientOf();
  const outcomes: unknown[] = [];
  const slept: number[] = [];
  let seen = 0;
  const other = { ...RESOURCE, path: "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs" };
  const ended = keepInformed(
    client,
    other,
    {
      sleep: async (ms) => {
        slept.push(ms);
        await new Promise((resolve) => setTimeout(resolve, 2));
      },
      random: () => 0,
      now: () => 0,
      onUnreadable: () => {},
      onOutcome: (_name, outcome) => outcomes.push(outcome),
    },
    (items) => (seen = items.size),
    stop.signal,
  );
  await until(() => slept.length >= 1);
  expect(slept[0]).toBe(300_000);
  server.put(other.path, podObject("now"));
  await until(() => seen === 1);
  stop.abort();
  await ended;
});

test("a token that was rotated is read again at once when the old one is refused", async () => {
  let valid = "Bearer first";
  server.setMood((request, response) => {
    if (request.headers.authorization === valid) return true;
    response.statusCode = 401;
    response.end("{}");
    return false;
  });
  const seen = inform();
  await until(() => server.watching(PODS) === 1);
  valid = "Bearer second";
  writeFileSync(join(folder, "token"), "second");
  server.cutWatches();
  server.put(PODS, podObject("after"));
  await until(() => seen.names().includes("after"));
  expect(server.asked.at(-1)?.token).toBe("Bearer second");
});

test("a service account that is not mounted is an outcome, not an end", async () => {
  rmSync(join(folder, "ca.crt"));
  const seen = inform();
  await until(() => seen.outcomes.length >= 2);
  expect(seen.outcomes[0]).toMatchObject({ kind: "unreachable", detail: expect.stringContaining("ENOENT") });
});

test("a token is never sent in clear text to another machine", async () => {
  const client = createKubeClient({
    source: { kind: "service-account", directory: folder, server: "http://192.0.2.1:8080" },
    userAgent: "berth-test",
    deadlineMs: 5_000,
    silenceMs: 60_000,
    answerBytesMax: 1_000,
  });
  const answer = await client.ask({ method: "GET", path: "/version" }, stop.signal);
  expect(answer).toMatchObject({
    ok: false,
    error: { kind: "unreachable", detail: expect.stringContaining("not encrypted") },
  });
});
