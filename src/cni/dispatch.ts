/**
 * From a request frame to an answer: reads it, gives it its turn (operations-by-key) and its place (workers), calls the handler,
 * and prints what came of it. Knows CNI, and nothing of plumbing or EC2.
 */
import { sandboxId, type PodName, type SandboxKey } from "../core/model/sandbox.ts";
import type { NodeError } from "../core/model/error.ts";
import { err, type Result } from "../lib/result.ts";
import { after, type Instant } from "../lib/time.ts";
import { CNI_CODE, cniErrorOf, printCniError, type CniError, type Verb } from "./errors.ts";
import {
  parseCniArgs,
  parseNetworkConfig,
  parseNetworkIdentity,
  parseSandboxKey,
  podNameOf,
  refusedWishes,
  type NetworkConfig,
  type PrevResult,
} from "./netconf.ts";
import { OperationsByKey, type StopReason } from "./operations-by-key.ts";
import { printResult, type Attached } from "./result.ts";
import type { AnswerFrame, FieldName, RequestFrame } from "./wire.ts";
import { Workers } from "./workers.ts";

type Common = {
  readonly config: NetworkConfig;
  readonly requestId: string;
  readonly deadline: Instant;
  readonly trace: { readonly parent: string; readonly state: string; readonly baggage: string }; // Empty where the runtime traces nothing.
};
export type SandboxRequest = Common & {
  readonly key: SandboxKey;
  readonly netnsPath: string; // May be empty for DEL.
  readonly pod: PodName | null;
};
export type GcRequest = Common & { readonly network: string; readonly alive: readonly SandboxKey[] };

/** An ADD's place among the workers. It is given back while the ADD waits for an address, and taken again to go on. */
export type Place = { readonly leave: () => void; readonly take: () => Promise<void> };

export type Handlers = {
  /** Undoes everything on failure. `signal` is aborted with a StopReason; a rolled-back ADD answers `cancelled`. */
  readonly add: (
    request: SandboxRequest,
    signal: AbortSignal,
    place: Place,
  ) => Promise<Result<Attached, NodeError>>;
  /** `settled` ends, well or not, when the sandbox's link is gone: the answer does not wait for it, the next ADD of the key does. */
  readonly del: (
    request: Pick<SandboxRequest, "key" | "requestId">,
  ) => Promise<Result<{ readonly settled: Promise<unknown> }, NodeError>>;
  readonly check: (request: SandboxRequest, previous: PrevResult) => Promise<Result<null, NodeError>>;
  readonly status: () => Promise<Result<null, NodeError>>;
  readonly gc: (request: GcRequest) => Promise<Result<unknown, NodeError>>;
};

/** Facts for logs and counters. `code` is 0 for success; `queuedMs` is the time before the handler was called. */
export type CniEvent =
  | {
      readonly kind: "request";
      readonly verb: string;
      readonly sandbox: SandboxKey | null;
      readonly pod: PodName | null;
      readonly requestId: string;
      readonly outcome: "done" | "failed" | "again";
      readonly code: number;
      readonly message: string; // Empty unless it failed.
      readonly durationMs: number;
    }
  | {
      readonly kind: "dropped";
      readonly reason:
        | "silent"
        | "stranger"
        | "garbage"
        | "full"
        | "malformed"
        | "too-long"
        | "wrong-version";
    }
  | { readonly kind: "heartbeat-failed"; readonly detail: string };

/** The connection behind a request. `stop` is aborted by it with "shim-gone" or "daemon-goes". */
export type Caller = { readonly arrival: number; readonly stop: AbortController };

/** "again": the daemon goes and has done nothing. */
type Outcome =
  | { readonly ok: true; readonly stdout: string }
  | { readonly ok: false; readonly error: CniError }
  | "again";
type Fields = Readonly<Record<FieldName, string>>;

const DONE: Outcome = { ok: true, stdout: "" };

export class Dispatcher {
  readonly #handlers: Handlers;
  readonly #now: () => Instant;
  readonly #onEvent: (event: CniEvent) => void;
  readonly #operations = new OperationsByKey();
  readonly #adds: Workers;
  readonly #others: Workers; // Apart, so that no number of ADDs delays a DEL.
  #arrivals = 0;
  #closing = false;

