// `npm run build`: the bundle that runs in production (dist/berth.mjs) and the CNI plugin (dist/berth-cni).
// Says nothing when nothing changed; all words go to stderr.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const dist = join(root, "dist");

async function main() {
  const stamp = join(dist, ".stamp");
  const inputs = hashOf(["package-lock.json", "scripts/build.mjs", "src"]);
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === inputs) return;
  mkdirSync(dist, { recursive: true });
  await bundle();
  compileShim();
  writeFileSync(stamp, inputs);
}

/** One ES module for the daemon and the operator's commands. koffi stays outside: it carries a native library. */
async function bundle() {
  const { build } = await import("esbuild");
  const built = await build({
    absWorkingDir: root,
    entryPoints: { berth: "src/daemon/main.ts" },
    outdir: "dist",
    outExtension: { ".js": ".mjs" },
    bundle: true,
    platform: "node",
    mainFields: ["module", "main"], // The SDK's ES modules, half as heavy as its CommonJS ones.
    target: "node24",
    format: "esm",
    minify: true,
    keepNames: false,
    sourcemap: false,
    splitting: true,
    chunkNames: "chunk-[hash]",
    external: ["koffi"],
    plugins: [withoutGeneratedClients],
    banner: {
      js: 'import{createRequire as berthRequire}from"node:module";const require=berthRequire(import.meta.url);',
    },
    logLevel: "warning",
    metafile: true,
  });
  writeFileSync(join(dist, "meta.json"), JSON.stringify(built.metafile));
}

/**
 * KubeConfig names the generated API clients (2 MB of code) and undici for calls that the daemon never makes: it takes credentials from it
 * and speaks HTTP by Node's own. A call that is made all the same says so.
 */
const withoutGeneratedClients = {
  name: "without-generated-clients",
  setup(build) {
    build.onResolve({ filter: /^(\.\/gen\/index\.js|undici)$/ }, ({ path, importer }) =>
      importer.includes("@kubernetes/client-node") ? { path, namespace: "left-out" } : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: "left-out" }, ({ path }) => ({
      contents: `const leftOut = () => { throw new Error(${JSON.stringify(`${path} is not in the bundle`)}); };
        export { leftOut as createConfiguration, leftOut as ServerConfiguration, leftOut as Agent, leftOut as ProxyAgent };`,
    }));
  },
};

/** The shim is a static C program: musl where there is one (17 KB, starts in 0.1 ms), glibc otherwise. */
function compileShim() {
  const source = join(root, "src/cni/shim/berth-cni.c");
  if (!existsSync(source)) return;
  const compiler = ["musl-gcc", "gcc", "cc"].find(onPath);
  if (compiler === undefined) fail("no C compiler found. Install one: apt-get install -y musl-tools");
  const flags = ["-static", "-Os", "-std=c11", "-Wall", "-Wextra", "-Werror", "-s"];
  const aside = join(dist, `berth-cni.${process.pid}`); // The old one may be running.
  const done = spawnSync(compiler, [...flags, "-o", aside, source], { stdio: ["ignore", 2, 2] });
  if (done.status !== 0) fail(`${compiler} could not compile the CNI plugin`);
  renameSync(aside, join(dist, "berth-cni"));
}

function hashOf(paths) {
  const hash = createHash("sha256");
  const walk = (path) => {
    if (statSync(path).isDirectory()) for (const name of readdirSync(path).sort()) walk(join(path, name));
    else hash.update(path).update(readFileSync(path));
  };
  for (const path of paths) walk(join(root, path));
  return hash.digest("hex");
}

function onPath(program) {
  return (process.env.PATH ?? "")
    .split(delimiter)
    .some((folder) => folder !== "" && existsSync(join(folder, program)));
}

function fail(text) {
  process.stderr.write(`build: ${text}\n`);
  process.exit(1);
}

await main();
