/**
 * EC2's error codes, sorted into the kinds that the rest of the node decides by. One table, read from the top; the first row that
 * fits wins. Code, message and request id are kept whole. Source: EC2 API reference, "Error codes for the Amazon EC2 API", and the
 * messages gathered there where one code (InvalidParameterValue above all) means several things.
 */
import type { Ec2Failure, Ec2FailureKind } from "../core/model/ec2.ts";
import type { Ec2Operation } from "./operations.ts";
import { operationRow } from "./operations.ts";

/** What a call asked for: EC2 has one message for "no addresses left" and "no prefix left". */
export type Asked = "addresses" | "prefixes" | "other";

/** What is known of an attempt that EC2 answered with an error, or did not answer. */
export type Trouble = {
  readonly operation: Ec2Operation;
  readonly asked: Asked;
  /** EC2 may have the request: its first byte may have left. */
  readonly sent: boolean;
  /** HTTP status, null when no answer came. */
  readonly status: number | null;
  /** EC2's own code, null when there was none or it could not be read. */
  readonly code: string | null;
  /** Stands for the code when EC2 gave none: "Timeout", "ConnectionReset", "AnswerTooLarge", … */
  readonly symptom: string;
  readonly message: string;
  readonly requestId: string | null;
};

type Row = {
  readonly code: RegExp;
  readonly message?: RegExp;
  readonly asked?: Asked;
  readonly kind: Ec2FailureKind;
};

const rows: readonly Row[] = [
  {
    code: /^(RequestLimitExceeded|EC2ThrottledException|TooManyRequestsException|SlowDown|BandwidthLimitExceeded)$/,
    kind: "throttled",
  },
  { code: /^(RequestThrottled|Throttling|ThrottledException)/, kind: "throttled" },

  { code: /^InsufficientFreeAddressesInSubnet$/, kind: "subnet-exhausted" },
  { code: /^InsufficientCidrBlocks$/, kind: "prefixes-exhausted" },
  {
    code: /^InvalidParameterValue$/,
    message: /sufficient free ipv4 addresses or prefixes/i,
    asked: "addresses",
    kind: "subnet-exhausted",
  },
  {
    code: /^InvalidParameterValue$/,
    message: /sufficient free ipv4 addresses or prefixes/i,
    kind: "prefixes-exhausted",
  },
  { code: /^InvalidParameterValue$/, message: /enough free cidr blocks/i, kind: "prefixes-exhausted" },

  {
    code: /^(PrivateIpAddressLimitExceeded|InvalidInterface\.IpAddressLimitExceeded)$/,
    kind: "address-limit",
  },
  { code: /^(AttachmentLimitExceeded|NetworkInterfaceLimitExceeded)$/, kind: "eni-limit" },

  { code: /\.NotFound$/, kind: "gone" },
  { code: /^InvalidParameterValue$/, message: /addresses are not assigned to interface/i, kind: "gone" },

  { code: /\.InUse$/, kind: "in-use" },
  { code: /^InvalidParameterValue$/, message: /is currently in use/i, kind: "in-use" },
  {
    code: /^InvalidParameterValue$/,
    message: /already has an interface attached at device index/i,
    kind: "in-use",
  },
  { code: /^(DependencyViolation|IncorrectState|PriorRequestNotComplete)$/, kind: "in-use" },

  {
    code: /^(UnauthorizedOperation|AuthFailure|AccessDenied|AccessDeniedException|Blocked|PendingVerification|OptInRequired)$/,
    kind: "denied",
  },
  {
    code: /^(InvalidClientTokenId|UnrecognizedClientException|MissingAuthenticationToken|IncompleteSignature)$/,
    kind: "denied",
  },
  {
    code: /^(ExpiredToken|ExpiredTokenException|RequestExpired|RequestTimeTooSkewed|SignatureDoesNotMatch)$/,
    kind: "denied",
  },

  // The instance is pending, stopping or gone: the request is right, its time is not.
  {
    code: /^(IncorrectInstanceState|InsufficientInstanceCapacity|InsufficientAddressCapacity|InsufficientCapacity)$/,
    kind: "failing",
  },
  {
    code: /^(InternalError|InternalFailure|ServerInternal|Unavailable|ServiceUnavailable|ServiceUnavailableException)$/,
    kind: "failing",
  },
];

/** Sorts one trouble. Never fails: what no row knows is told apart by its HTTP status. */
export function sortFailure(trouble: Trouble): Ec2Failure {
  // CloudTrail and some proxies prefix the fault's side.
  const code = trouble.code?.replace(/^(Client|Server)\./, "") ?? null;
  return {
    kind: code === null ? kindWithoutCode(trouble) : kindOfCode(code, trouble),
    operation: trouble.operation,
    code: code === null ? trouble.symptom : wordOf(code, 100),
    message: trouble.message.slice(0, MESSAGE_LENGTH_MAX),
    requestId: trouble.requestId === null ? null : wordOf(trouble.requestId, 100),
  };
}

/** A pod's event and the log carry it; whoever speaks for EC2 decides on its length. */
const MESSAGE_LENGTH_MAX = 1_000;

/** A code becomes a metric's label and an id a field of the log: letters, digits and the few marks that EC2 uses. */
function wordOf(text: string, lengthMax: number): string {
  return text.slice(0, lengthMax).replaceAll(/[^0-9A-Za-z._:-]/g, "?");
}

function kindOfCode(code: string, trouble: Trouble): Ec2FailureKind {
  for (const row of rows) {
    if (!row.code.test(code)) continue;
    if (row.message !== undefined && !row.message.test(trouble.message)) continue;
    if (row.asked !== undefined && row.asked !== trouble.asked) continue;
    return row.kind;
  }
  if (trouble.status === 429) return "throttled";
  return trouble.status !== null && trouble.status >= 500 ? "failing" : "invalid";
}

/** A load balancer's page, a lost connection, a deadline: only the HTTP status and the way we got tell what it may mean. */
function kindWithoutCode(trouble: Trouble): Ec2FailureKind {
  if (!trouble.sent) return "failing";
  if (trouble.status === 429) return "throttled";
  if (trouble.status === 401 || trouble.status === 403) return "denied";
  if (trouble.status !== null && trouble.status >= 400 && trouble.status < 500) return "invalid";
  return operationRow(trouble.operation).mutating ? "in-doubt" : "failing";
}

/** Fresh credentials, or the clock that the answer just corrected, may be all that is missing: worth one more try. */
export function mayBeStaleCredentials(failure: Ec2Failure): boolean {
  if (failure.kind !== "denied") return false;
  return /^(ExpiredToken|ExpiredTokenException|RequestExpired|RequestTimeTooSkewed|SignatureDoesNotMatch|AuthFailure|InvalidClientTokenId|UnrecognizedClientException)$/.test(
    failure.code,
  );
}
