// House checks: documents match the code, rooms import what they may, nothing of the author's machine is in the tree.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import * as v from "valibot";
import { CNI_CODE } from "../src/cni/errors.ts";
import { AWS_VARIABLES } from "../src/config/settings-aws.ts";
import { settingRows } from "../src/config/settings.ts";
import { METRICS, METRICS_LEFT_OUT } from "../src/telemetry/metric-rows.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const read = (path: string): string => readFileSync(join(root, path), "utf8");

/** Files below a folder, as paths from the root. */
function filesIn(folder: string, endings: readonly string[]): readonly string[] {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.includes(extname(entry.name)))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

const sources = filesIn("src", [".ts"]);

describe("documents", () => {
  test("the pages of settings and metrics are what the rows make", () => {
    const checked = spawnSync(process.execPath, ["scripts/generate-reference.mjs", "--check"], {
      cwd: root,
      encoding: "utf8",
    });
    expect(checked).toMatchObject({ status: 0, stderr: "" });
  });

  test("name every setting, and none that is not there", () => {
    const known = [...settingRows().map((row) => row.name), ...AWS_VARIABLES.map((each) => each.name)];
    const page = read("docs/reference/settings.md");
    expect(known.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
    const unknown = ["README.md", ...filesIn("docs", [".md"])]
      .filter((path) => existsSync(join(root, path)))
      .flatMap((path) =>
        [...read(path).matchAll(/`(BERTH_[A-Z0-9_]*[A-Z0-9])(=[^`]*)?`/g)].map((match) => ({
          path,
          name: match[1] ?? "",
        })),
      )
      .filter(({ name }) => !known.includes(name));
    expect(unknown).toEqual([]);
  });

  test("name every metric, and none that is not there", () => {
    const known = [...Object.keys(METRICS), ...Object.keys(METRICS_LEFT_OUT)];
    const page = read("docs/reference/metrics.md");
    expect(known.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
    const named = filesIn("docs", [".md"]).flatMap((path) =>
      [...read(path).matchAll(/`((?:awscni|berth)_[a-z0-9_]+)(\{[^`]*)?`/g)].map((match) => match[1] ?? ""),
    );
    const series = (name: string) => name.replace(/_(count|sum|bucket)$/, "");
    expect(named.filter((name) => !known.includes(name) && !known.includes(series(name)))).toEqual([]);
  });

  const tableOf = (page: string, heading: string): readonly string[] => {
    const section =
      read(page)
        .split(/^#+ /m)
        .find((part) => part.startsWith(`${heading}\n`)) ?? "";
    return [...section.matchAll(/^\| `?([^`|]+?)`? \|/gm)]
      .map((match) => match[1] ?? "")
      .filter((cell) => !/^(---|Code|Reason|CNI code)$/.test(cell));
  };
  const wordsIn = (path: string, pattern: RegExp): readonly string[] =>
    [...new Set([...read(path).matchAll(pattern)].map((match) => match[1] ?? ""))].sort();

  test("name every error code, and no other", () => {
    const codes = wordsIn("src/core/model/error.ts", /readonly code: "([a-z-]+)"/g);
    expect(codes.length).toBeGreaterThan(5);
    expect([...tableOf("docs/reference/errors.md", "Errors")].sort()).toEqual(codes);
  });

  test("name every reason why there is no address, and no other", () => {
    const action = read("src/core/model/action.ts");
    const union = action.slice(action.indexOf("export type HoldReason"));
    const reasons = [
      ...union.slice(0, union.indexOf(";\n") + 1 || undefined).matchAll(/\| "([a-z-]+)"/g),
    ].map((match) => match[1] ?? "");
    const listed = tableOf("docs/reference/errors.md", "Why there is no address");
    expect([...listed].sort()).toEqual([...new Set(reasons)].sort());
  });

  test("name every CNI code, and no other", () => {
    const text = read("docs/reference/errors.md");
    const errorRows = [...text.matchAll(/^\| `[a-z-]+` \| ([0-9]+)(?:, for STATUS ([0-9]+))? \|/gm)];
    const listed = [
      ...errorRows.flatMap((match) => match.slice(1)),
      ...tableOf("docs/reference/errors.md", "CNI codes without an error of the node"),
    ];
    const numbers = new Set(listed.filter((each) => each !== undefined).map(Number));
    const known = new Set<number>(Object.values(CNI_CODE));
    expect(numbers).toEqual(known);
  });

  test("give each dependency its line, and no other", () => {
    const names = v.record(v.string(), v.string());
    const manifest = v.parse(
      v.object({
        dependencies: names,
        devDependencies: v.optional(names, {}),
        optionalDependencies: v.optional(names, {}),
      }),
      JSON.parse(read("package.json")),
    );
    const wanted = Object.values(manifest)
      .flatMap((group) => Object.keys(group))
      .sort();
    const listed = [...read("docs/dependencies.md").matchAll(/^\| `([^`]+)` \|/gm)]
      .map((match) => match[1] ?? "")
      .sort();
    expect(listed).toEqual(wanted);
  });
});

/** Which rooms a room may import; `x/y` is one file or folder of a room. From the table in docs/ARCHITECTURE.md. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  lib: [],
  core: ["lib"],
  libc: ["lib"],
  netlink: ["core/plumbing", "core/model", "libc", "lib"],
  kernel: ["core/plumbing", "core/model", "netlink", "libc", "lib"],
  aws: ["core/model", "lib"],
  kube: ["core/cluster", "core/model", "lib"],
  cni: ["core/model", "libc", "lib"],
  runtime: ["core/model", "lib"],
  store: ["core/state", "core/model", "lib"],
  config: ["core/pool", "core/model", "lib"],
  telemetry: ["core/state", "core/model", "lib"],
  agent: ["core", "store/checkpoint", "lib"],
  daemon: [
    "core",
    "libc",
    "netlink",
    "kernel",
    "aws",
    "kube",
    "cni",
    "runtime",
    "store",
    "config",
    "telemetry",
    "agent",
    "install",
    "lib",
  ],
  install: ["config", "lib"],
  emulator: ["lib"],
  "emulator/fabric": ["emulator", "netlink", "lib"],
  lab: ["daemon", "emulator", "config", "netlink", "libc", "lib"],
  sim: [
    "agent",
    "core",
    "store/checkpoint",
    "cni/operations-by-key",
    "aws/eni-tags",
    "aws/errors",
    "aws/operations",
    "aws/pace",
    "emulator",
    "lib",
  ],
  cli: ["daemon", "install", "libc", "lab", "emulator", "sim", "core", "config", "lib"],
};

type Import = { readonly from: string; readonly to: string };

function importsOf(path: string): readonly Import[] {
  const text = read(path).replace(/^\s*(\/\/|\*|\/\*).*$/gm, "");
  const found = text.matchAll(/(?:from|import)\s*\(?\s*"(\.{1,2}\/[^"]+)"/g);
  return [...found].map((match) => ({
    from: path,
    to: relative(root, join(root, dirname(path), match[1] ?? "")),
  }));
}

function roomOf(path: string): string {
  const [, room = "", folder = ""] = path.split("/");
  return `${room}/${folder}` in ARROWS ? `${room}/${folder}` : room;
}

describe("rooms", () => {
  test("are all in the table of arrows", () => {
    expect(
      [...new Set(sources.map(roomOf))].filter((room) => !(room in ARROWS) && !room.endsWith(".ts")),
    ).toEqual([]);
  });

  test("import what they may, and nothing else", () => {
    const imports = sources.flatMap(importsOf);
    expect(imports.length).toBeGreaterThan(50);
    const wrong = imports.filter(({ from, to }) => {
      const room = roomOf(from);
      if (roomOf(to) === room) return false;
      const within = to.replace(/^src\//, "").replace(/\.ts$/, "");
      return !(ARROWS[room] ?? []).some((allowed) => within === allowed || within.startsWith(`${allowed}/`));
    });
    expect(wrong.map(({ from, to }) => `${from} → ${to}`)).toEqual([]);
  });

  test("of the product never import tests, scripts or packages that only development has", () => {
    const development = Object.keys(
      v.parse(
        v.object({ devDependencies: v.record(v.string(), v.string()) }),
        JSON.parse(read("package.json")),
      ).devDependencies,
    );
    const wrong = sources.filter((path) => {
      const text = read(path);
      return (
        importsOf(path).some(({ to }) => !to.startsWith("src/")) ||
        development.some((name) => text.includes(`from "${name}"`) || text.includes(`import("${name}")`))
      );
    });
    expect(wrong).toEqual([]);
  });

  test("that are pure are so by name: each entry of the pure list is there", () => {
    const pure = v.parse(
      v.object({ include: v.array(v.string()) }),
      JSON.parse(read("src/tsconfig.pure.json")),
    );
    const missing = pure.include.filter((entry) => {
      const [room = ""] = entry.split("/");
      return existsSync(join(root, "src", room)) && !existsSync(join(root, "src", entry));
    });
    expect(missing).toEqual([]);
  });

  test("read the environment's own settings through config alone", () => {
    const known = settingRows().map((row) => row.name);
    const wrong = sources
      .filter((path) => !path.startsWith("src/config/"))
      .flatMap((path) =>
        [...read(path).matchAll(/env(?:ironment)?\["(BERTH_[A-Z0-9_]+)"\]/g)].map(
          (match) => `${path}: ${match[1]}`,
        ),
      )
      .filter((each) => known.some((name) => each.endsWith(`: ${name}`)));
    expect(wrong).toEqual([]);
  });
});

describe("files", () => {
  test("tell their duty before their first export", () => {
    const silent = [...sources, ...filesIn("src", [".c", ".h"])].filter((path) => {
      const text = read(path);
      const first = text.search(/^export /m);
      return !/^\s*(\/\/|\/\*)/m.test(first === -1 ? text.slice(0, 2_000) : text.slice(0, first));
    });
    expect(silent).toEqual([]);
  });

  test("hold no path of the machine they were written on, and no other registry than npm's", () => {
    const machine = new RegExp(
      ["main", "shared", "notes", "\\.library"].map((name) => ["", "work", `${name}\\b`].join("/")).join("|"),
    );
    const texts = [
      ...["src", "test", "docs", "scripts", "infra", "deploy", "localstack"].flatMap((folder) =>
        filesIn(folder, [".ts", ".mjs", ".md", ".c", ".h", ".json", ".txt", ".yaml", ".sh", ".snap"]),
      ),
      ...readdirSync(root).filter((name) => /\.(md|json)$|^\.npmrc$|^LICENSE$/.test(name)),
    ];
    expect(texts.length).toBeGreaterThan(50);
    expect(texts.filter((path) => machine.test(read(path)))).toEqual([]);
    const hosts = [...read("package-lock.json").matchAll(/"resolved": "(https?:\/\/[^/"]+)/g)].map(
      (match) => match[1],
    );
    expect([...new Set(hosts)].filter((host) => host !== "https://registry.npmjs.org")).toEqual([]);
  });

  test("name no page that a reader of this repository cannot open", () => {
    const texts = [
      ...["src", "test", "docs", "scripts", "localstack"].flatMap((folder) =>
        filesIn(folder, [".ts", ".mjs", ".md", ".c", ".h"]),
      ),
      ...readdirSync(root).filter((name) => name.endsWith(".md")),
    ];
    const here = new Set(texts.map((path) => path.split("/").at(-1)));
    // The CNI specification's, the AWS VPC CNI's, and what `npm run bench` writes.
    const elsewhere = new Set(["CONVENTIONS.md", "eni-and-ip-target.md", "performance.md"]);
    const lost = texts.flatMap((path) =>
      [...read(path).matchAll(/[\w-]+\.md\b|\bcontract, (?:section|row|item)s? \d+/g)]
        .map(([name]) => name)
        .filter((name) => !here.has(name) && !elsewhere.has(name))
        .map((name) => `${path}: ${name}`),
    );
    expect(lost).toEqual([]);
  });

  test("of ours that are long are few: a file is one thought", () => {
    const long = sources
      .filter((path) => !path.endsWith(".generated.ts"))
      .map((path) => ({ path, lines: read(path).split("\n").length }))
      .filter(({ lines }) => lines > 600);
    expect(long).toEqual([]);
  });
});
