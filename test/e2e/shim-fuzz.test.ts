// The CNI plugin, compiled with sanitizers and given almost right and quite wrong environments, stdin and answers. It runs as
// root with whatever a runtime hands it: it may refuse, and must not read or write where nothing is.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { encodeAnswer } from "../../src/cni/wire.ts";
import { arbMutatedBytes, arbMutatedJson, fuzzing } from "../fuzz/tools.ts";

/** A process each: of as many cases as the other fuzzers have, a twentieth. */
const RUNS = Math.ceil((fuzzing().numRuns ?? 1_500) / 20);
const SOURCE = fileURLToPath(new URL("../../src/cni/shim/berth-cni.c", import.meta.url));

let folder = "";
let program = "";
let server: Server;
let answer: { readonly bytes: Uint8Array; readonly cutAt: number; readonly beforeRead: boolean } = {
  bytes: new Uint8Array(0),
  cutAt: 0,
  beforeRead: false,
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "berth-fuzz-"));
  program = join(folder, "berth-cni");
  const flags = ["-g", "-O1", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fno-omit-frame-pointer"];
  const sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
  const compiler = "gcc"; // musl's has no sanitizers.
  const done = spawnSync(compiler, [...flags, ...sanitizers, "-o", program, SOURCE], { encoding: "utf8" });
  if (done.status !== 0) throw new Error(done.error?.message ?? done.stderr);
  server = createServer((socket) => {
    socket.on("error", () => {}); // The plugin may be done with us.
    const say = (): void => {
      socket.end(answer.bytes.subarray(0, answer.cutAt));
    };
    if (answer.beforeRead) say();
    else socket.once("data", say);
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(join(folder, "sock"), resolve));
  spawnSync("ip", ["netns", "add", "fuzz"]);
});
afterAll(() => {
  server.close();
  spawnSync("ip", ["netns", "del", "fuzz"]);
  rmSync(folder, { recursive: true, force: true });
});

const encoder = new TextEncoder();
const config = {
  cniVersion: "1.1.0",
  name: "pods",
  type: "berth-cni",
  berthSocket: "",
  berthJournal: "",
  nested: { list: [1, -0.5e-3, true, null, '\u20ac\ud83d\ude00\\" \u0001'] },
  "cni.dev/valid-attachments": [{ containerID: "c0ffee", ifname: "eth0" }],
};
const arbStdin = fc.oneof(
  arbMutatedJson([config, { cniVersion: "1.0.0", name: "pods" }]).map((value) =>
    encoder.encode(JSON.stringify(value) ?? ""),
  ),
  arbMutatedBytes([
    encoder.encode(JSON.stringify(config)),
    encoder.encode(`{"name":"\\ud83d\\ude00\\ud83d","cniVersion":"1.0.0"}`),
    encoder.encode(`{"a":${"[".repeat(200)}${"]".repeat(200)}}`),
    encoder.encode(`{"name":"${"n".repeat(1_030)}","cniVersion":"1.0.0"}`),
  ]),
);
const arbVariable = (good: string): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 4, arbitrary: fc.constant(good) },
    {
      weight: 1,
      arbitrary: fc.string({ unit: "binary", maxLength: 30 }).map((text) => text.replaceAll("\0", "")),
    },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        "",
        ".",
        "..",
        "a/b",
        "%n%s",
        "x".repeat(5_000),
        "\u20ac".repeat(9),
        "/proc/self/ns/net",
      ),
    },
  );
const arbAnswer = fc.record({
  bytes: arbMutatedBytes([
    encodeAnswer({ kind: "done", exitCode: 0, stdout: encoder.encode('{"cniVersion":"1.0.0"}\n') }),
    encodeAnswer({ kind: "done", exitCode: 1, stdout: encoder.encode('{"code":11}\n') }),
    encodeAnswer({ kind: "again" }),
    encodeAnswer({ kind: "done", exitCode: 0, stdout: new Uint8Array(70_000).fill(0x20) }),
  ]),
  cutAt: fc.oneof(fc.constant(1 << 20), fc.nat(40)),
  beforeRead: fc.boolean(),
});

test(`the plugin survives ${RUNS} odd calls, with every memory access looked at`, {
  timeout: 60_000 + RUNS * 400,
}, async () => {
  const codes = new Map<number | null, number>();
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        CNI_COMMAND: fc.oneof(
          { weight: 6, arbitrary: fc.constantFrom("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION") },
          { weight: 1, arbitrary: arbVariable("ADD") },
        ),
        CNI_CONTAINERID: arbVariable("c0ffee"),
        CNI_NETNS: arbVariable("/run/netns/fuzz"),
        CNI_IFNAME: arbVariable("eth0"),
        CNI_ARGS: arbVariable("K8S_POD_NAME=a;K8S_POD_NAMESPACE=b"),
        CNI_PATH: arbVariable("/opt/cni/bin"),
        BAGGAGE: arbVariable(""),
        BERTH_SOCKET: fc.oneof(
          { weight: 4, arbitrary: fc.constant("SOCKET") },
          { weight: 1, arbitrary: arbVariable("/run/no/such.sock") },
        ),
        BERTH_JOURNAL: fc.constantFrom("JOURNAL", "JOURNAL", "/dev/null/x", "JOURNAL/../JOURNAL/deep/er"),
      }),
      arbStdin,
      arbAnswer,
      async (variables, stdin, scripted) => {
        answer = scripted;
        const env = {
          ...variables,
          BERTH_SOCKET: variables.BERTH_SOCKET.replace("SOCKET", join(folder, "sock")),
          BERTH_JOURNAL: variables.BERTH_JOURNAL.replaceAll("JOURNAL", join(folder, "journal")),
          BERTH_TOTAL_BUDGET_MS: "150",
          BERTH_CONNECT_BUDGET_MS: "20",
          ASAN_OPTIONS: "detect_leaks=0", // It ends after one call; the kernel frees.
        };
        const done = await runOnce(env, stdin);
        expect(done.stderr).not.toMatch(/Sanitizer|runtime error/);
        expect(done.signal).toBeNull();
        codes.set(done.exitCode, (codes.get(done.exitCode) ?? 0) + 1);
      },
    ),
    { ...fuzzing(), numRuns: RUNS },
  );
  expect(codes.get(0) ?? 0).toBeGreaterThan(0); // Some calls must get through, or only the first check is tested.
  expect(codes.get(1) ?? 0).toBeGreaterThan(0);
});

type Ended = { readonly exitCode: number | null; readonly signal: string | null; readonly stderr: string };

async function runOnce(env: Readonly<Record<string, string>>, stdin: Uint8Array): Promise<Ended> {
  const child = spawn(program, [], { env, stdio: ["pipe", "ignore", "pipe"] });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  child.stdin.on("error", () => {}); // It may have answered before it read all.
  child.stdin.end(stdin);
  return await new Promise((resolve) =>
    child.once("close", (exitCode, signal) => resolve({ exitCode, signal, stderr })),
  );
}
