import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { EC2_OPERATIONS, operationRow, permissionsPage, policyDocument } from "../../src/aws/operations.ts";

// To write the page anew: node -e 'import("./src/aws/operations.ts").then(m => process.stdout.write(m.permissionsPage()))' > docs/reference/permissions.md
test("the permissions page is what the table of operations says", () => {
  expect(readFileSync("docs/reference/permissions.md", "utf8")).toBe(permissionsPage());
});

test("the policy allows each call that the client makes, once, and nothing else", () => {
  const source = readFileSync("src/aws/sdk.ts", "utf8");
  const called = [...source.matchAll(/\b(\w+)Command\b/g)].map(([, name]) => `ec2:${name}`).sort();
  const allowed = policyDocument()
    .Statement.flatMap((statement) => statement.Action)
    .sort();
  expect(allowed).toEqual(called);
  expect(new Set(allowed).size).toBe(EC2_OPERATIONS.length);
});

test("reading calls are those that EC2 calls Describe, and only tagging is bound to ENIs", () => {
  for (const row of EC2_OPERATIONS) {
    expect(row.mutating, row.operation).toBe(!row.operation.startsWith("Describe"));
    expect(row.action).toBe(`ec2:${row.operation}`);
    expect(operationRow(row.operation)).toBe(row);
  }
  expect(EC2_OPERATIONS.filter((row) => row.resource !== "*").map((row) => row.operation)).toEqual([
    "CreateTags",
  ]);
});

test("the resource of the policy follows the partition", () => {
  const resources = policyDocument("aws-cn").Statement.map((statement) => statement.Resource);
  expect(resources).toEqual(["*", "arn:aws-cn:ec2:*:*:network-interface/*"]);
});
