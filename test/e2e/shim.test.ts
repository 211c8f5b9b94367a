/** The compiled plugin alone, and against a daemon that a test scripts byte by byte: every check of its own, budgets, journal. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  decodeRequest,
  encodeAnswer,
  requestSize,
  STDIN_SIZE_MAX,
  type RequestFrame,
} from "../../src/cni/wire.ts";
import { lockFile } from "../../src/libc/libc.ts";
import { compileShim, objectOf, startShim, type ShimRun } from "../support/shim.ts";

let built = "";
let program = "";
beforeAll(() => {
  built = mkdtempSync(join(tmpdir(), "berth-shim-"));
  program = compileShim(built);
  // A network namespace to speak of: this test runs as root in namespaces of its own (scripts/run-tests.mjs).
  spawnSync("ip", ["netns", "add", "berth-shim-test"]);
});
afterAll(() => {
  spawnSync("ip", ["netns", "del", "berth-shim-test"]);
  rmSync(built, { recursive: true, force: true });
});

let folder = "";
let server: Server | null = null;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-shim-run-"));
});
afterEach(async () => {
  await stopServer();
  rmSync(folder, { recursive: true, force: true });
});

const NETNS = "/run/netns/berth-shim-test";
const CONFIG = { cniVersion: "1.0.0", name: "pods", type: "berth-cni" };
const socketPath = (): string => join(folder, "berth.sock");
const journalPath = (): string => join(folder, "journal");
const journalled = (): string[] =>
  existsSync(journalPath()) ? readdirSync(journalPath()).filter((name) => name.endsWith(".del")) : [];

type Change = Readonly<Record<string, string>>;

function start(verb: string, change: Change = {}, stdin: object | string | Uint8Array | null = CONFIG) {
  const env = {
    CNI_COMMAND: verb,
    CNI_CONTAINERID: "c0ffee",
    CNI_NETNS: NETNS,
    CNI_IFNAME: "eth0",
    CNI_ARGS: "K8S_POD_NAME=a",
    CNI_PATH: "/opt/cni/bin",
    BERTH_SOCKET: socketPath(),
    BERTH_JOURNAL: journalPath(),
    BERTH_CONNECT_BUDGET_MS: "150",
    BERTH_TOTAL_BUDGET_MS: "2000",
    ...change,
  };
  const input =
    stdin === null || typeof stdin === "string" || stdin instanceof Uint8Array
      ? stdin
      : JSON.stringify(stdin);
  return startShim(program, { env, stdin: input });
}

async function call(
  verb: string,
  change: Change = {},
  stdin: object | string | Uint8Array | null = CONFIG,
): Promise<ShimRun> {
  return await start(verb, change, stdin).finished;
}

async function stopServer(): Promise<void> {
  const running = server;
  server = null;
  if (running !== null) await new Promise((resolve) => running.close(resolve));
}

/** A daemon of a few lines: each connection's whole request is handed to the script, which does with the socket what it likes. */
async function listen(
  script: (request: RequestFrame, socket: Socket, turn: number) => void,
): Promise<RequestFrame[]> {
  const seen: RequestFrame[] = [];
  const listening = createServer((socket) => {
    let bytes = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      const size = requestSize(bytes);
      if (!size.ok || size.value === null || bytes.length < size.value) return;
      const request = decodeRequest(bytes);
      if (!request.ok) throw new Error(JSON.stringify(request.error));
      seen.push(request.value);
      script(request.value, socket, seen.length);
    });
  });
  server = listening;
  await new Promise<void>((resolve) => listening.listen(socketPath(), resolve));
  return seen;
}

