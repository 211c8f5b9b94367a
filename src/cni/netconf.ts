/**
 * Reads what a runtime hands over: the network configuration on stdin, and CNI_ARGS. Tolerant of letter case in what runtimes fill
 * in (containerd sends `HostPort` where others send `hostPort`: its structs name no JSON keys) and of keys that it does not know, which are
 * kept. What a pod's owner asked for and this plugin cannot do is refused with a reason, not dropped.
 * Source: CNI specification, "Network configuration format" and "CNI operations"; CONVENTIONS.md for the capabilities.
 */
import * as v from "valibot";
import { err, ok, type Result } from "../lib/result.ts";
import {
  isCniIdentifier,
  isLinkName,
  isPodName,
  type PodName,
  type SandboxKey,
} from "../core/model/sandbox.ts";
import { CNI_CODE, type CniError } from "./errors.ts";
import { SPEC_VERSIONS, type SpecVersion } from "./wire.ts";

type JsonObject = { readonly [key: string]: unknown };

export type PortMapping = {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: string; // Lower case.
  readonly hostIp: string; // Empty: every address.
};
/** Bits per second, and bits. */
export type Bandwidth = {
  readonly ingressRate: number;
  readonly ingressBurst: number;
  readonly egressRate: number;
  readonly egressBurst: number;
};

/** What the runtime filled in for capabilities that the conflist turned on. Null or empty where it did not. */
export type Capabilities = {
  readonly portMappings: readonly PortMapping[];
  readonly bandwidth: Bandwidth | null;
  readonly dns: {
    readonly servers: readonly string[];
    readonly searches: readonly string[];
    readonly options: readonly string[];
  } | null;
  readonly ips: readonly string[];
  readonly mac: string;
  readonly cgroupPath: string;
  readonly podAnnotations: ReadonlyMap<string, string>;
};

/** A result of an earlier plugin, or of the whole chain. Kept as it came; only the lists are known to be lists. */
export type PrevResult = JsonObject & {
  readonly interfaces?: readonly JsonObject[] | null | undefined;
  readonly ips?: readonly (JsonObject & { readonly address: string })[] | null | undefined;
  readonly routes?: readonly JsonObject[] | null | undefined;
  readonly dns?: JsonObject | null | undefined;
};

export type NetworkConfig = {
  readonly name: string;
  readonly cniVersion: SpecVersion;
  readonly capabilities: Capabilities;
  readonly prevResult: PrevResult | null;
  readonly dns: JsonObject | null; // The conflist's own; goes into the result as it is.
  readonly alive: readonly { readonly containerId: string; readonly ifName: string }[]; // For GC.
  readonly plumbedBy: string | null; // The `type` of the plugin that calls us as its IPAM; null: we are the plugin itself.
  readonly all: JsonObject; // Everything, also what is not known here.
};

/** One key of an object whatever its letter case, the exact one first. Runtimes written in Go leave case to chance. */
function anyCase(key: string) {
  return (object: JsonObject): unknown => {
    if (Object.hasOwn(object, key)) return object[key];
    const found = Object.keys(object).find((each) => each.toLowerCase() === key.toLowerCase());
    return found === undefined ? undefined : object[found];
  };
}

/** valibot's objects take lists for objects. */
const jsonObject = v.custom<JsonObject>(
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  "an object was expected",
);

/** An object whose keys may come in any case; absent and null count as empty. */
function anyCaseObject<const Entries extends v.ObjectEntries>(entries: Entries) {
  const readers = Object.keys(entries).map((key) => [key, anyCase(key)] as const);
  return v.pipe(
    jsonObject,
    v.transform((object) =>
      Object.fromEntries(readers.map(([key, read]) => [key, read(object) ?? undefined])),
    ),
    v.object(entries),
  );
}

const text = v.optional(v.string(), "");
const texts = v.optional(v.array(v.string()), []);
const count = v.optional(v.pipe(v.number(), v.integer(), v.minValue(0)), 0);
const port = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535));

const portMappingSchema = v.pipe(
  anyCaseObject({
    hostPort: v.optional(port, 0),
    containerPort: port,
    protocol: v.optional(v.string(), "tcp"),
    hostIP: text,
  }),
  v.transform(({ hostIP, protocol, ...ports }) => ({
    ...ports,
    protocol: protocol.toLowerCase(),
    hostIp: hostIP,
  })),
);
const bandwidthSchema = anyCaseObject({
  ingressRate: count,
  ingressBurst: count,
  egressRate: count,
  egressBurst: count,
});
const dnsCapabilitySchema = anyCaseObject({ servers: texts, searches: texts, options: texts });
const ANNOTATIONS = "io.kubernetes.cri.pod-annotations";

