/** One simulated cluster: the clock, EC2's world, the nodes, the faults and the checkers, wired together from one seed. */
import type { Ec2Operation } from "../aws/operations.ts";
import { createEngine, type Engine } from "../emulator/engine.ts";
import { PROFILES } from "../emulator/timings.ts";
import { type Random, seededRandom } from "../lib/random.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { instant, MINUTE_MS, SECOND_MS, wallTime } from "../lib/time.ts";
import type { Mac } from "../core/model/eni.ts";
import { Checks } from "./checkers.ts";
import { VirtualClock } from "./clock.ts";
import { type FaultName, Faults, type FaultOptions } from "./faults.ts";
import type { Namespace } from "./kernel.ts";
import { SimNode } from "./node.ts";
import { drawInstanceType } from "./settings.ts";

/** What somebody did by hand is unknown to the daemon for two looks, and some failed ones. */
const STOLEN_MS = 30 * MINUTE_MS;

export class Sim {
  readonly clusterName = "sim";
  readonly clock = new VirtualClock();
  readonly engine: Engine;
  readonly faults: Faults;
  readonly checks: Checks;
  readonly nodes: readonly SimNode[];
  readonly tracing: boolean;
  readonly lines: string[] = [];
  readonly chance: Random;
  readonly subnetId: string;
  /** All calls fail until then; creations fail until then. */
  outageUntil = 0;
  createFailsUntil = 0;
  readonly added = new Map<string, number>();
  readonly removals = new Map<string, number>();
  /** ENIs that others made: they must be there at the end. */
  readonly foreignEnis = new Set<string>();
  readonly #changedAt = new Map<string, number>();
  readonly #stolen = new Map<string, number>();
  readonly #linksUp = new Map<string, { readonly instanceId: string; readonly deviceIndex: number }>();
  readonly #byInstance: ReadonlyMap<string, SimNode>;

  constructor(options: FaultOptions & { readonly tracing: boolean; readonly nodeCount: number }) {
    const { clock } = this;
    this.tracing = options.tracing;
    this.chance = seededRandom(`${options.seed}/cluster`);
    this.checks = new Checks(clock, ({ checker, detail }) => this.trace(`VIOLATION ${checker}: ${detail}`));
    this.faults = new Faults(clock, options, (name, node) => this.trace(`${node} fault ${name}`));
    this.engine = createEngine({
      clock: { now: () => instant(clock.now), sleep: (ms) => clock.sleep(ms) },
      epoch: wallTime(Date.UTC(2026, 0, 1)),
      seed: options.seed,
      profile: PROFILES.typical,
      region: "eu-west-1",
      accountId: "123456789012",
      handOut: this.chance() < 0.5 ? "random" : "lowest",
      accessKeys: "any",
      credentialsLifetimeMs: 6 * 3_600_000,
      quotas: { enisPerRegion: 5_000, groupsPerEni: 5, unpagedResults: 1_000 },
      imds: { tokenRequired: true, enabled: true },
    });
    const { vpcId } = this.engine.seed.vpc({ cidrs: ["10.0.0.0/16"] });
    this.subnetId = this.engine.seed.subnet({ vpcId, cidr: "10.0.0.0/22" });
    const nodes: SimNode[] = [];
    this.engine.onChange((event) => {
      if (event.kind === "link-up") {
        this.#linksUp.set(event.mac, event);
        const node = this.#byInstance?.get(event.instanceId);
        if (node === undefined || clock.now < node.bootAt) return;
        node.kernel.eniLinkUp(macOf(event.mac), event.deviceIndex);
        node.kernelEvent();
      } else if (event.kind === "link-down") {
        this.#linksUp.delete(event.mac);
        const node = this.#byInstance?.get(event.instanceId);
        node?.kernel.eniLinkDown(macOf(event.mac));
        node?.kernelEvent();
      }
    });
    for (let number = 0; number < options.nodeCount; number += 1) {
      const { instanceId } = this.engine.seed.launch({
        type: drawInstanceType(this.chance),
        subnetId: this.subnetId,
      });
      nodes.push(new SimNode(this, `n${number}`, instanceId, seededRandom(`${options.seed}/node${number}`)));
    }
    this.nodes = nodes;
    this.#byInstance = new Map(nodes.map((node) => [node.instanceId, node]));
    for (const node of nodes) this.linksOf(node);
  }

  trace(line: string): void {
    if (this.tracing) this.lines.push(`${(this.clock.now / 1_000).toFixed(3)} ${line}`);
  }