function answer(exitCode: number, stdout: string): Uint8Array {
  return encodeAnswer({ kind: "done", exitCode, stdout: new TextEncoder().encode(stdout) });
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

describe("what needs no daemon", () => {
  const bad: readonly (readonly [string, string, Change, object | string, number])[] = [
    ["no container id", "ADD", { CNI_CONTAINERID: "" }, CONFIG, 4],
    ["a container id with a slash", "ADD", { CNI_CONTAINERID: "a/b" }, CONFIG, 4],
    ["a container id that begins with a dot", "ADD", { CNI_CONTAINERID: ".a" }, CONFIG, 4],
    ["no netns for ADD", "ADD", { CNI_NETNS: "" }, CONFIG, 4],
    ["no netns for CHECK", "CHECK", { CNI_NETNS: "" }, CONFIG, 4],
    ["no interface name", "DEL", { CNI_IFNAME: "" }, CONFIG, 4],
    ["no CNI_PATH", "GC", { CNI_PATH: "" }, { ...CONFIG, cniVersion: "1.1.0" }, 4],
    ["an interface name of 16 bytes", "ADD", { CNI_IFNAME: "abcdefghijklmnop" }, CONFIG, 4],
    ["an interface name of 8 characters and 16 bytes", "ADD", { CNI_IFNAME: "éééééééé" }, CONFIG, 4],
    ["the interface name .", "ADD", { CNI_IFNAME: "." }, CONFIG, 4],
    ["the interface name ..", "ADD", { CNI_IFNAME: ".." }, CONFIG, 4],
    ["an interface name with a slash", "ADD", { CNI_IFNAME: "eth/0" }, CONFIG, 4],
    ["an interface name with a colon", "ADD", { CNI_IFNAME: "eth:0" }, CONFIG, 4],
    ["an interface name with a space", "ADD", { CNI_IFNAME: "eth 0" }, CONFIG, 4],
    ["an interface name with a no-break space", "ADD", { CNI_IFNAME: "eth\u00a00" }, CONFIG, 4],
    ["an interface name with an ideographic space", "ADD", { CNI_IFNAME: "eth\u30000" }, CONFIG, 4],
    ["an unknown command", "add", {}, CONFIG, 4],
    ["an empty stdin", "ADD", {}, "", 6],
    ["a cut object", "ADD", {}, '{"name":"pods"', 6],
    ["something after the object", "ADD", {}, `${JSON.stringify(CONFIG)}{}`, 6],
    ["a list", "ADD", {}, "[]", 6],
    ["a trailing comma", "ADD", {}, '{"name":"pods",}', 6],
    ["a number with a leading zero", "ADD", {}, '{"name":"pods","a":01}', 6],
    ["a name that is no string", "ADD", {}, { ...CONFIG, name: 7 }, 6],
    ["a version that is no string", "ADD", {}, { ...CONFIG, cniVersion: 1 }, 6],
    ["an object nested too deep", "ADD", {}, `{"name":"pods","a":${"[".repeat(200)}${"]".repeat(200)}}`, 6],
    ["no name", "ADD", {}, { cniVersion: "1.0.0" }, 7],
    ["an empty name", "ADD", {}, { ...CONFIG, name: "" }, 7],
    ["a name with a slash", "ADD", {}, { ...CONFIG, name: "a/b" }, 7],
    ["a name with a NUL", "ADD", {}, { ...CONFIG, name: "a\0b" }, 7],
    ["a version that nobody has", "ADD", {}, { ...CONFIG, cniVersion: "9.0.0" }, 1],
    ["version 1.0", "ADD", {}, { ...CONFIG, cniVersion: "1.0" }, 1],
    ["no version, which means 0.1.0", "ADD", {}, { name: "pods" }, 1],
    ["CHECK before 0.4.0", "CHECK", {}, { ...CONFIG, cniVersion: "0.3.1" }, 1],
    ["STATUS before 1.1.0", "STATUS", {}, CONFIG, 1],
    ["GC before 1.1.0", "GC", {}, CONFIG, 1],
    ["a netns that is not there", "ADD", { CNI_NETNS: "/run/netns/none" }, CONFIG, 8],
    ["a netns that is a file", "ADD", { CNI_NETNS: "/proc/self/status" }, CONFIG, 8],
    ["a netns that is another kind of namespace", "ADD", { CNI_NETNS: "/proc/self/ns/mnt" }, CONFIG, 8],
    ["the plugin's own netns", "ADD", { CNI_NETNS: "/proc/self/ns/net" }, CONFIG, 8],
    ["the plugin's own netns for CHECK", "CHECK", { CNI_NETNS: "/proc/self/ns/net" }, CONFIG, 8],
  ];
  test.each(bad)("%s is refused with its code and one JSON object", async (_, verb, change, stdin, code) => {
    const run = await call(verb, change, stdin);
    const printed = objectOf(run);
    expect({ exitCode: run.exitCode, code: printed["code"] }).toEqual({ exitCode: 1, code });
    expect(printed["msg"]).toMatch(/\S/);
    expect(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]).toContain(printed["cniVersion"]);
    expect(run.stderr).toBe("");
  });

  test("missing variables are told together, a bad value before them", async () => {
    const missing = objectOf(await call("ADD", { CNI_CONTAINERID: "", CNI_IFNAME: "" }));
    expect(missing["msg"]).toContain("CNI_CONTAINERID, CNI_IFNAME");
    const first = objectOf(await call("ADD", { CNI_CONTAINERID: "", CNI_IFNAME: "a:b" }));
    expect(first["msg"]).toContain("CNI_IFNAME");
  });

  test("the environment is looked at before stdin, the name before the version, the version before the command", async () => {
    const code = async (verb: string, change: Change, stdin: object | string): Promise<unknown> =>
      objectOf(await call(verb, change, stdin))["code"];
    expect(await code("ADD", { CNI_IFNAME: ".." }, "no json")).toBe(4);
    expect(await code("ADD", {}, { cniVersion: "9.0.0" })).toBe(7);
    expect(await code("add", {}, { ...CONFIG, cniVersion: "9.0.0" })).toBe(1);
    expect(await code("add", {}, "")).toBe(6);
  });

  test("an error stays JSON whatever bytes the environment holds", async () => {
    const run = await call("ADD", { CNI_NETNS: '/run/"quoted"\\\n\u0001' });
    expect(objectOf(run)["details"]).toBe('/run/"quoted"\\\n\u0001');
    const odd = spawnSync("sh", ["-c", `CNI_NETNS="$(printf '/run/\\377')" exec "$0"`, program], {
      env: { CNI_COMMAND: "ADD", CNI_CONTAINERID: "a", CNI_IFNAME: "eth0", CNI_PATH: "/bin" },
      input: JSON.stringify(CONFIG),
      encoding: "utf8",
    });
    expect(JSON.parse(odd.stdout)).toMatchObject({ code: 8, details: "/run/\ufffd" });
  });

  test("VERSION needs nothing but its command, and lists what is served", async () => {
    const run = await startShim(program, { env: { CNI_COMMAND: "VERSION" }, stdin: null }).finished;
    expect(run.exitCode).toBe(0);
    expect(objectOf(run)).toEqual({
      cniVersion: "1.1.0",
      supportedVersions: ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    });
  });

  test("without a command it tells a person what it is, on stderr", async () => {
    const run = await startShim(program, { env: {}, stdin: "" }).finished;
    expect(run).toMatchObject({ exitCode: 0, stdout: "" });
    expect(run.stderr).toContain("1.1.0");
  });

  test("a stdin of more than 1 MiB is read to its end and refused", async () => {
    const run = await call("ADD", {}, { ...CONFIG, filling: "x".repeat(STDIN_SIZE_MAX) });
    expect(objectOf(run)).toMatchObject({ code: 5 });
    expect(objectOf(run)["msg"]).toContain("1048576");
  });

  test("a stdin that never ends is left when the time is up", async () => {
    const run = await call("ADD", { BERTH_TOTAL_BUDGET_MS: "100" }, null);
    expect(objectOf(run)).toMatchObject({ code: 5 });
  });

  test("plugin and daemon agree on what is JSON, character by character", async () => {
    // A value with one character dropped, doubled or exchanged; an unknown command tells "read" (4) from "not read" (6).
    const spoilt = fc
      .tuple(
        fc.json({ maxDepth: 3 }),
        fc.nat(),
        fc.constantFrom("", ...Array.from('{}[]",:\\u0e.-+tn \t\u0001é')),
        fc.constantFrom(0, 1),
      )
      .map(
        ([json, at, put, drop]) =>
          json.slice(0, at % json.length) + put + json.slice((at % json.length) + drop),
      );
    await fc.assert(
      fc.asyncProperty(fc.oneof(spoilt, fc.json()), async (value) => {
        const stdin = `{"cniVersion":"1.0.0","name":"pods","value":${value}}`;
        const run = await call("none", {}, stdin);
        expect(objectOf(run)["code"], stdin).toBe(isJson(stdin) ? 4 : 6);
      }),
      { numRuns: 250 },
    );
  });

  test("a socket path that no Unix socket can have is told", async () => {
    expect(objectOf(await call("ADD", { BERTH_SOCKET: `/${"a".repeat(200)}` }))).toMatchObject({ code: 7 });
  });
});

