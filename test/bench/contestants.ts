/**
 * Who is measured, in one node's namespace: our plugin, the reference plugins `ptp` and `host-local`, and the floor, which no
 * plugin can be faster than: an empty program, and the same kernel objects by raw batches of netlink messages.
 */
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { hostLinkName, sandboxMac } from "../../src/core/plumbing/names.ts";
import { routedPlumbing } from "../../src/core/plumbing/routed.ts";
import { sandboxId } from "../../src/core/model/sandbox.ts";
import type { KernelObject, SandboxPlumbing } from "../../src/core/plumbing/object.ts";
import { assert } from "../../src/lib/assert.ts";
import { ipv4, ipv4Plus } from "../../src/lib/ip.ts";
import { type LabNode, SHIM } from "../../src/lab/node.ts";
import { inNetns } from "../../src/lab/processes.ts";
import type { Pod } from "../../src/lab/runtime.ts";
import { parseLink } from "../../src/netlink/answers.ts";
import { Connection } from "../../src/netlink/connection.ts";
import {
  deleteRequest,
  linkDeleteRequest,
  linkGetRequest,
  linkSetRequest,
  type NetlinkRequest,
  putRequest,
  vethCreateRequest,
} from "../../src/netlink/messages.ts";
import type { Finished, Job, Launcher } from "./launcher.ts";

export type Verb = "ADD" | "DEL";

/** A plugin, by the process that a runtime would start. */
export type Contestant = {
  readonly name: string;
  readonly job: (verb: Verb, pod: Pod) => Job;
};

export function ours(node: LabNode): Contestant {
  return {
    name: "ours",
    job: (verb, pod) => ({ program: SHIM, ...node.runtime.request(verb, pod) }),
  };
}

/** `ptp` as it is fastest: no masquerading, and its leases on a tmpfs like our checkpoint. */
export function peer(node: LabNode, folder: string): Contestant {
  const config = {
    cniVersion: "1.0.0",
    name: "peer",
    type: "ptp",
    ipMasq: false,
    ipam: {
      type: "host-local",
      subnet: "10.90.0.0/16",
      routes: [{ dst: "0.0.0.0/0" }],
      dataDir: `/run/berth-bench/${node.name}-leases`,
    },
  };
  return {
    name: "ptp",
    job: (verb, pod) => ({
      program: join(folder, "ptp"),
      env: { ...node.runtime.request(verb, pod).env, CNI_PATH: folder },
      input: JSON.stringify(config),
    }),
  };
}

/** Runs one verb for all pods at once. Throws when one fails: what is slow is a figure, what is broken is not. */
export async function perform(
  launcher: Launcher,
  contestant: Contestant,
  verb: Verb,
  pods: readonly Pod[],
): Promise<{ readonly finished: readonly Finished[]; readonly wallMs: number }> {
  const done = await launcher.run(pods.map((pod) => contestant.job(verb, pod)));
  const failed = done.finished.filter(({ exitCode }) => exitCode !== 0);
  const [first] = failed;
  if (first === undefined) return done;
  throw new Error(
    `${failed.length} of ${pods.length} ${verb}s of ${contestant.name} failed: ${first.stdout.slice(0, 400)}`,
  );
}

/** The milliseconds of one ADD or DEL alone. */
export async function timeOne(
  launcher: Launcher,
  contestant: Contestant,
  verb: Verb,
  pod: Pod,
): Promise<number> {
  const [only] = (await perform(launcher, contestant, verb, [pod])).finished;
  assert(only !== undefined, "one job has one end");
  return only.ms;
}

export type Floor = {
  /** Milliseconds: the empty program, and the pod's kernel objects. */
  readonly add: (pod: Pod) => Promise<number>;
  /** Milliseconds: the empty program, and the route's deletion. The link goes afterwards, outside of the figure. */
  readonly del: (pod: Pod) => Promise<number>;
  readonly close: () => void;
};

const LIMITS = { addressesPerEni: 30, networkCards: [{ enis: 8 }], nitro: true };

