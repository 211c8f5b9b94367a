/** After the grace time without faults: belief and truth have met, nothing is left over, the pool is at its target. */
import { CLUSTER_TAG, NO_MANAGE_TAG, OWNER_TAG } from "../core/model/eni-names.ts";
import { eniTable, hostLinkAlias, PODS_TABLE } from "../core/plumbing/names.ts";
import { planPool } from "../core/pool/plan.ts";
import { addressesOfCidr4 } from "../lib/ip.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { attachmentsOf, type Eni } from "../emulator/world.ts";
import { parseCheckpoint } from "../store/checkpoint.ts";
import type { SimNode } from "./node.ts";
import type { Sim } from "./sim.ts";

/** Looks at everything. What it finds goes to the checks. In the answer: how many things leaked. */
export function checkHealed(sim: Sim): number {
  let leaks = leakedEnis(sim);
  for (const id of sim.foreignEnis) {
    const there = sim.engine.world().enis.has(id);
    const byItsInstance = sim.nodes.some((node) => node.gone); // An ENI ends with its instance.
    sim.checks.look("foreign-untouched", !there && !byItsInstance && `${id} of another is gone`);
  }
  for (const node of sim.nodes) {
    if (node.gone) continue;
    const state = node.life?.serving === true ? (node.life.agent?.cell.state ?? null) : null;
    sim.checks.look("start-serves", state === null && `${node.name} does not serve though all is well`);
    if (state === null) continue;
    const say = (checker: Parameters<Sim["checks"]["look"]>[0], problems: readonly string[]): void =>
      sim.checks.look(checker, problems.length > 0 && `${node.name}: ${problems.slice(0, 6).join("; ")}`);
    say("belief-meets-truth", [...enisDiffer(sim, node, state), ...sandboxesDiffer(node, state)]);
    const left = leftOver(node, state);
    leaks += left.length;
    say("nothing-leaks", left);
    say("pool-reaches-target", poolShort(node, state));
    say("ends-with-instance", mortal(sim, node));
    sim.checks.look(
      "add-ends",
      node.runtime.addsUnderWay > 0 &&
        poolShort(node, state).length === 0 &&
        !isFull(node, state) &&
        `${node.name}: ${node.runtime.addsUnderWay} ADDs never ended`,
    );
  }
  return leaks;
}

function leakedEnis(sim: Sim): number {
  const leaked: string[] = [];
  for (const eni of sim.engine.world().enis.values()) {
    const owner = eni.tags[OWNER_TAG];
    const ours =
      owner !== undefined &&
      eni.description.startsWith("aws-K8S-") &&
      eni.tags[CLUSTER_TAG] === sim.clusterName &&
      eni.tags[NO_MANAGE_TAG] !== "true";
    if (ours && eni.attachment === null)
      leaked.push(`${eni.id} of ${owner}${sim.instanceLives(owner) ? "" : " (gone)"} hangs on nothing`);
  }
  sim.checks.look("nothing-leaks", leaked.length > 0 && leaked.join("; "));
  return leaked.length;
}

/** Ours to manage, by what EC2 says. */
function managed(node: SimNode, eni: Eni & { attachment: NonNullable<Eni["attachment"]> }): boolean {
  if (eni.attachment.deviceIndex === 0) return true;
  if (eni.managedBy !== null || eni.interfaceType !== "interface" || eni.tags[NO_MANAGE_TAG] === "true")
    return false;
  return eni.tags[OWNER_TAG] !== undefined || node.settings.agent.manageUntagged;
}

