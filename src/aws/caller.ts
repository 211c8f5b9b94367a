/**
 * One EC2 call from its first token to its last retry: pace, credentials, a deadline, the SDK, the answer's shape, the failure's kind.
 * What is asked and how answers are read is ec2-client.ts's business.
 */
import type { EC2Client } from "@aws-sdk/client-ec2";
import type { Ec2Failure, Ec2FailureKind } from "../core/model/ec2.ts";
import type { Random } from "../lib/random.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { Instant } from "../lib/time.ts";
import type { Credentials, CredentialsFailure } from "./credentials.ts";
import type { Decoded } from "./decode.ts";
import { type Asked, mayBeStaleCredentials, sortFailure, type Trouble } from "./errors.ts";
import { type Ec2Operation, operationRow } from "./operations.ts";
import { type Pacer, waitBeforeRetry } from "./pace.ts";
import type * as Sdk from "./sdk.ts";
import type { Sender, Trace } from "./sender.ts";

/** One request and what came of it, for metrics and logs. A call that was retried gives one for each attempt. */
export type Ec2CallSeen = {
  readonly operation: Ec2Operation;
  readonly outcome: "ok" | Ec2FailureKind;
  readonly code: string | null;
  readonly durationMs: number;
  readonly requestId: string | null;
  readonly attempt: number;
};

export type Call<T> = {
  readonly operation: Ec2Operation;
  readonly asked?: Asked;
  /** EC2 knows a repetition when it sees one: the request carries a ClientToken. */
  readonly repeatable?: boolean;
  readonly send: (
    sdk: typeof Sdk,
    client: EC2Client,
    options: { abortSignal: AbortSignal },
  ) => Promise<unknown>;
  readonly decode: (answer: unknown) => Decoded<T>;
};

export type CallerOptions = {
  readonly client: () => Promise<{ readonly sdk: typeof Sdk; readonly client: EC2Client }>;
  readonly sender: Sender;
  readonly credentials: Credentials;
  readonly pacer: Pacer;
  readonly random: Random;
  readonly now: () => Instant;
  readonly sleep: (ms: number) => Promise<void>;
  readonly requestTimeoutMs: number; // One attempt.
  readonly callDeadlineMs: number; // The whole call: its turn, its attempts, the waits between.
  readonly onCall: (seen: Ec2CallSeen) => void;
};

export type Caller = <T>(call: Call<T>) => Promise<Result<T, Ec2Failure>>;

export function createCaller(options: CallerOptions): Caller {
  const { now, pacer } = options;
  return async (call) => {
    const deadline = now() + options.callDeadlineMs;
    let refreshed = false;
    for (let attempt = 0; ; attempt += 1) {
      const waitMs = pacer.take(call.operation, now(), deadline - now());
      if (waitMs === null) return err(outOfPace(call.operation));
      if (waitMs > 0) await options.sleep(waitMs);
      const began = now();
      const trace: { value: Trace | null } = { value: null };
      const result = await attemptOnce(
        options,
        call,
        // Whole milliseconds: timers take no others, and our clock has fractions.
        Math.max(1, Math.floor(Math.min(options.requestTimeoutMs, deadline - began))),
        trace,
      );
      const failure = result.ok ? null : result.error;
      options.onCall({
        operation: call.operation,
        outcome: failure?.kind ?? "ok",
        code: failure?.code ?? null,
        durationMs: now() - began,
        requestId: failure?.requestId ?? trace.value?.requestId ?? null,
        attempt,
      });
      if (failure === null) {
        pacer.answered(call.operation, now());
        return result;
      }
      if (failure.kind === "throttled") pacer.throttled(call.operation, now());
      if (mayBeStaleCredentials(failure) && !refreshed) {
        refreshed = true;
        options.credentials.distrust();
        continue;
      }
      const question = {
        failure,
        attempt,
        sent: trace.value?.sent ?? false,
        repeatable: call.repeatable === true || !operationRow(call.operation).mutating,
      };
      const pauseMs = waitBeforeRetry(question, options.random);
      if (pauseMs === null || now() + pauseMs >= deadline) return result;
      await options.sleep(pauseMs);
    }
  };
}

