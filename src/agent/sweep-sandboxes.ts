/**
 * The slow hunt for sandboxes that ended without a DEL, and for those whose links somebody took away. An address is freed only
 * when two truths agree, over two looks: its namespace is gone, and so is its link or the runtime's own record of it.
 */
import { planHost } from "../core/plumbing/host.ts";
import { sandboxPlumbing } from "../core/plumbing/sandbox.ts";
import { isUnknown } from "../core/reconcile/recover.ts";
import { suspect, type Suspicions } from "../core/reconcile/suspicion.ts";
import { sandboxId, type SandboxId } from "../core/model/sandbox.ts";
import type { Allocation } from "../core/state/node-state.ts";
import type { LinkSeen } from "../core/plumbing/object.ts";
import { SECOND_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";
import { deleteSandbox } from "./delete-sandbox.ts";
import { Wake, type Job } from "./loop.ts";

/** A DEL that is late by this much is still faster than we are. */
const GONE_GRACE_MS = 30 * SECOND_MS;

export function sandboxSweepJob(agent: Agent): Job {
  let suspicions: Suspicions = new Map();
  const { ports, settings } = agent;
  return {
    name: "sandbox-sweep",
    wake: new Wake(),
    run: async () => {
      if (agent.record.behind) await ports.save(agent.cell.state); // A disk that was full may have room by now.
      const links = ports.kernel.observeLinks();
      if (links.ok) {
        const gone = goneSandboxes(agent, links.value);
        const { after, ripe } = suspect(suspicions, gone, ports.time.now(), () =>
          Math.min(GONE_GRACE_MS, settings.leakGraceMs),
        );
        suspicions = after;
        for (const { allocation, sinceMs } of ripe) await free(agent, allocation, sinceMs);
      }
      // Two looks must fit between a sandbox's end and the time that we promise for freeing it.
      return Math.min(settings.sweepIntervalMs, GONE_GRACE_MS) * (0.8 + 0.4 * ports.random());
    },
  };
}

function goneSandboxes(
  agent: Agent,
  links: readonly LinkSeen[],
): { readonly key: string; readonly allocation: Allocation }[] {
  const { ports, cell } = agent;
  const present = new Set(links.map((link) => link.name));
  const dead = [...cell.state.allocations.values()].filter(
    (allocation) => !agent.beingAdded.has(allocation.id) && !ports.runtime.netnsLives(allocation.netns),
  );
  if (dead.length === 0) return [];
  const cached = ports.runtime.cachedSandboxes();
  const known: ReadonlySet<SandboxId> | null = cached.ok
    ? new Set(cached.value.map((each) => sandboxId(each.key)))
    : null;
  return dead
    .filter(
      ({ id, hostLink, netns, plumbedBy }) =>
        // Where another plugin made the links, that none of ours is there says nothing.
        (plumbedBy === undefined && !present.has(hostLink)) ||
        (!isUnknown(netns) && known !== null && !known.has(id)),
    )
    .map((allocation) => ({ key: allocation.id, allocation }));
}

async function free(agent: Agent, allocation: Allocation, sinceMs: number): Promise<void> {
  const { ports } = agent;
  const deleted = await deleteSandbox(agent, allocation.key);
  const fields = { sandbox: allocation.id, ip: allocation.ip, sinceMs };
  if (!deleted.ok)
    return ports.log({
      level: "warn",
      message: "a sandbox without DEL could not be freed",
      ...fields,
      error: deleted.error,
    });
  ports.log({ level: "warn", message: "sandbox freed: its namespace is gone and no DEL came", ...fields });
  ports.observed({ kind: "removed", what: "allocation", why: "namespace-gone" });
}

/** Sandboxes that live and whose link is gone, because somebody deleted it, get their links and routes anew. */
export function replumbLost(agent: Agent, links: readonly LinkSeen[]): void {
  const { ports, cell, settings } = agent;
  for (const id of planHost(cell.state, links, settings.plumbing).linklessSandboxes) {
    const allocation = cell.state.allocations.get(id);
    if (allocation === undefined || agent.beingAdded.has(id) || !ports.runtime.netnsLives(allocation.netns))
      continue;
    const plumbed = ports.kernel.plumbSandbox(allocation.netns, sandboxPlumbing(allocation, cell.state));
    const fields = { sandbox: id, ip: allocation.ip };
    if (!plumbed.ok) {
      ports.log({
        level: "error",
        message: "a lost link could not be made again",
        ...fields,
        error: plumbed.error,
      });
      continue;
    }
    ports.log({ level: "warn", message: "a sandbox's link was gone, and is made again", ...fields });
    ports.observed({ kind: "repaired", what: "sandbox-link" });
  }
}
