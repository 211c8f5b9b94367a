/**
 * One node around the real agent: virtual time, EC2, kernel, runtime and disk, all in memory. The agent can be thrown away at any save or
 * EC2 call and begun anew from what the world still holds, the checkpoint's own text included.
 */
import { addSandbox, type AddRequest } from "../../src/agent/add-sandbox.ts";
import type { Agent } from "../../src/agent/agent.ts";
import { deleteSandbox, type Deleted } from "../../src/agent/delete-sandbox.ts";
import { keepRunning } from "../../src/agent/loop.ts";
import type { AgentEvent, AgentSettings, LiveSandbox, Observed, Ports } from "../../src/agent/ports.ts";
import { recover } from "../../src/agent/recover.ts";
import { refillJob } from "../../src/agent/refill.ts";
import { filterJob, repairJob } from "../../src/agent/repair.ts";
import { sandboxSweepJob } from "../../src/agent/sweep-sandboxes.ts";
import type { EniId } from "../../src/core/model/eni.ts";
import type { NodeError } from "../../src/core/model/error.ts";
import type { Instance, InstanceLimits } from "../../src/core/model/instance.ts";
import { sandboxId, type SandboxKey } from "../../src/core/model/sandbox.ts";
import { isFree } from "../../src/core/pool/cooldown.ts";
import { POOL_SETTINGS_DEFAULT, type PoolSettings } from "../../src/core/pool/targets.ts";
import type { Remembered } from "../../src/core/reconcile/recover.ts";
import { checkInvariants } from "../../src/core/state/invariants.ts";
import type { Allocation, NodeState } from "../../src/core/state/node-state.ts";
import type { Ipv4 } from "../../src/lib/ip.ts";
import { seededRandom } from "../../src/lib/random.ts";
import { err, ok, type Result } from "../../src/lib/result.ts";
import { after } from "../../src/lib/time.ts";
import { parseCheckpoint, printCheckpoint } from "../../src/store/checkpoint.ts";
import { createFakeEc2, type FakeEc2Options, SUBNET } from "./fake-ec2.ts";
import { createFakeKernel } from "./fake-kernel.ts";
import { instanceOf, M5_LARGE } from "./pool-world.ts";
import { createVirtualTime } from "./virtual-time.ts";

export const SETTINGS: AgentSettings = {
  cooldownMs: 30_000,
  plumbing: {
    dataPath: "routed",
    eniMtu: 9001,
    hostLinkPrefix: "eni",
    mainMark: 0x80,
    nodePort: true,
    snat: { ports: "prng", excludedCidrs: [] },
    externalServiceCidrs: [],
  },
  podMtu: 9001,
  repairIntervalMs: 30_000,
  sweepIntervalMs: 300_000,
  refillIntervalMs: 5_000,
  leakGraceMs: 300_000,
  obstacleMs: 120_000,
  provisioning: true,
  deleteLeakedEnis: true,
  manageUntagged: true,
  podSubnets: [],
  podSecurityGroups: [],
};

export type WorldOptions = {
  readonly limits?: InstanceLimits;
  readonly pool?: Partial<PoolSettings>;
  readonly settings?: Partial<AgentSettings>;
  readonly ec2?: Partial<Omit<FakeEc2Options, "instance">>;
  /** How long after its attach an ENI's link comes. Null: never. */
  readonly linkMs?: number | null;
  readonly seed?: string;
};

export type World = ReturnType<typeof createWorld>;