/** `hostNetns` stands for the node's, but is not it: the daemon would take what it does not know there for leftovers. */
export function floor(launcher: Launcher, emptyProgram: string, hostNetns: string): Floor {
  const opened = inNetns(hostNetns, () => Connection.open());
  if (!opened.ok) throw new Error(`no netlink socket in ${hostNetns}: ${opened.error.code}`);
  const host = opened.value;
  let made = 0;
  const plumbed = new Map<string, SandboxPlumbing>();
  const spawnEmpty = async (): Promise<number> => {
    const { finished } = await launcher.run([{ program: emptyProgram, env: {}, input: "{}" }]);
    return finished[0]?.ms ?? Number.NaN;
  };
  return {
    add: async (pod) => {
      made += 1;
      const plumbing = plumbingOf(pod, made);
      plumbed.set(pod.netns, plumbing);
      const spawnMs = await spawnEmpty();
      const began = performance.now();
      plumb(host, pod.netns, plumbing);
      return spawnMs + performance.now() - began;
    },
    del: async (pod) => {
      const plumbing = plumbed.get(pod.netns);
      assert(plumbing !== undefined, "what is deleted was added");
      const spawnMs = await spawnEmpty();
      const began = performance.now();
      const index = indexOf(host, plumbing.pair.hostName);
      send(
        host,
        plumbing.host.map((object) => removal(object, index)),
      );
      const tookMs = performance.now() - began;
      send(host, [linkDeleteRequest({ index })]);
      return spawnMs + tookMs;
    },
    close: () => host.close(),
  };
}

function plumbingOf(pod: Pod, number: number): SandboxPlumbing {
  const key = { network: "floor", containerId: `${pod.containerId}-${number}`, ifName: "eth0" };
  const id = sandboxId(key);
  return routedPlumbing(
    {
      id,
      key,
      ip: ipv4Plus(ipv4("10.91.0.0"), 1 + (number % 60_000)),
      eniSlot: { networkCard: 0, deviceIndex: 0 },
      hostLink: hostLinkName("flr", id),
      hostMac: sandboxMac("host", id),
      podMac: sandboxMac("pod", id),
      mtu: 9_001,
    },
    LIMITS,
  );
}

/** Four sends: the pair with a look at it, a look at the pod's end, the pod's objects, the host's. Nothing is checked or looked up twice. */
function plumb(host: Connection, netns: string, plumbing: SandboxPlumbing): void {
  const { pair } = plumbing;
  const fd = openSync(netns, "r");
  try {
    const inside = inNetns(netns, () => Connection.open());
    if (!inside.ok) throw new Error(`no netlink socket in ${netns}: ${inside.error.code}`);
    const pod = inside.value;
    const [created, shown] = host.request([
      vethCreateRequest(pair, fd),
      linkGetRequest({ name: pair.hostName }),
    ]);
    if (created?.ok !== true || shown?.ok !== true) throw new Error("the floor's pair was not made");
    const hostIndex = shown.value[0] === undefined ? 0 : (parseLink(shown.value[0])?.index ?? 0);
    const podIndex = indexOf(pod, pair.podName);
    send(
      pod,
      plumbing.pod.map((object) => putRequest(object, podIndex)),
    );
    const hosts = plumbing.host.map((object) => putRequest(object, hostIndex));
    send(host, [linkSetRequest({ index: hostIndex }, { alias: pair.alias }), ...hosts]);
    pod.close();
  } finally {
    closeSync(fd);
  }
}

function removal(object: KernelObject, index: number): NetlinkRequest {
  assert(object.kind !== "link", "a pod's host objects are routes");
  return deleteRequest(object, index);
}

function indexOf(connection: Connection, name: string): number {
  const shown = connection.requestOne(linkGetRequest({ name }));
  const link = shown.ok && shown.value[0] !== undefined ? parseLink(shown.value[0]) : null;
  if (link === null) throw new Error(`there is no link ${name}`);
  return link.index;
}

function send(connection: Connection, requests: readonly NetlinkRequest[]): void {
  for (const answer of connection.request(requests))
    if (!answer.ok) throw new Error(`the floor's ${answer.error.what}: ${answer.error.code}`);
}
