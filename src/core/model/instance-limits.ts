/** What each EC2 instance type allows, from the generated table, so that no EC2 call is needed at start. */
import { INSTANCE_LIMIT_ROWS } from "./instance-limits.generated.ts";
import type { InstanceLimits } from "./instance.ts";

/**
 * Null for a type that the table lacks (a newer one): then EC2's DescribeInstanceTypes tells.
 *
 * The text is searched rather than kept as a map: a daemon asks once, for its own type.
 */
export function instanceLimits(type: string): InstanceLimits | null {
  if (!/^[a-z0-9.-]+$/.test(type)) return null;
  for (const row of INSTANCE_LIMIT_ROWS.trim().split("\n")) {
    const [limits = "", types = ""] = row.split(": ");
    if (types.split(" ").includes(type)) return parseLimits(limits);
  }
  return null;
}

/** Every type in the table, in alphabetical order. */
export function knownInstanceTypes(): string[] {
  const rows = INSTANCE_LIMIT_ROWS.trim().split("\n");
  return rows.flatMap((row) => (row.split(": ")[1] ?? "").split(" ")).sort();
}

/** `30 1x8 nitro`, `50 8,7 nitro`. The generator has checked the shape. */
function parseLimits(text: string): InstanceLimits {
  const [addresses, cards = "", hypervisor] = text.split(" ");
  const [count, enis] = cards.split("x");
  const networkCards =
    enis === undefined
      ? cards.split(",").map((each) => ({ enis: Number(each) }))
      : Array.from({ length: Number(count) }, () => ({ enis: Number(enis) }));
  return { addressesPerEni: Number(addresses), networkCards, nitro: hypervisor === "nitro" };
}
