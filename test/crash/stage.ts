/**
 * One node of the crash harness: two steady pods that answer pings all the time, and pods that come and go while the daemon is
 * killed. After each kill the node must come back to its baseline, by the word of the kernel, the cloud and the checkpoint.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { StateReport } from "../../src/daemon/state-report.ts";
import { ec2Differences, kernelDifferences } from "../../src/lab/agreement.ts";
import type { Cluster } from "../../src/lab/cluster.ts";
import { difference, kernelObjects } from "../../src/lab/kernel-view.ts";
import { SHIM, type LabNode } from "../../src/lab/node.ts";
import { must, run, start } from "../../src/lab/processes.ts";
import type { CniAnswer, Pod } from "../../src/lab/runtime.ts";
import { eniTable } from "../../src/core/plumbing/names.ts";
import { parseCheckpoint } from "../../src/store/checkpoint.ts";

export type Placed = { readonly pod: Pod; readonly ip: string };

/** What the run found, all nodes together. */
export type Findings = {
  readonly leaked: string[];
  readonly doubled: string[];
  readonly failures: string[];
  /** Every address that a living pod has, with the pod's name: two pods of one address are the worst that can happen. */
  readonly held: Map<string, string>;
};

const STEADY_PODS = 2;
/** An unassign call that a dead daemon may have made is not repeated for a minute: it may still be done late. */
const REST_MS = 100_000;
const ORPHAN = "eni0badc0ffee0";
const OWNED = /^aws-K8S-/;

export class Stage {
  readonly cluster: Cluster;
  readonly node: LabNode;
  readonly findings: Findings;
  readonly armFile: string;
  readonly traceFile: string;
  readonly steady: Placed[] = [];
  readonly extras: Pod[] = [];
  readonly #shims = new Set<() => void>();
  readonly #withoutNetns = new Set<Pod>();
  #baseline: readonly string[] = [];
  #made = 0;
  /** What the daemon that runs will die at. */
  point: string | null = null;
  /** True while a shim dies with its daemon, as when the whole node's memory runs out. */
  shimsDieToo = false;

  constructor(cluster: Cluster, node: LabNode, findings: Findings) {
    this.cluster = cluster;
    this.node = node;
    this.findings = findings;
    this.armFile = `/run/armed-${node.name}`;
    this.traceFile = `/run/trace-${node.name}`;
  }

  /** `point` is what the daemon will die at once it is armed; null: never. */
  async startDaemon(point: string | null, trace = false): Promise<boolean> {
    this.point = point;
    try {
      await this.node.startDaemon({
        CRASH_ARM: this.armFile,
        CRASH_POINT: point ?? "",
        CRASH_TRACE: trace ? this.traceFile : "",
      });
      return true;
    } catch (cause) {
      if (existsSync(this.armFile)) return false; // It died on its way up, as it should.
      throw cause;
    }
  }

  arm(): void {
    writeFileSync(this.armFile, "");
  }

  disarm(): void {
    rmSync(this.armFile, { force: true });
  }

  /** True when the armed point was reached, and not some other end. */
  wasKilled(): boolean {
    return readFileSync(this.armFile, "utf8") === "killed";
  }

  isDead(): boolean {
    return this.node.daemonPid() === null;
  }

  killShims(): void {
    for (const kill of this.#shims) kill();
  }

  async begin(): Promise<void> {
    await this.startDaemon(null);
    for (let at = 0; at < STEADY_PODS; at += 1) {
      const placed = await this.add(await this.makePod());
      if (placed === null) throw new Error(`${this.node.name}: a steady pod got no address`);
      this.steady.push(placed);
    }
    this.extras.length = 0;
    await this.waitForRest("the pool is filled");
    this.#baseline = await this.#kernel(await this.node.state());
  }

  async makePod(): Promise<Pod> {
    this.#made += 1;
    const [pod] = await this.node.runtime.makeSandboxes([`pod-${this.#made}`]);
    if (pod === undefined) throw new Error("no sandbox was made");
    this.extras.push(pod);
    return pod;
  }

  /** Null when the ADD failed, or when its shim was killed. */
  async add(pod: Pod): Promise<Placed | null> {
    const answer = this.shimsDieToo
      ? await this.#mortal("ADD", pod)
      : await this.node.runtime.call("ADD", pod);
    if (answer === null || answer.ip === null) return null;
    const other = this.findings.held.get(answer.ip);
    if (other !== undefined)
      this.findings.doubled.push(`${answer.ip} was given to ${pod.containerId} while ${other} has it`);
    this.findings.held.set(answer.ip, pod.containerId);
    return { pod, ip: answer.ip };
  }

  /** The DEL, whatever comes of it; a runtime asks again. */
  async del(pod: Pod): Promise<boolean> {
    // Whoever has it, has it no longer from here on: its address may be another's a second later.
    this.#forget(pod);
    const answer = this.shimsDieToo
      ? await this.#mortal("DEL", pod)
      : await this.node.runtime.call("DEL", pod);
    return answer?.ok === true;
  }

  #forget(pod: Pod): void {
    const { held } = this.findings;
    for (const [ip, holder] of held) if (holder === pod.containerId) held.delete(ip);
  }

