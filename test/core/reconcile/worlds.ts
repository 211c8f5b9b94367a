/** EC2's description of an ENI, and a node that believes it: for tests of what is made of the two. */
import type { EniSeen } from "../../../src/core/model/ec2.ts";
import type { AttachmentId, EniId, EniSlot, Mac } from "../../../src/core/model/eni.ts";
import { CREATED_AT_TAG, OWNER_TAG } from "../../../src/core/model/eni-names.ts";
import { eniFromSeen } from "../../../src/core/reconcile/recover.ts";
import type { NodeState } from "../../../src/core/state/node-state.ts";
import { eniAttached, eniReady, nodeBegan } from "../../../src/core/state/transitions.ts";
import { cidr4, ipv4 } from "../../../src/lib/ip.ts";
import { instant, type Instant } from "../../../src/lib/time.ts";
import { GROUP, instanceOf, M5_LARGE, SUBNET_A } from "../../support/pool-world.ts";

export const INSTANCE = instanceOf(M5_LARGE);
export const SUBNET_CIDRS = new Map([[SUBNET_A, cidr4("10.0.0.0/18")]]);
export const NOW: Instant = instant(500_000);

/** The first ENI is the primary one; the others are ours by their tags. */
export function eniSeen(deviceIndex: number, change: Partial<EniSeen> = {}): EniSeen {
  const primary = deviceIndex === 0;
  return {
    id: `eni-${deviceIndex}` as EniId,
    mac: primary ? INSTANCE.primaryMac : (`02:00:00:00:01:0${deviceIndex}` as Mac),
    status: "in-use",
    subnetId: SUBNET_A,
    description: primary ? "" : "aws-K8S-i-1",
    interfaceType: "interface",
    requesterManaged: false,
    securityGroups: [GROUP],
    tags: new Map(
      primary
        ? []
        : [
            [OWNER_TAG, INSTANCE.id],
            [CREATED_AT_TAG, "2026-01-01T00:00:00.000Z"],
          ],
    ),
    primaryIp: primary ? INSTANCE.primaryIp : ipv4(`10.0.${deviceIndex}.4`),
    secondaryIps: [5, 6, 7].map((last) => ipv4(`10.0.${deviceIndex}.${last}`)),
    prefixes: [],
    attachment: attachmentAt({ networkCard: 0, deviceIndex }),
    ...change,
  };
}

export function attachmentAt(
  slot: EniSlot,
  change: Partial<NonNullable<EniSeen["attachment"]>> = {},
): NonNullable<EniSeen["attachment"]> {
  return {
    id: `eni-attach-${slot.networkCard}-${slot.deviceIndex}` as AttachmentId,
    instanceId: INSTANCE.id,
    slot,
    status: "attached",
    deleteOnTermination: true,
    ...change,
  };
}

/** A node that believes just what EC2 says, all links up. */
export function believing(seen: readonly EniSeen[]): NodeState {
  let state = nodeBegan(INSTANCE);
  for (const each of seen) {
    const eni = eniFromSeen(each, { instance: INSTANCE, subnetCidrs: SUBNET_CIDRS }, true, NOW);
    if (eni !== null) state = eniReady(eniAttached(state, eni), eni.id);
  }
  return state;
}
