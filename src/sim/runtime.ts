/**
 * Kubelet, the runtime and the shims of one node: pods get sandboxes, sandboxes get ADD and DEL, and not always in the order, number or time
 * that the specification has in mind (what containerd and cri-o were seen to do). libcni's cache and the namespaces are what the daemon can see of it.
 */
import type { LiveSandbox } from "../agent/ports.ts";
import type { NodeError } from "../core/model/error.ts";
import { sandboxId, type SandboxId, type SandboxKey } from "../core/model/sandbox.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { SECOND_MS } from "../lib/time.ts";
import { SimStop } from "./clock.ts";
import type { FaultName } from "./faults.ts";
import type { Life, SimNode } from "./node.ts";

/** A pod outlives its sandboxes: after a reboot or a failed ADD it gets another. */
type Pod = {
  readonly number: number;
  ended: boolean;
  sandbox: Sandbox | null;
  readonly onEnd: Set<() => void>;
};

export type Sandbox = {
  readonly id: SandboxId;
  readonly key: SandboxKey;
  readonly netnsPath: string;
  ip: Ipv4 | null;
  running: boolean; // The runtime has the ADD's result, and nothing has been stopped.
};

const ADD_BUDGET_MS = 30 * SECOND_MS;
const CONNECT_MS = { add: 10 * SECOND_MS, del: 1.5 * SECOND_MS };

export class Runtime {
  readonly network = "berth";
  readonly #node: SimNode;
  readonly pods = new Set<Pod>();
  readonly #cache = new Map<SandboxId, LiveSandbox>();
  readonly running = new Map<SandboxId, Sandbox>();
  #generation = 0; // Of boots: what began before is over.
  #numbers = 0;
  /** ADDs that a shim is waiting for. */
  addsUnderWay = 0;
  /** DELs that are still to come. */
  delsOwed = 0;

  constructor(node: SimNode) {
    this.#node = node;
  }

  // --- Pods ------------------------------------------------------------------------------------------------------------

