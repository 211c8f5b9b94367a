/**
 * The daemon's end of the socket: who may speak, frames and their limits, deadlines, and the life of the socket itself. What a
 * request means is `dispatch.ts`'s business. One request a connection: when a connection ends before its answer, its shim is dead.
 */
import { chmodSync, mkdirSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { assert } from "../lib/assert.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { Instant } from "../lib/time.ts";
import type { NodeError } from "../core/model/error.ts";
import type { SandboxKey } from "../core/model/sandbox.ts";
import { Dispatcher, type CniEvent, type Handlers } from "./dispatch.ts";
import { frameError, printCniError } from "./errors.ts";
import {
  decodeRequest,
  encodeAnswer,
  HEARTBEAT_SUFFIX,
  requestSize,
  type AnswerFrame,
  type FrameFault,
} from "./wire.ts";

export type CniServerOptions = {
  readonly path: string; // Of the socket. Its folder is made 0700 and belongs to us.
  readonly handlers: Handlers;
  readonly now: () => Instant;
  /** Who is at the other end of a connected socket's descriptor; null when the kernel does not tell (libc: SO_PEERCRED). */
  readonly peerUid: (fd: number) => number | null;
  readonly uidsServed?: readonly number[]; // Root and ourselves.
  readonly workerCount?: number;
  readonly connectionCountMax?: number;
  readonly silenceMs?: number; // A request must be here whole this long after its connection.
  readonly drainMs?: number; // At the end, what runs may go on for this long.
  readonly statusGraceMs?: number; // STATUS forgives the daemon's absence for this long: a rollout must not turn the node NotReady.
  readonly heartbeatMs?: number;
  readonly onEvent?: (event: CniEvent) => void;
};

export type CniServer = {
  /** Stops listening, answers held ADDs "again", lets what runs finish within `drainMs`. The socket's path is left as it is. */
  readonly close: () => Promise<void>;
  readonly connectionCount: () => number;
  /** A DEL out of the journal: in its sandbox's turn, like one off the socket. */
  readonly playDel: (key: SandboxKey) => Promise<Result<unknown, NodeError>>;
};

type Options = Required<CniServerOptions>;

const DEFAULTS = {
  uidsServed: [0, process.getuid?.() ?? 0],
  workerCount: 16,
  connectionCountMax: 512,
  silenceMs: 5_000,
  drainMs: 10_000,
  statusGraceMs: 60_000,
  heartbeatMs: 5_000,
  onEvent: () => {},
} satisfies Partial<Options>;

/**
 * Opens the socket and serves. To be called when the daemon is ready: a refused connection is clearer to a shim than a hanging one.
 *
 * The socket is bound under another name and renamed over an old one, so that there is no moment without a path, and so that an
 * old daemon's `close`, which removes the name it has bound, cannot remove ours.
 * The error is text: the folder or the socket cannot be made.
 */
export async function serveCni(given: CniServerOptions): Promise<Result<CniServer, string>> {
  const options: Options = { ...DEFAULTS, ...given };
  const dispatcher = new Dispatcher(options);
  const connections = new Set<Connection>();
  const server = createServer({ pauseOnConnect: false });
  // Those beyond connectionCountMax are told to come again, which takes a moment; beyond twice as many there is not even that.
  server.maxConnections = 2 * options.connectionCountMax;
  server.on("drop", () => options.onEvent({ kind: "dropped", reason: "full" }));
  server.on("connection", (socket) => {
    const connection = new Connection(socket, connections, dispatcher, options);
    connection.begin();
  });
  const bound = await bind(server, options.path);
  if (!bound.ok) return bound;
  const heartbeat = beginHeartbeat(options);
  const close = async (): Promise<void> => {
    heartbeat.end();
    server.close();
    dispatcher.close();
    for (const connection of connections) connection.daemonGoes();
    const idle = Promise.all([...connections].map((connection) => connection.ended));
    await Promise.race([idle, sleepUnref(options.drainMs)]);
    for (const connection of connections) connection.destroy();
  };
  return ok({
    close,
    connectionCount: () => connections.size,
    playDel: async (key) => await dispatcher.delete(key),
  });
}

async function bind(server: Server, path: string): Promise<Result<null, string>> {
  const aside = `${path}.${process.pid}`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    if ((statSync(dirname(path)).mode & 0o077) !== 0) chmodSync(dirname(path), 0o700);
    rmSync(aside, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(aside, () => {
        server.off("error", reject);
        resolve();
      });
    });
    chmodSync(aside, 0o600);
    renameSync(aside, path);
    return ok(null);
  } catch (cause) {
    server.close();
    return err(`the socket ${path} cannot be opened: ${String(cause)}`);
  }
}

