/** What the demo's scenes share: the nodes with the pods on them, and the few things that are done to them again and again. */
import type { Cluster } from "./cluster.ts";
import { waitUntil, type LabNode } from "./node.ts";
import type { Report } from "./report.ts";
import type { CniAnswer, Pod } from "./runtime.ts";

export type Placed = { readonly pod: Pod; readonly ip: string };

export type Stage = {
  readonly report: Report;
  readonly cluster: Cluster;
  readonly nodes: readonly [LabNode, LabNode];
  readonly pods: Map<LabNode, Placed[]>;
};

export type Roles = { readonly primary: Placed; readonly primary2: Placed; readonly secondary: Placed };

export async function addPods(
  stage: Stage,
  node: LabNode,
  name: string,
  count: number,
): Promise<readonly CniAnswer[]> {
  const pods = await node.runtime.makeSandboxes(Array.from({ length: count }, (_, at) => `${name}-${at}`));
  const heldBefore = await heldOf(node);
  const answers = await Promise.all(
    pods.map(async (pod) => {
      const answer = await node.runtime.call("ADD", pod);
      if (answer.ip !== null) stage.pods.get(node)?.push({ pod, ip: answer.ip });
      return answer;
    }),
  );
  const { tally } = stage.report;
  tally.adds += count;
  tally.pods += answers.filter((answer) => answer.ok).length;
  tally.failedAdds += answers.filter((answer) => !answer.ok).length;
  tally.heldAdds += Math.max(0, (await heldOf(node)) - heldBefore); // A daemon killed meanwhile has begun to count anew.
  return answers;
}

/** Each pod as kubelet does it: DEL, then DEL again without a namespace, then the namespace goes. */
export async function deletePods(
  stage: Stage,
  node: LabNode,
  placed: readonly Placed[],
): Promise<readonly CniAnswer[]> {
  const answers = await Promise.all(
    placed.map(async ({ pod }) => {
      const once = await node.runtime.call("DEL", pod);
      const twice = await node.runtime.call("DEL", { ...pod, netns: "" });
      return once.ok ? twice : once;
    }),
  );
  await node.runtime.removeSandboxes(placed.map(({ pod }) => pod));
  const gone = new Set(placed);
  stage.pods.set(
    node,
    (stage.pods.get(node) ?? []).filter((each) => !gone.has(each)),
  );
  return answers;
}

export async function heldOf(node: LabNode): Promise<number> {
  return node.daemonPid() === null ? 0 : ((await node.state().catch(() => null))?.counters.heldAdds ?? 0);
}

/** Two pods on the primary ENI, one on a secondary. */
export async function byRole(stage: Stage, node: LabNode): Promise<Roles> {
  const state = await node.state();
  const roleOf = new Map(
    state.enis.flatMap((eni) => eni.addresses.map((address) => [address.ip, eni.role] as const)),
  );
  const placed = stage.pods.get(node) ?? [];
  const [primary, primary2] = placed.filter(({ ip }) => roleOf.get(ip) === "primary");
  const secondary = placed.find(({ ip }) => roleOf.get(ip) === "secondary");
  if (primary === undefined || primary2 === undefined || secondary === undefined)
    throw new Error(`pods of ${node.name} are on one ENI only`);
  return { primary, primary2, secondary };
}

/** Until the plan holds and nothing cools, leaves or is loose. */
export async function poolSettles(node: LabNode): Promise<void> {
  await waitUntil(`the pool of ${node.name} settles`, 40_000, async () => {
    const { plan, census, loose } = await node.state();
    return (
      plan.kind === "hold" &&
      plan.reason === "on-target" &&
      census.cooling === 0 &&
      census.leaving === 0 &&
      census.coming === 0 &&
      loose.length === 0
    );
  });
}

export async function totalOf(node: LabNode): Promise<number> {
  return (await node.state()).census.total;
}

export function countPings(
  report: Report,
  count: { readonly sent: number; readonly received: number },
): void {
  report.tally.pingsSent += count.sent;
  report.tally.lostPings += count.sent - count.received;
}

export function failures(answers: readonly CniAnswer[]): string {
  const failed = answers.filter((answer) => !answer.ok);
  return failed.length === 0
    ? ""
    : `${failed.length} failed, the first with: ${failed[0]?.error?.msg ?? "?"}; `;
}
