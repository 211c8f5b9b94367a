/** What the kernel said no to, in the words that leave this room. */
import type { NodeError } from "../core/model/error.ts";
import type { NetlinkError } from "../netlink/answers.ts";
import type { NetnsError } from "../netlink/netns.ts";

/** `step` reads like the `ip` command, `errno` is its name ("ENODEV"), `detail` the kernel's own words, often empty. */
export type KernelFailure = { readonly step: string; readonly errno: string; readonly detail: string };

export function failureOf(error: NetlinkError): KernelFailure {
  return { step: error.what, errno: error.code, detail: error.detail };
}

export function refused({ step, errno, detail }: KernelFailure): NodeError {
  return { code: "kernel-refused", step, errno, detail };
}

export function netnsInvalid(error: NetnsError): NodeError {
  return { code: "netns-invalid", path: error.path, detail: `${error.kind}: ${error.detail}` };
}

/** The errno's name of a failed file operation of Node.js, or the error as text. */
export function codeOf(cause: unknown): string {
  return cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
}
