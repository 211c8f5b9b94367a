/** docs/performance-aws-vpc-cni.md, written from one run: every cell, those that we lose too. */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { AWS_VPC_CNI_VERSION } from "../../judges/aws-vpc-cni.ts";
import { machine, table } from "../page.ts";
import type { Figure } from "./figures.ts";
import type { WorkloadFigure } from "./workloads/compare.ts";

const PAGE = fileURLToPath(new URL("../../../docs/performance-aws-vpc-cni.md", import.meta.url));

export function writePeerPage(
  figures: readonly Figure[],
  workloads: readonly WorkloadFigure[],
  rounds: number,
): void {
  writeFileSync(PAGE, pageOf(figures, workloads, rounds, new Date().toISOString().slice(0, 10)));
}

function pageOf(
  figures: readonly Figure[],
  workloads: readonly WorkloadFigure[],
  rounds: number,
  date: string,
): string {
  const lost = figures.filter(({ ours, peer }) => ours > peer);
  const missed = figures.filter(({ holds }) => !holds);
  const names = (some: readonly Figure[]): string =>
    some.length === 0 ? "none" : some.map(({ name }) => `\`${name}\``).join(", ");
  return [
    "<!-- Written by `npm run bench -- --peer aws-vpc-cni --write`. Change test/bench/peer/page.ts, not this page. -->",
    "# Beside the AWS VPC CNI",
    "",
    `Berth and amazon-vpc-cni-k8s ${AWS_VPC_CNI_VERSION}, daemon and plugin unchanged, built from its published source, on one machine in one run.`,
    "Every figure is better when it is smaller. What we lose stands here like what we win.",
    "",
    `Measured on ${date}: ${machine()}. ${rounds} rounds.`,
    "",
    "```sh",
    "npm run bench -- --peer aws-vpc-cni                  # all of it, some 30 minutes; a table at the end",
    "npm run --silent bench -- --peer aws-vpc-cni --json  # one JSON object on stdout",
    "npm run bench -- --peer aws-vpc-cni --quick          # one round of the quick parts: five minutes",
    "npm run bench -- --peer aws-vpc-cni --write          # this page",
    "npm run peer                                         # the AWS VPC CNI on a lab node, to be looked at",
    "```",
    "",
    "Medians of the rounds, with the least and the most. `of theirs` is ours divided by theirs.",
    "",
    ...table(
      ["Figure", "Unit", "Berth", "", "AWS VPC CNI", "", "of theirs", "Goal", "Met"],
      figures.map(({ name, unit, ours, peer, ratio, goalRatio, holds, spread }) => [
        `\`${name}\``,
        unit,
        shown(ours),
        `${shown(spread.ours[0])} to ${shown(spread.ours[1])}`,
        shown(peer),
        `${shown(spread.peer[0])} to ${shown(spread.peer[1])}`,
        ratio === null ? "-" : `× ${ratio}`,
        goalRatio === null ? "-" : `at most × ${goalRatio}`,
        goalRatio === null ? "-" : holds ? "yes" : "no",
      ]),
    ),
    "",
    `Where Berth is behind: ${names(lost)}. Goals not met: ${names(missed)}. What is behind in memory is the Node.js binary and its heap beside a`,
    "Go binary; times of single calls are bound by process starts and by whatever else runs on the machine (its load stands above).",
    "",
    "## Workloads",
    "",
    "Eight workloads of pods on an m5.4xlarge (src/sim/workload.ts), eight virtual hours, means of 20 seeds, EC2 as users of the real one measured it. Ours is",
    "the production planner; theirs is a model by its documented rules, which is held to the real daemon's pool sizes (test/judges/incumbent-model.test.ts).",
    "Waiting are pods whose ADD finds no address at once: ours are held until EC2 has answered, theirs are refused and asked for again by kubelet after ten",
    "seconds. Price is 3600 × idle addresses + 600 × calls, an hour. Our calls include a look at EC2 every five minutes; theirs one an hour.",
    "",
    ...table(
      [
        "Workload",
        "Settings",
        "Waiting",
        "theirs",
        "Idle",
        "theirs",
        "Calls an hour",
        "theirs",
        "Price",
        "theirs",
      ],
      workloads.map(({ name, setting, ours, peer }) => [
        name,
        `\`${setting}\``,
        percent(ours.waitingShare),
        percent(peer.waitingShare),
        shown(ours.idle),
        shown(peer.idle),
        shown(ours.callsPerHour),
        shown(peer.callsPerHour),
        shown(ours.price),
        shown(peer.price),
      ]),
    ),
    "",
    workloadsText(workloads),
    "",
    "## How it is measured",
    "",
    "- **Twin nodes**: two instances of one type (m5.4xlarge) in one emulated VPC, on one EC2, one metadata service, one kube-apiserver. Each has one",
    "  of the daemons, never are both asked at once, and who goes first changes with each round.",
    "- **EC2** answers each call in 10 ms, and a new ENI's link is there after 100 ms. In figures that end in `typical` it takes what users of the real",
    "  one measured (an attach 0.4 s, its link 1.6 s, with tails), and the goals do not apply: there both wait for EC2.",
    "- **Settings** are those of the incumbent's manifest, without its network policy agent, debug logs included; ours those of our DaemonSet. What is set",
    "  beside them is set for both.",
    "- **Sandboxes** are new for each pod, made before and removed after the figure. The plugin alone is fork, exec, stdin, stdout, wait; `cnitool` is libcni.",
    "- **add, del**: one at a time, eight full ENIs, an address rests 1 s. **burst110.warm**: 110 ADDs started at once on that pool. **cpu.add**: user and",
    "  system time of daemon and plugins in it, for each ADD; the kernel's own threads are nobody's.",
    "- **memory**: VmRSS of the daemon, with eight full ENIs and no pod, and again after 1,000 and more ADDs and DELs.",
    "- **start**: spawn to a connection on the plugin's socket, on a fresh instance; without an API server its port refuses. **restart.20pods**: again, with 20",
    "  pods there. **sigterm.exit**: with 20 pods and nothing in hand; the incumbent stays until it is killed after its DaemonSet's grace period of 10 s.",
    "- **fresh100, fresh12**: so many ADDs at once as soon as a fresh node serves; what is refused is tried again each second (kubelet takes ten), until",
    "  every pod has an address. `refused` counts pods that were refused, once or more.",
    "- **throttled60**: 60 pods on a fresh node; the next three calls each of Assign, Create and Attach answer RequestLimitExceeded.",
    "  **subnet40free.unservedOf60**: the subnet has 40 addresses left when the daemon starts, 60 pods come; those without an address after 15 s.",
    "- **packet**: UDP from a host of the VPC through the node to a pod and back, in microseconds, by the lower quartile of its batches, with so many pods",
    "  on the node. By prefixes on three ENIs.",
    "",
  ].join("\n");
}

function workloadsText(workloads: readonly WorkloadFigure[]): string {
  const count = (behind: (each: WorkloadFigure) => boolean): number => workloads.filter(behind).length;
  const of = `of ${workloads.length}`;
  return [
    `Of our pods more wait in ${count(({ holds }) => !holds)} ${of} cells, we hold more idle addresses in`,
    `${count(({ ours, peer }) => ours.idle > peer.idle)}, make more calls in ${count(({ ours, peer }) => ours.callsPerHour > peer.callsPerHour)},`,
    `and cost more in ${count(({ ours, peer }) => ours.price > peer.price)}.`,
  ].join(" ");
}

function percent(share: number): string {
  return `${Number((100 * share).toPrecision(3))} %`;
}

function shown(value: number): string {
  return value >= 100 ? `${Math.round(value)}` : `${Number(value.toPrecision(3))}`;
}
