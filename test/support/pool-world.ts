/**
 * A perfect and instant EC2 for tests of the planner: what a plan asks for comes true through the production transitions.
 * Addresses are handed out in order; ENIs are named eni-1, eni-2, … by their slot.
 */
import { planPool } from "../../src/core/pool/plan.ts";
import { POOL_SETTINGS_DEFAULT, type PoolSettings } from "../../src/core/pool/targets.ts";
import { chooseAddress } from "../../src/core/pool/choose.ts";
import type { PoolAction, PoolPlan } from "../../src/core/model/action.ts";
import type {
  AttachmentId,
  Eni,
  EniId,
  EniSlot,
  Mac,
  SecurityGroupId,
  SubnetId,
} from "../../src/core/model/eni.ts";
import type { Instance, InstanceId, InstanceLimits } from "../../src/core/model/instance.ts";
import { sandboxId, type SandboxKey } from "../../src/core/model/sandbox.ts";
import type { Allocation, NodeState } from "../../src/core/state/node-state.ts";
import {
  addressAllocated,
  addressesAssigned,
  addressesGone,
  addressesLeaving,
  addressReleased,
  eniAttached,
  eniDeleted,
  eniDetached,
  eniLeaving,
  eniReady,
  nodeBegan,
  prefixesAssigned,
  prefixesGone,
  prefixesLeaving,
} from "../../src/core/state/transitions.ts";
import { unreachable } from "../../src/lib/assert.ts";
import {
  type Cidr4,
  cidr4,
  ipv4,
  ipv4Plus,
  ipv4ToNumber,
  numberToIpv4,
  type Ipv4,
} from "../../src/lib/ip.ts";
import { after, instant, type Instant, wallTime } from "../../src/lib/time.ts";

export const SUBNET_A = "subnet-a" as SubnetId; // Brands are given freely here: tests are the edge.
export const SUBNET_B = "subnet-b" as SubnetId;
export const GROUP = "sg-1" as SecurityGroupId;
const CIDRS: Readonly<Record<string, Cidr4>> = {
  [SUBNET_A]: cidr4("10.0.0.0/18"),
  [SUBNET_B]: cidr4("10.0.64.0/18"),
};

export const M5_LARGE: InstanceLimits = { addressesPerEni: 10, networkCards: [{ enis: 3 }], nitro: true };
export const M5_4XLARGE: InstanceLimits = { addressesPerEni: 30, networkCards: [{ enis: 8 }], nitro: true };
export const T3_MEDIUM: InstanceLimits = { addressesPerEni: 6, networkCards: [{ enis: 3 }], nitro: true };

export function settingsOf(changes: Partial<PoolSettings>): PoolSettings {
  return { ...POOL_SETTINGS_DEFAULT, ...changes };
}

export function instanceOf(limits: InstanceLimits): Instance {
  return {
    id: "i-1" as InstanceId,
    type: "test.type",
    region: "eu-test-1",
    availabilityZone: "eu-test-1a",
    vpcId: "vpc-1",
    vpcCidrs: [cidr4("10.0.0.0/16")],
    primaryMac: macOf({ networkCard: 0, deviceIndex: 0 }),
    primaryIp: ipv4("10.0.0.4"),
    primarySubnet: SUBNET_A,
    securityGroups: [GROUP],
    limits,
  };
}

/** A node with its primary ENI, ready and without addresses, as it is after boot. */
export function bootedNode(limits: InstanceLimits): NodeState {
  const began = nodeBegan(instanceOf(limits));
  const slot = { networkCard: 0, deviceIndex: 0 };
  const primary = { ...eniAt(began, slot, SUBNET_A, instant(0)), primaryIp: began.instance.primaryIp };
  return eniReady(eniAttached(began, primary), primary.id);
}

