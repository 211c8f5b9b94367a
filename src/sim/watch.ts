/** The eyes of the checkers on one node: told of each effect, they compare it with the truth at that moment. */
import type { AgentEvent, Observed } from "../agent/ports.ts";
import type { Ec2Operation } from "../aws/operations.ts";
import type { Ec2Failure, EniSeen } from "../core/model/ec2.ts";
import { CLUSTER_TAG, NO_MANAGE_TAG, OWNER_TAG } from "../core/model/eni-names.ts";
import { GROUP_BASE, GROUP_LAST, hostLinkName, PODS_TABLE } from "../core/plumbing/names.ts";
import type { SandboxId } from "../core/model/sandbox.ts";
import type { Remembered } from "../core/reconcile/recover.ts";
import { checkInvariants } from "../core/state/invariants.ts";
import type { NodeState } from "../core/state/node-state.ts";
import { attachmentsOf, type Eni as EniOfWorld, type World } from "../emulator/world.ts";
import { LATE_CALL_MS } from "../core/state/transitions.ts";
import { addressesOfCidr4, cidr4, networkOf, type Ipv4 } from "../lib/ip.ts";
import { MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import { CallBudget, isWritten, Rests } from "./checkers.ts";
import type { Namespace } from "./kernel.ts";
import type { Life, SimNode } from "./node.ts";

/** A daemon that serves puts back what a running pod lacks: a repair's interval, and a refusal or two. */
const REPLUMB_MS = 100 * SECOND_MS;
const START_MS = 3 * MINUTE_MS;

/** Which ENI of the instance has an address, as EC2 has it now. */
type Owners = {
  readonly world: World;
  readonly byIp: ReadonlyMap<string, EniOfWorld & { attachment: NonNullable<EniOfWorld["attachment"]> }>;
  readonly byPrefix: ReadonlyMap<string, EniOfWorld & { attachment: NonNullable<EniOfWorld["attachment"]> }>;
};

export class Watch {
  readonly #node: SimNode;
  readonly rests = new Rests();
  readonly #budget = new CallBudget();
  readonly holders = new Map<Ipv4, Namespace>();
  readonly #aliasOf = new Map<Ipv4, string>();
  /** Addresses that somebody took from EC2 by hand while a sandbox had them: what follows is not the daemon's doing. */
  readonly stolen = new Set<string>();
  readonly #inTakeBack = new Map<Ec2Operation, readonly string[]>();
  #lastTakeBack: { readonly ips: readonly string[]; readonly endedAt: number | null } | null = null; // Of which no answer has come.
  readonly #restBegan = new Set<Ipv4>();
  readonly #lackingSince = new Map<SandboxId, number>();
  #owners: Owners | null = null;
  #checked: { readonly world: World; readonly version: number } | null = null;
  #stateSeen: NodeState | null = null;
  #stateDirty = false;
  #servedAt = 0;
  /** ENI whose removal is done and not told yet. */
  #owed: { readonly eni: string; readonly operation: string; readonly life: Life } | null = null;
  /** Token of a creation that EC2 may have done, and whose answer the daemon has not. */
  #openToken: string | null = null;
  #tokenDoubted = false;
  #recordIsOlder = false;
  callCount = 0;

  constructor(node: SimNode) {
    this.#node = node;
  }

  get #now(): number {
    return this.#node.sim.clock.now;
  }

  #look(...look: Parameters<SimNode["sim"]["checks"]["look"]>): void {
    const [checker, problem] = look;
    this.#node.sim.checks.look(
      checker,
      typeof problem === "string" ? `${this.#node.name}: ${problem}` : problem,
    );
  }

  // --- Addresses in sandboxes --------------------------------------------------------------------------------------------

  podAddressAdded(ip: Ipv4, namespace: Namespace, alias: string): void {
    const { sim, life, disk, settings } = this.#node;
    const other = sim.holderOf(ip);
    this.#look(
      "one-sandbox-an-address",
      other !== null &&
        other !== namespace &&
        !sim.isStolen(ip) &&
        `${ip} is given to ${alias} while ${other.path} has it`,
    );
    this.#look("cooldown-kept", this.rests.tooSoon(ip, this.#now, settings.agent.cooldownMs, alias));
    const taking = [...this.#inTakeBack.values()].some((ips) => ips.includes(ip));
    this.#look(
      "never-taken-back-in-use",
      taking && `${ip} is given to ${alias} while EC2 is asked to take it back`,
    );
    const agent = life?.agent ?? null;
    if (agent !== null && [...agent.beingAdded].some((id) => id === alias))
      this.#look(
        "written-before-real",
        !isWritten(disk.written, alias, ip) &&
          `${ip} is put into ${alias}, of which the checkpoint knows nothing`,
      );
    this.holders.set(ip, namespace);
    this.#aliasOf.set(ip, alias);
    this.#restBegan.delete(ip);
  }

  podRouteGone(ip: Ipv4): void {
    if (!this.holders.has(ip) || this.#restBegan.has(ip)) return;
    this.#restBegan.add(ip);
    if (this.#recordIsOlder || this.#node.sim.isStolen(ip)) return;
    this.rests.gone(ip, this.#now, this.#node.settings.agent.cooldownMs, this.#aliasOf.get(ip) ?? "");
  }

  podAddressGone(ip: Ipv4, namespace: Namespace): void {
    if (this.holders.get(ip) !== namespace) return;
    this.podRouteGone(ip);
    this.holders.delete(ip);
    this.#restBegan.delete(ip);
    this.stolen.delete(ip);
  }

  rebooted(): void {
    this.#inTakeBack.clear();
    this.#lackingSince.clear();
  }

  /** With neither record nor trace of an earlier life nobody can know what must rest. */
  startsFrom(remembered: Remembered | null): void {
    this.#budget.started(this.#now);
    this.rests.settingIs(this.#node.settings.agent.cooldownMs);
    this.#inTakeBack.clear();
    this.#owed = null;
    if (remembered === null && this.#node.runtime.cacheIsEmpty && this.#node.kernel.ours().links.length === 0)
      this.rests.forget();
    if (remembered === null || remembered.creation?.clientToken !== this.#openToken) this.#openToken = null; // Found by its tags then.
  }

  /** The checkpoint is one save older: what ended since, and until the daemon serves, leaves no trace (docs/reliability.md). */
  recordRolledBack(): void {
    this.rests.forget();
    this.#recordIsOlder = true;
  }

  /** What EC2 was asked to take back stood in the record alone: it may do so while nobody remembers (docs/reliability.md). */
  recordLost(): void {
    const { ips, endedAt } = this.#lastTakeBack ?? { ips: [], endedAt: 0 };
    if (endedAt === null || this.#now - endedAt < LATE_CALL_MS)
      this.#node.sim.steal(
        ips.flatMap((each) => (each.includes("/") ? [...addressesOfCidr4(cidr4(each))] : [each])),
      );
  }

  serves(life: Life): void {
    this.#recordIsOlder = false;
    this.#servedAt = this.#now;
    this.#look("start-serves", this.#startProblem(life));
  }

  #startProblem(life: Life): string | null {
    // EC2 may be away for hours: pods with warm addresses do not wait for it. Without IMDS nobody knows who we are.
    const from = Math.max(life.began, this.#node.imdsDownUntil);
    return this.#now - from > START_MS
      ? `daemon ${life.number} does not serve ${Math.round((this.#now - from) / 1_000)} s after its start`
      : null;
  }

  // --- EC2 ----------------------------------------------------------------------------------------------------------------

  ec2Before(life: Life, operation: Ec2Operation, parameters: ReadonlyMap<string, string>): void {
    this.callCount += 1;
    this.#look("ec2-calls-bounded", this.#budget.called(this.#now));
    if (this.#owed !== null) {
      this.#look(
        "removal-is-told",
        this.#owed.life === life && `${this.#owed.operation} of ${this.#owed.eni} left no log line`,
      );
      this.#owed = null;
    }
    switch (operation) {
      case "UnassignPrivateIpAddresses":
        return this.#beforeUnassign(life, parameters);
      case "DetachNetworkInterface":
        return this.#beforeDetach(life, parameters.get("AttachmentId") ?? "");
      case "DeleteNetworkInterface":
        return this.#beforeDelete(parameters.get("NetworkInterfaceId") ?? "");
      case "AttachNetworkInterface":
      case "AssignPrivateIpAddresses":
      case "ModifyNetworkInterfaceAttribute":
        return this.#mine(operation, parameters.get("NetworkInterfaceId") ?? "");
      case "CreateNetworkInterface": {
        const token = parameters.get("ClientToken") ?? "";
        const open = this.#openToken !== null && this.#openToken !== token;
        this.#look(
          "one-creation",
          open && `an ENI is asked for while the outcome of ${this.#openToken} is unknown`,
        );
        if (token !== this.#openToken) this.#tokenDoubted = false;
        this.#openToken = token;
        return;
      }
      case "CreateTags":
      case "DescribeInstanceTypes":
      case "DescribeNetworkInterfaces":
      case "DescribeSubnets":
      case "DescribeVpcs":
        return;
    }
  }

  #beforeUnassign(life: Life, parameters: ReadonlyMap<string, string>): void {
    const id = parameters.get("NetworkInterfaceId") ?? "";
    const given = [...parameters].filter(([name]) => name !== "NetworkInterfaceId").map(([, value]) => value);
    const isTaken = (ip: string): boolean =>
      given.includes(ip) ||
      given.some((each) => each.endsWith("/28") && each === `${networkOf(ip as Ipv4, 28)}/28`);
    const held = [...this.holders.keys()].filter(isTaken);
    this.#look(
      "never-taken-back-in-use",
      held.length > 0 && `${held.join(", ")} of ${id}: in a sandbox and in an unassign call`,
    );
    this.#inTakeBack.set("UnassignPrivateIpAddresses", given);
    this.#lastTakeBack = { ips: given, endedAt: null };
    for (const ip of given)
      this.#look(
        "cooldown-kept",
        this.rests.tooSoon(ip, this.#now, this.#node.settings.agent.cooldownMs, "EC2"),
      );
    const kept = this.#notLeaving(life, id, isTaken);
    this.#look("leaving-before-call", kept);
    this.#mine("UnassignPrivateIpAddresses", id);
  }

  #beforeDetach(life: Life, attachmentId: string): void {
    const eni = [...this.#node.sim.engine.world().enis.values()].find(
      (each) => each.attachment?.id === attachmentId,
    );
    if (eni === undefined) return;
    const held = [...this.holders.keys()].filter((ip) => has(eni, ip));
    this.#look(
      "in-use-eni-stays",
      held.length > 0 && `${eni.id} is detached while ${held.join(", ")} are in sandboxes`,
    );
    this.#look(
      "foreign-untouched",
      eni.attachment?.deviceIndex === 0 &&
        eni.attachment.networkCardIndex === 0 &&
        `${eni.id}: the primary ENI is detached`,
    );
    for (const ip of [...eni.secondaries])
      this.#look(
        "cooldown-kept",
        this.rests.tooSoon(ip, this.#now, this.#node.settings.agent.cooldownMs, "EC2"),
      );
    this.#look(
      "leaving-before-call",
      this.#notLeaving(life, eni.id, () => true),
    );
    this.#owned("DetachNetworkInterface", eni);
  }

  /** State and disk must say that it leaves. A disk that is full cannot, and the pool goes on all the same. */
  #notLeaving(life: Life, id: string, taken: (ip: string) => boolean): string | null {
    const { disk, diskFullUntil } = this.#node;
    const places: [string, NodeState | null][] = [["the state", life.agent?.cell.state ?? null]];
    if (this.#now >= diskFullUntil) places.push(["the disk", disk.written]);
    for (const [place, state] of places) {
      if (state === null) continue;
      for (const eni of state.enis.values()) {
        if (eni.id !== id || eni.phase.kind === "leaving") continue;
        for (const address of eni.addresses.values())
          if (taken(address.ip) && address.kind !== "leaving")
            return `${address.ip} of ${id} is ${address.kind} in ${place}, and EC2 is asked to take it`;
      }
    }
    return null;
  }

  #beforeDelete(id: string): void {
    const eni = this.#node.sim.engine.world().enis.get(id);
    if (eni === undefined) return;
    this.#owned("DeleteNetworkInterface", eni);
  }

  /** Attached to this instance, or made for it. */
  #mine(operation: Ec2Operation, id: string): void {
    const eni = this.#node.sim.engine.world().enis.get(id);
    if (eni === undefined) return;
    const attachedHere = eni.attachment?.instanceId === this.#node.instanceId;
    const problem =
      eni.managedBy !== null || eni.tags[NO_MANAGE_TAG] === "true" || eni.interfaceType !== "interface"
        ? `${operation} of ${id}, which is another's`
        : !attachedHere && eni.tags[OWNER_TAG] !== this.#node.instanceId
          ? `${operation} of ${id}, which is not on this instance`
          : eni.tags[OWNER_TAG] === undefined &&
              eni.attachment?.deviceIndex !== 0 &&
              (!this.#node.settings.agent.manageUntagged || operation !== "AssignPrivateIpAddresses")
            ? `${operation} of ${id}, which has no owner tag`
            : null;
    // What somebody changed a moment ago no describe can have told yet.
    this.#look("foreign-untouched", this.#node.sim.changedLately(id) ? null : problem);
  }

  /** To be taken away: made by us for this instance, or for one that is gone. */
  #owned(operation: Ec2Operation, eni: EniOfWorld): void {
    const { sim, instanceId } = this.#node;
    const owner = eni.tags[OWNER_TAG];
    const problem =
      eni.managedBy !== null || eni.tags[NO_MANAGE_TAG] === "true"
        ? "which is another's"
        : owner === undefined
          ? "which has no owner tag"
          : owner !== instanceId && (sim.instanceLives(owner) || eni.tags[CLUSTER_TAG] !== sim.clusterName)
            ? `whose owner ${owner} lives, or is of another cluster`
            : !eni.description.startsWith("aws-K8S-")
              ? "which we did not make"
              : null;
    this.#look(
      "foreign-untouched",
      problem !== null && !sim.changedLately(eni.id) && `${operation} of ${eni.id}, ${problem}`,
    );
  }

  /** A describe that shows another world than the one of now: EC2's views lag. */
  described(seen: readonly EniSeen[]): void {
    const { sim, name } = this.#node;
    const { enis } = sim.engine.world();
    const lags = seen.some(({ id, secondaryIps, attachment }) => {
      const eni = enis.get(id);
      return (
        eni === undefined ||
        eni.secondaries.length !== secondaryIps.length ||
        eni.attachment?.status !== attachment?.status
      );
    });
    if (lags) sim.faults.happened("describe-lagged", name);
  }

  ec2Answered(
    life: Life,
    operation: Ec2Operation,
    parameters: ReadonlyMap<string, string>,
    failure: Ec2Failure | null,
  ): void {
    if (operation === "UnassignPrivateIpAddresses") {
      this.#inTakeBack.delete(operation);
      // Without an answer EC2 may do it later.
      if (failure?.kind !== "in-doubt") this.#lastTakeBack = null;
      else if (this.#lastTakeBack !== null)
        this.#lastTakeBack = { ...this.#lastTakeBack, endedAt: this.#now };
    }
    if (failure !== null) {
      if (failure.kind === "address-limit" || failure.kind === "eni-limit")
        this.#node.sim.faults.happened("limit-met", this.#node.name);
      if (operation === "CreateNetworkInterface") this.#createFailed(failure);
      return;
    }
    if (operation === "CreateNetworkInterface") this.#openToken = null;
    if (operation === "DeleteNetworkInterface" || operation === "UnassignPrivateIpAddresses")
      this.#owed = { eni: parameters.get("NetworkInterfaceId") ?? "", operation, life };
  }

  /** A refusal ends it, unless it was asked for before and never answered. */
  #createFailed({ kind }: Ec2Failure): void {
    if (kind === "in-doubt") this.#tokenDoubted = true;
    else if (!this.#tokenDoubted || (kind !== "throttled" && kind !== "failing")) this.#openToken = null;
  }

  logged(_life: Life, event: AgentEvent): void {
    if (this.#owed === null || event["eni"] !== this.#owed.eni) return;
    this.#look("removal-is-told", null);
    this.#owed = null;
  }

  observed(fact: Observed): void {
    if (fact.kind === "removed") this.#node.sim.removed(`${fact.what} ${fact.why}`);
  }

  // --- After each step ----------------------------------------------------------------------------------------------------

  stateChanged(): void {
    this.#stateDirty = true;
  }

  afterStep(): void {
    const state = this.#node.life?.agent?.cell.state ?? null;
    if (this.#stateDirty && state !== null && state !== this.#stateSeen) {
      this.#stateDirty = false;
      this.#stateSeen = state;
      const broken = checkInvariants(state);
      this.#look("state-sound", broken.length > 0 && broken.join("; "));
    }
    const world = this.#node.sim.engine.world();
    const { version } = this.#node.kernel;
    if (this.#checked !== null && this.#checked.world === world && this.#checked.version === version) return;
    this.#checked = { world, version };
    if (!this.#node.gone) this.#look("address-on-its-eni", this.#strayAddress());
  }

  #strayAddress(): string | null {
    const owners = this.#ownersNow();
    for (const [ip, namespace] of this.holders) {
      if (this.#node.sim.isStolen(ip)) continue;
      const eni = owners.byIp.get(ip) ?? owners.byPrefix.get(networkOf(ip, 28));
      if (eni === undefined)
        return `${ip} is in ${namespace.path}, and EC2 does not have it on this instance`;
      for (const { ip: inside, hostLink } of namespace.inside.values()) {
        const group = this.#node.kernel.linkNamed(hostLink)?.group;
        if (inside !== ip || group === undefined || group === GROUP_LAST) continue;
        if (group !== GROUP_BASE + eni.attachment.deviceIndex)
          return `${ip} of ${eni.id} leaves by the ENI with group ${group}`;
      }
    }
    return null;
  }

  #ownersNow(): Owners {
    const { sim, instanceId } = this.#node;
    const world = sim.engine.world();
    if (this.#owners?.world === world) return this.#owners;
    const attached = attachmentsOf(world, instanceId).filter((eni) => eni.attachment.status !== "detaching");
    const byIp = new Map(
      attached.flatMap((eni) => eni.secondaries.map((ip) => [ip as string, eni] as const)),
    );
    const byPrefix = new Map(
      attached.flatMap((eni) => eni.prefixes.map((prefix) => [prefix as string, eni] as const)),
    );
    this.#owners = { world, byIp, byPrefix };
    return this.#owners;
  }

  #beliefOf(id: string): string {
    const allocations = this.#node.life?.agent?.cell.state.allocations.values() ?? [];
    const found = [...allocations].find((each) => each.id === id);
    return found === undefined
      ? "nothing"
      : `${found.ip} on ${found.eni} in ${found.netns.path} by ${found.hostLink}`;
  }

  /** Some times a minute: what time alone can make wrong. */
  tick(): void {
    const { life, kernel, runtime, settings, gone } = this.#node;
    if (gone) return;
    if (life !== null && !life.serving) this.#look("start-serves", this.#startProblem(life));
    let lacking: string | null = null;
    for (const id of this.#lackingSince.keys()) if (!runtime.running.has(id)) this.#lackingSince.delete(id);
    for (const { id, ip } of runtime.running.values()) {
      const name = hostLinkName(settings.agent.plumbing.hostLinkPrefix, id);
      const whole =
        kernel.linkNamed(name)?.alias === id &&
        ip !== null &&
        kernel.routeTo(PODS_TABLE, ip, 32)?.link === name;
      if (whole || (ip !== null && this.#node.sim.isStolen(ip))) {
        this.#lackingSince.delete(id);
        continue;
      }
      const since = Math.max(this.#lackingSince.get(id) ?? this.#now, this.#servedAt);
      this.#lackingSince.set(id, since);
      if (life?.serving === true && this.#now - since > REPLUMB_MS)
        lacking = `${id} with ${ip} has been without link or route for ${Math.round((this.#now - since) / 1_000)} s; believed: ${this.#beliefOf(id)}`;
    }
    this.#look("pods-keep-plumbing", lacking);
    const missing = kernel.foreignMissing();
    this.#look("foreign-untouched", missing.length > 0 && `${missing.join(", ")} of others are gone`);
  }
}

function has(eni: EniOfWorld, ip: Ipv4): boolean {
  return eni.secondaries.includes(ip) || eni.prefixes.includes(networkOf(ip, 28));
}