export function createWorld(options: WorldOptions = {}) {
  const clock = createVirtualTime();
  const instance: Instance = { ...instanceOf(options.limits ?? M5_LARGE), primarySubnet: SUBNET };
  const cloud = createFakeEc2(clock, { instance, ...options.ec2 });
  const host = createFakeKernel(clock);
  const settings = { ...SETTINGS, ...options.settings };
  const pool: PoolSettings = {
    ...POOL_SETTINGS_DEFAULT,
    warmEniTarget: 0,
    warmIpTarget: 3,
    cooldownMs: settings.cooldownMs,
    provisioning: settings.provisioning,
    ...options.pool,
  };
  const cache = new Map<string, LiveSandbox>();
  const logs: AgentEvent[] = [];
  const facts: Observed[] = [];
  const saves: NodeState[] = [];
  const broken: string[] = []; // Invariants that did not hold of some state that was saved, and jobs that threw.
  const disk = { text: null as string | null, bootId: "boot-1" };
  const random = seededRandom(options.seed ?? "agent");
  let tokens = 0;
  let saveFaults = 0;
  let cordoned = false;
  let spiedNetns = host.netnsLives;
  let savesHang = false;
  let spiedLinks = host.kernel.observeLinks;
  /** Each life's ports die with it: what a dead agent still does, does nothing. */
  let life = { stop: new AbortController(), dead: false };
  let [crashAfter, points] = [Infinity, 0];

  host.addLink({ name: "ens5", mac: instance.primaryMac, mtu: 9001, up: true });
  cloud.onAttach((eni) => {
    if (options.linkMs === null) return;
    clock.schedule(options.linkMs ?? 1_500, () => {
      if (eni.attachment?.detachedAt === null) host.addLink({ name: `ens${eni.id.slice(4)}`, mac: eni.mac });
    });
  });
  cloud.onDetach((eni) => clock.schedule(1_000, () => host.dropLink(`ens${eni.id.slice(4)}`)));

  const never = new Promise<never>(() => undefined);
  /** A place where the process may die: the nth of them, counted over all lives, is the last. */
  const point = async (): Promise<void> => {
    const own = life;
    points += 1;
    if (points > crashAfter && !own.dead) crash();
    await (own.dead ? never : undefined);
  };
  const crash = (): void => {
    life.dead = true;
    life.stop.abort();
  };
  cloud.setAround(async () => await point());

  const portsOf = (own: typeof life): Ports => ({
    time: {
      ...clock.time,
      sleep: async (ms, signal) => await (own.dead ? never : clock.time.sleep(ms, signal)),
    },
    random,
    newToken: () => `token-${(tokens += 1)}`,
    ec2: cloud.ec2,
    imds: cloud.imds,
    kernel: { ...host.kernel, observeLinks: () => spiedLinks() },
    runtime: {
      cachedSandboxes: () => ok([...cache.values()]),
      netnsLives: (netns) => spiedNetns(netns),
      cordoned: () => cordoned,
    },
    save: async (state) => {
      await point();
      await (savesHang ? never : undefined);
      broken.push(...checkInvariants(state));
      if (saveFaults > 0) {
        saveFaults -= 1;
        const error: NodeError = { code: "checkpoint-unwritable", path: "/x", detail: "scripted" };
        return err(error);
      }
      saves.push(state);
      disk.text = printCheckpoint(state, { bootId: disk.bootId, savedAt: clock.wallNow() });
      await point();
      return ok(null);
    },
    log: (event) => void logs.push(event),
    observed: (fact) => void facts.push(fact),
  });

  const remembered = (): Remembered | null => {
    if (disk.text === null) return null;
    const parsed = parseCheckpoint(disk.text);
    if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
    const { bootId, allocations, cooling, leaving, loose, creation } = parsed.value;
    return { sameBoot: bootId === disk.bootId, allocations, cooling, leaving, loose, creation };
  };

  /** Recovers; no loop runs yet. */
  const start = async (): Promise<Agent> => {
    life = { stop: new AbortController(), dead: false };
    let agent: Agent | null = null;
    void recover({
      ports: portsOf(life),
      settings,
      pool,
      limitsOf: () => instance.limits,
      remembered: remembered(),
      signal: life.stop.signal,
    }).then((begun) => {
      agent = begun;
    });
    const { dead } = life;
    await clock.advanceUntil(() => agent !== null || dead);
    if (agent === null) throw new Error("the agent did not start");
    return agent;
  };

  /** All loops of the daemon, until the agent is thrown away. */
  const run = (agent: Agent): void => {
    const { signal } = life.stop;
    const jobs = [refillJob(agent), repairJob(agent), filterJob(agent), sandboxSweepJob(agent)];
    for (const job of jobs) {
      keepRunning(job, agent.ports.time, signal).catch((cause: unknown) => {
        broken.push(`${job.name} ended: ${String(cause)}`); // A broken promise ends the process.
        crash();
      });
    }
  };

  const request = (name: string, change: Partial<AddRequest> = {}): AddRequest => ({
    key: keyOf(name),
    netnsPath: pathOf(name),
    pod: { namespace: "default", name },
    requestId: `request-${name}`,
    deadline: after(clock.now(), 20_000),
    place: { leave: () => undefined, take: async () => await Promise.resolve() },
    ...change,
  });

  /** An ADD as a runtime makes it, a namespace and a cache entry included. The answer is there once time has passed. */
  const add = (
    agent: Agent,
    name: string,
    change: Partial<AddRequest> = {},
  ): Pending<Result<Allocation, NodeError>> => {
    if (!host.kernel.lookAtNetns(pathOf(name)).ok) host.addNetns(pathOf(name));
    const stop = new AbortController();
    const added = addSandbox(agent, request(name, change), stop.signal);
    const pending = follow(added, stop);
    void added.then((answer) => {
      if (!answer.ok) return;
      const { key, ip, netns } = answer.value;
      cache.set(name, { key, netnsPath: netns.path, ips: [ip], source: "libcni-cache" });
    });
    return pending;
  };

  /** A pod's end: DEL, then its namespace and cache entry go. */
  const del = (agent: Agent, name: string): Pending<Result<Deleted, NodeError>> => {
    const deleted = deleteSandbox(agent, keyOf(name));
    void deleted.then(() => {
      cache.delete(name);
    });
    return follow(deleted, new AbortController());
  };

  return {
    clock,
    instance,
    cloud,
    host,
    settings,
    pool,
    cache,
    logs,
    facts,
    saves,
    disk,
    broken,
    start,
    /** For a start of the test's own making. */
    ports: (): Ports => portsOf(life),
    run,
    /** Recovered and running. */
    startRunning: async (): Promise<Agent> => {
      const agent = await start();
      run(agent);
      return agent;
    },
    crash,
    isDead: () => life.dead,
    /** The process dies at the nth save or EC2 call from now; each has one such point before and one after it. */
    crashAtPoint: (nth: number): void => {
      [points, crashAfter] = [0, nth - 1];
    },
    crashNoMore: (): void => {
      crashAfter = Infinity;
    },
    cordon: (on: boolean): void => {
      cordoned = on;
    },
    failSaves: (times: number): void => {
      saveFaults = times;
    },
    reboot: (): void => {
      crash();
      host.reboot();
      disk.bootId = `${disk.bootId}+`;
    },
    request,
    add,
    del,
    /** Stands between the agent and the cheap look at links. */
    spyOnLinks: (spy: typeof spiedLinks): void => {
      spiedLinks = spy;
    },
    spyOnNetns: (spy: typeof spiedNetns): void => {
      spiedNetns = spy;
    },
    holdSaves: (on: boolean): void => {
      savesHang = on;
    },
    /** For what takes its time. */
    pause: async (ms: number): Promise<void> => await clock.time.sleep(ms, new AbortController().signal),
    messages: (): string[] => logs.map((each) => each.message),
  };
}

