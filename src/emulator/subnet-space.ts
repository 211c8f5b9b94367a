/**
 * Which addresses of one subnet are taken: one 16-bit mask for each /28, because EC2 hands out prefixes as whole, aligned /28 blocks
 * and fragmentation is what makes that fail. Knows nothing of ENIs.
 */
import { assert } from "../lib/assert.ts";
import { type Cidr4, cidr4Contains, cidr4Size, type Ipv4, ipv4Plus, ipv4ToNumber } from "../lib/ip.ts";
import { type Random, randomInteger } from "../lib/random.ts";

/** Addresses in a delegated prefix (/28). */
export const PREFIX_SIZE = 16;
export const PREFIX_LENGTH = 28;
const FULL = 0xffff;

export type SubnetSpace = {
  readonly cidr: Cidr4;
  /** Bit `i` of `blocks[b]` is set when the address at offset `16 b + i` is taken or reserved. Never written after it was made. */
  readonly blocks: Readonly<Uint16Array>;
  /** EC2's AvailableIpAddressCount: size - 5 reserved - taken. */
  readonly freeCount: number;
  /** Blocks kept for prefixes by a subnet CIDR reservation of type `prefix`. */
  readonly prefixOnly: ReadonlySet<number>;
  /** Blocks kept for explicit requests by a reservation of type `explicit`. */
  readonly explicitOnly: ReadonlySet<number>;
};

/** Order in which EC2 hands out free addresses. It is not documented; `random` is nearest to what people see. */
export type HandOutOrder = "random" | "lowest";

/** First four addresses and the last: network, router, DNS, future use, broadcast. Source: VPC user guide, subnet sizing. */
export function isReservedOffset(cidr: Cidr4, offset: number): boolean {
  return offset < 4 || offset === cidr4Size(cidr) - 1;
}

/** A subnet with nothing in it. `cidr` is between /16 and /28. */
export function emptySpace(cidr: Cidr4): SubnetSpace {
  assert(cidr.prefixLength >= 16 && cidr.prefixLength <= 28, "a subnet is between /16 and /28");
  const size = cidr4Size(cidr);
  const blocks = new Uint16Array(size / PREFIX_SIZE);
  blocks[0] = 0b1111;
  blocks[blocks.length - 1] = (blocks[blocks.length - 1] ?? 0) | 0x8000;
  return { cidr, blocks, freeCount: size - 5, prefixOnly: new Set(), explicitOnly: new Set() };
}

export function offsetOf(space: SubnetSpace, ip: Ipv4): number {
  return ipv4ToNumber(ip) - ipv4ToNumber(space.cidr.network);
}

export function isTaken(space: SubnetSpace, ip: Ipv4): boolean {
  const offset = offsetOf(space, ip);
  return (maskAt(space, offset >> 4) & (1 << (offset & 15))) !== 0;
}

export function isReserved(space: SubnetSpace, ip: Ipv4): boolean {
  return isReservedOffset(space.cidr, offsetOf(space, ip));
}

/** Whether the whole /28 that starts at `network` is free. `network` is aligned and inside the subnet. */
export function isBlockFree(space: SubnetSpace, network: Ipv4): boolean {
  return maskAt(space, offsetOf(space, network) >> 4) === 0;
}

/**
 * Takes single addresses and whole prefixes. Broken promise when one of them is taken, reserved or outside: so no address is ever on two
 * ENIs, and prefixes are aligned and disjoint.
 */
export function take(space: SubnetSpace, what: Addresses): SubnetSpace {
  const blocks = space.blocks.slice();
  for (const ip of what.ips) {
    assert(cidr4Contains(space.cidr, ip) && !isReserved(space, ip), `${ip} may be handed out`);
    const offset = offsetOf(space, ip);
    const mask = blocks[offset >> 4] ?? FULL;
    assert((mask & (1 << (offset & 15))) === 0, `${ip} is on one ENI only`);
    blocks[offset >> 4] = mask | (1 << (offset & 15));
  }
  for (const network of what.prefixes) {
    const offset = offsetOf(space, network);
    assert(
      cidr4Contains(space.cidr, network) && offset % PREFIX_SIZE === 0,
      `prefix ${network} is aligned and inside`,
    );
    assert(blocks[offset >> 4] === 0, `prefix ${network} overlaps nothing`);
    blocks[offset >> 4] = FULL;
  }
  return settled({ ...space, blocks, freeCount: space.freeCount - countOf(what) });
}

