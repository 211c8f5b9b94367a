/**
 * Forgets the connections of an address that changes hands: an entry of the old pod, a UDP one above all, would go on
 * translating packets for the new one (aws/amazon-vpc-cni-k8s#3634, #373). Nobody waits for it. The kernel walks its whole table for each
 * request, so that is done on a pool thread, one address at a time.
 */
import type { Ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { NetlinkError } from "../netlink/answers.ts";
import { Connection, NETLINK_NETFILTER } from "../netlink/connection.ts";
import {
  CONNTRACK_PLACES,
  type ConntrackEntry,
  conntrackDeleteRequest,
  conntrackDumpRequest,
  conntrackEntryDeleteRequest,
  parseConntrackEntry,
} from "../netlink/ctnetlink.ts";
import { failureOf, type KernelFailure } from "./failure.ts";

export type Conntrack = {
  /** Asked twice while it waits, an address is forgotten once. Resolves when it is done; a kernel without conntrack has nothing to forget. */
  readonly forget: (ip: Ipv4) => Promise<Result<null, KernelFailure>>;
  readonly close: () => Promise<void>;
};

export function createConntrack(): Result<Conntrack, KernelFailure> {
  const opened = Connection.open(NETLINK_NETFILTER);
  if (!opened.ok) return err(failureOf(opened.error));
  const connection = opened.value;
  let deletesByFilter = true;
  const waiting = new Map<Ipv4, Promise<Result<null, KernelFailure>>>();
  let last: Promise<unknown> = Promise.resolve();

  const forgetNow = async (ip: Ipv4): Promise<Result<null, KernelFailure>> => {
    if (deletesByFilter) {
      const refusal = await deleteByFilter(connection, ip);
      if (refusal === null) return ok(null);
      if (refusal.code !== "EINVAL" && refusal.code !== "EOPNOTSUPP") return err(failureOf(refusal));
      deletesByFilter = false;
    }
    const refusal = deleteOneByOne(connection, ip);
    return refusal === null ? ok(null) : err(failureOf(refusal));
  };

  const forget: Conntrack["forget"] = (ip) => {
    const already = waiting.get(ip);
    if (already !== undefined) return already;
    const turn = last.then(() => {
      waiting.delete(ip); // From here on, entries may come that this walk does not see.
      return forgetNow(ip);
    });
    waiting.set(ip, turn);
    last = turn;
    return turn;
  };

  const close = async (): Promise<void> => {
    await last;
    connection.close();
  };
  return ok({ forget, close });
}

/** Null when it is done. */
async function deleteByFilter(connection: Connection, ip: Ipv4): Promise<NetlinkError | null> {
  for (const place of CONNTRACK_PLACES) {
    const answer = await connection.requestOffThread(conntrackDeleteRequest(ip, place));
    if (!answer.ok && answer.error.code !== "ENOENT") return answer.error;
  }
  return null;
}

/** For kernels before 6.5. On the main thread: the kernel filters, so that little comes back. */
function deleteOneByOne(connection: Connection, ip: Ipv4): NetlinkError | null {
  for (const place of CONNTRACK_PLACES) {
    const found = connection.dump<ConntrackEntry>(conntrackDumpRequest(ip, place), parseConntrackEntry);
    if (!found.ok) return found.error;
    const ours = found.value.objects.filter((entry) => entry.ips.includes(ip));
    for (const answer of connection.request(ours.map(conntrackEntryDeleteRequest))) {
      if (!answer.ok && answer.error.code !== "ENOENT") return answer.error;
    }
  }
  return null;
}
