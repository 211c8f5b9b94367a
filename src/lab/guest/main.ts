/** `npm run guest:build`, and `npm run guest -- COMMAND…`: one command inside the guest kernel, with its exit code. */
import { buildGuestKernel } from "./kernel.ts";
import { runInGuest } from "./guest.ts";

async function main([verb, ...rest]: readonly string[]): Promise<number> {
  const built = buildGuestKernel();
  if (!built.ok) {
    process.stderr.write(`guest: ${built.error}\n`);
    return 1;
  }
  if (verb === "build") return 0;
  const command = verb === "run" ? rest : [];
  if (command.length === 0) {
    process.stderr.write("usage: npm run guest -- COMMAND [ARGUMENT…]\n");
    return 2;
  }
  const ran = await runInGuest({ command, cwd: process.cwd() });
  if (ran.ok) return ran.value;
  process.stderr.write(`guest: ${ran.error}\n`);
  return 1;
}

process.exitCode = await main(process.argv.slice(2));
