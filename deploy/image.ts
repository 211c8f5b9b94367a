/**
 * Builds the image from files, without a container engine: pinned Debian packages for the C library and nft, pinned Node and koffi from the
 * lock file, the bundle and the plugin from dist/, reference plugins from the Go module proxy. Equal inputs give equal digests.
 * `node deploy/image.ts [--platforms amd64,arm64] [--name NAME] [--out FILE]` prints the digests as JSON.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import * as v from "valibot";
import { VERSION } from "../src/daemon/version.ts";
import { REFERENCE_PLUGINS } from "../src/install/plugins.ts";
import { IMAGE_ENVIRONMENT, NODE_FLAGS } from "./manifest.ts";
import { type Image, ociLayout, type Platform } from "./oci.ts";
import type { TarEntry } from "./tar.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = dirname(HERE);
const CACHE = join(
  process.env["BERTH_CACHE"] ?? process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"),
  "berth/image",
);
const NODE_ARCH = { amd64: "x64", arm64: "arm64" } as const satisfies Record<Platform, string>;
/** Where the plugin is not for this machine. musl would do as well; Debian's cross compiler comes with glibc. */
const COMPILERS = { amd64: ["musl-gcc", "x86_64-linux-gnu-gcc"], arm64: ["aarch64-linux-gnu-gcc"] } as const;

const packagesSchema = v.object({
  mirror: v.string(),
  packages: v.array(
    v.object({
      name: v.string(),
      arch: v.picklist(["amd64", "arm64"]),
      path: v.string(),
      sha256: v.string(),
    }),
  ),
});
const lockSchema = v.object({
  packages: v.record(
    v.string(),
    v.looseObject({ version: v.optional(v.string()), integrity: v.optional(v.string()) }),
  ),
});

/** What a running daemon needs of Debian's packages: libraries, nft, and the licences. Of 30 MB these are 10. */
function isNeeded(path: string): boolean {
  if (/^usr\/share\/doc\/[^/]+\/copyright$/.test(path)) return true;
  if (path === "usr/sbin/nft") return true;
  return (
    /^(lib|lib64|usr\/lib)\/([^/]+-linux-gnu\/)?[^/]+\.so(\.[0-9.]+)?$/.test(path) &&
    !/\/lib(BrokenLocale|thread_db|nss_(compat|hesiod)|memusage|pcprofile|c_malloc_debug|nsl|anl|mvec)\b/.test(
      path,
    )
  );
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      platforms: { type: "string", default: process.arch === "arm64" ? "arm64" : "amd64" },
      name: { type: "string", default: `berth:${VERSION}` },
      out: { type: "string", default: "dist/berth-image.tar" },
    },
  });
  mkdirSync(CACHE, { recursive: true });
  const platforms = values.platforms.split(",");
  const images: Image[] = [];
  for (const platform of platforms) {
    if (platform !== "amd64" && platform !== "arm64") throw new Error(`there is no platform ${platform}`);
    images.push(await imageOf(platform));
  }
  const layout = ociLayout(images, values.name);
  writeFileSync(values.out, layout.archive);
  const { digest, archive } = layout;
  process.stdout.write(
    `${JSON.stringify({ file: values.out, name: values.name, digest, platforms: layout.platforms, bytes: archive.length })}\n`,
  );
  return 0;
}

async function imageOf(platform: Platform): Promise<Image> {
  return {
    platform,
    // What changes least comes first: a node that has the last release pulls the last layer alone.
    layers: [await system(platform), node(platform), berth(platform)],
    config: {
      entrypoint: ["/usr/bin/node", ...NODE_FLAGS, "/opt/berth/berth.mjs"],
      environment: IMAGE_ENVIRONMENT,
      labels: {
        "org.opencontainers.image.title": "berth",
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.licenses": "Apache-2.0",
      },
    },
  };
}

