/**
 * Foreign EC2 clients: Python's (boto3, the AWS CLI, moto, botocore's model) in a virtual environment, and a reader on the AWS SDK for Go v2,
 * built from source. Both are pinned by the files beside them and kept outside the repository. Run as a program it gets both ready.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { err, ok, type Result } from "../../src/lib/result.ts";
import { cacheFolder, installPython, type PythonPins } from "../support/python.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
export const PYTHON_FOLDER = join(HERE, "ec2-python");
const GO_FOLDER = join(HERE, "ec2-go");

export const JUDGES_PINS: PythonPins = {
  name: "judges-python",
  requirements: join(PYTHON_FOLDER, "requirements.txt"),
  files: [join(PYTHON_FOLDER, "requirements.txt"), join(PYTHON_FOLDER, "constraints.txt")],
};

function readerPath(): string {
  const hash = createHash("sha256").update(process.arch);
  for (const file of ["go.mod", "go.sum", "main.go"]) hash.update(readFileSync(join(GO_FOLDER, file)));
  return join(cacheFolder(), `judges-ec2-${hash.digest("hex").slice(0, 16)}`, "ec2-reader");
}

/** The reader's path, if it was built; the error tells what to do. Needs no network. */
export function findGoReader(): Result<string, string> {
  const program = readerPath();
  return existsSync(program)
    ? ok(program)
    : err("the reader on the AWS SDK for Go is not built: run node test/judges/ec2-programs.ts");
}

/** Some minutes the first time, nearly all of them the SDK's EC2 package; half of that where Go's own cache is warm. */
export function buildGoReader(): Result<string, string> {
  const found = findGoReader();
  if (found.ok) return found;
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/go/bin", "/usr/lib/go/bin"];
  const go = folders.map((folder) => join(folder, "go")).find((program) => existsSync(program));
  if (go === undefined) return err("the reader on the AWS SDK for Go needs Go (https://go.dev/dl)");
  const folder = dirname(readerPath());
  const aside = `${folder}.${process.pid}`;
  mkdirSync(aside, { recursive: true });
  process.stderr.write("judges: building the reader on the AWS SDK for Go\n");
  const flags = [
    "build",
    "-mod=readonly",
    "-trimpath",
    "-ldflags",
    "-s -w",
    "-o",
    join(aside, "ec2-reader"),
    ".",
  ];
  const env = { ...process.env, CGO_ENABLED: "0", GOTOOLCHAIN: "local", GOWORK: "off" };
  const done = spawnSync(go, flags, { cwd: GO_FOLDER, env, stdio: ["ignore", 2, 2] });
  if (done.status !== 0) {
    rmSync(aside, { recursive: true, force: true });
    return err("the reader on the AWS SDK for Go could not be built; Go's own words are above");
  }
  rmSync(folder, { recursive: true, force: true });
  renameSync(aside, folder);
  return ok(readerPath());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const made of [installPython(JUDGES_PINS), buildGoReader()]) {
    if (made.ok) continue;
    process.stderr.write(`${made.error}\n`); // The tests skip aloud, which is a failure in CI.
  }
}
