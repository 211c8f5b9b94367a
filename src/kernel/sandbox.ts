/**
 * A sandbox's plumbing across two namespaces: the veth pair is made from the host with its pod end already inside, and so is an ipvlan
 * slave; the pod's own objects through a socket in its namespace, the host's last. All of it stands, or none.
 */
import type { NodeError } from "../core/model/error.ts";
import type { NetnsRef } from "../core/model/sandbox.ts";
import type { SandboxPlumbing, VethPair } from "../core/plumbing/object.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { parsePeerIndex } from "../netlink/answers.ts";
import type { Answer, Connection } from "../netlink/connection.ts";
import { linkDeleteRequest, linkGetRequest, linkSetRequest, vethCreateRequest } from "../netlink/messages.ts";
import { lookAtNetns as look, openInNetns, type NetnsConnection } from "../netlink/netns.ts";
import { applyOps, linkByName, linkOf, putAll } from "./apply.ts";
import { failureOf, type KernelFailure, netnsInvalid, refused } from "./failure.ts";
import { createSlave, loadPodFilter } from "./slave.ts";

/** Which namespace the path means now. Error: netns-invalid, also for the host's own namespace. */
export function lookAtNetns(path: string): Result<NetnsRef, NodeError> {
  const seen = look(path);
  return seen.ok
    ? ok({ path, device: seen.value.device, inode: seen.value.inode })
    : err(netnsInvalid(seen.error));
}

/**
 * Makes all of `plumbing`, in one synchronous stretch of under a millisecond. After a refusal what was made is taken away again:
 * routes at once, the pair by `deleteLink`, which does not wait.
 *
 * Errors: netns-invalid (also when the path means another namespace by now); interface-exists, when the pod's name is taken inside;
 * kernel-refused. A host link of the same name and alias is this sandbox's own, left by a crash or still on its way out: it is
 * deleted first, which takes some 20 ms.
 */
export function plumbSandbox(
  host: Connection,
  netns: NetnsRef,
  plumbing: SandboxPlumbing,
  deleteLink: (name: string) => void,
): Result<null, NodeError> {
  const opened = openInNetns(netns.path, netns);
  if (!opened.ok) return err(netnsInvalid(opened.error));
  const pod = opened.value;
  try {
    const made = createPair(host, pod, netns, plumbing.pair);
    if (!made.ok) return made;
    const { slave, filter } = plumbing;
    const joined = slave === undefined ? ok(null) : createSlave(host, pod, netns.path, slave);
    const loaded = joined.ok && filter !== undefined ? loadPodFilter(pod, filter) : null;
    const failed = joined.ok ? (loaded ?? finish(host, pod.connection, plumbing, made.value)) : null;
    if (joined.ok && failed === null) return ok(null);
    unplumbSandbox(host, plumbing, deleteLink);
    // Waits for the kernel, some 20 ms; but the address must be free again when we answer.
    if (joined.ok && slave !== undefined) pod.connection.requestOne(linkDeleteRequest({ name: slave.name }));
    return joined.ok && failed !== null ? err(refused(failed)) : joined;
  } finally {
    pod.close();
  }
}

/** Takes the host's routes away at once, so that nothing reaches the pod's address any more, and the pair afterwards. */
export function unplumbSandbox(
  host: Connection,
  plumbing: SandboxPlumbing,
  deleteLink: (name: string) => void,
): readonly KernelFailure[] {
  const { hostName } = plumbing.pair;
  // Links among the host's objects go with the pair.
  const objects = plumbing.host.filter(({ kind }) => kind !== "link").reverse();
  const ops = objects.map((object) => ({ verb: "delete", object }) as const);
  return applyOps(host, [...ops, { verb: "delete-link", name: hostName }], deleteLink);
}

/** The pair's indexes, each in its end's namespace. The pod's is null where the kernel does not tell it to the host. */
type PairMade = { readonly hostIndex: number; readonly podIndex: number | null };

function finish(
  host: Connection,
  pod: Connection,
  plumbing: SandboxPlumbing,
  { hostIndex, podIndex }: PairMade,
): KernelFailure | null {
  const { pair } = plumbing;
  const inside = putAll(pod, plumbing.pod, new Map(podIndex === null ? [] : [[pair.podName, podIndex]]));
  if (inside !== null) return inside;
  // By index: the name could be another link's by now only if someone renames links under us, but then the alias must not be theirs.
  const alias = linkSetRequest({ index: hostIndex }, { alias: pair.alias });
  return putAll(host, plumbing.host, new Map([[pair.hostName, hostIndex]]), [alias]);
}

/** The alias is not set yet: the kernel ignores it in the message that makes the pair. */
function createPair(
  host: Connection,
  pod: NetnsConnection,
  netns: NetnsRef,
  pair: VethPair,
): Result<PairMade, NodeError> {
  for (let attempt = 0; ; attempt += 1) {
    const [created, shown] = host.request([
      vethCreateRequest(pair, pod.fd),
      linkGetRequest({ name: pair.hostName }),
    ]);
    if (created?.ok === true) {
      const link = shown === undefined ? null : linkOf(shown);
      if (link !== null) return ok({ hostIndex: link.index, podIndex: peerIndexOf(shown) });
      return err(
        refused({ step: `link add ${pair.hostName}`, errno: "ENODEV", detail: "the link went away at once" }),
      );
    }
    const failure =
      created === undefined
        ? { step: `link add ${pair.hostName}`, errno: "ENOANSWER", detail: "" }
        : failureOf(created.error);
    if (failure.errno !== "EEXIST") return err(refused(failure));

    const inside = linkByName(pod.connection, pair.podName);
    if (inside.ok && inside.value !== null) {
      return err({ code: "interface-exists", ifName: pair.podName, path: netns.path });
    }
    // So the host's name is taken. It is derived from the sandbox; with this alias, or with none, nobody else's pair has it.
    const taken = shown === undefined ? null : linkOf(shown);
    const ours =
      taken !== null && taken.kind === "veth" && (taken.alias === null || taken.alias === pair.alias);
    if (!ours || attempt > 0) {
      const detail = `the host has a link ${pair.hostName} that is not this sandbox's`;
      return err(refused({ ...failure, detail }));
    }
    host.requestOne(linkDeleteRequest({ index: taken.index }));
  }
}

function peerIndexOf(shown: Answer | undefined): number | null {
  const message = shown?.ok === true ? shown.value[0] : undefined;
  return message === undefined ? null : parsePeerIndex(message);
}