  /** After a boot: the links of all ENIs that are up. */
  linksOf(node: SimNode): void {
    for (const [mac, { instanceId, deviceIndex }] of this.#linksUp)
      if (instanceId === node.instanceId) node.kernel.eniLinkUp(macOf(mac), deviceIndex);
  }

  holderOf(ip: Ipv4): Namespace | null {
    for (const { watch } of this.nodes) {
      const holder = watch.holders.get(ip);
      if (holder !== undefined) return holder;
    }
    return null;
  }

  /** Somebody took it from EC2 by hand. Whoever has it keeps it, and nobody can know for some minutes. */
  steal(ips: readonly string[]): void {
    for (const ip of ips) this.#stolen.set(ip, this.clock.now + STOLEN_MS);
  }

  isStolen(ip: Ipv4): boolean {
    const until = this.#stolen.get(ip);
    if (until === undefined) return false;
    if (this.clock.now < until || this.holderOf(ip) !== null) return true;
    this.#stolen.delete(ip);
    return false;
  }

  changed(eniId: string): void {
    this.#changedAt.set(eniId, this.clock.now);
  }

  changedLately(eniId: string): boolean {
    const at = this.#changedAt.get(eniId);
    return at !== undefined && this.clock.now - at < STOLEN_MS;
  }

  instanceLives(instanceId: string): boolean {
    const state = this.engine.world().instances.get(instanceId)?.state;
    return state !== undefined && state !== "terminated" && state !== "shutting-down";
  }

  anotherCheckpoint(node: SimNode): string | null {
    return this.nodes.find((each) => each !== node && each.disk.text !== null)?.disk.text ?? null;
  }

  addEnded(outcome: string): void {
    this.added.set(outcome, (this.added.get(outcome) ?? 0) + 1);
  }

  removed(what: string): void {
    this.removals.set(what, (this.removals.get(what) ?? 0) + 1);
  }

  /** What goes wrong with the call that is about to be sent, if anything. */
  befallCall(node: SimNode, operation: Ec2Operation): void {
    const { faults, engine, clock } = this;
    const match = { action: operation, node: node.instanceId };
    const how = (name: FaultName): number => faults.source(`${name} how`, node.name)();
    if (operation === "AttachNetworkInterface") {
      const { instanceId } = node;
      if (faults.hits("link-never", node.name)) engine.fault({ kind: "slow-link", instanceId, forMs: 1e9 });
      else if (faults.hits("link-late", node.name))
        engine.fault({
          kind: "slow-link",
          instanceId,
          forMs: 5 * SECOND_MS + how("link-late") * 145 * SECOND_MS,
        });
    }
    if (operation === "DetachNetworkInterface" && faults.hits("detach-stuck", node.name))
      engine.fault({
        kind: "stuck-detaching",
        instanceId: node.instanceId,
        forMs: 60 * SECOND_MS + how("detach-stuck") * 340 * SECOND_MS,
      });
    if (clock.now < this.outageUntil) return engine.fault({ kind: "error", code: "Unavailable", ...match });
    if (operation === "CreateNetworkInterface" && clock.now < this.createFailsUntil)
      return engine.fault({
        kind: "error",
        code: how("group-or-subnet-deleted") < 0.5 ? "InvalidGroup.NotFound" : "InvalidSubnetID.NotFound",
        ...match,
      });
    if (faults.hits("ec2-throttled", node.name)) return engine.fault({ kind: "throttle", ...match });
    if (faults.hits("ec2-failing", node.name))
      return engine.fault({
        kind: "error",
        code: how("ec2-failing") < 0.5 ? "InternalError" : "Unavailable",
        ...match,
      });
    if (faults.hits("ec2-denied", node.name))
      return engine.fault({ kind: "error", code: "UnauthorizedOperation", ...match });
    if (faults.hits("ec2-slow", node.name))
      return engine.fault({ kind: "slow", forMs: SECOND_MS + how("ec2-slow") * 7 * SECOND_MS, ...match });
    if (faults.hits("ec2-hangs", node.name))
      return engine.fault({
        kind: "hang",
        forMs: 5 * SECOND_MS + how("ec2-hangs") * 60 * SECOND_MS,
        ...match,
      });
    if (faults.hits("ec2-unanswered", node.name)) return engine.fault({ kind: "lost-answer", ...match });
    if (faults.hits("ec2-answered-late", node.name))
      return engine.fault({
        kind: "slow",
        forMs: 11 * SECOND_MS + how("ec2-answered-late") * 50 * SECOND_MS,
        ...match,
      });
  }
}

function macOf(text: string): Mac {
  return text as Mac; // The emulator's MACs have the form that the brand stands for.
}