async function system(platform: Platform): Promise<readonly TarEntry[]> {
  const { mirror, packages } = v.parse(
    packagesSchema,
    JSON.parse(readFileSync(join(HERE, "debian-packages.json"), "utf8")),
  );
  const entries: TarEntry[] = [
    // Kubelet and the runtime mount over these; runtimes name namespaces by /var/run.
    ...[
      "dev",
      "proc",
      "sys",
      "run",
      "etc/berth",
      "host/opt/cni/bin",
      "host/etc/cni/net.d",
      "host/proc/sys/net",
      "var/lib/cni",
      "var/lib/berth",
    ].map((path): TarEntry => ({ kind: "folder", path, mode: 0o755 })),
    { kind: "folder", path: "tmp", mode: 0o1777 },
    { kind: "link", path: "var/run", target: "../run" },
    {
      kind: "file",
      path: "etc/passwd",
      bytes: Buffer.from("root:x:0:0:root:/:/usr/sbin/nologin\n"),
      mode: 0o644,
    },
    { kind: "file", path: "etc/nsswitch.conf", bytes: Buffer.from("hosts: files dns\n"), mode: 0o644 },
  ];
  for (const each of packages.filter((row) => row.arch === platform)) {
    const archive = await fetched(`${mirror}${each.path}`, each.sha256);
    const folder = mkdtempSync(join(tmpdir(), "berth-deb-"));
    run("dpkg-deb", ["-x", archive, folder]);
    entries.push(...filesOf(folder, "").filter((entry) => isNeeded(entry.path)));
    rmSync(folder, { recursive: true });
  }
  return entries;
}

function node(platform: Platform): readonly TarEntry[] {
  const name = `node-linux-${NODE_ARCH[platform]}`;
  const folder = npmPackage(name);
  return [
    { kind: "file", path: "usr/bin/node", bytes: readFileSync(join(folder, "bin/node")), mode: 0o755 },
    ...(existsSync(join(folder, "LICENSE"))
      ? [fileAt(join(folder, "LICENSE"), "usr/share/doc/node/LICENSE")]
      : []),
  ];
}

function berth(platform: Platform): readonly TarEntry[] {
  run(process.execPath, ["scripts/build.mjs"]);
  const outputs = v.parse(
    v.object({ outputs: v.record(v.string(), v.unknown()) }),
    JSON.parse(readFileSync(join(ROOT, "dist/meta.json"), "utf8")),
  ).outputs;
  const koffi = npmPackage("koffi");
  const native = npmPackage(`@koromix/koffi-linux-${NODE_ARCH[platform]}`);
  const modules = "opt/berth/node_modules";
  const plugins = pluginsFolder(platform);
  return [
    ...Object.keys(outputs).map((path) =>
      fileAt(join(ROOT, path), `opt/berth/${path.replace(/^dist\//, "")}`),
    ),
    fileAt(join(ROOT, "LICENSE"), "opt/berth/LICENSE"),
    { kind: "file", path: "opt/berth/berth-cni", bytes: plugin(platform), mode: 0o755 },
    // Its sources, documents and build tools are not needed to run it.
    ...filesOf(koffi, `${modules}/koffi`).filter(
      ({ path }) => /\.(c?js|json|txt)$/.test(path) && !/\/koffi\/(doc|vendor)\//.test(path),
    ),
    ...filesOf(native, `${modules}/@koromix/koffi-linux-${NODE_ARCH[platform]}`).filter(
      ({ path }) => !/\.(md|d\.ts|map)$/.test(path),
    ),
    ...REFERENCE_PLUGINS.map(
      (name): TarEntry => ({
        kind: "file",
        path: `opt/cni/bin/${name}`,
        bytes: readFileSync(join(plugins, name)),
        mode: 0o755,
      }),
    ),
  ];
}

/** The plugin for the platform: that of dist/ where it is this machine's. */
function plugin(platform: Platform): Buffer {
  if (NODE_ARCH[platform] === process.arch) return readFileSync(join(ROOT, "dist/berth-cni"));
  const compiler = COMPILERS[platform].find(onPath);
  if (compiler === undefined)
    throw new Error(
      `no C compiler for ${platform}: apt-get install -y gcc-aarch64-linux-gnu (or ${COMPILERS[platform].join(", ")})`,
    );
  const out = join(CACHE, `berth-cni-${platform}.${process.pid}`);
  run(compiler, [
    "-static",
    "-Os",
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-s",
    "-o",
    out,
    join(ROOT, "src/cni/shim/berth-cni.c"),
  ]);
  const bytes = readFileSync(out);
  rmSync(out);
  return bytes;
}

