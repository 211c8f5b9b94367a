/**
 * Loads our one nft table in one transaction and tells whether it still is what was loaded. Runs the program `nft`, so at start
 * and on a change of policy only: one run costs more than a whole ADD may.
 */
import { spawn } from "node:child_process";
import { err, ok, type Result } from "../lib/result.ts";
import { codeOf, type KernelFailure } from "./failure.ts";

const RUN_MAX_MS = 30_000;
const OUTPUT_MAX_BYTES = 4 << 20;

/** Our table as the kernel shows it, as text without handles and counters. Compare it, do not parse it. */
export type LoadedFilter = { readonly listing: string };

export type PacketFilter = {
  /**
   * Carries `text` out as a whole or not at all. The text makes the table anew (`table …; delete table …; table … { … }`).
   * Errors: ENOENT (no program `nft`), ENFT with nft's own words, ETIMEDOUT (outcome unknown: look with `state`).
   */
  readonly load: (text: string) => Promise<Result<LoadedFilter, KernelFailure>>;
  /** Whether our table is there and as it was when it was loaded. */
  readonly state: (loaded: LoadedFilter) => Promise<Result<"equal" | "changed" | "missing", KernelFailure>>;
  /** Takes our table away; nothing to take is no error. */
  readonly remove: () => Promise<Result<null, KernelFailure>>;
};

/** `table` is our table's name in the family `inet`; `nft` is the program's path or name. */
export function createPacketFilter(options: { readonly table: string; readonly nft?: string }): PacketFilter {
  const { table, nft = "nft" } = options;

  /** Null when there is no such table. */
  const list = async (): Promise<Result<string | null, KernelFailure>> => {
    // -s leaves out counters, which change with every packet; handles are shown only with -a.
    const listed = await run(nft, ["-s", "list", "table", "inet", table], "");
    if (listed.ok) return listed;
    return isMissing(listed.error) ? ok(null) : listed;
  };

  const load: PacketFilter["load"] = async (text) => {
    const loaded = await run(nft, ["-f", "-"], text);
    if (!loaded.ok) return loaded;
    const listing = await list();
    if (!listing.ok) return listing;
    if (listing.value === null)
      return err({ step: "nft list", errno: "ENOENT", detail: `the text made no table inet ${table}` });
    return ok({ listing: listing.value });
  };

  const state: PacketFilter["state"] = async (loaded) => {
    const listing = await list();
    if (!listing.ok) return listing;
    if (listing.value === null) return ok("missing");
    return ok(listing.value === loaded.listing ? "equal" : "changed");
  };

  const remove: PacketFilter["remove"] = async () => {
    const removed = await run(nft, ["delete", "table", "inet", table], "");
    return removed.ok || isMissing(removed.error) ? ok(null) : removed;
  };

  return { load, state, remove };
}

function isMissing(failure: KernelFailure): boolean {
  return failure.errno === "ENFT" && failure.detail.includes("No such file or directory");
}

function run(
  program: string,
  args: readonly string[],
  input: string,
): Promise<Result<string, KernelFailure>> {
  const step = [program, ...args].join(" ");
  return new Promise((resolve) => {
    // LC_ALL: we look for one of its messages.
    const child = spawn(program, args, {
      stdio: "pipe",
      timeout: RUN_MAX_MS,
      env: { ...process.env, LC_ALL: "C" },
    });
    let output = "";
    let complaint = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (output.length > OUTPUT_MAX_BYTES) child.kill();
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      if (complaint.length < 4_000) complaint += text;
    });
    child.on("error", (cause) => {
      const detail =
        codeOf(cause) === "ENOENT"
          ? `there is no program ${program} on PATH: the image must have nftables`
          : "";
      resolve(err({ step, errno: codeOf(cause), detail }));
    });
    child.on("close", (code, signal) => {
      if (code === 0) resolve(ok(output));
      else if (signal !== null)
        resolve(err({ step, errno: "ETIMEDOUT", detail: `nft was ended by ${signal}` }));
      else resolve(err({ step, errno: "ENFT", detail: complaint.trim() }));
    });
    child.stdin.on("error", () => {}); // It ended before it read all: its exit code tells why.
    child.stdin.end(input);
  });
}
