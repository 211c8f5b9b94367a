/** Desired − actual → the ordered changes that make the host's namespace true. It takes away only what is ours. */
import { unreachable } from "../../lib/assert.ts";
import type { HostDesired } from "./host.ts";
import { isOurGroup, MAIN_TABLE, ROUTE_PROTOCOL } from "./names.ts";
import type { Destination, HostSeen, KernelObject, KernelOp, LinkSeen } from "./object.ts";

type Route = Extract<KernelObject, { kind: "route" }>;
type Rule = Extract<KernelObject, { kind: "rule" }>;
type AddressSeen = HostSeen["addresses"][number];

/**
 * Changes in the order to make them: what is missing before what is too much, so that packets have a way at every moment.
 *
 * Ours, and so taken away when not desired: routes and rules with ROUTE_PROTOCOL; links in our groups whose alias names no live sandbox,
 * or that have no alias, our prefix and no live sandbox's name (a crash came between a link and its alias). Of foreign things only three
 * kinds go: a pod's address on any link of the host, since it would make the pod's packets the host's own (nm-cloud-setup puts all that
 * IMDS lists on the ENI's link, awslabs/amazon-eks-ami#1136); on links of secondary ENIs that we manage, addresses, and connected and default routes of the main table, which draw the
 * node's own packets to an ENI that may not send them. A DHCP client, NetworkManager or the kernel's own habit put them there
 * (aws/amazon-vpc-cni-k8s#3524, cilium/cilium#9446). All other foreign things stay as they are.
 *
 * Empty when all is well. Applying the ops to `seen` gives a state whose diff is empty, but for permanent neighbours where `seen` does
 * not show them: those are always put.
 */
export function diffHost(desired: HostDesired, seen: HostSeen): readonly KernelOp[] {
  const actual: Actual = {
    seen,
    links: new Map(seen.links.map((link) => [link.name, link])),
    routes: byDestination(seen.routes),
  };
  const foreignAddresses = seen.addresses.filter(
    (address) =>
      desired.podAddresses.has(address.ip) ||
      (desired.eniLinks.has(address.link) && !desired.objects.some((object) => isAddress(object, address))),
  );
  // The exception to "adds first". With the first address of a subnet the kernel drops the others of it, and with the last one of a link
  // all its routes: so foreign addresses go before anything, and whatever that link needs is put again, seen or not.
  const stripped = new Set(foreignAddresses.map((address) => address.link));
  const isThere = (object: KernelObject): boolean => {
    const link = linkNameOf(object);
    return !(link !== null && stripped.has(link)) && isSeen(object, actual);
  };
  const drop = (object: KernelObject): KernelOp => ({ verb: "delete", object });
  return [
    ...foreignAddresses.map((address) => drop({ kind: "address", ...address, noPrefixRoute: false })),
    ...desired.objects
      .filter((object) => !isThere(object))
      .map((object): KernelOp => ({ verb: "put", object })),
    ...unwantedRules(desired, seen).map(drop),
    ...unwantedRoutes(desired, actual).map(drop),
    ...unwantedLinks(desired, seen).map(({ name }): KernelOp => ({ verb: "delete-link", name })),
  ];
}

/** Routes by table and destination, since there may be a thousand of them. */
type Routes<T extends Route> = ReadonlyMap<string, readonly T[]>;
type RouteSeen = HostSeen["routes"][number];
type Actual = {
  readonly seen: HostSeen;
  readonly links: ReadonlyMap<string, LinkSeen>;
  readonly routes: Routes<RouteSeen>;
};

function byDestination<T extends Route>(routes: readonly T[]): Routes<T> {
  return Map.groupBy(routes, slotOf);
}

function slotOf({ table, destination }: Route): string {
  return `${table} ${destination.ip}/${destination.prefixLength}`;
}

function linkNameOf(object: KernelObject): string | null {
  switch (object.kind) {
    case "link":
      return object.name;
    case "address":
    case "route":
    case "neighbour":
      return object.link;
    case "rule":
      return object.iif ?? null;
    default:
      return unreachable(object);
  }
}

