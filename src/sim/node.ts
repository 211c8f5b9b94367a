/**
 * One simulated node: the production agent, one life of it after another, over a pretend host, disk and EC2. A crash throws a life away
 * before or after any of its effects; the next one starts from what the disk, EC2, the kernel and the runtime tell.
 */
import { addSandbox } from "../agent/add-sandbox.ts";
import type { Agent } from "../agent/agent.ts";
import { collectGarbage } from "../agent/check-sandbox.ts";
import { deleteSandbox } from "../agent/delete-sandbox.ts";
import { keepRunning } from "../agent/loop.ts";
import type { AgentEvent, Kernel, Ports } from "../agent/ports.ts";
import { recover } from "../agent/recover.ts";
import { journalJob } from "../agent/play-journal.ts";
import { refillJob } from "../agent/refill.ts";
import { filterJob, repairJob } from "../agent/repair.ts";
import { sandboxSweepJob } from "../agent/sweep-sandboxes.ts";
import { OperationsByKey } from "../cni/operations-by-key.ts";
import type { NodeError } from "../core/model/error.ts";
import { sandboxId, type SandboxId, type SandboxKey } from "../core/model/sandbox.ts";
import type { Allocation } from "../core/state/node-state.ts";
import type { Random } from "../lib/random.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { after, instant, SECOND_MS, wallTime, type Instant } from "../lib/time.ts";
import { SimStop } from "./clock.ts";
import { CheckpointDisk, never } from "./disk.ts";
import { createSimEc2, createSimImds, limitsSeenBy } from "./ec2.ts";
import { HostKernel } from "./kernel.ts";
import { Runtime } from "./runtime.ts";
import { drawSettings, type NodeSettings } from "./settings.ts";
import type { Sim } from "./sim.ts";
import { Watch } from "./watch.ts";

/** Thrown through the agent when its process dies in the middle of something. */
class Crash extends Error {}

const WALL_EPOCH = Date.UTC(2026, 0, 1);
const ADD_HOLD_MS = 25 * SECOND_MS;
const ANSWER_MS = 2 * SECOND_MS;

/** One life of the daemon. */
export type Life = {
  readonly number: number;
  dead: boolean;
  agent: Agent | null;
  serving: boolean;
  readonly began: number;
  readonly operations: OperationsByKey;
  readonly stop: SimStop;
  readonly mourners: Set<() => void>;
};

export class SimNode {
  readonly name: string;
  readonly instanceId: string;
  readonly sim: Sim;
  readonly kernel: HostKernel;
  readonly disk: CheckpointDisk;
  readonly runtime: Runtime;
  readonly watch: Watch;
  /** DELs that came while no daemon was there. */
  readonly journal = new Map<SandboxId, SandboxKey>();
  readonly awaitingServer = new Set<() => void>();
  readonly #chance: Random;
  life: Life | null = null;
  settings: NodeSettings;
  #lives = 0;
  #boots = 0;
  bootAt = 0;
  wallSkewMs = 0;
  diskFullUntil = 0;
  fsyncLiesUntil = 0;
  imdsDownUntil = 0;
  cordonedUntil = 0;
  /** The instance is terminated: nothing happens here any more. */
  gone = false;
  #arrivals = 0;

  constructor(sim: Sim, name: string, instanceId: string, chance: Random) {
    this.sim = sim;
    this.name = name;
    this.instanceId = instanceId;
    this.#chance = chance;
    this.settings = drawSettings(chance);
    this.disk = new CheckpointDisk(sim.clock, chance() < 0.5);
    this.watch = new Watch(this);
    this.kernel = new HostKernel(sim.clock, {
      refuses: (step) => this.#refuses(step),
      between: () => this.#effect(this.#inHand, true),
      podAddressAdded: (ip, namespace, alias) => this.watch.podAddressAdded(ip, namespace, alias),
      podAddressGone: (ip, namespace) => this.watch.podAddressGone(ip, namespace),
      podRouteGone: (ip) => this.watch.podRouteGone(ip),
      foreignTouched: (what) => sim.checks.look("foreign-untouched", `${name}: ${what}`),
    });
    this.runtime = new Runtime(this);
  }

  /** The life whose synchronous call the kernel is performing. */
  #inHand: Life | null = null;

  now(): Instant {
    return instant(this.sim.clock.now - this.bootAt + 1_000);
  }

  get bootId(): string {
    return `${this.name}-boot-${this.#boots}`;
  }

  trace(line: string): void {
    this.sim.trace(`${this.name} ${line}`);
  }

