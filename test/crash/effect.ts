/**
 * What the crash build puts around each effect of the daemon: before and after it the process may be killed, as by a power cut.
 * Injected by `instrument.ts`; the production bundle has none of it.
 *
 * - CRASH_POINT: the point to die at: "<" before an effect or ">" after it, its site, and "#" with how often it was passed.
 * - CRASH_ARM: a file; while it is missing nothing happens. So a walk can be chosen, and not the start before it.
 * - CRASH_TRACE: a file that gets a line for each point passed while armed.
 */
import { appendFileSync, existsSync, writeFileSync } from "node:fs";

const deadly = process.env["CRASH_POINT"] ?? "";
const deadlySite = deadly.replace(/#\d+$/, "");
const arm = process.env["CRASH_ARM"] ?? "";
const trace = process.env["CRASH_TRACE"] ?? "";
const passed = new Map<string, number>();

export function berthEffect<T>(site: string, act: () => T): T {
  pass(`<${site}`);
  const result = act();
  if (result instanceof Promise) {
    // The same promise as to its outcome; it only passes the point on its way.
    return result.finally(() => pass(`>${site}`)) as T;
  }
  pass(`>${site}`);
  return result;
}

function pass(point: string): void {
  if ((point !== deadlySite && trace === "") || !existsSync(arm)) return;
  const count = (passed.get(point) ?? 0) + 1;
  passed.set(point, count);
  if (trace !== "") appendFileSync(trace, `${point}#${count}\n`);
  if (`${point}#${count}` !== deadly) return;
  writeFileSync(arm, "killed"); // An end that came by itself is told from this one.
  process.kill(process.pid, "SIGKILL");
  for (;;); // Nothing more is done, should the signal take a moment.
}
