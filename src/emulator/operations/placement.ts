/** Which addresses of a subnet a call gets: explicit ones checked, others chosen. Shared by create, assign and launch. */
import { unreachable } from "../../lib/assert.ts";
import {
  cidr4Contains,
  cidr4Size,
  type Ipv4,
  ipv4Plus,
  networkOf,
  parseCidr4,
  parseIpv4,
} from "../../lib/ip.ts";
import { err, ok, type Result } from "../../lib/result.ts";
import {
  type Failure,
  fewerThanAsked,
  invalidValue,
  noFreeBlock,
  notAnAddress,
  outsideSubnet,
  reservedAddress,
  subnetFull,
} from "../failures.ts";
import {
  type Addresses,
  chooseIps,
  choosePrefixes,
  isReserved,
  PREFIX_LENGTH,
  type Shortage,
  type SubnetSpace,
  take,
} from "../subnet-space.ts";
import type { Call } from "./operation.ts";

/** Addresses that the call leaves to EC2. */
export type Counts = { readonly ipCount: number; readonly prefixCount: number };

/** Free addresses and prefixes for `counts`, disjoint from `explicit`, which must be free. What is returned holds `explicit` too. */
export function place(
  space: SubnetSpace,
  explicit: Addresses,
  counts: Counts,
  call: Pick<Call, "random" | "handOut">,
): Result<Addresses, Failure> {
  const how = { order: call.handOut, random: call.random };
  const afterExplicit = take(space, explicit);
  const prefixes = choosePrefixes(afterExplicit, counts.prefixCount, how);
  if (typeof prefixes === "string") return err(shortage(prefixes));
  const ips = chooseIps(take(afterExplicit, { ips: [], prefixes }), counts.ipCount, how);
  if (typeof ips === "string") return err(shortage(ips));
  return ok({ ips: [...explicit.ips, ...ips], prefixes: [...explicit.prefixes, ...prefixes] });
}

function shortage(kind: Shortage): Failure {
  switch (kind) {
    case "no-free-address":
      return subnetFull();
    case "fewer-than-asked":
      return fewerThanAsked();
    case "no-free-block":
      return noFreeBlock();
    default:
      return unreachable(kind);
  }
}

/** Explicit addresses as a call wrote them: all must be addresses, each once. */
export function parseIps(texts: readonly string[]): Result<readonly Ipv4[], Failure> {
  const ips = new Set<Ipv4>();
  for (const text of texts) {
    const ip = parseIpv4(text);
    if (!ip.ok) return err(notAnAddress(text));
    ips.add(ip.value);
  }
  return ok([...ips]);
}

/** Explicit /28 prefixes as a call wrote them; the first addresses of their blocks. */
export function parsePrefixes(texts: readonly string[]): Result<readonly Ipv4[], Failure> {
  const prefixes = new Set<Ipv4>();
  for (const text of texts) {
    const cidr = parseCidr4(text);
    if (!cidr.ok || cidr.value.prefixLength !== PREFIX_LENGTH) return err(invalidValue(text, "ipv4Prefix"));
    prefixes.add(cidr.value.network);
  }
  return ok([...prefixes]);
}

/** Whether explicit addresses and prefixes lie in the subnet and outside what AWS keeps for itself. */
export function checkInside(space: SubnetSpace, explicit: Addresses): Result<null, Failure> {
  for (const ip of [...explicit.ips, ...explicit.prefixes])
    if (!cidr4Contains(space.cidr, ip)) return err(outsideSubnet());
  for (const ip of explicit.ips) if (isReserved(space, ip)) return err(reservedAddress());
  const first = space.cidr.network;
  const last = networkOf(ipv4Plus(first, cidr4Size(space.cidr) - 1), PREFIX_LENGTH);
  for (const prefix of explicit.prefixes)
    if (prefix === first || prefix === last) return err(reservedAddress());
  return ok(null);
}