describe("relaying", () => {
  test("the answer's bytes and exit code come out as they are", async () => {
    await listen((_, socket) => socket.end(answer(3, "anything\n")));
    expect(await call("ADD")).toMatchObject({ exitCode: 3, stdout: "anything\n", stderr: "" });
  });

  test("the frame holds CNI's and tracing's variables, stdin's bytes, and nothing else of the environment", async () => {
    const seen = await listen((_, socket) => socket.end(answer(0, "{}")));
    const stdin = `${JSON.stringify({ ...CONFIG, text: "\u{1f6a2} \ud800" })}\n`;
    await call("ADD", { TRACEPARENT: "00-1", BAGGAGE: "k=v", SECRET: "hunter2" }, stdin);
    const [request] = seen;
    const fields = Object.fromEntries(
      Object.entries(request?.fields ?? {}).map(([name, bytes]) => [name, text(bytes)]),
    );
    expect(fields).toEqual({
      CNI_COMMAND: "ADD",
      CNI_CONTAINERID: "c0ffee",
      CNI_NETNS: NETNS,
      CNI_IFNAME: "eth0",
      CNI_ARGS: "K8S_POD_NAME=a",
      CNI_PATH: "/opt/cni/bin",
      TRACEPARENT: "00-1",
      TRACESTATE: "",
      BAGGAGE: "k=v",
      stdin: text(new TextEncoder().encode(stdin)),
    });
    expect(request?.deadlineMs).toBeGreaterThan(1_000);
    expect(request?.deadlineMs).toBeLessThanOrEqual(1_800);
  });

  test("names may be written with escapes, and the last of two equal keys counts", async () => {
    await listen((_, socket) => socket.end(answer(0, "{}")));
    const stdin = '{"name":"a/b","cniVersion":"1.0.0","\\u006eame":"p\\u006fds"}';
    expect(await call("ADD", {}, stdin)).toMatchObject({ exitCode: 0 });
  });

  test("a container id of 300 characters passes", async () => {
    await listen((_, socket) => socket.end(answer(0, "{}")));
    expect(await call("ADD", { CNI_CONTAINERID: "a".repeat(300) })).toMatchObject({ exitCode: 0 });
  });

  test("a configuration of 1 MiB comes whole to the daemon", async () => {
    const seen = await listen((_, socket) => socket.end(answer(0, "{}")));
    const head = JSON.stringify({ ...CONFIG, filling: "" });
    const stdin = JSON.stringify({ ...CONFIG, filling: "x".repeat(STDIN_SIZE_MAX - head.length) });
    expect(stdin.length).toBe(STDIN_SIZE_MAX);
    expect(await call("ADD", {}, stdin)).toMatchObject({ exitCode: 0, stdout: "{}" });
    expect(seen[0]?.fields.stdin.length).toBe(STDIN_SIZE_MAX);
  });

  test("socket and journal may be named in the network configuration; the environment goes before it", async () => {
    const seen = await listen((_, socket) => socket.end(answer(0, "{}")));
    const byConfig = { ...CONFIG, berthSocket: socketPath(), berthJournal: journalPath() };
    expect(await call("ADD", { BERTH_SOCKET: "", BERTH_JOURNAL: "" }, byConfig)).toMatchObject({
      exitCode: 0,
    });
    expect(await call("ADD", {}, { ...byConfig, berthSocket: "/nowhere" })).toMatchObject({ exitCode: 0 });
    expect(seen.length).toBe(2);
  });

  test("a connection reset before the answer is made anew with the same request id", async () => {
    const seen = await listen((_, socket, turn) => {
      if (turn === 1) socket.destroy();
      else if (turn === 2)
        socket.end(); // An orderly end without an answer is no better.
      else socket.end(answer(0, '{"ok":true}'));
    });
    expect(await call("ADD")).toMatchObject({ exitCode: 0, stdout: '{"ok":true}' });
    expect(seen.length).toBe(3);
    expect(new Set(seen.map((request) => request.id)).size).toBe(1);
    expect(seen[0]?.id).toMatch(/^[0-9a-f]{32}$/);
  });

  test("two calls have two request ids", async () => {
    const seen = await listen((_, socket) => socket.end(answer(0, "{}")));
    await call("ADD");
    await call("ADD");
    expect(new Set(seen.map((request) => request.id)).size).toBe(2);
  });

  test("told to come again, it waits for the next daemon and asks that one", async () => {
    const first = await listen((_, socket) => socket.end(encodeAnswer({ kind: "again" })));
    const running = start("ADD", { BERTH_CONNECT_BUDGET_MS: "1500" });
    await expect.poll(() => first.length).toBeGreaterThan(0);
    await stopServer();
    const second = await listen((_, socket) => socket.end(answer(0, "{}")));
    expect(await running.finished).toMatchObject({ exitCode: 0 });
    expect(second[0]?.id).toBe(first[0]?.id);
    expect(second[0]?.deadlineMs).toBeLessThan(first[0]?.deadlineMs ?? 0);
  });

  test("an ADD waits for a daemon that opens its socket late", async () => {
    const running = start("ADD", { BERTH_CONNECT_BUDGET_MS: "1500" });
    await new Promise((resolve) => setTimeout(resolve, 200));
    await listen((_, socket) => socket.end(answer(0, "{}")));
    expect(await running.finished).toMatchObject({ exitCode: 0 });
  });

  test("an answer in pieces is put together", async () => {
    await listen((_, socket) => {
      const bytes = answer(0, '{"piece":"by piece"}');
      const send = (at: number): void => {
        if (at === bytes.length) return void socket.end();
        socket.write(bytes.subarray(at, at + 1), () => setTimeout(() => send(at + 1), 1));
      };
      send(0);
    });
    expect(await call("ADD")).toMatchObject({ exitCode: 0, stdout: '{"piece":"by piece"}' });
  });

  const unreadable: readonly (readonly [string, Uint8Array])[] = [
    ["another protocol", new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n")],
    ["a version far ahead", encodeAnswer({ kind: "done", exitCode: 0, stdout: new Uint8Array(0) }, 3)],
    [
      "a version of before the first",
      encodeAnswer({ kind: "done", exitCode: 0, stdout: new Uint8Array(0) }, 0),
    ],
    ["a body longer than any", withSize(answer(0, "{}"), 0x7fffffff)],
    ["an unknown kind of answer", withKind(answer(0, "{}"), 9)],
  ];
  test.each(unreadable)(
    "%s is refused with a clear error, and nothing of it is printed",
    async (_, bytes) => {
      await listen((_request, socket) => socket.end(bytes));
      const run = await call("ADD");
      expect(run.exitCode).toBe(1);
      expect(objectOf(run)).toMatchObject({ code: 110 });
    },
  );

  test("a neighbour's version is understood", async () => {
    const stdout = new TextEncoder().encode("{}");
    await listen((_, socket) => socket.end(encodeAnswer({ kind: "done", exitCode: 0, stdout }, 2)));
    expect(await call("ADD")).toMatchObject({ exitCode: 0, stdout: "{}" });
  });

  test("an answer that is cut off prints nothing of itself", async () => {
    await listen((_, socket) => socket.end(answer(0, '{"cut":"off"}').subarray(0, 20)));
    const run = await call("ADD", { BERTH_TOTAL_BUDGET_MS: "300" });
    expect(objectOf(run)).toMatchObject({ code: 11 });
    expect(run.exitCode).toBe(1);
  });

  test.each(["ADD", "DEL", "CHECK"])(
    "a daemon that stays silent lets %s fail with 11 when its time is up",
    async (verb) => {
      await listen(() => {});
      const run = await call(verb, { BERTH_TOTAL_BUDGET_MS: "200" }, { ...CONFIG, prevResult: {} });
      expect(objectOf(run)).toMatchObject({ code: 11, cniVersion: "1.0.0" });
      expect(run.ms).toBeGreaterThan(190);
      expect(journalled()).toEqual([]); // The daemon has the request: a second one in the journal would be played twice.
    },
  );
});

describe("no daemon", () => {
  test.each(["ADD", "CHECK", "GC"])("%s fails with 11 and says what to look at", async (verb) => {
    const run = await call(verb, {}, { ...CONFIG, cniVersion: "1.1.0" });
    expect(objectOf(run)).toMatchObject({ code: 11, cniVersion: "1.1.0" });
    expect(objectOf(run)["msg"]).toContain("kubectl");
    expect(run.ms).toBeLessThan(6_000);
  });

  test("a socket file that nobody listens on counts as none", async () => {
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(`${socketPath()}.old`, resolve));
    spawnSync("ln", [`${socketPath()}.old`, socketPath()]); // Node removes only the name it has bound.
    await new Promise((resolve) => dead.close(resolve));
    expect(objectOf(await call("ADD"))).toMatchObject({ code: 11 });
  });

  test("a DEL is written to the journal and succeeds; the same again leaves one file", async () => {
    expect(await call("DEL")).toMatchObject({ exitCode: 0, stdout: "", stderr: "" });
    expect(await call("DEL", { CNI_NETNS: "" })).toMatchObject({ exitCode: 0, stdout: "" });
    const [name, ...more] = journalled();
    expect(more).toEqual([]);
    const [head, line] = readFileSync(join(journalPath(), name ?? ""), "utf8").split("\n");
    expect(head).toMatch(/^berth-del\/1 [0-9a-f]{16}$/);
    expect(JSON.parse(line ?? "")).toEqual({ network: "pods", containerId: "c0ffee", ifName: "eth0" });
    expect(readdirSync(journalPath()).filter((each) => each.endsWith(".tmp"))).toEqual([]);
  });

  test("DELs of two sandboxes leave two files", async () => {
    await Promise.all([
      call("DEL"),
      call("DEL", { CNI_CONTAINERID: "c0ffef" }),
      call("DEL", { CNI_IFNAME: "eth1" }),
    ]);
    expect(journalled().length).toBe(3);
  });

  test("a DEL that was sent and lost its daemon goes to the journal", async () => {
    await listen((_, socket) => {
      void stopServer();
      socket.destroy();
    });
    expect(await call("DEL")).toMatchObject({ exitCode: 0, stdout: "" });
    expect(journalled().length).toBe(1);
  });

  test("while a daemon holds the journal's lock, a DEL waits for its socket and writes nothing", async () => {
    mkdirSync(journalPath());
    const lock = openSync(join(journalPath(), "lock"), "w");
    expect(lockFile(lock)).toMatchObject({ ok: true });
    const running = start("DEL");
    await new Promise((resolve) => setTimeout(resolve, 400));
    const seen = await listen((_, socket) => socket.end(answer(0, "")));
    expect(await running.finished).toMatchObject({ exitCode: 0, stdout: "" });
    expect(seen.length).toBe(1);
    expect(journalled()).toEqual([]);
    await stopServer();
    expect(objectOf(await call("DEL", { BERTH_TOTAL_BUDGET_MS: "400" }))).toMatchObject({ code: 11 });
  });

  test("a DEL that cannot be written down fails with 11: the runtime must come again", async () => {
    writeFileSync(journalPath(), "not a folder");
    expect(objectOf(await call("DEL"))).toMatchObject({ code: 11 });
  });

  test("the journal's folder and files are for root alone", async () => {
    await call("DEL");
    const modes = spawnSync("stat", ["-c", "%a", journalPath(), join(journalPath(), journalled()[0] ?? "")], {
      encoding: "utf8",
    });
    expect(modes.stdout.trim().split("\n")).toEqual(["700", "600"]);
  });

  test("STATUS forgives an absence that is shorter than the heartbeat allows, and no longer", async () => {
    const config = { ...CONFIG, cniVersion: "1.1.0" };
    expect(objectOf(await call("STATUS", {}, config))).toMatchObject({ code: 50 });
    const heartbeat = `${socketPath()}.alive`;
    writeFileSync(heartbeat, "60000\n");
    expect(await call("STATUS", {}, config)).toMatchObject({ exitCode: 0, stdout: "" });
    const at = (agoSeconds: number): void =>
      utimesSync(heartbeat, Date.now() / 1_000 - agoSeconds, Date.now() / 1_000 - agoSeconds);
    at(50);
    expect(await call("STATUS", {}, config)).toMatchObject({ exitCode: 0 });
    at(70);
    expect(objectOf(await call("STATUS", {}, config))).toMatchObject({ code: 50 });
    at(-3_600); // The wall clock jumped back an hour.
    expect(objectOf(await call("STATUS", {}, config))).toMatchObject({ code: 50 });
  });

  test("a silent daemon counts as absent for STATUS", async () => {
    await listen(() => {});
    const config = { ...CONFIG, cniVersion: "1.1.0" };
    const budget = { BERTH_TOTAL_BUDGET_MS: "200" };
    expect(objectOf(await call("STATUS", budget, config))).toMatchObject({ code: 50 });
    writeFileSync(`${socketPath()}.alive`, "60000\n");
    expect(await call("STATUS", budget, config)).toMatchObject({ exitCode: 0, stdout: "" });
  });

  test("a socket that may not be opened is told at once", async () => {
    writeFileSync(socketPath(), "");
    chmodSync(socketPath(), 0o600);
    const run = await call("ADD", { BERTH_SOCKET: join(socketPath(), "below-a-file") });
    expect(objectOf(run)).toMatchObject({ code: 11 });
    expect(run.ms).toBeLessThan(6_000); // Its life is 30 s.
  });
});

function isJson(json: string): boolean {
  try {
    JSON.parse(json);
    return true;
  } catch {
    return false;
  }
}

function withSize(bytes: Uint8Array, size: number): Uint8Array {
  new DataView(bytes.buffer).setUint32(12, size, true);
  return bytes;
}

function withKind(bytes: Uint8Array, kind: number): Uint8Array {
  new DataView(bytes.buffer).setUint16(6, kind, true);
  return bytes;
}
