/**
 * The emulator without HTTP: takes calls, makes them wait, fail and commit in order, lets attachments settle, and shows describes and IMDS a
 * world of some moments ago. Time and chance are handed in, so a simulator can drive it in virtual time.
 */
import { assert } from "../lib/assert.ts";
import { type Random, seededRandom } from "../lib/random.ts";
import type { Result } from "../lib/result.ts";
import { after, type Instant, type WallTime, wallTime } from "../lib/time.ts";
import { createCredentials, type Credentials } from "./credentials.ts";
import { eventsBetween, type EmulatorEvent, linkUpEvent } from "./events.ts";
import type { XmlObject } from "./ec2-xml.ts";
import {
  authFailure,
  dryRunOperation,
  type Failure,
  internalError,
  invalidAction,
  missingAuthentication,
  notEmulated,
  requestExpired,
  requestLimitExceeded,
  unauthorized,
  unavailable,
  unknownParameter,
} from "./failures.ts";
import {
  type CallFault,
  type Fault,
  faultAdded,
  faultOfCall,
  faultOfProcess,
  type FaultScript,
  isCallFault,
  isProcessFault,
  NO_FAULTS,
  type ProcessFault,
} from "./faults.ts";
import {
  answerImds,
  type ImdsPolicy,
  type ImdsReply,
  type ImdsRequest,
  metadataTree,
  type MetadataTree,
} from "./imds.ts";
import { count, notePeaks, noCounts, printMetrics } from "./metrics.ts";
import type { Done, Later, Operation, Quotas } from "./operations/operation.ts";
import { OPERATIONS } from "./operations/table.ts";
import { truth } from "./parameters.ts";
import { createSeeder, type Seeder } from "./seeder.ts";
import type { HandOutOrder } from "./subnet-space.ts";
import { drawMs, type Process, type Profile } from "./timings.ts";
import { bucketFor, fullBucket, takeToken, type TokenBucket } from "./token-bucket.ts";
import { createViews } from "./views.ts";
import { applyWorldFault } from "./world-faults.ts";
import {
  emptyWorld,
  eniAttached,
  eniAvailable,
  eniDetached,
  instanceStateChanged,
  instanceTerminated,
  type World,
} from "./world.ts";

/** One clock for everything: real, or moved by a simulator. */
export type Clock = { readonly now: () => Instant; readonly sleep: (ms: number) => Promise<void> };

export type EngineOptions = {
  readonly clock: Clock;
  /** Wall time when the clock says 0. */
  readonly epoch: WallTime;
  readonly seed: string;
  readonly profile: Profile;
  readonly region: string;
  readonly accountId: string;
  readonly quotas: Quotas;
  readonly handOut: HandOutOrder;
  /** `any`: whoever signs is welcome. `issued`: only access keys that IMDS gave out, or that are listed. */
  readonly accessKeys: "any" | "issued" | readonly string[];
  readonly credentialsLifetimeMs: number;
  readonly imds: ImdsPolicy;
};

/** Who calls: what the signature and the headers say. */
export type Caller = { readonly accessKeyId: string | null; readonly userAgent: string };

export type CallRequest = {
  readonly action: string;
  readonly parameters: ReadonlyMap<string, string>;
  readonly caller: Caller;
};

/** `lost`: the connection is to be reset without a word. */
export type CallReply =
  | { readonly kind: "answer"; readonly requestId: string; readonly answer: XmlObject }
  | { readonly kind: "failure"; readonly requestId: string; readonly failure: Failure }
  | { readonly kind: "lost" };

export type Engine = {
  readonly call: (request: CallRequest) => Promise<CallReply>;
  readonly imds: (instanceId: string, request: ImdsRequest) => ImdsReply;
  /** The world as that instance's IMDS tells of it now, for those who need no HTTP. */
  readonly shownByImds: (instanceId: string) => World;
  /** Committed state, now. */
  readonly world: () => World;
  readonly fault: (fault: Fault) => void;
  /** Waiting call and process faults are forgotten. */
  readonly clearFaults: () => void;
  readonly onChange: (listener: (event: EmulatorEvent) => void) => () => void;
  readonly seed: Seeder;
  readonly metricsText: () => string;
  /** Calls by action, for tests and tables. */
  readonly callCounts: () => ReadonlyMap<string, number>;
  /** What is still to happen does not. */
  readonly close: () => void;
};