export type Pending<T> = {
  readonly answer: () => T | null;
  readonly abort: () => void;
  readonly promise: Promise<T>;
};

function follow<T>(promise: Promise<T>, stop: AbortController): Pending<T> {
  let settled: T | null = null;
  void promise.then((value) => {
    settled = value;
  });
  return { answer: () => settled, abort: () => stop.abort(), promise };
}

export function keyOf(name: string): SandboxKey {
  return { network: "net", containerId: name, ifName: "eth0" };
}

export function idOf(name: string): ReturnType<typeof sandboxId> {
  return sandboxId(keyOf(name));
}

export function pathOf(name: string): string {
  return `/run/netns/${name}`;
}

/**
 * What differs between the agent's belief and EC2's truth, and what is left behind: each a sentence, none when all is well. Sandboxes whose
 * addresses are given twice, or not on their ENI, are told of too.
 */
export function disagreements(world: World, agent: Agent): string[] {
  const { state } = agent.cell;
  const told: string[] = [...checkInvariants(state), ...world.broken];
  const truth = new Map(world.cloud.truth().map((eni) => [eni.id, eni]));
  for (const eni of truth.values()) {
    const ours = eni.tags.get("node.k8s.amazonaws.com/instance_id") === world.instance.id;
    if (eni.attachment === null) {
      if (ours) told.push(`${eni.id} hangs on nothing`);
      continue;
    }
    const believed = state.enis.get(eni.id);
    const foreign = state.foreign.some((each) => each.id === eni.id);
    if (believed === undefined && !foreign) told.push(`${eni.id} is attached and unknown`);
    if (believed === undefined) continue;
    const listed = new Set<Ipv4>(eni.secondaryIps);
    const held = [...believed.addresses.values()].filter((each) => each.by === "secondary");
    for (const { ip } of held) if (!listed.has(ip)) told.push(`${ip} is believed to be on ${eni.id}`);
    for (const ip of listed) if (!believed.addresses.has(ip)) told.push(`${ip} on ${eni.id} is unknown`);
    if (believed.prefixes.length !== eni.prefixes.length) told.push(`prefixes of ${eni.id} differ`);
    for (const each of held) if (each.kind === "leaving") told.push(`${each.ip} is still leaving`);
  }
  for (const id of state.enis.keys()) if (!truth.has(id)) told.push(`${id} is believed to exist`);
  for (const id of state.loose.keys()) told.push(`${id} is still loose`);
  if (state.creation !== null) told.push("a creation is open");
  if (state.inDoubt !== null) told.push(`${state.inDoubt.operation} is in doubt`);
  return told;
}

/** What may be given out now. */
export function warmOf(agent: Agent): Ipv4[] {
  const now = agent.ports.time.now();
  return [...agent.cell.state.enis.values()].flatMap((eni) =>
    eni.phase.kind !== "ready"
      ? []
      : [...eni.addresses.values()].filter((each) => isFree(each, now)).map((each) => each.ip),
  );
}

export function kindOf(agent: Agent, ip: Ipv4): string | null {
  for (const eni of agent.cell.state.enis.values()) {
    const address = eni.addresses.get(ip);
    if (address !== undefined) return address.kind;
  }
  return null;
}

export function secondaryEnis(agent: Agent): EniId[] {
  return [...agent.cell.state.enis.values()].filter((eni) => eni.role === "secondary").map((eni) => eni.id);
}
