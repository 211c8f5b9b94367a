import type { Brand } from "../../lib/brand.ts";

/** A sandbox is named by the triple of the CNI spec (section 5, DEL): network, container id, interface name. Never by its pod. */
export type SandboxKey = { readonly network: string; readonly containerId: string; readonly ifName: string };

/** The key as one string, for maps, link aliases and logs. None of its parts may hold a `/` (CNI spec; checked in cni/netconf). */
export type SandboxId = Brand<string, "SandboxId">;

export function sandboxId(key: SandboxKey): SandboxId {
  return `${key.network}/${key.containerId}/${key.ifName}` as SandboxId;
}

/** Null when the text is not three parts. */
export function sandboxKeyOf(id: string): SandboxKey | null {
  const [network, containerId, ifName, more] = id.split("/");
  if (network === undefined || containerId === undefined || ifName === undefined || more !== undefined)
    return null;
  if (network === "" || containerId === "" || ifName === "") return null;
  return { network, containerId, ifName };
}

/** The pod that a sandbox serves, as the runtime's CNI_ARGS tell it. For people and metrics only; nothing is decided by it. */
export type PodName = { readonly namespace: string; readonly name: string };

/** A network namespace: the path the runtime gave, and device and inode, since a path can later mean another namespace. */
export type NetnsRef = { readonly path: string; readonly device: number; readonly inode: number };
