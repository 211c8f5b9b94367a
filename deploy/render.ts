/**
 * Writes the chart and the manifest from their one source. `--check` writes nothing, and fails when a file is not what the source makes.
 * `node deploy/render.ts [--check]`
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { VERSION } from "../src/daemon/version.ts";
import { DOCUMENTS } from "./manifest.ts";
import { VALUES, type Values, valuesSchema } from "./values.ts";
import { printYaml, type Tree } from "./yaml.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
const HEAD = "# Made by deploy/render.ts from deploy/manifest.ts. Change it there, and run that.\n";

/** The manifest with these values, as `kubectl apply -f` takes it. */
export function renderManifest(values: Values): string {
  const documents = Object.values(DOCUMENTS)
    .flat()
    .map((tree) => printYaml(tree, { kind: "manifest", values }))
    .filter((text) => text.trim() !== "");
  return `${HEAD}---\n${documents.join("---\n")}`;
}

/** Every file by its path below deploy/. */
export function renderFiles(): ReadonlyMap<string, string> {
  const templates = Object.entries(DOCUMENTS).map(([name, trees]) => {
    const documents = trees.map((tree) => printYaml(tree, { kind: "chart" }));
    return [`chart/templates/${name}`, `${HEAD}---\n${documents.join("---\n")}`] as const;
  });
  // The defaults are plain JSON, which is a Tree without holes.
  const values = printYaml(VALUES as unknown as Tree, { kind: "manifest", values: VALUES });
  const chart: Tree = {
    apiVersion: "v2",
    name: "berth",
    description: "VPC-native IPAM and CNI for Kubernetes on AWS: every pod gets a real VPC address.",
    type: "application",
    version: VERSION,
    appVersion: VERSION,
    kubeVersion: ">=1.28.0-0",
  };
  return new Map([
    ["berth.yaml", renderManifest(VALUES)],
    ["chart/Chart.yaml", `${HEAD}${printYaml(chart, { kind: "chart" })}`],
    [
      "chart/values.yaml",
      `${HEAD}# What each value means stands in values.schema.json and docs/operating/install.md.\n${values}`,
    ],
    ["chart/values.schema.json", `${JSON.stringify(valuesSchema(), null, 2)}\n`],
    ...templates,
  ]);
}

function main(check: boolean): number {
  let wrong = 0;
  for (const [name, text] of renderFiles()) {
    const path = join(HERE, name);
    if (!check) {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    } else if (readOr(path) !== text) {
      process.stderr.write(
        `deploy/${name} is not what deploy/manifest.ts makes: run node deploy/render.ts\n`,
      );
      wrong += 1;
    }
  }
  return wrong === 0 ? 0 : 1;
}

function readOr(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  process.exitCode = main(process.argv.includes("--check"));
