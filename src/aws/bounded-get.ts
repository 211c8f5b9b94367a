/** Small plain HTTP requests with a deadline and a bound, for what is near: IMDS and the pod identity agent. Never through a proxy. */
import { type Agent, type IncomingMessage, request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import type { SecureContext } from "node:tls";
import { err, ok, type Result } from "../lib/result.ts";

export type SmallAnswer = { readonly status: number; readonly text: string };

export type SmallRequest = {
  readonly url: string;
  readonly method: "GET" | "PUT";
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number; // From the first step to the last byte.
  readonly bytesMax: number;
  readonly agent?: Agent;
  readonly secureContext?: SecureContext;
};

/** An error says in words what kept the answer away; any status that came is an answer. */
export async function smallRequest(ask: SmallRequest): Promise<Result<SmallAnswer, string>> {
  const signal = AbortSignal.timeout(ask.timeoutMs);
  const outgoing = (ask.url.startsWith("https:") ? httpsRequest : httpRequest)(ask.url, {
    method: ask.method,
    headers: ask.headers,
    signal,
    ...(ask.agent === undefined ? {} : { agent: ask.agent }),
    ...(ask.secureContext === undefined ? {} : { secureContext: ask.secureContext }),
  });
  try {
    const incoming = await new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.on("error", reject);
      outgoing.on("response", resolve);
      outgoing.end();
    });
    let text = "";
    incoming.setEncoding("utf8");
    for await (const chunk of incoming as AsyncIterable<string>) {
      // An encoding is set, so chunks are strings.
      text += chunk;
      if (text.length > ask.bytesMax) {
        outgoing.destroy();
        return err(`the answer is longer than ${ask.bytesMax} bytes`);
      }
    }
    return ok({ status: incoming.statusCode ?? 0, text });
  } catch (error) {
    outgoing.destroy();
    if (signal.aborted) return err(`no answer within ${ask.timeoutMs} ms`);
    return err(error instanceof Error ? error.message : String(error));
  }
}
