/**
 * The rule sets that kube-proxy keeps on a node, written by hand for a few services: what its iptables mode leaves in the kernel through
 * iptables-nft, and what its nftables mode loads. Chains, hooks, priorities, marks and the order of rules are its own (1.31); comments,
 * canaries and empty chains are left out. Without a pod CIDR, as on EKS: traffic for a ClusterIP is masqueraded only for hairpins.
 */
import { unreachable } from "../lib/assert.ts";

export type KubeProxyMode = "iptables-nft" | "nftables";

export type Service = {
  readonly name: string; // Lower case, unique.
  readonly clusterIp: string;
  readonly port: number; // TCP and UDP.
  readonly nodePort: number | null;
  /** `local`: externalTrafficPolicy Local, so that the endpoint sees the client; only endpoints of this node are used. */
  readonly external: "cluster" | "local";
  readonly endpoints: readonly { readonly ip: string; readonly port: number; readonly onThisNode: boolean }[];
};

/** Input for `nft -f -`, in one transaction; loading it again replaces what it loaded before. `nodeIp` is the node's own address. */
export function printKubeProxy(mode: KubeProxyMode, services: readonly Service[], nodeIp: string): string {
  switch (mode) {
    case "iptables-nft":
      return printIptables(services);
    case "nftables":
      return printNftables(services, nodeIp);
    default:
      return unreachable(mode);
  }
}

/** Takes away all that either mode loads. */
export const REMOVE_KUBE_PROXY: string = ["nat", "filter", "kube-proxy"]
  .map((table) => `table ip ${table}\ndelete table ip ${table}\n`)
  .join("");

const PROTOCOLS = ["tcp", "udp"] as const;

type Each = { readonly service: Service; readonly protocol: (typeof PROTOCOLS)[number]; readonly id: string };

function each(services: readonly Service[]): readonly Each[] {
  return services.flatMap((service) =>
    PROTOCOLS.map((protocol) => ({ service, protocol, id: `${service.name}-${protocol}` })),
  );
}

function chain(name: string, ...lines: readonly string[]): string {
  return `  chain ${name} {\n${lines.map((line) => `    ${line}\n`).join("")}  }\n`;
}

/** `-m addrtype`, `-m statistic` and the rest as iptables-nft translates them. */
function printIptables(services: readonly Service[]): string {
  const all = each(services);
  const mark = "meta mark set mark or 0x4000";
  const balance = (endpoints: Service["endpoints"], id: string, jump: string): string[] =>
    endpoints.map((endpoint, at) => {
      const left = endpoints.length - at;
      const chance = left === 1 ? "" : `numgen random mod ${left} 0 `;
      return `${chance}counter ${jump} KUBE-SEP-${id}-${service(endpoint.ip)}`;
    });
  const service = (ip: string): string => ip.replaceAll(".", "-");
  const perService = all.flatMap(({ service: { endpoints, external }, protocol, id }) => [
    chain(`KUBE-SVC-${id}`, ...balance(endpoints, id, "jump")),
    chain(
      `KUBE-SVL-${id}`,
      ...balance(
        endpoints.filter(({ onThisNode }) => onThisNode),
        id,
        "jump",
      ),
    ),
    external === "cluster"
      ? chain(`KUBE-EXT-${id}`, "counter jump KUBE-MARK-MASQ", `counter jump KUBE-SVC-${id}`)
      : chain(
          `KUBE-EXT-${id}`,
          "fib saddr type local counter jump KUBE-MARK-MASQ",
          `fib saddr type local counter jump KUBE-SVC-${id}`,
          `counter jump KUBE-SVL-${id}`,
        ),
    ...endpoints.map((endpoint) =>
      chain(
        `KUBE-SEP-${id}-${service(endpoint.ip)}`,
        `ip saddr ${endpoint.ip} counter jump KUBE-MARK-MASQ`,
        `meta l4proto ${protocol} counter dnat to ${endpoint.ip}:${endpoint.port}`,
      ),
    ),
  ]);
  const toClusterIps = all.map(
    ({ service: { clusterIp, port }, protocol, id }) =>
      `ip daddr ${clusterIp} ${protocol} dport ${port} counter jump KUBE-SVC-${id}`,
  );
  const toNodePorts = all.flatMap(({ service: { nodePort }, protocol, id }) =>
    nodePort === null ? [] : [`${protocol} dport ${nodePort} counter jump KUBE-EXT-${id}`],
  );
  // Chains that are jumped to come first: nft reads from top to bottom.
  const nat = [
    chain("KUBE-MARK-MASQ", `counter ${mark}`),
    ...inOrderOfUse(perService),
    chain("KUBE-NODEPORTS", ...toNodePorts),
    chain("KUBE-SERVICES", ...toClusterIps, "fib daddr type local counter jump KUBE-NODEPORTS"),
    chain(
      "KUBE-POSTROUTING",
      "meta mark & 0x4000 != 0x4000 counter return",
      "counter meta mark set mark xor 0x4000",
      "counter masquerade fully-random",
    ),
    chain(
      "PREROUTING",
      "type nat hook prerouting priority dstnat; policy accept;",
      "counter jump KUBE-SERVICES",
    ),
    chain("OUTPUT", "type nat hook output priority -100; policy accept;", "counter jump KUBE-SERVICES"),
    chain(
      "POSTROUTING",
      "type nat hook postrouting priority srcnat; policy accept;",
      "counter jump KUBE-POSTROUTING",
    ),
  ];
  const filter = [
    chain(
      "KUBE-FORWARD",
      "ct state invalid counter drop",
      "meta mark & 0x4000 == 0x4000 counter accept",
      "ct state related,established counter accept",
    ),
    chain(
      "KUBE-FIREWALL",
      "ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct status & (dnat|snat) == 0 counter drop",
    ),
    chain("INPUT", "type filter hook input priority filter; policy accept;", "counter jump KUBE-FIREWALL"),
    chain("FORWARD", "type filter hook forward priority filter; policy accept;", "counter jump KUBE-FORWARD"),
    chain("OUTPUT", "type filter hook output priority filter; policy accept;", "counter jump KUBE-FIREWALL"),
  ];
  return `${REMOVE_KUBE_PROXY}table ip nat {\n${nat.join("")}}\ntable ip filter {\n${filter.join("")}}\n`;
}

