/**
 * A pretend host: links, addresses, routes and rules of its namespace, and pods' namespaces with their veth ends. It outlives the
 * daemon; a reboot empties it. It behaves as src/kernel does towards the real one, refusals and undoing included.
 */
import type { KernelFailure } from "../agent/ports.ts";
import type { Mac } from "../core/model/eni.ts";
import type { NodeError } from "../core/model/error.ts";
import type { NetnsRef } from "../core/model/sandbox.ts";
import { GROUP_LAST, isOurGroup, PODS_TABLE, ROUTE_PROTOCOL } from "../core/plumbing/names.ts";
import type { HostSeen, KernelObject, KernelOp, LinkSeen, SandboxPlumbing } from "../core/plumbing/object.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { VirtualClock } from "./clock.ts";

type RouteSeen = HostSeen["routes"][number];
type RuleSeen = HostSeen["rules"][number];
type AddressSeen = HostSeen["addresses"][number];

/** A pod's namespace. `inside` is by interface name. */
export type Namespace = {
  readonly path: string;
  readonly device: number;
  readonly inode: number;
  readonly inside: Map<
    string,
    { readonly hostLink: string; objects: readonly KernelObject[]; ip: Ipv4 | null }
  >;
};

export type KernelHooks = {
  /** A refusal for this step, or null. Drawn at each thing that the kernel is asked for. */
  readonly refuses: (step: string) => string | null;
  /** The daemon may die between two steps of one call: throws when it does. */
  readonly between: (step: string) => void;
  readonly podAddressAdded: (ip: Ipv4, namespace: Namespace, alias: string) => void;
  readonly podAddressGone: (ip: Ipv4, namespace: Namespace) => void;
  /** The daemon took a pod's route away: from here on no packet finds it. */
  readonly podRouteGone: (ip: Ipv4) => void;
  /** Something that is not the daemon's went by the daemon's hand. */
  readonly foreignTouched: (what: string) => void;
};

/** What others have in this namespace: the daemon must leave it as it is. */
const FOREIGN_PROTOCOL = 4; // RTPROT_STATIC
const DELETE_MS = 20;

export class HostKernel {
  readonly #links = new Map<string, LinkSeen>();
  #addresses: AddressSeen[] = [];
  readonly #routes = new Map<string, RouteSeen[]>();
  #rules: RuleSeen[] = [];
  readonly namespaces = new Map<string, Namespace>();
  readonly #peerOf = new Map<string, { readonly namespace: Namespace; readonly ifName: string }>(); // By host link.
  #index = 1;
  #inode = 1000;
  #seen: HostSeen | null = null;
  #filter = "";
  version = 0;
  readonly #hooks: KernelHooks;
  readonly #clock: VirtualClock;

  constructor(clock: VirtualClock, hooks: KernelHooks) {
    this.#clock = clock;
    this.#hooks = hooks;
    this.#furnish();
  }

  // --- What the machine and its people do ------------------------------------------------------------------------------

  /** All namespaces and all that was configured are gone; links of ENIs come again with `eniLinkUp`. */
  reboot(): void {
    for (const path of [...this.namespaces.keys()]) this.removeNamespace(path);
    this.#links.clear();
    this.#addresses = [];
    this.#routes.clear();
    this.#rules = [];
    this.#peerOf.clear();
    this.#filter = "";
    this.#furnish();
    this.#changed();
  }

