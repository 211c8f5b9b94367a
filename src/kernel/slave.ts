/**
 * The parts of an ipvlan pod that a routed one does not have: the slave of its ENI's link, and the nft table inside. Made from the host's
 * namespace and the pod's own; taken away with the pod's address first, since two slaves of one ENI may not have one.
 */
import type { NodeError } from "../core/model/error.ts";
import type { NetnsRef } from "../core/model/sandbox.ts";
import { linkOfEni } from "../core/plumbing/eni-host.ts";
import type { IpvlanSlave, PodFilter, SandboxPlumbing } from "../core/plumbing/object.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { parseAddress } from "../netlink/answers.ts";
import { Connection, NETLINK_NETFILTER } from "../netlink/connection.ts";
import {
  deleteRequest,
  dumpRequests,
  ipvlanCreateRequest,
  ipvlanProbeRequest,
  linkDeleteRequest,
  linkSetRequest,
  noLinkLocalRequest,
} from "../netlink/messages.ts";
import { openInNetns, type NetnsConnection, withinNetns } from "../netlink/netns.ts";
import { parsePodRule, podFilterDump, podFilterLines, podFilterRequests } from "../netlink/nftables.ts";
import { linkByName } from "./apply.ts";
import { failureOf, type KernelFailure, refused } from "./failure.ts";
import { observeLinks } from "./observe.ts";

const NO_IPVLAN =
  "this kernel has no ipvlan (CONFIG_IPVLAN): load its module, use a kernel that has it, or set BERTH_DATA_PATH=routed";
const NO_IPV6 = new Set(["EAFNOSUPPORT", "EOPNOTSUPP", "EPROTONOSUPPORT"]);

/** Why there can be no ipvlan pods on this machine, with the remedy; null when there can. Asks for a link that is never made. */
export function ipvlanMissing(host: Connection): string | null {
  const answer = host.requestOne(ipvlanProbeRequest);
  return !answer.ok && answer.error.code === "EOPNOTSUPP" ? NO_IPVLAN : null;
}

/**
 * Makes the slave in the pod's namespace, down and without address. It is born under another name: the kernel looks for the name that a
 * message gives in the sender's namespace, where an ENI is called eth0, too (tried with 6.1: EEXIST). What this sandbox's earlier ADD left
 * there is deleted first (20 ms). Errors: interface-exists; kernel-refused, with the ENI's MAC where its link is not there.
 */
export function createSlave(
  host: Connection,
  pod: NetnsConnection,
  path: string,
  slave: IpvlanSlave,
): Result<null, NodeError> {
  const links = observeLinks(host);
  if (!links.ok) return err(refused(links.error));
  const parent = linkOfEni(links.value, slave.parentMac);
  const step = `link add ${slave.name} type ipvlan`;
  if (parent === null)
    return err(refused({ step, errno: "ENODEV", detail: `no link has the ENI's MAC ${slave.parentMac}` }));
  for (const name of [slave.name, slave.bornAs]) {
    const found = linkByName(pod.connection, name);
    if (!found.ok) return err(refused(found.error));
    if (found.value === null) continue;
    if (!isOurs(found.value, slave)) return err({ code: "interface-exists", ifName: name, path });
    pod.connection.requestOne(linkDeleteRequest({ index: found.value.index }));
  }
  const made = host.requestOne(ipvlanCreateRequest(slave, parent.index, pod.fd));
  if (!made.ok) {
    const failure = failureOf(made.error);
    return err(refused(failure.errno === "EOPNOTSUPP" ? { ...failure, detail: NO_IPVLAN } : failure));
  }
  const born = linkByName(pod.connection, slave.bornAs);
  if (!born.ok) return err(refused(born.error));
  if (born.value === null)
    return err(refused({ step, errno: "ENODEV", detail: "the link went away at once" }));
  const { index } = born.value;
  const [named, quiet] = pod.connection.request([
    linkSetRequest({ index }, { rename: slave.name, alias: slave.alias }),
    noLinkLocalRequest({ index }),
  ]);
  if (named?.ok === false) return err(refused(failureOf(named.error)));
  if (quiet?.ok === false && !NO_IPV6.has(quiet.error.code)) return err(refused(failureOf(quiet.error)));
  return ok(null);
}

