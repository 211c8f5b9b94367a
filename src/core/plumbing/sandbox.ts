/** The plumbing of a sandbox by the path that its allocation was made with, whatever the node's setting says by now. */
import type { InstanceLimits } from "../model/instance.ts";
import { ipvlanPlumbing, type IpvlanPath } from "./ipvlan.ts";
import type { SandboxPlumbing } from "./object.ts";
import { routedPlumbing } from "./routed.ts";

/** From the allocation's record alone, so that ADD, CHECK, repair and a restart want the same. Its ENI must have a number (`eniNumber`). */
export function sandboxPlumbing(
  allocation: Parameters<typeof routedPlumbing>[0] & { readonly ipvlan?: IpvlanPath },
  limits: InstanceLimits,
): SandboxPlumbing {
  const { ipvlan } = allocation;
  return ipvlan === undefined
    ? routedPlumbing(allocation, limits)
    : ipvlanPlumbing({ ...allocation, ipvlan }, limits);
}
