/**
 * The kernel of one node in memory, as far as the agent asks for it: links, addresses, routes and rules of the host, and namespaces with the
 * pod ends of veths in them. It keeps Linux's habits that matter here: a veth dies with either end's namespace, addresses and routes die with
 * their link, a put on a link that is not there is refused. Refusals are scripted by step.
 */
import type { Kernel, KernelFailure } from "../../src/agent/ports.ts";
import type { Mac } from "../../src/core/model/eni.ts";
import type { NodeError } from "../../src/core/model/error.ts";
import type { NetnsRef } from "../../src/core/model/sandbox.ts";
import { ROUTE_PROTOCOL } from "../../src/core/plumbing/names.ts";
import type {
  HostSeen,
  KernelObject,
  KernelOp,
  LinkSeen,
  SandboxPlumbing,
} from "../../src/core/plumbing/object.ts";
import type { Ipv4 } from "../../src/lib/ip.ts";
import { err, ok, type Result } from "../../src/lib/result.ts";
import type { VirtualTime } from "./virtual-time.ts";

type Route = HostSeen["routes"][number];
type Rule = HostSeen["rules"][number];
type Netns = { readonly ref: NetnsRef; readonly links: Map<string, { readonly host: string }> };

export type Step = "observe" | "plumbSandbox" | "deleteLink" | "put" | "delete" | "ensurePacketFilter";

/** How long the kernel takes to delete a link. */
export const UNLINK_MS = 20;