/** Touches the heartbeat while STATUS is good, so that shims can tell a restart from a death. */
function beginHeartbeat(options: Options): { readonly end: () => void } {
  const path = options.path + HEARTBEAT_SUFFIX;
  let written = false;
  const beat = async (): Promise<void> => {
    const status = await options.handlers.status();
    if (!status.ok) return;
    try {
      const now = new Date();
      if (written) utimesSync(path, now, now);
      else writeFileSync(path, `${options.statusGraceMs}\n`, { mode: 0o600 });
      written = true;
    } catch (cause) {
      written = false; // Somebody removed it: write it again at the next beat.
      options.onEvent({ kind: "heartbeat-failed", detail: String(cause) });
    }
  };
  void beat();
  const timer = setInterval(() => void beat(), options.heartbeatMs).unref();
  return { end: () => clearInterval(timer) };
}

class Connection {
  readonly #socket: Socket;
  readonly #connections: Set<Connection>;
  readonly #dispatcher: Dispatcher;
  readonly #options: Options;
  readonly #arrival: number;
  readonly #stop = new AbortController();
  readonly #ended = Promise.withResolvers<void>();
  readonly #silence: NodeJS.Timeout;
  #chunks: Buffer[] = [];
  #size = 0;
  #sizeAwaited: number | null = null; // Of the whole request, once its head is here.
  #state: "reading" | "working" | "answered" = "reading";

  constructor(socket: Socket, connections: Set<Connection>, dispatcher: Dispatcher, options: Options) {
    this.#socket = socket;
    this.#connections = connections;
    this.#dispatcher = dispatcher;
    this.#options = options;
    this.#arrival = dispatcher.arrive();
    this.#silence = setTimeout(() => this.#drop("silent"), options.silenceMs).unref();
  }

  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  begin(): void {
    const socket = this.#socket;
    socket.on("error", () => socket.destroy()); // "close" follows, and says all that matters.
    socket.on("close", () => {
      clearTimeout(this.#silence);
      this.#connections.delete(this);
      if (this.#state !== "answered") this.#stop.abort("shim-gone");
      this.#ended.resolve();
    });
    const full = this.#connections.size >= this.#options.connectionCountMax;
    this.#connections.add(this);
    const uid = this.#options.peerUid(descriptorOf(socket));
    if (uid === null || !this.#options.uidsServed.includes(uid)) return this.#drop("stranger");
    if (full) this.#options.onEvent({ kind: "dropped", reason: "full" });
    // Even one too many is read from before it is sent away: an answer to a shim that still writes could be lost on it.
    socket.on("data", (chunk: Buffer) => (full ? this.#answer({ kind: "again" }) : this.#onData(chunk)));
  }

  /** A request that is not here yet goes to the next daemon; what runs finishes, or comes back "again". */
  daemonGoes(): void {
    if (this.#state === "reading") this.#answer({ kind: "again" });
    else this.#stop.abort("daemon-goes");
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #onData(chunk: Buffer): void {
    if (this.#state !== "reading") {
      // After a request there is nothing to say. After a refusal the rest of the refused request still comes.
      if (this.#state === "working") this.#drop("garbage");
      return;
    }
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#sizeAwaited === null) {
      const size = requestSize(this.#gathered());
      if (!size.ok) return this.#refuse(size.error);
      this.#sizeAwaited = size.value;
    }
    if (this.#sizeAwaited === null || this.#size < this.#sizeAwaited) return;
    if (this.#size > this.#sizeAwaited)
      return this.#refuse({ kind: "malformed", detail: "something follows the request" });
    const request = decodeRequest(this.#gathered());
    this.#chunks = [];
    if (!request.ok) return this.#refuse(request.error);
    clearTimeout(this.#silence);
    this.#state = "working";
    const caller = { arrival: this.#arrival, stop: this.#stop };
    void this.#dispatcher.serve(request.value, caller).then((answer) => this.#answer(answer)); // A broken promise in there ends the process.
  }

  #gathered(): Buffer {
    const [first] = this.#chunks;
    return this.#chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.#chunks, this.#size);
  }

  #refuse(fault: FrameFault): void {
    this.#options.onEvent({ kind: "dropped", reason: fault.kind });
    const stdout = new TextEncoder().encode(printCniError(frameError(fault), null));
    this.#answer({ kind: "done", exitCode: 1, stdout });
  }

  #answer(answer: AnswerFrame): void {
    if (this.#state === "answered" || this.#socket.destroyed) return;
    this.#state = "answered";
    this.#socket.write(encodeAnswer(answer), () => this.#socket.destroy());
  }

  #drop(reason: "silent" | "stranger" | "garbage"): void {
    this.#options.onEvent({ kind: "dropped", reason });
    this.#socket.destroy();
  }
}

/** Node has no public way to a socket's descriptor; SO_PEERCRED needs it. Seen in Node 20 to 24: `_handle.fd`. */
function descriptorOf(socket: Socket): number {
  // The cast names only what is read here, and the assert holds Node to it.
  const { _handle: handle } = socket as unknown as { readonly _handle: { readonly fd: number } | null };
  if (handle === null) return -1; // Closed before we looked.
  assert(Number.isInteger(handle.fd), "a connected socket has a descriptor");
  return handle.fd;
}

function sleepUnref(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
