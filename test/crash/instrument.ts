/**
 * The crash build: the production bundle with a point before and after each effect. Effects are found in the source by parsing it,
 * by the rules below; nobody keeps a list of them. What a rule leaves out changes nothing outside of the process.
 */
import { readFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build, type Plugin } from "esbuild";
import { parseAst } from "vitest/node";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** One effect in the source: its place and its callee, as "agent/perform.ts:52 ec2.assignAddresses". */
export type Site = string;

type Node = { readonly type: string; readonly start: number; readonly end: number } & Readonly<
  Record<string, unknown>
>;

/** Ports that only tell: the clock, chance, log and counters. Every other port is an effect, also one that is added tomorrow. */
const TELLING_PORTS = new Set(["time", "random", "newToken", "log", "observed"]);
/** Calls that only look, by how our ports and node:fs name them: before one the world is as it was after the last effect. */
const READING =
  /^(exists|read|stat|lstat|fstat|statfs|access|observe|describe|lookAt|check|cached|netnsLives|cordoned)/;
/** What changes the kernel, by the names of netlink/connection.ts; dumps and lookups of names are left out. */
const NETLINK = new Set(["request", "requestOne", "requestOffThread"]);
const SOCKET = new Set(["write", "listen"]);

/** Whose files are looked at, and which calls in them are effects beside those of node:fs and node:child_process. */
const ROOMS: readonly { readonly files: RegExp; readonly isEffect: (call: Call) => boolean }[] = [
  { files: /^src\/agent\//, isEffect: ({ path, portNames }) => isPort(path, portNames) },
  {
    files: /^src\/(kernel\/|netlink\/unlink)/,
    isEffect: ({ path }) => path.length > 1 && NETLINK.has(last(path)),
  },
  {
    files: /^src\/store\//,
    isEffect: ({ path, handles }) => path.length === 2 && handles.has(path[0] ?? ""),
  },
  { files: /^src\/cni\/server/, isEffect: ({ path }) => path.length > 1 && SOCKET.has(last(path)) },
  { files: /^src\/daemon\/main/, isEffect: ({ awaited }) => awaited },
];

type Call = {
  readonly path: readonly string[]; // The callee, as ["agent", "ports", "save"].
  readonly portNames: ReadonlySet<string>; // Ports that the file has taken out of `ports` under their own names.
  readonly handles: ReadonlySet<string>; // Variables that hold an opened file.
  readonly awaited: boolean;
};

function isPort(path: readonly string[], portNames: ReadonlySet<string>): boolean {
  const at = path.indexOf("ports");
  const port = at === -1 ? path[0] : path[at + 1];
  if (port === undefined || (at === -1 && !portNames.has(port))) return false;
  return !TELLING_PORTS.has(port) && !READING.test(last(path));
}

function last(path: readonly string[]): string {
  return path.at(-1) ?? "";
}

/** Calls in `text` that are effects, in the order of the source. `file` is relative to the repository. */
export function findEffects(
  file: string,
  text: string,
): readonly {
  readonly start: number;
  readonly end: number;
  readonly name: string;
  readonly waits: boolean;
}[] {
  const room = ROOMS.find(({ files }) => files.test(file));
  if (room === undefined) return [];
  const program = parseAst(text, { lang: "ts" }) as unknown as Node; // ESTree; each field is looked at before it is used.
  const effectful = new Set<string>(); // Functions of node:fs and node:child_process that write.
  const portNames = new Set<string>();
  const handles = new Set<string>();
  walk(program, null, (node) => {
    if (node.type === "ImportDeclaration" && /^node:(fs|child_process)/.test(valueOf(node["source"])))
      for (const name of importedNames(node)) if (!READING.test(name)) effectful.add(name);
    if (node.type !== "VariableDeclarator") return;
    const init = asNode(node["init"]);
    const target = asNode(node["id"]);
    if (init === null || target === null) return;
    if (target.type === "ObjectPattern" && last(pathOf(init)) === "ports")
      for (const property of asNodes(target["properties"])) portNames.add(nameOf(asNode(property["key"])));
    const opened = init.type === "AwaitExpression" ? asNode(init["argument"]) : null;
    if (opened?.type === "CallExpression" && last(pathOf(asNode(opened["callee"]))) === "open")
      handles.add(nameOf(target));
  });
  const found: { start: number; end: number; name: string; waits: boolean }[] = [];
  walk(program, null, (node, parent) => {
    if (node.type !== "CallExpression") return;
    const path = pathOf(asNode(node["callee"]));
    const call = { path, portNames, handles, awaited: parent?.type === "AwaitExpression" };
    const isFile = path.length === 1 && effectful.has(last(path));
    if (path.length === 0 || !(isFile || room.isEffect(call))) return;
    found.push({ start: node.start, end: node.end, name: path.join("."), waits: holdsAwait(node) });
  });
  return found.sort((left, right) => left.start - right.start || right.end - left.end);
}

/** The same text with each effect inside `berthEffect(site, () => …)`. */
function wrapped(file: string, text: string, sites: Set<Site>): string {
  const inserts: { readonly at: number; readonly order: number; readonly text: string }[] = [];
  for (const { start, end, name, waits } of findEffects(file, text)) {
    const line = text.slice(0, start).split("\n").length;
    const place = `${file.replace(/^src\//, "")}:${line} ${name}`;
    const site = sites.has(place) ? `${place} at ${start}` : place;
    sites.add(site);
    const id = JSON.stringify(site);
    // Of calls that begin together the longest is the outermost; of those that end together the one that begins last ends first.
    inserts.push({
      at: start,
      order: -end,
      text: waits ? `(await berthEffect(${id}, async () => await ` : `berthEffect(${id}, () => `,
    });
    inserts.push({ at: end, order: -start, text: waits ? "))" : ")" });
  }
  inserts.sort((left, right) => left.at - right.at || left.order - right.order);
  let out = "";
  let from = 0;
  for (const insert of inserts) {
    out += text.slice(from, insert.at) + insert.text;
    from = insert.at;
  }
  return out + text.slice(from);
}

/** Builds it, and tells which effects it found. Beside the points it is what scripts/build.mjs makes. */
export async function buildWithPoints(outfile: string): Promise<readonly Site[]> {
  const sites = new Set<Site>();
  const plugin: Plugin = {
    name: "crash-points",
    setup: (building) => {
      building.onLoad({ filter: /\/src\/.*\.ts$/ }, async ({ path }) => {
        const text = await readFile(path, "utf8");
        return { contents: wrapped(relative(ROOT, path), text, sites), loader: "ts" };
      });
    },
  };
  await build({
    absWorkingDir: ROOT,
    entryPoints: ["src/daemon/main.ts"],
    outfile,
    bundle: true,
    platform: "node",
    mainFields: ["module", "main"],
    target: "node24",
    format: "esm",
    minify: true,
    external: ["koffi"],
    inject: [join(ROOT, "test/crash/effect.ts")],
    banner: {
      js: 'import{createRequire as berthRequire}from"node:module";const require=berthRequire(import.meta.url);',
    },
    logLevel: "warning",
    plugins: [plugin],
  });
  return [...sites].sort();
}

// --- ESTree ------------------------------------------------------------------------------------------------------------

function walk(node: Node, parent: Node | null, visit: (node: Node, parent: Node | null) => void): void {
  visit(node, parent);
  for (const child of childrenOf(node)) walk(child, node, visit);
}

function childrenOf(node: Node): readonly Node[] {
  return Object.values(node).flatMap((value) => {
    if (Array.isArray(value)) return asNodes(value);
    const child = asNode(value);
    return child === null ? [] : [child];
  });
}

/** An `await` of the call's own function, not of one inside it. */
function holdsAwait(call: Node): boolean {
  const look = (node: Node): boolean =>
    !/Function/.test(node.type) && (node.type === "AwaitExpression" || childrenOf(node).some(look));
  return childrenOf(call).some(look);
}

/** The names of a chain of members; empty for anything else. */
function pathOf(node: Node | null): readonly string[] {
  if (node === null) return [];
  if (node.type === "Identifier") return [nameOf(node)];
  if (node.type === "ThisExpression") return ["this"];
  if (node.type !== "MemberExpression" || node["computed"] === true) return [];
  const object = pathOf(asNode(node["object"]));
  return object.length === 0 ? [] : [...object, nameOf(asNode(node["property"]))];
}

function importedNames(declaration: Node): readonly string[] {
  return asNodes(declaration["specifiers"]).map((each) => nameOf(asNode(each["local"])));
}

function nameOf(node: Node | null): string {
  return typeof node?.["name"] === "string" ? node["name"] : "";
}

function valueOf(value: unknown): string {
  const literal = asNode(value)?.["value"];
  return typeof literal === "string" ? literal : "";
}

function asNode(value: unknown): Node | null {
  return typeof value === "object" && value !== null && "type" in value && "start" in value
    ? (value as Node)
    : null;
}

function asNodes(value: unknown): readonly Node[] {
  return Array.isArray(value) ? value.map(asNode).filter((each) => each !== null) : [];
}
