/** A paced job: it runs, sleeps until something wakes it or its time has come, and runs again. Never two at once. */
import { LinkedSignal } from "./linked-signal.ts";
import type { AbortSignalLike, Time } from "./ports.ts";

const NEVER: AbortSignalLike = { aborted: false, addEventListener: () => {}, removeEventListener: () => {} };

/** A bell. Ringing it while the job runs is remembered: the job looks at everything once more. */
export class Wake {
  #rung = false;
  #soon = false;
  #listener: (() => void) | null = null;

  call(): void {
    this.#rung = true;
    this.#listener?.();
  }

  /** Rings when whoever calls has come to its end; many such calls are one ring. An ADD's answer does not wait for the planner. */
  callSoon(time: Time): void {
    if (this.#soon) return;
    this.#soon = true;
    void time.sleep(0, NEVER).then(() => {
      this.#soon = false;
      this.call();
    });
  }

  /** Ends at once when rung since the last wait; else when rung, after `ms`, or when `signal` is aborted. */
  async wait(time: Time, ms: number, signal: AbortSignalLike): Promise<void> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        const stop = new LinkedSignal(signal);
        let ended = false; // The sleep ends after a ring, too: by then the bell may have its next listener.
        const end = (): void => {
          if (ended) return;
          ended = true;
          this.#listener = null;
          stop.end();
          resolve();
        };
        this.#listener = end;
        void time.sleep(ms, stop).then(end);
      });
    }
    this.#rung = false;
  }
}

export type Job = {
  readonly name: string;
  readonly wake: Wake;
  /** Does what there is to do; returns how long to sleep if nothing wakes it. */
  readonly run: () => Promise<number>;
};

/** Runs until `signal` is aborted, and ends after the run in hand. A broken promise inside a job ends the process. */
export async function keepRunning(job: Job, time: Time, signal: AbortSignalLike): Promise<void> {
  while (!signal.aborted) {
    const sleepMs = await job.run();
    if (signal.aborted) return;
    await job.wake.wait(time, sleepMs, signal);
  }
}
