/** docs/performance.md, written from one run. Of the machine it tells what matters for the figures, and nothing that names it. */
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, arch, release, totalmem } from "node:os";
import { fileURLToPath } from "node:url";
import { goalsOf, type Goal, type Results } from "./results.ts";
import type { Summary } from "./statistics.ts";

const PAGE = fileURLToPath(new URL("../../docs/performance.md", import.meta.url));

export function writePage(results: Results): void {
  writeFileSync(PAGE, pageOf(results, machine(), new Date().toISOString().slice(0, 10)));
}

/** Load is the number of processes that run or would run: above the number of cores, they wait for each other. */
export function machine(): string {
  const kernel = release().split(".").slice(0, 2).join(".");
  const memory = Math.round(totalmem() / 2 ** 30);
  const load = readFileSync("/proc/loadavg", "utf8").split(" ")[0] ?? "?";
  return `${availableParallelism()} shared cores (${arch()}), ${memory} GB, Linux ${kernel}, Node ${process.versions.node}; load at the end ${load}`;
}

function pageOf(results: Results, where: string, date: string): string {
  const goals = goalsOf(results);
  return [
    "<!-- Written by `npm run bench -- --write`. Change test/bench/page.ts, not this page. -->",
    "# Performance",
    "",
    "What Berth costs, beside what others cost on the same machine in the same run. The peer is `ptp` with `host-local`, the reference",
    "plugins in Go, version 1.9.1: they make the same kind of pod network, and keep no pool. The floor is an empty static program and the",
    "same kernel objects by raw batches of netlink messages: no plugin can be faster.",
    "",
    "Beside the AWS VPC CNI itself: [performance-aws-vpc-cni.md](performance-aws-vpc-cni.md).",
    "",
    `Measured on ${date}: ${where}.`,
    "",
    "```sh",
    "npm run bench                              # all of it, under 6 minutes; a table at the end",
    "npm run --silent bench -- --json           # one JSON object on stdout",
    "npm run bench -- --quick --only addDel     # one part, few rounds",
    "npm run bench -- --write                   # this page",
    "```",
    "",
    "## Goals",
    "",
    ...table(
      ["", "Measured", "Goal", "Met"],
      goals.map(({ what, measured, goal, met }) => [what, measured, goal, metText(met)]),
    ),
    "",
    ...missedText(goals),
    "## Times",
    "",
    "Medians, with the 10th and the 90th percentile. Contestants take turns in one namespace; their order rotates.",
    "",
    ...table(["", "Median", "p10 to p90", "Times"], timeRows(results)),
    "",
    "## How it is measured",
    "",
    "- **Nodes** are network namespaces of an emulated VPC, the daemon is the bundle of `npm run build` with the flags and rights of its",
    "  DaemonSet, plugins run as a runtime runs them: fork, exec, stdin, stdout, wait. A small C program does that and takes the time, since",
    "  Node.js needs longer to fork than the plugin takes.",
    "- **ADD and DEL** alone: warm pool, 25 ms of rest after each. A DEL of ours answers when record, route and address are released; the",
    "  link goes in the background, as it does in production. `ptp`'s includes the link, which its runtime waits for.",
    "- **110 at once**: on an m5.4xlarge whose ENIs are all full, so that the emulated EC2 takes no time from the same cores meanwhile.",
    "- **Fresh node**: an m5.4xlarge with default settings; EC2 answers in 10 ms, a new ENI's link is there after 100 ms; the ADDs start when",
    "  the daemon is ready. Most of them are held until EC2 has given more.",
    "- **Round trip**: UDP from a host of the VPC through the node to a pod and back, both ends in one thread, so that no scheduler stands in",
    "  it; a run counts by the lower quartile of its batches, which the machine's other work did not touch. A c8i.32xlarge with 17 ENIs full; one pod, then 1,000 pods made by the daemon, then one again.",
    "- **Planning**: the 99th percentile of a series of 200 plans, and the median of 20 such series.",
    "- **Memory** is VmRSS at rest. Half of the 110 pods stay, the other half come and go, ten at a time.",
    "- **Start** is from spawn to an accepted connection on the plugin's socket, entering namespaces and dropping rights included; the first",
    "  on a fresh node, the others with 20 pods running.",
    "",
  ].join("\n");
}

function metText(met: boolean | null): string {
  return met === null ? "not measured" : met ? "yes" : "no";
}

function missedText(goals: readonly Goal[]): readonly string[] {
  const missed = goals.filter(({ met }) => met === false);
  if (missed.length === 0) return ["Every goal is met.", ""];
  return ["Not met, and why:", "", ...missed.map(({ what, why }) => `- ${what}: ${why}`), ""];
}

function timeRows(results: Results): readonly (readonly string[])[] {
  const { addDel, poolSize, burst, coldBurst, packet, start } = results;
  const row = (name: string, summary: Summary | null | undefined, unit: string): readonly string[][] =>
    summary === null || summary === undefined
      ? []
      : [[name, `${summary.median} ${unit}`, `${summary.p10} to ${summary.p90} ${unit}`, `${summary.count}`]];
  return [
    ...row("ADD, Berth", addDel?.add.ours, "ms"),
    ...row("ADD, ptp", addDel?.add.peer, "ms"),
    ...row("ADD, floor", addDel?.add.floor, "ms"),
    ...row("DEL, Berth", addDel?.del.ours, "ms"),
    ...row("DEL, ptp", addDel?.del.peer, "ms"),
    ...row(`ADD, pool of ${poolSize?.small.addresses ?? 0} addresses`, poolSize?.small.addMs, "ms"),
    ...row(`ADD, pool of ${poolSize?.large.addresses ?? 0} addresses`, poolSize?.large.addMs, "ms"),
    ...row("110 ADDs at once, Berth", burst?.oursMs, "ms"),
    ...row("110 ADDs at once, ptp", burst?.peerMs, "ms"),
    ...(coldBurst === undefined
      ? []
      : [
          [
            "100 ADDs on a fresh node",
            `${coldBurst.seconds} s`,
            `each: ${coldBurst.rounds.join(", ")} s`,
            `${coldBurst.rounds.length}`,
          ],
        ]),
    ...row("round trip, one pod", packet?.onePodUs, "µs"),
    ...row("round trip, 1,000 pods", packet?.thousandPodsUs, "µs"),
    ...row("spawn to open socket", start?.ms, "ms"),
  ];
}

export function table(columns: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(columns), line(columns.map(() => "---")), ...rows.map(line)];
}
