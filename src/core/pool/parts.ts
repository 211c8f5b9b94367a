/** The parts of an ENI that nobody uses and that EC2 can take back: single free addresses, and /28s that are wholly free. */
import { networkOf, type Cidr4, type Ipv4 } from "../../lib/ip.ts";
import { byNumber, sorted } from "../../lib/order.ts";
import type { Instant } from "../../lib/time.ts";
import type { Eni } from "../model/eni.ts";
import { freeSince, isFree } from "./cooldown.ts";

/** Those released last come first: what has rested longest stays, since it may be given out with the least risk. */
export function freeSecondariesOf(eni: Eni, now: Instant): Ipv4[] {
  const free = [...eni.addresses.values()].filter(
    (address) => address.by === "secondary" && isFree(address, now),
  );
  return sorted(
    free,
    byNumber((address) => -freeSince(address)),
  ).map((address) => address.ip);
}

/** All 16 addresses are free, so that no pod, and no late packet for one, can be meant. */
export function freePrefixesOf(eni: Eni, now: Instant): Cidr4[] {
  const taken = new Set<Ipv4>();
  for (const address of eni.addresses.values()) {
    if (address.by === "prefix" && !isFree(address, now)) taken.add(networkOf(address.ip, 28));
  }
  return eni.prefixes.filter((prefix) => !taken.has(prefix.network));
}
