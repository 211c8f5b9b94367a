/**
 * Network namespaces of sandboxes: which one a path means now, and a connection inside it. A namespace belongs to a thread, so
 * the main thread goes in, opens a socket and comes back within one synchronous stretch; the socket stays inside.
 */
import { closeSync, constants, fstatSync, openSync, stat, statfsSync } from "node:fs";
import { err, ok, type Result } from "../lib/result.ts";
import * as libc from "../libc/libc.ts";
import { errnoName } from "./answers.ts";
import { Connection } from "./connection.ts";

const NSFS_MAGIC = 0x6e73_6673; // linux/magic.h

/**
 * - `gone`: nothing is at the path (ENOENT), or what was there is no namespace any more.
 * - `not-a-namespace`: the path is a file, a folder, or a namespace of another kind.
 * - `host`: the path is the host's own network namespace: plumbing a sandbox there would break the node.
 * - `changed`: the path means another namespace than it did (device and inode differ).
 * - `refused`: the system said no; `detail` has the errno's name.
 */
export type NetnsError = {
  readonly kind: "gone" | "not-a-namespace" | "host" | "changed" | "refused";
  readonly path: string;
  readonly detail: string;
};

/** Device and inode tell one namespace from another for as long as something holds it. */
export type NetnsIdentity = { readonly device: number; readonly inode: number };

/** An open namespace and a connection inside it. `fd` may stand in IFLA_NET_NS_FD until `close`. */
export type NetnsConnection = NetnsIdentity & {
  readonly fd: number;
  readonly connection: Connection;
  readonly close: () => void;
};

// The host's namespace, as the main thread was in it when this was first asked for; held open, so that there is always a way back.
let host: ({ readonly fd: number } & NetnsIdentity) | null = null;

/** The namespace that this process lives in: the way back, and what no sandbox may be. */
export function hostNetns(): { readonly fd: number } & NetnsIdentity {
  if (host === null) {
    // thread-self, not self: on threads other than the first, `self` shows the main thread's.
    const fd = openSync("/proc/thread-self/ns/net", constants.O_RDONLY);
    const { dev, ino } = fstatSync(fd);
    host = { fd, device: dev, inode: ino };
  }
  return host;
}

/** Which namespace the path means now. Refuses what is no namespace, and the host's own. */
export function lookAtNetns(path: string): Result<NetnsIdentity, NetnsError> {
  const opened = openNetns(path);
  if (!opened.ok) return opened;
  closeSync(opened.value.fd);
  return ok({ device: opened.value.device, inode: opened.value.inode });
}

/**
 * A connection inside the namespace at `path`. With `expected`: only if it is still that one, since a path can come to mean
 * another namespace. The caller closes.
 */
export function openInNetns(
  path: string,
  expected: NetnsIdentity | null,
): Result<NetnsConnection, NetnsError> {
  const opened = openNetns(path);
  if (!opened.ok) return opened;
  const { fd, device, inode } = opened.value;
  if (expected !== null && (expected.device !== device || expected.inode !== inode)) {
    closeSync(fd);
    const detail = `it is ${device}:${inode} now, and was ${expected.device}:${expected.inode}`;
    return err({ kind: "changed", path, detail });
  }
  const inside = withinNetns(fd, () => Connection.open());
  if (!inside.ok || !inside.value.ok) {
    closeSync(fd);
    if (!inside.ok) {
      // setns refuses with EINVAL a namespace of another kind: /proc/1/ns/pid is on nsfs too.
      const kind = inside.error === "EINVAL" ? "not-a-namespace" : "refused";
      return err({ kind, path, detail: `setns: ${inside.error}` });
    }
    return err({ kind: "refused", path, detail: inside.value.ok ? "" : inside.value.error.code });
  }
  const connection = inside.value.value;
  const close = (): void => {
    connection.close();
    closeSync(fd);
  };
  return ok({ fd, device, inode, connection, close });
}

let poolStarted = false;

/**
 * Runs `work` with the calling thread inside the namespace, and comes back, whatever happens. `work` must be synchronous and
 * must start no thread: a thread begun inside stays there for ever (one readFile and one Worker did strand libuv's whole pool).
 * Not coming back ends the process at once: everything after would be done to a pod instead of to the host.
 * Error: the errno's name, from going in.
 */
export function withinNetns<T>(fd: number, work: () => T): Result<T, string> {
  const home = hostNetns();
  if (!poolStarted) {
    poolStarted = true;
    stat("/", () => {}); // Its first request starts libuv's whole pool, here and outside.
  }
  const entered = libc.setns(fd, libc.CLONE_NEWNET);
  if (!entered.ok) return err(errnoName(entered.error));
  try {
    return ok(work());
  } finally {
    if (!libc.setns(home.fd, libc.CLONE_NEWNET).ok) process.abort();
  }
}

function openNetns(path: string): Result<{ readonly fd: number } & NetnsIdentity, NetnsError> {
  const home = hostNetns();
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK); // A pipe at the path must not hold us.
  } catch (cause) {
    const code = codeOf(cause);
    return err({ kind: code === "ENOENT" || code === "ENOTDIR" ? "gone" : "refused", path, detail: code });
  }
  const { dev, ino } = fstatSync(fd);
  // By the descriptor, not by the path again: what is checked is what is entered.
  const refusal =
    statfsSync(`/proc/self/fd/${fd}`).type !== NSFS_MAGIC
      ? ({ kind: "not-a-namespace", path, detail: "it is not on nsfs" } as const)
      : dev === home.device && ino === home.inode
        ? ({ kind: "host", path, detail: "it is the host's own network namespace" } as const)
        : null;
  if (refusal === null) return ok({ fd, device: dev, inode: ino });
  closeSync(fd);
  return err(refusal);
}

function codeOf(cause: unknown): string {
  return cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
}
