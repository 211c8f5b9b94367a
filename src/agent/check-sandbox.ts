/** CHECK and GC: is what we made still there, and what has the runtime forgotten? */
import type { NodeError } from "../core/model/error.ts";
import { sandboxId, type SandboxKey } from "../core/model/sandbox.ts";
import { sandboxPlumbing } from "../core/plumbing/sandbox.ts";
import { isUnknown } from "../core/reconcile/recover.ts";
import type { Allocation } from "../core/state/node-state.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { Agent } from "./agent.ts";
import { deleteSandbox } from "./delete-sandbox.ts";

export async function checkSandbox(
  agent: Agent,
  key: SandboxKey,
  netnsPath: string,
): Promise<Result<Allocation, NodeError>> {
  const { ports, cell } = agent;
  const allocation = cell.state.allocations.get(sandboxId(key));
  if (allocation === undefined)
    return err({ code: "check-failed", differences: ["this sandbox has no address on record"] });
  const netns = ports.kernel.lookAtNetns(netnsPath);
  if (!netns.ok) return netns;
  if (netns.value.device !== allocation.netns.device || netns.value.inode !== allocation.netns.inode) {
    return err({ code: "check-failed", differences: [`${netnsPath} is another namespace than at ADD`] });
  }
  const found: Result<readonly string[], NodeError> =
    allocation.plumbedBy === undefined
      ? ports.kernel.checkSandbox(allocation.netns, sandboxPlumbing(allocation, cell.state))
      : ok([]); // What is inside the sandbox is the business of the plugin that made it.
  if (!found.ok) return found;
  const address = cell.state.enis.get(allocation.eni)?.addresses.get(allocation.ip);
  const differences =
    address === undefined
      ? [...found.value, `EC2 no longer lists ${allocation.ip} on ${allocation.eni}`]
      : found.value;
  return differences.length === 0 ? ok(allocation) : err({ code: "check-failed", differences });
}

/**
 * Frees every sandbox of the network that the runtime does not call alive (CNI spec 1.1, GC). A wrong list must not cut a
 * running pod: one whose namespace is still there keeps its address.
 */
export async function collectGarbage(
  agent: Agent,
  network: string,
  alive: readonly SandboxKey[],
): Promise<Result<number, NodeError>> {
  const living = new Set(alive.map(sandboxId));
  let freed = 0;
  const errors: NodeError[] = [];
  for (const allocation of agent.cell.state.allocations.values()) {
    if (allocation.key.network !== network || living.has(allocation.id)) continue;
    if (mayRun(agent, allocation)) {
      agent.ports.log({
        level: "warn",
        message: "kept against GC: its namespace lives",
        sandbox: allocation.id,
        ip: allocation.ip,
      });
      continue;
    }
    const deleted = await deleteSandbox(agent, allocation.key);
    if (!deleted.ok) errors.push(deleted.error);
    else if (deleted.value !== null) {
      freed += 1;
      agent.ports.observed({ kind: "removed", what: "allocation", why: "gc" });
    }
  }
  const [first] = errors;
  return first === undefined ? ok(freed) : err(first);
}

/** Of a sandbox that was found by its link alone no namespace is known: its link then says that it lives, and dies with it. */
function mayRun({ ports }: Agent, { netns, hostLink }: Allocation): boolean {
  if (!isUnknown(netns)) return ports.runtime.netnsLives(netns);
  const links = ports.kernel.observeLinks();
  return !links.ok || links.value.some(({ name }) => name === hostLink);
}
