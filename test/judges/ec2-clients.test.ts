/** EC2 clients that we did not write use our emulator, and botocore's model of EC2 is laid beside all that it answers. */
import { spawn } from "node:child_process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { join } from "node:path";
import { OPERATIONS } from "../../src/emulator/operations/table.ts";
import { findPython } from "../support/python.ts";
import { findGoReader, JUDGES_PINS, PYTHON_FOLDER } from "./ec2-programs.ts";
import { createEc2Stage, type Ec2Stage } from "./ec2-stage.ts";
import { tellFigures } from "./figures.ts";

const python = findPython(JUDGES_PINS);
const reader = findGoReader();
for (const each of [python, reader]) if (!each.ok) process.stderr.write(`SKIPPED: ${each.error}\n`);

describe("foreign clients on the emulator", () => {
  let stage: Ec2Stage;

  beforeAll(async () => {
    stage = await createEc2Stage();
  });

  afterAll(async () => {
    await stage.close();
  });

  test.skipIf(!reader.ok)("the AWS SDK for Go v2 reads every answer, pages and waits", async () => {
    const told = (await run([reader.ok ? reader.value : ""], stage)) as { calls: number; refused: string[] };
    tellFigures("goSdk", { calls: told.calls, refused: told.refused.length });
    expect(told.refused).toEqual([]);
    expect(told.calls).toBeGreaterThan(50);
  });

  test.skipIf(!python.ok)("the AWS CLI makes, finds, pages, waits and takes away", async () => {
    const told = (await run(script("cli_judge.py"), stage)) as { calls: number; failed: string[] };
    tellFigures("awsCli", { calls: told.calls, failed: told.failed.length });
    expect(told.failed).toEqual([]);
    expect(told.calls).toBeGreaterThan(40);
  });

  test.skipIf(!python.ok)("boto3 gets EC2's answers from us, and moto's where moto is right", async () => {
    const told = (await run(script("boto3_judge.py"), stage)) as {
      calls: number;
      rows: Agreement[];
      disagreements: string[];
    };
    tellFigures("boto3", { calls: told.calls, disagreements: told.disagreements.length });
    expect(told.disagreements).toEqual([]);
    await expect(agreementPage(told.rows)).toMatchFileSnapshot("../../docs/reference/emulator-agreement.md");
  });

  // Last: it walks what the others were answered.
  test.skipIf(!python.ok || !reader.ok)(
    "every answer is what botocore's model of its operation says, names, nesting, types and enums",
    async () => {
      const told = (await run([...script("walk.py"), stage.recordFile], stage)) as {
        elements: number;
        unknown: string[];
        illTyped: string[];
        actions: string[];
      };
      tellFigures("model", {
        elements: told.elements,
        unknown: told.unknown.length,
        illTyped: told.illTyped.length,
      });
      expect({ unknown: told.unknown, illTyped: told.illTyped }).toEqual({ unknown: [], illTyped: [] });
      expect(told.elements).toBeGreaterThan(10_000);
      expect(told.actions, "each operation was answered at least once").toEqual(
        [...OPERATIONS.keys()].sort(),
      );
    },
  );
});

test.skipIf(!python.ok)("what a CNI may be refused is refused with EC2's code, status and text", async () => {
  const stage = await createEc2Stage({ quotas: { enisPerRegion: 150 } });
  const told = (await run(script("errors_judge.py"), stage)) as { rows: number; wrong: string[] };
  await stage.close();
  tellFigures("errors", { rows: told.rows, right: told.rows - told.wrong.length });
  expect(told.wrong).toEqual([]);
  expect(told.rows).toBeGreaterThanOrEqual(30);
});

type Agreement = {
  readonly question: string;
  readonly ec2: string;
  readonly emulator: string;
  readonly moto: string;
};

function script(name: string): readonly string[] {
  return [python.ok ? python.value : "", join(PYTHON_FOLDER, name)];
}

/** Runs a judge to its end; what it prints on stdout is one JSON object. */
async function run(command: readonly string[], stage: Ec2Stage): Promise<unknown> {
  const [program = "", ...args] = command;
  const env = {
    PATH: process.env["PATH"],
    HOME: "/nonexistent",
    PYTHONDONTWRITEBYTECODE: "1",
    JUDGE_SEED: JSON.stringify(stage.seed),
  };
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env });
  let [said, complained] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (complained += text));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}:\n${complained.slice(-3_000)}`);
  return JSON.parse(said);
}

function agreementPage(rows: readonly Agreement[]): string {
  const verdict = ({ ec2, moto }: Agreement): string => (ec2 === moto ? "agrees" : "is wrong");
  const agreeing = rows.filter((row) => row.ec2 === row.moto).length;
  return `${[
    "# Emulator and moto: a table of agreement",
    "",
    "The same questions, asked through boto3 of our emulator and of moto 5.2.5, an EC2 that others wrote. What EC2 answers comes from AWS's",
    "documents and from threads in which people showed it; nothing here was asked of a real account. Where moto agrees it is a second",
    "opinion; where it does not, the row says what it answers instead. This page is written by `test/judges/ec2-clients.test.ts`, which fails when any cell changes.",
    "",
    `${rows.length} questions; moto agrees with ${agreeing} answers of ours, and is known to be wrong in ${rows.length - agreeing}.`,
    "",
    "| question | emulator | moto | moto |",
    "| --- | --- | --- | --- |",
    ...rows.map(
      (row) => `| ${cell(row.question)} | ${cell(row.emulator)} | ${cell(row.moto)} | ${verdict(row)} |`,
    ),
  ].join("\n")}\n`;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
}
