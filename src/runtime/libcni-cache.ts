/**
 * libcni's cache of results: which sandboxes the runtime believes to have. One file a sandbox, `results/NETWORK-CONTAINER-IFNAME`,
 * written after ADD and removed after DEL. It is on disk, so it outlives reboots; a file that cannot be read is skipped and counted.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { isSandboxKey, type SandboxKey } from "../core/model/sandbox.ts";
import { parseIpv4, type Ipv4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";

export type CachedResult = {
  readonly key: SandboxKey;
  readonly netnsPath: string | null;
  readonly ips: readonly Ipv4[];
  readonly source: "libcni-cache";
};

/** A node has a few hundred sandboxes at most; a folder with more files, or a larger file, is not what we think it is. */
const FILES_MAX = 10_000;
const FILE_BYTES_MAX = 1 << 20;

const cacheSchema = v.object({
  kind: v.literal("cniCacheV1"),
  containerId: v.pipe(v.string(), v.minLength(1)),
  ifName: v.pipe(v.string(), v.minLength(1)),
  networkName: v.pipe(v.string(), v.minLength(1)),
  netns: v.optional(v.string()),
  result: v.optional(v.nullable(v.object({ ips: v.optional(v.array(v.object({ address: v.string() }))) }))),
});

/**
 * Sandboxes of `network` that the cache lists. An absent folder is an empty cache: cri-o and containerd make it with the first pod.
 * `onUnreadable` is told of each file that is no cache entry.
 */
export function readLibcniCache(
  folder: string,
  network: string | null,
  onUnreadable: (file: string, detail: string) => void,
): Result<readonly CachedResult[], string> {
  const results = join(folder, "results");
  let names: string[];
  try {
    names = readdirSync(results);
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "ENOENT" ? ok([]) : err(`${results}: ${String(cause)}`);
  }
  if (names.length > FILES_MAX) return err(`${results} holds ${names.length} files, more than ${FILES_MAX}`);
  const found: CachedResult[] = [];
  for (const name of names) {
    const entry = readEntry(join(results, name));
    if (!entry.ok) onUnreadable(name, entry.error);
    else if (entry.value !== null && (network === null || entry.value.key.network === network))
      found.push(entry.value);
  }
  return ok(found);
}

/** Null for a file that has gone meanwhile. */
function readEntry(path: string): Result<CachedResult | null, string> {
  let text: string;
  try {
    if (statSync(path).size > FILE_BYTES_MAX) return err(`larger than ${FILE_BYTES_MAX} bytes`);
    text = readFileSync(path, "utf8");
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "ENOENT" ? ok(null) : err(String(cause));
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return err("not JSON");
  }
  const parsed = v.safeParse(cacheSchema, json);
  if (!parsed.success) return err(v.summarize(parsed.issues));
  const { containerId, ifName, networkName, netns, result } = parsed.output;
  const ips = (result?.ips ?? []).flatMap(({ address }) => {
    const ip = parseIpv4(address.split("/")[0] ?? "");
    return ip.ok ? [ip.value] : []; // IPv6 comes with its data path.
  });
  const key = { network: networkName, containerId, ifName };
  if (!isSandboxKey(key)) return err("its names are none of a sandbox");
  return ok({
    key,
    netnsPath: netns === undefined || netns === "" ? null : netns,
    ips,
    source: "libcni-cache",
  });
}
