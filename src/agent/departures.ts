/**
 * Links on their way out. A DEL answers before its link is gone (the kernel takes some 20 ms for one); an ADD for the same
 * namespace and interface name waits here until it is.
 */
import type { NetnsRef } from "../core/model/sandbox.ts";

export class Departures {
  readonly #leaving = new Map<string, Promise<void>>();
  readonly #links = new Set<string>();

  /** `gone` ends, well or not, within a bounded time. */
  add(netns: NetnsRef, ifName: string, link: string, gone: Promise<void>): void {
    const place = placeOf(netns, ifName);
    this.#links.add(link);
    const tracked = gone.finally(() => {
      this.#links.delete(link);
      if (this.#leaving.get(place) === tracked) this.#leaving.delete(place);
    });
    this.#leaving.set(place, tracked);
  }

  /** True for a host link that is being deleted: whoever sees it still there need do nothing. */
  isLeaving(link: string): boolean {
    return this.#links.has(link);
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
