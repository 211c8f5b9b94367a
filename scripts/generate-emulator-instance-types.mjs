// Prints src/emulator/instance-types.generated.ts from Karpenter's published table of VPC limits (facts only).
//
//   cd /tmp && go mod download -json github.com/aws/karpenter-provider-aws@v1.15.1     # says "Dir"
//   node scripts/generate-emulator-instance-types.mjs DIR/pkg/providers/instancetype/zz_generated.vpclimits.go v1.15.1
//
// The daemon's own table comes from another source on purpose: a test compares the two.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const [input, version] = process.argv.slice(2);
if (input === undefined || version === undefined) {
  process.stderr.write("usage: generate-emulator-instance-types.mjs zz_generated.vpclimits.go VERSION\n");
  process.exit(2);
}
const source = readFileSync(input, "utf8");
/** In that table, but not among the instance types of AWS's own API model (botocore 1.44.8): EC2 does not list them. */
const NOT_IN_EC2 = /^(?:[cm][78]g-flex\.|c7i\.32xlarge$)/;
const number = (text, field) => Number(new RegExp(`\\b${field}:\\s+(\\d+)`).exec(text)?.[1]);
const rows = [];
for (const entry of source.matchAll(/^\t"([^"]+)": \{\n([\s\S]*?)^\t\},/gm)) {
  const [, type, body] = entry;
  if (NOT_IN_EC2.test(type)) continue;
  const cards = [...body.matchAll(/MaximumNetworkInterfaces:\s+(\d+),\s+NetworkCardIndex:\s+(\d+)/g)]
    .sort((left, right) => Number(left[2]) - Number(right[2]))
    .map((card) => card[1]);
  const hypervisor = /Hypervisor:\s+"(\w*)"/.exec(body)?.[1] ?? "";
  const fields = [
    type,
    number(body, "Interface"),
    number(body, "IPv4PerInterface"),
    hypervisor === "" ? "-" : hypervisor,
  ];
  fields.push(/IsBareMetal:\s+true/.test(body) ? "metal" : "virtual", number(body, "BranchInterface"));
  fields.push(number(body, "DefaultNetworkCardIndex"), cards.join(","));
  if (cards.length === 0 || fields.some((field) => Number.isNaN(field)))
    throw new Error(`cannot read ${type}`);
  rows.push(fields.join(" "));
}
if (rows.length < 300)
  throw new Error(`only ${rows.length} instance types found: the source's shape has changed`);
const text = `/**
 * Network limits of ${rows.length} EC2 instance types, one a line:
 * type, ENIs, IPv4 addresses an ENI, hypervisor (- when none), metal or virtual, branch ENIs, default network card, ENIs on each card.
 *
 * Source: github.com/aws/karpenter-provider-aws ${version}, pkg/providers/instancetype/zz_generated.vpclimits.go.
 * Made by scripts/generate-emulator-instance-types.mjs; do not edit.
 */
export const INSTANCE_TYPE_ROWS = \`
${rows.sort().join("\n")}
\`;
`;
writeFileSync(fileURLToPath(new URL("../src/emulator/instance-types.generated.ts", import.meta.url)), text);
