/** A fixed number of places for work that goes on at one time, first come, first served. Who only waits for an event gives its place back. */

export class Workers {
  #free: number;
  readonly #queue: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async take(): Promise<void> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#queue.push(resolve));
  }

  release(): void {
    const next = this.#queue.shift();
    if (next === undefined) this.#free += 1;
    else next(); // The place goes over without being free in between.
  }

  get waitingCount(): number {
    return this.#queue.length;
  }
}
