/** The compiled plugin against the daemon's real socket, journal, peer check and lock: the two ends of one protocol as they ship. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { Handlers } from "../../src/cni/dispatch.ts";
import type { Attached } from "../../src/cni/result.ts";
import { serveCni, type CniServer } from "../../src/cni/server.ts";
import type { Mac } from "../../src/core/model/eni.ts";
import type { NodeError } from "../../src/core/model/error.ts";
import { ipv4 } from "../../src/lib/ip.ts";
import { err, ok } from "../../src/lib/result.ts";
import { instant, wallTime } from "../../src/lib/time.ts";
import { bootTimeMs, lockFile, peerCredentials } from "../../src/libc/libc.ts";
import { openJournal, type Journal } from "../../src/store/journal.ts";
import { compileShim, objectOf, startShim } from "../support/shim.ts";

const NETNS = "/run/netns/berth-pair-test";
let built = "";
let program = "";
beforeAll(() => {
  built = mkdtempSync(join(tmpdir(), "berth-pair-"));
  program = compileShim(built);
  spawnSync("ip", ["netns", "add", "berth-pair-test"]);
});
afterAll(() => {
  spawnSync("ip", ["netns", "del", "berth-pair-test"]);
  rmSync(built, { recursive: true, force: true });
});

let folder = "";
let servers: CniServer[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-pair-run-"));
  servers = [];
});
afterEach(async () => {
  await Promise.all(servers.map((server) => server.close()));
  rmSync(folder, { recursive: true, force: true });
});

const attached: Attached = {
  ip: ipv4("10.0.1.7"),
  gateway: ipv4("169.254.1.1"),
  ifName: "eth0",
  netnsPath: NETNS,
  podMac: "0e:00:00:00:00:01" as Mac, // Test data.
  hostLink: "eni0123456789a",
  hostMac: "0a:00:00:00:00:01" as Mac,
  mtu: 9001,
};
const cancelled: NodeError = { code: "cancelled", detail: "" };
const untilAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => (signal.aborted ? resolve() : signal.addEventListener("abort", () => resolve())));

async function serve(handlers: Partial<Handlers>): Promise<CniServer> {
  const server = await serveCni({
    path: join(folder, "run", "berth.sock"),
    handlers: {
      add: async () => ok(attached),
      del: async () => ok({ settled: Promise.resolve() }),
      check: async () => ok(null),
      status: async () => ok(null),
      gc: async () => ok(null),
      ...handlers,
    },
    now: () => instant(bootTimeMs()),
    peerUid: (fd) => {
      const peer = peerCredentials(fd);
      return peer.ok ? peer.value.uid : null;
    },
  });
  if (!server.ok) throw new Error(server.error);
  servers.push(server.value);
  return server.value;
}

async function journal(lockWaitMs = 0): Promise<Journal> {
  const opened = await openJournal({
    folder: join(folder, "journal"),
    wallNow: () => wallTime(Date.now()),
    lock: (fd) => lockFile(fd).ok,
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    lockWaitMs,
  });
  if (!opened.ok) throw new Error(opened.error);
  return opened.value;
}

function start(
  verb: string,
  containerId = "c1",
  extra: object = {},
  env: Readonly<Record<string, string>> = {},
) {
  return startShim(program, {
    env: {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: NETNS,
      CNI_IFNAME: "eth0",
      CNI_ARGS: "",
      CNI_PATH: "/opt/cni/bin",
      BERTH_SOCKET: join(folder, "run", "berth.sock"),
      BERTH_JOURNAL: join(folder, "journal"),
      ...env,
    },
    stdin: JSON.stringify({ cniVersion: "1.1.0", name: "pods", ...extra }),
  });
}

test.each(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])(
  "ADD, CHECK, DEL, DEL again, and DEL of a vanished namespace in version %s",
  async (cniVersion) => {
    await serve({});
    const added = await start("ADD", "c1", { cniVersion }).finished;
    expect(added).toMatchObject({ exitCode: 0, stderr: "" });
    const prevResult = objectOf(added);
    expect(prevResult).toMatchObject({ cniVersion, ips: [{ address: "10.0.1.7/32" }] });
    if (cniVersion !== "0.3.1")
      expect(await start("CHECK", "c1", { cniVersion, prevResult }).finished).toMatchObject({
        exitCode: 0,
        stdout: "",
      });
    for (const env of [{}, {}, { CNI_NETNS: "" }, { CNI_NETNS: "/run/netns/gone" }]) {
      expect(await start("DEL", "c1", { cniVersion, prevResult }, env).finished).toMatchObject({
        exitCode: 0,
        stdout: "",
      });
    }
  },
);

test("a shim that is killed stops its ADD, and the DEL that follows at once waits for the roll-back", async () => {
  const log: string[] = [];
  await serve({
    add: async (_, signal) => {
      log.push("held");
      await untilAborted(signal);
      log.push(`stopped: ${String(signal.reason)}`);
      return err(cancelled);
    },
    del: async () => {
      log.push("DEL");
      return ok({ settled: Promise.resolve() });
    },
  });
  const add = start("ADD");
  await expect.poll(() => log).toEqual(["held"]);
  add.kill();
  expect(await add.finished).toMatchObject({ signal: "SIGKILL", stdout: "" });
  expect(await start("DEL").finished).toMatchObject({ exitCode: 0 });
  expect(log).toEqual(["held", "stopped: shim-gone", "DEL"]);
});

test("an ADD that is held when the daemon ends is served by the next one, as the same request", async () => {
  const ids: string[] = [];
  const old = await serve({
    add: async ({ requestId }, signal) => {
      ids.push(requestId);
      await untilAborted(signal);
      return err(cancelled);
    },
  });
  const add = start("ADD");
  await expect.poll(() => ids.length).toBe(1);
  await old.close();
  await serve({
    add: async ({ requestId }) => {
      ids.push(requestId);
      return ok(attached);
    },
  });
  expect(await add.finished).toMatchObject({ exitCode: 0 });
  expect(ids.length).toBe(2);
  expect(new Set(ids).size).toBe(1);
});

test("DELs of a time without daemon are played once by the next, before its socket is open", async () => {
  const budget = { BERTH_CONNECT_BUDGET_MS: "50" };
  const containers = ["c1", "c2", "c3"];
  await Promise.all(
    containers.map(async (id) =>
      expect(await start("DEL", id, {}, budget).finished).toMatchObject({ exitCode: 0 }),
    ),
  );
  const opened = await journal();
  const late = start("DEL", "late", {}, budget); // The lock is held: this one must come by the socket.
  const played: string[] = [];
  const drained = await opened.drain(async (key) =>
    ok(played.push(`${key.network}/${key.containerId}/${key.ifName}`)),
  );
  expect(drained).toEqual({ played: 3, failed: [], damaged: [], leftCount: 0 });
  expect(played.sort()).toEqual(containers.map((id) => `pods/${id}/eth0`));
  await new Promise((resolve) => setTimeout(resolve, 150));
  const deleted: string[] = [];
  await serve({
    del: async ({ key }) => {
      deleted.push(key.containerId);
      return ok({ settled: Promise.resolve() });
    },
  });
  expect(await late.finished).toMatchObject({ exitCode: 0 });
  expect(deleted).toEqual(["late"]);
  expect(await opened.drain(async () => ok(null))).toMatchObject({ played: 0 });
  opened.close();
});

test("two daemons cannot hold the journal at one time", async () => {
  const first = await journal();
  await expect(journal()).rejects.toThrow("only one may run on a node");
  setTimeout(() => first.close(), 100);
  (await journal(2_000)).close();
});

test("110 ADDs at once are all answered, with their own requests", async () => {
  let running = 0;
  let most = 0;
  await serve({
    add: async ({ key }) => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setTimeout(resolve, 2));
      running -= 1;
      return ok({ ...attached, hostLink: key.containerId });
    },
  });
  const runs = await Promise.all(
    Array.from({ length: 110 }, (_, index) => start("ADD", `c${index}`).finished),
  );
  for (const [index, run] of runs.entries()) {
    expect(objectOf(run)).toMatchObject({ interfaces: [{ name: `c${index}` }, {}] });
  }
  expect(most).toBeLessThanOrEqual(16);
});
