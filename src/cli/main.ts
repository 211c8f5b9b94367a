/** The commands that the repository offers: `demo`, `matrix` and `emulator`. The daemon has an entry of its own, src/daemon/main.ts. */
import { fileURLToPath } from "node:url";
import { demo } from "../lab/demo.ts";
import { isInside, runInside } from "../lab/enter.ts";
import { isGuest } from "../lab/guest/guest.ts";
import { buildGuestKernel } from "../lab/guest/kernel.ts";
import { needsGuest } from "../lab/matrix/columns.ts";
import { matrix } from "../lab/matrix/matrix.ts";
import { endProcess } from "../libc/libc.ts";
import { emulate } from "./emulate.ts";

const USAGE = `usage:
  npm run demo [-- --json]        two nodes in an emulated VPC, real daemons, real CNI calls, real packets
  npm run matrix [-- --json MODE…] each flow of packets in each mode, beside what is right for it
  npm run emulator [-- OPTIONS]   EC2 and IMDS as a server; --help tells the options
`;

async function main(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  switch (command) {
    case "demo": {
      const unknown = rest.filter((option) => option !== "--json");
      if (unknown.length > 0) return usage(`demo does not know ${unknown.join(" ")}`);
      return isInside()
        ? await demo({ json: rest.includes("--json") })
        : await runInside([fileURLToPath(import.meta.url), ...args]);
    }
    case "matrix": {
      const unknown = rest.filter((option) => option.startsWith("-") && option !== "--json");
      if (unknown.length > 0) return usage(`matrix does not know ${unknown.join(" ")}`);
      const modes = rest.filter((option) => !option.startsWith("-"));
      if (!isInside()) {
        // Before the namespaces that cut the network off. Without it the modes that need it are told as not run.
        const built = needsGuest(modes) && !isGuest() ? buildGuestKernel() : null;
        if (built?.ok === false) process.stderr.write(`berth: ${built.error}\n`);
        return await runInside([fileURLToPath(import.meta.url), ...args]);
      }
      return await matrix({ json: rest.includes("--json"), ...(modes.length === 0 ? {} : { modes }) });
    }
    case "emulator":
      return await emulate(rest);
    case undefined:
      return usage("which command?");
    default:
      return usage(`there is no command ${command}`);
  }
}

function usage(problem: string): number {
  process.stderr.write(`berth: ${problem}\n${USAGE}`);
  return 2;
}

// As process 1 of its own namespace Node ignores these signals unless it is told not to.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130));
const code = await main(process.argv.slice(2));
process.once("exit", endProcess);
process.exit(code);
