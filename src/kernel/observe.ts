/** What is there in the namespace of a connection: links, IPv4 addresses, routes and rules, ours and others', as they are now. */
import type { HostSeen, LinkSeen } from "../core/plumbing/object.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { parseAddress, parseLink, parseNeighbour, parseRoute, parseRule } from "../netlink/answers.ts";
import type { Connection } from "../netlink/connection.ts";
import { dumpRequests } from "../netlink/messages.ts";
import { failureOf, type KernelFailure } from "./failure.ts";

const LOCAL_TABLE = 255; // linux/rtnetlink.h, RT_TABLE_LOCAL: the kernel's own.

/** Every link: name, index, MAC, MTU, whether it is up, group, alias, kind. */
export function observeLinks(connection: Connection): Result<readonly LinkSeen[], KernelFailure> {
  const links = connection.dump(dumpRequests.links, parseLink);
  return links.ok ? ok(links.value.objects) : err(failureOf(links.error));
}

/**
 * The whole namespace. `unreadable` counts what could not be read, rules with selectors that we never use, and what hangs on a link
 * that went away between two dumps: enough to know that there is more than this, and nothing to act on.
 */
export function observe(connection: Connection): Result<HostSeen, KernelFailure> {
  const links = connection.dump(dumpRequests.links, parseLink);
  if (!links.ok) return err(failureOf(links.error));
  const addresses = connection.dump(dumpRequests.addresses, parseAddress);
  if (!addresses.ok) return err(failureOf(addresses.error));
  const routes = connection.dump(dumpRequests.routes, parseRoute);
  if (!routes.ok) return err(failureOf(routes.error));
  const rules = connection.dump(dumpRequests.rules, parseRule);
  if (!rules.ok) return err(failureOf(rules.error));
  const neighbours = connection.dump(dumpRequests.neighbours, parseNeighbour);
  if (!neighbours.ok) return err(failureOf(neighbours.error));

  const nameOf = new Map(links.value.objects.map((link) => [link.index, link.name]));
  let unreadable = [links, addresses, routes, rules].reduce((sum, { value }) => sum + value.unreadable, 0);
  const seen: {
    addresses: HostSeen["addresses"][number][];
    routes: HostSeen["routes"][number][];
    rules: HostSeen["rules"][number][];
  } = {
    addresses: [],
    routes: [],
    rules: [],
  };
  for (const { linkIndex, noPrefixRoute: _, ...address } of addresses.value.objects) {
    const link = nameOf.get(linkIndex);
    if (link === undefined) unreadable += 1;
    else seen.addresses.push({ link, ...address });
  }
  for (const route of routes.value.objects) {
    if (route === "other" || route.table === LOCAL_TABLE) continue; // Not unicast, or the kernel's own: no concern of ours.
    const { linkIndex, ...rest } = route;
    const link = nameOf.get(linkIndex);
    if (link === undefined) unreadable += 1;
    else seen.routes.push({ link, ...rest });
  }
  for (const rule of rules.value.objects) {
    if (rule === "other") unreadable += 1;
    else seen.rules.push(rule);
  }
  const permanent = neighbours.value.objects.flatMap(({ linkIndex, ip, mac, permanent }) => {
    const link = nameOf.get(linkIndex);
    return permanent && mac !== null && link !== undefined ? [{ link, ip, mac }] : [];
  });
  return ok({ links: links.value.objects, ...seen, unreadable, neighbours: permanent });
}
