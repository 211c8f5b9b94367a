/** What an instance's metadata service says: tokens, status codes and the tree of items. No HTTP here: that is in imds-server.ts. */
import { printCidr4 } from "../lib/ip.ts";
import { type Instant, type WallTime } from "../lib/time.ts";
import { privateDnsName } from "./operations/describe-eni.ts";
import { PREFIX_LENGTH } from "./subnet-space.ts";
import { attachmentsOf, type Instance, subnetOf, type World } from "./world.ts";

export type ImdsRequest = {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
};
export type ImdsReply = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
};

/** A directory, or an item's text. */
export type MetadataTree = { readonly [name: string]: MetadataTree | string };

export const TOKEN_TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER = "x-aws-ec2-metadata-token";
const TOKEN_PATH = "/latest/api/token";

export type ImdsPolicy = {
  /** Reads without a token are refused (IMDSv2 only). */
  readonly tokenRequired: boolean;
  readonly enabled: boolean;
};

export type ImdsPorts = {
  readonly policy: ImdsPolicy;
  readonly now: () => Instant;
  /** A fresh random token. */
  readonly makeToken: () => string;
  /** Tokens of this instance and when they end. */
  readonly tokens: Map<string, Instant>;
  /** What this instance's IMDS shows now. */
  readonly tree: () => MetadataTree;
};

/** Answers one request. Source of rules and codes: EC2 user guide, "Use the Instance Metadata Service to access instance metadata". */
export function answerImds(request: ImdsRequest, ports: ImdsPorts): ImdsReply {
  const path = request.path.replace(/\?.*$/, "").replaceAll(/\/{2,}/g, "/");
  if (!ports.policy.enabled) return failure(403, "Forbidden");
  if (/^\/[^/]+\/api\/token\/?$/.test(path)) return answerToken(request, path, ports);
  if (request.method !== "GET" && request.method !== "HEAD") return failure(405, "Method Not Allowed");
  const token = request.headers[TOKEN_HEADER];
  // A token that is wrong is refused even where none is needed.
  const valid = token !== undefined && (ports.tokens.get(token) ?? -1) > ports.now();
  if (token === undefined ? ports.policy.tokenRequired : !valid) return failure(401, "Unauthorized");
  const body = look(path, ports.tree());
  return body === null
    ? failure(404, "Not Found")
    : { status: 200, headers: { "Content-Type": "text/plain" }, body };
}

function answerToken(request: ImdsRequest, path: string, ports: ImdsPorts): ImdsReply {
  if (request.method !== "PUT") return failure(405, "Method Not Allowed", { Allow: "OPTIONS, PUT" });
  // A proxy in between would let others fetch a token.
  if (request.headers["x-forwarded-for"] !== undefined || path !== TOKEN_PATH)
    return failure(403, "Forbidden");
  const ttl = request.headers[TOKEN_TTL_HEADER] ?? "";
  if (!/^\d{1,5}$/.test(ttl) || Number(ttl) < 1 || Number(ttl) > 21_600) return failure(400, "Bad Request");
  const now = ports.now();
  for (const [old, ends] of ports.tokens) if (ends <= now) ports.tokens.delete(old);
  const token = ports.makeToken();
  ports.tokens.set(token, (now + Number(ttl) * 1000) as Instant); // An instant plus a time is an instant.
  return { status: 200, headers: { "Content-Type": "text/plain", [TOKEN_TTL_HEADER]: ttl }, body: token };
}

/** An item's text, or a directory's names: one a line, sub-directories with a slash, no newline at the end. */
function look(path: string, tree: MetadataTree): string | null {
  const [version, ...names] = path.split("/").filter((name) => name !== "");
  if (version === undefined) return "latest";
  if (version !== "latest" && !/^\d{4}-\d{2}-\d{2}$/.test(version)) return null;
  let at: MetadataTree | string = tree;
  for (const name of names) {
    const next: MetadataTree | string | undefined =
      typeof at === "string" || !Object.hasOwn(at, name) ? undefined : at[name];
    if (next === undefined) return null;
    at = next;
  }
  if (typeof at === "string") return at;
  return Object.entries(at)
    .map(([name, value]) => (typeof value === "string" ? name : `${name}/`))
    .join("\n");
}

function failure(status: number, reason: string, headers: Readonly<Record<string, string>> = {}): ImdsReply {
  const body = `<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head><title>${status} - ${reason}</title></head>
 <body><h1>${status} - ${reason}</h1></body>
</html>
`;
  return { status, headers: { "Content-Type": "text/html", ...headers }, body };
}

export type RoleCredentials = {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly token: string;
  readonly madeAt: WallTime;
  readonly endsAt: WallTime;
};

