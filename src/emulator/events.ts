/** What a fabric needs to hear of the world: links that come and go, and the addresses behind them. */
import type { Cidr4, Ipv4 } from "../lib/ip.ts";
import { PREFIX_LENGTH } from "./subnet-space.ts";
import { type Attachment, type Eni, type InstanceState, subnetOf, type World } from "./world.ts";

/** All addresses that a VPC delivers to one ENI. */
export type EniAddresses = {
  /** Primary first, then secondaries. */
  readonly ips: readonly Ipv4[];
  readonly prefixes: readonly Cidr4[];
};

export type LinkUp = EniAddresses & {
  readonly kind: "link-up";
  readonly eniId: string;
  readonly attachmentId: string;
  readonly instanceId: string;
  readonly mac: string;
  readonly networkCardIndex: number;
  readonly deviceIndex: number;
  readonly primary: Ipv4;
  readonly subnetId: string;
  readonly subnetCidr: Cidr4;
  readonly sourceDestCheck: boolean;
};

export type EmulatorEvent =
  /** The link is to appear in the instance now: the drawn delay after the attach is over. */
  | LinkUp
  /** The link is to go: the detach is done, or the instance is gone. Only after a `link-up` of the same attachment. */
  | {
      readonly kind: "link-down";
      readonly eniId: string;
      readonly attachmentId: string;
      readonly instanceId: string;
      readonly mac: string;
    }
  /** The addresses of an ENI changed; `instanceId` is null when it is not attached. Also comes before the link is up. */
  | (EniAddresses & {
      readonly kind: "addresses";
      readonly eniId: string;
      readonly mac: string;
      readonly instanceId: string | null;
    })
  | { readonly kind: "source-dest-check"; readonly eniId: string; readonly enabled: boolean }
  | { readonly kind: "instance-state"; readonly instanceId: string; readonly state: InstanceState };

/** Told to the engine only: a link will rise. `settled`: the instance was launched with this ENI. */
type AttachmentBegan = {
  readonly kind: "attachment-began";
  readonly eniId: string;
  readonly attachmentId: string;
  readonly instanceId: string;
  readonly settled: boolean;
};

/** What changed between two worlds, going by object identity, so that no transition can forget to tell. */
export function eventsBetween(before: World, now: World): readonly (EmulatorEvent | AttachmentBegan)[] {
  const events: (EmulatorEvent | AttachmentBegan)[] = [];
  if (before.instances !== now.instances) {
    for (const instance of now.instances.values()) {
      const old = before.instances.get(instance.id);
      if (old?.state !== instance.state)
        events.push({ kind: "instance-state", instanceId: instance.id, state: instance.state });
    }
  }
  if (before.enis === now.enis) return events;
  for (const old of before.enis.values()) {
    const eni = now.enis.get(old.id);
    if (old === eni || old.attachment === null || old.attachment.id === eni?.attachment?.id) continue;
    const { id: attachmentId, instanceId } = old.attachment;
    events.push({ kind: "link-down", eniId: old.id, attachmentId, instanceId, mac: old.mac });
  }
  const losses: EmulatorEvent[] = [];
  const gains: (EmulatorEvent | AttachmentBegan)[] = [];
  for (const eni of now.enis.values()) {
    const old = before.enis.get(eni.id);
    if (old === eni) continue;
    const { attachment } = eni;
    if (old !== undefined && (old.secondaries !== eni.secondaries || old.prefixes !== eni.prefixes)) {
      const loses =
        old.secondaries.some((ip) => !eni.secondaries.includes(ip)) ||
        old.prefixes.some((prefix) => !eni.prefixes.includes(prefix));
      const instanceId = attachment?.instanceId ?? null;
      // An address that moves is taken away before it is given, so that a fabric never has it twice.
      (loses ? losses : gains).push({
        kind: "addresses",
        eniId: eni.id,
        mac: eni.mac,
        instanceId,
        ...eniAddresses(eni),
      });
    }
    if (old !== undefined && old.sourceDestCheck !== eni.sourceDestCheck) {
      gains.push({ kind: "source-dest-check", eniId: eni.id, enabled: eni.sourceDestCheck });
    }
    if (attachment === null || old?.attachment?.id === attachment.id) continue;
    const { id: attachmentId, instanceId, status } = attachment;
    gains.push({
      kind: "attachment-began",
      eniId: eni.id,
      attachmentId,
      instanceId,
      settled: status === "attached",
    });
  }
  return [...events, ...losses, ...gains];
}

export function linkUpEvent(world: World, eni: Eni, attachment: Attachment): LinkUp {
  return {
    kind: "link-up",
    eniId: eni.id,
    attachmentId: attachment.id,
    instanceId: attachment.instanceId,
    mac: eni.mac,
    networkCardIndex: attachment.networkCardIndex,
    deviceIndex: attachment.deviceIndex,
    primary: eni.primary,
    subnetId: eni.subnetId,
    subnetCidr: subnetOf(world, eni.subnetId).space.cidr,
    sourceDestCheck: eni.sourceDestCheck,
    ...eniAddresses(eni),
  };
}

export function eniAddresses(eni: Eni): EniAddresses {
  return {
    ips: [eni.primary, ...eni.secondaries],
    prefixes: eni.prefixes.map((network) => ({ network, prefixLength: PREFIX_LENGTH })),
  };
}