async function attemptOnce<T>(
  options: CallerOptions,
  call: Call<T>,
  timeoutMs: number,
  seen: { value: Trace | null },
): Promise<Result<T, Ec2Failure>> {
  const { operation, asked = "other" } = call;
  // Before the SDK is asked, so that a source that is away is told apart from an EC2 that is.
  const credentials = await options.credentials.current();
  if (!credentials.ok) return err(withoutCredentials(operation, credentials.error));
  const signal = AbortSignal.timeout(timeoutMs);
  const trace = options.sender.trace(signal);
  seen.value = trace;
  const trouble = (symptom: string, message: string): { readonly ok: false; readonly error: Ec2Failure } =>
    err(
      sortFailure({
        operation,
        asked,
        sent: trace.sent,
        status: trace.status,
        symptom,
        message,
        ...answered(trace),
      }),
    );
  try {
    const sending = async (): Promise<unknown> => {
      const { sdk, client } = await options.client();
      return call.send(sdk, client, { abortSignal: signal });
    };
    const answer = await orAborted(sending(), signal);
    if (!isWhole(trace, operation)) return trouble("UnreadableAnswer", `not a whole ${operation}Response`);
    const decoded = call.decode(answer);
    if (!decoded.ok) return trouble("AbsurdAnswer", `${decoded.error.path} ${decoded.error.problem}`);
    return ok(decoded.value);
  } catch (error) {
    if (signal.aborted && trace.body === null) return trouble("Timeout", `no answer within ${timeoutMs} ms`);
    return trouble(symptomOf(error, trace), messageOf(error));
  }
}

/** EC2's code and request id, read off the answer's own text: whatever the SDK makes of a page that is no EC2 error, this sees none. */
function answered(trace: Trace): Pick<Trouble, "code" | "requestId"> {
  const text =
    trace.body !== null && (trace.status ?? 0) >= 300 ? trace.body.toString("utf8", 0, 16_384) : "";
  return {
    code: /<Code>([A-Za-z][A-Za-z0-9._]{1,100})<\/Code>/.exec(text)?.[1] ?? null,
    requestId:
      trace.requestId ?? /<RequestI[dD]>([0-9A-Za-z-]{1,64})<\/RequestI[dD]>/.exec(text)?.[1] ?? null,
  };
}

/** The SDK takes any XML for an empty answer, and an empty answer for a success: a proxy's page, or half an answer, would pass. */
function isWhole(trace: Trace, operation: Ec2Operation): boolean {
  if (trace.body === null) return false;
  const head = trace.body.toString("utf8", 0, 512);
  const tail = trace.body.toString("utf8", Math.max(0, trace.body.length - 128));
  return (
    new RegExp(`<${operation}Response[\\s>]`).test(head) && tail.trimEnd().endsWith(`</${operation}Response>`)
  );
}

function symptomOf(error: unknown, trace: Trace): string {
  const code: unknown = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  if (code === "ECONNRESET" || code === "EPIPE") return trace.sent ? "ConnectionReset" : "ConnectionRefused";
  if (code === "ECONNREFUSED") return "ConnectionRefused";
  if (typeof code === "string" && code !== "") return code;
  return trace.body === null ? "NoAnswer" : "UnreadableAnswer";
}

function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/\n\s*Deserialization error: to see the raw response.*/s, "");
}

function outOfPace(operation: Ec2Operation): Ec2Failure {
  const message = "this node's own pace leaves no room for the call before its deadline";
  return { kind: "throttled", operation, code: "PacedByNode", message, requestId: null };
}

function withoutCredentials(operation: Ec2Operation, failure: CredentialsFailure): Ec2Failure {
  return {
    kind: failure.kind === "refused" ? "denied" : "failing",
    operation,
    code: failure.kind === "refused" ? "CredentialsRefused" : "CredentialsUnavailable",
    message: `credentials from ${failure.source}: ${failure.detail}`,
    requestId: null,
  };
}

/** The SDK looks at the signal only while its request runs; this looks all the time. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(new Error("aborted"));
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    promise.catch(() => {});
    work.catch(() => {});
  }
}
