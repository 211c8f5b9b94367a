/** Which ENIConfig a node's pods belong to, by the incumbent's order of precedence. */
import type { EniConfigSeen, NodeSeen } from "../model/cluster.ts";

/** Written by others than the operator, and so above all that an operator writes. */
const EXTERNAL_LABEL = "vpc.amazonaws.com/externalEniConfig";

/** The name alone: whether there is such an ENIConfig is another question. Source: the AWS VPC CNI's README, ENI_CONFIG_LABEL_DEF. */
export function eniConfigName(
  node: NodeSeen,
  keys: { readonly annotation: string; readonly label: string },
): string {
  return (
    node.labels[EXTERNAL_LABEL] ?? node.annotations[keys.annotation] ?? node.labels[keys.label] ?? "default"
  );
}

/** Null when it is not there, or names no subnet. */
export function eniConfigOf(
  eniConfigs: ReadonlyMap<string, EniConfigSeen> | null,
  name: string,
): EniConfigSeen | null {
  for (const each of eniConfigs?.values() ?? [])
    if (each.name === name) return each.subnet === null ? null : each;
  return null;
}