export function createFakeKernel(clock: VirtualTime) {
  const links = new Map<string, LinkSeen>();
  const peers = new Map<string, { readonly netns: Netns; readonly name: string }>(); // By host link.
  const netnses = new Map<string, Netns>(); // By path.
  let addresses: HostSeen["addresses"][number][] = [];
  let routes: Route[] = [];
  let rules: Rule[] = [];
  let [indexes, inodes] = [1, 100];
  const refusals: { step: Step; times: number; errno: string }[] = [];
  const forgotten: Ipv4[] = [];
  let filter: string | null = null;
  let withoutIpvlan: string | null = null;

  const refusal = (step: Step): KernelFailure | null => {
    const script = refusals.find((each) => each.step === step && each.times > 0);
    if (script === undefined) return null;
    script.times -= 1;
    return { step, errno: script.errno, detail: "scripted" };
  };
  const addLink = (link: Partial<LinkSeen> & { readonly name: string; readonly mac: Mac }): void => {
    const index = (indexes += 1);
    links.set(link.name, { index, mtu: 1500, up: false, group: 0, alias: null, kind: null, ...link });
  };
  const dropLink = (name: string): void => {
    links.delete(name);
    routes = routes.filter((route) => route.link !== name);
    addresses = addresses.filter((address) => address.link !== name);
    const peer = peers.get(name);
    peers.delete(name);
    peer?.netns.links.delete(peer.name);
  };
  const sameRoute = (left: Route, right: Extract<KernelObject, { kind: "route" }>): boolean =>
    left.table === right.table &&
    left.destination.ip === right.destination.ip &&
    left.destination.prefixLength === right.destination.prefixLength;
  const ruleText = ({ priority, mark, from, to, iif, table }: Omit<Rule, "protocol">): string =>
    JSON.stringify([priority, mark, from, to, iif, table]);

  const put = (object: KernelObject): KernelFailure | null => {
    const noDevice = (link: string): KernelFailure | null =>
      links.has(link) ? null : { step: `put ${object.kind}`, errno: "ENODEV", detail: link };
    switch (object.kind) {
      case "link": {
        const link = links.get(object.name);
        if (link === undefined) return noDevice(object.name);
        const group = object.group ?? link.group;
        links.set(link.name, { ...link, mtu: object.mtu, up: object.up, group });
        return null;
      }
      case "address": {
        const { link, ip, prefixLength } = object;
        if (!links.has(link)) return noDevice(link);
        addresses = [
          ...addresses.filter((each) => each.link !== link || each.ip !== ip),
          { link, ip, prefixLength },
        ];
        return null;
      }
      case "route":
        if (!links.has(object.link)) return noDevice(object.link);
        routes = [
          ...routes.filter((each) => !sameRoute(each, object)),
          { ...object, protocol: ROUTE_PROTOCOL },
        ];
        return null;
      case "rule":
        rules = [
          ...rules.filter((each) => ruleText(each) !== ruleText(object)),
          { ...object, protocol: ROUTE_PROTOCOL },
        ];
        return null;
      case "neighbour":
        return noDevice(object.link);
    }
  };
  const drop = (object: KernelObject): void => {
    switch (object.kind) {
      case "route":
        routes = routes.filter((each) => !(sameRoute(each, object) && each.link === object.link));
        return;
      case "rule":
        rules = rules.filter((each) => ruleText(each) !== ruleText(object));
        return;
      case "address":
        addresses = addresses.filter((each) => each.link !== object.link || each.ip !== object.ip);
        return;
      case "link":
      case "neighbour":
        return;
    }
  };
  const livingAt = (ref: NetnsRef): Netns | null => {
    const netns = netnses.get(ref.path);
    return netns?.ref.device === ref.device && netns.ref.inode === ref.inode ? netns : null;
  };
  const invalid = (path: string): Result<never, NodeError> =>
    err({ code: "netns-invalid", path, detail: "ENOENT" });

  const plumb = (ref: NetnsRef, plumbing: SandboxPlumbing): Result<null, NodeError> => {
    const netns = livingAt(ref);
    if (netns === null) return invalid(ref.path);
    const { hostName, hostMac, group, alias, podName, hostMtu } = plumbing.pair;
    if (netns.links.has(podName)) return err({ code: "interface-exists", ifName: podName, path: ref.path });
    if (links.has(hostName)) dropLink(hostName); // Its own, left by a crash.
    addLink({ name: hostName, mac: hostMac, mtu: hostMtu, up: true, group, alias, kind: "veth" });
    netns.links.set(podName, { host: hostName });
    peers.set(hostName, { netns, name: podName });
    const refused = refusal("plumbSandbox") ?? plumbing.host.map(put).find((each) => each !== null) ?? null;
    if (refused === null) return ok(null);
    dropLink(hostName);
    return err({ code: "kernel-refused", ...refused });
  };

  const kernel: Kernel = {
    observe: () => {
      const refused = refusal("observe");
      if (refused !== null) return err(refused);
      return ok({ links: [...links.values()], addresses, routes, rules, unreadable: 0 });
    },
    observeLinks: () => ok([...links.values()]),
    ipvlanMissing: () => withoutIpvlan,
    apply: (ops: readonly KernelOp[]) =>
      ops.flatMap((op) => {
        if (op.verb === "delete-link") {
          dropLink(op.name);
          return [];
        }
        const refused = refusal(op.verb) ?? (op.verb === "put" ? put(op.object) : null);
        if (refused !== null) return [{ ...refused, op }];
        if (op.verb === "delete") drop(op.object);
        return [];
      }),
    lookAtNetns: (path) => {
      const netns = netnses.get(path);
      return netns === undefined ? invalid(path) : ok(netns.ref);
    },
    plumbSandbox: plumb,
    checkSandbox: (ref, plumbing) => {
      const netns = livingAt(ref);
      if (netns === null) return invalid(ref.path);
      const { hostName, podName, group } = plumbing.pair;
      const differences: string[] = [];
      const link = links.get(hostName);
      if (link === undefined) differences.push(`host: link ${hostName} is missing`);
      else if (link.group !== group) differences.push(`host: link ${hostName} has group ${link.group}`);
      if (!netns.links.has(podName)) differences.push(`pod: link ${podName} is missing`);
      for (const object of plumbing.host) {
        if (object.kind === "route" && !routes.some((each) => sameRoute(each, object)))
          differences.push(`host: route ${object.destination.ip} is missing`);
      }
      return ok(differences);
    },
    deleteLink: async (name) => {
      const refused = refusal("deleteLink");
      await clock.time.sleep(UNLINK_MS, NEVER_ABORTED);
      if (refused !== null) return err(refused);
      dropLink(name);
      return ok(null);
    },
    ensurePacketFilter: async (text) => {
      await Promise.resolve();
      const refused = refusal("ensurePacketFilter");
      if (refused !== null) return err(refused);
      const fresh = filter !== text;
      filter = text;
      return ok(fresh);
    },
    ensureSysctls: () => [],
    forgetConnections: (ip) => void forgotten.push(ip),
  };

  return {
    kernel,
    links,
    forgotten,
    addLink,
    dropLink,
    routes: (): readonly Route[] => routes,
    rules: (): readonly Rule[] => rules,
    addresses: (): readonly HostSeen["addresses"][number][] => addresses,
    /** By somebody else's hand. */
    dropRoutes: (which: (route: Route) => boolean): void => {
      routes = routes.filter((route) => !which(route));
    },
    dropRules: (which: (rule: Rule) => boolean): void => {
      rules = rules.filter((rule) => !which(rule));
    },
    addRoute: (route: Route): void => void (routes = [...routes, route]),
    flushFilter: (): void => {
      filter = null;
    },
    /** Why this machine has no ipvlan; null: it has. */
    lackIpvlan: (why: string | null): void => void (withoutIpvlan = why),
    filterText: (): string | null => filter,
    /** A new namespace at the path, whatever was there before. */
    addNetns: (path: string): NetnsRef => {
      const ref = { path, device: 4, inode: (inodes += 1) };
      netnses.set(path, { ref, links: new Map() });
      return ref;
    },
    /** It ends, and every veth with an end in it. */
    endNetns: (path: string): void => {
      const netns = netnses.get(path);
      for (const { host } of netns?.links.values() ?? []) dropLink(host);
      netnses.delete(path);
    },
    /** Its path goes, though something inside keeps it and its links alive. */
    hideNetns: (path: string): void => void netnses.delete(path),
    netnsLives: (ref: NetnsRef): boolean => livingAt(ref) !== null,
    /** The machine boots: what was made is gone. */
    reboot: (): void => {
      for (const [name, link] of links) if (link.kind === "veth") dropLink(name);
      [addresses, routes, rules, filter] = [[], [], [], null];
      netnses.clear();
    },
    script: (step: Step, errno: string, times = 1): void => void refusals.push({ step, times, errno }),
  };
}

const NEVER_ABORTED = {
  aborted: false,
  addEventListener: () => undefined,
  removeEventListener: () => undefined,
};
