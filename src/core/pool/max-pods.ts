/** How many pods a node can have, as kubelet's `max-pods` wants to know it. */
import type { InstanceLimits } from "../model/instance.ts";
import { PREFIX_SIZE, type PoolSettings } from "./targets.ts";

/** Pods in the host's network, which need no address: the daemon itself and kube-proxy, as EKS counts them. */
const HOST_NETWORK_PODS = 2;

/**
 * Addresses that pods can have, and the two pods that need none. Prefix delegation gives far more than kubelet can run: EKS advises
 * no more than 110, or 250 on large instances, which `cap` says.
 * Source: awslabs/amazon-eks-ami, max-pods-calculator: ENIs × (addresses − 1) + 2, × 16 with prefixes, one ENI less with custom networking.
 */
export function maxPodsOf(
  limits: InstanceLimits,
  settings: Pick<
    PoolSettings,
    "prefixDelegation" | "podsOnPrimary" | "maxEni" | "maxPods" | "allNetworkCards"
  >,
  cap: number | null,
): number {
  const cards = settings.allNetworkCards ? limits.networkCards : limits.networkCards.slice(0, 1);
  const enis = Math.min(
    cards.reduce((sum, card) => sum + card.enis, 0),
    settings.maxEni ?? Infinity,
  );
  const serving = Math.max(0, settings.podsOnPrimary ? enis : enis - 1);
  const each = (limits.addressesPerEni - 1) * (settings.prefixDelegation && limits.nitro ? PREFIX_SIZE : 1);
  const addresses = Math.min(serving * each, settings.maxPods ?? Infinity);
  return Math.min(addresses + HOST_NETWORK_PODS, cap ?? Infinity);
}
