/** Lets a fabric follow the emulator's world: each thing that it says becomes one change of the fabric, in the order said. */
import type { EmulatorEvent } from "../events.ts";
import { unreachable } from "../../lib/assert.ts";
import type { Fabric } from "./fabric.ts";

/** The part of an emulator, here or in another process, that tells what changes; `onChange` returns what stops it. */
export type World = { readonly onChange: (listener: (event: EmulatorEvent) => void) => () => void };

type Follower = Pick<Fabric, "linkUp" | "linkDown" | "addressesChanged" | "sourceDestCheckChanged">;

/**
 * Attach before the first instance is launched: nothing is told twice. Namespaces are not made here (`addNode`), since their names are
 * the caller's. Returns what ends it. `onFailure` hears of changes that the fabric could not make: packets then are not what the world says.
 */
export function attachFabric(
  world: World,
  fabric: Follower,
  onFailure: (failure: unknown, event: EmulatorEvent) => void,
): () => void {
  return world.onChange((event) => {
    follow(fabric, event).catch((failure: unknown) => onFailure(failure, event));
  });
}

async function follow(fabric: Follower, event: EmulatorEvent): Promise<void> {
  switch (event.kind) {
    case "link-up":
      return await fabric.linkUp(event);
    case "link-down":
      return await fabric.linkDown(event.eniId);
    case "addresses":
      return await fabric.addressesChanged(event.eniId, event);
    case "source-dest-check":
      return await fabric.sourceDestCheckChanged(event.eniId, event.enabled);
    case "instance-state":
      return; // Its links are told of one by one.
    default:
      return unreachable(event);
  }
}
