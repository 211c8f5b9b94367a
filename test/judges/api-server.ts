/**
 * A real kube-apiserver on an etcd of its own, in a network namespace that the caller names. Nobody but the test writes objects: no
 * controller and no scheduler runs. RBAC is real.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { waitUntil } from "../../src/lab/node.ts";
import { inNetns } from "../../src/lab/processes.ts";

export type ApiServerOptions = {
  readonly kubeApiserver: string; // Paths of the programs.
  readonly etcd: string;
  readonly folder: string; // Data, certificates, logs. May be removed once it is closed.
  readonly netns: string; // A path.
  readonly address: string; // An address of that namespace, on which it serves.
  /** Beside the administrator: `system:node:NAME` with the node's rights. */
  readonly nodeNames: readonly string[];
};

export type Answer = { readonly status: number; readonly body: unknown };

export type ApiServer = {
  readonly url: string;
  /** A kubeconfig with the rights of everybody's superior. */
  readonly kubeconfig: string;
  /** As the administrator. `body` goes as JSON; status 0: no answer. */
  readonly request: (method: string, path: string, body?: unknown, contentType?: string) => Promise<Answer>;
  /** Makes a Node object that may take so many pods; 110, Kubernetes' own default. */
  readonly addNode: (name: string, pods?: number) => Promise<void>;
  /** Kills the server alone; etcd and its objects stay. */
  readonly stop: () => Promise<void>;
  /** Resolves when it is ready. */
  readonly start: () => Promise<void>;
  readonly close: () => Promise<void>;
};

const PORT = 6443;
const ETCD_PORT = 2379;
const ETCD_PEER_PORT = 2380;
const ADMIN_TOKEN = "admin";
/** Whoever connects to the first argument, a path, talks to the address and port that follow. */
const RELAY = `
const net = require("node:net");
const [path, host, port] = process.argv.slice(1);
net.createServer((near) => {
  const far = net.connect({ host, port: Number(port) });
  near.on("error", () => far.destroy()).pipe(far);
  far.on("error", () => near.destroy()).pipe(near);
}).listen(path);
`;
const READY_MS = 120_000; // Three seconds on an idle machine.

