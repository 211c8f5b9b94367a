/** Kubernetes objects → facts of core/model/cluster. Null where a thing lacks what makes it one; what we do not need is not looked at. */
import {
  type CniNodeSeen,
  type EniConfigSeen,
  type NodeSeen,
  POD_IPS_ANNOTATION,
  type PodSeen,
} from "../core/model/cluster.ts";

/** The taint that kubectl cordon's controller adds; the incumbent looks at it. */
const UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable";
/** A label's value has at most 63 characters, a key at most 317 (Kubernetes documentation, "Labels and Selectors"). */
const LABEL_COUNT_MAX = 500;

type Meta = {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly raw: Raw;
};
type Raw = Readonly<Record<string, unknown>>;

export function decodePod(value: unknown): PodSeen | null {
  const meta = metaOf(value);
  if (meta === null || meta.namespace === "") return null;
  const spec = at(value, "spec");
  const status = at(value, "status");
  const phase = status["phase"];
  const ips = listOf(status["podIPs"]).flatMap((each) => textOr(recordOf(each)["ip"]) ?? []);
  const single = textOr(status["podIP"]);
  return {
    uid: meta.uid,
    namespace: meta.namespace,
    name: meta.name,
    hostNetwork: spec["hostNetwork"] === true,
    finished: phase === "Succeeded" || phase === "Failed",
    leaving: textOr(meta.raw["deletionTimestamp"]) !== null,
    ips: ips.length > 0 || single === null ? ips : [single],
    annotatedIps: textOr(recordOf(meta.raw["annotations"])[POD_IPS_ANNOTATION]),
  };
}

export function decodeNode(value: unknown): NodeSeen | null {
  const meta = metaOf(value);
  if (meta === null) return null;
  const spec = at(value, "spec");
  const tainted = listOf(spec["taints"]).some((each) => recordOf(each)["key"] === UNSCHEDULABLE_TAINT);
  const capacity = recordOf(at(value, "status")["capacity"])["pods"];
  const pods = Number(capacity ?? Number.NaN); // Kubernetes writes quantities as text.
  return {
    uid: meta.uid,
    name: meta.name,
    unschedulable: spec["unschedulable"] === true || tainted,
    labels: textsOf(meta.raw["labels"]),
    annotations: Object.fromEntries(
      Object.entries(textsOf(meta.raw["annotations"])).filter(([key]) => /eniConfig/i.test(key)),
    ),
    podCapacity: Number.isInteger(pods) && pods >= 0 ? pods : null,
  };
}

export function decodeEniConfig(value: unknown): EniConfigSeen | null {
  const meta = metaOf(value);
  if (meta === null) return null;
  const spec = at(value, "spec");
  return {
    uid: meta.uid,
    name: meta.name,
    subnet: textOr(spec["subnet"]),
    securityGroups: listOf(spec["securityGroups"]).flatMap((each) => textOr(each) ?? []),
  };
}

export function decodeCniNode(value: unknown): CniNodeSeen | null {
  const meta = metaOf(value);
  if (meta === null) return null;
  const features = listOf(at(value, "spec")["features"]).flatMap((each) => {
    const name = textOr(recordOf(each)["name"]);
    return name === null ? [] : [{ name, value: textOr(recordOf(each)["value"]) ?? "" }];
  });
  return { uid: meta.uid, name: meta.name, features };
}

/** `resourceVersion` of an object or a list; null where there is none. */
export function versionOf(value: unknown): string | null {
  return textOr(at(value, "metadata")["resourceVersion"]);
}

/** What an object is known by, though nothing else of it can be read. */
export function uidOf(value: unknown): string | null {
  return metaOf(value)?.uid ?? null;
}

/** One page of a list: its items, its version, and where the next page begins. Null when it is no list. */
export function decodeList(
  value: unknown,
): { readonly items: readonly unknown[]; readonly version: string; readonly next: string | null } | null {
  const items = recordOf(value)["items"];
  const version = versionOf(value);
  // An empty list may come as null from Go.
  if ((!Array.isArray(items) && items !== null) || version === null) return null;
  const next = textOr(at(value, "metadata")["continue"]);
  return { items: listOf(items), version, next: next === "" ? null : next };
}

/** One line of a watch. Null when it is none. Source: Kubernetes API concepts, "Efficient detection of changes". */
export function decodeEvent(line: string): { readonly type: string; readonly object: unknown } | null {
  try {
    const event = recordOf(JSON.parse(line));
    const type = textOr(event["type"]);
    return type === null || typeof event["object"] !== "object" ? null : { type, object: event["object"] };
  } catch {
    return null;
  }
}

/** The code and words of a Status object, which an ERROR event carries. */
export function decodeStatus(value: unknown): { readonly code: number; readonly message: string } {
  const status = recordOf(value);
  return { code: Number(status["code"] ?? 0), message: textOr(status["message"]) ?? "" };
}

function metaOf(value: unknown): Meta | null {
  const raw = at(value, "metadata");
  const uid = textOr(raw["uid"]);
  const name = textOr(raw["name"]);
  if (uid === null || uid === "" || name === null || name === "") return null;
  return { uid, name, namespace: textOr(raw["namespace"]) ?? "", raw };
}

function at(value: unknown, key: string): Raw {
  return recordOf(recordOf(value)[key]);
}

function recordOf(value: unknown): Raw {
  // Any object's fields may be read as unknown values.
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Raw) : {};
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function textOr(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function textsOf(value: unknown): Readonly<Record<string, string>> {
  const texts = Object.entries(recordOf(value)).flatMap(([key, each]) =>
    typeof each === "string" ? [[key, each] as const] : [],
  );
  return Object.fromEntries(texts.slice(0, LABEL_COUNT_MAX));
}
