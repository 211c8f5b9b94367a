/** Compares a sandbox as it is with how it should be. What is there beyond that is not a difference: pods may add their own. */
import type { NodeError } from "../core/model/error.ts";
import type { NetnsRef } from "../core/model/sandbox.ts";
import type { HostSeen, KernelObject, LinkSeen, SandboxPlumbing } from "../core/plumbing/object.ts";
import { unreachable } from "../lib/assert.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { type NeighbourSeen, parseForwards, parseNeighbour } from "../netlink/answers.ts";
import type { Connection } from "../netlink/connection.ts";
import { dumpRequests } from "../netlink/messages.ts";
import { openInNetns } from "../netlink/netns.ts";
import { failureOf, netnsInvalid, refused } from "./failure.ts";
import { observe } from "./observe.ts";
import { podFilterDifferences } from "./slave.ts";

type Seen = Omit<HostSeen, "neighbours"> & {
  readonly neighbours: readonly NeighbourSeen[];
  readonly forwarding: ReadonlySet<string>; // Links, by name.
};

/**
 * One sentence a difference, each beginning with "host: " or "pod: "; empty when all is well.
 * Errors: netns-invalid, kernel-refused. A DEL that comes in between shows as differences, not as an error.
 */
export function checkSandbox(
  host: Connection,
  netns: NetnsRef,
  plumbing: SandboxPlumbing,
): Result<readonly string[], NodeError> {
  const opened = openInNetns(netns.path, netns);
  if (!opened.ok) return err(netnsInvalid(opened.error));
  const pod = opened.value;
  try {
    const inside = everything(pod.connection);
    if (!inside.ok) return inside;
    const outside = everything(host);
    if (!outside.ok) return outside;
    const { pair } = plumbing;
    const slave = slaveDifferences(inside.value, plumbing);
    if (plumbing.filter !== undefined) {
      const filter = podFilterDifferences(pod, plumbing.filter);
      if (!filter.ok) return err(refused(filter.error));
      slave.push(...filter.value);
    }
    return ok([
      ...linkDifferences(outside.value, pair.hostName, {
        mac: pair.hostMac,
        alias: pair.alias,
        group: pair.group,
        mtu: pair.hostMtu,
      }).map((text) => `host: ${text}`),
      ...plumbing.host
        .flatMap((object) => objectDifferences(outside.value, object))
        .map((text) => `host: ${text}`),
      ...linkDifferences(inside.value, pair.podName, { mac: pair.podMac }).map((text) => `pod: ${text}`),
      ...slave.map((text) => `pod: ${text}`),
      ...plumbing.pod
        .flatMap((object) => objectDifferences(inside.value, object))
        .map((text) => `pod: ${text}`),
    ]);
  } finally {
    pod.close();
  }
}

function everything(connection: Connection): Result<Seen, NodeError> {
  const seen = observe(connection);
  if (!seen.ok) return err(refused(seen.error));
  const neighbours = connection.dump(dumpRequests.neighbours, parseNeighbour);
  if (!neighbours.ok) return err(refused(failureOf(neighbours.error)));
  const links = connection.dump(dumpRequests.links, parseForwards);
  if (!links.ok) return err(refused(failureOf(links.error)));
  const forwarding = new Set(links.value.objects.flatMap(({ name, forwards }) => (forwards ? [name] : [])));
  return ok({ ...seen.value, neighbours: neighbours.value.objects, forwarding });
}

function slaveDifferences(seen: Seen, { slave }: SandboxPlumbing): string[] {
  if (slave === undefined) return [];
  const { name, parentMac, alias } = slave;
  return [...linkDifferences(seen, name, { mac: parentMac, alias, kind: "ipvlan" })];
}

function linkDifferences(
  seen: Seen,
  name: string,
  should: Partial<Pick<LinkSeen, "mac" | "alias" | "group" | "mtu" | "up" | "kind">>,
): readonly string[] {
  const link = seen.links.find((each) => each.name === name);
  if (link === undefined) return [`link ${name} is missing`];
  // The keys of `should` are keys of a link: its type says so, and Object.keys loses it.
  return (Object.keys(should) as (keyof typeof should)[])
    .filter((key) => link[key] !== should[key])
    .map((key) => `link ${name} has ${key} ${String(link[key])} instead of ${String(should[key])}`);
}

function objectDifferences(seen: Seen, object: KernelObject): readonly string[] {
  switch (object.kind) {
    case "link": {
      const { name, mtu, up, group } = object;
      return [
        ...linkDifferences(seen, name, { mtu, up, ...(group === null ? {} : { group }) }),
        ...(object.forwards === undefined || seen.forwarding.has(name)
          ? []
          : [`link ${name} does not forward, or checks the way back`]),
      ];
    }
    case "address": {
      const { link, ip, prefixLength } = object;
      const there = seen.addresses.some(
        (a) => a.link === link && a.ip === ip && a.prefixLength === prefixLength,
      );
      return there ? [] : [`address ${ip}/${prefixLength} is missing on ${link}`];
    }
    case "route": {
      const { destination: to, gateway, link, table } = object;
      const there = seen.routes.some(
        (route) =>
          route.table === table &&
          route.link === link &&
          route.gateway === gateway &&
          route.destination.ip === to.ip &&
          route.destination.prefixLength === to.prefixLength,
      );
      const via = gateway === null ? "" : ` via ${gateway}`;
      return there
        ? []
        : [`route ${to.ip}/${to.prefixLength}${via} dev ${link} is missing in table ${table}`];
    }
    case "rule": {
      const there = seen.rules.some(
        (rule) => rule.priority === object.priority && rule.table === object.table && rule.iif === object.iif,
      );
      return there ? [] : [`rule ${object.priority} lookup ${object.table} is missing`];
    }
    case "neighbour": {
      const index = seen.links.find(({ name }) => name === object.link)?.index;
      const there = seen.neighbours.some(
        (n) => n.linkIndex === index && n.ip === object.ip && n.mac === object.mac && n.permanent,
      );
      return there
        ? []
        : [`permanent neighbour ${object.ip} lladdr ${object.mac} is missing on ${object.link}`];
    }
    default:
      return unreachable(object);
  }
}