  /** Asks for DEL until it succeeds, as a runtime does, and takes the sandbox away. */
  async remove(pod: Pod): Promise<void> {
    for (let attempt = 0; !(await this.del(pod)); attempt += 1) {
      if (attempt >= 5) {
        this.findings.failures.push(`${this.node.name}: DEL of ${pod.containerId} does not succeed`);
        break;
      }
    }
    if (!this.#withoutNetns.delete(pod)) await this.node.runtime.removeSandboxes([pod]);
    this.extras.splice(this.extras.indexOf(pod), 1);
  }

  /** The sandbox ends, and its links with it; no DEL comes yet. */
  async endWithoutDel(pod: Pod): Promise<void> {
    await this.node.runtime.removeSandboxes([pod]);
    this.#withoutNetns.add(pod);
    this.#forget(pod); // It is swept, and its address another's, before any DEL.
  }

  async #mortal(verb: "ADD" | "DEL", pod: Pod): Promise<CniAnswer | null> {
    const { env, input } = this.node.runtime.request(verb, pod);
    const child = start([SHIM], { stdio: ["pipe", "pipe", "ignore"], env: { ...env } }, this.node.netns);
    const kill = (): void => void child.kill("SIGKILL");
    this.#shims.add(kill);
    let stdout = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stdin?.on("error", () => {}); // It may be dead already.
    child.stdin?.end(input);
    const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
    this.#shims.delete(kill);
    if (code !== 0) return null;
    const result = (stdout === "" ? {} : JSON.parse(stdout)) as { ips?: { address?: string }[] }; // Looked at below.
    const finished = { exitCode: code, stdout, stderr: "", durationMs: 0 };
    return { finished, ok: true, ip: result.ips?.[0]?.address?.split("/")[0] ?? null, error: null };
  }

  /** Until the pool has what it wants and nothing is under way. False when the daemon died meanwhile. */
  async rests(): Promise<boolean> {
    const deadline = performance.now() + REST_MS;
    for (;;) {
      if (this.isDead()) return false;
      const state = await this.node.state().catch(() => null);
      if (state !== null && isAtRest(state)) return true;
      if (performance.now() > deadline)
        throw new Error(`${this.node.name}: the pool finds no rest: ${brief(state)}`);
      await pause(40);
    }
  }

  async waitForRest(what: string): Promise<void> {
    if (!(await this.rests())) throw new Error(`${this.node.name}: the daemon died while ${what}`);
  }

  /** Takes the walk's pods away and holds everything against the baseline. */
  async settle(walk: string): Promise<void> {
    try {
      for (let [pod] = this.extras; pod !== undefined; [pod] = this.extras) await this.remove(pod);
      await this.waitForRest("the walk's pods leave");
      const found = await this.#differencesAtLast();
      this.findings.leaked.push(...found.map((line) => `${this.node.name}, after ${walk}: ${line}`));
    } catch (cause) {
      this.findings.failures.push(`after ${walk}: ${String(cause)}`);
    }
  }

