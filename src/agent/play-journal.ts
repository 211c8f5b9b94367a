/**
 * DELs that shims wrote down while no daemon listened. The start plays them; one that failed then, or came a moment after, is played by and by.
 */
import { SECOND_MS } from "../lib/time.ts";
import type { Agent } from "./agent.ts";
import { Wake, type Job } from "./loop.ts";

const AGAIN_MS = 30 * SECOND_MS;

/** `drain` plays what is there now. */
export function journalJob({ ports }: Agent, drain: () => Promise<void>): Job {
  return {
    name: "journal",
    wake: new Wake(),
    run: async () => {
      await drain();
      return AGAIN_MS * (0.8 + 0.4 * ports.random());
    },
  };
}
