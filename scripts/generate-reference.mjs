// Makes docs/reference/settings.md and docs/reference/metrics.md from the rows that the daemon itself reads.
// `--check` writes nothing and fails when a page is not what the rows make. Needs the project's own Node (24), which runs the sources.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { settingRows } = await import("../src/config/settings.ts");
const { AWS_VARIABLES } = await import("../src/config/settings-aws.ts");
const { METRICS, METRICS_LEFT_OUT } = await import("../src/telemetry/metric-rows.ts");

const HEAD =
  "<!-- Made by scripts/generate-reference.mjs from the source. Change the rows there, and run it. -->\n";

function settingsPage() {
  const rows = settingRows();
  const own = rows.filter((row) => row.name.startsWith("BERTH_"));
  const incumbent = rows.filter((row) => !own.includes(row) && row.stage === "core");
  const later = rows.filter((row) => row.stage === "later");
  const warned = rows.filter((row) => row.stage === "warned");
  const columns = ["Name", "Unit", "Default", "Allowed", "Meaning"];
  const cells = (row) => [code(row.name), row.unit, code(row.default), row.allowed, row.meaning];
  return [
    HEAD,
    "# Settings",
    "",
    "Berth reads its settings from environment variables, once, at start. Everything that is wrong is told at once, each with what was read",
    "and what is allowed; a misspelt name is told with the nearest right one.",
    "",
    "- Names of our own begin with `BERTH_` and are strict: an unknown name, a value out of range or an empty value (where nothing is not",
    "  allowed) stops the daemon. Variables that Kubernetes makes for a Service named `berth…` are known and passed over.",
    "- The AWS VPC CNI's names are as tolerant as there: a value that cannot be read gives the default and one warning, unless the incumbent",
    "  itself would not start (marked *strict*). Empty is the default. Where its code and its manifest differ, the manifest's default holds.",
    "- Settings that contradict one another (both address families, all three targets 0 in prefix mode, two servers on one port) stop the",
    "  daemon; settings that have no effect beside another are warned of.",
    "",
    "## Settings of our own",
    "",
    ...table(columns, own.map(cells)),
    "",
    "## Settings of the AWS VPC CNI that act here",
    "",
    ...table(
      columns,
      incumbent.map((row) => {
        const [name, ...rest] = cells(row);
        return [row.onBad === "refuse" ? `${name} *strict*` : name, ...rest];
      }),
    ),
    "",
    "## Not available yet",
    "",
    "Known, and taken at their defaults. The last column tells what happens when one asks for what is not there.",
    "",
    ...table(
      ["Name", "Default", "Meaning", "When asked for"],
      later.map((row) => [code(row.name), code(row.default), row.meaning, laterText(row)]),
    ),
    "",
    "## No longer read",
    "",
    "Taken with one warning.",
    "",
    ...table(
      ["Name", "Meaning"],
      warned.map((row) => [code(row.name), row.meaning]),
    ),
    "",
    "## Variables of the AWS SDKs",
    "",
    "Honoured as the SDKs do. Credentials are never logged.",
    "",
    ...table(
      ["Name", "Meaning"],
      AWS_VARIABLES.map((each) => [code(each.name), each.meaning]),
    ),
    "",
  ].join("\n");
}

function laterText(row) {
  if (row.later === undefined) return "no effect";
  return `${row.later.onUse === "refuse" ? "the daemon does not start" : "one warning"}: ${row.later.instead}`;
}

function metricsPage() {
  const rows = Object.entries(METRICS);
  const columns = ["Name", "Kind", "Labels", "Meaning"];
  const cells = ([name, row]) => [code(name), row.kind, row.labels.map(code).join(", "), row.help];
  const section = (title, wanted) => [
    `## ${title}`,
    "",
    ...table(columns, rows.filter(wanted).map(cells)),
    "",
  ];
  return [
    HEAD,
    "# Metrics",
    "",
    "Served in Prometheus's text format at `/metrics` on `BERTH_METRICS_BIND_ADDRESS`. Gauges of the node are read from the same census that the",
    "planner goes by, when they are scraped; they are absent until the daemon has recovered.",
    "",
    ...section("Our own", ([name]) => name.startsWith("berth_")),
    ...section("Of the AWS VPC CNI, by its names", ([name]) => name.startsWith("awscni_")),
    ...section("Of the process", ([name]) => name.startsWith("process_")),
    "## Of the AWS VPC CNI, left out",
    "",
    ...table(
      ["Name", "Why"],
      Object.entries(METRICS_LEFT_OUT).map(([name, why]) => [code(name), why]),
    ),
    "",
  ].join("\n");
}

function table(columns, rows) {
  const line = (cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(columns), line(columns.map(() => "---")), ...rows.map(line)];
}

function code(text) {
  return text === "" ? "" : `\`${text}\``;
}

const pages = [
  ["docs/reference/settings.md", settingsPage()],
  ["docs/reference/metrics.md", metricsPage()],
];
const check = process.argv.includes("--check");
for (const [path, text] of pages) {
  const file = join(root, path);
  if (!check) {
    writeFileSync(file, text);
    continue;
  }
  if (readFileSync(file, "utf8") === text) continue;
  process.stderr.write(`${path} is not what the rows make: run node scripts/generate-reference.mjs\n`);
  process.exitCode = 1;
}
