/**
 * The operator's HTTP doors: metrics for scrapers, probes for kubelet, state for those who stand on the node. What shows pods and
 * addresses is served on loopback and on a socket that only root can open, and nowhere else. A door that cannot open is tried again:
 * during a rollout the daemon before us still holds the port. The daemon goes on meanwhile.
 */
import { chmodSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { dirname } from "node:path";
import type { Log } from "./log.ts";

export type DoorAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

export type Page = {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
};
export type PageMaker = () => Page | Promise<Page>;

/** One listener and the pages behind it, by path. `private` pages are refused on any address but loopback and Unix sockets. */
export type Door = {
  readonly name: string; // For the log.
  readonly address: DoorAddress;
  readonly pages: ReadonlyMap<string, PageMaker>;
  readonly private: boolean;
  readonly requestTimeoutMs?: number; // 5 s where it is not said.
};

export type Doors = {
  /** Where a door listens now; null while it does not. The port is the kernel's choice where 0 was asked for. */
  readonly addressOf: (name: string) => DoorAddress | null;
  readonly close: () => Promise<void>;
};

const RETRY_MS = 5_000;
/** Scrapers, kubelet and a few people: more are turned away. */
const CONNECTION_COUNT_MAX = 32;
const HEADER_BYTES_MAX = 8_192;
const REQUEST_TIMEOUT_MS = 5_000;
const IDLE_TIMEOUT_MS = 15_000;

/** Resolves when each door is open, or has failed to open once and is being tried again. */
export async function openDoors(doors: readonly Door[], log: Log): Promise<Doors> {
  const opened = doors.map((door) => createDoor(door, log));
  await Promise.all(opened.map((each) => each.tryOpen()));
  return {
    addressOf: (name) => opened.find((each) => each.name === name)?.address() ?? null,
    async close() {
      await Promise.all(opened.map((each) => each.close()));
    },
  };
}

type OpenDoor = {
  readonly name: string;
  readonly tryOpen: () => Promise<void>;
  readonly address: () => DoorAddress | null;
  readonly close: () => Promise<void>;
};

function createDoor(door: Door, log: Log): OpenDoor {
  let server: Server | null = null;
  let timer: NodeJS.Timeout | null = null;
  let closed = false;
  const context = { door: door.name, address: printAddress(door.address) };

  const tryOpen = async (): Promise<void> => {
    timer = null;
    if (door.private && !isPrivate(door.address)) {
      log.error({ ...context, reason: "not-loopback" }, "http door stays shut");
      return;
    }
    const made = makeServer(door, log);
    try {
      await listen(made, door.address);
    } catch (error) {
      made.close();
      const code = error instanceof Error && "code" in error ? String(error.code) : "unknown";
      const advice =
        code === "EADDRINUSE"
          ? "another process listens there; it is tried again until that one is gone"
          : "it is tried again";
      log.warn({ ...context, code, advice, error }, "http door could not open");
      retry();
      return;
    }
    if (closed) {
      made.close();
      return;
    }
    server = made;
    made.on("error", (error) => log.warn({ ...context, error }, "http door failed"));
    log.info({ ...context }, "http door open");
  };
  const retry = (): void => {
    if (closed) return;
    timer = setTimeout(() => void tryOpen(), RETRY_MS);
    timer.unref();
  };
  return {
    name: door.name,
    tryOpen,
    address() {
      const bound = server?.address() ?? null;
      if (bound === null) return null;
      // Our own path, and not the bound one: the socket was renamed after the bind.
      if (typeof bound === "string" || door.address.kind === "unix") return door.address;
      return { kind: "tcp", host: bound.address, port: bound.port };
    },
    async close() {
      closed = true;
      if (timer !== null) clearTimeout(timer);
      const open = server;
      if (open === null) return;
      server = null;
      open.closeIdleConnections();
      // A request that is being answered gets a moment; one that hangs must not hold the daemon's end.
      const cut = setTimeout(() => open.closeAllConnections(), 500);
      await new Promise<void>((resolve) => open.close(() => resolve()));
      clearTimeout(cut);
    },
  };
}

function makeServer(door: Door, log: Log): Server {
  const requestTimeout = door.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      requestTimeout,
      headersTimeout: requestTimeout,
      keepAliveTimeout: IDLE_TIMEOUT_MS,
      connectionsCheckingInterval: Math.min(1_000, requestTimeout),
    },
    (request, response) => {
      void answer(door, request, response).catch((error: unknown) => {
        log.warn({ door: door.name, path: pathOf(request), error }, "http page failed");
        if (!response.headersSent)
          send(request, response, plain(500, "This page could not be made; the log says why.\n"));
        else response.destroy();
      });
    },
  );
  server.maxConnections = CONNECTION_COUNT_MAX;
  return server;
}

async function answer(door: Door, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return send(request, response, plain(405, "Only GET.\n"));
  }
  const carriesBody =
    (request.headers["content-length"] ?? "0") !== "0" || "transfer-encoding" in request.headers;
  if (carriesBody) return send(request, response, plain(413, "No request body is read here.\n"));
  // A page in a browser on the node could be led here by a name of its own; it would carry that name.
  if (door.private && door.address.kind === "tcp" && !isLocalName(request.headers.host ?? "")) {
    return send(request, response, plain(403, "Ask by a loopback address.\n"));
  }
  const maker = door.pages.get(pathOf(request));
  if (maker === undefined) return send(request, response, plain(404, "No such page.\n"));
  send(request, response, await maker());
}

function send(request: IncomingMessage, response: ServerResponse, page: Page): void {
  const body = Buffer.from(page.body);
  response.writeHead(page.status, {
    "content-type": page.contentType,
    "content-length": body.length,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    // What was refused may have a body under way that nobody will read.
    ...(page.status === 405 || page.status === 413 ? { connection: "close" } : {}),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

function pathOf(request: IncomingMessage): string {
  return (request.url ?? "/").split("?", 1)[0] ?? "/";
}

function isLocalName(hostHeader: string): boolean {
  return isLoopback(hostHeader.replace(/:[0-9]+$/, "").replace(/^\[|\]$/g, ""));
}

function isPrivate(address: DoorAddress): boolean {
  return address.kind === "unix" || isLoopback(address.host);
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$/.test(host);
}

export function printAddress(address: DoorAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  return address.host.includes(":") ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

/**
 * A Unix socket is bound under another name, made root's alone, and renamed into place: there is no moment in which others may
 * open it, and none without a path. The daemon before us unlinks nothing of ours, since what it bound had another name.
 */
async function listen(server: Server, address: DoorAddress): Promise<void> {
  if (address.kind === "tcp") return listening(server, { host: address.host, port: address.port });
  const aside = `${address.path}.${process.pid}`;
  mkdirSync(dirname(address.path), { recursive: true, mode: 0o700 });
  rmSync(aside, { force: true });
  await listening(server, { path: aside });
  chmodSync(aside, 0o600);
  renameSync(aside, address.path);
}

function listening(
  server: Server,
  options: { host: string; port: number } | { path: string },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ ...options, backlog: CONNECTION_COUNT_MAX }, () => {
      server.removeListener("error", reject);
      resolve();
    });
  });
}

export function plain(status: number, body: string): Page {
  return { status, contentType: "text/plain; charset=utf-8", body };
}

export function json(value: unknown, status = 200): Page {
  return { status, contentType: "application/json", body: `${JSON.stringify(value, null, 2)}\n` };
}