const capabilitiesSchema = v.pipe(
  anyCaseObject({
    portMappings: v.optional(v.array(portMappingSchema), []),
    bandwidth: v.optional(bandwidthSchema),
    dns: v.optional(dnsCapabilitySchema),
    ips: texts,
    mac: text,
    cgroupPath: text,
    [ANNOTATIONS]: v.optional(v.record(v.string(), v.string()), {}),
  }),
  v.transform((read): Capabilities => {
    return {
      portMappings: read.portMappings,
      bandwidth: read.bandwidth ?? null,
      dns: read.dns ?? null,
      ips: read.ips,
      mac: read.mac,
      cgroupPath: read.cgroupPath,
      podAnnotations: new Map(Object.entries(read[ANNOTATIONS])),
    };
  }),
);

const prevResultSchema = v.pipe(
  jsonObject,
  v.looseObject({
    interfaces: v.nullish(v.array(jsonObject)),
    ips: v.nullish(v.array(v.looseObject({ address: v.string() }))),
    routes: v.nullish(v.array(jsonObject)),
    dns: v.nullish(jsonObject),
  }),
);

const attachmentSchema = v.pipe(jsonObject, v.object({ containerID: v.string(), ifname: v.string() }));

const identity = { name: v.string(), cniVersion: v.picklist(SPEC_VERSIONS) };
const identitySchema = v.pipe(jsonObject, v.looseObject(identity));

const configSchema = v.pipe(
  jsonObject,
  v.looseObject({
    ...identity,
    runtimeConfig: v.nullish(capabilitiesSchema),
    prevResult: v.nullish(prevResultSchema),
    dns: v.nullish(jsonObject),
    // The second name is an old mistake of libcni's that it still sends beside the first. Null is an empty list: cri-o without pods.
    "cni.dev/valid-attachments": v.nullish(v.array(attachmentSchema)),
    "cni.dev/attachments": v.nullish(v.array(attachmentSchema)),
  }),
);

const NO_CAPABILITIES = v.parse(capabilitiesSchema, {});

/** `stdin` as text. What is wrong comes back as the CNI error to answer, with the key's path in its details. */
export function parseNetworkConfig(stdin: string): Result<NetworkConfig, CniError> {
  const parsed = parseAs(configSchema, stdin);
  if (!parsed.ok) return parsed;
  const { name, cniVersion, runtimeConfig, prevResult, dns } = parsed.value;
  const plumbedBy = delegatorOf(parsed.value);
  if (!plumbedBy.ok) return plumbedBy;
  const alive = parsed.value["cni.dev/valid-attachments"] ?? parsed.value["cni.dev/attachments"] ?? [];
  return ok({
    name,
    cniVersion,
    capabilities: runtimeConfig ?? NO_CAPABILITIES,
    prevResult: prevResult ?? null,
    dns: dns ?? null,
    alive: alive.map(({ containerID, ifname }) => ({ containerId: containerID, ifName: ifname })),
    plumbedBy: plumbedBy.value,
    all: parsed.value,
  });
}

/** By what names the plugin's file is called, as itself and as an `ipam.type`. */
const OWN_TYPES: ReadonlySet<unknown> = new Set(["berth-cni", "berth"]);

/**
 * A main plugin hands its IPAM the whole of its own configuration: then `type` is its name, and `ipam.type` ours. Null where `type` is ours
 * or `ipam` is none of an IPAM's, since a file may be installed under any name.
 */
function delegatorOf({ type, ipam }: JsonObject): Result<string | null, CniError> {
  if (typeof type !== "string" || OWN_TYPES.has(type)) return ok(null);
  if (typeof ipam !== "object" || ipam === null || !("type" in ipam) || !OWN_TYPES.has(ipam.type))
    return ok(null);
  if (type === "" || type.length > 255 || type.includes("/"))
    return err(invalid("the network configuration's type is no plugin's name", type));
  const unknown = Object.keys(ipam).filter((key) => key !== "type");
  if (unknown.length === 0) return ok(type);
  const message = `ipam takes nothing but its type here: addresses, routes and ranges are the VPC's; remove ipam.${unknown[0]} from the conflist`;
  return err(invalid(message, unknown.join(" ")));
}

