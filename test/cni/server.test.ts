/** The daemon's end of the socket, with handlers that a test holds in its hand. Real Unix sockets, in a folder of the test's own. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { CniEvent, Handlers } from "../../src/cni/dispatch.ts";
import type { Attached } from "../../src/cni/result.ts";
import { serveCni, type CniServer, type CniServerOptions } from "../../src/cni/server.ts";
import { decodeAnswer, encodeRequest, FIELDS, type AnswerFrame, type FieldName } from "../../src/cni/wire.ts";
import type { Mac } from "../../src/core/model/eni.ts";
import type { NodeError } from "../../src/core/model/error.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import { err, ok } from "../../src/lib/result.ts";
import { instant } from "../../src/lib/time.ts";

let folder = "";
let servers: CniServer[] = [];
let events: CniEvent[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-server-"));
  servers = [];
  events = [];
});
afterEach(async () => {
  await Promise.all(servers.map((server) => server.close()));
  rmSync(folder, { recursive: true, force: true });
});

const path = (): string => join(folder, "run", "berth.sock");
const mac = (text: string): Mac => text as Mac; // Test data.
const attached: Attached = {
  ip: ipv4("10.0.1.7"),
  gateway: ipv4("169.254.1.1"),
  ifName: "eth0",
  netnsPath: "/run/netns/a",
  podMac: mac("0e:00:00:00:00:01"),
  hostLink: "eni0123456789a",
  hostMac: mac("0a:00:00:00:00:01"),
  mtu: 9001,
};
const cancelled: NodeError = { code: "cancelled", detail: "" };
const nothing = ok({ settled: Promise.resolve() });

const idle: Handlers = {
  add: async () => ok(attached),
  del: async () => nothing,
  check: async () => ok(null),
  status: async () => ok(null),
  gc: async () => ok(null),
};

async function serve(
  handlers: Partial<Handlers>,
  options: Partial<CniServerOptions> = {},
): Promise<CniServer> {
  const server = await serveCni({
    path: path(),
    handlers: { ...idle, ...handlers },
    now: () => instant(performance.now()),
    peerUid: () => 0,
    drainMs: 1_000,
    onEvent: (event) => events.push(event),
    ...options,
  });
  if (!server.ok) throw new Error(server.error);
  servers.push(server.value);
  return server.value;
}

type Change = Partial<Record<FieldName, string>> & {
  readonly id?: string;
  readonly deadlineMs?: number;
  readonly version?: number;
};

function requestBytes(verb: string, change: Change = {}): Uint8Array {
  const texts: Partial<Record<FieldName, string>> = {
    CNI_COMMAND: verb,
    CNI_CONTAINERID: "c1",
    CNI_NETNS: "/run/netns/a",
    CNI_IFNAME: "eth0",
    CNI_ARGS: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart",
    stdin: JSON.stringify({ cniVersion: "1.0.0", name: "pods" }),
    ...change,
  };
  const encoder = new TextEncoder();
  const entries = FIELDS.map((name) => [name, encoder.encode(texts[name] ?? "")] as const);
  return encodeRequest({
    version: change.version ?? 1,
    id: change.id ?? "0".repeat(32),
    deadlineMs: change.deadlineMs ?? 5_000,
    fields: Object.fromEntries(entries) as Record<FieldName, Uint8Array>, // Each name of FIELDS.
  });
}

function open(bytes: Uint8Array): {
  readonly socket: Socket;
  readonly answer: Promise<AnswerFrame | "closed">;
} {
  const socket = connect(path());
  socket.write(bytes);
  let got = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    got = Buffer.concat([got, chunk]);
  });
  socket.on("error", () => {});
  const answer = new Promise<AnswerFrame | "closed">((resolve) => {
    socket.on("close", () => {
      const decoded = decodeAnswer(got);
      resolve(decoded.ok && decoded.value !== null ? decoded.value : "closed");
    });
  });
  return { socket, answer };
}

async function ask(
  verb: string,
  change: Change = {},
): Promise<{ readonly exitCode: number; readonly stdout: string } | string> {
  const answer = await open(requestBytes(verb, change)).answer;
  if (answer === "closed" || answer.kind === "again") return answer === "closed" ? answer : answer.kind;
  return { exitCode: answer.exitCode, stdout: new TextDecoder().decode(answer.stdout) };
}

async function askForObject(verb: string, change: Change = {}): Promise<Record<string, unknown>> {
  const answer = await ask(verb, change);
  if (typeof answer === "string") throw new Error(answer);
  return JSON.parse(answer.stdout) as Record<string, unknown>; // What it holds is then compared.
}

const untilAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => (signal.aborted ? resolve() : signal.addEventListener("abort", () => resolve())));

describe("one request", () => {
  test("an ADD is handed over in our words and answered in the runtime's version", async () => {
    let seen: unknown = null;
    await serve({
      add: async (request) => {
        seen = {
          key: request.key,
          netnsPath: request.netnsPath,
          pod: request.pod,
          requestId: request.requestId,
        };
        return ok(attached);
      },
    });
    const printed = await askForObject("ADD", { id: "ab".repeat(16) });
    expect(seen).toEqual({
      key: { network: "pods", containerId: "c1", ifName: "eth0" },
      netnsPath: "/run/netns/a",
      pod: { namespace: "shop", name: "cart" },
      requestId: "ab".repeat(16),
    });
    expect(printed).toMatchObject({ cniVersion: "1.0.0", ips: [{ address: "10.0.1.7/32", interface: 1 }] });
    expect(events).toMatchObject([{ kind: "request", verb: "ADD", outcome: "done", code: 0 }]);
  });

  test("a failure is a CNI error with the reason and a remedy, and is told with its code", async () => {
    const error: NodeError = {
      code: "no-address",
      blocked: "subnet-exhausted",
      detail: "subnet-1 is full",
      waitedMs: 29_500,
    };
    await serve({ add: async () => err(error) });
    const printed = await askForObject("ADD");
    expect(printed).toMatchObject({ cniVersion: "1.0.0", code: 11, details: "subnet-1 is full" });
    expect(printed["msg"]).toContain("subnet");
    expect(events).toMatchObject([{ kind: "request", outcome: "failed", code: 11 }]);
  });

  test("DEL needs neither a namespace nor a readable previous result", async () => {
    const deleted: string[] = [];
    await serve({
      del: async ({ key }) => {
        deleted.push(key.containerId);
        return nothing;
      },
    });
    const stdin = JSON.stringify({
      cniVersion: "1.0.0",
      name: "pods",
      prevResult: 7,
      runtimeConfig: { mac: 7 },
    });
    expect(await ask("DEL", { CNI_NETNS: "", stdin })).toEqual({ exitCode: 0, stdout: "" });
    expect(deleted).toEqual(["c1"]);
  });

  test("CHECK without a previous result is an error, with one it is the handler's", async () => {
    await serve({ check: async () => err({ code: "check-failed", differences: ["no route"] }) });
    expect(await askForObject("CHECK")).toMatchObject({ code: 7 });
    const stdin = JSON.stringify({ cniVersion: "1.0.0", name: "pods", prevResult: {} });
    expect(await askForObject("CHECK", { stdin })).toMatchObject({ code: 103, details: "no route" });
  });

  test("STATUS answers 50 while the daemon is not ready", async () => {
    await serve({ status: async () => err({ code: "not-ready", detail: "EC2 is silent" }) });
    const stdin = JSON.stringify({ cniVersion: "1.1.0", name: "pods" });
    expect(await askForObject("STATUS", { stdin })).toMatchObject({ code: 50, cniVersion: "1.1.0" });
  });

  const lists: readonly (readonly [string, object, readonly string[]])[] = [
    ["a list", { "cni.dev/valid-attachments": [{ containerID: "c1", ifname: "eth0" }] }, ["c1"]],
    ["its old name", { "cni.dev/attachments": [{ containerID: "c2", ifname: "eth0" }] }, ["c2"]],
    ["an empty list", { "cni.dev/valid-attachments": [] }, []],
    ["null", { "cni.dev/valid-attachments": null }, []],
    ["no key", {}, []],
  ];
  test.each(lists)("GC with %s hands over who is alive", async (_, extra, alive) => {
    let seen: readonly string[] | null = null;
    await serve({
      gc: async (request) => {
        seen = request.alive.map((key) => key.containerId);
        return ok(null);
      },
    });
    expect(
      await ask("GC", { stdin: JSON.stringify({ cniVersion: "1.1.0", name: "pods", ...extra }) }),
    ).toMatchObject({ exitCode: 0 });
    expect(seen).toEqual(alive);
  });

  test("GC with a list that cannot be read frees nothing", async () => {
    let called = false;
    await serve({
      gc: async () => {
        called = true;
        return ok(null);
      },
    });
    for (const list of [
      [{ containerID: 7, ifname: "eth0" }],
      [{ containerID: "a/b", ifname: "eth0" }],
      "all",
    ]) {
      const stdin = JSON.stringify({ cniVersion: "1.1.0", name: "pods", "cni.dev/valid-attachments": list });
      expect(await ask("GC", { stdin })).toMatchObject({ exitCode: 1 });
    }
    expect(called).toBe(false);
  });

  test("an ADD for an address of the caller's choice is refused, not served with another", async () => {
    await serve({});
    expect(await askForObject("ADD", { CNI_ARGS: "IgnoreUnknown=1;IP=10.0.0.9" })).toMatchObject({ code: 2 });
  });
});

describe("frames", () => {
  test("a request in single bytes is read", async () => {
    await serve({});
    const socket = connect(path());
    const done = new Promise<Buffer>((resolve) => socket.once("data", resolve));
    for (const byte of requestBytes("DEL")) {
      socket.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(decodeAnswer(await done)).toMatchObject({ ok: true, value: { kind: "done", exitCode: 0 } });
    socket.destroy();
  });

  const faults: readonly (readonly [string, Uint8Array, number, string])[] = [
    ["no frame at all", new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), 110, "malformed"],
    ["a frame of a version far ahead", requestBytes("ADD", { version: 3 }), 110, "wrong-version"],
    ["a frame that says it is too long", withU32(requestBytes("ADD"), 28, 0x7fffffff), 5, "too-long"],
    ["a field longer than its frame", withU32(requestBytes("ADD"), 32, 0xffffff), 110, "malformed"],
    ["something after the request", Buffer.concat([requestBytes("ADD"), Buffer.from("x")]), 110, "malformed"],
  ];
  test.each(faults)(
    "%s is answered with a CNI error and never reaches a handler",
    async (_, bytes, code, reason) => {
      await serve({ add: async () => err({ code: "not-ready", detail: "it was called" }) });
      const answer = await open(bytes).answer;
      if (answer === "closed" || answer.kind !== "done") throw new Error(JSON.stringify(answer));
      expect(JSON.parse(new TextDecoder().decode(answer.stdout))).toMatchObject({ code });
      expect(events).toEqual([{ kind: "dropped", reason }]);
    },
  );

  test("a connection that stays silent, or stops in the middle, is dropped", async () => {
    const server = await serve({}, { silenceMs: 50 });
    const whole = requestBytes("ADD");
    for (const length of [0, 3, 31, 40, whole.length - 1]) {
      expect(await open(whole.slice(0, length)).answer).toBe("closed");
    }
    expect(events).toEqual(Array.from({ length: 5 }, () => ({ kind: "dropped", reason: "silent" })));
    await expect.poll(() => server.connectionCount()).toBe(0);
  });

  test("a process of another user is not answered", async () => {
    await serve({}, { peerUid: () => 1_000, uidsServed: [0] });
    expect(await ask("ADD")).toBe("closed");
    expect(events).toEqual([{ kind: "dropped", reason: "stranger" }]);
  });

  test("one connection too many is told to come again, and those before it are served", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    await serve({ add: async () => (await promise, ok(attached)) }, { connectionCountMax: 1 });
    const first = ask("ADD");
    await expect.poll(() => servers[0]?.connectionCount()).toBe(1);
    expect(await ask("DEL")).toBe("again");
    resolve();
    expect(await first).toMatchObject({ exitCode: 0 });
  });
});

describe("ADD and DEL of one sandbox", () => {
  test("a shim that dies stops its ADD", async () => {
    const stopped = Promise.withResolvers<unknown>();
    await serve({
      add: async (_, signal) => {
        await untilAborted(signal);
        stopped.resolve(signal.reason);
        return err(cancelled);
      },
    });
    const { socket } = open(requestBytes("ADD"));
    await expect.poll(() => servers[0]?.connectionCount()).toBe(1);
    socket.destroy();
    expect(await stopped.promise).toBe("shim-gone");
  });

  test("a DEL out of the journal stops an ADD of its sandbox, and waits for its turn", async () => {
    const log: string[] = [];
    await serve({
      add: async (_request, signal) => {
        log.push("ADD begins");
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
        log.push("ADD ends");
        return err({ code: "cancelled", detail: "stopped" });
      },
      del: async ({ key }) => {
        log.push(`DEL of ${key.containerId}`);
        return nothing;
      },
    });
    const { answer } = open(requestBytes("ADD"));
    await expect.poll(() => log).toEqual(["ADD begins"]);
    expect(await servers[0]?.playDel({ network: "pods", containerId: "c1", ifName: "eth0" })).toMatchObject({
      ok: true,
    });
    await answer;
    expect(log).toEqual(["ADD begins", "ADD ends", "DEL of c1"]);
  });

  test("an ADD that is finished when its shim is already dead is undone before its key is free", async () => {
    const log: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    await serve({
      add: async () => {
        log.push("ADD begins");
        await promise;
        log.push("ADD ends");
        return ok(attached);
      },
      del: async ({ requestId }) => {
        log.push(`DEL for ${requestId.slice(0, 2)}`);
        return nothing;
      },
    });
    const { socket, answer } = open(requestBytes("ADD", { id: "aa".repeat(16) }));
    await expect.poll(() => log).toEqual(["ADD begins"]);
    socket.destroy();
    await answer;
    await expect.poll(() => servers[0]?.connectionCount()).toBe(0);
    const later = ask("DEL", { id: "bb".repeat(16) });
    resolve();
    expect(await later).toMatchObject({ exitCode: 0 });
    expect(log).toEqual(["ADD begins", "ADD ends", "DEL for aa", "DEL for bb"]);
  });

  test("a DEL stops the held ADD of its sandbox and is answered once that is rolled back", async () => {
    const log: string[] = [];
    await serve({
      add: async (_, signal) => {
        log.push("held");
        await untilAborted(signal);
        log.push("rolled back");
        return err(cancelled);
      },
      del: async () => {
        log.push("DEL");
        return nothing;
      },
    });
    const add = ask("ADD");
    await expect.poll(() => log).toEqual(["held"]);
    expect(await ask("DEL")).toEqual({ exitCode: 0, stdout: "" });
    expect(await add).toMatchObject({ exitCode: 1 });
    expect(log).toEqual(["held", "rolled back", "DEL"]);
  });

  test("held ADDs take no worker, and busy ADDs delay no DEL", async () => {
    const held = new Set<string>();
    let served = 0;
    await serve(
      {
        add: async ({ key }, signal, place) => {
          if (key.containerId.startsWith("held")) {
            place.leave();
            held.add(key.containerId);
            await untilAborted(signal);
            return err(cancelled);
          }
          served += 1;
          if (key.containerId === "busy") await untilAborted(signal);
          return ok(attached);
        },
      },
      { workerCount: 1 },
    );
    const waiting = [1, 2, 3].map((each) => open(requestBytes("ADD", { CNI_CONTAINERID: `held${each}` })));
    await expect.poll(() => held.size).toBe(3);
    expect(await ask("ADD", { CNI_CONTAINERID: "warm" })).toMatchObject({ exitCode: 0 });
    const busy = open(requestBytes("ADD", { CNI_CONTAINERID: "busy" }));
    await expect.poll(() => served).toBe(2);
    expect(await ask("DEL", { CNI_CONTAINERID: "other" })).toMatchObject({ exitCode: 0 });
    for (const { socket } of [...waiting, busy]) socket.destroy();
  });

  test("what waited for a worker until its time was up is not begun", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    let calls = 0;
    await serve(
      {
        add: async () => {
          calls += 1;
          await promise;
          return ok(attached);
        },
      },
      { workerCount: 1 },
    );
    const first = ask("ADD");
    await expect.poll(() => calls).toBe(1);
    const second = askForObject("ADD", { CNI_CONTAINERID: "c2", deadlineMs: 20 });
    setTimeout(resolve, 60);
    await first;
    expect(await second).toMatchObject({ code: 11 });
    expect(calls).toBe(1);
  });
});

describe("the socket's life", () => {
  test("folder and socket are for root alone, and the heartbeat tells the grace", async () => {
    await serve({}, { statusGraceMs: 45_000 });
    const mode = (of: string): string => (statSync(of).mode & 0o777).toString(8);
    expect([mode(join(folder, "run")), mode(path())]).toEqual(["700", "600"]);
    await expect.poll(() => existsSync(`${path()}.alive`)).toBe(true);
    expect(readFileSync(`${path()}.alive`, "utf8")).toBe("45000\n");
  });

  test("the heartbeat beats only while STATUS is good", async () => {
    let ready = false;
    const status: Handlers["status"] = async () =>
      ready ? ok(null) : err({ code: "not-ready", detail: "" });
    await serve({ status }, { heartbeatMs: 10 });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(existsSync(`${path()}.alive`)).toBe(false);
    ready = true;
    await expect.poll(() => existsSync(`${path()}.alive`)).toBe(true);
  });

  test("a successor takes the path over, and the old daemon's end leaves it alone", async () => {
    const old = await serve({ status: async () => err({ code: "not-ready", detail: "old" }) });
    await serve({});
    await old.close();
    const stdin = JSON.stringify({ cniVersion: "1.1.0", name: "pods" });
    expect(await ask("STATUS", { stdin })).toEqual({ exitCode: 0, stdout: "" });
  });

  test("what lies at the path from an earlier life is replaced", async () => {
    await serve({});
    await servers[0]?.close();
    writeFileSync(`${path()}.${process.pid}`, "left over");
    await serve({});
    expect(await ask("DEL")).toMatchObject({ exitCode: 0 });
  });

  test("at its end the daemon sends held and unread requests to its successor, and finishes what runs", async () => {
    const running = Promise.withResolvers<void>();
    const log: string[] = [];
    const server = await serve({
      add: async (_, signal) => {
        log.push("held");
        await untilAborted(signal);
        return err(cancelled);
      },
      del: async () => {
        log.push("DEL runs");
        await running.promise;
        return nothing;
      },
    });
    const held = ask("ADD");
    const behind = ask("ADD", { id: "cc".repeat(16) }); // Of the same sandbox: waits for its turn.
    const del = ask("DEL", { CNI_CONTAINERID: "c2" });
    const unread = open(requestBytes("ADD").slice(0, 10));
    await expect.poll(() => log.length).toBe(2);
    await expect.poll(() => server.connectionCount()).toBe(4);
    const closed = server.close();
    expect(await Promise.all([held, behind])).toEqual(["again", "again"]);
    expect(await unread.answer).toEqual({ kind: "again" });
    running.resolve();
    expect(await del).toEqual({ exitCode: 0, stdout: "" });
    await closed;
    expect(await ask("DEL")).toBe("closed");
  });

  test("an end that takes too long is cut", async () => {
    const server = await serve({ del: () => new Promise(() => {}) }, { drainMs: 30 });
    const del = ask("DEL");
    await expect.poll(() => server.connectionCount()).toBe(1);
    await server.close();
    expect(await del).toBe("closed");
  });

  test("a folder that cannot be made is told", async () => {
    writeFileSync(join(folder, "file"), "");
    const server = await serveCni({
      path: join(folder, "file", "berth.sock"),
      handlers: idle,
      now: () => instant(0),
      peerUid: () => 0,
    });
    expect(server.ok).toBe(false);
  });
});

function withU32(bytes: Uint8Array, at: number, value: number): Uint8Array {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(at, value, true);
  return bytes;
}
