/**
 * Carries the SDK's requests over Node's HTTP agents. Ours rather than the SDK's own handler for three things that the pool stands on:
 * it knows whether a failed request may have reached EC2, it bounds an answer's size, and a deadline covers the answer's last byte.
 */
import {
  type ClientRequest,
  Agent as HttpAgent,
  type IncomingMessage,
  request as httpRequest,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { createSecureContext, getCACertificates, TLSSocket } from "node:tls";
import type { EC2ClientConfig } from "@aws-sdk/client-ec2";
import type { AwsEnvironment } from "./environment.ts";

/** What became of one request; filled in while it runs. */
export type Trace = {
  /** True once the server may have the request: the connection stands. */
  sent: boolean;
  status: number | null;
  requestId: string | null;
  /** The answer whole, when its last byte came. */
  body: Buffer | null;
};

export type RequestHandler = NonNullable<EC2ClientConfig["requestHandler"]>;

export type Sender = {
  readonly handler: RequestHandler;
  /** The trace of the request that will be made under `signal`. */
  readonly trace: (signal: AbortSignal) => Trace;
  readonly close: () => void;
};

/** EC2 answers a page of 1,000 ENIs in some 4 MB. More than this would not fit into the daemon's heap once it is parsed. */
const ANSWER_BYTES_MAX = 8 * 1024 * 1024;

/** Below the idle time after which servers hang up: a request on a connection that just died would be in doubt for nothing. */
const IDLE_MS = 10_000;

export function createSender(environment: AwsEnvironment): Sender {
  const options = {
    keepAlive: true,
    maxSockets: 16,
    timeout: IDLE_MS,
    proxyEnv: { ...environment.proxies },
  };
  const http = new HttpAgent(options);
  const https = new HttpsAgent({
    ...options,
    // Made once: a context for each connection would read some 140 certificates every time.
    ...(environment.caBundles.length === 0
      ? {}
      : {
          secureContext: createSecureContext({
            ca: [...getCACertificates("default"), ...environment.caBundles],
          }),
        }),
  });
  const traces = new WeakMap<AbortSignal, Trace>();

  const handle = (
    request: SdkRequest,
    handling?: { abortSignal?: unknown },
  ): Promise<{ response: SdkResponse }> => {
    const signal = handling?.abortSignal instanceof AbortSignal ? handling.abortSignal : null;
    const trace = (signal === null ? undefined : traces.get(signal)) ?? newTrace();
    const secure = request.protocol === "https:";
    const query = queryOf(request.query);
    const outgoing = (secure ? httpsRequest : httpRequest)({
      agent: secure ? https : http,
      method: request.method,
      host: request.hostname.replace(/^\[(.+)\]$/, "$1"),
      ...(request.port === undefined ? {} : { port: request.port }),
      path: query === "" ? request.path : `${request.path}?${query}`,
      headers: request.headers,
      ...(signal === null ? {} : { signal }),
    });
    noteWhenSent(outgoing, trace, secure);
    return new Promise((resolve, reject) => {
      outgoing.on("error", reject);
      outgoing.on("response", (incoming) => {
        trace.sent = true;
        trace.status = incoming.statusCode ?? null;
        trace.requestId = headerOf(incoming, "x-amzn-requestid");
        collect(incoming).then((body) => {
          trace.body = body;
          // A view of its own: the SDK changes the prototype of the bytes that it is given.
          const view = new Uint8Array(body.buffer, body.byteOffset, body.length);
          resolve({
            response: { statusCode: incoming.statusCode ?? 0, headers: headersOf(incoming), body: view },
          });
        }, reject);
      });
      outgoing.end(request.body ?? "");
    });
  };
  return {
    // The SDK's handler interface; only what its client calls is here.
    handler: {
      metadata: { handlerProtocol: "http/1.1" },
      handle,
      updateHttpClientConfig: () => {},
      httpHandlerConfigs: () => ({}),
      destroy: () => {},
    } as RequestHandler,
    trace(signal) {
      const trace = newTrace();
      traces.set(signal, trace);
      return trace;
    },
    close() {
      http.destroy();
      https.destroy();
    },
  };
}

type SdkRequest = {
  readonly protocol: string;
  readonly method: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>>;
  readonly headers: Record<string, string>;
  readonly body?: string | Uint8Array;
};

type SdkResponse = {
  readonly statusCode: number;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
};

function newTrace(): Trace {
  return { sent: false, status: null, requestId: null, body: null };
}

/** A connection in the making has carried nothing; from then on the request may be there. A reused one is made already. */
function noteWhenSent(outgoing: ClientRequest, trace: Trace, secure: boolean): void {
  const note = (): void => {
    trace.sent = true;
  };
  outgoing.on("socket", (socket) => {
    const handshaking =
      socket instanceof TLSSocket && !outgoing.reusedSocket && socket.getProtocol() === null;
    if (socket.connecting || handshaking) socket.once(secure ? "secureConnect" : "connect", note);
    else note();
  });
}

async function collect(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    // No encoding is set, so chunks are Buffers.
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) {
      incoming.destroy();
      throw Object.assign(new Error(`the answer is larger than ${ANSWER_BYTES_MAX} bytes`), {
        code: "AnswerTooLarge",
      });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function headersOf(incoming: IncomingMessage): Record<string, string> {
  const entries = Object.entries(incoming.headers).map(([name, value]) => [name, String(value)] as const);
  return Object.fromEntries(entries);
}

function headerOf(incoming: IncomingMessage, name: string): string | null {
  const value = incoming.headers[name];
  return typeof value === "string" ? value : null;
}

function queryOf(query: SdkRequest["query"]): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) parameters.append(name, one ?? "");
  }
  return parameters.toString();
}
