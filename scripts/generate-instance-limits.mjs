// Writes src/core/model/instance-limits.generated.ts from the AWS VPC CNI's published table of instance limits (facts only).
//
//   cd /tmp && go mod download -json github.com/aws/amazon-vpc-cni-k8s@v1.23.2     # says "Dir"
//   node scripts/generate-instance-limits.mjs DIR/pkg/vpc/vpc_ip_resource_limit.go v1.23.2
//
// The emulator's table comes from another source on purpose: test/core/model/instance-limits.test.ts compares the two.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const [input, version] = process.argv.slice(2);
if (input === undefined || version === undefined) {
  process.stderr.write("usage: generate-instance-limits.mjs vpc_ip_resource_limit.go VERSION\n");
  process.exit(2);
}
const source = readFileSync(input, "utf8");
const rows = new Map(); // Limits as text → the types that have them.
let count = 0;
for (const [, type, body] of source.matchAll(/^\t"([^"]+)": +\{\n([\s\S]*?)^\t\},/gm)) {
  const addresses = Number(/\bIPv4Limit:\s+(\d+)/.exec(body)?.[1]);
  const hypervisor = /HypervisorType:\s+"(\w*)"/.exec(body)?.[1];
  const metal = /IsBareMetal:\s+(true|false)/.exec(body)?.[1];
  const cards = [...body.matchAll(/MaximumNetworkInterfaces:\s+(\d+),\s+NetworkCardIndex:\s+(\d+)/g)]
    .map((card) => ({ enis: Number(card[1]), index: Number(card[2]) }))
    .sort((left, right) => left.index - right.index);
  const inOrder = cards.every((card, at) => card.index === at);
  if (!(addresses > 0) || cards.length === 0 || !inOrder || hypervisor === undefined || metal === undefined) {
    throw new Error(`cannot read ${type}`);
  }
  // Bare metal names no hypervisor, but is built on Nitro cards, and takes prefixes.
  const nitro = hypervisor === "nitro" || metal === "true";
  const same = cards.every((card) => card.enis === cards[0].enis);
  const enis = same ? `${cards.length}x${cards[0].enis}` : cards.map((card) => card.enis).join(",");
  const limits = `${addresses} ${enis} ${nitro ? "nitro" : "xen"}`;
  rows.set(limits, [...(rows.get(limits) ?? []), type]);
  count += 1;
}
if (count < 300) throw new Error(`only ${count} instance types found: the source's shape has changed`);
const lines = [...rows].map(([limits, types]) => `${limits}: ${types.sort().join(" ")}`).sort();
const text = `/**
 * Network limits of ${count} EC2 instance types. A line has the limits and the types that share them:
 * IPv4 addresses an ENI, cards x ENIs a card (or the ENIs of each card), hypervisor: types.
 *
 * Source: github.com/aws/amazon-vpc-cni-k8s ${version}, pkg/vpc/vpc_ip_resource_limit.go.
 * Made by scripts/generate-instance-limits.mjs; do not edit.
 */
export const INSTANCE_LIMIT_ROWS = \`
${lines.join("\n")}
\`;
`;
writeFileSync(
  fileURLToPath(new URL("../src/core/model/instance-limits.generated.ts", import.meta.url)),
  text,
);
