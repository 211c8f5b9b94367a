/**
 * What a node's kernel holds, read by `ip -j` and `nft -j` and not by our own code: the difference between before the first pod
 * and after the last is what counts as leaked. What belongs to ENIs is left out here, since the pool may hold other ones by then.
 */
import { must } from "./processes.ts";

type Json = Readonly<Record<string, unknown>>;

/** One line an object, sorted; equal lists are equal kernels. `enis`: those of secondary ENIs, too, while no ENI comes or goes. */
export async function kernelObjects(
  netns: string,
  { enis = false }: { readonly enis?: boolean } = {},
): Promise<readonly string[]> {
  const read = async (command: string): Promise<readonly Json[]> => {
    const text = await must(command.split(" "), { netns });
    return text.trim() === "" ? [] : (JSON.parse(text) as readonly Json[]); // iproute2 prints a list.
  };
  const [links, addresses, routes, rules, neighbours, ruleset] = await Promise.all([
    read("ip -j link"),
    read("ip -j addr"),
    read("ip -j route show table all"),
    read("ip -j rule"),
    read("ip -j neigh show nud permanent"),
    must(["nft", "-j", "list", "ruleset"], { netns }),
  ]);
  const lines = [
    ...links.map(
      (link) => `link ${text(link["ifname"])} group ${text(link["group"])} mtu ${text(link["mtu"])}`,
    ),
    ...addresses.flatMap((link) =>
      addressesOf(link).map((address) => `address ${text(link["ifname"])} ${address}`),
    ),
    ...routes.map(
      (route) =>
        `route ${text(route["table"] ?? "main")} ${text(route["dst"])} dev ${text(route["dev"])} via ${text(route["gateway"])}`,
    ),
    ...rules.map((rule) => `rule ${JSON.stringify(rule)}`),
    ...neighbours.map((each) => `neighbour ${text(each["dst"])} dev ${text(each["dev"])}`),
    ...rulesetLines(ruleset),
  ];
  return lines.filter((line) => (enis || !ofSecondaryEni(line)) && !autoconfigured(line)).sort();
}

/** ENI links are eth1 and up in the lab; their tables are 10001 and up, their marks 1 to 63. */
function ofSecondaryEni(line: string): boolean {
  return / eth[1-9]\d*\b/.test(line) || /"table":"10\d{3}"/.test(line) || / 10\d{3} /.test(line);
}

/** The kernel's own IPv6 link-local addresses come whenever their duplicate detection is over. */
function autoconfigured(line: string): boolean {
  return / (fe80:|ff00:)/.test(line) && / (eth\d+|lo)\b/.test(line);
}

function addressesOf(link: Json): readonly string[] {
  const infos = Array.isArray(link["addr_info"]) ? (link["addr_info"] as readonly Json[]) : [];
  return infos.map((info) => `${text(info["local"])}/${text(info["prefixlen"])}`);
}

/** Without handles and counters, which change with every packet. */
function rulesetLines(json: string): readonly string[] {
  const { nftables } = JSON.parse(json) as { nftables: readonly Json[] };
  const strip = (key: string, value: unknown): unknown =>
    key === "handle" || key === "packets" || key === "bytes" ? undefined : value;
  return nftables
    .filter((each) => each["metainfo"] === undefined)
    .map((each) => `nft ${JSON.stringify(each, strip)}`);
}

function text(value: unknown): string {
  return typeof value === "string" || typeof value === "number" ? `${value}` : "-";
}

/** Lines of `after` that `before` lacks, and the reverse with a minus. */
export function difference(before: readonly string[], after: readonly string[]): readonly string[] {
  const left = new Set(before);
  const right = new Set(after);
  return [
    ...after.filter((line) => !left.has(line)),
    ...before.filter((line) => !right.has(line)).map((line) => `- ${line}`),
  ];
}