/** Gives back what was taken. Broken promise when it was not. */
export function giveBack(space: SubnetSpace, what: Addresses): SubnetSpace {
  const blocks = space.blocks.slice();
  for (const ip of what.ips) {
    const offset = offsetOf(space, ip);
    const mask = blocks[offset >> 4] ?? 0;
    assert(!isReserved(space, ip) && (mask & (1 << (offset & 15))) !== 0, `${ip} was taken`);
    blocks[offset >> 4] = mask & ~(1 << (offset & 15));
  }
  for (const network of what.prefixes) {
    const block = offsetOf(space, network) >> 4;
    assert(blocks[block] === FULL, `prefix ${network} was taken whole`);
    blocks[block] = 0;
  }
  return settled({ ...space, blocks, freeCount: space.freeCount + countOf(what) });
}

/** `ips` are single addresses; `prefixes` are the first addresses of /28 blocks. */
export type Addresses = { readonly ips: readonly Ipv4[]; readonly prefixes: readonly Ipv4[] };

export type Shortage = "no-free-address" | "fewer-than-asked" | "no-free-block";

/** `count` free single addresses, never one inside a block reserved for prefixes or explicit requests. Does not take them. */
export function chooseIps(
  space: SubnetSpace,
  count: number,
  how: { order: HandOutOrder; random: Random },
): readonly Ipv4[] | Shortage {
  if (count === 0) return [];
  if (space.freeCount === 0) return "no-free-address";
  const chosen = new Set<number>();
  const size = cidr4Size(space.cidr);
  const usable = (offset: number): boolean =>
    (maskAt(space, offset >> 4) & (1 << (offset & 15))) === 0 &&
    !space.prefixOnly.has(offset >> 4) &&
    !space.explicitOnly.has(offset >> 4);
  // Throwing darts is quick while the subnet is mostly free; a crowded one is listed instead.
  for (let throws = 0; how.order === "random" && chosen.size < count && throws < count * 8; throws += 1) {
    const offset = randomInteger(how.random, 0, size - 1);
    if (usable(offset)) chosen.add(offset);
  }
  if (chosen.size < count) {
    const rest: number[] = [];
    for (let offset = 0; offset < size; offset += 1)
      if (usable(offset) && !chosen.has(offset)) rest.push(offset);
    while (chosen.size < count && rest.length > 0) chosen.add(draw(rest, how));
  }
  if (chosen.size < count) return chosen.size === 0 ? "no-free-address" : "fewer-than-asked";
  return [...chosen].map((offset) => ipv4Plus(space.cidr.network, offset));
}

/**
 * First addresses of `count` free /28 blocks: out of prefix reservations first, then of the rest. Does not take them.
 * Source: VPC user guide, subnet CIDR reservations.
 */
export function choosePrefixes(
  space: SubnetSpace,
  count: number,
  how: { order: HandOutOrder; random: Random },
): readonly Ipv4[] | Shortage {
  if (count === 0) return [];
  if (space.freeCount === 0) return "no-free-address";
  if (space.freeCount < count * PREFIX_SIZE) return "fewer-than-asked";
  const reserved: number[] = [];
  const general: number[] = [];
  for (let block = 0; block < space.blocks.length; block += 1) {
    if (maskAt(space, block) !== 0 || space.explicitOnly.has(block)) continue;
    (space.prefixOnly.has(block) ? reserved : general).push(block);
  }
  if (reserved.length + general.length < count) return "no-free-block";
  const chosen: Ipv4[] = [];
  while (chosen.length < count) {
    const block = draw(reserved.length > 0 ? reserved : general, how);
    chosen.push(ipv4Plus(space.cidr.network, block * PREFIX_SIZE));
  }
  return chosen;
}

/** The free counter, counted anew from the masks: for the invariants. */
export function countFree(space: SubnetSpace): number {
  let free = 0;
  for (const mask of space.blocks) for (let bit = 0; bit < 16; bit += 1) free += (mask >> bit) & 1 ? 0 : 1;
  return free;
}

function settled(space: SubnetSpace): SubnetSpace {
  assert(
    space.freeCount >= 0 && space.freeCount <= cidr4Size(space.cidr) - 5,
    "a subnet's free counter stays within its size",
  );
  return space;
}

function countOf(what: Addresses): number {
  return what.ips.length + what.prefixes.length * PREFIX_SIZE;
}

function maskAt(space: SubnetSpace, block: number): number {
  return space.blocks[block] ?? FULL;
}

/** Takes one entry out of `from`. */
function draw(from: number[], how: { order: HandOutOrder; random: Random }): number {
  const index = how.order === "lowest" ? 0 : randomInteger(how.random, 0, from.length - 1);
  const [taken] = from.splice(index, 1);
  assert(taken !== undefined, "something is left to draw");
  return taken;
}
