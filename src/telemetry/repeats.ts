/**
 * "Repeats are counted, not repeated." A line that says the same of the same thing again within the window is kept back and counted;
 * when the window is over, one line tells how often it came. Bounded, and without a clock of its own.
 */
export type RepeatOptions = {
  readonly windowMs: number;
  readonly lineCountMax: number; // Lines that are remembered at once; beyond, the oldest window ends early.
};

/** A line that was kept back `count` times, to be written now, with the level and fields it came with last. */
export type KeptBack<Line> = { readonly line: Line; readonly count: number };

type Window<Line> = { readonly endsAtMs: number; line: Line; count: number };

/** Windows begin in order and are equally long, so the map's own order is the order of their ends. */
export class Repeats<Line> {
  readonly #options: RepeatOptions;
  readonly #windows = new Map<string, Window<Line>>();

  constructor(options: RepeatOptions) {
    this.#options = options;
  }

  /** True when the line is new and should be written. `nowMs` never goes back. */
  isNew(key: string, line: Line, nowMs: number): boolean {
    const known = this.#windows.get(key);
    if (known !== undefined && nowMs < known.endsAtMs) {
      known.count += 1;
      known.line = line;
      return false;
    }
    this.#windows.delete(key);
    this.#windows.set(key, { endsAtMs: nowMs + this.#options.windowMs, line, count: 0 });
    return true;
  }

  /** Ends the windows whose time is over, and the oldest beyond the bound; call it before `isNew`. */
  takeDue(nowMs: number): readonly KeptBack<Line>[] {
    const due: KeptBack<Line>[] = [];
    for (const [key, window] of this.#windows) {
      if (nowMs < window.endsAtMs && this.#windows.size < this.#options.lineCountMax) break;
      this.#windows.delete(key);
      if (window.count > 0) due.push({ line: window.line, count: window.count });
    }
    return due;
  }

  /** Ends all windows: at the end of the process nothing stays untold. */
  takeAll(): readonly KeptBack<Line>[] {
    const all = [...this.#windows.values()].filter((window) => window.count > 0);
    this.#windows.clear();
    return all.map(({ line, count }) => ({ line, count }));
  }
}
