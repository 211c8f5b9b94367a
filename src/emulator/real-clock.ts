/** The machine's clock behind the emulator's clock shape. Closing forgets what still waits. */
import { instant } from "../lib/time.ts";
import type { Clock } from "./engine.ts";

export function createRealClock(): Clock & { readonly close: () => void } {
  const waiting = new Set<NodeJS.Timeout>();
  return {
    now: () => instant(performance.now()),
    sleep: (ms) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => {
          waiting.delete(timer);
          resolve();
        }, ms);
        waiting.add(timer);
      }),
    close: () => {
      for (const timer of waiting) clearTimeout(timer);
      waiting.clear();
    },
  };
}
