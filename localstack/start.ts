/**
 * Starts LocalStack's EC2 as a process on loopback, waits until it answers, and ends it. What to install is in requirements.txt.
 * Run as a program (`node localstack/start.ts`) it installs, starts, prints the address, and stays until it is told to end.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findPython, installPython, type PythonPins } from "../test/support/python.ts";
import { err, ok, type Result } from "../src/lib/result.ts";

const HERE = dirname(fileURLToPath(import.meta.url));

export const LOCALSTACK_PINS: PythonPins = {
  name: "localstack",
  requirements: join(HERE, "requirements.txt"),
  files: [join(HERE, "requirements.txt"), join(HERE, "constraints.txt")],
};

export type LocalStack = {
  readonly url: string;
  readonly version: string;
  /** SIGTERM, and SIGKILL when that takes too long: a request that hangs would keep it for ever. It keeps nothing on disk. */
  readonly stop: () => Promise<void>;
  /** SIGKILL at once, for one that hangs. */
  readonly kill: () => Promise<void>;
};

/** The first start on a cold disk reads half a gigabyte of Python. */
const READY_MS = 120_000;
const STOP_MS = 10_000;

/** The error tells what is missing, or what LocalStack said on its way out. One instance is enough for a run: accounts are apart. */
export async function startLocalStack(): Promise<Result<LocalStack, string>> {
  const python = findPython(LOCALSTACK_PINS);
  if (!python.ok) return python;
  const folder = mkdtempSync(join(tmpdir(), "berth-localstack-"));
  const port = await freePort();
  const log = join(folder, "log");
  const output = openSync(log, "a");
  // It ends with us, however we end.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", python.value, join(HERE, "localstack_main.py")], {
    stdio: ["ignore", output, output],
    env: { ...environmentOf(folder), GATEWAY_LISTEN: `127.0.0.1:${port}` },
  });
  const state = { living: true };
  const ended = new Promise<void>((resolve) => {
    const end = (): void => {
      state.living = false;
      resolve();
    };
    child.once("close", end).once("error", end);
  });
  const endBy = async (signal: "SIGTERM" | "SIGKILL"): Promise<void> => {
    child.kill(signal);
    const patience = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await ended;
    clearTimeout(patience);
    rmSync(folder, { recursive: true, force: true });
  };
  const [stop, kill] = [() => endBy("SIGTERM"), () => endBy("SIGKILL")];

  const url = `http://127.0.0.1:${port}`;
  const deadline = performance.now() + READY_MS;
  while (state.living && performance.now() < deadline) {
    const version = await versionIfReady(url);
    if (version !== null) return ok({ url, version, stop, kill });
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const words = readFileSync(log, "utf8").trim().split("\n").slice(-8).join("\n");
  await stop();
  return err(`LocalStack did not come up within ${READY_MS / 1_000} s:\n${words}`);
}

/** Everything below one fresh folder, and no connection to the outside: no updates, no certificate, no DNS, no telemetry. */
function environmentOf(folder: string): NodeJS.ProcessEnv {
  return {
    PATH: process.env["PATH"],
    HOME: folder,
    SERVICES: "ec2",
    STRICT_SERVICE_LOADING: "1",
    EAGER_SERVICE_LOADING: "1",
    OVERRIDE_IN_DOCKER: "0", // Else, in a container, it writes to system folders.
    FILESYSTEM_ROOT: folder,
    XDG_CACHE_HOME: join(folder, "cache"),
    DISABLE_EVENTS: "1",
    SKIP_SSL_CERT_DOWNLOAD: "1",
    DNS_ADDRESS: "0",
  };
}

/** It says that EC2 is running some seconds before EC2 answers, so a first call is made. */
async function versionIfReady(url: string): Promise<string | null> {
  try {
    const health = await fetch(`${url}/_localstack/health`, { signal: AbortSignal.timeout(5_000) });
    const { services, version } = (await health.json()) as {
      services?: Record<string, string>;
      version?: string;
    }; // Looked at below.
    if (services?.["ec2"] !== "running" && services?.["ec2"] !== "available") return null;
    const first = await fetch(url, {
      method: "POST",
      headers: {
        "Content-Type": "application/x-www-form-urlencoded",
        Authorization:
          "AWS4-HMAC-SHA256 Credential=000000000001/20260101/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0",
      },
      body: "Action=DescribeVpcs&Version=2016-11-15",
      signal: AbortSignal.timeout(60_000),
    });
    return first.ok ? (version ?? "unknown") : null;
  } catch {
    return null; // Nobody listens yet.
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof bound === "object" && bound !== null ? bound.port : 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const installed = installPython(LOCALSTACK_PINS);
  const started = installed.ok ? await startLocalStack() : installed;
  if (!started.ok) {
    process.stderr.write(`${started.error}\n`);
    process.exit(1);
  }
  process.stdout.write(
    `LocalStack ${started.value.version} at ${started.value.url}; a 12-digit access key id is an account\n`,
  );
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void started.value.stop());
}