  constructor(options: {
    readonly handlers: Handlers;
    readonly now: () => Instant;
    readonly onEvent: (event: CniEvent) => void;
    readonly workerCount: number;
  }) {
    this.#handlers = options.handlers;
    this.#now = options.now;
    this.#onEvent = options.onEvent;
    this.#adds = new Workers(options.workerCount);
    this.#others = new Workers(options.workerCount);
  }

  /** The number of a new connection. */
  arrive(): number {
    this.#arrivals += 1;
    return this.#arrivals;
  }

  /** A DEL that no shim waits for, in its sandbox's turn like any other. */
  async delete(key: SandboxKey): Promise<Result<unknown, NodeError>> {
    return await this.#operations.del(sandboxId(key), this.arrive(), async () => {
      const answer = await this.#handlers.del({ key, requestId: "journal" });
      return { answer, settled: answer.ok ? answer.value.settled : Promise.resolve() };
    });
  }

  /** From here on nothing but DELs is begun. */
  close(): void {
    this.#closing = true;
  }

  async serve(frame: RequestFrame, caller: Caller): Promise<AnswerFrame> {
    const began = this.#now();
    const fields = textsOf(frame.fields);
    const parse = fields.CNI_COMMAND === "DEL" ? parseNetworkIdentity : parseNetworkConfig;
    const config = parse(fields.stdin);
    const outcome = config.ok ? await this.#perform(fields, frame, config.value, caller) : config;
    this.#tell(fields, frame.id, config.ok ? config.value.name : "", outcome, this.#now() - began);
    if (outcome === "again") return { kind: "again" };
    const stdout = outcome.ok
      ? outcome.stdout
      : printCniError(outcome.error, config.ok ? config.value.cniVersion : null);
    return { kind: "done", exitCode: outcome.ok ? 0 : 1, stdout: new TextEncoder().encode(stdout) };
  }

  async #perform(
    fields: Fields,
    frame: RequestFrame,
    config: NetworkConfig,
    caller: Caller,
  ): Promise<Outcome> {
    const common = {
      config,
      requestId: frame.id,
      deadline: after(this.#now(), frame.deadlineMs),
      trace: { parent: fields.TRACEPARENT, state: fields.TRACESTATE, baggage: fields.BAGGAGE },
    };
    switch (fields.CNI_COMMAND) {
      case "STATUS":
        return this.#closing ? "again" : outcomeOf(await this.#handlers.status(), "STATUS");
      case "GC":
        return await this.#gc(common);
      case "ADD":
      case "DEL":
      case "CHECK": {
        const key = parseSandboxKey(config.name, fields.CNI_CONTAINERID, fields.CNI_IFNAME);
        if (!key.ok) return key;
        const pod = podNameOf(parseCniArgs(fields.CNI_ARGS));
        const request: SandboxRequest = { ...common, key: key.value, netnsPath: fields.CNI_NETNS, pod };
        if (fields.CNI_COMMAND === "DEL") return await this.#del(request, caller);
        if (fields.CNI_COMMAND === "CHECK") return await this.#check(request);
        const wish = refusedWishes(config, parseCniArgs(fields.CNI_ARGS));
        return wish === null ? await this.#add(request, caller) : err(wish);
      }
      default:
        return err({
          code: CNI_CODE.environment,
          message: "CNI_COMMAND is unknown",
          details: fields.CNI_COMMAND,
        });
    }
  }

  async #add(request: SandboxRequest, caller: Caller): Promise<Outcome> {
    const { stop } = caller;
    const key = sandboxId(request.key);
    const call = { key, id: request.requestId, arrival: caller.arrival, stop };
    const outcome = await this.#operations.add(call, () =>
      this.#atWork(this.#adds, request.deadline, async (place) => {
        const added = await this.#handlers.add(request, stop.signal, place);
        if (!added.ok)
          return stopped(stop) === "daemon-goes" && added.error.code === "cancelled"
            ? "again"
            : failed(added.error, "ADD");
        if (stopped(stop) !== "shim-gone")
          return { ok: true, stdout: printResult(added.value, request.config) };
        // It was finished when its shim was already dead: nobody can be told, so nothing may stay.
        const undone = await this.#handlers.del(request);
        if (undone.ok) await undone.value.settled;
        return failed({ code: "cancelled", detail: "the plugin's process ended before its answer" }, "ADD");
      }),
    );
    if (outcome !== null) return outcome;
    if (stopped(stop) === "daemon-goes") return "again";
    return failed(
      { code: "cancelled", detail: "a DEL for the same sandbox came, or the plugin's process ended" },
      "ADD",
    );
  }

  async #del(request: SandboxRequest, caller: Caller): Promise<Outcome> {
    return await this.#operations.del(sandboxId(request.key), caller.arrival, async () => {
      let settled: Promise<unknown> = Promise.resolve();
      const answer = await this.#atWork(this.#others, request.deadline, async () => {
        const deleted = await this.#handlers.del(request);
        if (deleted.ok) settled = deleted.value.settled;
        return outcomeOf(deleted, "DEL");
      });
      return { answer, settled };
    });
  }

  async #check(request: SandboxRequest): Promise<Outcome> {
    const previous = request.config.prevResult;
    if (previous === null) {
      const message = "CHECK needs prevResult in the network configuration, and the runtime sent none";
      return err({ code: CNI_CODE.config, message, details: "" });
    }
    return await this.#operations.other(sandboxId(request.key), async () =>
      this.#closing
        ? "again"
        : await this.#atWork(this.#others, request.deadline, async () =>
            outcomeOf(await this.#handlers.check(request, previous), "CHECK"),
          ),
    );
  }

  async #gc(common: Common): Promise<Outcome> {
    if (this.#closing) return "again";
    const network = common.config.name;
    const alive: SandboxKey[] = [];
    for (const { containerId, ifName } of common.config.alive) {
      const key = parseSandboxKey(network, containerId, ifName);
      if (!key.ok) return key; // A list that is read wrong must free nothing.
      alive.push(key.value);
    }
    return await this.#atWork(this.#others, common.deadline, async () =>
      outcomeOf(await this.#handlers.gc({ ...common, network, alive }), "GC"),
    );
  }

  /** Runs at one of the places; what came too late is not begun. */
  async #atWork(
    workers: Workers,
    deadline: Instant,
    work: (place: Place) => Promise<Outcome>,
  ): Promise<Outcome> {
    await workers.take();
    let seated = true;
    const place: Place = {
      leave: () => {
        if (seated) workers.release();
        seated = false;
      },
      take: async () => {
        if (!seated) await workers.take();
        seated = true;
      },
    };
    try {
      if (this.#now() < deadline) return await work(place);
      const message = "the node was too busy to begin this in time; the runtime may try again";
      return err({ code: CNI_CODE.tryAgain, message, details: `${workers.waitingCount} more are waiting` });
    } finally {
      place.leave();
    }
  }

  #tell(fields: Fields, requestId: string, network: string, outcome: Outcome, durationMs: number): void {
    const { CNI_CONTAINERID: containerId, CNI_IFNAME: ifName } = fields;
    const error = outcome === "again" || outcome.ok ? null : outcome.error;
    this.#onEvent({
      kind: "request",
      verb: fields.CNI_COMMAND,
      sandbox: containerId === "" ? null : { network, containerId, ifName },
      pod: podNameOf(parseCniArgs(fields.CNI_ARGS)),
      requestId,
      outcome: outcome === "again" ? "again" : error === null ? "done" : "failed",
      code: error?.code ?? 0,
      message: error === null ? "" : `${error.message}; ${error.details}`,
      durationMs,
    });
  }
}

function stopped(stop: AbortController): StopReason | null {
  return stop.signal.aborted ? (stop.signal.reason as StopReason) : null; // Every abort of it gives one.
}

function failed(error: NodeError, verb: Verb): Outcome {
  return { ok: false, error: cniErrorOf(error, verb) };
}

function outcomeOf(result: Result<unknown, NodeError>, verb: Verb): Outcome {
  return result.ok ? DONE : failed(result.error, verb);
}

/** Bytes that are not UTF-8 become U+FFFD, as in Go's JSON; what must be exact is checked afterwards. */
function textsOf(fields: RequestFrame["fields"]): Fields {
  const decoder = new TextDecoder();
  const entries = Object.entries(fields).map(([name, bytes]) => [name, decoder.decode(bytes)]);
  return Object.fromEntries(entries) as Fields; // The same keys.
}
