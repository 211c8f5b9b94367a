/**
 * Keeps a picture of one kind of object: list, watch from there, resume where the watch ended, list again when the server no longer knows
 * that place. What was seen last stays while the server is away. A line that cannot be read is counted, and the picture is made anew,
 * since nobody can say what the line would have told.
 */
import { backoffMs, MINUTE_MS, SECOND_MS } from "../lib/time.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { KubeClient } from "./client.ts";
import { decodeEvent, decodeList, decodeStatus, uidOf, versionOf } from "./decode.ts";
import type { KubeError } from "./errors.ts";

export type Resource<T> = {
  readonly name: string; // For logs and metrics: "pods".
  readonly path: string; // "/api/v1/pods"
  readonly query: Readonly<Record<string, string>>; // Selectors.
  readonly decode: (object: unknown) => T | null;
};

export type InformerPorts = {
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly random: () => number; // In [0, 1).
  readonly now: () => number; // Monotonic milliseconds.
  readonly onUnreadable: (resource: string, detail: string) => void;
  /** Each list or watch that failed, and each list that worked. */
  readonly onOutcome: (resource: string, outcome: "listed" | KubeError) => void;
};

/** Objects that are remembered; a node has some hundred pods. */
const ITEMS_MAX = 10_000;
/** Of one page, when the whole list is too large. */
const PAGE_ITEMS = 250;
const PAGES_MAX = 100;
/** The server ends a watch after this long, and up to as much again, so that nodes do not come back together. */
const WATCH_SECONDS = 240;
const FAILED = { baseMs: SECOND_MS, maxMs: MINUTE_MS };
/** A watch that ended as watches do. Those of a server that ends them at once are asked for less and less often. */
const ENDED = { baseMs: 200, maxMs: 5 * SECOND_MS };
/** A watch that lived this long begins anew without a record. */
const LIVED_MS = 10 * SECOND_MS;
/** A kind that the server does not have may be installed some day. */
const ABSENT_MS = 5 * MINUTE_MS;

/** Until `signal` is aborted. `onChange` gets the whole picture, by uid, whenever it may have changed; it must not keep the map's identity. */
export async function keepInformed<T>(
  client: KubeClient,
  resource: Resource<T>,
  ports: InformerPorts,
  onChange: (items: ReadonlyMap<string, T>) => void,
  signal: AbortSignal,
): Promise<void> {
  let items = new Map<string, T>();
  let version: string | null = null; // Null: list first.
  let lastVersion: string | null = null; // Never go back behind what was seen.
  let attempt = 0;
  const pause = async (options: { baseMs: number; maxMs: number }, leastMs = 0): Promise<void> => {
    const waitMs = Math.max(leastMs, backoffMs(attempt, ports.random(), options));
    attempt += 1;
    await ports.sleep(waitMs, signal);
  };

  while (!signal.aborted) {
    if (version === null) {
      const listed: Result<Listed<T>, KubeError> = await list(client, resource, ports, lastVersion, signal);
      if (signal.aborted) return;
      if (!listed.ok) {
        ports.onOutcome(resource.name, listed.error);
        if (listed.error.kind === "expired") lastVersion = null;
        if (listed.error.kind === "not-found") await ports.sleep(ABSENT_MS * (1 + ports.random()), signal);
        else await pause(FAILED, listed.error.kind === "throttled" ? (listed.error.waitMs ?? 0) : 0);
        continue;
      }
      ({ items, version } = listed.value);
      lastVersion = version;
      ports.onOutcome(resource.name, "listed");
      onChange(items);
    }
    const began = ports.now();
    const watched: Watched = await watch(client, resource, ports, version, items, onChange, signal);
    if (signal.aborted) return;
    ({ version, lastVersion } = { version: watched.version, lastVersion: watched.version ?? lastVersion });
    if (ports.now() - began >= LIVED_MS) attempt = 0;
    if (watched.error === null) await pause(ENDED);
    else {
      ports.onOutcome(resource.name, watched.error);
      await pause(FAILED, watched.error.kind === "throttled" ? (watched.error.waitMs ?? 0) : 0);
    }
  }
}

type Listed<T> = { readonly items: Map<string, T>; readonly version: string };

/**
 * From the server's cache, at least as new as what was seen: thousands of nodes that list at once must not all read through to etcd.
 * A list that is too large for one answer is read page by page, which only a read through to etcd offers.
 */
