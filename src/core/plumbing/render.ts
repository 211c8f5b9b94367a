/**
 * Objects and changes as lines that `ip -batch` takes: for logs, the CLI, golden tests, and for whoever wants to do by hand what we do by
 * netlink. Each line says all that the kernel is told, defaults included where iproute2 would guess another.
 */
import { unreachable } from "../../lib/assert.ts";
import { MAIN_TABLE, ROUTE_PROTOCOL } from "./names.ts";
import { printPodFilter } from "./pod-filter.ts";
import type {
  Destination,
  IpvlanSlave,
  KernelObject,
  KernelOp,
  SandboxPlumbing,
  VethPair,
} from "./object.ts";

/** `ip` arguments that add the object, or replace the one in its place. Rules have no replace: adding one twice is refused by the kernel. */
export function renderObject(object: KernelObject): string {
  return render(object, "put");
}

export function renderOp(op: KernelOp): string {
  return op.verb === "delete-link" ? `link del dev ${op.name}` : render(op.object, op.verb);
}

function render(object: KernelObject, verb: "put" | "delete"): string {
  const act = verb === "put" ? "replace" : "del";
  switch (object.kind) {
    case "link":
      if (verb === "delete") return `link del dev ${object.name}`;
      return words(
        `link set dev ${object.name} mtu ${object.mtu}`,
        object.mac !== undefined && `address ${object.mac}`,
        object.group !== null && `group ${object.group}`,
        object.up && "up",
      ); // What `forwards` asks for has no word of `ip`: docs/data-paths.md shows it as sysctls.
    case "address":
      return words(
        `address ${act} ${object.ip}/${object.prefixLength} dev ${object.link}`,
        verb === "put" && object.scope !== undefined && `scope ${object.scope}`,
        verb === "put" && object.noPrefixRoute && "noprefixroute",
      );
    case "route":
      return words(
        `route ${act} ${destinationText(object.destination)}`,
        object.gateway !== null && `via ${object.gateway}`,
        `dev ${object.link} scope ${object.scope} table ${tableText(object.table)}`,
        object.onlink && "onlink",
        object.mtu !== null && `mtu ${object.mtu}`,
        verb === "put" && `proto ${ROUTE_PROTOCOL}`, // A delete must also find what others put.
      );
    case "rule":
      return words(
        `rule ${verb === "put" ? "add" : "del"} priority ${object.priority}`,
        object.from !== null && `from ${destinationText(object.from)}`,
        object.to !== null && `to ${destinationText(object.to)}`,
        object.iif !== undefined && `iif ${object.iif}`,
        object.mark !== null &&
          `fwmark 0x${object.mark.value.toString(16)}/0x${object.mark.mask.toString(16)}`,
        `lookup ${tableText(object.table)} protocol ${ROUTE_PROTOCOL}`,
      );
    case "neighbour":
      return words(
        `neighbour ${act} ${object.ip} dev ${object.link}`,
        verb === "put" && `lladdr ${object.mac} nud permanent`,
      );
    default:
      return unreachable(object);
  }
}

/**
 * The parts of a sandbox's plumbing, in order. `netns` is how `ip` shall name the sandbox's namespace; `parent` is the link of an ipvlan
 * pod's ENI. The alias is a line of its own since the kernel ignores it in the message that makes the pair.
 */
export function renderSandbox(
  plumbing: SandboxPlumbing,
  netns: string,
  parent = "eth1",
): {
  readonly pair: readonly string[];
  readonly slave?: readonly string[]; // All but the first line inside the pod, since the slave is born there.
  readonly filter?: string; // For `nft -f -` inside the pod.
  readonly pod: readonly string[];
  readonly host: readonly string[];
} {
  const { slave, filter } = plumbing;
  return {
    pair: renderPair(plumbing.pair, netns),
    ...(slave === undefined ? {} : { slave: renderSlave(slave, netns, parent) }),
    ...(filter === undefined ? {} : { filter: printPodFilter(filter) }),
    pod: plumbing.pod.map(renderObject),
    host: plumbing.host.map(renderObject),
  };
}

function renderPair(pair: VethPair, netns: string): readonly string[] {
  const host = `link add ${pair.hostName} mtu ${pair.hostMtu} address ${pair.hostMac} group ${pair.group}`;
  const pod = `peer name ${pair.podName} mtu ${pair.podMtu} address ${pair.podMac} netns ${netns}`;
  return [`${host} type veth ${pod}`, `link set dev ${pair.hostName} alias ${pair.alias} up`];
}

function renderSlave(slave: IpvlanSlave, netns: string, parent: string): readonly string[] {
  return [
    `link add link ${parent} name ${slave.bornAs} netns ${netns} mtu ${slave.mtu} type ipvlan mode l2`,
    `link set dev ${slave.bornAs} name ${slave.name} alias ${slave.alias}`,
    `link set dev ${slave.name} addrgenmode none`, // All slaves of an ENI would have one link-local address (lyft/cni-ipvlan-vpc-k8s#70).
  ];
}

function destinationText({ ip, prefixLength }: Destination): string {
  if (prefixLength === 0) return "default";
  return prefixLength === 32 ? ip : `${ip}/${prefixLength}`;
}

function tableText(table: number): string {
  return table === MAIN_TABLE ? "main" : String(table);
}

function words(...parts: readonly (string | false)[]): string {
  return parts.filter((part) => part !== false).join(" ");
}
