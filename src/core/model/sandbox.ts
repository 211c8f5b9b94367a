import type { Brand } from "../../lib/brand.ts";

/** A sandbox is named by the triple of the CNI spec (section 5, DEL): network, container id, interface name. Never by its pod. */
export type SandboxKey = { readonly network: string; readonly containerId: string; readonly ifName: string };

/** The key as one string, for maps, link aliases and logs. None of its parts may hold a `/` (CNI spec; checked in cni/netconf). */
export type SandboxId = Brand<string, "SandboxId">;

export function sandboxId(key: SandboxKey): SandboxId {
  return `${key.network}/${key.containerId}/${key.ifName}` as SandboxId;
}

/** Null when the text is not a key of three parts. */
export function sandboxKeyOf(id: string): SandboxKey | null {
  const [network, containerId, ifName, more] = id.split("/");
  if (network === undefined || containerId === undefined || ifName === undefined || more !== undefined)
    return null;
  const key = { network, containerId, ifName };
  return isSandboxKey(key) ? key : null;
}

/** CNI specification, "Parameters": container ids and network names. The length is what the shim takes for a network's name. */
export function isCniIdentifier(text: string): boolean {
  return text.length <= 1_024 && /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(text);
}

/** What the kernel takes for a link's name (net/core/dev.c, dev_valid_name; 15 bytes), and no control character, since names come into logs. */
export function isLinkName(text: string): boolean {
  return /^[^/:\s\p{Cc}]{1,15}$/u.test(text) && utf8Size(text) <= 15 && text !== "." && text !== "..";
}

function utf8Size(text: string): number {
  let size = 0;
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    size += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x1_0000 ? 3 : 4;
  }
  return size;
}

/** Keys become link aliases, file names and fields of logs: whoever tells one, a runtime, a file or the kernel, is not believed before this. */
export function isSandboxKey({ network, containerId, ifName }: SandboxKey): boolean {
  return isCniIdentifier(network) && isCniIdentifier(containerId) && isLinkName(ifName);
}

/** The pod that a sandbox serves, as the runtime's CNI_ARGS tell it. For people and metrics only; nothing is decided by it. */
export type PodName = { readonly namespace: string; readonly name: string };

/** Kubernetes' names: a DNS label and a DNS subdomain. */
export function isPodName({ namespace, name }: PodName): boolean {
  const form = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
  return form.test(namespace) && form.test(name);
}

/** A network namespace: the path the runtime gave, and device and inode, since a path can later mean another namespace. */
export type NetnsRef = { readonly path: string; readonly device: number; readonly inode: number };