/** Built as in reference builds: static, without paths of this machine, without symbols. go.sum of the judges decides what they are. */
function pluginsFolder(platform: Platform): string {
  const module = join(ROOT, "test/judges");
  const hash = createHash("sha256").update(platform);
  for (const file of ["go.mod", "go.sum"]) hash.update(readFileSync(join(module, file)));
  const folder = join(CACHE, `plugins-${hash.digest("hex").slice(0, 16)}`);
  if (REFERENCE_PLUGINS.every((name) => existsSync(join(folder, name)))) return folder;
  const go = onPath("go") ? "go" : "/usr/local/go/bin/go";
  const folders: Readonly<Record<(typeof REFERENCE_PLUGINS)[number], string>> = {
    loopback: "main/loopback",
    portmap: "meta/portmap",
    bandwidth: "meta/bandwidth",
    tuning: "meta/tuning",
    "host-local": "ipam/host-local",
  };
  const aside = `${folder}.${process.pid}`;
  mkdirSync(aside, { recursive: true });
  for (const name of REFERENCE_PLUGINS)
    run(
      go,
      [
        "build",
        "-mod=readonly",
        "-trimpath",
        "-ldflags",
        "-s -w",
        "-o",
        join(aside, name),
        `github.com/containernetworking/plugins/plugins/${folders[name]}`,
      ],
      {
        cwd: module,
        env: { CGO_ENABLED: "0", GOOS: "linux", GOARCH: platform, GOTOOLCHAIN: "local", GOWORK: "off" },
      },
    );
  rmSync(folder, { recursive: true, force: true });
  renameSync(aside, folder);
  return folder;
}

/** The package's folder: installed, or, of another platform, packed by npm and held to the lock file's checksum. */
function npmPackage(name: string): string {
  const installed = join(ROOT, "node_modules", name);
  if (existsSync(installed)) return installed;
  const lock = v.parse(lockSchema, JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")));
  const { version, integrity } = lock.packages[`node_modules/${name}`] ?? {};
  if (version === undefined || integrity === undefined) throw new Error(`${name} is not in the lock file`);
  const folder = join(CACHE, `${name.replace("/", "-")}-${version}`);
  if (existsSync(folder)) return join(folder, "package");
  const aside = `${folder}.${process.pid}`;
  mkdirSync(aside, { recursive: true });
  run("npm", ["pack", "--silent", "--pack-destination", aside, `${name}@${version}`]);
  const [archive = ""] = readdirSync(aside);
  const [algorithm = "", wanted = ""] = integrity.split(/-(.*)/s);
  const found = createHash(algorithm)
    .update(readFileSync(join(aside, archive)))
    .digest("base64");
  if (found !== wanted) throw new Error(`${name}@${version} is not what the lock file says`);
  run("tar", ["-xzf", join(aside, archive), "-C", aside]);
  rmSync(join(aside, archive));
  renameSync(aside, folder);
  return join(folder, "package");
}

async function fetched(url: string, sha256: string): Promise<string> {
  const path = join(CACHE, sha256);
  if (existsSync(path)) return path;
  const answer = await fetch(url, { signal: AbortSignal.timeout(120_000) });
  if (!answer.ok) throw new Error(`${url}: ${answer.status}; has a newer version taken its place?`);
  const bytes = Buffer.from(await answer.arrayBuffer());
  const found = createHash("sha256").update(bytes).digest("hex");
  if (found !== sha256) throw new Error(`${url} is not what debian-packages.json says: ${found}`);
  writeFileSync(`${path}.${process.pid}`, bytes);
  renameSync(`${path}.${process.pid}`, path);
  return path;
}

function filesOf(folder: string, under: string): readonly TarEntry[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true }).flatMap(
    (entry): readonly TarEntry[] => {
      const full = join(entry.parentPath, entry.name);
      const path = join(under, relative(folder, full));
      if (entry.isSymbolicLink()) return [{ kind: "link", path, target: readlinkSync(full) }];
      return entry.isFile() ? [fileAt(full, path)] : [];
    },
  );
}

/** Of a mode only whether it may be run is kept: whoever unpacked it had an umask. */
function fileAt(full: string, path: string): TarEntry {
  return {
    kind: "file",
    path,
    bytes: readFileSync(full),
    mode: (statSync(full).mode & 0o100) === 0 ? 0o644 : 0o755,
  };
}

function run(
  program: string,
  args: readonly string[],
  more: { cwd?: string; env?: Readonly<Record<string, string>> } = {},
): void {
  const done = spawnSync(program, args, {
    cwd: more.cwd ?? ROOT,
    env: { ...process.env, ...more.env },
    stdio: ["ignore", 2, 2],
  });
  if (done.status !== 0) throw new Error(`${program} ${args.join(" ")} failed`);
}

function onPath(program: string): boolean {
  return (process.env["PATH"] ?? "")
    .split(delimiter)
    .some((folder) => folder !== "" && existsSync(join(folder, program)));
}

process.exitCode = await main();
