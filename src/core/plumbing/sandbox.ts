/** The plumbing of a sandbox by the path that its allocation was made with, whatever the node's setting says by now. */
import type { Allocation, NodeState } from "../state/node-state.ts";
import { ipvlanPlumbing } from "./ipvlan.ts";
import type { KernelObject, SandboxPlumbing } from "./object.ts";
import { routedPlumbing } from "./routed.ts";

type Plumbed = Parameters<typeof routedPlumbing>[0] & Pick<Allocation, "eni" | "ipvlan" | "plumbedBy">;
type Node = {
  readonly instance: Pick<NodeState["instance"], "limits">;
  readonly allocations: ReadonlyMap<unknown, Plumbed>;
};

/** From the node's record alone, so that ADD, CHECK, repair and a restart want the same. Its ENI must have a number (`eniNumber`). */
export function sandboxPlumbing(allocation: Plumbed, node: Node): SandboxPlumbing {
  const { ipvlan } = allocation;
  const { limits } = node.instance;
  if (ipvlan === undefined) return routedPlumbing(allocation, limits);
  const routed = [...node.allocations.values()].filter((other) => isRoutedOn(other, allocation.eni));
  return ipvlanPlumbing(
    { ...allocation, ipvlan },
    limits,
    routed.map(({ ip }) => ip),
  );
}

/**
 * After a routed pod came to an ENI that ipvlan pods use, since the node's setting was changed: what these need inside to reach it. A slave
 * finds other slaves in its driver, and all else of the subnet by asking the VPC, which need not lead back to the ENI that asked.
 */
export function routesToRouted(
  newcomer: Allocation,
  node: Pick<NodeState, "instance" | "allocations">,
): readonly { readonly allocation: Allocation; readonly routes: readonly KernelObject[] }[] {
  if (newcomer.ipvlan !== undefined || newcomer.plumbedBy !== undefined) return [];
  return [...node.allocations.values()]
    .filter((other) => other.ipvlan !== undefined && other.eni === newcomer.eni)
    .map((allocation) => {
      const { pod } = sandboxPlumbing(allocation, node);
      const routes = pod.filter(
        (object) =>
          object.kind === "route" &&
          object.destination.ip === newcomer.ip &&
          object.destination.prefixLength === 32,
      );
      return { allocation, routes };
    });
}

function isRoutedOn(allocation: Plumbed, eni: Plumbed["eni"]): boolean {
  return allocation.ipvlan === undefined && allocation.plumbedBy === undefined && allocation.eni === eni;
}