/** A new ENI in the slot, link awaited, without addresses. */
export function eniAt(state: NodeState, slot: EniSlot, subnetId: SubnetId, now: Instant): Eni {
  const name = slot.networkCard === 0 ? `${slot.deviceIndex}` : `${slot.networkCard}-${slot.deviceIndex}`;
  return {
    id: `eni-${name}` as EniId,
    mac: macOf(slot),
    role: slot.networkCard === 0 && slot.deviceIndex === 0 ? "primary" : "secondary",
    slot,
    attachmentId: `eni-attach-${name}` as AttachmentId,
    subnetId,
    subnetCidr: cidrOf(subnetId),
    securityGroups: [GROUP],
    primaryIp: freshAddresses(state, subnetId, 1)[0] ?? ipv4("0.0.0.0"),
    phase: { kind: "awaiting-link", since: now },
    attachedAt: now,
    detachable: slot.networkCard !== 0 || slot.deviceIndex !== 0,
    prefixes: [],
    addresses: new Map(),
  };
}

/** What the world is after the action. With `links: "awaited"` an attached ENI stays without its link. */
export function applyAction(
  state: NodeState,
  action: PoolAction,
  now: Instant,
  links: "up" | "awaited" = "up",
): NodeState {
  switch (action.kind) {
    case "assign-addresses":
      return addressesAssigned(
        state,
        action.eni,
        freshAddresses(state, subnetOf(state, action.eni), action.count),
      );
    case "assign-prefixes":
      return prefixesAssigned(
        state,
        action.eni,
        freshPrefixes(state, subnetOf(state, action.eni), action.count),
      );
    case "unassign-addresses":
      return addressesGone(addressesLeaving(state, action.eni, action.ips), action.eni, action.ips);
    case "unassign-prefixes":
      return prefixesGone(prefixesLeaving(state, action.eni, action.prefixes), action.eni, action.prefixes);
    case "attach-eni": {
      const eni = eniAt(state, action.slot, action.subnetId, now);
      let next = eniAttached(state, eni);
      next = addressesAssigned(next, eni.id, freshAddresses(next, action.subnetId, action.addressCount));
      next = prefixesAssigned(next, eni.id, freshPrefixes(next, action.subnetId, action.prefixCount));
      return links === "up" ? eniReady(next, eni.id) : next;
    }
    case "detach-eni":
      return eniDeleted(
        eniDetached(eniLeaving(state, action.eni, now), action.eni, action.attachmentId, now),
        action.eni,
      );
    case "delete-eni":
      return eniDeleted(state, action.eni);
    default:
      return unreachable(action);
  }
}

export type Settled = {
  readonly state: NodeState;
  readonly actions: readonly PoolAction[];
  readonly hold: Extract<PoolPlan, { kind: "hold" }>;
};

/** Plans and applies at one instant until the plan is to hold. Throws when `steps` are not enough. */
export function settle(
  state: NodeState,
  settings: PoolSettings,
  now: Instant,
  options: { readonly links?: "up" | "awaited"; readonly steps?: number } = {},
): Settled {
  const actions: PoolAction[] = [];
  let current = state;
  for (let step = 0; step <= (options.steps ?? 100); step += 1) {
    const plan = planPool(current, settings, now);
    if (plan.kind === "hold") return { state: current, actions, hold: plan };
    actions.push(plan.action);
    current = applyAction(current, plan.action, now, options.links ?? "up");
  }
  throw new Error(`no hold within the steps: ${actions.map(printAction).join("; ")}`);
}

/** Like `settle`, and then again whenever the plan says that time will change something, up to `until`. */
export function settleUntil(
  state: NodeState,
  settings: PoolSettings,
  start: Instant,
  until: Instant,
): Settled & { now: Instant } {
  const actions: PoolAction[] = [];
  let [current, now] = [state, start];
  for (;;) {
    const settled = settle(current, settings, now);
    actions.push(...settled.actions);
    current = settled.state;
    const { retryAt } = settled.hold;
    if (retryAt === null || retryAt > until) return { ...settled, actions, now };
    if (retryAt <= now) throw new Error(`asked to come again at ${retryAt}, which is past`);
    now = retryAt;
  }
}