  startPod(lifeMs: number): void {
    if (this.#node.gone) return;
    this.#numbers += 1;
    const pod: Pod = { number: this.#numbers, ended: false, sandbox: null, onEnd: new Set() };
    this.pods.add(pod);
    if (lifeMs < 1e9) this.#after(lifeMs, () => this.endPod(pod));
    void this.#serve(pod);
  }

  endPod(pod: Pod): void {
    if (pod.ended) return;
    pod.ended = true;
    this.pods.delete(pod);
    for (const listener of pod.onEnd) listener();
    pod.onEnd.clear();
  }

  endOldest(count: number): void {
    for (const pod of [...this.pods].slice(0, count)) this.endPod(pod);
  }

  /** All namespaces are gone, and whatever kubelet was about; its pods and libcni's cache stay. */
  reboot(): void {
    this.#generation += 1;
    this.running.clear();
    this.addsUnderWay = 0;
    this.delsOwed = 0;
    for (const pod of this.pods) pod.onEnd.clear();
  }

  /** After a reboot: DEL for each sandbox of before, then a new sandbox for each pod. */
  restart(): void {
    for (const pod of this.pods) {
      const old = pod.sandbox;
      pod.sandbox = null;
      if (old !== null) void this.#deleteOfBefore(old);
      void this.#serve(pod);
    }
  }

  async #deleteOfBefore(old: Sandbox): Promise<void> {
    if (this.#hits("del-lost")) return;
    await this.#deleteUntilDone(old);
    this.#cache.delete(old.id);
  }

  /** A pod's way from its first sandbox to its end. */
  async #serve(pod: Pod): Promise<void> {
    const generation = this.#generation;
    const over = (): boolean => generation !== this.#generation;
    await this.#sleep(100);
    while (!over() && !pod.ended) {
      const sandbox = this.#newSandbox(pod);
      pod.sandbox = sandbox;
      const stop = new SimStop();
      const early = this.#hits("del-before-add-ended")
        ? this.#chance("del-before-add-ended when") * 2_000
        : null;
      if (early !== null) this.#after(early, () => stop.abort("shim-gone"));
      const added = await this.#add(sandbox, stop);
      if (over()) return;
      if (added.ok && early === null) {
        sandbox.ip = added.value;
        sandbox.running = true;
        this.running.set(sandbox.id, sandbox);
        this.#cache.set(sandbox.id, {
          key: sandbox.key,
          netnsPath: sandbox.netnsPath,
          ips: [added.value],
          source: "libcni-cache",
        });
        if (!pod.ended) await new Promise<void>((resolve) => pod.onEnd.add(resolve));
        if (over()) return;
        await this.#stop(sandbox);
        return;
      }
      await this.#giveUp(sandbox);
      if (over()) return;
      await this.#sleep(12_000 + this.#chance("add again") * 3_000); // Kubelet's next try has a new container id.
    }
  }

  #newSandbox(pod: Pod): Sandbox {
    this.#numbers += 1;
    const containerId = `${this.#node.name}p${pod.number}s${this.#numbers}`;
    const netnsPath = `/run/netns/cni-${this.#node.name}-${this.#numbers}`;
    const key = { network: this.network, containerId, ifName: "eth0" };
    this.#node.kernel.addNamespace(netnsPath);
    return { id: sandboxId(key), key, netnsPath, ip: null, running: false };
  }

  /** The pod ends: StopPodSandbox, then RemovePodSandbox asks once more. */
  async #stop(sandbox: Sandbox): Promise<void> {
    const generation = this.#generation;
    sandbox.running = false;
    this.running.delete(sandbox.id);
    if (this.#hits("del-lost")) {
      this.#end(sandbox);
      if (this.#chance("del-lost cache") < 0.5) this.#cache.delete(sandbox.id);
      return;
    }
    if (this.#hits("del-late")) {
      this.#end(sandbox);
      this.delsOwed += 1;
      await this.#sleep(10_000 + this.#chance("del-late when") * 600_000);
      if (generation !== this.#generation) return;
      this.delsOwed -= 1;
    } else if (this.#hits("del-doubled")) void this.#delete(sandbox);
    await this.#deleteUntilDone(sandbox);
    if (generation !== this.#generation) return;
    this.#end(sandbox);
    this.#cache.delete(sandbox.id);
    await this.#sleep(500);
    if (generation === this.#generation) await this.#delete(sandbox);
  }

  /** A failed ADD: one DEL whose failure nobody looks at, and the namespace goes. */
  async #giveUp(sandbox: Sandbox): Promise<void> {
    const generation = this.#generation;
    if (!this.#hits("del-lost")) await this.#delete(sandbox);
    if (generation === this.#generation) this.#end(sandbox);
  }

  #end(sandbox: Sandbox): void {
    this.#node.kernel.removeNamespace(sandbox.netnsPath);
  }

  // --- Shims -----------------------------------------------------------------------------------------------------------

  /** One shim: connects, asks, and asks again with the same request id when its answer is lost. */
  async #add(sandbox: Sandbox, stop: SimStop): Promise<Result<Ipv4, NodeError>> {
    const node = this.#node;
    const { clock, checks } = node.sim;
    const generation = this.#generation;
    const began = clock.now;
    const requestId = `${sandbox.key.containerId}-add`;
    this.addsUnderWay += 1;
    node.trace(`ADD ${sandbox.id}`);
    const end = (result: Result<Ipv4, NodeError>): Result<Ipv4, NodeError> => {
      if (generation !== this.#generation) return result;
      this.addsUnderWay -= 1;
      const tookMs = clock.now - began;
      node.trace(
        `ADD ${sandbox.id} ${result.ok ? result.value : result.error.code} after ${Math.round(tookMs)}`,
      );
      checks.look(
        "add-ends",
        tookMs > ADD_BUDGET_MS + 1_000 ? `ADD of ${sandbox.id} took ${Math.round(tookMs)} ms` : null,
      );
      node.sim.addEnded(result.ok ? "ok" : result.error.code);
      return result;
    };
    const killed = this.#hits("shim-killed");
    if (killed) this.#after(this.#chance("shim-killed when") * 5_000, () => stop.abort("shim-gone"));
    // The shim's own patience. A daemon that serves answers before it ends.
    let asking = false;
    const alarm = clock.after(ADD_BUDGET_MS, () => {
      checks.look("add-ends", asking && `ADD of ${sandbox.id} has no answer within its budget`);
      stop.abort("shim-gone");
    });
    for (;;) {
      const life = await this.#connect(Math.min(CONNECT_MS.add, began + ADD_BUDGET_MS - clock.now), stop);
      if (life === null || stop.signal.aborted) {
        clock.cancel(alarm);
        return end(
          err(stop.signal.aborted ? shimGone() : { code: "not-ready", detail: "the daemon does not answer" }),
        );
      }
      const budgetMs = began + ADD_BUDGET_MS - clock.now;
      const connection = new SimStop();
      stop.signal.addEventListener("abort", () => connection.abort("shim-gone"));
      const asked = node.serveAdd(life, {
        key: sandbox.key,
        netnsPath: sandbox.netnsPath,
        requestId,
        arrival: node.arrive(),
        budgetMs,
        stop: connection,
      });
      asking = true;
      const answer = await this.#answerOf(life, asked, stop);
      asking = false;
      if (answer === "daemon-died") continue;
      if (answer === "shim-gone") {
        clock.cancel(alarm);
        return end(err(shimGone()));
      }
      if (this.#hits("answer-lost")) continue;
      clock.cancel(alarm);
      return end(answer.ok ? ok(answer.value.ip) : answer);
    }
  }

  /** True when it is done, by the daemon or in the journal. */
  async #delete(sandbox: Sandbox): Promise<boolean> {
    const node = this.#node;
    node.trace(`DEL ${sandbox.id}`);
    const arrival = node.arrive();
    for (let attempt = 0; attempt < 20; attempt += 1) {
      const life = await this.#connect(CONNECT_MS.del, null);
      if (life === null) {
        node.journal.set(sandbox.id, sandbox.key);
        return true;
      }
      const answer = await this.#answerOf(
        life,
        node.serveDel(life, sandbox.key, attempt === 0 ? arrival : node.arrive()),
        null,
      );
      if (answer === "daemon-died") continue;
      return answer !== "shim-gone" && answer.ok;
    }
    return false;
  }

  async #deleteUntilDone(sandbox: Sandbox): Promise<void> {
    const generation = this.#generation;
    this.delsOwed += 1;
    while (!(await this.#delete(sandbox))) {
      if (generation !== this.#generation) return;
      await this.#sleep(2_000);
    }
    if (generation === this.#generation) this.delsOwed -= 1;
  }

  /** A runtime's list of the living, with some left out and some that are dead. */
  collectGarbage(wrong: boolean): void {
    const { life } = this.#node;
    if (life?.serving !== true) return;
    const alive = [...this.running.values()]
      .filter(() => !wrong || this.#chance("gc") < 0.5)
      .map(({ key }) => key);
    void this.#answerOf(life, this.#node.serveGc(life, alive), null);
  }

  /** The life that serves, at once or within `ms`; null when there is none. */
  async #connect(ms: number, stop: SimStop | null): Promise<Life | null> {
    const node = this.#node;
    if (node.life?.serving === true) return node.life;
    return await new Promise((resolve) => {
      const end = (): void => {
        node.awaitingServer.delete(end);
        node.sim.clock.cancel(timer);
        stop?.signal.removeEventListener("abort", end);
        resolve(node.life?.serving === true ? node.life : null);
      };
      const timer = node.sim.clock.after(Math.max(1, ms), end);
      node.awaitingServer.add(end);
      stop?.signal.addEventListener("abort", end);
    });
  }

  async #answerOf<T>(
    life: Life,
    work: Promise<T>,
    stop: SimStop | null,
  ): Promise<T | "daemon-died" | "shim-gone"> {
    if (life.dead) return "daemon-died"; // Between the connection and the question.
    return await new Promise((resolve) => {
      const end = (answer: T | "daemon-died" | "shim-gone"): void => {
        life.mourners.delete(died);
        stop?.signal.removeEventListener("abort", gone);
        resolve(answer);
      };
      const died = (): void => end("daemon-died");
      const gone = (): void => end("shim-gone");
      life.mourners.add(died);
      stop?.signal.addEventListener("abort", gone);
      void work.then(end);
    });
  }

  // --- What the daemon sees --------------------------------------------------------------------------------------------

  cachedSandboxes(): Result<readonly LiveSandbox[], string> {
    return ok([...this.#cache.values()]);
  }

  get cacheIsEmpty(): boolean {
    return this.#cache.size === 0;
  }

  /** Somebody removed a file of libcni's cache. */
  loseCacheEntry(chance: number): boolean {
    const id = [...this.#cache.keys()][Math.floor(chance * this.#cache.size)];
    return id !== undefined && this.#cache.delete(id);
  }

  #hits(name: FaultName): boolean {
    return this.#node.sim.faults.hits(name, this.#node.name);
  }

  #chance(name: string): number {
    return this.#node.sim.faults.source(name, this.#node.name)();
  }

  async #sleep(ms: number): Promise<void> {
    await this.#node.sim.clock.sleep(ms);
  }

  #after(ms: number, run: () => void): void {
    this.#node.sim.clock.after(ms, run);
  }
}

function shimGone(): NodeError {
  return { code: "cancelled", detail: "the shim is gone" };
}
