/**
 * The one nft table inside an ipvlan pod, as a value and as text. netlink/nftables.ts encodes the same value for the kernel, so that no
 * program is run for a pod; a test holds what the kernel then lists equal to this text.
 */
import type { PodFilter } from "./object.ts";
import { PACKET_FILTER_TABLE, POD_ENI_MARK, POD_NODE_MARK } from "./names.ts";

/** One test or deed of a rule. A rule's steps are carried out in order, and end at the first test that fails. */
export type PodFilterStep =
  | { readonly kind: "link"; readonly end: "in" | "out"; readonly name: string }
  | { readonly kind: "original-direction" }
  | { readonly kind: "not-from"; readonly ip: PodFilter["ip"] }
  | { readonly kind: "connection-marked"; readonly bit: number }
  | { readonly kind: "mark-connection"; readonly bit: number }
  | { readonly kind: "mark-packet"; readonly bit: number }
  | { readonly kind: "drop" }
  | { readonly kind: "masquerade" };

export type PodFilterChain = {
  readonly name: string;
  readonly type: "filter" | "route" | "nat";
  readonly hook: "prerouting" | "output" | "postrouting";
  readonly priority: number;
  readonly rules: readonly (readonly PodFilterStep[])[];
};

/**
 * - `enter` notes by which link a connection came, and `leave` sends its answers the same way.
 * - `guard`: two addresses of one ENI look alike to the VPC, so the pod itself must not use another's. A pod with CAP_NET_ADMIN can take this away.
 * - `source`: what the node sends back into the pod leaves with the pod's address. Locally made packets have it, or are dropped before.
 */
export function podFilterChains({ slave, veth, ip }: PodFilter): readonly PodFilterChain[] {
  const came = (name: string, bit: number): readonly PodFilterStep[] => [
    { kind: "link", end: "in", name },
    { kind: "original-direction" },
    { kind: "mark-connection", bit },
  ];
  const answer = (bit: number): readonly PodFilterStep[] => [
    { kind: "connection-marked", bit },
    { kind: "mark-packet", bit },
  ];
  return [
    {
      name: "enter",
      type: "filter",
      hook: "prerouting",
      priority: -150,
      rules: [came(veth, POD_NODE_MARK), came(slave, POD_ENI_MARK)],
    },
    {
      name: "leave",
      type: "route",
      hook: "output",
      priority: -150,
      rules: [answer(POD_NODE_MARK), answer(POD_ENI_MARK)],
    },
    {
      name: "guard",
      type: "filter",
      hook: "output",
      priority: 0,
      rules: [[{ kind: "link", end: "out", name: slave }, { kind: "not-from", ip }, { kind: "drop" }]],
    },
    {
      name: "source",
      type: "nat",
      hook: "postrouting",
      priority: 100,
      rules: [[{ kind: "link", end: "out", name: slave }, { kind: "not-from", ip }, { kind: "masquerade" }]],
    },
  ];
}

/** As `nft -f -` takes it inside the pod, and as nft lists it afterwards. */
export function printPodFilter(filter: PodFilter): string {
  const chains = podFilterChains(filter).map(({ name, type, hook, priority, rules }) =>
    [
      `  chain ${name} {`,
      `    type ${type} hook ${hook} priority ${PRIORITY_NAMES.get(priority) ?? priority}; policy accept;`,
      ...rules.map((steps) => `    ${steps.map(stepText).join(" ")}`),
      "  }",
    ].join("\n"),
  );
  return `table ip ${PACKET_FILTER_TABLE} {\n${chains.join("\n\n")}\n}\n`;
}

const PRIORITY_NAMES: ReadonlyMap<number, string> = new Map([
  [-150, "mangle"],
  [0, "filter"],
  [100, "srcnat"],
]);

function stepText(step: PodFilterStep): string {
  switch (step.kind) {
    case "link":
      return `${step.end === "in" ? "iifname" : "oifname"} "${step.name}"`;
    case "original-direction":
      return "ct direction original";
    case "not-from":
      return `ip saddr != ${step.ip}`;
    case "connection-marked":
      return `ct mark & ${bits(step.bit)} == ${bits(step.bit)}`;
    case "mark-connection":
      return `ct mark set ct mark | ${bits(step.bit)}`;
    case "mark-packet":
      return `meta mark set meta mark | ${bits(step.bit)}`;
    case "drop":
      return "drop";
    case "masquerade":
      return "masquerade";
  }
}

function bits(value: number): string {
  return `0x${value.toString(16).padStart(8, "0")}`;
}