/** Everything below `latest/` of one instance, as `world` has it. */
export function metadataTree(
  world: World,
  instance: Instance,
  credentials: RoleCredentials | null,
): MetadataTree {
  const enis = attachmentsOf(world, instance.id);
  const primary = enis[0];
  const { availabilityZone } = subnetOf(world, instance.subnetId);
  const hostname = primary === undefined ? "" : privateDnsName(world, primary.primary);
  const many = instance.type.networkCards.length > 1;
  const macs = Object.fromEntries(
    // A detaching ENI is still listed: IMDS is the last to know.
    enis.map((eni) => [eni.mac, eniTree(world, eni, many)]),
  );
  return {
    dynamic: {
      "instance-identity": { document: identityDocument(world, instance, primary?.primary ?? null) },
    },
    "meta-data": {
      "ami-id": instance.imageId,
      hostname,
      ...(credentials === null || instance.role === null
        ? {}
        : { iam: iamTree(world, instance.role, credentials) }),
      "instance-id": instance.id,
      "instance-life-cycle": "on-demand",
      "instance-type": instance.type.name,
      "local-hostname": hostname,
      ...(primary === undefined ? {} : { "local-ipv4": primary.primary, mac: primary.mac }),
      network: { interfaces: { macs } },
      placement: { "availability-zone": availabilityZone, region: world.region },
      ...(primary === undefined
        ? {}
        : { "security-groups": primary.groupIds.map((id) => world.groups.get(id)?.name ?? "").join("\n") }),
      services: { domain: "amazonaws.com", partition: "aws" },
    },
  };
}

function eniTree(
  world: World,
  eni: ReturnType<typeof attachmentsOf>[number],
  manyCards: boolean,
): MetadataTree {
  const subnet = subnetOf(world, eni.subnetId);
  const cidrs = (world.vpcs.get(subnet.vpcId)?.cidrs ?? []).map(printCidr4);
  return {
    "device-number": String(eni.attachment.deviceIndex),
    "interface-id": eni.id,
    ...(eni.prefixes.length === 0
      ? {}
      : { "ipv4-prefix": eni.prefixes.map((prefix) => `${prefix}/${PREFIX_LENGTH}`).join("\n") }),
    "local-hostname": privateDnsName(world, eni.primary),
    "local-ipv4s": [eni.primary, ...eni.secondaries].join("\n"),
    mac: eni.mac,
    ...(manyCards ? { "network-card": String(eni.attachment.networkCardIndex) } : {}),
    "owner-id": world.accountId,
    "security-group-ids": eni.groupIds.join("\n"),
    "security-groups": eni.groupIds.map((id) => world.groups.get(id)?.name ?? "").join("\n"),
    "subnet-id": eni.subnetId,
    "subnet-ipv4-cidr-block": printCidr4(subnet.space.cidr),
    "vpc-id": subnet.vpcId,
    "vpc-ipv4-cidr-block": cidrs[0] ?? "",
    "vpc-ipv4-cidr-blocks": cidrs.join("\n"),
  };
}

function iamTree(world: World, role: string, credentials: RoleCredentials): MetadataTree {
  const iso = (time: WallTime): string => new Date(time).toISOString().replace(/\.\d{3}Z$/, "Z");
  const text = (value: object): string => JSON.stringify(value, null, 2);
  return {
    info: text({
      Code: "Success",
      LastUpdated: iso(credentials.madeAt),
      InstanceProfileArn: `arn:aws:iam::${world.accountId}:instance-profile/${role}`,
      InstanceProfileId: "AIPAEMULATED",
    }),
    "security-credentials": {
      [role]: text({
        Code: "Success",
        LastUpdated: iso(credentials.madeAt),
        Type: "AWS-HMAC",
        AccessKeyId: credentials.accessKeyId,
        SecretAccessKey: credentials.secretAccessKey,
        Token: credentials.token,
        Expiration: iso(credentials.endsAt),
      }),
    },
  };
}

function identityDocument(world: World, instance: Instance, privateIp: string | null): string {
  const document = {
    accountId: world.accountId,
    architecture: "x86_64",
    availabilityZone: subnetOf(world, instance.subnetId).availabilityZone,
    billingProducts: null,
    devpayProductCodes: null,
    imageId: instance.imageId,
    instanceId: instance.id,
    instanceType: instance.type.name,
    kernelId: null,
    marketplaceProductCodes: null,
    pendingTime: new Date(instance.launchedAt).toISOString().replace(/\.\d{3}Z$/, "Z"),
    privateIp,
    ramdiskId: null,
    region: world.region,
    version: "2017-09-30",
  };
  return JSON.stringify(document, null, 2);
}