/** `assign-addresses eni-0 29`: for tables. */
export function printAction(action: PoolAction): string {
  switch (action.kind) {
    case "assign-addresses":
    case "assign-prefixes":
      return `${action.kind} ${action.eni} ${action.count}`;
    case "unassign-addresses":
      return `${action.kind} ${action.eni} ${action.ips.length}`;
    case "unassign-prefixes":
      return `${action.kind} ${action.eni} ${action.prefixes.length}`;
    case "attach-eni": {
      const what =
        action.prefixCount > 0 ? `prefixes ${action.prefixCount}` : `addresses ${action.addressCount}`;
      return `attach-eni ${action.slot.networkCard}/${action.slot.deviceIndex} ${action.subnetId} ${what}`;
    }
    case "detach-eni":
    case "delete-eni":
      return `${action.kind} ${action.eni}`;
    default:
      return unreachable(action);
  }
}

export function keyOf(name: string): SandboxKey {
  return { network: "net", containerId: name, ifName: "eth0" };
}

export function allocationOf(name: string, eni: Eni, ip: Ipv4): Allocation {
  const key = keyOf(name);
  return {
    id: sandboxId(key),
    key,
    pod: null,
    netns: { path: `/run/netns/${name}`, device: 4, inode: 1 },
    ip,
    eni: eni.id,
    eniSlot: eni.slot,
    hostLink: `eni${name}`.slice(0, 15),
    hostMac: "0a:00:00:00:00:01" as Mac,
    podMac: "0e:00:00:00:00:01" as Mac,
    mtu: 9001,
    requestId: name,
    since: wallTime(0),
  };
}

/** As many sandboxes as get an address at once; the rest wait. Names are `${prefix}0`, `${prefix}1`, … */
export function podsStart(
  state: NodeState,
  settings: PoolSettings,
  now: Instant,
  count: number,
  prefix = "pod-",
): NodeState {
  let current = { ...state, waiting: 0 };
  for (let i = 0; i < count; i += 1) {
    const chosen = chooseAddress(current, keyOf(`${prefix}${i}`), settings, now);
    if (chosen === null) return { ...current, waiting: state.waiting + count - i };
    current = addressAllocated(current, allocationOf(`${prefix}${i}`, chosen.eni, chosen.address.ip), now);
  }
  return { ...current, waiting: state.waiting };
}

export function podsEnd(state: NodeState, settings: PoolSettings, now: Instant, count: number): NodeState {
  let current = state;
  for (const id of [...state.allocations.keys()].slice(0, count)) {
    current = addressReleased(current, id, after(now, settings.cooldownMs));
  }
  return current;
}

/** Lowest first, skipping what the subnet's pods and ENIs have. The first four of a subnet are EC2's own. */
export function freshAddresses(state: NodeState, subnetId: SubnetId, count: number): Ipv4[] {
  const taken = takenAddresses(state);
  const found: Ipv4[] = [];
  for (let ip = ipv4Plus(cidrOf(subnetId).network, 4); found.length < count; ip = ipv4Plus(ip, 1)) {
    if (!taken.has(ip)) found.push(ip);
  }
  return found;
}

/** From the subnet's upper half, so that single addresses do not break them up. */
export function freshPrefixes(state: NodeState, subnetId: SubnetId, count: number): Cidr4[] {
  const taken = new Set(
    [...state.enis.values()].flatMap((eni) => eni.prefixes.map((prefix) => prefix.network)),
  );
  const found: Cidr4[] = [];
  const first = ipv4ToNumber(cidrOf(subnetId).network) + 0x2000;
  for (let at = first; found.length < count; at += 16) {
    if (!taken.has(numberToIpv4(at))) found.push({ network: numberToIpv4(at), prefixLength: 28 });
  }
  return found;
}

function takenAddresses(state: NodeState): Set<Ipv4> {
  const taken = new Set<Ipv4>([state.instance.primaryIp]);
  for (const eni of state.enis.values()) {
    taken.add(eni.primaryIp);
    for (const ip of eni.addresses.keys()) taken.add(ip);
  }
  return taken;
}

function subnetOf(state: NodeState, id: EniId): SubnetId {
  return state.enis.get(id)?.subnetId ?? SUBNET_A;
}

function cidrOf(subnetId: SubnetId): Cidr4 {
  return CIDRS[subnetId] ?? cidr4("10.0.0.0/18");
}

function macOf(slot: EniSlot): Mac {
  return `02:00:00:00:0${slot.networkCard}:${slot.deviceIndex.toString(16).padStart(2, "0")}` as Mac;
}
