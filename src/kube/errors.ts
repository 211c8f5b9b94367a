/** What can come of asking the API server, in kinds. Pure: a status and a text go in. */

export type KubeError =
  /** No connection, no answer in time, a broken one, a certificate that is not believed. */
  | { readonly kind: "unreachable"; readonly detail: string }
  /** 401: who we are is not believed. 403: we may not. */
  | { readonly kind: "denied"; readonly status: number; readonly detail: string }
  /** 410, or 504 "Too large resource version": what we want to go on from is not there (any more, or yet). */
  | { readonly kind: "expired"; readonly detail: string }
  /** 404: the object, or the whole kind of object, is not there. */
  | { readonly kind: "not-found"; readonly detail: string }
  /** 429: come later; in milliseconds where the server said when. */
  | { readonly kind: "throttled"; readonly waitMs: number | null }
  | { readonly kind: "refused"; readonly status: number; readonly detail: string }
  /** An answer that is no JSON, or longer than we read. */
  | { readonly kind: "unreadable"; readonly detail: string }
  | { readonly kind: "too-large"; readonly detail: string };

/** Source: Kubernetes API concepts, "Resource versions", and metav1.Status. `retryAfter` is the header, in seconds. */
export function errorOfStatus(status: number, text: string, retryAfter: string | null): KubeError {
  const detail = messageOf(text);
  if (status === 401 || status === 403) return { kind: "denied", status, detail };
  if (status === 404) return { kind: "not-found", detail };
  if (status === 410) return { kind: "expired", detail };
  if (status === 504 && /too large resource version/i.test(detail)) return { kind: "expired", detail };
  if (status === 429) {
    const seconds = Number(retryAfter ?? "");
    return { kind: "throttled", waitMs: seconds > 0 && seconds <= 3_600 ? seconds * 1_000 : null };
  }
  return { kind: "refused", status, detail };
}

/** One line for logs. */
export function printKubeError(error: KubeError): string {
  switch (error.kind) {
    case "throttled":
      return "throttled: the API server asks to come later";
    case "denied":
    case "refused":
      return `${error.kind} (${error.status}): ${error.detail}`;
    case "unreachable":
    case "expired":
    case "not-found":
    case "unreadable":
    case "too-large":
      return `${error.kind}: ${error.detail}`;
  }
}

/** The server's own words, of a Status object where it is one; bounded. */
function messageOf(text: string): string {
  try {
    const status: unknown = JSON.parse(text);
    if (typeof status === "object" && status !== null && "message" in status)
      return String(status.message).slice(0, 300);
  } catch {
    // No Status object: some proxy's page. Its beginning tells more than nothing.
  }
  return text.slice(0, 300);
}
