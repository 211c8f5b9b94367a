/** Every expected failure of a node, in one union with stable codes. docs/reference/errors.md lists the same codes (held by a test). */
import type { HoldReason } from "./action.ts";

export type NodeError =
  /** No address came within the budget; `blocked` says what stands in the way, null when the refill was merely slow. */
  | {
      readonly code: "no-address";
      readonly blocked: HoldReason | null;
      readonly detail: string;
      readonly waitedMs: number;
    }
  /** The kernel refused; its own words and errno name. */
  | {
      readonly code: "kernel-refused";
      readonly step: string;
      readonly errno: string;
      readonly detail: string;
    }
  /** CNI_NETNS cannot be used. */
  | { readonly code: "netns-invalid"; readonly path: string; readonly detail: string }
  /** ADD for a sandbox that has its address already. */
  | { readonly code: "sandbox-exists"; readonly sandbox: string; readonly detail: string }
  /** The interface name is taken inside the sandbox. */
  | { readonly code: "interface-exists"; readonly ifName: string; readonly path: string }
  /** The record could not be written: nothing was given out. */
  | { readonly code: "checkpoint-unwritable"; readonly path: string; readonly detail: string }
  /** A DEL, a closed connection or the daemon's end stopped the ADD; it was rolled back. */
  | { readonly code: "cancelled"; readonly detail: string }
  /** The daemon cannot serve now; the caller should come again. */
  | { readonly code: "not-ready"; readonly detail: string }
  /** CHECK found a difference. */
  | { readonly code: "check-failed"; readonly differences: readonly string[] }
  /** The network configuration asks for what this node cannot do. */
  | { readonly code: "config-refused"; readonly key: string; readonly detail: string };

export type NodeErrorCode = NodeError["code"];
