/** The host's kernel as one value of functions: what the agent needs of it (agent/ports.ts, Kernel), over one connection. */
import type { NodeError } from "../core/model/error.ts";
import type { NetnsRef } from "../core/model/sandbox.ts";
import { GROUP_LAST, PACKET_FILTER_TABLE } from "../core/plumbing/names.ts";
import type { Sysctl } from "../core/plumbing/node-host.ts";
import type { HostSeen, KernelObject, KernelOp, LinkSeen, SandboxPlumbing } from "../core/plumbing/object.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { Connection } from "../netlink/connection.ts";
import { hostNetns, openInNetns } from "../netlink/netns.ts";
import { createUnlinker } from "../netlink/unlink.ts";
import { applyOps, type FailedOp, putAll } from "./apply.ts";
import { checkSandbox } from "./check.ts";
import { createConntrack } from "./conntrack.ts";
import { failureOf, type KernelFailure } from "./failure.ts";
import { observe, observeLinks } from "./observe.ts";
import { createPacketFilter, type LoadedFilter } from "./packet-filter.ts";
import { lookAtNetns, plumbSandbox } from "./sandbox.ts";
import { deleteSlave, type DoomedSlave, ipvlanMissing } from "./slave.ts";
import { createSysctlFiles, ensureSysctls } from "./sysctl.ts";

/**
 * Links on their way out. It is the last of our groups and no ENI's, but inside the range that the packet filter guards: what a
 * doomed pod still sends is dropped.
 */
const DOOMED_GROUP = GROUP_LAST;

export type HostKernel = {
  readonly observe: () => Result<HostSeen, KernelFailure>;
  readonly observeLinks: () => Result<readonly LinkSeen[], KernelFailure>;
  readonly apply: (ops: readonly KernelOp[]) => readonly FailedOp[];
  readonly lookAtNetns: (path: string) => Result<NetnsRef, NodeError>;
  readonly plumbSandbox: (netns: NetnsRef, plumbing: SandboxPlumbing) => Result<null, NodeError>;
  readonly checkSandbox: (netns: NetnsRef, plumbing: SandboxPlumbing) => Result<readonly string[], NodeError>;
  readonly deleteLink: (name: string, inside?: DoomedSlave) => Promise<Result<null, KernelFailure>>;
  readonly putInside: (netns: NetnsRef, objects: readonly KernelObject[]) => KernelFailure | null;
  readonly ipvlanMissing: () => string | null;
  /** True when it had to be loaded: the text is new, or the table is not as it was loaded any more. */
  readonly ensurePacketFilter: (text: string) => Promise<Result<boolean, KernelFailure>>;
  readonly ensureSysctls: (sysctls: readonly Sysctl[]) => readonly KernelFailure[];
  readonly forgetConnections: (ip: Ipv4) => void;
  /** Ports of the connections: events with them are our own doing (netlink/monitor.ts). */
  readonly ports: readonly number[];
  /** Lets the deletions under way end, then closes. */
  readonly close: () => Promise<void>;
};

/**
 * `onLateFailure`: what failed when nobody waited for it any more (a link that `apply` or an undone ADD began to delete, connections
 * that could not be forgotten). The sweep will see such a link again; it is told for the log.
 */
export function createHostKernel(options: {
  readonly onLateFailure: (failure: KernelFailure) => void;
  readonly sysctlRoot?: string; // Default /proc/sys.
  readonly nft?: string; // The program; default is `nft` on PATH.
}): Result<HostKernel, KernelFailure> {
  hostNetns(); // Held from the start: the way back from every sandbox.
  const opened = Connection.open();
  if (!opened.ok) return err(failureOf(opened.error));
  const host = opened.value;
  const unlinker = createUnlinker({ host, doomedGroup: DOOMED_GROUP });
  if (!unlinker.ok) {
    host.close();
    return err(failureOf(unlinker.error));
  }
  // A kernel without ctnetlink keeps no connections to forget.
  const conntrack = createConntrack();

  const sysctls = createSysctlFiles(options.sysctlRoot);
  const filter = createPacketFilter({
    table: PACKET_FILTER_TABLE,
    ...(options.nft === undefined ? {} : { nft: options.nft }),
  });
  let loaded: { readonly text: string; readonly filter: LoadedFilter } | null = null;

  const ensurePacketFilter: HostKernel["ensurePacketFilter"] = async (text) => {
    if (loaded?.text === text) {
      const state = await filter.state(loaded.filter);
      if (!state.ok) return state;
      if (state.value === "equal") return ok(false);
    }
    const fresh = await filter.load(text);
    if (!fresh.ok) return fresh;
    loaded = { text, filter: fresh.value };
    return ok(true);
  };

  const deleteLink: HostKernel["deleteLink"] = async (name, inside) => {
    const leaving = unlinker.value.unlink(name);
    const slave = inside === undefined ? ok(null) : await deleteSlave(inside);
    const gone = await leaving;
    return gone.ok ? slave : err(failureOf(gone.error));
  };
  const later = (work: Promise<Result<null, KernelFailure>>): void => {
    const tell = (cause: unknown): void =>
      options.onLateFailure({ step: "on a pool thread", errno: "", detail: String(cause) });
    work.then((done) => (done.ok ? undefined : options.onLateFailure(done.error)), tell);
  };
  const startDeleting = (name: string): void => later(deleteLink(name));

  return ok({
    observe: () => observe(host),
    observeLinks: () => observeLinks(host),
    apply: (ops) => applyOps(host, ops, startDeleting),
    lookAtNetns,
    plumbSandbox: (netns, plumbing) => plumbSandbox(host, netns, plumbing, startDeleting),
    checkSandbox: (netns, plumbing) => checkSandbox(host, netns, plumbing),
    deleteLink,
    putInside: (netns, objects) => {
      const opened = openInNetns(netns.path, netns);
      if (!opened.ok) return { step: "setns", errno: opened.error.kind, detail: opened.error.detail };
      const failed = putAll(opened.value.connection, objects);
      opened.value.close();
      return failed;
    },
    ipvlanMissing: () => ipvlanMissing(host),
    ensurePacketFilter,
    ensureSysctls: (wanted) => ensureSysctls(sysctls, wanted),
    forgetConnections: (ip) => {
      if (conntrack.ok) later(conntrack.value.forget(ip));
    },
    ports: [host.port, ...unlinker.value.ports],
    close: async () => {
      await unlinker.value.close();
      if (conntrack.ok) await conntrack.value.close();
      host.close();
    },
  });
}