export function createEngine(options: EngineOptions): Engine {
  const { clock, profile } = options;
  const counters = noCounts();
  const randoms = new Map<string, Random>();
  const buckets = new Map<string, TokenBucket>();
  const tokens = new Map<string, Map<string, Instant>>();
  const listeners = new Set<(event: EmulatorEvent) => void>();
  /** Attachment whose link is up, by ENI. */
  const linksUp = new Map<string, string>();
  let script: FaultScript = NO_FAULTS;
  let closed = false;

  /** One source a node and action, so that a run is the same whatever the interleaving. */
  const randomFor = (...names: readonly string[]): Random => {
    const key = names.join("/");
    const found = randoms.get(key) ?? seededRandom(`${options.seed}/${key}`);
    randoms.set(key, found);
    return found;
  };
  const salt = Math.floor(randomFor("salt")() * 0x1_0000_0000) | 0;
  let world = emptyWorld({ accountId: options.accountId, region: options.region, salt });
  const wallNow = (): WallTime => wallTime(options.epoch + clock.now());
  const drawFor = (process: Process, subject: string): number =>
    drawMs(profile, process, randomFor(subject, process), "process");
  const views = createViews(
    { lags: profile.timings["describe-lag"] !== undefined, now: clock.now, lagMs: drawFor },
    () => world,
  );
  const credentials: Credentials = createCredentials({
    lifetimeMs: options.credentialsLifetimeMs,
    now: wallNow,
    randomFor,
  });

  function emit(event: EmulatorEvent): void {
    for (const listener of listeners) listener(event);
  }

  /** Runs `then` after `ms`, at once when there is nothing to wait for. */
  function schedule(ms: number, then: () => void): void {
    if (ms <= 0) return then();
    void clock.sleep(ms).then(() => {
      if (!closed) then();
    });
  }

  /** The only place where the world moves on. */
  function commit(next: World, by: "call" | "seed" = "call"): void {
    const before = world;
    if (next === before) return;
    world = next;
    notePeaks(counters, world);
    if (by === "seed") views.seeded(world);
    else views.committed(before, world);
    for (const event of eventsBetween(before, world)) {
      if (event.kind === "link-down" && linksUp.get(event.eniId) !== event.attachmentId) continue; // Gone before it was there.
      if (event.kind === "link-down") linksUp.delete(event.eniId);
      if (event.kind === "attachment-began")
        linkRises(event.eniId, event.attachmentId, event.instanceId, event.settled);
      else emit(event);
    }
  }

  function linkRises(eniId: string, attachmentId: string, instanceId: string, settled: boolean): void {
    // An ENI that an instance is launched with is there when the instance is.
    const linkUpMs = (): number =>
      processFault("slow-link", instanceId)?.forMs ?? drawFor("link-up", instanceId);
    schedule(settled ? 0 : linkUpMs(), () => {
      const eni = world.enis.get(eniId);
      if (eni?.attachment?.id !== attachmentId) return;
      linksUp.set(eniId, attachmentId);
      emit(linkUpEvent(world, eni, eni.attachment));
    });
  }

  function processFault(kind: ProcessFault["kind"], instanceId: string): ProcessFault | null {
    const [next, hit] = faultOfProcess(script, kind, instanceId);
    script = next;
    if (hit !== null) count(counters.faults, hit.kind);
    return hit;
  }

  /** What an answered call has set going. Each step looks again: the world may have moved on. */
  function follow(later: Later): void {
    switch (later.kind) {
      case "eni-available":
        return schedule(drawFor("eni-available", "region"), () => {
          if (world.enis.has(later.eniId)) commit(eniAvailable(world, later.eniId));
        });
      case "eni-attached":
        return schedule(drawFor("attached", instanceOf(later.eniId)), () => {
          const attachment = world.enis.get(later.eniId)?.attachment;
          if (attachment?.id === later.attachmentId && attachment.status === "attaching")
            commit(eniAttached(world, later.eniId));
        });
      case "eni-detached": {
        const stuck = later.force ? null : processFault("stuck-detaching", instanceOf(later.eniId));
        const waitMs = stuck?.forMs ?? (later.force ? 0 : drawFor("detached", instanceOf(later.eniId)));
        return schedule(waitMs, () => {
          if (world.enis.get(later.eniId)?.attachment?.id === later.attachmentId)
            commit(eniDetached(world, later.eniId));
        });
      }
      case "instance-running":
        return schedule(drawFor("instance-running", later.instanceId), () => {
          if (world.instances.get(later.instanceId)?.state === "pending")
            commit(instanceStateChanged(world, later.instanceId, "running"));
        });
      case "instance-terminated":
        return schedule(drawFor("instance-terminated", later.instanceId), () => {
          if (world.instances.get(later.instanceId)?.state === "shutting-down")
            commit(instanceTerminated(world, later.instanceId));
        });
    }
  }

  function instanceOf(eniId: string): string {
    return world.enis.get(eniId)?.attachment?.instanceId ?? "none";
  }

  /** The instance that calls, by its credentials or by an instance id in the user agent; else the access key itself. */
  function nodeOf(caller: Caller): string {
    const issuedTo = caller.accessKeyId === null ? null : credentials.ownerOf(caller.accessKeyId);
    return issuedTo ?? /\bi-[0-9a-f]{8,17}\b/.exec(caller.userAgent)?.[0] ?? caller.accessKeyId ?? "nobody";
  }

  function refusedAtTheDoor(request: CallRequest): Failure | null {
    const { accessKeyId } = request.caller;
    if (accessKeyId === null) return missingAuthentication();
    if (credentials.ownerOf(accessKeyId) !== null)
      return credentials.isOver(accessKeyId) ? requestExpired() : null;
    if (options.accessKeys === "any") return null;
    return options.accessKeys !== "issued" && options.accessKeys.includes(accessKeyId) ? null : authFailure();
  }

  function throttled(request: CallRequest, operation: Operation): boolean {
    if (profile.buckets === null) return false;
    const { name, size } = bucketFor(request.action, operation.effect, request.parameters);
    const share = profile.buckets.scale * (1 - profile.buckets.drained);
    const now = clock.now();
    const scaled = {
      capacity: Math.max(1, size.capacity * share),
      refillPerSecond: size.refillPerSecond * share,
    };
    const left = takeToken(buckets.get(name) ?? fullBucket(scaled, now), now);
    if (left !== null) buckets.set(name, left);
    return left === null;
  }

  async function call(request: CallRequest): Promise<CallReply> {
    const node = nodeOf(request.caller);
    const random = randomFor(node, request.action);
    const requestId = uuid(random);
    count(counters.calls, OPERATIONS.has(request.action) ? request.action : "unknown");
    const fail = (failure: Failure): CallReply => {
      count(
        counters.refusals,
        `${OPERATIONS.has(request.action) ? request.action : "unknown"} ${failure.code}`,
      );
      return { kind: "failure", requestId, failure };
    };
    const door = refusedAtTheDoor(request);
    if (door !== null) return fail(door);
    const operation = OPERATIONS.get(request.action);
    if (operation === undefined)
      return fail(invalidAction(request.action, request.parameters.get("Version") ?? ""));

    const [nextScript, hit] = faultOfCall(script, { action: request.action, node });
    script = nextScript;
    if (hit !== null) count(counters.faults, hit.kind);
    const latencyMs =
      drawMs(profile, request.action, random, "call") + (hit?.kind === "slow" ? hit.forMs : 0);
    if (hit?.kind === "hang") {
      await clock.sleep(hit.forMs);
      return { kind: "lost" };
    }
    if (hit?.kind === "throttle" || throttled(request, operation)) return fail(requestLimitExceeded());
    const scripted = hit?.kind === "error" ? failureOf(hit) : null;
    const unlucky = profile.errorChance > 0 && random() < profile.errorChance;
    const trouble = scripted ?? (unlucky ? (random() < 0.5 ? internalError() : unavailable()) : null);

    // The commit comes before the answer: a caller that gives up in between may have succeeded.
    if (latencyMs > 0) await clock.sleep(latencyMs * 0.8);
    if (trouble !== null) return fail(trouble);
    const outcome = perform(request, operation, node, random);
    if (latencyMs > 0) await clock.sleep(latencyMs * 0.2);
    if (hit?.kind === "lost-answer") return { kind: "lost" };
    return outcome.ok ? { kind: "answer", requestId, answer: outcome.value.answer } : fail(outcome.error);
  }

  function perform(
    request: CallRequest,
    operation: Operation,
    node: string,
    random: Random,
  ): Result<Done, Failure> {
    const { parameters } = request;
    const shape = checkNames(parameters, operation);
    if (!shape.ok) return shape;
    const dryRun = truth(parameters, "DryRun");
    if (!dryRun.ok) return dryRun;
    const seen = operation.effect === "read" ? views.describe(node) : world;
    const { quotas, handOut } = options;
    const outcome = operation.run({ parameters, world: seen, random, now: wallNow(), quotas, handOut });
    if (!outcome.ok) return outcome;
    if (dryRun.value === true) return { ok: false, error: dryRunOperation() };
    if (operation.effect === "read") return outcome;
    commit(outcome.value.world);
    for (const later of outcome.value.later) follow(later);
    return outcome;
  }

  function tree(instanceId: string): MetadataTree {
    const shown = views.imds(instanceId);
    const instance = shown.instances.get(instanceId);
    if (instance === undefined || instance.state === "terminated") return {};
    return metadataTree(shown, instance, instance.role === null ? null : credentials.current(instanceId));
  }

  function imds(instanceId: string, request: ImdsRequest): ImdsReply {
    const own = tokens.get(instanceId) ?? new Map<string, Instant>();
    tokens.set(instanceId, own);
    const makeToken = (): string => randomText(randomFor(instanceId, "imds-token"), 54);
    const reply = answerImds(request, {
      policy: options.imds,
      now: clock.now,
      makeToken,
      tokens: own,
      tree: () => tree(instanceId),
    });
    count(counters.imds, String(reply.status));
    return reply;
  }

  function fault(fault: Fault): void {
    if (isCallFault(fault) || isProcessFault(fault)) {
      script = faultAdded(script, fault);
      return;
    }
    count(counters.faults, fault.kind);
    if (fault.kind === "stale-imds")
      return views.freezeImds(fault.instanceId, after(clock.now(), fault.forMs));
    const done = applyWorldFault(world, fault, { random: randomFor("faults", fault.kind), now: wallNow() });
    commit(done.world);
    for (const later of done.later) follow(later);
  }

  return {
    call,
    imds,
    shownByImds: (instanceId) => views.imds(instanceId),
    world: () => world,
    fault,
    clearFaults: () => {
      script = NO_FAULTS;
    },
    onChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    seed: createSeeder({
      world: () => world,
      commit: (next) => commit(next, "seed"),
      random: randomFor("seed"),
      now: wallNow,
      handOut: options.handOut,
    }),
    metricsText: () => printMetrics(counters, world, buckets, clock.now()),
    callCounts: () => new Map(counters.calls),
    close: () => {
      closed = true;
    },
  };
}