  /** Some things take a moment after the pool rests: a link's deletion, a late event. What still differs then is a leak. */
  async #differencesAtLast(): Promise<readonly string[]> {
    const deadline = performance.now() + 8_000;
    for (;;) {
      const found = await this.#differences();
      if (found.length === 0 || performance.now() > deadline) return found;
      await pause(300);
    }
  }

  async #differences(): Promise<readonly string[]> {
    const { node, cluster } = this;
    const state = await node.state();
    const kernel = difference(this.#baseline, await this.#kernel(state));
    const steady = new Set(this.steady.map(({ ip }) => ip));
    const enis = [...cluster.emulator.world().enis.values()];
    const stray = enis.filter(
      (eni) =>
        OWNED.test(eni.description) && eni.description.includes(node.instanceId) && eni.attachment === null,
    );
    return [
      ...kernel.map((line) => `kernel: ${line}`),
      ...(await ec2Differences(cluster, node)),
      ...(await kernelDifferences(node)),
      ...stray.map((eni) => `${eni.id} hangs on nothing`),
      ...state.allocations.filter(({ ip }) => !steady.has(ip)).map(({ id, ip }) => `${id} still has ${ip}`),
      ...[...steady]
        .filter((ip) => !state.allocations.some((each) => each.ip === ip))
        .map((ip) => `${ip} was lost`),
      ...this.#checkpoint(steady),
      ...readdirSync(node.pluginEnv["BERTH_JOURNAL"] ?? "")
        .filter((name) => name !== "lock")
        .map((name) => `journal: ${name}`),
    ];
  }

  #checkpoint(steady: ReadonlySet<string>): readonly string[] {
    const parsed = parseCheckpoint(readFileSync(this.node.checkpointPath, "utf8"));
    if (!parsed.ok) return [`checkpoint: ${JSON.stringify(parsed.error)}`];
    const others = parsed.value.allocations.filter(({ ip }) => !steady.has(ip));
    return others.map(({ id, ip }) => `checkpoint: ${id} has ${ip}`);
  }

  /** Beside what kernelObjects tells: rules and tables of secondary ENIs that the node does not have. */
  async #kernel(state: StateReport): Promise<readonly string[]> {
    const { netns } = this.node;
    const [objects, rules, routes] = await Promise.all([
      kernelObjects(netns),
      must(["ip", "rule"], { netns }),
      must(["ip", "route", "show", "table", "all"], { netns }),
    ]);
    const tables = new Set(
      state.enis.map(({ networkCard, deviceIndex }) => eniTable({ networkCard, deviceIndex })),
    );
    const ofEnis = `${rules}${routes}`.split("\n").filter((line) => {
      const table = /(?:lookup|table) (10\d{3})\b/.exec(line)?.[1];
      return table !== undefined && !tables.has(Number(table));
    });
    // The kernel gives links addresses of their own for IPv6 whenever it is done looking for duplicates.
    const lasting = objects.filter((line) => !/ (fe80:|ff00:)/.test(line));
    return [...lasting, ...ofEnis.map((line) => `of an ENI: ${line.trim()}`)];
  }

  /**
   * What an operator might do to our traces in the kernel, but for those of the steady pods: the nft table, a pod's route, and a
   * link of ours that no sandbox has any more. The next start or repair has something to do.
   */
  async spoil(ip: string): Promise<void> {
    const { netns } = this.node;
    await run(["nft", "delete", "table", "inet", "berth"], { netns });
    await run(["ip", "route", "del", ip, "table", "100"], { netns });
    await must(
      ["ip", "link", "add", ORPHAN, "group", "1001", "type", "veth", "peer", "name", "orphan-peer"],
      { netns },
    );
    // Without an alias it is an orphan, too, and may be gone already.
    await run(["ip", "link", "set", ORPHAN, "alias", "berth/ended-long-ago/eth0"], { netns });
  }

  async isRepaired(ip: string): Promise<boolean> {
    const { netns } = this.node;
    const [routes, links, tables] = await Promise.all([
      must(["ip", "route", "show", "table", "100"], { netns }),
      must(["ip", "link"], { netns }),
      must(["nft", "list", "tables"], { netns }),
    ]);
    return routes.includes(ip) && !links.includes(ORPHAN) && tables.includes("berth");
  }
}

function isAtRest(state: StateReport): boolean {
  const { census, plan, inDoubt, loose, waiting, enis } = state;
  return (
    state.ready &&
    plan.kind === "hold" &&
    plan.reason === "on-target" &&
    inDoubt === null &&
    loose.length === 0 &&
    waiting === 0 &&
    census.cooling + census.leaving + census.coming === 0 &&
    enis.every((eni) => eni.phase === "ready") &&
    ("retryAt" in plan ? plan.retryAt === null : true)
  );
}

function brief(state: StateReport | null): string {
  if (state === null) return "it does not answer";
  const { census, plan, inDoubt, loose, waiting } = state;
  return JSON.stringify({ census, plan, inDoubt, loose, waiting });
}

export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
