/**
 * Where the node's credentials come from, and their rotation. The source is chosen once, by what the environment names, in the SDK's
 * order: environment, web identity, pod identity (or another container agent), instance role. There is no shared profile on a node.
 */
import { readFile } from "node:fs/promises";
import { createSecureContext, getCACertificates } from "node:tls";
import { err, ok, type Result } from "../lib/result.ts";
import { smallRequest } from "./bounded-get.ts";
import type { AwsEnvironment, Environment } from "./environment.ts";
import type { ImdsEdge } from "./imds.ts";
import type { RequestHandler } from "./sender.ts";

export type AwsCredentials = {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly expiration?: Date;
};

/** `refused`: the source answered and said no. `unavailable`: it did not answer, or not with credentials. Nothing secret is in `detail`. */
export type CredentialsFailure = {
  readonly kind: "refused" | "unavailable";
  readonly source: CredentialsSource;
  readonly detail: string;
};
export type CredentialsSource = "environment" | "web-identity" | "container" | "instance-role";

export type Credentials = {
  readonly source: CredentialsSource;
  readonly current: () => Promise<Result<AwsCredentials, CredentialsFailure>>;
  /** AWS said that these are no longer good: the next `current` asks the source anew. */
  readonly distrust: () => void;
};

export type CredentialsOptions = {
  readonly environment: Environment;
  readonly aws: AwsEnvironment;
  readonly imds: ImdsEdge;
  readonly handler: RequestHandler; // For STS: proxies and certificates are the same as for EC2.
  readonly region: () => Promise<string>;
  readonly wallNow?: () => number;
};

/** Fetched anew this long before they expire; EC2's own rotate some five minutes ahead. */
const REFRESH_AHEAD_MS = 5 * 60_000;
/** After a failed refresh, what we have is used that much longer before the source is asked again. */
const RETRY_AFTER_MS = 15_000;
const FETCH_MS = 5_000;

export function createCredentials(options: CredentialsOptions): Credentials {
  const { environment, wallNow = Date.now } = options;
  const source = chooseSource(environment);
  let held: AwsCredentials | null = null;
  let askAgainAt = 0;
  let fetching: Promise<Result<AwsCredentials, CredentialsFailure>> | null = null;

  const refresh = async (): Promise<Result<AwsCredentials, CredentialsFailure>> => {
    const fetched = await withDeadline(sources[source](options), source);
    if (fetched.ok) {
      held = fetched.value;
      const expiry = held.expiration?.getTime() ?? Number.POSITIVE_INFINITY;
      askAgainAt = Math.max(expiry - REFRESH_AHEAD_MS, wallNow() + RETRY_AFTER_MS);
      return fetched;
    }
    if (held === null) return fetched;
    // The source is away: what we hold may still be good, even past its expiry by our clock. EC2 will say.
    askAgainAt = wallNow() + RETRY_AFTER_MS;
    return ok(held);
  };

  return {
    source,
    current() {
      if (held !== null && wallNow() < askAgainAt) return Promise.resolve(ok(held));
      fetching ??= refresh().finally(() => {
        fetching = null;
      });
      return fetching;
    },
    distrust() {
      askAgainAt = 0;
    },
  };
}

