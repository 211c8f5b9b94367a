/** `npm run emulator`: what it says of wrong arguments. That it serves is seen by the tests of its parts. */
import { expect, test, vi } from "vitest";
import { emulate } from "../../src/cli/emulate.ts";

test.for([
  [["--profile", "quick"], "no such profile: quick"],
  [["--instances", "m5.lage"], "no such instance type: m5.lage"],
  [["--port", "http"], "not a port: http"],
  [["--colour"], "Unknown option '--colour'"],
] as const)("wrong arguments %j are refused with a reason and the help", async ([args, reason]) => {
  const written = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    expect(await emulate(args)).toBe(2);
    const text = written.mock.calls.map(([chunk]) => String(chunk)).join("");
    expect(text).toContain(reason);
    expect(text).toContain("--profile NAME");
  } finally {
    written.mockRestore();
  }
});
