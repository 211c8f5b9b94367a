/** ADD: an address (at once, or waited for) → record → save → plumb → answer, or all undone. */
import { delegatedObjects } from "../core/plumbing/delegated.ts";
import { ipvlanPathOf } from "../core/plumbing/ipvlan.ts";
import { routesToRouted, sandboxPlumbing } from "../core/plumbing/sandbox.ts";
import { hostLinkName, sandboxMac } from "../core/plumbing/names.ts";
import type { NodeError } from "../core/model/error.ts";
import { sandboxId, type NetnsRef, type PodName, type SandboxKey } from "../core/model/sandbox.ts";
import type { Allocation } from "../core/state/node-state.ts";
import { addressReleased } from "../core/state/transitions.ts";
import { whyNoAddress } from "../core/pool/why.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { after, type Instant } from "../lib/time.ts";
import { blockedBy, type Agent } from "./agent.ts";
import type { AbortSignalLike } from "./ports.ts";
import type { MakeAllocation } from "./waiting-room.ts";

export type AddRequest = {
  readonly key: SandboxKey;
  readonly netnsPath: string;
  readonly pod: PodName | null;
  /** Another plugin's `type`: it makes the links, and asks us for an address alone. */
  readonly plumbedBy?: string;
  readonly requestId: string;
  readonly deadline: Instant;
  /** The ADD's place among the workers: left while it waits for an address, so that a held ADD holds nobody up. */
  readonly place: { readonly leave: () => void; readonly take: () => Promise<void> };
};

/**
 * Gives the sandbox an address and makes its links and routes.
 *
 * - A repeated request (same request id: the shim lost its answer) gets the same allocation again, once it is seen to be whole.
 * - `signal` is aborted when the shim is gone or a DEL came: what was done is undone, and `cancelled` is the answer.
 * - On every error the address is released and nothing stays in the kernel.
 */
export async function addSandbox(
  agent: Agent,
  request: AddRequest,
  signal: AbortSignalLike,
): Promise<Result<Allocation, NodeError>> {
  const { ports, cell } = agent;
  const netns = ports.kernel.lookAtNetns(request.netnsPath);
  if (!netns.ok) return netns;
  const id = sandboxId(request.key);
  agent.beingAdded.add(id);
  try {
    const known = cell.state.allocations.get(id);
    if (known !== undefined) return await answerAgain(agent, known, request);
    return await addAnew(agent, request, netns.value, signal);
  } finally {
    agent.beingAdded.delete(id);
  }
}

async function addAnew(
  agent: Agent,
  request: AddRequest,
  netns: NetnsRef,
  signal: AbortSignalLike,
): Promise<Result<Allocation, NodeError>> {
  const { ports, cell } = agent;
  // Without its packet filter a pod of a secondary ENI would send into the void, and none would reach the internet.
  const blocked = blockedBy(agent);
  if (blocked !== null) return err({ code: "not-ready", detail: blocked });
  await agent.departures.wait(netns, request.key.ifName);
  if (agent.record.behind) {
    // Of a full disk nobody gets an address: each try would take one from the pool, which would ask EC2 for another and give it back.
    const written = await ports.save(cell.state);
    if (!written.ok) return written;
  }
  const chosen = await addressFor(agent, request, netns, signal); // At once, or held; in the state when it returns.
  if (!chosen.ok) return chosen;
  const saved = await ports.save(cell.state); // Written down before it is real, so that a crash here leaks nothing for long.
  if (!saved.ok) return await undone(agent, chosen.value, saved.error, "never-used");
  if (signal.aborted) return await undone(agent, chosen.value, cancelled(), "never-used");
  const plumbed = plumb(agent, netns, chosen.value);
  if (!plumbed.ok) return await undone(agent, chosen.value, plumbed.error, "plumbed");
  introduce(agent, chosen.value);
  return ok(chosen.value);
}

function plumb({ ports, cell }: Agent, netns: NetnsRef, allocation: Allocation): Result<unknown, NodeError> {
  if (allocation.plumbedBy === undefined)
    return ports.kernel.plumbSandbox(netns, sandboxPlumbing(allocation, cell.state));
  const objects = delegatedObjects(allocation);
  const [refused] = ports.kernel.apply(objects.map((object) => ({ verb: "put" as const, object })));
  if (refused === undefined) return ok(null);
  ports.kernel.apply(objects.map((object) => ({ verb: "delete" as const, object })));
  return err({ code: "kernel-refused", step: refused.step, errno: refused.errno, detail: refused.detail });
}

