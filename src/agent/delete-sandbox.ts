/**
 * DEL: release → route away → save → answer. The link goes afterwards, off the main thread. Needs neither the namespace, nor
 * the runtime's previous result, nor EC2: our own record is enough. A DEL of nothing is no error.
 */
import type { NodeError } from "../core/model/error.ts";
import { sandboxId, type SandboxKey } from "../core/model/sandbox.ts";
import { delegatedObjects } from "../core/plumbing/delegated.ts";
import { sandboxPlumbing } from "../core/plumbing/sandbox.ts";
import type { Allocation } from "../core/state/node-state.ts";
import { addressReleased } from "../core/state/transitions.ts";
import { ok, type Result } from "../lib/result.ts";
import { after } from "../lib/time.ts";
import type { Agent } from "./agent.ts";

/** In the answer: the sandbox that was released, or null where there was none; `linkGone` ends when its link is away. */
export type Deleted = { readonly allocation: Allocation; readonly linkGone: Promise<void> } | null;

export async function deleteSandbox(agent: Agent, key: SandboxKey): Promise<Result<Deleted, NodeError>> {
  const { ports, cell, settings } = agent;
  const allocation = cell.state.allocations.get(sandboxId(key));
  if (allocation === undefined) return ok(null);
  cell.set(addressReleased(cell.state, allocation.id, after(ports.time.now(), settings.cooldownMs)));
  unroute(agent, allocation);
  const ours = allocation.plumbedBy === undefined; // The plugin that we are the IPAM of takes its own links away.
  const linkGone = ours ? removeLink(agent, allocation) : Promise.resolve();
  if (ours) agent.departures.add(allocation.netns, key.ifName, allocation.hostLink, linkGone);
  const saved = await ports.save(cell.state);
  // The runtime asks again and is told that there is nothing left to do: should we die before a later save, the sandbox is found
  // in the record once more, and freed by the start or the sweep, since its link and its namespace are gone.
  if (!saved.ok) return saved;
  agent.wakeRefill.callSoon(ports.time);
  return ok({ allocation, linkGone });
}

/** From here on no packet finds the pod, whatever its link still does. */
function unroute(agent: Agent, allocation: Allocation): void {
  const { ports, cell } = agent;
  const objects =
    allocation.plumbedBy === undefined
      ? sandboxPlumbing(allocation, cell.state).host
      : delegatedObjects(allocation);
  const failures = ports.kernel.apply(objects.map((object) => ({ verb: "delete" as const, object })));
  for (const { errno, detail } of failures) {
    ports.log({
      level: "warn",
      message: "route not removed",
      sandbox: allocation.id,
      ip: allocation.ip,
      errno,
      detail,
    });
  }
  ports.kernel.forgetConnections(allocation.ip);
}

async function removeLink(agent: Agent, allocation: Allocation): Promise<void> {
  const plumbing = sandboxPlumbing(allocation, agent.cell.state);
  const inside = plumbing.slave === undefined ? undefined : { netns: allocation.netns, plumbing };
  const removed = await agent.ports.kernel.deleteLink(allocation.hostLink, inside);
  if (removed.ok) return;
  const { errno, detail } = removed.error; // Left to the sweep, which finds it by its alias.
  agent.ports.log({
    level: "warn",
    message: "link not removed",
    sandbox: allocation.id,
    link: allocation.hostLink,
    errno,
    detail,
  });
}
