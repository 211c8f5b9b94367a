/** Start: read four truths, let `core/reconcile/recover` make one state of them, put the kernel right. Then the socket may open. */
import type { Ec2Failure, EniSeen, Imds, ImdsEni } from "../core/model/ec2.ts";
import type { AttachmentId, SubnetId } from "../core/model/eni.ts";
import type { Instance, InstanceLimits } from "../core/model/instance.ts";
import { diffHost } from "../core/plumbing/diff.ts";
import { planHost } from "../core/plumbing/host.ts";
import { NODE_SYSCTLS } from "../core/plumbing/node-host.ts";
import type { HostSeen } from "../core/plumbing/object.ts";
import { LOOK_OPERATION } from "../core/pool/obstacles.ts";
import type { PoolSettings } from "../core/pool/targets.ts";
import { OWNER_TAG } from "../core/model/eni-names.ts";
import { callInDoubt, obstacleMet } from "../core/state/transitions.ts";
import { ownRecord, recoverNode, type CachedSandbox, type Remembered } from "../core/reconcile/recover.ts";
import type { Cidr4 } from "../lib/ip.ts";
import { backoffMs, MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import { createAgent, type Agent } from "./agent.ts";
import { LinkedSignal } from "./linked-signal.ts";
import { blindness } from "./look.ts";
import type { AbortSignalLike, AgentSettings, Ports } from "./ports.ts";
import { ensurePacketFilter, removeOrphans, repairHost } from "./repair.ts";

/** How often EC2 is asked at start before IMDS is believed instead. Pods with warm addresses should not wait for EC2's bad day. */
const EC2_TRIES_AT_START = 3;
/** And for how long: an EC2 that hangs takes a whole deadline for each try. */
const EC2_WAIT_AT_START_MS = 10 * SECOND_MS;

export type StartOptions = {
  readonly ports: Ports;
  readonly settings: AgentSettings;
  readonly pool: PoolSettings;
  readonly limitsOf: (type: string) => InstanceLimits | null;
  readonly remembered: Remembered | null;
  readonly signal: AbortSignalLike;
};

/** Null when stopped before it had an answer. Waits for IMDS as long as it takes, and says so: without it we do not know who we are. */
export async function recover(options: StartOptions): Promise<Agent | null> {
  const { ports, settings } = options;
  const instance = await readInstance(options);
  if (instance === null) return null;
  const [listed, described] = await Promise.all([ports.imds.readEnis(), describeAtStart(options, instance)]);
  const imdsEnis = listed.ok ? listed.value : [];
  const enis =
    described.enis ??
    imdsEnis
      .filter((eni) => speaksFor(ownRecord(options.remembered, instance), eni, instance))
      .map((eni) => seenFromImds(eni, instance));
  if (described.enis === null)
    ports.log({
      level: "error",
      message: "ec2 could not be asked at start: imds is believed until it can",
      failure: described.failure,
    });
  const host = await observeHost(options);
  if (host === null) return null;
  const truths = {
    instance,
    enis,
    subnetCidrs: await subnetCidrs(ports, imdsEnis, enis),
    remembered: options.remembered,
    host,
    cached: cachedSandboxes(ports),
    netnsLives: ports.runtime.netnsLives,
  };
  const { manageUntagged, podMtu, cooldownMs } = settings;
  const rules = {
    manageUntagged,
    podMtu,
    cooldownMs,
    hostLinkPrefix: settings.plumbing.hostLinkPrefix,
    dataPath: settings.plumbing.dataPath,
  };
  const recovered = recoverNode(truths, rules, ports.time.now(), ports.time.wallNow());
  for (const { what, ...fields } of recovered.notes) ports.log({ level: "info", message: what, ...fields });
  // What IMDS told is good enough for pods, not for changing EC2: that is looked at before anything is asked of it.
  const now = ports.time.now();
  const unseen = { operation: LOOK_OPERATION, eni: null, since: now };
  let { state } = recovered;
  if (described.enis === null) {
    state = obstacleMet(state, blindness(described.failure, now));
    if (state.inDoubt === null) state = callInDoubt(state, unseen);
  }
  const agent = createAgent(ports, settings, options.pool, state);
  if (recovered.found > 0) {
    // A link that nobody answers for may bear one of the free addresses. It goes first, for their rest is written down as of now.
    await removeOrphans(agent, diffHost(planHost(state, host.links, settings.plumbing).desired, host));
    const saved = await ports.save(agent.cell.state);
    if (!saved.ok)
      ports.log({ level: "error", message: "found sandboxes could not be written down", error: saved.error });
  }
  await putKernelRight(agent);
  return agent;
}

/** A kernel short of memory for a moment is no reason to die; what it holds must be known before anything is given out. */
async function observeHost({ ports, signal }: StartOptions): Promise<HostSeen | null> {
  for (let attempt = 0; !signal.aborted; attempt += 1) {
    const seen = ports.kernel.observe();
    if (seen.ok) return seen.value;
    ports.log({
      level: attempt < 3 ? "warn" : "error",
      message: "not ready: the kernel could not be looked at",
      ...seen.error,
    });
    await ports.time.sleep(backoffMs(attempt, ports.random(), { baseMs: 100, maxMs: 10_000 }), signal);
  }
  return null;
}

async function putKernelRight(agent: Agent): Promise<void> {
  const { ports } = agent;
  for (const { step, errno, detail } of ports.kernel.ensureSysctls(NODE_SYSCTLS)) {
    ports.log({ level: "error", message: "a sysctl is not as pods need it", step, errno, detail });
  }
  const filter = ensurePacketFilter(agent); // A process; the netlink work runs beside it.
  const repaired = repairHost(agent);
  if (repaired.done.length > 0)
    ports.log({ level: "info", message: "kernel put right", changes: repaired.done.length });
  await filter;
}

async function readInstance(options: StartOptions): Promise<Instance | null> {
  const { ports, signal } = options;
  for (let attempt = 0; !signal.aborted; attempt += 1) {
    const told = await tellInstance(options, ports.imds);
    if ("instance" in told) return told.instance;
    const waitMs = backoffMs(attempt, ports.random(), { baseMs: 200, maxMs: 10_000 });
    ports.log({
      level: attempt < 3 ? "warn" : "error",
      message: "not ready: the instance is not known yet",
      detail: told.problem,
      waitMs,
    });
    await ports.time.sleep(waitMs, signal);
  }
  return null;
}

async function tellInstance(
  options: StartOptions,
  imds: Imds,
): Promise<{ readonly instance: Instance } | { readonly problem: string }> {
  const told = await imds.readInstance();
  if (!told.ok) return { problem: `IMDS: ${told.error.kind} at ${told.error.path}: ${told.error.detail}` };
  const known = options.limitsOf(told.value.type);
  if (known !== null) return { instance: { ...told.value, limits: known } };
  const described = await options.ports.ec2.describeInstanceLimits(told.value.type);
  if (described.ok) return { instance: { ...told.value, limits: described.value } };
  return {
    problem: `instance type ${told.value.type} is in no table, and EC2 says: ${described.error.code}: ${described.error.message}`,
  };
}

type StartLook =
  | { readonly enis: readonly EniSeen[] }
  | { readonly enis: null; readonly failure: Ec2Failure };

async function describeAtStart(options: StartOptions, instance: Instance): Promise<StartLook> {
  const { time } = options.ports;
  const alarm = new LinkedSignal(options.signal);
  const message = `no good answer within ${EC2_WAIT_AT_START_MS / SECOND_MS} s`;
  const late = time
    .sleep(EC2_WAIT_AT_START_MS, alarm)
    .then(() => ({ enis: null, failure: failureAtStart("Timeout", message) }));
  const looked = await Promise.race([tryDescribe(options, instance, alarm), late]);
  alarm.end(); // Of the one that lost, too: it tries no more.
  return looked;
}

async function tryDescribe(
  options: StartOptions,
  instance: Instance,
  signal: AbortSignalLike,
): Promise<StartLook> {
  const { ports } = options;
  let failure = failureAtStart("Stopped", "the daemon was stopped before it was answered");
  for (let attempt = 0; attempt < EC2_TRIES_AT_START && !signal.aborted; attempt += 1) {
    const described = await ports.ec2.describeInstanceEnis(instance.id);
    if (described.ok && described.value.some((eni) => eni.mac === instance.primaryMac))
      return { enis: described.value };
    failure = described.ok ? failureAtStart("NoPrimaryEni", "it lists no primary ENI yet") : described.error;
    ports.log({ level: "warn", message: "ec2 has no good answer at start", failure });
    await ports.time.sleep(backoffMs(attempt, ports.random(), { baseMs: 500, maxMs: MINUTE_MS }), signal);
  }
  return { enis: null, failure };
}

function failureAtStart(code: string, message: string): Ec2Failure {
  return { kind: "failing", operation: LOOK_OPERATION, code, message, requestId: null };
}

/**
 * IMDS tells no tags: an ENI that is not ours looks like one that is. So a secondary one is used on IMDS's word only if our own record
 * knows it, or if there is no record and its pods' links must be read somehow. EC2 tells of the others later.
 */
function speaksFor(remembered: Remembered | null, eni: ImdsEni, instance: Instance): boolean {
  if (remembered === null || eni.mac === instance.primaryMac) return true;
  const { allocations, cooling, leaving } = remembered;
  return [...allocations, ...cooling, ...leaving].some((each) => each.eni === eni.id);
}

/** What IMDS knows of an ENI, in EC2's words. Tags it does not know: such an ENI is used, but not detached until EC2 was asked. */
function seenFromImds(eni: ImdsEni, instance: Instance): EniSeen {
  const [primaryIp, ...secondaryIps] = eni.localIps;
  return {
    id: eni.id,
    mac: eni.mac,
    status: "in-use",
    subnetId: eni.subnetId,
    description: "",
    interfaceType: "interface",
    requesterManaged: false,
    securityGroups: eni.securityGroups,
    tags: new Map(eni.mac === instance.primaryMac ? [[OWNER_TAG, instance.id]] : []),
    primaryIp: primaryIp ?? null,
    secondaryIps,
    prefixes: eni.prefixes,
    attachment: {
      id: "" as AttachmentId, // Not IMDS's to tell, and not needed for an ENI that is never detached.
      instanceId: instance.id,
      slot: eni.slot,
      status: "attached",
      deleteOnTermination: true,
    },
  };
}

async function subnetCidrs(
  ports: Ports,
  imdsEnis: readonly ImdsEni[],
  enis: readonly EniSeen[],
): Promise<ReadonlyMap<SubnetId, Cidr4>> {
  const cidrs = new Map(imdsEnis.map((eni) => [eni.subnetId, eni.subnetCidr]));
  const missing = [...new Set(enis.map((eni) => eni.subnetId))].filter((id) => !cidrs.has(id));
  if (missing.length === 0) return cidrs;
  const described = await ports.ec2.describeSubnets(missing);
  if (described.ok) for (const subnet of described.value) cidrs.set(subnet.id, subnet.cidr);
  return cidrs;
}

function cachedSandboxes(ports: Ports): readonly CachedSandbox[] {
  const cached = ports.runtime.cachedSandboxes();
  if (!cached.ok) {
    ports.log({ level: "warn", message: "libcni's cache could not be read", detail: cached.error });
    return [];
  }
  return cached.value.map(({ key, ips, netnsPath }) => {
    const netns = netnsPath === null || netnsPath === "" ? null : ports.kernel.lookAtNetns(netnsPath);
    return { key, ips, netns: netns?.ok === true ? netns.value : null };
  });
}
