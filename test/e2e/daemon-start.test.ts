// The bundled daemon at start and restart, on a real node: bad settings, no IMDS, and a checkpoint that cannot be used.
import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { createCluster, type Cluster } from "../../src/lab/cluster.ts";
import { waitUntil, type LabNode } from "../../src/lab/node.ts";
import { ping } from "../../src/lab/packets.ts";
import type { Pod } from "../../src/lab/runtime.ts";

let cluster: Cluster | null = null;
afterEach(async () => {
  await cluster?.close();
  cluster = null;
});

async function oneNode(settings: Readonly<Record<string, string>> = {}): Promise<LabNode> {
  cluster = await createCluster({
    nodes: [{ name: "n1", type: "m5.large" }],
    settings: { WARM_IP_TARGET: "3", IP_COOLDOWN_PERIOD: "1", ...settings },
  });
  const [node] = cluster.nodes;
  if (node === undefined) throw new Error("no node");
  return node;
}

test("every mistake in the settings is told at once, each with what is allowed", () => {
  const env = {
    PATH: process.env["PATH"],
    BERTH_ADD_HOLD_SECONDS: "soon",
    BERTH_SWEEP_INTERVAL_SECNDS: "5",
    WARM_IP_TARGT: "5",
  };
  const done = spawnSync(process.execPath, ["dist/berth.mjs"], { env, encoding: "utf8" });
  expect(done.status).toBe(78);
  expect(done.stderr).toContain("BERTH_ADD_HOLD_SECONDS");
  expect(done.stderr).toContain("an integer from 0 to 28");
  expect(done.stderr).toContain("BERTH_SWEEP_INTERVAL_SECONDS"); // The nearest right name.
});

test("while IMDS is away the daemon waits, says so and is not ready; no socket is there to hang on", async () => {
  const env = {
    PATH: process.env["PATH"],
    AWS_EC2_METADATA_SERVICE_ENDPOINT: "http://127.0.0.1:9",
    BERTH_RUN_DIRECTORY: "/run/berth-no-imds",
    BERTH_JOURNAL_DIRECTORY: "/run/berth-no-imds/journal",
    BERTH_PROBE_BIND_ADDRESS: "127.0.0.1:61999",
    DISABLE_METRICS: "true",
    DISABLE_INTROSPECTION: "true",
    AWS_VPC_K8S_CNI_LOG_FILE: "stdout",
  };
  const daemon = spawn(process.execPath, ["dist/berth.mjs"], { env, stdio: ["ignore", "pipe", "inherit"] });
  let log = "";
  daemon.stdout.setEncoding("utf8").on("data", (text: string) => (log += text));
  try {
    await waitUntil("the daemon says what it waits for", 15_000, () =>
      log.includes("not ready: the instance is not known yet"),
    );
    expect(log).toContain("IMDS: unreachable");
    const probe = await fetch("http://127.0.0.1:61999/readyz");
    expect([probe.status, await probe.text()]).toEqual([503, "the daemon is starting\n"]);
    expect(readdirSync("/run/berth-no-imds")).not.toContain("berth.sock");
  } finally {
    const ended = new Promise((resolve) => daemon.once("close", resolve));
    daemon.kill("SIGTERM");
    await ended; // It does not hang on its way out, either.
  }
});

async function startPods(
  node: LabNode,
  count: number,
): Promise<readonly { readonly pod: Pod; readonly ip: string }[]> {
  const pods = await node.runtime.makeSandboxes(Array.from({ length: count }, (_, at) => `pod-${at}`));
  return await Promise.all(
    pods.map(async (pod) => {
      const { ip, error } = await node.runtime.call("ADD", pod);
      if (ip === null) throw new Error(`ADD failed: ${error?.msg}`);
      return { pod, ip };
    }),
  );
}

const ruined: readonly [name: string, left: string, ruin: (path: string) => void][] = [
  ["truncated", "damaged", (path) => truncateSync(path, 200)],
  ["bit-flipped", "damaged", (path) => flipBit(path)],
  ["from a newer version", "newer", (path) => writeFileSync(path, newerCheckpoint())],
];

for (const [name, left, ruin] of ruined) {
  test(`a checkpoint that is ${name} is set aside, and no running pod's address is given out again`, async () => {
    const node = await oneNode();
    await node.startDaemon();
    const running = await startPods(node, 6);
    await node.stopDaemon("SIGKILL");
    ruin(node.checkpointPath);
    const before = readFileSync(node.checkpointPath);
    await node.startDaemon();
    const folder = readdirSync(node.checkpointPath.replace(/\/[^/]*$/, ""));
    const aside = folder.find((file) => file.includes(`.${left}-`));
    expect(aside, folder.join(" ")).toBeDefined();
    expect(readFileSync(node.checkpointPath.replace(/[^/]*$/, aside ?? "")).equals(before)).toBe(true);

    const state = await node.state();
    expect(state.allocations.map((each) => each.ip).sort()).toEqual(running.map((each) => each.ip).sort());
    const more = await startPods(node, 8);
    const shared = more.filter(({ ip }) => running.some((each) => each.ip === ip));
    expect(shared).toEqual([]);
    const [first] = running;
    const count = await ping(node.netns, first?.ip ?? "", { count: 3 });
    expect(count).toEqual({ sent: 3, received: 3 });
  });
}

test("a checkpoint on disk outlives a restart, with its cooldown deadlines", async () => {
  const node = await oneNode({
    BERTH_CHECKPOINT_PATH: `${process.cwd()}/dist/test-checkpoint.json`,
    IP_COOLDOWN_PERIOD: "600",
  });
  await node.startDaemon();
  const running = await startPods(node, 3);
  const [leaver] = running;
  if (leaver === undefined) throw new Error("no pod");
  await node.runtime.call("DEL", leaver.pod);
  await node.stopDaemon("SIGTERM");
  copyFileSync("dist/test-checkpoint.json", "/run/copy.json");
  await node.startDaemon();
  const state = await node.state();
  expect(state.allocations.map((each) => each.ip).sort()).toEqual(
    running
      .slice(1)
      .map((each) => each.ip)
      .sort(),
  );
  const address = state.enis.flatMap((eni) => eni.addresses).find((each) => each.ip === leaver.ip);
  expect(address?.kind).toBe("cooling");
});

function flipBit(path: string): void {
  const bytes = readFileSync(path);
  const at = Math.floor(bytes.length / 2);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

/** A whole file of a version that we do not know: its checksum is as the format says (store/checkpoint.ts). */
function newerCheckpoint(): string {
  const hash = (text: string): [number, number] => {
    let a = 0x811c_9dc5;
    let b = 0x1b87_3593;
    for (let at = 0; at < text.length; at += 1) {
      a = Math.imul(a ^ text.charCodeAt(at), 0x0100_0193);
      b = Math.imul(b ^ text.charCodeAt(at), 0x85eb_ca6b);
    }
    return [a, b];
  };
  const row = '{"row":"head","tomorrow":true}';
  let [a, b] = hash("berth/99");
  const [c, d] = hash(row);
  a = Math.imul(a ^ c, 0x0100_0193);
  b = Math.imul(b ^ d, 0x85eb_ca6b) ^ row.length;
  const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, "0");
  return `berth/99 ${hex(a)}${hex(b)} 1\n${row}\nend\n`;
}