  /** What is there on every node and is nobody's of ours. */
  #furnish(): void {
    this.#putLink({
      name: "docker0",
      mac: "02:42:00:00:00:01" as Mac,
      kind: "bridge",
      group: 0,
      alias: null,
    });
    this.#routes.set("254 172.17.0.0/16", [
      {
        kind: "route",
        table: 254,
        destination: { ip: "172.17.0.0" as Ipv4, prefixLength: 16 },
        link: "docker0",
        gateway: null,
        scope: "link",
        onlink: false,
        mtu: null,
        protocol: 2,
      },
    ]);
    this.#rules.push(
      {
        kind: "rule",
        priority: 100,
        mark: { value: 0x200, mask: 0xf00 },
        from: null,
        to: null,
        table: 2004,
        protocol: FOREIGN_PROTOCOL,
      },
      { kind: "rule", priority: 32_766, mark: null, from: null, to: null, table: 254, protocol: 2 },
    );
  }

  /** What must still be there whatever the daemon does. */
  foreignMissing(): string[] {
    const missing: string[] = [];
    if (!this.#links.has("docker0")) missing.push("link docker0");
    if (!this.#routes.has("254 172.17.0.0/16")) missing.push("route 172.17.0.0/16");
    if (!this.#rules.some((rule) => rule.priority === 100)) missing.push("rule 100");
    if (!this.#rules.some((rule) => rule.priority === 32_766)) missing.push("rule 32766");
    return missing;
  }

  eniLinkUp(mac: Mac, deviceIndex: number): void {
    for (const link of this.#links.values()) if (link.mac === mac) return;
    let number = deviceIndex;
    while (this.#links.has(`eth${number}`)) number += 1;
    this.#putLink({ name: `eth${number}`, mac, kind: null, group: 0, alias: null });
    this.#changed();
  }

  eniLinkDown(mac: Mac): void {
    for (const link of this.#links.values())
      if (link.mac === mac && link.kind === null) this.#dropLink(link.name);
    this.#changed();
  }

  addNamespace(path: string): Namespace {
    this.#inode += 1;
    const namespace: Namespace = { path, device: 4, inode: this.#inode, inside: new Map() };
    this.namespaces.set(path, namespace);
    return namespace;
  }

  removeNamespace(path: string): void {
    const namespace = this.namespaces.get(path);
    if (namespace === undefined) return;
    this.namespaces.delete(path);
    for (const { hostLink } of [...namespace.inside.values()]) this.#dropLink(hostLink);
    this.#changed();
  }

  /** Somebody deletes something of ours by hand; false when there was nothing to delete. `chance` is in [0, 1). */
  vandalise(what: "route" | "rule" | "link" | "eni-address", chance: number): boolean {
    const pick = <T>(from: readonly T[]): T | undefined => from[Math.floor(chance * from.length)];
    switch (what) {
      case "route": {
        const routes = [...this.#routes.values()].flat().filter((route) => route.protocol === ROUTE_PROTOCOL);
        const route = pick(routes);
        if (route !== undefined) this.#dropRoute(route);
        break;
      }
      case "rule": {
        const rule = pick(this.#rules.filter((each) => each.protocol === ROUTE_PROTOCOL));
        if (rule === undefined) return false;
        this.#rules = this.#rules.filter((each) => each !== rule);
        break;
      }
      case "link": {
        const link = pick([...this.#links.values()].filter((each) => isOurGroup(each.group)));
        if (link === undefined) return false;
        this.#dropLink(link.name);
        break;
      }
      case "eni-address": {
        // A DHCP client puts an address and a connected route on a link that is ours.
        const link = pick(
          [...this.#links.values()].filter((each) => each.kind === null && each.name !== "eth0"),
        );
        if (link === undefined) return false;
        this.#addresses.push({ link: link.name, ip: "10.0.3.200" as Ipv4, prefixLength: 22 });
        break;
      }
    }
    this.#changed();
    return true;
  }

  // --- What the daemon asks (agent/ports.ts, Kernel) -------------------------------------------------------------------

  observe(): Result<HostSeen, KernelFailure> {
    const refusal = this.#hooks.refuses("observe");
    if (refusal !== null) return err(failure("dump", refusal));
    this.#seen ??= {
      links: [...this.#links.values()],
      addresses: [...this.#addresses],
      routes: [...this.#routes.values()].flat(),
      rules: [...this.#rules],
      unreadable: 0,
    };
    return ok(this.#seen);
  }

  observeLinks(): Result<readonly LinkSeen[], KernelFailure> {
    const refusal = this.#hooks.refuses("observe-links");
    if (refusal !== null) return err(failure("link dump", refusal));
    return ok(this.#seen?.links ?? [...this.#links.values()]);
  }

  apply(ops: readonly KernelOp[]): readonly (KernelFailure & { readonly op: KernelOp })[] {
    const failed: (KernelFailure & { readonly op: KernelOp })[] = [];
    for (const op of ops) {
      this.#hooks.between(`apply ${op.verb}`);
      if (op.verb === "delete-link") {
        void this.deleteLink(op.name);
        continue;
      }
      const refusal = this.#hooks.refuses(`apply ${op.verb} ${op.object.kind}`);
      const errno = refusal ?? (op.verb === "put" ? this.#put(op.object) : this.#delete(op.object));
      // As src/kernel/apply.ts has it: what is asked for and already so is done.
      if (errno === null || (op.verb === "put" ? errno === "EEXIST" : errno === "ENOENT")) continue;
      failed.push({ op, ...failure(op.object.kind, errno) });
    }
    return failed;
  }

  lookAtNetns(path: string): Result<NetnsRef, NodeError> {
    const found = this.namespaces.get(path);
    if (found === undefined) return err({ code: "netns-invalid", path, detail: "ENOENT" });
    return ok({ path, device: found.device, inode: found.inode });
  }

  netnsLives({ path, device, inode }: NetnsRef): boolean {
    const found = this.namespaces.get(path);
    return found !== undefined && found.device === device && found.inode === inode;
  }

  plumbSandbox(netns: NetnsRef, plumbing: SandboxPlumbing): Result<null, NodeError> {
    const namespace = this.namespaces.get(netns.path);
    if (namespace === undefined || !this.netnsLives(netns))
      return err({ code: "netns-invalid", path: netns.path, detail: "it is another namespace now" });
    const { pair } = plumbing;
    const refused = (step: string, errno: string): Result<null, NodeError> =>
      err({ code: "kernel-refused", step, errno, detail: "" });
    this.#hooks.between("plumb begin");
    const early = this.#hooks.refuses("plumb pair");
    if (early !== null) return refused("link add", early);
    if (namespace.inside.has(pair.podName))
      return err({ code: "interface-exists", ifName: pair.podName, path: netns.path });
    const taken = this.#links.get(pair.hostName);
    if (taken !== undefined) {
      if (taken.alias !== null && taken.alias !== pair.alias) return refused("link add", "EEXIST");
      this.#dropLink(pair.hostName);
    }
    this.#putLink({ name: pair.hostName, mac: pair.hostMac, kind: "veth", group: pair.group, alias: null });
    namespace.inside.set(pair.podName, { hostLink: pair.hostName, objects: [], ip: null });
    this.#peerOf.set(pair.hostName, { namespace, ifName: pair.podName });
    this.#changed();
    const undo = (step: string, errno: string): Result<null, NodeError> => {
      for (const object of plumbing.host) this.#delete(object);
      // Reached by nobody from here on, whether or not its route was there yet.
      for (const object of plumbing.pod) if (object.kind === "address") this.#hooks.podRouteGone(object.ip);
      void this.deleteLink(pair.hostName);
      return refused(step, errno);
    };
    this.#hooks.between("plumb pair made");
    const inside = this.#hooks.refuses("plumb pod");
    if (inside !== null) return undo("in the pod", inside);
    const address = plumbing.pod.find((object) => object.kind === "address");
    const ip = address?.kind === "address" ? address.ip : null;
    namespace.inside.set(pair.podName, { hostLink: pair.hostName, objects: plumbing.pod, ip });
    if (ip !== null) this.#hooks.podAddressAdded(ip, namespace, pair.alias);
    this.#hooks.between("plumb pod made");
    const naming = this.#hooks.refuses("plumb alias");
    if (naming !== null) return undo("alias", naming);
    const link = this.#links.get(pair.hostName);
    if (link !== undefined) this.#links.set(pair.hostName, { ...link, alias: pair.alias });
    this.#changed();
    this.#hooks.between("plumb named");
    for (const object of plumbing.host) {
      const errno = this.#hooks.refuses("plumb host") ?? this.#put(object);
      if (errno !== null && errno !== "EEXIST") return undo("host route", errno);
      this.#hooks.between("plumb host route");
    }
    return ok(null);
  }

  checkSandbox(netns: NetnsRef, plumbing: SandboxPlumbing): Result<readonly string[], NodeError> {
    const namespace = this.namespaces.get(netns.path);
    if (namespace === undefined || !this.netnsLives(netns))
      return err({ code: "netns-invalid", path: netns.path, detail: "gone" });
    const { pair } = plumbing;
    const differences: string[] = [];
    const link = this.#links.get(pair.hostName);
    if (link === undefined) differences.push(`no link ${pair.hostName}`);
    else if (link.alias !== pair.alias || link.group !== pair.group)
      differences.push(`${pair.hostName} differs`);
    if (namespace.inside.get(pair.podName)?.objects.length !== plumbing.pod.length)
      differences.push("the pod's end differs");
    for (const object of plumbing.host) {
      if (object.kind === "route" && !this.#hasRoute(object))
        differences.push(`no route ${object.destination.ip}`);
    }
    return ok(differences);
  }

  /** The kernel takes some 20 ms for one. */
  async deleteLink(name: string): Promise<Result<null, KernelFailure>> {
    const refusal = this.#hooks.refuses("delete-link");
    const doomed = this.#links.get(name);
    if (doomed !== undefined && !isOurGroup(doomed.group)) this.#hooks.foreignTouched(`link ${name}`);
    // In the group of the doomed at once: what the pod still sends is dropped (src/kernel/kernel.ts).
    if (doomed !== undefined && refusal === null) {
      this.#links.set(name, { ...doomed, group: GROUP_LAST });
      this.#changed();
    }
    await this.#clock.sleep(DELETE_MS);
    if (refusal !== null) return err(failure(`link del ${name}`, refusal));
    if (this.#links.get(name)?.index === doomed?.index) this.#dropLink(name);
    return ok(null);
  }

  ensurePacketFilter(text: string): Result<boolean, KernelFailure> {
    const refusal = this.#hooks.refuses("nft");
    if (refusal !== null) return err(failure("nft -f -", refusal));
    const loaded = this.#filter !== text;
    this.#filter = text;
    return ok(loaded);
  }

  // --- What checkers look at -------------------------------------------------------------------------------------------

  linkNamed(name: string): LinkSeen | undefined {
    return this.#links.get(name);
  }

  routeTo(table: number, ip: string, prefixLength: number): RouteSeen | undefined {
    return this.#routes.get(`${table} ${ip}/${prefixLength}`)?.[0];
  }

  ours(): { readonly links: LinkSeen[]; readonly routes: RouteSeen[]; readonly rules: RuleSeen[] } {
    return {
      links: [...this.#links.values()].filter((link) => isOurGroup(link.group)),
      routes: [...this.#routes.values()].flat().filter((route) => route.protocol === ROUTE_PROTOCOL),
      rules: this.#rules.filter((rule) => rule.protocol === ROUTE_PROTOCOL),
    };
  }

  // --- Objects ---------------------------------------------------------------------------------------------------------

  #put(object: KernelObject): string | null {
    switch (object.kind) {
      case "link": {
        const link = this.#links.get(object.name);
        if (link === undefined) return "ENODEV";
        const group = object.group ?? link.group;
        this.#links.set(link.name, { ...link, mtu: object.mtu, up: object.up || link.up, group });
        break;
      }
      case "address": {
        if (!this.#links.has(object.link)) return "ENODEV";
        const { link, ip, prefixLength } = object;
        const there = this.#addresses.some(
          (each) => each.link === link && each.ip === ip && each.prefixLength === prefixLength,
        );
        if (!there) this.#addresses.push({ link, ip, prefixLength });
        break;
      }
      case "route": {
        if (!this.#links.has(object.link)) return "ENODEV";
        const slot = slotOf(object);
        const others = (this.#routes.get(slot) ?? []).slice(1); // As NLM_F_REPLACE does: the first one is replaced.
        this.#routes.set(slot, [{ ...object, protocol: ROUTE_PROTOCOL }, ...others]);
        break;
      }
      case "rule":
        if (this.#rules.some((rule) => sameRule(rule, object))) return "EEXIST";
        this.#rules.push({ ...object, protocol: ROUTE_PROTOCOL });
        break;
      case "neighbour":
        if (!this.#links.has(object.link)) return "ENODEV";
        break;
    }
    this.#changed();
    return null;
  }

  #delete(object: KernelObject): string | null {
    switch (object.kind) {
      case "link":
      case "neighbour":
        return null;
      case "address":
        if (object.link === "docker0" || object.link === "eth0")
          this.#hooks.foreignTouched(`address ${object.ip} on ${object.link}`);
        this.#addresses = this.#addresses.filter(
          (each) =>
            !(
              each.link === object.link &&
              each.ip === object.ip &&
              each.prefixLength === object.prefixLength
            ),
        );
        break;
      case "route": {
        const there = this.#routes
          .get(slotOf(object))
          ?.find((route) => route.link === object.link && route.gateway === object.gateway);
        if (there === undefined) return "ENOENT";
        if (there.protocol !== ROUTE_PROTOCOL && there.link === "docker0")
          this.#hooks.foreignTouched(`route ${slotOf(object)}`);
        this.#dropRoute(there);
        if (there.table === PODS_TABLE) this.#hooks.podRouteGone(there.destination.ip);
        break;
      }
      case "rule": {
        const at = this.#rules.findIndex((rule) => sameRule(rule, object));
        const [gone] = at === -1 ? [] : this.#rules.splice(at, 1);
        if (gone === undefined) return "ENOENT";
        if (gone.protocol !== ROUTE_PROTOCOL) this.#hooks.foreignTouched(`rule ${gone.priority}`);
        break;
      }
    }
    this.#changed();
    return null;
  }

  #hasRoute(object: Extract<KernelObject, { kind: "route" }>): boolean {
    return (this.#routes.get(slotOf(object)) ?? []).some((route) => route.link === object.link);
  }

  #dropRoute(route: RouteSeen): void {
    const slot = slotOf(route);
    const left = (this.#routes.get(slot) ?? []).filter((each) => each !== route);
    if (left.length === 0) this.#routes.delete(slot);
    else this.#routes.set(slot, left);
  }

  #putLink(link: Pick<LinkSeen, "name" | "mac" | "kind" | "group" | "alias">): void {
    this.#index += 1;
    this.#links.set(link.name, {
      ...link,
      index: this.#index,
      mtu: 1_500,
      up: true,
    });
  }

  /** With a link go its addresses and routes, and the other end of its pair. */
  #dropLink(name: string): void {
    if (!this.#links.delete(name)) return;
    this.#addresses = this.#addresses.filter((address) => address.link !== name);
    for (const [slot, routes] of this.#routes) {
      if (!routes.some((route) => route.link === name)) continue;
      const left = routes.filter((route) => route.link !== name);
      if (left.length === 0) this.#routes.delete(slot);
      else this.#routes.set(slot, left);
    }
    const peer = this.#peerOf.get(name);
    this.#peerOf.delete(name);
    this.#changed();
    if (peer === undefined) return;
    const end = peer.namespace.inside.get(peer.ifName);
    if (end?.hostLink !== name) return;
    peer.namespace.inside.delete(peer.ifName);
    if (end.ip !== null) this.#hooks.podAddressGone(end.ip, peer.namespace);
  }

  #changed(): void {
    this.version += 1;
    this.#seen = null;
  }
}

function slotOf({ table, destination }: Extract<KernelObject, { kind: "route" }>): string {
  return `${table} ${destination.ip}/${destination.prefixLength}`;
}

function sameRule(
  left: Extract<KernelObject, { kind: "rule" }>,
  right: Extract<KernelObject, { kind: "rule" }>,
): boolean {
  const text = (rule: typeof left): string =>
    `${rule.priority} ${rule.table} ${rule.mark?.value}/${rule.mark?.mask} ${rule.from?.ip}/${rule.from?.prefixLength} ${rule.to?.ip}/${rule.to?.prefixLength}`;
  return text(left) === text(right);
}

function failure(step: string, errno: string): KernelFailure {
  return { step, errno, detail: "said the simulator" };
}