/** Endpoints before services, services before what leads to them. */
function inOrderOfUse(chains: readonly string[]): readonly string[] {
  const rank = (text: string): number =>
    ["KUBE-SEP", "KUBE-SVC", "KUBE-SVL", "KUBE-EXT"].findIndex((name) => text.startsWith(`  chain ${name}`));
  return [...chains].sort((left, right) => rank(left) - rank(right));
}

function printNftables(services: readonly Service[], nodeIp: string): string {
  const all = each(services);
  const endpointName = (id: string, ip: string): string => `endpoint-${id}__${ip}`;
  const balance = (endpoints: Service["endpoints"], id: string): string[] =>
    endpoints.length === 0
      ? ["drop"]
      : [
          `numgen random mod ${endpoints.length} vmap { ${endpoints.map(({ ip }, at) => `${at} : goto ${endpointName(id, ip)}`).join(", ")} }`,
        ];
  const endpoints = all.flatMap(({ service, protocol, id }) =>
    service.endpoints.map(({ ip, port }) =>
      chain(
        endpointName(id, ip),
        `ip saddr ${ip} jump mark-for-masquerade`,
        `meta l4proto ${protocol} dnat to ${ip}:${port}`,
      ),
    ),
  );
  const chains = all.map(({ service, id }) => chain(`service-${id}`, ...balance(service.endpoints, id)));
  const externals = all
    .filter(({ service }) => service.nodePort !== null)
    .map(({ service, id }) =>
      service.external === "cluster"
        ? chain(`external-${id}`, "jump mark-for-masquerade", `goto service-${id}`)
        : chain(
            `external-${id}`,
            "fib saddr type local jump mark-for-masquerade",
            `fib saddr type local goto service-${id}`,
            ...balance(
              service.endpoints.filter(({ onThisNode }) => onThisNode),
              id,
            ),
          ),
    );
  const serviceIps = all.map(
    ({ service, protocol, id }) =>
      `${service.clusterIp} . ${protocol} . ${service.port} : goto service-${id}`,
  );
  const nodePorts = all.flatMap(({ service: { nodePort }, protocol, id }) =>
    nodePort === null ? [] : [`${protocol} . ${nodePort} : goto external-${id}`],
  );
  const elements = (list: readonly string[]): string =>
    list.length === 0 ? "" : `elements = { ${list.join(", ")} }`;
  const clusterIps = [...new Set(services.map(({ clusterIp }) => clusterIp))];
  return `table ip nat\ndelete table ip nat\ntable ip filter\ndelete table ip filter\ntable ip kube-proxy\ndelete table ip kube-proxy
table ip kube-proxy {
  set cluster-ips {
    type ipv4_addr
    ${elements(clusterIps)}
  }
  set nodeport-ips {
    type ipv4_addr
    ${elements([nodeIp])}
  }
${chain("mark-for-masquerade", "meta mark set mark or 0x4000")}${endpoints.join("")}${chains.join("")}${externals.join("")}
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    ${elements(serviceIps)}
  }
  map service-nodeports {
    type inet_proto . inet_service : verdict
    ${elements(nodePorts)}
  }
${chain(
  "services",
  "ip daddr . meta l4proto . th dport vmap @service-ips",
  "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
)}${chain("cluster-ips-check", "ip daddr @cluster-ips reject")}${chain(
  "masquerading",
  "meta mark & 0x4000 == 0 return",
  "meta mark set mark xor 0x4000",
  "masquerade fully-random",
)}${chain(
  "filter-forward",
  "type filter hook forward priority -110; policy accept;",
  "ct state new jump cluster-ips-check",
)}${chain(
  "filter-output-post-dnat",
  "type filter hook output priority -90; policy accept;",
  "ct state new jump cluster-ips-check",
)}${chain(
  "nat-prerouting",
  "type nat hook prerouting priority dstnat; policy accept;",
  "jump services",
)}${chain("nat-output", "type nat hook output priority -100; policy accept;", "jump services")}${chain(
  "nat-postrouting",
  "type nat hook postrouting priority srcnat; policy accept;",
  "jump masquerading",
)}}
`;
}