/** For DEL: name and version alone. A damaged previous result or a capability that we would refuse must never keep a pod from going. */
export function parseNetworkIdentity(stdin: string): Result<NetworkConfig, CniError> {
  const parsed = parseAs(identitySchema, stdin);
  if (!parsed.ok) return parsed;
  const { name, cniVersion } = parsed.value;
  return ok({
    name,
    cniVersion,
    capabilities: NO_CAPABILITIES,
    prevResult: null,
    dns: null,
    alive: [],
    plumbedBy: null, // The record tells.
    all: parsed.value,
  });
}

function parseAs<Schema extends typeof configSchema | typeof identitySchema>(
  schema: Schema,
  stdin: string,
): Result<v.InferOutput<Schema>, CniError> {
  const json = parseJson(stdin);
  if (!json.ok) return json;
  const parsed = v.safeParse(schema, json.value, { abortEarly: true });
  if (!parsed.success) return err(refusalOf(parsed.issues[0]));
  if (isCniIdentifier(parsed.output.name)) return ok(parsed.output);
  const message = "the network's name is invalid: letters and digits, after the first also _ . and -";
  return err(invalid(message, parsed.output.name));
}

function parseJson(stdin: string): Result<unknown, CniError> {
  try {
    return ok(JSON.parse(stdin));
  } catch (cause) {
    return err({
      code: CNI_CODE.decoding,
      message: "stdin holds no network configuration: its JSON is broken",
      details: String(cause),
    });
  }
}

function refusalOf(issue: v.BaseIssue<unknown>): CniError {
  const path = v.getDotPath(issue) ?? "";
  const details = `${path}: ${issue.message}`;
  if (path === "cniVersion" && typeof issue.input === "string") {
    const message = `this cniVersion is not served: set one of ${SPEC_VERSIONS.join(", ")} in the conflist`;
    return { code: CNI_CODE.version, message, details: issue.input };
  }
  if (path === "name" && issue.input === undefined)
    return invalid("the network configuration has no name: give it one in the conflist", "");
  const message = `the network configuration cannot be read at ${path === "" ? "its top" : path}`;
  return { code: CNI_CODE.decoding, message, details };
}

function invalid(message: string, details: string): CniError {
  return { code: CNI_CODE.config, message, details };
}

/**
 * What an ADD asks for and cannot have: an address or a MAC of the caller's choice. EC2 decides on addresses, and a pod that was
 * promised one must not come up with another (CNI specification, ADD: fail rather than pick another).
 */
export function refusedWishes(config: NetworkConfig, args: ReadonlyMap<string, string>): CniError | null {
  const wishes: readonly (readonly [string, string])[] = [
    ["runtimeConfig.ips", config.capabilities.ips.join(" ")],
    ["runtimeConfig.mac", config.capabilities.mac],
    ["CNI_ARGS IP", args.get("IP") ?? ""],
    ["CNI_ARGS MAC", args.get("MAC") ?? ""],
  ];
  const found = wishes.find(([, value]) => value !== "");
  if (found === undefined) return null;
  const message = `${found[0]} cannot be served: a pod's address and MAC are chosen by the node; remove it from the pod's annotations or the conflist`;
  return { code: CNI_CODE.unsupported, message, details: `${found[0]}=${found[1]}` };
}

/** `K=V;K=V`, split at the first `=`; empty pairs and pairs without `=` are skipped. Strictness belongs to those who emit. */
export function parseCniArgs(args: string): ReadonlyMap<string, string> {
  const pairs = new Map<string, string>();
  for (const pair of args.split(";")) {
    const equals = pair.indexOf("=");
    if (equals > 0) pairs.set(pair.slice(0, equals).trim(), pair.slice(equals + 1));
  }
  return pairs;
}

/** Null unless the runtime tells both, and as Kubernetes forms them. */
export function podNameOf(args: ReadonlyMap<string, string>): PodName | null {
  const namespace = args.get("K8S_POD_NAMESPACE") ?? "";
  const name = args.get("K8S_POD_NAME") ?? "";
  return isPodName({ namespace, name }) ? { namespace, name } : null;
}

/** The shim has checked the same; here it keeps `/` out of keys, aliases and file names whoever speaks on the socket. */
export function parseSandboxKey(
  network: string,
  containerId: string,
  ifName: string,
): Result<SandboxKey, CniError> {
  const bad = (variable: string, value: string): Result<never, CniError> =>
    err({ code: CNI_CODE.environment, message: `${variable} is missing or invalid`, details: value });
  if (!isCniIdentifier(containerId)) return bad("CNI_CONTAINERID", containerId);
  if (!isLinkName(ifName)) return bad("CNI_IFNAME", ifName);
  return ok({ network, containerId, ifName });
}
