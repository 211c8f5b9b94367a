/**
 * Links on their way out. A DEL answers before its link is gone (the kernel takes some 20 ms for one); an ADD for the same
 * namespace and interface name waits here until it is.
 */
import type { NetnsRef } from "../core/model/sandbox.ts";

export class Departures {
  readonly #leaving = new Map<string, Promise<void>>();

  /** `gone` ends, well or not, within a bounded time. */
  add(netns: NetnsRef, ifName: string, gone: Promise<void>): void {
    const place = placeOf(netns, ifName);
    const tracked = gone.finally(() => {
      if (this.#leaving.get(place) === tracked) this.#leaving.delete(place);
    });
    this.#leaving.set(place, tracked);
  }

  async wait(netns: NetnsRef, ifName: string): Promise<void> {
    await this.#leaving.get(placeOf(netns, ifName));
  }

  /** For the daemon's end: what was begun is finished. */
  async all(): Promise<void> {
    await Promise.all(this.#leaving.values());
  }
}

function placeOf(netns: NetnsRef, ifName: string): string {
  return `${netns.device}:${netns.inode}/${ifName}`;
}
