/** All that the host's namespace should hold, from what the node believes: the node's rules, each ENI's objects, each sandbox's route. */
import type { Ipv4 } from "../../lib/ip.ts";
import type { EniId } from "../model/eni.ts";
import type { SandboxId } from "../model/sandbox.ts";
import type { NodeState } from "../state/node-state.ts";
import { delegatedObjects } from "./delegated.ts";
import { eniObjects, linkOfEni } from "./eni-host.ts";
import { eniNumber, hostLinkAlias } from "./names.ts";
import { nodeObjects } from "./node-host.ts";
import type { KernelObject, LinkSeen } from "./object.ts";
import { sandboxPlumbing } from "./sandbox.ts";
import type { PlumbingSettings } from "./settings.ts";

export type HostDesired = {
  readonly objects: readonly KernelObject[];
  /** Links of secondary ENIs that we manage. They are ours wholly: addresses and connected routes that others put there go. */
  readonly eniLinks: ReadonlySet<string>;
  /** Every address that EC2 gave us for pods: the host itself must have none of them, on whatever link. */
  readonly podAddresses: ReadonlySet<Ipv4>;
  /** By name: the alias of each live sandbox's host link. */
  readonly sandboxLinks: ReadonlyMap<string, string>;
  readonly hostLinkPrefix: string;
};

export type HostPlan = {
  readonly desired: HostDesired;
  /** ENIs whose link has not come yet, or is gone. */
  readonly linklessEnis: readonly EniId[];
  /** Allocations whose host link is gone: the sandbox ended without a DEL, or somebody deleted the link. Nothing is planned for them. */
  readonly linklessSandboxes: readonly SandboxId[];
  /** Host links of live sandboxes without the alias that is set last but one: we died while we made them, and the pod's end may be bare. */
  readonly halfMadeLinks: readonly { readonly sandbox: SandboxId; readonly link: string }[];
};

/**
 * Desired plumbing of the host, given the links that are there (a route cannot be put on a link that is not).
 *
 * An ENI that is leaving keeps its objects until its link goes: packets of its last pod may still be on their way.
 */
export function planHost(
  state: Pick<NodeState, "instance" | "enis" | "allocations">,
  links: readonly LinkSeen[],
  settings: PlumbingSettings,
): HostPlan {
  const { limits } = state.instance;
  const objects: KernelObject[] = [...nodeObjects(settings)];
  const eniLinks = new Set<string>();
  const linklessEnis: EniId[] = [];
  for (const eni of state.enis.values()) {
    const link = linkOfEni(links, eni.mac);
    if (link === null) {
      linklessEnis.push(eni.id);
      continue;
    }
    if (eni.role === "secondary" && eniNumber(eni.slot, limits) === null) continue; // Beyond what the mark can number: never used.
    objects.push(...eniObjects(eni, link.name, limits, settings.eniMtu));
    if (eni.role === "secondary") eniLinks.add(link.name);
  }

  const present = new Map(links.map((link) => [link.name, link]));
  const sandboxLinks = new Map<string, string>();
  const linklessSandboxes: SandboxId[] = [];
  const halfMadeLinks: HostPlan["halfMadeLinks"][number][] = [];
  for (const allocation of state.allocations.values()) {
    if (allocation.plumbedBy !== undefined) {
      objects.push(...delegatedObjects(allocation));
      continue;
    }
    sandboxLinks.set(allocation.hostLink, hostLinkAlias(allocation.id));
    const link = present.get(allocation.hostLink);
    if (link === undefined) {
      linklessSandboxes.push(allocation.id);
      continue;
    }
    if (link.alias === null && link.kind === "veth")
      halfMadeLinks.push({ sandbox: allocation.id, link: link.name });
    const { pair, host } = sandboxPlumbing(allocation, state);
    objects.push(
      {
        kind: "link",
        name: pair.hostName,
        mtu: pair.hostMtu,
        up: true,
        group: pair.group,
        mac: pair.hostMac,
      },
      ...host,
    );
  }
  const podAddresses = new Set([...state.enis.values()].flatMap(({ addresses }) => [...addresses.keys()]));
  const desired = { objects, eniLinks, podAddresses, sandboxLinks, hostLinkPrefix: settings.hostLinkPrefix };
  return { desired, linklessEnis, linklessSandboxes, halfMadeLinks };
}