  #refuses(step: string): string | null {
    const { faults } = this.sim;
    // What undoes and observes is refused too; only ENOBUFS is drawn where the other two make no sense.
    if (faults.hits("kernel-enobufs", this.name)) return this.#refused(step, "ENOBUFS");
    if (faults.hits("kernel-eexist", this.name)) return this.#refused(step, "EEXIST");
    if (faults.hits("kernel-enoent", this.name)) return this.#refused(step, "ENOENT");
    return null;
  }

  #refused(step: string, errno: string): string {
    this.trace(`kernel refuses ${step}: ${errno}`);
    return errno;
  }

  // --- Lives -----------------------------------------------------------------------------------------------------------

  /** One effect of a life is about to be, or has just been: throws when the process dies here, or is dead already. */
  #effect(life: Life | null, matters: boolean): void {
    if (life === null) return;
    if (life.dead) throw new Crash();
    if (!matters) return;
    if (!this.sim.faults.hits("daemon-crash", this.name)) return;
    this.#die(life);
    throw new Crash();
  }

  /** The same where the life must not be thrown through: true when it is dead. */
  #dies(life: Life, step: string): boolean {
    if (life.dead) return true;
    if (!this.sim.faults.hits("daemon-crash", this.name)) return false;
    this.trace(`dies at ${step}`);
    this.#die(life);
    return true;
  }

  #die(life: Life): void {
    if (life.dead) return;
    this.trace(`daemon ${life.number} dies`);
    this.sim.checks.look("no-broken-promise", null); // It lived to its crash without one.
    life.dead = true;
    life.serving = false;
    this.life = null;
    for (const mourner of life.mourners) mourner();
    life.mourners.clear();
    if (this.gone) return;
    this.sim.clock.after(500 + this.#chance() * 3_000, () => this.start());
  }

  /** The daemon is killed, and started again by its supervisor. */
  kill(): void {
    if (this.life !== null) this.#die(this.life);
  }

  /** Power off and on: namespaces, links and what the disk had not taken are gone. */
  reboot(torn: number | null): void {
    this.trace("reboots");
    const { life } = this;
    if (life !== null) {
      life.dead = true;
      for (const mourner of life.mourners) mourner();
      this.life = null;
    }
    this.disk.powerCut(torn);
    this.runtime.reboot();
    this.kernel.reboot();
    this.#boots += 1;
    const downMs = 20_000 + this.#chance() * 60_000;
    this.bootAt = this.sim.clock.now + downMs;
    this.watch.rebooted();
    this.sim.clock.after(downMs, () => {
      if (this.gone) return;
      this.sim.linksOf(this);
      this.start();
      this.runtime.restart();
    });
  }

  terminate(): void {
    this.trace("is terminated");
    this.gone = true;
    const { life } = this;
    if (life !== null) this.#die(life);
    this.runtime.reboot();
    this.kernel.reboot();
  }

  start(): void {
    if (this.gone || this.life !== null || this.sim.clock.now < this.bootAt) return;
    this.#disturbDisk();
    if (this.#lives > 0 && this.sim.faults.hits("settings-changed", this.name)) {
      const { agent } = this.settings;
      this.settings = drawSettings(this.#chance);
      this.trace(`settings changed: cooldown ${agent.cooldownMs} → ${this.settings.agent.cooldownMs}`);
    }
    this.#lives += 1;
    const life: Life = {
      number: this.#lives,
      dead: false,
      agent: null,
      serving: false,
      began: this.sim.clock.now,
      operations: new OperationsByKey(),
      stop: new SimStop(),
      mourners: new Set(),
    };
    this.life = life;
    this.trace(`daemon ${life.number} starts`);
    this.#guard(life, this.#live(life));
  }

  #disturbDisk(): void {
    if (this.#lives === 0) return;
    const { faults } = this.sim;
    if (faults.hits("checkpoint-lost", this.name)) {
      this.watch.recordLost();
      this.disk.lose();
    } else if (faults.hits("checkpoint-older", this.name)) {
      // What was released since has left no trace anywhere: that it rests is not promised (docs/reliability.md).
      if (!this.disk.rollBack()) return;
      this.watch.recordLost();
      this.watch.recordRolledBack();
    } else if (faults.hits("checkpoint-flipped", this.name)) {
      this.watch.recordLost();
      this.disk.flip(faults.source("checkpoint-flipped where", this.name)());
    } else if (faults.hits("checkpoint-of-another-node", this.name)) {
      const other = this.sim.anotherCheckpoint(this);
      if (other === null) return;
      this.watch.recordLost();
      this.disk.replace(other);
    }
  }

  /** A crash ends quietly; any other throw is a promise that the daemon itself broke. */
  #guard(life: Life, work: Promise<unknown>): void {
    void work.catch((cause: unknown) => {
      if (cause instanceof Crash) return;
      this.sim.checks.look(
        "no-broken-promise",
        `${this.name}: ${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}`,
      );
      this.#die(life);
    });
  }

  async #live(life: Life): Promise<void> {
    const ports = this.#ports(life);
    const remembered = this.disk.load(this.bootId);
    this.watch.startsFrom(remembered);
    const { agent: settings, pool } = this.settings;
    const agent = await recover({
      ports,
      settings,
      pool,
      limitsOf: () => limitsSeenBy(this.sim.engine, this.instanceId),
      remembered,
      signal: life.stop.signal,
    });
    if (agent === null || life.dead) return;
    life.agent = agent;
    agent.cell.onChange(() => this.watch.stateChanged());
    this.watch.stateChanged();
    await this.#drainJournal(async (key) => await deleteSandbox(agent, key));
    await ports.save(agent.cell.state);
    life.serving = true;
    this.watch.serves(life);
    this.trace(`daemon ${life.number} serves`);
    for (const wake of [...this.awaitingServer]) wake();
    const journal = journalJob(agent, async () => {
      await this.#drainJournal(async (key) => await this.serveDel(life, key, this.arrive()));
    });
    for (const job of [refillJob(agent), repairJob(agent), filterJob(agent), sandboxSweepJob(agent), journal])
      this.#guard(life, keepRunning(job, ports.time, life.stop.signal));
  }

  async #drainJournal(play: (key: SandboxKey) => Promise<Result<unknown, NodeError>>): Promise<void> {
    for (const [id, key] of [...this.journal]) {
      const deleted = await play(key);
      if (deleted.ok) this.journal.delete(id);
    }
  }

  #ports(life: Life): Ports {
    const { sim, kernel } = this;
    const { clock } = sim;
    /** A synchronous call: the process may die before it, inside of it, and after it. */
    const during = <T>(matters: boolean, work: () => T): T => {
      this.#effect(life, matters);
      this.#inHand = life;
      try {
        return work();
      } finally {
        this.#inHand = null;
      }
    };
    const random = sim.faults.source(`agent ${life.number}`, this.name);
    let tokens = 0;
    const kernelPort: Kernel = {
      observe: () => during(false, () => kernel.observe()),
      observeLinks: () => during(false, () => kernel.observeLinks()),
      apply: (ops) => during(true, () => kernel.apply(ops)),
      lookAtNetns: (path) => during(false, () => kernel.lookAtNetns(path)),
      plumbSandbox: (netns, plumbing) => during(true, () => kernel.plumbSandbox(netns, plumbing)),
      checkSandbox: (netns, plumbing) => during(false, () => kernel.checkSandbox(netns, plumbing)),
      deleteLink: async (name) => {
        if (this.#dies(life, `delete-link ${name}`)) return await never();
        const deleted = await kernel.deleteLink(name);
        return life.dead ? await never() : deleted;
      },
      ensurePacketFilter: async (text) => {
        if (life.dead) return await never();
        await clock.sleep(30);
        return life.dead ? await never() : kernel.ensurePacketFilter(text);
      },
      ensureSysctls: () => [],
      forgetConnections: () => {},
    };
    const hooks = {
      before: (operation: Parameters<Watch["ec2Before"]>[1], parameters: ReadonlyMap<string, string>) => {
        if (this.#dies(life, operation)) return true;
        this.watch.ec2Before(life, operation, parameters);
        sim.befallCall(this, operation);
        this.trace(`→ ${operation} ${[...parameters.values()].slice(0, 4).join(" ")}`);
        return false;
      },
      answered: (
        operation: Parameters<Watch["ec2Before"]>[1],
        parameters: ReadonlyMap<string, string>,
        failure: Parameters<Watch["ec2Answered"]>[3],
      ) => {
        this.watch.ec2Answered(life, operation, parameters, failure);
        if (failure !== null) this.trace(`← ${operation} ${failure.kind} ${failure.code}`);
        return this.#dies(life, `${operation} answered`);
      },
      imdsDown: () => clock.now < this.imdsDownUntil,
      described: (enis: Parameters<Watch["described"]>[0]) => this.watch.described(enis),
    };
    const save = this.disk.writer(this.bootId, {
      isFull: () => clock.now < this.diskFullUntil,
      lies: () => clock.now < this.fsyncLiesUntil,
      writeMs: () => (this.disk.inMemory ? 0 : 1 + random() * 6),
      dies: (step) => this.#dies(life, step),
      wallNow: () => wallTime(this.#wallNow()),
    });
    return {
      time: {
        now: () => this.now(),
        wallNow: () => wallTime(this.#wallNow()),
        sleep: (ms, signal) =>
          new Promise((resolve) => {
            if (signal.aborted) return resolve();
            const end = (): void => {
              signal.removeEventListener("abort", end);
              clock.cancel(timer);
              if (!life.dead) resolve();
            };
            const timer = clock.after(Math.max(1, Math.ceil(ms)), end); // Whole milliseconds, as the host's timers.
            signal.addEventListener("abort", end);
          }),
      },
      random,
      newToken: () => {
        tokens += 1;
        return `${this.name}-${life.number}-${tokens}`;
      },
      ec2: createSimEc2({
        engine: sim.engine,
        clock,
        instanceId: this.instanceId,
        clusterName: sim.clusterName,
        random,
        hooks,
      }),
      imds: createSimImds({ engine: sim.engine, clock, instanceId: this.instanceId, hooks }),
      kernel: kernelPort,
      runtime: {
        cachedSandboxes: () => during(false, () => this.runtime.cachedSandboxes()),
        netnsLives: (netns) => during(false, () => kernel.netnsLives(netns)),
        cordoned: () => clock.now < this.cordonedUntil,
      },
      save,
      log: (event) => {
        if (!life.dead) this.#logged(life, event);
      },
      observed: (fact) => {
        if (life.dead) return;
        this.watch.observed(fact);
      },
    };
  }

  #wallNow(): number {
    return WALL_EPOCH + this.sim.clock.now + this.wallSkewMs;
  }

  #logged(life: Life, event: AgentEvent): void {
    this.watch.logged(life, event);
    if (this.sim.tracing && event.level !== "debug") {
      const { level, message, ...fields } = event;
      this.trace(`${level}: ${message} ${JSON.stringify(fields)}`);
    }
  }

  /** Somebody else changed the kernel: netlink tells within a fraction of a second. */
  kernelEvent(): void {
    this.sim.clock.after(200, () => {
      this.life?.agent?.wakeRepair.call();
    });
  }

  // --- What the shims ask, as cni/dispatch.ts and daemon/handlers.ts serve it -----------------------------------------------

  arrive(): number {
    this.#arrivals += 1;
    return this.#arrivals;
  }

  serveAdd(
    life: Life,
    request: {
      readonly key: SandboxKey;
      readonly netnsPath: string;
      readonly requestId: string;
      readonly arrival: number;
      readonly budgetMs: number;
      readonly stop: SimStop;
    },
  ): Promise<Result<Allocation, NodeError>> {
    const { agent } = life;
    if (agent === null) return never();
    const { key, netnsPath, requestId, arrival, stop } = request;
    const cancelled: Result<Allocation, NodeError> = err({
      code: "cancelled",
      detail: "a DEL came, or the shim died",
    });
    const began = agent.ports.time.now();
    const deadline = after(began, Math.min(request.budgetMs - ANSWER_MS, ADD_HOLD_MS));
    const place = { leave: () => {}, take: async () => {} };
    return this.#watched(life, async () => {
      const added = await life.operations.add(
        { key: sandboxId(key), id: requestId, arrival, stop },
        async () => {
          const pod = { namespace: "default", name: key.containerId };
          const outcome = await addSandbox(
            agent,
            { key, netnsPath, pod, requestId, deadline, place },
            stop.signal,
          );
          if (!outcome.ok || stop.signal.reason !== "shim-gone") return outcome;
          const undone = await deleteSandbox(agent, key);
          if (undone.ok) await undone.value?.linkGone;
          return cancelled;
        },
      );
      return added ?? cancelled;
    });
  }

  serveDel(life: Life, key: SandboxKey, arrival: number): Promise<Result<null, NodeError>> {
    const { agent } = life;
    if (agent === null) return never();
    return this.#watched(life, async () => {
      return await life.operations.del(sandboxId(key), arrival, async () => {
        const deleted = await deleteSandbox(agent, key);
        const settled = deleted.ok ? (deleted.value?.linkGone ?? Promise.resolve()) : Promise.resolve();
        return { answer: deleted.ok ? ok(null) : deleted, settled };
      });
    });
  }

  serveGc(life: Life, alive: readonly SandboxKey[]): Promise<Result<number, NodeError>> {
    const { agent } = life;
    if (agent === null) return never();
    return this.#watched(life, () => collectGarbage(agent, this.runtime.network, alive));
  }

  /** A dead daemon answers nobody; one that broke a promise dies of it. */
  async #watched<T>(life: Life, work: () => Promise<T>): Promise<T> {
    try {
      const answer = await work();
      return life.dead ? await never() : answer;
    } catch (cause) {
      this.#guard(life, Promise.reject(cause));
      return await never();
    }
  }
}
