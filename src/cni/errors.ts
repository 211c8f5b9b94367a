/**
 * Failures as a runtime and a pod's owner see them: a CNI code, a short message that is never empty and says what to do, and
 * details. No runtime acts on the code: containerd prints "msg; details" into the pod's events, so the words
 * are what helps. docs/reference/errors.md lists the codes.
 */
import type { HoldReason } from "../core/model/action.ts";
import type { NodeError } from "../core/model/error.ts";
import { SPEC_VERSIONS, type FrameFault, type SpecVersion } from "./wire.ts";

/** 1 to 99 are the CNI specification's (section "Error"), 100 and up are ours. Promises: never given a new meaning. */
export const CNI_CODE = {
  version: 1,
  unsupported: 2,
  environment: 4,
  io: 5,
  decoding: 6,
  config: 7,
  netns: 8,
  tryAgain: 11,
  notAvailable: 50,
  kernel: 100,
  sandboxExists: 101,
  interfaceExists: 102,
  checkFailed: 103,
  protocol: 110,
} as const;

export type CniCode = (typeof CNI_CODE)[keyof typeof CNI_CODE];
export type CniError = { readonly code: CniCode; readonly message: string; readonly details: string };
export type Verb = "ADD" | "DEL" | "CHECK" | "STATUS" | "GC";

const SLOW_REFILL_TEXT =
  "the pool is being refilled, more slowly than this pod could wait; it is tried again. See the daemon's log if it repeats";

export function cniErrorOf(error: NodeError, verb: Verb): CniError {
  switch (error.code) {
    case "no-address":
      return {
        code: CNI_CODE.tryAgain,
        message: `no address for this pod after ${seconds(error.waitedMs)}: ${error.blocked === null ? SLOW_REFILL_TEXT : NO_ADDRESS_TEXT[error.blocked]}`,
        details: error.detail,
      };
    case "kernel-refused":
      return {
        code: CNI_CODE.kernel,
        message: `the kernel refused to ${error.step} (${error.errno}); nothing was left behind. If it repeats, see the daemon's log`,
        details: error.detail,
      };
    case "netns-invalid":
      return {
        code: CNI_CODE.netns,
        message:
          "CNI_NETNS cannot be used by the daemon; is the runtime's netns folder mounted into it with HostToContainer propagation?",
        details: `${error.path}: ${error.detail}`,
      };
    case "sandbox-exists":
      return {
        code: CNI_CODE.sandboxExists,
        message: "this sandbox is attached already; the runtime must DEL it before it can ADD it again",
        details: `${error.sandbox}: ${error.detail}`,
      };
    case "interface-exists":
      return {
        code: CNI_CODE.interfaceExists,
        message: `the sandbox has an interface ${error.ifName} already; is another CNI plugin in the chain making it?`,
        details: error.path,
      };
    case "checkpoint-unwritable":
      return {
        code: CNI_CODE.io,
        message: `the node's record cannot be written, so no address is given out; is the disk under ${error.path} full or read-only?`,
        details: error.detail,
      };
    case "cancelled":
      return {
        code: CNI_CODE.tryAgain,
        message: "the ADD was stopped and rolled back; the runtime may try again",
        details: error.detail,
      };
    case "not-ready":
      return {
        code: verb === "STATUS" ? CNI_CODE.notAvailable : CNI_CODE.tryAgain,
        message: "the berth daemon cannot serve yet; its log and /readyz say what it waits for",
        details: error.detail,
      };
    case "check-failed":
      return {
        code: CNI_CODE.checkFailed,
        message: "the sandbox's network is not as it was made; recreate the pod if it stays so",
        details: error.differences.join("; "),
      };
    case "config-refused":
      return {
        code: CNI_CODE.unsupported,
        message: `the network configuration's ${error.key} cannot be served; change or remove it in the conflist`,
        details: error.detail,
      };
  }
}

/** Why the pool does not grow, and what an operator can do about it. */
const NO_ADDRESS_TEXT: Readonly<Record<HoldReason, string>> = {
  "eni-limit":
    "this instance type holds no more addresses; lower the node's max-pods, use a larger type or prefix delegation",
  "max-pods":
    "as many addresses as the node may have pods are in use; raise BERTH_MAX_PODS_COUNT or free some",
  "subnet-exhausted":
    "the subnet has no free address; give the node another pod subnet or free addresses in this one",
  "prefixes-exhausted":
    "the subnet has no free /28 block; reserve one by a subnet CIDR reservation or turn prefix delegation off",
  throttled:
    "EC2 is throttling this account's calls; it is tried again. Fewer changes or a higher request quota help",
  "access-denied":
    "EC2 refuses the calls; attach the permissions of docs/reference/permissions.md to the daemon's role",
  failing: "EC2 refuses or cannot be reached; it is tried again. Is its endpoint reachable from the node?",
  "call-in-doubt":
    "the outcome of the last EC2 call is not certain; EC2 is looked at before it is asked again. Is its endpoint reachable from the node?",
  "link-awaited": "an ENI is attached, its link has not come up yet; it is tried again",
  "provisioning-off": "the pool may not grow: DISABLE_NETWORK_RESOURCE_PROVISIONING is set",
  cordoned: "the node is cordoned, so its pool does not grow; uncordon it",
  cooling: "the free addresses have only just been released and are resting; it is tried again",
  "on-target": SLOW_REFILL_TEXT,
};

/** What is answered to a frame that cannot be read. */
export function frameError(fault: FrameFault): CniError {
  const reinstall = "plugin and daemon must be neighbours in version; install both again";
  switch (fault.kind) {
    case "malformed":
      return {
        code: CNI_CODE.protocol,
        message: `the daemon cannot read this request; ${reinstall}`,
        details: fault.detail,
      };
    case "too-long":
      return {
        code: CNI_CODE.io,
        message: `the request is too long: ${fault.size} bytes of at most ${fault.sizeMax}; make the network configuration smaller`,
        details: "",
      };
    case "wrong-version":
      return {
        code: CNI_CODE.protocol,
        message: `the plugin speaks protocol version ${fault.version}, which this daemon does not; ${reinstall}`,
        details: "",
      };
  }
}

/** One line of JSON, as stdout carries it. CNI specification, "Error". */
export function printCniError(error: CniError, version: SpecVersion | null): string {
  const cniVersion = version ?? SPEC_VERSIONS[SPEC_VERSIONS.length - 1];
  return `${JSON.stringify({ cniVersion, code: error.code, msg: error.message, details: error.details })}\n`;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}
