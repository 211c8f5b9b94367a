/**
 * The AWS VPC CNI's warm pool as a model, by its documented rules and intervals: a loop that looks every 5 s and does one thing at a look;
 * an ADD that finds nothing is refused at once. Its sizes are held against the real daemon's by test/judges/incumbent-model.test.ts.
 */
import { HOUR_MS, MINUTE_MS, SECOND_MS } from "../../../../src/lib/time.ts";
import { type NodePool, type PoolOptions, retryMs } from "./pool.ts";

/** One address, or one /28. */
type Block = { readonly size: number; readonly pods: Set<string>; resting: number[] };
type Eni = { readonly primary: boolean; readonly attachedAt: number; readonly blocks: Block[] };

const PREFIX_SIZE = 16;
const HALF_LOOK_MS = 2_500;
const SHRINK_EVERY_MS = 30 * SECOND_MS;
const ENI_LIFE_MIN_MS = MINUTE_MS;
const DELETE_WAIT_MS = 2 * SECOND_MS;

export function createIncumbent(options: PoolOptions): NodePool {
  const { clock, cloud, random, settings, limits, podsMax } = options;
  const { prefixDelegation: byPrefix, cooldownMs } = settings;
  const size = byPrefix ? PREFIX_SIZE : 1;
  const blocksPerEni = limits.addressesPerEni - 1;
  const perEni = blocksPerEni * size;
  const eniCountMax = Math.min(limits.enis, settings.maxEni ?? limits.enis);
  const warmIp = settings.warmIpTarget ?? 0;
  const minimum = settings.minimumIpTarget ?? 0;
  const warmPrefixes = settings.warmPrefixTarget ?? 0;
  const countsAddresses = warmIp > 0 || minimum > 0;
  const enis: Eni[] = [{ primary: true, attachedAt: clock.now, blocks: [] }];
  const owners = new Map<string, Block>();
  const wanted = new Map<string, () => void>(); // Pods without an address, and whom to tell.
  let shrunkAt = Number.NEGATIVE_INFINITY;

  const blocks = (): readonly Block[] => enis.flatMap((eni) => eni.blocks);
  const total = (): number => blocks().length * size;
  const available = (): number => total() - owners.size; // What rests counts as available.
  const prefixesFor = (addresses: number): number => Math.ceil(addresses / PREFIX_SIZE);
  const emptyCount = (some: readonly Block[]): number => some.filter(({ pods }) => pods.size === 0).length;

  /** In blocks. */
  const short = (): number => {
    if (!countsAddresses) return 0;
    const addresses = Math.max(warmIp - available(), minimum - total(), 0);
    return byPrefix ? prefixesFor(addresses) : addresses;
  };
  const over = (): number => {
    if (!countsAddresses)
      return byPrefix && warmPrefixes > 0 ? Math.max(emptyCount(blocks()) - warmPrefixes, 0) : 0;
    if (!byPrefix) return Math.max(Math.min(available() - warmIp, total() - minimum), 0);
    const needed = Math.max(prefixesFor(owners.size + warmIp), prefixesFor(minimum));
    return Math.max(Math.min(blocks().length - needed, emptyCount(blocks())), 0);
  };
  const isLow = (): boolean => {
    if (total() >= podsMax) return false;
    if (countsAddresses) return short() > 0;
    const wantedFree = byPrefix ? warmPrefixes * PREFIX_SIZE : settings.warmEniTarget * perEni;
    return available() < wantedFree || (wantedFree === 0 && available() === 0);
  };

  const fill = (eni: Eni, count: number): void => {
    for (let made = 0; made < count; made += 1) eni.blocks.push({ size, pods: new Set(), resting: [] });
  };
  /** How many blocks one call asks for. */
  const stepSize = (): number => (countsAddresses ? short() : byPrefix ? 1 : blocksPerEni);

  /** Each of these takes its time and then goes on with `next`. */
  const grow = (next: () => void): void => {
    const roomy = enis.find((eni) => eni.blocks.length < blocksPerEni);
    if (roomy !== undefined) {
      const count = Math.min(blocksPerEni - roomy.blocks.length, stepSize());
      clock.after(cloud.call("AssignPrivateIpAddresses"), () => {
        fill(roomy, count);
        next();
      });
      return;
    }
    if (enis.length >= eniCountMax) return next();
    const count = Math.min(blocksPerEni, stepSize());
    const callsMs = cloud.call(
      "DescribeSubnets",
      "CreateNetworkInterface",
      "DescribeInstances",
      "AttachNetworkInterface",
      "ModifyNetworkInterfaceAttribute",
      "DescribeSubnets",
    );
    const thereMs = Math.max(cloud.process("link-up"), cloud.process("imds-attach"));
    clock.after(callsMs + thereMs, () => {
      const eni: Eni = { primary: false, attachedAt: clock.now, blocks: [] };
      fill(eni, count);
      enis.push(eni);
      next();
    });
  };
  const shrink = (next: () => void): void => {
    let left = over();
    let callsMs = 0;
    for (const eni of enis) {
      const going = eni.blocks.filter(({ pods }) => pods.size === 0).slice(0, left);
      if (going.length === 0) continue;
      left -= going.length;
      callsMs += cloud.call("UnassignPrivateIpAddresses");
      for (const block of going) eni.blocks.splice(eni.blocks.indexOf(block), 1);
    }
    shrunkAt = clock.now + callsMs;
    clock.after(callsMs, next);
  };
  const deletable = (eni: Eni): boolean => {
    if (eni.primary || clock.now - eni.attachedAt < ENI_LIFE_MIN_MS) return false;
    if (eni.blocks.some(({ pods, resting }) => pods.size > 0 || resting.some((until) => until > clock.now)))
      return false;
    const others = enis.filter((other) => other !== eni).flatMap((other) => other.blocks);
    const free = others.reduce((sum, block) => sum + block.size - block.pods.size, 0);
    const rounded = (target: number): number => Math.ceil(target / size) * size;
    if (warmIp > 0 && free < rounded(warmIp)) return false;
    if (minimum > 0 && others.length * size < rounded(minimum)) return false;
    return !(byPrefix && warmPrefixes > 0 && emptyCount(others) < warmPrefixes);
  };
  const freeEni = (next: () => void): void => {
    const enough = ((byPrefix ? warmPrefixes : settings.warmEniTarget) + 1) * perEni;
    const eni = countsAddresses || byPrefix || available() >= enough ? enis.find(deletable) : undefined;
    if (eni === undefined) return next();
    enis.splice(enis.indexOf(eni), 1);
    const detachMs = cloud.call("DescribeNetworkInterfaces", "DetachNetworkInterface");
    clock.after(detachMs + DELETE_WAIT_MS + cloud.call("DeleteNetworkInterface"), next);
  };
  const look = (): void => {
    const rest = (): void => void clock.after(2 * HALF_LOOK_MS, look);
    if (isLow()) return grow(() => freeEni(rest));
    if (over() > 0 && clock.now - shrunkAt > SHRINK_EVERY_MS) return shrink(() => freeEni(rest));
    freeEni(rest);
  };
  const hunt = (): void => {
    cloud.call("DescribeNetworkInterfaces");
    clock.after(HOUR_MS, hunt);
  };

  const ask = (pod: string): void => {
    const served = wanted.get(pod);
    if (served === undefined) return;
    const usable = blocks().filter((block) => {
      block.resting = block.resting.filter((until) => until > clock.now);
      return block.pods.size + block.resting.length < block.size;
    });
    const block = usable[Math.floor(random() * usable.length)];
    if (block === undefined) return void clock.after(retryMs(random), () => ask(pod));
    block.pods.add(pod);
    owners.set(pod, block);
    wanted.delete(pod);
    served();
  };

  // At its start it looks at its ENI, tags it, and takes a first batch before it serves.
  const startMs = cloud.call(
    "DescribeNetworkInterfaces",
    "CreateTags",
    "DescribeSubnets",
    "ModifyNetworkInterfaceAttribute",
  );
  fill(
    enis[0] ?? { primary: true, attachedAt: 0, blocks: [] },
    Math.min(blocksPerEni, Math.max(stepSize(), 1)),
  );
  cloud.call("AssignPrivateIpAddresses");
  clock.after(startMs + HALF_LOOK_MS, look);
  clock.after(random() * 5 * MINUTE_MS, hunt);

  return {
    add: (pod, served) => {
      wanted.set(pod, served);
      ask(pod);
    },
    del: (pod) => {
      wanted.delete(pod);
      const block = owners.get(pod);
      if (block === undefined) return;
      owners.delete(pod);
      block.pods.delete(pod);
      block.resting.push(clock.now + cooldownMs);
    },
    held: total,
    assigned: () => owners.size,
    shape: () => ({
      enis: enis.length,
      addresses: byPrefix ? 0 : blocks().length,
      prefixes: byPrefix ? blocks().length : 0,
    }),
  };
}
