/** The agent's walks as the handlers of the plugin's socket, with what each took counted. */
import { addSandbox } from "../agent/add-sandbox.ts";
import type { Agent } from "../agent/agent.ts";
import { checkSandbox, collectGarbage } from "../agent/check-sandbox.ts";
import { deleteSandbox } from "../agent/delete-sandbox.ts";
import type { Handlers } from "../cni/dispatch.ts";
import { prevResultDifferences, type Attached } from "../cni/result.ts";
import type { NodeError } from "../core/model/error.ts";
import { POD_GATEWAY_TEXT } from "../core/plumbing/names.ts";
import { whyNoAddress } from "../core/pool/why.ts";
import { takeCensus } from "../core/state/census.ts";
import type { Allocation } from "../core/state/node-state.ts";
import { ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { after, type Instant } from "../lib/time.ts";
import type { Counters } from "./state-report.ts";

/** Time that an answer needs after the address is there: record, plumb, print, and the way back. */
const ANSWER_MS = 1_500;

export type HandlerOptions = {
  readonly addHoldMs: number;
  readonly statusWhenEmpty: "ready" | "not-ready";
  readonly stopping: () => boolean;
  /** Counts a walk as running until the returned function is called. */
  readonly begins: (walk: "add" | "del") => () => void;
};

export function createHandlers(
  agent: Agent,
  options: HandlerOptions,
): { readonly handlers: Handlers; readonly counters: () => Counters } {
  const { ports } = agent;
  const counts = { adds: 0, failedAdds: 0, heldAdds: 0, dels: 0 };

  const add: Handlers["add"] = async (request, signal, place) => {
    const ended = options.begins("add");
    const began = ports.time.now();
    let heldSince: Instant | null = null;
    let heldMs = 0;
    const watched = {
      leave: (): void => {
        heldSince = ports.time.now();
        place.leave();
      },
      take: async (): Promise<void> => {
        heldMs = heldSince === null ? 0 : ports.time.now() - heldSince;
        await place.take();
      },
    };
    const { key, netnsPath, pod, requestId } = request;
    const deadline = earlier(after(request.deadline, -ANSWER_MS), after(began, options.addHoldMs));
    const added = await addSandbox(
      agent,
      { key, netnsPath, pod, requestId, deadline, place: watched },
      signal,
    );
    counts.adds += 1;
    if (heldSince !== null) counts.heldAdds += 1;
    if (!added.ok && added.error.code !== "cancelled") counts.failedAdds += 1;
    ended();
    const outcome = added.ok ? "ok" : added.error.code;
    ports.observed({ kind: "add", outcome, durationMs: ports.time.now() - began, heldMs });
    return added.ok ? ok(attachedOf(added.value, netnsPath)) : added;
  };

  const del: Handlers["del"] = async ({ key }) => {
    const ended = options.begins("del");
    const began = ports.time.now();
    const deleted = await deleteSandbox(agent, key);
    ended();
    const durationMs = ports.time.now() - began;
    if (!deleted.ok) {
      ports.observed({ kind: "del", outcome: deleted.error.code, durationMs });
      return deleted;
    }
    counts.dels += 1;
    ports.observed({ kind: "del", outcome: deleted.value === null ? "unknown" : "ok", durationMs });
    return ok({ settled: deleted.value?.linkGone ?? Promise.resolve() });
  };

  const check: Handlers["check"] = async ({ key, netnsPath }, previous) => {
    const checked = await checkSandbox(agent, key, netnsPath);
    if (!checked.ok) return checked;
    const differences = prevResultDifferences(previous, attachedOf(checked.value, netnsPath));
    return differences.length === 0 ? ok(null) : err({ code: "check-failed", differences });
  };

  const status: Handlers["status"] = async () => await Promise.resolve(statusOf(agent, options));

  return {
    handlers: {
      add,
      del,
      check,
      status,
      gc: async ({ network, alive }) => await collectGarbage(agent, network, alive),
    },
    counters: () => ({ ...counts }),
  };
}

/** Success while ADDs can be served. An empty pool is no reason to take the node out of scheduling, unless the operator says so. */
function statusOf(agent: Agent, options: HandlerOptions): Result<null, NodeError> {
  if (options.stopping()) return err({ code: "not-ready", detail: "the daemon is stopping" });
  const { packetFilter } = agent.blocked;
  if (packetFilter !== null) return err({ code: "not-ready", detail: packetFilter });
  if (options.statusWhenEmpty === "ready") return ok(null);
  const now = agent.ports.time.now();
  if (takeCensus(agent.cell.state, now).warm > 0) return ok(null);
  const why = whyNoAddress(agent.cell.state, agent.pool, now);
  return why.blocked === null
    ? ok(null)
    : err({ code: "not-ready", detail: `no address is warm, and none can be had: ${why.detail}` });
}

function attachedOf(allocation: Allocation, netnsPath: string): Attached {
  const { ip, key, podMac, hostLink, hostMac, mtu } = allocation;
  return {
    ip,
    gateway: ipv4(POD_GATEWAY_TEXT),
    ifName: key.ifName,
    netnsPath,
    podMac,
    hostLink,
    hostMac,
    mtu,
  };
}

function earlier(left: Instant, right: Instant): Instant {
  return left < right ? left : right;
}