function enisDiffer(sim: Sim, node: SimNode, state: NodeState): string[] {
  const problems: string[] = [];
  const attached = attachmentsOf(sim.engine.world(), node.instanceId);
  const known = new Map([...state.enis.values()].map((eni) => [eni.id as string, eni]));
  for (const eni of attached) {
    const belief = known.get(eni.id);
    known.delete(eni.id);
    if (belief === undefined) {
      if (managed(node, eni)) problems.push(`${eni.id} is attached and unknown`);
      continue;
    }
    if (!managed(node, eni)) {
      const held = [...belief.addresses.values()].some((address) => address.kind === "allocated");
      if (!held) problems.push(`${eni.id} is another's, and in our care`);
      continue;
    }
    const ips = new Set<string>([
      ...eni.secondaries,
      ...eni.prefixes.flatMap((network) => [...addressesOfCidr4({ network, prefixLength: 28 })]),
    ]);
    for (const ip of belief.addresses.keys())
      if (!ips.delete(ip)) problems.push(`${ip} is believed on ${eni.id}, and is not there`);
    if (ips.size > 0) problems.push(`${[...ips].slice(0, 3).join(", ")} on ${eni.id} are unknown`);
    const leaving = [...belief.addresses.values()].filter((address) => address.kind === "leaving");
    if (leaving.length > 0) problems.push(`${leaving.length} addresses of ${eni.id} are leaving still`);
    if (belief.phase.kind !== "ready") problems.push(`${eni.id} is ${belief.phase.kind}`);
  }
  for (const id of known.keys()) problems.push(`${id} is believed attached, and is not`);
  if (state.inDoubt !== null) problems.push(`${state.inDoubt.operation} is in doubt still`);
  if (state.creation !== null) problems.push("a creation is open still");
  if (state.loose.size > 0) problems.push(`${[...state.loose.keys()].join(", ")} still loose`);
  return problems;
}

function sandboxesDiffer(node: SimNode, state: NodeState): string[] {
  const problems: string[] = [];
  const allocations = new Map([...state.allocations.values()].map((each) => [each.id, each]));
  for (const { id, ip } of node.runtime.running.values()) {
    const belief = allocations.get(id);
    allocations.delete(id);
    if (belief === undefined) problems.push(`${id} runs with ${ip}, and is not known`);
    else if (belief.ip !== ip) problems.push(`${id} runs with ${ip}, and is believed to have ${belief.ip}`);
  }
  if (node.runtime.addsUnderWay > 0) return problems; // Of a full node: pods that wait come and go.
  for (const id of allocations.keys())
    problems.push(`${id} is believed to have an address, and runs no more`);
  return problems;
}

function leftOver(node: SimNode, state: NodeState): string[] {
  const left: string[] = [];
  if (node.runtime.addsUnderWay === 0) {
    const aliases = new Set([...state.allocations.keys()].map((id) => hostLinkAlias(id)));
    const ips = new Set<string>([...node.runtime.running.values()].map(({ ip }) => ip ?? ""));
    const tables = new Set(
      [...state.enis.values()].filter((eni) => eni.role === "secondary").map((eni) => eniTable(eni.slot)),
    );
    const { links, routes, rules } = node.kernel.ours();
    for (const { name, alias } of links)
      if (alias === null || !aliases.has(alias)) left.push(`link ${name} of ${alias}`);
    for (const { table, destination } of routes) {
      const wanted = table === PODS_TABLE ? ips.has(destination.ip) : tables.has(table);
      if (!wanted) left.push(`route ${destination.ip}/${destination.prefixLength} in table ${table}`);
    }
    for (const { table, priority } of rules)
      if (table >= 10_000 && !tables.has(table)) left.push(`rule ${priority} to table ${table}`);
  }
  const { text } = node.disk;
  const parsed = text === null ? null : parseCheckpoint(text);
  if (parsed === null || !parsed.ok) left.push("the checkpoint cannot be read");
  else if (node.runtime.addsUnderWay === 0)
    for (const { id } of parsed.value.allocations)
      if (!node.runtime.running.has(id)) left.push(`record of ${id}`);
  if (node.journal.size > 0) left.push(`${node.journal.size} DELs in the journal`);
  return left;
}

const SETTLED: ReadonlySet<string> = new Set(["on-target", "eni-limit", "max-pods", "cooling"]);

function poolShort(node: SimNode, state: NodeState): string[] {
  const plan = planPool(state, node.settings.pool, node.now());
  if (plan.kind === "act")
    return [`the pool is not at its target: ${plan.action.kind}, since ${plan.reason}`];
  return SETTLED.has(plan.reason) ? [] : [`the pool holds: ${plan.reason}: ${plan.detail}`];
}

function isFull(node: SimNode, state: NodeState): boolean {
  const plan = planPool(state, node.settings.pool, node.now());
  return plan.kind === "hold" && plan.reason !== "on-target";
}

function mortal(sim: Sim, node: SimNode): string[] {
  return attachmentsOf(sim.engine.world(), node.instanceId)
    .filter(
      (eni) =>
        eni.tags[OWNER_TAG] === node.instanceId &&
        eni.tags[NO_MANAGE_TAG] !== "true" &&
        !eni.attachment.deleteOnTermination,
    )
    .map((eni) => `${eni.id} outlives its instance`);
}