const COMMON_PARAMETERS = new Set(["Action", "Version", "DryRun"]);

function checkNames(parameters: ReadonlyMap<string, string>, operation: Operation): Result<null, Failure> {
  for (const name of parameters.keys()) {
    const first = name.split(".")[0] ?? "";
    if (COMMON_PARAMETERS.has(name) || operation.parameters.includes(first)) continue;
    return {
      ok: false,
      error: operation.notEmulated.includes(first) ? notEmulated(first) : unknownParameter(name),
    };
  }
  return { ok: true, value: null };
}

function failureOf(fault: CallFault & { kind: "error" }): Failure {
  const known = [
    internalError(),
    unavailable(),
    requestLimitExceeded(),
    unauthorized(),
    authFailure(),
    requestExpired(),
  ];
  const usual = known.find(({ code }) => code === fault.code);
  return {
    code: fault.code,
    status: fault.status ?? usual?.status ?? 400,
    message: fault.message ?? usual?.message ?? "The emulator was told to refuse this call.",
  };
}

function uuid(random: Random): string {
  const hex = Array.from({ length: 32 }, (_, index) =>
    index === 12 ? "4" : Math.floor(random() * 16).toString(16),
  ).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Base64-like text, as IMDS tokens are. */
function randomText(random: Random, length: number): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const text = Array.from({ length }, () => alphabet[Math.floor(random() * alphabet.length)]).join("");
  assert(text.length === length, "a token is as long as asked");
  return `${text}==`;
}