/** Without alias it was left by a crash between its creation and its naming. */
function isOurs(
  link: { readonly kind: string | null; readonly alias: string | null; readonly mac: string },
  slave: Pick<IpvlanSlave, "alias" | "parentMac">,
): boolean {
  return (
    link.kind === "ipvlan" &&
    (link.alias === slave.alias || (link.alias === null && link.mac === slave.parentMac))
  );
}

/** Loads the table in the pod's namespace, in place of an older one. Null when it is there. */
export function loadPodFilter(pod: NetnsConnection, filter: PodFilter): KernelFailure | null {
  const opened = openNetfilter(pod);
  if (!opened.ok) return opened.error;
  const loaded = opened.value.transaction(podFilterRequests(filter));
  opened.value.close();
  return loaded.ok ? null : failureOf(loaded.error);
}

/** One sentence for each rule that is missing or too much. */
export function podFilterDifferences(
  pod: NetnsConnection,
  filter: PodFilter,
): Result<readonly string[], KernelFailure> {
  const opened = openNetfilter(pod);
  if (!opened.ok) return opened;
  const rules = opened.value.dump(podFilterDump, parsePodRule);
  opened.value.close();
  if (!rules.ok) return err(failureOf(rules.error));
  const chainOf = (line: string): string => line.split(":")[0] ?? "";
  const should = podFilterLines(filter);
  const is = rules.value.objects;
  return ok([
    ...should
      .filter((line) => !is.includes(line))
      .map((line) => `a rule of chain ${chainOf(line)} is missing in table ip berth`),
    ...is
      .filter((line) => !should.includes(line))
      .map((line) => `a rule of chain ${chainOf(line)} is not ours in table ip berth`),
  ]);
}

/** nfnetlink has a socket of its own, opened inside the namespace as the other was. */
function openNetfilter(pod: NetnsConnection): Result<Connection, KernelFailure> {
  const inside = withinNetns(pod.fd, () => Connection.open(NETLINK_NETFILTER));
  if (!inside.ok) return err({ step: "setns", errno: inside.error, detail: "" });
  return inside.value.ok ? inside.value : err(failureOf(inside.value.error));
}

/** Which slave goes: that of `plumbing`, in that namespace. */
export type DoomedSlave = { readonly netns: NetnsRef; readonly plumbing: SandboxPlumbing };

/**
 * Takes the pod's address off its slave at once, and deletes the slave off the main thread. Nothing is to do where the namespace is
 * gone, since its links went with it, or where the name is another link's.
 */
export async function deleteSlave({ netns, plumbing }: DoomedSlave): Promise<Result<null, KernelFailure>> {
  const { slave, filter } = plumbing;
  if (slave === undefined || filter === undefined) return ok(null);
  const opened = openInNetns(netns.path, netns);
  if (!opened.ok) return ok(null);
  const { connection, close } = opened.value;
  try {
    const link = linkByName(connection, slave.name);
    if (!link.ok) return link;
    if (link.value === null || !isOurs(link.value, slave)) return ok(null);
    dropAddress(connection, link.value.index, slave.name, filter.ip);
    const gone = await connection.requestOffThread(linkDeleteRequest({ index: link.value.index }));
    return gone.ok || gone.error.code === "ENODEV" ? ok(null) : err(failureOf(gone.error));
  } finally {
    close();
  }
}

function dropAddress(connection: Connection, index: number, link: string, ip: Ipv4): void {
  const addresses = connection.dump(dumpRequests.addresses, parseAddress);
  if (!addresses.ok) return; // It goes with the slave.
  for (const address of addresses.value.objects) {
    if (address.linkIndex !== index || address.ip !== ip) continue;
    const { prefixLength } = address;
    connection.requestOne(
      deleteRequest({ kind: "address", link, ip, prefixLength, noPrefixRoute: false }, index),
    );
  }
}