export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { folder, netns, address, nodeNames } = options;
  mkdirSync(folder, { recursive: true });
  const at = (name: string): string => join(folder, name);
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  writeFileSync(at("sa.key"), privateKey.export({ type: "sec1", format: "pem" }), { mode: 0o600 });
  const users = [
    `${ADMIN_TOKEN},admin,1,"system:masters"`,
    ...nodeNames.map((name, index) => `node-${name},system:node:${name},${index + 2},"system:nodes"`),
  ];
  writeFileSync(at("tokens.csv"), `${users.join("\n")}\n`, { mode: 0o600 });
  const url = `https://${address}:${PORT}`;
  writeFileSync(at("kubeconfig"), kubeconfig(url), { mode: 0o600 });

  const etcdUrl = `http://127.0.0.1:${ETCD_PORT}`;
  const peerUrl = `http://127.0.0.1:${ETCD_PEER_PORT}`;
  const etcd = startLogged(netns, at("etcd.log"), [
    options.etcd,
    `--data-dir=${at("etcd")}`,
    `--listen-client-urls=${etcdUrl}`,
    `--advertise-client-urls=${etcdUrl}`,
    `--listen-peer-urls=${peerUrl}`,
    `--initial-advertise-peer-urls=${peerUrl}`,
    `--initial-cluster=default=${peerUrl}`,
    "--unsafe-no-fsync",
    "--log-level=error",
  ]);
  // A socket belongs to the namespace in which it is made, and Node makes it later than we could stay inside: a child stays there for us.
  const door = at("door");
  const relay = startLogged(netns, at("relay.log"), [
    process.execPath,
    "-e",
    RELAY,
    door,
    address,
    `${PORT}`,
  ]);
  let server: ChildProcess | null = null;

  const request: ApiServer["request"] = async (method, path, body, contentType = "application/json") =>
    await ask({ door, method, path, contentType, ...(body === undefined ? {} : { body }) });

  const start: ApiServer["start"] = async () => {
    const started = startLogged(netns, at("apiserver.log"), [
      options.kubeApiserver,
      `--etcd-servers=${etcdUrl}`,
      `--bind-address=${address}`,
      `--advertise-address=${address}`,
      `--secure-port=${PORT}`,
      `--cert-dir=${at("certs")}`,
      `--token-auth-file=${at("tokens.csv")}`,
      "--authorization-mode=Node,RBAC",
      "--service-cluster-ip-range=10.96.0.0/24",
      "--service-account-issuer=local",
      `--service-account-key-file=${at("sa.key")}`,
      `--service-account-signing-key-file=${at("sa.key")}`,
      "--disable-admission-plugins=ServiceAccount",
      "--endpoint-reconciler-type=none",
    ]);
    server = started;
    await waitUntil("the API server is ready", READY_MS, async () => {
      if (started.exitCode !== null)
        throw new Error(`the API server ended: ${readFileSync(at("apiserver.log"), "utf8").slice(-2_000)}`);
      return (await request("GET", "/readyz")).status === 200;
    });
  };
  await start();

  return {
    url,
    kubeconfig: at("kubeconfig"),
    request,
    start,
    addNode: async (name, pods = 110) => {
      const made = await request("POST", "/api/v1/nodes", {
        apiVersion: "v1",
        kind: "Node",
        metadata: { name },
      });
      const capacity = { status: { capacity: { pods: `${pods}` }, allocatable: { pods: `${pods}` } } };
      const patch = "application/merge-patch+json";
      const sized = await request("PATCH", `/api/v1/nodes/${name}/status`, capacity, patch);
      if (made.status !== 201 || sized.status !== 200)
        throw new Error(`the Node ${name} could not be made: ${made.status}, ${sized.status}`);
    },
    stop: async () => {
      if (server !== null) await ended(server);
      server = null;
    },
    close: async () => {
      if (server !== null) await ended(server);
      await ended(relay);
      await ended(etcd);
    },
  };
}

/** In the namespace by fork; gone with whoever started it, since a test that is killed closes nothing. */
function startLogged(netns: string, logFile: string, command: readonly string[]): ChildProcess {
  const log = openSync(logFile, "a");
  const child = inNetns(netns, () =>
    spawn("setpriv", ["--pdeathsig", "KILL", ...command], { stdio: ["ignore", log, log] }),
  );
  closeSync(log);
  return child;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  child.kill("SIGKILL"); // There is nothing that it must save.
  await closed;
}

function kubeconfig(server: string): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "lab", cluster: { server, "insecure-skip-tls-verify": true } }],
    users: [{ name: "admin", user: { token: ADMIN_TOKEN } }],
    contexts: [{ name: "lab", context: { cluster: "lab", user: "admin" } }],
    "current-context": "lab",
  });
}

type Asked = {
  readonly door: string;
  readonly method: string;
  readonly path: string;
  readonly contentType: string;
  readonly body?: unknown;
};

async function ask({ door, method, path, contentType, body }: Asked): Promise<Answer> {
  return await new Promise<Answer>((resolve) => {
    const nothing = (): void => resolve({ status: 0, body: null });
    const asked = httpsRequest({
      socketPath: door,
      method,
      path,
      rejectUnauthorized: false, // It signed its own certificate.
      agent: false,
      timeout: 10_000,
      headers: { authorization: `Bearer ${ADMIN_TOKEN}`, "content-type": contentType },
    });
    asked.once("response", (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.once("end", () => resolve({ status: response.statusCode ?? 0, body: parsed(text) }));
      response.once("error", nothing);
    });
    asked.once("error", nothing).once("timeout", () => asked.destroy());
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** Some answers are plain words. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
