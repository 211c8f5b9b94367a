import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createLog, type LogOptions } from "../../src/telemetry/log.ts";
import { Repeats } from "../../src/telemetry/repeats.ts";

type Line = { readonly level: string; readonly message: string; readonly [field: string]: unknown };

function logged(options: Partial<LogOptions> = {}) {
  const lines: Line[] = [];
  let ms = 0;
  const log = createLog({
    level: "DEBUG",
    file: null,
    write: (line) => lines.push(JSON.parse(line) as Line), // pino writes one JSON object a line.
    nowMs: () => ms,
    repeatWindowMs: 1_000,
    ...options,
  });
  return {
    log,
    lines,
    pass: (forMs: number) => {
      ms += forMs;
    },
  };
}

describe("a line", () => {
  test("is JSON with its time, level, message and fields, and those of its context", () => {
    const { log, lines } = logged();
    log.child({ node: "n1" }).info({ eni: "eni-1", count: 3, durationMs: 12 }, "addresses assigned");
    expect(lines).toEqual([
      {
        level: "info",
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
        node: "n1",
        eni: "eni-1",
        count: 3,
        durationMs: 12,
        message: "addresses assigned",
      },
    ]);
  });

  test("below the level in force is not written", () => {
    const { log, lines } = logged({ level: "WARN" });
    log.debug({}, "seen");
    log.info({}, "changed");
    log.warn({}, "less well");
    expect(lines.map((line) => line.message)).toEqual(["less well"]);
  });

  test("made by the agent carries its own level and message", () => {
    const { log, lines } = logged();
    log.event({ level: "warn", message: "pool held", reason: "throttled" });
    expect(lines).toMatchObject([{ level: "warn", message: "pool held", reason: "throttled" }]);
  });

  test("shows no secrets and no whole requests", () => {
    const { log, lines } = logged();
    const cause = Object.assign(new Error("socket hang up"), { code: "ECONNRESET" });
    const error = Object.assign(new Error("call failed", { cause }), {
      $response: { headers: { authorization: "AWS4-HMAC-SHA256 Credential=AKIA" } },
    });
    log.error({ error, sessionToken: "s3cr3t", options: { password: "s3cr3t", port: 1 } }, "failed");
    expect(JSON.stringify(lines)).not.toMatch(/s3cr3t|AKIA/);
    expect(lines).toMatchObject([
      { options: { port: 1 }, error: { message: "call failed", cause: { code: "ECONNRESET" } } },
    ]);
  });
});

describe("repeats", () => {
  test("of a warning are counted, and told in one line when the window is over", () => {
    const { log, lines, pass } = logged();
    for (let attempt = 1; attempt <= 5; attempt += 1) {
      log.warn({ operation: "AssignPrivateIpAddresses", durationMs: attempt }, "call throttled");
      pass(100);
    }
    expect(lines).toHaveLength(1);
    pass(1_000);
    log.warn({}, "something else");
    expect(lines.map(({ message, repeated, durationMs }) => ({ message, repeated, durationMs }))).toEqual([
      { message: "call throttled", durationMs: 1 },
      { message: "call throttled", repeated: 4, durationMs: 5 },
      { message: "something else" },
    ]);
  });

  test("are told apart by what they are about, the context included", () => {
    const { log, lines } = logged();
    log.warn({ eni: "eni-1" }, "eni has no link");
    log.warn({ eni: "eni-2" }, "eni has no link");
    log.child({ eni: "eni-3" }).warn({}, "eni has no link");
    log.child({ eni: "eni-1" }).warn({}, "eni has no link");
    expect(lines.map((line) => line["eni"])).toEqual(["eni-1", "eni-2", "eni-3"]);
  });

  test("are told apart by any field but a measurement: two warnings of settings are two lines", () => {
    const { log, lines } = logged();
    log.warn({ notice: "WARM_ENI_TARGET is bad", durationMs: 1 }, "setting");
    log.warn({ notice: "MAX_ENI is bad", durationMs: 1 }, "setting");
    log.warn({ notice: "MAX_ENI is bad", durationMs: 2, requestId: "r-2" }, "setting");
    expect(lines.map((line) => line["notice"])).toEqual(["WARM_ENI_TARGET is bad", "MAX_ENI is bad"]);
  });

  test("of an info line are changes of their own", () => {
    const { log, lines } = logged();
    log.info({ eni: "eni-1" }, "addresses assigned");
    log.info({ eni: "eni-1" }, "addresses assigned");
    expect(lines).toHaveLength(2);
  });

  test("that were kept back are told at the end of the process", async () => {
    const { log, lines } = logged();
    log.error({}, "checkpoint unwritable");
    log.error({}, "checkpoint unwritable");
    await log.close();
    expect(lines.at(-1)).toMatchObject({ message: "checkpoint unwritable", repeated: 1 });
  });

  test("are remembered of a bounded number of lines", () => {
    const repeats = new Repeats<string>({ windowMs: 1_000, lineCountMax: 10 });
    let told = 0;
    for (let n = 0; n < 1_000; n += 1) {
      told += repeats.takeDue(0).length;
      expect(repeats.isNew(`line ${n}`, "x", 0)).toBe(true);
      expect(repeats.isNew(`line ${n}`, "x", 0)).toBe(false);
    }
    expect(told).toBeGreaterThanOrEqual(990);
    expect(repeats.takeAll().length).toBeLessThanOrEqual(10);
  });
});

describe("the log file", () => {
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "berth-log-"));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  test("gets each line beside stdout, and is set aside when it is big, the oldest going", async () => {
    const path = join(folder, "made", "berth.log");
    const { log, lines } = logged({ file: { path, maxBytes: 2_000, keepCount: 2 } });
    for (let n = 0; n < 60; n += 1) {
      log.info({ n, padding: "x".repeat(100) }, "line");
      if (n % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await log.close();
    expect(lines).toHaveLength(60);
    expect(readdirSync(join(folder, "made")).sort()).toEqual(["berth.log", "berth.log.1", "berth.log.2"]);
    const numbersIn = (name: string) =>
      readFileSync(join(folder, "made", name), "utf8")
        .trim()
        .split("\n")
        .map((line) => (JSON.parse(line) as { n: number }).n);
    const kept = ["berth.log.2", "berth.log.1", "berth.log"].flatMap(numbersIn);
    expect(kept).toEqual(Array.from({ length: kept.length }, (_, i) => 60 - kept.length + i)); // In order, none lost between.
    expect(kept.length).toBeGreaterThan(20);
    for (const name of readdirSync(join(folder, "made"))) {
      expect(statSync(join(folder, "made", name)).size).toBeLessThanOrEqual(2_000);
    }
  });

  test("that cannot be opened costs one line, and the daemon goes on", async () => {
    writeFileSync(join(folder, "plain"), "");
    const { log, lines } = logged({
      file: { path: join(folder, "plain", "berth.log"), maxBytes: 2_000, keepCount: 2 },
    });
    log.info({}, "first");
    log.info({}, "second");
    await log.close();
    expect(lines.map((line) => line.message)).toEqual(["log file given up", "first", "second"]);
  });
});