function isSeen(object: KernelObject, { seen, links, routes }: Actual): boolean {
  switch (object.kind) {
    case "link": {
      const link = links.get(object.name);
      if (link === undefined) return false;
      return (
        link.mtu === object.mtu &&
        (link.up || !object.up) &&
        (object.group === null || link.group === object.group) &&
        (object.mac === undefined || link.mac === object.mac)
      );
    }
    case "address":
      return seen.addresses.some((address) => isAddress(object, address));
    case "route":
      return (routes.get(slotOf(object)) ?? []).some((route) => isOurs(route) && sameRoute(route, object));
    case "rule":
      return seen.rules.some((rule) => sameRule(rule, object)); // The same rule by another's hand works as well.
    case "neighbour":
      return (
        seen.neighbours?.some(
          ({ link, ip, mac }) => link === object.link && ip === object.ip && mac === object.mac,
        ) ?? false
      );
    default:
      return unreachable(object);
  }
}

/** Whether an address on a link is without its connected route cannot be seen; if it has one, `unwantedRoutes` finds that. */
function isAddress(object: KernelObject, { link, ip, prefixLength }: AddressSeen): boolean {
  return (
    object.kind === "address" &&
    object.link === link &&
    object.ip === ip &&
    object.prefixLength === prefixLength
  );
}

function unwantedRoutes(desired: HostDesired, actual: Actual): readonly Route[] {
  const wanted = byDestination(desired.objects.filter((object) => object.kind === "route"));
  return actual.seen.routes.filter((route) => {
    if (!isOurs(route)) {
      const drawsOff = route.gateway === null || route.destination.prefixLength === 0;
      return route.table === MAIN_TABLE && drawsOff && desired.eniLinks.has(route.link);
    }
    const rivals = wanted.get(slotOf(route)) ?? [];
    if (rivals.some((other) => sameRoute(other, route))) return false;
    // A put replaces the first route to the same destination. If none is put, since the right one is there too, this one is a second.
    return rivals.every((other) => isSeen(other, actual));
  });
}

function unwantedRules(desired: HostDesired, seen: HostSeen): readonly Rule[] {
  const wanted = desired.objects.filter((object) => object.kind === "rule");
  const found = new Set<Rule>();
  return seen.rules.filter((rule) => {
    if (!isOurs(rule)) return false;
    const match = wanted.find((other) => sameRule(other, rule));
    if (match === undefined || found.has(match)) return true; // A second copy goes: the kernel deletes one a request.
    found.add(match);
    return false;
  });
}

function unwantedLinks(desired: HostDesired, seen: HostSeen): readonly LinkSeen[] {
  const live = new Set(desired.sandboxLinks.values());
  return seen.links.filter(({ name, group, alias }) => {
    if (!isOurGroup(group)) return false;
    if (alias !== null) return !live.has(alias);
    return name.startsWith(desired.hostLinkPrefix) && !desired.sandboxLinks.has(name);
  });
}

function isOurs({ protocol }: { readonly protocol: number }): boolean {
  return protocol === ROUTE_PROTOCOL;
}

function sameDestination(left: Destination, right: Destination): boolean {
  return left.ip === right.ip && left.prefixLength === right.prefixLength;
}

function sameRoute(left: Route, right: Route): boolean {
  return (
    left.table === right.table &&
    sameDestination(left.destination, right.destination) &&
    left.link === right.link &&
    left.gateway === right.gateway &&
    left.scope === right.scope &&
    left.onlink === right.onlink &&
    left.mtu === right.mtu
  );
}

function sameRule(left: Rule, right: Rule): boolean {
  const same = (a: Destination | null, b: Destination | null): boolean =>
    a === null || b === null ? a === b : sameDestination(a, b);
  return (
    left.priority === right.priority &&
    left.table === right.table &&
    left.mark?.value === right.mark?.value &&
    left.mark?.mask === right.mark?.mask &&
    left.iif === right.iif &&
    same(left.from, right.from) &&
    same(left.to, right.to)
  );
}
