/** An instance's metadata service over HTTP. Header and body go out in one write: two would cost 40 ms of delayed acknowledgement. */
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import { KEEP_ALIVE_MS } from "./ec2-server.ts";
import type { Engine } from "./engine.ts";

/** Says for which instance a request is: always the same one, or by the address it comes from. Null: nobody's, so 404. */
export type InstanceOf = (request: IncomingMessage) => string | null;

export function createImdsListener(engine: Pick<Engine, "imds">, instanceOf: InstanceOf): RequestListener {
  return (request, response) => {
    request.resume();
    const instanceId = instanceOf(request);
    if (instanceId === null) {
      response.writeHead(404).end();
      return;
    }
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [name, [value].flat().join(", ")]),
    );
    const reply = engine.imds(instanceId, {
      method: request.method ?? "GET",
      path: request.url ?? "/",
      headers,
    });
    const length = { "Content-Length": Buffer.byteLength(reply.body), Server: "EC2ws" };
    response
      .writeHead(reply.status, { ...reply.headers, ...length })
      .end(request.method === "HEAD" ? "" : reply.body);
  };
}

export function createImdsServer(engine: Pick<Engine, "imds">, instanceOf: InstanceOf): Server {
  return createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, createImdsListener(engine, instanceOf));
}
