/** What the node needs once, however many ENIs and pods it has: three kinds of rule, and a few sysctls. */
import { ipv4 } from "../../lib/ip.ts";
import {
  MAIN_TABLE,
  PODS_TABLE,
  RULE_EXTERNAL_SERVICE_PRIORITY,
  RULE_MAIN_PRIORITY,
  RULE_PODS_PRIORITY,
} from "./names.ts";
import type { Destination, KernelObject } from "./object.ts";
import { marksAreUsed, type PlumbingSettings } from "./settings.ts";

type Rule = Extract<KernelObject, { kind: "rule" }>;

/** One value under /proc/sys, by its dotted name. `expected` is the OS's business: we read it and complain, and never write it. */
export type Sysctl = { readonly name: string; readonly value: string; readonly duty: "set" | "expected" };

/**
 * - `all.rp_filter=2`, since the value in force is the greater of `all` and the link's: replies to the node's address leave by
 *   another ENI than the one that the unmarked reverse lookup finds, and strict links drop what enters for pods.
 *   What strictness did for pods, our packet filter's source check does.
 * - `ip_forward=1` is set by kubelet or the AMI; without it no pod reaches anything (aws/amazon-vpc-cni-k8s#744).
 */
export const NODE_SYSCTLS: readonly Sysctl[] = [
  { name: "net.ipv4.conf.all.rp_filter", value: "2", duty: "set" },
  { name: "net.ipv4.ip_forward", value: "1", duty: "expected" },
];

/** Objects of the host's namespace that belong to no ENI and no sandbox. */
export function nodeObjects(settings: PlumbingSettings): readonly KernelObject[] {
  const rules: Rule[] = [rule({ priority: RULE_PODS_PRIORITY, table: PODS_TABLE })];
  if (marksAreUsed(settings)) {
    const mark = { value: settings.mainMark, mask: settings.mainMark };
    rules.push(rule({ priority: RULE_MAIN_PRIORITY, mark, table: MAIN_TABLE }));
  }
  for (const { network, prefixLength } of settings.externalServiceCidrs) {
    const to = { ip: network, prefixLength };
    rules.push(rule({ priority: RULE_EXTERNAL_SERVICE_PRIORITY, to, table: MAIN_TABLE }));
  }
  return rules;
}

export const DEFAULT_ROUTE: Destination = { ip: ipv4("0.0.0.0"), prefixLength: 0 };

/** A rule that matches everything, but for the selectors given. */
export function rule(
  given: Pick<Rule, "priority" | "table"> & Partial<Pick<Rule, "mark" | "from" | "to" | "iif">>,
): Rule {
  return { kind: "rule", mark: null, from: null, to: null, ...given };
}
