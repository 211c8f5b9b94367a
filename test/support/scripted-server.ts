/** A small HTTP server whose answers a test scripts, one step a request; it remembers what it was asked. Loopback only. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { once } from "node:events";
import type { AddressInfo } from "node:net";

export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
  /** The form fields of an EC2 request. */
  readonly form: URLSearchParams;
};

/** Answers, or leaves the request hanging, or cuts it. */
export type Step = (asked: Asked, response: ServerResponse) => void;

export type ScriptedServer = {
  readonly url: string;
  readonly port: number;
  readonly asked: Asked[];
  close(): Promise<void>;
};

/** Each request takes the next step; the last step serves all that come after it. */
export async function scriptedServer(
  steps: Step | readonly Step[],
  tls?: { readonly key: string; readonly cert: string },
): Promise<ScriptedServer> {
  const script = typeof steps === "function" ? [steps] : steps;
  const asked: Asked[] = [];
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      const one = {
        method: request.method ?? "",
        path: request.url ?? "",
        headers: request.headers,
        body,
        form: new URLSearchParams(body),
      };
      asked.push(one);
      script[Math.min(asked.length, script.length) - 1]?.(one, response);
    });
  };
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // A TCP server that listens has one.
  return {
    url: `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`,
    port,
    asked,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** A good answer of EC2's shape. */
export function ec2Answer(operation: string, inner = "<return>true</return>", requestId = "req-1"): Step {
  return (_asked, response) => {
    response.setHeader("content-type", "text/xml;charset=UTF-8");
    response.end(
      `<?xml version="1.0" encoding="UTF-8"?>\n<${operation}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">` +
        `<requestId>${requestId}</requestId>${inner}</${operation}Response>`,
    );
  };
}

/** A refusal of EC2's shape. */
export function ec2Error(status: number, code: string, message: string, requestId = "req-bad"): Step {
  return (_asked, response) => {
    response.statusCode = status;
    response.end(
      `<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>${code}</Code><Message>${message}</Message></Error></Errors>` +
        `<RequestID>${requestId}</RequestID></Response>`,
    );
  };
}

export function plainAnswer(status: number, text: string): Step {
  return (_asked, response) => {
    response.statusCode = status;
    response.end(text);
  };
}
