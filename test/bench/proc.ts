/** What /proc tells of a process: processor time and resident memory. */
import { readFileSync } from "node:fs";

const TICK_MS = 10; // USER_HZ is 100 on every architecture of ours.

/** User and system time: the process's own, or that of its children that it has waited for. */
export function cpuMsOf(pid: number, whose: "own" | "children"): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // The name before may hold spaces. From the state, field 3, on.
  const first = whose === "own" ? 11 : 13;
  return (Number(fields[first]) + Number(fields[first + 1])) * TICK_MS;
}

/** Megabytes (2^20). */
export function residentMb(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;
}
