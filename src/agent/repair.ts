/**
 * The kernel loop: observe → difference → apply. It makes an ENI ready once its link has come, and puts back within seconds
 * what others delete or flush. Woken by netlink events; events come in bursts (each pod makes some), so it paces itself.
 */
import { linkOfEni } from "../core/plumbing/eni-host.ts";
import { diffHost } from "../core/plumbing/diff.ts";
import { planHost } from "../core/plumbing/host.ts";
import type { KernelOp, LinkSeen } from "../core/plumbing/object.ts";
import { packetFilter, printPacketFilter } from "../core/plumbing/packet-filter.ts";
import { renderOp } from "../core/plumbing/render.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { eniLinkLost, eniReady, instanceChanged } from "../core/state/transitions.ts";
import { printCidr4 } from "../lib/ip.ts";
import { after, type Instant, SECOND_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";
import type { Job } from "./loop.ts";
import { replumbLost } from "./sweep-sandboxes.ts";

/** A whole look costs up to 0.1 s of the main thread beside 1,000 pods, so it is taken at most this often. */
const REPAIR_PACE_MS = 2 * SECOND_MS;
/** A pod cannot start meanwhile. */
const FILTER_RETRY_MS = 5 * SECOND_MS;
/** While a link is awaited, the links alone are looked at this often at first, then ever more slowly. */
const LINK_POLL_MS = { first: 20, most: 500 } as const;

/** A link that was there and went is back in a moment, or its ENI was detached: pods do not wait for it as for a new one. */
const LOST_LINK_WAIT_MS = 2 * SECOND_MS;

type Memory = { nextWhole: Instant; polls: number; primaryLink: string | null };

export function repairJob(agent: Agent): Job {
  const memory: Memory = {
    nextWhole: after(agent.ports.time.now(), REPAIR_PACE_MS),
    polls: 0,
    primaryLink: null,
  };
  return {
    name: "repair",
    wake: agent.wakeRepair,
    run: async () => await Promise.resolve(repair(agent, memory)),
  };
}

function repair(agent: Agent, memory: Memory): number {
  const { ports, cell, settings } = agent;
  const now = ports.time.now();
  const awaited = awaitsLink(cell.state);
  if (!awaited) memory.polls = 0;
  if (now >= memory.nextWhole || (awaited && linkHasCome(agent))) {
    followPrimary(agent, memory, repairHost(agent).primaryLink);
    memory.nextWhole = after(ports.time.now(), REPAIR_PACE_MS);
    if (!awaitsLink(cell.state)) return settings.repairIntervalMs; // The look may have found that one is gone.
  } else if (!awaited) return memory.nextWhole - now; // Woken early: the look is owed.
  memory.polls += 1;
  return Math.min(LINK_POLL_MS.first * 2 ** Math.min(memory.polls >> 3, 8), LINK_POLL_MS.most);
}

function awaitsLink(state: NodeState): boolean {
  return [...state.enis.values()].some((eni) => eni.phase.kind === "awaiting-link");
}

/** The packet filter names the primary ENI's link, so it is written anew once udev or a person has renamed that. */
function followPrimary(agent: Agent, memory: Memory, name: string | null): void {
  if (name === null) return;
  if (memory.primaryLink !== null && memory.primaryLink !== name) agent.wakeFilter.call();
  memory.primaryLink = name;
}

/** The whole of it, at once. In the answer: what was changed, what the kernel refused, and what the primary ENI's link is called now. */
export function repairHost(agent: Agent): {
  readonly done: readonly KernelOp[];
  readonly failed: number;
  readonly primaryLink: string | null;
} {
  const { ports, cell, settings } = agent;
  const seen = ports.kernel.observe();
  if (!seen.ok) {
    ports.log({ level: "error", message: "the kernel could not be looked at", ...seen.error });
    return { done: [], failed: 1, primaryLink: null };
  }
  ports.observed({ kind: "looked", at: "kernel" });
  const plan = planHost(cell.state, seen.value.links, settings.plumbing);
  const ops = diffHost(plan.desired, seen.value).filter(
    (op) => op.verb !== "delete-link" || !agent.departures.isLeaving(op.name),
  );
  const failures = ports.kernel.apply(ops.filter((op) => op.verb !== "delete-link"));
  for (const failure of failures) {
    const { errno, detail } = failure;
    ports.log({
      level: "warn",
      message: "the kernel refused a repair",
      op: renderOp(failure.op),
      errno,
      detail,
    });
  }
  void removeOrphans(agent, ops);
  for (const { sandbox, link } of plan.halfMadeLinks)
    if (!agent.beingAdded.has(sandbox) && !agent.departures.isLeaving(link)) void removeHalfMade(agent, link);
  replumbLost(agent, seen.value.links);
  noteLinks(agent, seen.value.links, new Set(plan.linklessEnis));
  const primaryLink = linkOfEni(seen.value.links, cell.state.instance.primaryMac)?.name ?? null;
  return { done: ops, failed: failures.length, primaryLink };
}

/** An ENI's addresses may be given out while its link is there and plumbed; not before, and not after. */
function noteLinks(agent: Agent, links: readonly LinkSeen[], linkless: ReadonlySet<string>): void {
  const { ports, cell } = agent;
  for (const eni of cell.state.enis.values()) {
    const there = !linkless.has(eni.id);
    if (there && eni.phase.kind === "awaiting-link") {
      cell.set(eniReady(cell.state, eni.id));
      const waitedMs = ports.time.now() - eni.phase.since;
      ports.log({
        level: "info",
        message: "eni ready",
        eni: eni.id,
        link: linkOfEni(links, eni.mac)?.name,
        waitedMs,
      });
      agent.waiting.serve();
      agent.wakeRefill.call();
    } else if (!there && eni.phase.kind === "ready") {
      const waitedMs = Math.max(0, agent.pool.linkWaitMs - LOST_LINK_WAIT_MS);
      cell.set(eniLinkLost(cell.state, eni.id, after(ports.time.now(), -waitedMs)));
      agent.wakeRefill.call();
      ports.log({ level: "error", message: "an eni's link is gone", eni: eni.id, mac: eni.mac });
    }
  }
}

function linkHasCome(agent: Agent): boolean {
  const links = agent.ports.kernel.observeLinks();
  if (!links.ok) return false;
  const awaited = [...agent.cell.state.enis.values()].filter((eni) => eni.phase.kind === "awaiting-link");
  return awaited.some((eni) => linkOfEni(links.value, eni.mac) !== null);
}

/** Links that are ours and no sandbox's. */
export async function removeOrphans(agent: Agent, ops: readonly KernelOp[]): Promise<void> {
  const names = ops.flatMap((op) => (op.verb === "delete-link" ? [op.name] : []));
  await Promise.all(names.map(async (name) => await removeOrphan(agent, name)));
}

async function removeOrphan(agent: Agent, name: string): Promise<void> {
  const { ports } = agent;
  const removed = await ports.kernel.deleteLink(name);
  if (!removed.ok)
    return ports.log({ level: "warn", message: "orphan link not removed", link: name, ...removed.error });
  ports.log({
    level: "info",
    message: "orphan link removed: its alias names no sandbox of ours",
    link: name,
  });
  ports.observed({ kind: "removed", what: "link", why: "orphan" });
}

/** Taken away, and then made anew whole: the next look finds its sandbox without a link. */
async function removeHalfMade(agent: Agent, name: string): Promise<void> {
  const { ports } = agent;
  const removed = await ports.kernel.deleteLink(name);
  if (!removed.ok)
    return ports.log({ level: "warn", message: "half-made link not removed", link: name, ...removed.error });
  ports.log({ level: "info", message: "half-made link removed", link: name });
  ports.observed({ kind: "removed", what: "link", why: "half-made" });
  agent.wakeRepair.call();
}

/** Our nft table: loaded at start, put back when somebody flushed it, loaded anew when the VPC's CIDRs change. */
export function filterJob(agent: Agent): Job {
  return {
    name: "packet-filter",
    wake: agent.wakeFilter,
    run: async () => {
      await followInstance(agent);
      const loaded = await ensurePacketFilter(agent);
      return loaded
        ? agent.settings.repairIntervalMs
        : Math.min(agent.settings.repairIntervalMs, FILTER_RETRY_MS);
    },
  };
}

/** A VPC can gain CIDRs while we run; traffic to them is not to be translated. IMDS tells, at no cost to EC2's budget. */
async function followInstance(agent: Agent): Promise<void> {
  const { ports, cell } = agent;
  const told = await ports.imds.readInstance();
  if (!told.ok || told.value.id !== cell.state.instance.id) return; // What we know stands until IMDS answers.
  const { instance } = cell.state;
  const [before, now] = [instance.vpcCidrs, told.value.vpcCidrs].map((cidrs) =>
    cidrs.map(printCidr4).join(" "),
  );
  if (before === now) return;
  cell.set(instanceChanged(cell.state, { ...instance, vpcCidrs: told.value.vpcCidrs }));
  ports.log({ level: "info", message: "the vpc's cidrs changed", before, now });
}

/** A kernel without ipvlan is told of aloud, and asked again later: its module may come. Until then no pod is started. */
function lookAtDataPath({ ports, settings, blocked }: Agent): boolean {
  const before = blocked.dataPath;
  blocked.dataPath =
    settings.plumbing.dataPath === "ipvlan" ? (ports.kernel.ipvlanMissing?.() ?? null) : null;
  if (blocked.dataPath !== null && before === null)
    ports.log({
      level: "error",
      message: "pods cannot be started: BERTH_DATA_PATH=ipvlan",
      detail: blocked.dataPath,
    });
  if (blocked.dataPath === null && before !== null)
    ports.log({ level: "info", message: "the kernel has ipvlan now" });
  return blocked.dataPath === null;
}

/** False when it could not be loaded, or the kernel lacks the data path: then no pod is started (`agent.blocked`). */
export async function ensurePacketFilter(agent: Agent): Promise<boolean> {
  const { ports, cell, settings, blocked } = agent;
  const capable = lookAtDataPath(agent);
  const links = ports.kernel.observeLinks();
  const primary = links.ok ? linkOfEni(links.value, cell.state.instance.primaryMac) : null;
  if (primary === null) {
    ports.log({
      level: "error",
      message: "the primary eni's link is not there",
      mac: cell.state.instance.primaryMac,
    });
    blocked.packetFilter = `the packet filter cannot be made: no link has the primary ENI's MAC ${cell.state.instance.primaryMac}`;
    return false;
  }
  const ipvlan =
    settings.plumbing.dataPath === "ipvlan" ||
    [...cell.state.allocations.values()].some((allocation) => allocation.ipvlan !== undefined);
  const text = printPacketFilter(packetFilter(cell.state.instance, primary.name, settings.plumbing, ipvlan));
  const loaded = await ports.kernel.ensurePacketFilter(text);
  if (!loaded.ok) {
    const { step, errno, detail } = loaded.error;
    ports.log({ level: "error", message: "the packet filter could not be loaded", step, errno, detail });
    blocked.packetFilter = `the packet filter could not be loaded: ${step}: ${errno} ${detail}`.trimEnd();
    return false;
  }
  blocked.packetFilter = null;
  if (loaded.value) {
    ports.log({ level: "info", message: "packet filter loaded" });
    ports.observed({ kind: "repaired", what: "packet-filter" });
  }
  return capable;
}
