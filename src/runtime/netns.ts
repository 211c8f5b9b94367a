/** Does a network namespace still live at its path? By device and inode: the same path can later mean another one. */
import { statSync } from "node:fs";
import type { NetnsRef } from "../core/model/sandbox.ts";

export function netnsLives(netns: NetnsRef): boolean {
  if (netns.path === "") return false;
  try {
    const seen = statSync(netns.path);
    return seen.dev === netns.device && seen.ino === netns.inode;
  } catch {
    return false; // Gone, or a path through something that is gone.
  }
}
