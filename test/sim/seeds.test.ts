// Seeds that once found a fault of ours, each with a sentence on what it was. What a seed does changes with the simulator; the sentences tell what
// to think of when one of them fails again.
import { expect, test } from "vitest";
import { run } from "./support.ts";

const FOUND: readonly { readonly seed: string; readonly hours: number; readonly was: string }[] = [
  {
    seed: "h12",
    hours: 3,
    was: "a checkpoint of another node, or older than the truth, made the start delete running pods' links and give their addresses away",
  },
  {
    seed: "g2",
    hours: 3,
    was: "pods on an ENI that somebody had tagged no_manage lost their links over a start without checkpoint",
  },
  { seed: "seed-2", hours: 4, was: "GC freed a running pod whose namespace nobody had told us" },
  {
    seed: "seed-27",
    hours: 2,
    was: "an unassign that was never answered and done late took an address back that was in a pod again",
  },
  {
    seed: "seed-4",
    hours: 5,
    was: "after a checkpoint older than the truth, an address was given out that had not rested",
  },
  {
    seed: "seed-32",
    hours: 2,
    was: "a start without EC2, with IMDS of some minutes ago, cut the pods of an ENI that it did not list",
  },
  { seed: "seed-37", hours: 3, was: "what EC2 listed after a start without it was given out without rest" },
  {
    seed: "a-7",
    hours: 3,
    was: "a look that had just forgotten an ENI asserted on the next difference of it",
  },
  {
    seed: "a-30",
    hours: 1,
    was: "an address released while EC2's lagging view did not list it was warm when the view caught up",
  },
  {
    seed: "a-38",
    hours: 7,
    was: "a link that was half made when the daemon died stayed so, and its pod without an address",
  },
  {
    seed: "437cbc373d287db5a8c5478c5fd24d387a9bb8ba-6",
    hours: 3,
    was: "a lagging view showed a deleted ENI, and its own address was on a new one, too",
  },
  { seed: "final-16", hours: 10, was: "a prefix held single addresses that EC2 had taken unseen" },
  {
    seed: "final-44",
    hours: 10,
    was: "a sandbox that the checkpoint lacked was plumbed at start before it was written down, and its address did not rest after a crash",
  },
];

test.each(FOUND)("seed $seed stays sound: $was", async ({ seed, hours }) => {
  const { violations, leaks } = await run({ seed, hours, profile: "harsh" });
  expect({ violations, leaks }).toEqual({ violations: [], leaks: 0 });
});
