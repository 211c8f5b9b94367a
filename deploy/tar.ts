/** A tar archive whose bytes follow from its entries alone: sorted, no times, no owners but root. POSIX ustar (IEEE Std 1003.1, "pax"). */

export type TarEntry =
  | { readonly kind: "file"; readonly path: string; readonly bytes: Uint8Array; readonly mode: number }
  | { readonly kind: "folder"; readonly path: string; readonly mode: number }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

const BLOCK = 512;
const TYPE = { file: "0", folder: "5", link: "2" } as const;

/** Paths are relative, without a slash at either end; folders that are not listed are made, with mode 0755. */
export function tar(entries: readonly TarEntry[]): Buffer {
  const all = new Map<string, TarEntry>(entries.map((entry) => [entry.path, entry]));
  for (const { path } of entries)
    for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) {
      const folder = path.slice(0, at);
      if (!all.has(folder)) all.set(folder, { kind: "folder", path: folder, mode: 0o755 });
    }
  const sorted = [...all.values()].sort((left, right) => (left.path < right.path ? -1 : 1));
  const parts = sorted.flatMap((entry) => {
    const bytes = entry.kind === "file" ? entry.bytes : new Uint8Array();
    const rest = (BLOCK - (bytes.length % BLOCK)) % BLOCK;
    return [header(entry, bytes.length), Buffer.from(bytes), Buffer.alloc(rest)];
  });
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)]);
}

function header(entry: TarEntry, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const path = entry.kind === "folder" ? `${entry.path}/` : entry.path;
  const [prefix, name] = split(path);
  const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, "0")}\0`;
  const put = (at: number, text: string): void => void block.write(text, at, "utf8");
  put(0, name);
  put(100, octal(entry.kind === "link" ? 0o777 : entry.mode, 8));
  put(108, octal(0, 8));
  put(116, octal(0, 8));
  put(124, octal(size, 12));
  put(136, octal(0, 12));
  put(148, " ".repeat(8));
  put(156, TYPE[entry.kind]);
  if (entry.kind === "link") put(157, entry.target);
  put(257, "ustar");
  put(263, "00");
  put(265, "root");
  put(297, "root");
  put(345, prefix);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  return block;
}

/** A name holds 100 bytes, its prefix 155; they part at a slash. */
function split(path: string): readonly [prefix: string, name: string] {
  if (Buffer.byteLength(path) <= 100) return ["", path];
  for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (Buffer.byteLength(prefix) <= 155 && Buffer.byteLength(name) <= 100 && name !== "")
      return [prefix, name];
  }
  throw new Error(`${path} is too long for a tar archive`);
}
