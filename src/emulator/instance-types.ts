/** What each EC2 instance type may carry on the network, read from the generated table. */
import { assert } from "../lib/assert.ts";
import { INSTANCE_TYPE_ROWS } from "./instance-types.generated.ts";

export type InstanceType = {
  readonly name: string;
  /** Over all network cards together. */
  readonly eniCountMax: number;
  /** Address slots of one ENI: its primary address, each secondary address and each prefix takes one. */
  readonly ipv4SlotsPerEni: number;
  readonly hypervisor: "nitro" | "xen" | null;
  readonly bareMetal: boolean;
  readonly branchEniCountMax: number;
  readonly defaultNetworkCard: number;
  /** The most ENIs on each card, by card index. */
  readonly networkCards: readonly number[];
};

/**
 * Address slots of an ENI that is attached to nothing: the most that any type has, until it is known which type it will be.
 * What EC2 says of such ENIs is (uncertain).
 */
export const UNATTACHED_SLOTS = 64;

let table: ReadonlyMap<string, InstanceType> | null = null;

/** All known types by name, in alphabetical order. Parsed once, at the first call. */
export function instanceTypes(): ReadonlyMap<string, InstanceType> {
  table ??= new Map(
    INSTANCE_TYPE_ROWS.trim()
      .split("\n")
      .map((row) => [row.slice(0, row.indexOf(" ")), parseRow(row)]),
  );
  return table;
}

/** Prefixes need the Nitro system; bare metal instances are built on it although no hypervisor is named. */
export function carriesPrefixes(type: InstanceType): boolean {
  return type.hypervisor === "nitro" || (type.hypervisor === null && type.bareMetal);
}

function parseRow(row: string): InstanceType {
  const [name, enis, slots, hypervisor, metal, branches, card, cards] = row.split(" ");
  assert(name !== undefined && cards !== undefined, `instance type row has eight fields: ${row}`);
  return {
    name,
    eniCountMax: Number(enis),
    ipv4SlotsPerEni: Number(slots),
    hypervisor: hypervisor === "nitro" || hypervisor === "xen" ? hypervisor : null,
    bareMetal: metal === "metal",
    branchEniCountMax: Number(branches),
    defaultNetworkCard: Number(card),
    networkCards: cards.split(",").map(Number),
  };
}