export function chooseSource(environment: Environment): CredentialsSource {
  const set = (name: string): boolean => (environment[name] ?? "") !== "";
  if (set("AWS_ACCESS_KEY_ID") && set("AWS_SECRET_ACCESS_KEY")) return "environment";
  if (set("AWS_WEB_IDENTITY_TOKEN_FILE") && set("AWS_ROLE_ARN")) return "web-identity";
  if (set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || set("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
    return "container";
  return "instance-role";
}

type Fetched = Promise<Result<AwsCredentials, CredentialsFailure>>;

const sources: Readonly<Record<CredentialsSource, (options: CredentialsOptions) => Fetched>> = {
  environment: ({ environment }) => Promise.resolve(fromEnvironment(environment)),
  "web-identity": fromWebIdentity,
  container: fromContainer,
  "instance-role": ({ imds }) => fromInstanceRole(imds),
};

function fromEnvironment(environment: Environment): Result<AwsCredentials, CredentialsFailure> {
  const sessionToken = environment["AWS_SESSION_TOKEN"] ?? "";
  return ok({
    accessKeyId: environment["AWS_ACCESS_KEY_ID"] ?? "",
    secretAccessKey: environment["AWS_SECRET_ACCESS_KEY"] ?? "",
    ...(sessionToken === "" ? {} : { sessionToken }),
  });
}

/** IAM roles for service accounts: STS trades the projected token, which kubelet renews in its file, for credentials of the role. */
async function fromWebIdentity(options: CredentialsOptions): Fetched {
  const { environment, aws, handler } = options;
  try {
    const { fromTokenFile } = await import("./sdk-web-identity.ts");
    const provider = fromTokenFile({
      webIdentityTokenFile: environment["AWS_WEB_IDENTITY_TOKEN_FILE"] ?? "",
      roleArn: environment["AWS_ROLE_ARN"] ?? "",
      roleSessionName: environment["AWS_ROLE_SESSION_NAME"] || `berth-${process.pid}`,
      clientConfig: {
        region: await options.region(),
        requestHandler: handler,
        maxAttempts: 2,
        ...(aws.stsEndpoint === null ? {} : { endpoint: aws.stsEndpoint }),
      },
    });
    return ok(await provider());
  } catch (error) {
    return failed("web-identity", isServiceAnswer(error) ? "refused" : "unavailable", describe(error));
  }
}

/** STS's own refusals carry a fault; a lost connection or a missing token file does not. */
function isServiceAnswer(error: unknown): boolean {
  return typeof error === "object" && error !== null && "$fault" in error && error.$fault === "client";
}

const CONTAINER_HOST = "http://169.254.170.2";
const CONTAINER_ANSWER_BYTES_MAX = 64 * 1024;

/** EKS pod identity, and ECS alike: an agent on the node trades the token in the file for credentials. */
async function fromContainer(options: CredentialsOptions): Fetched {
  const { environment, aws } = options;
  const relative = environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] ?? "";
  const url =
    relative === ""
      ? (environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] ?? "")
      : `${CONTAINER_HOST}${relative}`;
  if (!isContainerUrl(url)) {
    return failed(
      "container",
      "refused",
      `${JSON.stringify(url)} is neither https nor an agent on this node`,
    );
  }
  const tokenFile = environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] ?? "";
  let token = environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"] ?? "";
  try {
    if (tokenFile !== "") token = (await readFile(tokenFile, "utf8")).trim();
  } catch (error) {
    return failed("container", "unavailable", `token file: ${describe(error)}`);
  }
  if (/[\r\n]/.test(token)) return failed("container", "unavailable", "the token holds a line break");
  const answer = await smallRequest({
    url,
    method: "GET",
    headers: token === "" ? {} : { authorization: token },
    timeoutMs: FETCH_MS,
    bytesMax: CONTAINER_ANSWER_BYTES_MAX,
    ...(url.startsWith("https:") && aws.caBundles.length > 0
      ? { secureContext: createSecureContext({ ca: [...getCACertificates("default"), ...aws.caBundles] }) }
      : {}),
  });
  if (!answer.ok) return failed("container", "unavailable", answer.error);
  if (answer.value.status !== 200) {
    const refused = answer.value.status >= 400 && answer.value.status < 500 && answer.value.status !== 429;
    return failed("container", refused ? "refused" : "unavailable", `HTTP ${answer.value.status}`);
  }
  return parseCredentials(answer.value.text, "container");
}

/** By the SDKs' rule: a token must not be sent in the clear to a place that is not this node. */
function isContainerUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  if (url.protocol === "https:") return true;
  if (url.protocol !== "http:") return false;
  const near = ["localhost", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "[::1]"];
  return near.includes(url.hostname) || /^127\.[0-9]+\.[0-9]+\.[0-9]+$/.test(url.hostname);
}

/** The instance profile's role, by our own IMDS edge: one token and version 2 only, where the SDK would fall back to version 1. */
async function fromInstanceRole(imds: ImdsEdge): Fetched {
  const folder = "meta-data/iam/security-credentials/";
  const listed = await imds.read(folder);
  if (!listed.ok)
    return failed(
      "instance-role",
      listed.error.kind === "refused" ? "refused" : "unavailable",
      `IMDS: ${listed.error.detail}`,
    );
  const role = listed.value?.trim().split("\n")[0] ?? "";
  if (!/^[\w+=,.@-]{1,128}$/.test(role))
    return failed("instance-role", "refused", "the instance has no role");
  const answer = await imds.read(`${folder}${role}`);
  if (!answer.ok) return failed("instance-role", "unavailable", `IMDS: ${answer.error.detail}`);
  return parseCredentials(answer.value ?? "", "instance-role");
}

/** The JSON that IMDS and the container agents have in common. */
function parseCredentials(
  text: string,
  source: CredentialsSource,
): Result<AwsCredentials, CredentialsFailure> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return failed(source, "unavailable", "the answer is not JSON"); // Its text may hold secrets: not repeated.
  }
  const value = (name: string): string => {
    const found: unknown =
      typeof parsed === "object" && parsed !== null ? Reflect.get(parsed, name) : undefined;
    return typeof found === "string" ? found : "";
  };
  const expiration = new Date(value("Expiration"));
  for (const name of ["AccessKeyId", "SecretAccessKey", "Token"]) {
    if (value(name) === "") return failed(source, "unavailable", `the answer has no ${name}`);
  }
  if (Number.isNaN(expiration.getTime()))
    return failed(source, "unavailable", "the answer has no Expiration");
  return ok({
    accessKeyId: value("AccessKeyId"),
    secretAccessKey: value("SecretAccessKey"),
    sessionToken: value("Token"),
    expiration,
  });
}

/** A source that hangs must not hang every EC2 call with it. */
async function withDeadline(work: Fetched, source: CredentialsSource): Fetched {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Awaited<Fetched>>((resolve) => {
    timer = setTimeout(
      () => resolve(failed(source, "unavailable", `no answer within ${2 * FETCH_MS} ms`)),
      2 * FETCH_MS,
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function failed(
  source: CredentialsSource,
  kind: CredentialsFailure["kind"],
  detail: string,
): { readonly ok: false; readonly error: CredentialsFailure } {
  return err({ kind, source, detail });
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
