/**
 * Requests to the API server and lines of its watches. Every wait has an end: a request its deadline, a watch its length and the longest
 * silence. What comes back is bounded, and what cannot be read is said, never dropped.
 */
import type { IncomingMessage } from "node:http";
import { request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import { StringDecoder } from "node:string_decoder";
import { err, ok, type Result } from "../lib/result.ts";
import { connect, type Connection, type KubeSource } from "./connection.ts";
import { errorOfStatus, type KubeError } from "./errors.ts";

export type KubeRequest = {
  readonly method: "GET" | "PATCH" | "POST";
  readonly path: string; // From the root: "/api/v1/…", query included.
  readonly contentType?: string;
  readonly body?: unknown; // Sent as JSON.
};

export type KubeClient = {
  /** The parsed answer. Over `answerBytesMax` it is `too-large`. */
  readonly ask: (request: KubeRequest, signal: AbortSignal) => Promise<Result<unknown, KubeError>>;
  /**
   * Hands each line of a watch to `onLine`, in order, until the server ends it, `signal` is aborted, or it is silent for too long.
   * A line that is longer than one object can be ends it too. `ok` when it ended as watches do.
   */
  readonly watch: (
    path: string,
    onLine: (line: string) => void,
    signal: AbortSignal,
  ) => Promise<Result<null, KubeError>>;
};

export type KubeClientOptions = {
  readonly source: KubeSource;
  readonly userAgent: string;
  readonly deadlineMs: number; // Of a request, from its first step to its last byte.
  readonly silenceMs: number; // The longest that a watch may say nothing. Bookmarks come about once a minute.
  readonly answerBytesMax: number;
};

/** etcd takes objects of 1.5 MiB. */
const LINE_CHARACTERS_MAX = 4 * 1024 * 1024;
/** A peer that is gone without a word is noticed by the kernel after this long and a few more. */
const KEEPALIVE_MS = 30_000;

export function createKubeClient(options: KubeClientOptions): KubeClient {
  let connection: Connection | null = null;

  const open = async (
    request: KubeRequest,
    signal: AbortSignal,
  ): Promise<Result<IncomingMessage, KubeError>> => {
    if (connection === null) {
      const made = await connect(options.source);
      if (!made.ok) return err({ kind: "unreachable", detail: made.error });
      connection = made.value;
    }
    try {
      const incoming = await send(connection, request, options.userAgent, signal);
      if (incoming.statusCode === 401) connection = null; // The token may have been rotated: everything is read again.
      return ok(incoming);
    } catch (cause) {
      connection = null; // The server's authority, or its address, may be another by now.
      return err({ kind: "unreachable", detail: wordsOf(cause) });
    }
  };

  return {
    async ask(request, signal) {
      const deadline = AbortSignal.timeout(options.deadlineMs);
      const both = AbortSignal.any([deadline, signal]);
      const late = (): KubeError => ({
        kind: "unreachable",
        detail: signal.aborted ? "given up" : `no answer within ${options.deadlineMs} ms`,
      });
      const opened = await open(request, both);
      if (!opened.ok) return both.aborted ? err(late()) : opened;
      try {
        const text = await textOf(opened.value, options.answerBytesMax);
        if (text === null)
          return err({ kind: "too-large", detail: `the answer is over ${options.answerBytesMax} bytes` });
        return answerOf(opened.value, text);
      } catch (cause) {
        return err(both.aborted ? late() : { kind: "unreachable", detail: wordsOf(cause) });
      }
    },
    async watch(path, onLine, signal) {
      const silence = new AbortController();
      const both = AbortSignal.any([silence.signal, signal]);
      let timer = setTimeout(() => silence.abort(), options.silenceMs);
      const heard = (): void => {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), options.silenceMs);
      };
      try {
        const opened = await open({ method: "GET", path }, both);
        if (!opened.ok) return opened;
        if (opened.value.statusCode !== 200) {
          const text = (await textOf(opened.value, options.answerBytesMax)) ?? "";
          const answer = answerOf(opened.value, text);
          return answer.ok ? err({ kind: "unreadable", detail: "no watch" }) : answer;
        }
        return await linesOf(opened.value, onLine, heard);
      } catch (cause) {
        if (silence.signal.aborted || signal.aborted) return ok(null); // Asked for again from where it was.
        return err({ kind: "unreachable", detail: wordsOf(cause) });
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

async function send(
  connection: Connection,
  { method, path, contentType, body }: KubeRequest,
  userAgent: string,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const credentials = await connection.options();
  const text = body === undefined ? null : JSON.stringify(body);
  const all: RequestOptions = {
    ...credentials,
    method,
    signal,
    headers: {
      ...Object.fromEntries(Object.entries(credentials.headers ?? {})),
      accept: "application/json",
      "user-agent": userAgent,
      ...(text === null
        ? {}
        : { "content-type": contentType ?? "application/json", "content-length": Buffer.byteLength(text) }),
    },
  };
  const url = `${connection.server}${path}`;
  return await new Promise<IncomingMessage>((resolve, reject) => {
    const outgoing = (url.startsWith("https:") ? httpsRequest : httpRequest)(url, all, resolve);
    outgoing.on("error", reject);
    outgoing.on("socket", (socket) => socket.setKeepAlive(true, KEEPALIVE_MS));
    outgoing.end(text ?? "");
  });
}

/** Null when it is longer than `bytesMax`. */
async function textOf(incoming: IncomingMessage, bytesMax: number): Promise<string | null> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    // No encoding is set, so chunks are Buffers.
    size += chunk.length;
    if (size > bytesMax) {
      incoming.destroy();
      return null;
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function answerOf(incoming: IncomingMessage, text: string): Result<unknown, KubeError> {
  const status = incoming.statusCode ?? 0;
  if (status < 200 || status > 299)
    return err(errorOfStatus(status, text, incoming.headers["retry-after"] ?? null));
  try {
    return ok(JSON.parse(text));
  } catch {
    return err({ kind: "unreadable", detail: `no JSON: ${text.slice(0, 100)}` });
  }
}

async function linesOf(
  incoming: IncomingMessage,
  onLine: (line: string) => void,
  heard: () => void,
): Promise<Result<null, KubeError>> {
  const decoder = new StringDecoder("utf8"); // A character may be cut in two between chunks.
  let rest = "";
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    heard();
    const lines = (rest + decoder.write(chunk)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim() !== "") onLine(line);
    if (rest.length > LINE_CHARACTERS_MAX) {
      incoming.destroy();
      return err({ kind: "unreadable", detail: `a line of over ${LINE_CHARACTERS_MAX} characters` });
    }
  }
  if (rest.trim() !== "") onLine(rest); // Cut off, most likely: whoever reads it finds that out.
  return ok(null);
}

function wordsOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const code = "code" in cause ? `${String(cause.code)}: ` : "";
  return `${code}${cause.message}`.slice(0, 300);
}
