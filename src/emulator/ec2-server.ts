/** EC2's query protocol over HTTP, with /metrics and the admin door beside it. What calls do is the engine's business. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { answerAdmin } from "./admin.ts";
import { printAnswer, printFailure } from "./ec2-xml.ts";
import type { CallReply, Caller, Engine } from "./engine.ts";

const BODY_BYTES_MAX = 1 << 20;
/** Longer than any client idles: a connection that we close while a call is on its way would look like a lost answer. */
export const KEEP_ALIVE_MS = 120_000;

export function createEc2Server(engine: Engine): Server {
  return createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
    serve(engine, request, response).catch((cause: unknown) => {
      // A broken promise inside the emulator must be seen by whoever drives it, not be taken for an EC2 answer.
      response.writeHead(500, { "Content-Type": "text/plain" }).end(`emulator failed: ${String(cause)}\n`);
    });
  });
}

async function serve(engine: Engine, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://emulator");
  const body = await readBody(request);
  if (body === null) {
    response.writeHead(413).end();
    return;
  }
  if (url.pathname === "/metrics") {
    response.writeHead(200, { "Content-Type": "text/plain; version=0.0.4" }).end(engine.metricsText());
    return;
  }
  if (url.pathname.startsWith("/_emulator/")) {
    const { status, json } = answerAdmin(engine, {
      method: request.method ?? "GET",
      path: url.pathname,
      body,
    });
    response.writeHead(status, { "Content-Type": "application/json" }).end(`${JSON.stringify(json)}\n`);
    return;
  }
  const parameters = new Map([...url.searchParams, ...new URLSearchParams(body)]);
  const action = parameters.get("Action") ?? "";
  send(response, action, await engine.call({ action, parameters, caller: callerOf(request, url) }));
}

function send(response: ServerResponse, action: string, reply: CallReply): void {
  switch (reply.kind) {
    case "lost":
      response.destroy();
      return;
    case "answer":
      sendXml(response, {
        status: 200,
        requestId: reply.requestId,
        xml: printAnswer(action, reply.requestId, reply.answer),
      });
      return;
    case "failure":
      sendXml(response, {
        status: reply.failure.status,
        requestId: reply.requestId,
        xml: printFailure(reply.requestId, reply.failure),
      });
      return;
  }
}

function sendXml(
  response: ServerResponse,
  reply: { readonly status: number; readonly requestId: string; readonly xml: string },
): void {
  response
    .writeHead(reply.status, {
      "Content-Type": "text/xml;charset=UTF-8",
      "Content-Length": Buffer.byteLength(reply.xml),
      "x-amzn-RequestId": reply.requestId,
      Server: "AmazonEC2",
    })
    .end(reply.xml);
}

/** The access key by SigV4's header or query; the signature itself is not checked, since the emulator knows no secrets. */
function callerOf(request: IncomingMessage, url: URL): Caller {
  const credential =
    /^AWS4-HMAC-SHA256 .*\bCredential=([^/,\s]+)\//.exec(request.headers.authorization ?? "")?.[1] ??
    url.searchParams.get("X-Amz-Credential")?.split("/")[0];
  const agents = [request.headers["user-agent"], request.headers["x-amz-user-agent"]].flat();
  return {
    accessKeyId: credential ?? null,
    userAgent: agents.filter((agent) => agent !== undefined).join(" "),
  };
}

async function readBody(request: IncomingMessage): Promise<string | null> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    const bytes = chunk as Buffer; // Without an encoding set, node gives buffers.
    size += bytes.length;
    if (size > BODY_BYTES_MAX) return null;
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString("utf8");
}