/** On a node that went from ipvlan to routed, the ipvlan pods of the same ENI learn the way to the new one. */
function introduce({ ports, cell }: Agent, newcomer: Allocation): void {
  for (const { allocation, routes } of routesToRouted(newcomer, cell.state)) {
    const failed = ports.kernel.putInside?.(allocation.netns, routes) ?? null;
    if (failed !== null)
      ports.log({
        level: "warn",
        message: "an ipvlan pod did not learn the way to a routed one",
        sandbox: allocation.id,
        ip: newcomer.ip,
        ...failed,
      });
  }
}

async function addressFor(
  agent: Agent,
  request: AddRequest,
  netns: NetnsRef,
  signal: AbortSignalLike,
): Promise<Result<Allocation, NodeError>> {
  const make = allocationMaker(agent, request, netns);
  const atOnce = agent.waiting.take(request.key, make);
  if (atOnce !== null) return ok(atOnce);
  const began = agent.ports.time.now();
  request.place.leave();
  const waited = await agent.waiting.wait(request.key, make, request.deadline, signal);
  await request.place.take();
  if (waited.kind === "allocated") return ok(waited.allocation);
  if (waited.by === "signal") return err(cancelled());
  const now = agent.ports.time.now();
  return err({
    code: "no-address",
    ...whyNoAddress(agent.cell.state, agent.pool, now),
    waitedMs: now - began,
  });
}

function allocationMaker(agent: Agent, request: AddRequest, netns: NetnsRef): MakeAllocation {
  const id = sandboxId(request.key);
  return (eni, address) => ({
    id,
    key: request.key,
    pod: request.pod,
    netns,
    ip: address.ip,
    eni: eni.id,
    eniSlot: eni.slot,
    hostLink: hostLinkName(agent.settings.plumbing.hostLinkPrefix, id),
    hostMac: sandboxMac("host", id),
    podMac: sandboxMac("pod", id),
    mtu: agent.settings.podMtu,
    // Written down with the address: whatever the setting becomes, this pod keeps its path.
    ...(request.plumbedBy === undefined ? {} : { plumbedBy: request.plumbedBy }),
    ...(agent.settings.plumbing.dataPath === "ipvlan" && request.plumbedBy === undefined
      ? { ipvlan: ipvlanPathOf(eni, agent.cell.state.instance) }
      : {}),
    requestId: request.requestId,
    since: agent.ports.time.wallNow(),
  });
}

/**
 * An address that was plumbed, if only in part, cools down. One that was never used does not: on a full disk each try would wear
 * one out, and the pool would grow to its limit for pods that cannot start.
 */
async function undone(
  agent: Agent,
  allocation: Allocation,
  error: NodeError,
  use: "never-used" | "plumbed",
): Promise<Result<Allocation, NodeError>> {
  const { ports, cell, settings } = agent;
  const restMs = use === "never-used" ? 0 : settings.cooldownMs;
  cell.set(addressReleased(cell.state, allocation.id, after(ports.time.now(), restMs)));
  const saved = await ports.save(cell.state);
  if (!saved.ok)
    ports.log({
      level: "warn",
      message: "release not written down",
      sandbox: allocation.id,
      error: saved.error,
    });
  return err(error);
}

async function answerAgain(
  agent: Agent,
  known: Allocation,
  request: AddRequest,
): Promise<Result<Allocation, NodeError>> {
  const { ports, cell } = agent;
  if (known.requestId !== request.requestId) {
    const detail = `it holds ${known.ip}; the runtime must DEL it before it can ADD it again`;
    return err({ code: "sandbox-exists", sandbox: known.id, detail });
  }
  if (known.plumbedBy !== undefined) {
    const ruled = plumb(agent, known.netns, known);
    return ruled.ok ? ok(known) : await undone(agent, known, ruled.error, "plumbed");
  }
  const plumbing = sandboxPlumbing(known, cell.state);
  const differences = ports.kernel.checkSandbox(known.netns, plumbing);
  if (!differences.ok) return differences;
  if (differences.value.length === 0) return ok(known);
  // The daemon died between save and plumb. The half-made link, if any, must go before it can be made again.
  await ports.kernel.deleteLink(known.hostLink);
  const plumbed = ports.kernel.plumbSandbox(known.netns, plumbing);
  return plumbed.ok ? ok(known) : await undone(agent, known, plumbed.error, "plumbed");
}

function cancelled(): NodeError {
  return {
    code: "cancelled",
    detail: "the caller went away, or a DEL for the same sandbox came; nothing was left behind",
  };
}
