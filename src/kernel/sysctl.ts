/** Reads and writes kernel settings under /proc/sys. A container often has it mounted read-only; that is said plainly. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Sysctl } from "../core/plumbing/node-host.ts";
import { assert } from "../lib/assert.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { codeOf, type KernelFailure } from "./failure.ts";

export type SysctlFiles = {
  /** The value without its line end. Errors: ENOENT (this kernel, or this link, has no such setting), EACCES. */
  readonly read: (name: string) => Result<string, KernelFailure>;
  /** Makes it so; a setting that has the value already is not written. Errors: ENOENT, EROFS, EACCES, EINVAL (no value of it). */
  readonly write: (name: string, value: string) => Result<null, KernelFailure>;
};

/**
 * Names are written with slashes, as in "net/ipv4/conf/eth0.100/rp_filter": a dot may be part of a link's name.
 * `root` is /proc/sys, or where the host's is mounted. Settings below net/ are those of the calling thread's network namespace.
 */
export function createSysctlFiles(root = "/proc/sys"): SysctlFiles {
  const pathOf = (name: string): string => {
    const parts = name.split("/");
    assert(
      parts.every((part) => part !== "" && part !== "." && part !== ".."),
      `${name} is a path below the root`,
    );
    return join(root, ...parts);
  };

  const read: SysctlFiles["read"] = (name) => {
    try {
      return ok(readFileSync(pathOf(name), "utf8").trimEnd());
    } catch (cause) {
      return err(failed(`sysctl ${name}`, codeOf(cause), root));
    }
  };

  const write: SysctlFiles["write"] = (name, value) => {
    const before = read(name);
    if (!before.ok) return before;
    if (before.value === value) return ok(null);
    try {
      writeFileSync(pathOf(name), `${value}\n`, { flag: "r+" }); // Never makes a file.
    } catch (cause) {
      return err(failed(`sysctl ${name} = ${value} (it is ${before.value})`, codeOf(cause), root));
    }
    const after = read(name);
    if (!after.ok || after.value === value) return after.ok ? ok(null) : after;
    return err({
      step: `sysctl ${name} = ${value}`,
      errno: "EINVAL",
      detail: `the kernel made it ${after.value}`,
    });
  };

  return { read, write };
}

/**
 * Sets those that are ours to set, and reads those that the OS answers for. One failure for each that is not as it should be
 * afterwards. Names are dotted: none of ours has a link's name in it.
 */
export function ensureSysctls(files: SysctlFiles, sysctls: readonly Sysctl[]): readonly KernelFailure[] {
  return sysctls.flatMap(({ name, value, duty }): readonly KernelFailure[] => {
    const path = name.replaceAll(".", "/");
    if (duty === "set") {
      const written = files.write(path, value);
      return written.ok ? [] : [written.error];
    }
    const read = files.read(path);
    if (!read.ok) return [read.error];
    if (read.value === value) return [];
    return [
      {
        step: `sysctl ${path} = ${value}`,
        errno: "EINVAL",
        detail: `it is ${read.value}; the host's OS must set it`,
      },
    ];
  });
}

function failed(step: string, errno: string, root: string): KernelFailure {
  return { step, errno, detail: adviceFor(errno, root) };
}

function adviceFor(errno: string, root: string): string {
  switch (errno) {
    case "EROFS":
    case "EACCES":
    case "EPERM":
      return `${root} cannot be written: the container must be privileged, or mount the host's /proc/sys/net, or the host must set it`;
    case "ENOENT":
      return "this kernel, or this link, has no such setting";
    default:
      return "";
  }
}
