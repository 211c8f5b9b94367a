// The demo as a user runs it: as root, as a user without rights, and killed in the middle.
import { spawn, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";

const DEMO = ["src/cli/main.ts", "demo", "--json"];

type Demo = {
  readonly ok: boolean;
  readonly checks: readonly { readonly name: string; readonly ok: boolean; readonly detail: string }[];
} & Readonly<Record<string, number>>;

function failed(demo: Demo): readonly string[] {
  return demo.checks.filter((check) => !check.ok).map((check) => `${check.name}: ${check.detail}`);
}

test("the demo passes all its checks and prints one JSON object", { timeout: 120_000 }, () => {
  const done = spawnSync(process.execPath, DEMO, { encoding: "utf8" });
  const demo = JSON.parse(done.stdout) as Demo; // One object and nothing else, or this throws.
  expect(failed(demo), done.stderr.slice(-2_000)).toEqual([]);
  expect(demo).toMatchObject({
    ok: true,
    nodes: 2,
    failedAdds: 0,
    lostPings: 0,
    leakedEnis: 0,
    leakedAddresses: 0,
    leakedKernelObjects: 0,
  });
  expect(demo.checks.length).toBeGreaterThanOrEqual(15);
  expect(demo["adds"]).toBeGreaterThanOrEqual(60);
  expect(demo["pingsSent"]).toBeGreaterThanOrEqual(1_000);
  expect(demo["heldAdds"]).toBeGreaterThan(0);
  expect(done.status).toBe(0);
});

test("a killed demo leaves no process, no namespace and no link behind", { timeout: 60_000 }, async () => {
  const before = machine();
  for (const afterMs of [300, 1_500, 5_000]) {
    const demo = spawn(process.execPath, DEMO, { stdio: "ignore" });
    await sleep(afterMs);
    demo.kill("SIGKILL");
    await sleep(600);
    expect(labProcesses(), `killed after ${afterMs} ms`).toEqual([]);
  }
  expect(machine()).toEqual(before);
});

test("Ctrl-C ends the demo at once and leaves nothing behind", { timeout: 30_000 }, async () => {
  const before = machine();
  const demo = spawn(process.execPath, DEMO, { stdio: "ignore" });
  await sleep(2_500);
  const ended = new Promise<number | null>((resolve) => demo.once("close", resolve));
  demo.kill("SIGINT");
  expect(await ended).not.toBe(0);
  await sleep(300);
  expect(labProcesses()).toEqual([]);
  expect(machine()).toEqual(before);
});

function machine(): readonly string[] {
  const links = spawnSync("ip", ["-br", "link"], { encoding: "utf8" }).stdout.trim().split("\n");
  const netns = spawnSync("ip", ["netns", "list"], { encoding: "utf8" }).stdout.trim();
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n").length;
  return [...links, netns, `${mounts} mounts`];
}

/** Processes, by what their environment says, that a lab started. Ours says nothing of the kind. */
function labProcesses(): readonly string[] {
  return readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/environ`, "utf8").includes("BERTH_LAB_INSIDE=1");
    } catch {
      return false; // It ended while we looked.
    }
  });
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
