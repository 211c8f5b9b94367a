/**
 * A small API server for tests: objects of a few kinds, list with pages, watch with bookmarks, resume and "too old", patches and creations
 * remembered. It can be made slow, denying, garbled, or one that closes its watches. Loopback only.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type KubeObject = {
  readonly metadata: Readonly<Record<string, unknown>> & { readonly name: string; readonly uid: string };
} & Readonly<Record<string, unknown>>;

export type Wrote = {
  readonly method: string;
  readonly path: string;
  readonly contentType: string;
  readonly body: Record<string, unknown>;
};

export type KubeServer = ReturnType<typeof makeKubeServer> extends Promise<infer Server> ? Server : never;

type Watcher = { readonly kind: string; readonly response: ServerResponse };
type Logged = { readonly version: number; readonly kind: string; readonly line: string };

/** What comes before the server's own answer; false means that it has answered. */
type Mood = (request: IncomingMessage, response: ServerResponse) => boolean;

export async function makeKubeServer() {
  const kinds = new Map<string, Map<string, KubeObject>>();
  const log: Logged[] = [];
  const watchers = new Set<Watcher>();
  const asked: { readonly path: string; readonly query: URLSearchParams; readonly token: string }[] = [];
  const wrote: Wrote[] = [];
  let version = 100;
  let oldest = 0; // Versions below it are too old to watch from.
  let mood: Mood = () => true;

  const stamped = (object: KubeObject): KubeObject => ({
    ...object,
    metadata: { ...object.metadata, resourceVersion: `${version}` },
  });
  const tell = (kind: string, type: string, object: KubeObject): void => {
    const line = `${JSON.stringify({ type, object })}\n`;
    log.push({ version, kind, line });
    for (const watcher of watchers) if (watcher.kind === kind) watcher.response.write(line);
  };

  const answerList = (kind: string, query: URLSearchParams, response: ServerResponse): void => {
    const objects = [...(kinds.get(kind)?.values() ?? [])];
    const limit = Number(query.get("limit") ?? "0");
    const start = Number(query.get("continue") ?? "0");
    const page = limit > 0 ? objects.slice(start, start + limit) : objects;
    const more = limit > 0 && start + limit < objects.length;
    response.end(
      JSON.stringify({
        kind: "List",
        metadata: { resourceVersion: `${version}`, ...(more ? { continue: `${start + limit}` } : {}) },
        items: page,
      }),
    );
  };
  const answerWatch = (kind: string, query: URLSearchParams, response: ServerResponse): void => {
    const from = Number(query.get("resourceVersion") ?? "0");
    response.writeHead(200, { "content-type": "application/json" });
    response.flushHeaders();
    if (from < oldest) {
      const status = { kind: "Status", code: 410, message: `too old resource version: ${from} (${oldest})` };
      response.end(`${JSON.stringify({ type: "ERROR", object: status })}\n`);
      return;
    }
    for (const each of log) if (each.kind === kind && each.version > from) response.write(each.line);
    const watcher = { kind, response };
    watchers.add(watcher);
    response.on("close", () => watchers.delete(watcher));
  };

  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://localhost");
    const kind = url.pathname;
    asked.push({ path: kind, query: url.searchParams, token: request.headers.authorization ?? "" });
    if (!mood(request, response)) return;
    if (request.method === "GET") {
      if (!kinds.has(kind)) {
        response.statusCode = 404;
        response.end(JSON.stringify({ kind: "Status", code: 404, message: "no such kind" }));
      } else if (url.searchParams.get("watch") === "1") answerWatch(kind, url.searchParams, response);
      else answerList(kind, url.searchParams, response);
      return;
    }
    let text = "";
    request.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    request.on("end", () => {
      wrote.push({
        method: request.method ?? "",
        path: kind,
        contentType: request.headers["content-type"] ?? "",
        body: JSON.parse(text) as Record<string, unknown>, // What our own client made.
      });
      response.statusCode = request.method === "POST" ? 201 : 200;
      response.end("{}");
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // A TCP server that listens has one.

  return {
    url: `http://127.0.0.1:${port}`,
    asked,
    wrote,
    lists: (kind: string) => asked.filter((each) => each.path === kind && !each.query.has("watch")),
    watches: (kind: string) => asked.filter((each) => each.path === kind && each.query.has("watch")),
    watching: (kind: string) => [...watchers].filter((each) => each.kind === kind).length,
    /** The kind is served from now on, though there may be no object of it. */
    serve(kind: string): void {
      kinds.set(kind, kinds.get(kind) ?? new Map());
    },
    put(kind: string, object: KubeObject): void {
      const objects = kinds.get(kind) ?? new Map<string, KubeObject>();
      kinds.set(kind, objects);
      version += 1;
      const type = objects.has(object.metadata.uid) ? "MODIFIED" : "ADDED";
      const made = stamped(object);
      objects.set(object.metadata.uid, made);
      tell(kind, type, made);
    },
    remove(kind: string, uid: string): void {
      const object = kinds.get(kind)?.get(uid);
      if (object === undefined) throw new Error(`no ${uid} to remove`);
      kinds.get(kind)?.delete(uid);
      version += 1;
      tell(kind, "DELETED", stamped(object));
    },
    bookmark(kind: string): void {
      version += 1;
      const object = { kind: "Bookmark", metadata: { resourceVersion: `${version}` } };
      for (const watcher of watchers)
        if (watcher.kind === kind)
          watcher.response.write(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
    },
    /** A line as it is, to all who watch the kind. */
    say(kind: string, text: string): void {
      for (const watcher of watchers) if (watcher.kind === kind) watcher.response.write(text);
    },
    /** What was said until now cannot be watched from any more. */
    forget(): void {
      version += 1;
      oldest = version;
    },
    closeWatches(): void {
      for (const watcher of watchers) watcher.response.end();
    },
    cutWatches(): void {
      for (const watcher of watchers) watcher.response.destroy();
    },
    setMood(next: Mood): void {
      mood = next;
    },
    version: () => `${version}`,
    async close(): Promise<void> {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

export const PODS = "/api/v1/pods";
export const NODES = "/api/v1/nodes";

/** A pod as the API server has it, bound to a node and without an address unless it is said. */
export function podObject(
  name: string,
  parts: {
    readonly uid?: string;
    readonly namespace?: string;
    readonly ip?: string;
    readonly phase?: string;
    readonly hostNetwork?: boolean;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly deleted?: boolean;
  } = {},
): KubeObject {
  return {
    metadata: {
      name,
      uid: parts.uid ?? `uid-${name}`,
      namespace: parts.namespace ?? "default",
      annotations: parts.annotations ?? {},
      ...(parts.deleted === true ? { deletionTimestamp: "2026-11-01T00:00:00Z" } : {}),
    },
    spec: { nodeName: "n1", hostNetwork: parts.hostNetwork ?? false },
    status: {
      phase: parts.phase ?? "Pending",
      ...(parts.ip === undefined ? {} : { podIP: parts.ip, podIPs: [{ ip: parts.ip }] }),
    },
  };
}

export function nodeObject(
  parts: {
    readonly uid?: string;
    readonly unschedulable?: boolean;
    readonly labels?: Readonly<Record<string, string>>;
    readonly pods?: string;
  } = {},
): KubeObject {
  return {
    metadata: { name: "n1", uid: parts.uid ?? "uid-n1", labels: parts.labels ?? {} },
    spec: parts.unschedulable === true ? { unschedulable: true } : {},
    status: { capacity: { pods: parts.pods ?? "29" } },
  };
}