async function list<T>(
  client: KubeClient,
  resource: Resource<T>,
  ports: InformerPorts,
  lastVersion: string | null,
  signal: AbortSignal,
): Promise<Result<Listed<T>, KubeError>> {
  const whole = await client.ask(
    { method: "GET", path: pathOf(resource, { resourceVersion: lastVersion ?? "0" }) },
    signal,
  );
  if (!whole.ok && whole.error.kind !== "too-large") return whole;
  const items = new Map<string, T>();
  let page = whole;
  let next: string | null = null;
  for (let pages = 0; pages < PAGES_MAX; pages += 1) {
    if (!page.ok || next !== null) {
      const query = { limit: `${PAGE_ITEMS}`, ...(next === null ? {} : { continue: next }) };
      page = await client.ask({ method: "GET", path: pathOf(resource, query) }, signal);
      if (!page.ok) return page;
    }
    const decoded = decodeList(page.value);
    if (decoded === null) {
      ports.onUnreadable(resource.name, "the answer is no list");
      return err({ kind: "unreadable", detail: "the answer is no list" });
    }
    for (const object of decoded.items) take(resource, ports, items, object);
    next = decoded.next;
    if (next === null) return ok({ items, version: decoded.version });
  }
  return err({ kind: "too-large", detail: `over ${PAGES_MAX} pages` });
}

type Watched = {
  readonly version: string | null; // Where to go on; null: list again.
  readonly error: KubeError | null;
};

async function watch<T>(
  client: KubeClient,
  resource: Resource<T>,
  ports: InformerPorts,
  from: string,
  items: Map<string, T>,
  onChange: (items: ReadonlyMap<string, T>) => void,
  signal: AbortSignal,
): Promise<Watched> {
  const seen: { version: string | null; error: KubeError | null } = { version: from, error: null };
  const stop = new AbortController();
  const seconds = Math.round(WATCH_SECONDS * (1 + ports.random()));
  // The server ends it; should it not, we do.
  const limit = AbortSignal.timeout((seconds + 60) * SECOND_MS);
  const listAgain = (error: KubeError): void => {
    ({ version: seen.version, error: seen.error } = { version: null, error });
    stop.abort();
  };
  const unreadable = (detail: string): void => {
    ports.onUnreadable(resource.name, detail);
    listAgain({ kind: "unreadable", detail });
  };
  const onLine = (line: string): void => {
    if (stop.signal.aborted) return;
    const event = decodeEvent(line);
    if (event === null) return unreadable(line.slice(0, 100));
    if (event.type === "ERROR") {
      const { code, message } = decodeStatus(event.object);
      return listAgain(
        code === 410
          ? { kind: "expired", detail: message }
          : { kind: "refused", status: code, detail: message },
      );
    }
    const version = versionOf(event.object);
    if (version === null) return unreadable(`an event ${event.type} without a version`);
    if (event.type === "ADDED" || event.type === "MODIFIED") {
      if (take(resource, ports, items, event.object)) onChange(items);
    } else if (event.type === "DELETED") {
      if (items.delete(uidOf(event.object) ?? "")) onChange(items);
    } else if (event.type !== "BOOKMARK") return unreadable(`an event of type ${event.type.slice(0, 40)}`);
    seen.version = version;
  };
  const query = {
    watch: "1",
    allowWatchBookmarks: "true",
    resourceVersion: from,
    timeoutSeconds: `${seconds}`,
  };
  const all = AbortSignal.any([signal, stop.signal, limit]);
  const ended = await client.watch(pathOf(resource, query), onLine, all);
  if (seen.error !== null || ended.ok) return seen;
  // Told by the answer's status rather than by an event.
  return ended.error.kind === "expired"
    ? { version: null, error: ended.error }
    : { ...seen, error: ended.error };
}

/** False when the object is none; that is counted, and the rest of the picture stands. */
function take<T>(
  resource: Resource<T>,
  ports: InformerPorts,
  items: Map<string, T>,
  object: unknown,
): boolean {
  const uid = uidOf(object);
  const decoded = uid === null ? null : resource.decode(object);
  if (uid === null || decoded === null) {
    ports.onUnreadable(resource.name, "an object without what makes it one");
    return false;
  }
  if (items.size >= ITEMS_MAX && !items.has(uid)) {
    ports.onUnreadable(resource.name, `more than ${ITEMS_MAX} objects`);
    return false;
  }
  items.set(uid, decoded);
  return true;
}

function pathOf<T>(resource: Resource<T>, query: Readonly<Record<string, string>>): string {
  return `${resource.path}?${new URLSearchParams({ ...resource.query, ...query }).toString()}`;
}
