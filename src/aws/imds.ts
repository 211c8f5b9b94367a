/**
 * The instance metadata service, version 2 only: who we are, and what it lists of our ENIs. It lags behind EC2 both ways and throttles,
 * so reads are one after another over one connection, with one token for many. Strict as the EC2 decoders are: garbage is `absurd`, never a guess.
 */
import { Agent } from "node:http";
import type { Imds, ImdsEni, ImdsFailure } from "../core/model/ec2.ts";
import type { EniId, Mac, SecurityGroupId, SubnetId } from "../core/model/eni.ts";
import type { Instance, InstanceId } from "../core/model/instance.ts";
import { type Cidr4, parseCidr4, parseIpv4 } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { backoffMs } from "../lib/time.ts";
import { type SmallAnswer, smallRequest } from "./bounded-get.ts";

export type ImdsOptions = {
  readonly endpoint: string;
  readonly random: Random;
  readonly timeoutMs?: number; // One request.
  readonly attempts?: number;
  readonly now?: () => number; // Milliseconds, for the token's age.
};

export type ImdsEdge = Imds & {
  /** One item as text, null where IMDS has none (404). `path` begins below `latest/`. */
  readonly read: (path: string) => Promise<Result<string | null, ImdsFailure>>;
  readonly close: () => void;
};

const TOKEN_TTL_SECONDS = 21_600;
const TOKEN_RENEW_MS = (TOKEN_TTL_SECONDS * 1_000) / 2;
const ANSWER_BYTES_MAX = 64 * 1024;

export function createImds(options: ImdsOptions): ImdsEdge {
  const { endpoint, random, timeoutMs = 1_000, attempts = 4, now = () => performance.now() } = options;
  const agent = new Agent({ keepAlive: true, maxSockets: 2, timeout: 5_000 });
  let token: { readonly text: string; readonly at: number } | null = null;

  const ask = async (
    path: string,
    method: "GET" | "PUT",
    headers: Readonly<Record<string, string>>,
  ): Promise<Result<SmallAnswer, ImdsFailure>> => {
    let detail = "";
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      if (attempt > 0) await pause(backoffMs(attempt - 1, random(), { baseMs: 100, maxMs: 2_000 }));
      const url = `${endpoint}/latest/${path}`;
      const answer = await smallRequest({
        url,
        method,
        headers,
        timeoutMs,
        bytesMax: ANSWER_BYTES_MAX,
        agent,
      });
      if (answer.ok && answer.value.status < 500 && answer.value.status !== 429) return answer;
      detail = answer.ok ? `HTTP ${answer.value.status}` : answer.error;
    }
    return err({ kind: "unreachable", path, detail });
  };

  const renewToken = async (): Promise<Result<string, ImdsFailure>> => {
    const path = "api/token";
    const answer = await ask(path, "PUT", { "x-aws-ec2-metadata-token-ttl-seconds": `${TOKEN_TTL_SECONDS}` });
    if (!answer.ok) return answer;
    if (answer.value.status !== 200)
      return err({ kind: "refused", path, detail: `HTTP ${answer.value.status}` });
    const text = answer.value.text.trim();
    if (!/^[\x21-\x7e]{1,512}$/.test(text)) return err({ kind: "absurd", path, detail: "not a token" });
    token = { text, at: now() };
    return ok(text);
  };

  const read = async (path: string): Promise<Result<string | null, ImdsFailure>> => {
    for (let attempt = 0; ; attempt += 1) {
      const fresh = token !== null && now() - token.at < TOKEN_RENEW_MS ? ok(token.text) : await renewToken();
      if (!fresh.ok) return fresh;
      const answer = await ask(path, "GET", { "x-aws-ec2-metadata-token": fresh.value });
      if (!answer.ok) return answer;
      const { status, text } = answer.value;
      if (status === 200) return ok(text);
      if (status === 404) return ok(null);
      // A token that was good a moment ago: the metadata service was restarted, or the instance was.
      token = null;
      if (status !== 401 || attempt > 0) return err({ kind: "refused", path, detail: `HTTP ${status}` });
    }
  };

  return {
    read,
    readInstance: () => readInstance(read),
    readEnis: () => readEnis(read),
    close: () => agent.destroy(),
  };
}

type Read = ImdsEdge["read"];

/** Who we are, from single items: `read` gives each as text, null where there is none. Never throws, whatever it gives. */
export async function readInstance(read: Read): Promise<Result<Omit<Instance, "limits">, ImdsFailure>> {
  const id = await item(read, "meta-data/instance-id", /^i-[0-9A-Za-z]{1,40}$/);
  if (!id.ok) return id;
  const type = await item(read, "meta-data/instance-type", /^[a-z0-9-]{1,32}\.[a-z0-9-]{1,32}$/);
  if (!type.ok) return type;
  const region = await item(read, "meta-data/placement/region", /^[a-z0-9-]{4,40}$/);
  if (!region.ok) return region;
  const zone = await item(read, "meta-data/placement/availability-zone", /^[a-z0-9-]{4,60}$/);
  if (!zone.ok) return zone;
  const mac = await item(read, "meta-data/mac", MAC);
  if (!mac.ok) return mac;
  const primaryMac = mac.value.toLowerCase() as Mac; // By the pattern.
  const folder = `${MACS}${primaryMac}/`;
  const vpcId = await item(read, `${folder}vpc-id`, /^vpc-[0-9A-Za-z]{1,40}$/);
  if (!vpcId.ok) return vpcId;
  const vpcCidrs = await lines(read, `${folder}vpc-ipv4-cidr-blocks`, cidrOf);
  if (!vpcCidrs.ok) return vpcCidrs;
  if (vpcCidrs.value.length === 0) return absurd(`${folder}vpc-ipv4-cidr-blocks`, "is empty");
  const eni = await readEni(read, primaryMac);
  if (!eni.ok) return eni;
  const primaryIp = eni.value?.localIps[0];
  if (eni.value === null || eni.value === undefined) return absurd(folder, "the primary ENI is not listed");
  if (primaryIp === undefined) return absurd(`${folder}local-ipv4s`, "the primary ENI has no IPv4 address");
  return ok({
    id: id.value as InstanceId, // By the pattern.
    type: type.value,
    region: region.value,
    availabilityZone: zone.value,
    vpcId: vpcId.value,
    vpcCidrs: vpcCidrs.value,
    primaryMac,
    primaryIp,
    primarySubnet: eni.value.subnetId,
    securityGroups: eni.value.securityGroups,
  });
}

/** The ENIs that are listed, those that go meanwhile left out. Never throws, whatever `read` gives. */
export async function readEnis(read: Read): Promise<Result<readonly ImdsEni[], ImdsFailure>> {
  const macs = await lines(read, MACS, (line) => {
    const mac = line.replace(/\/$/, "").toLowerCase();
    return MAC.test(mac) ? ok(mac as Mac) : err("not a MAC address"); // By the pattern.
  });
  if (!macs.ok) return macs;
  const enis: ImdsEni[] = [];
  for (const mac of macs.value) {
    const eni = await readEni(read, mac);
    if (!eni.ok) return eni;
    if (eni.value !== null) enis.push(eni.value);
  }
  return ok(enis);
}

const MACS = "meta-data/network/interfaces/macs/";
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

/** Null when IMDS no longer lists it: an ENI may be detached between the listing and this. */
async function readEni(read: Read, mac: Mac): Promise<Result<ImdsEni | null, ImdsFailure>> {
  const folder = `${MACS}${mac}/`;
  const there = await read(`${folder}interface-id`);
  if (!there.ok) return there;
  if (there.value === null) return ok(null);
  const id = there.value.trim();
  if (!/^eni-[0-9A-Za-z]{1,40}$/.test(id)) return absurd(`${folder}interface-id`, quote(id));
  const device = await item(read, `${folder}device-number`, NUMBER);
  if (!device.ok) return device;
  const card = await lines(read, `${folder}network-card`, (line) =>
    NUMBER.test(line) ? ok(Number(line)) : err("not a number"),
  );
  if (!card.ok) return card;
  const subnetId = await item(read, `${folder}subnet-id`, /^subnet-[0-9A-Za-z]{1,40}$/);
  if (!subnetId.ok) return subnetId;
  const subnetCidr = await item(read, `${folder}subnet-ipv4-cidr-block`, /./);
  if (!subnetCidr.ok) return subnetCidr;
  const cidr = cidrOf(subnetCidr.value);
  if (!cidr.ok) return absurd(`${folder}subnet-ipv4-cidr-block`, cidr.error);
  const localIps = await lines(read, `${folder}local-ipv4s`, parseIpv4);
  if (!localIps.ok) return localIps;
  const prefixes = await lines(read, `${folder}ipv4-prefix`, prefixOf);
  if (!prefixes.ok) return prefixes;
  const groups = await lines(
    read,
    `${folder}security-group-ids`,
    (line) =>
      /^sg-[0-9A-Za-z]{1,40}$/.test(line) ? ok(line as SecurityGroupId) : err("not a security group"), // By the pattern.
  );
  if (!groups.ok) return groups;
  return ok({
    id: id as EniId, // By the pattern.
    mac,
    slot: { deviceIndex: Number(device.value), networkCard: card.value[0] ?? 0 }, // Absent on types with one card.
    subnetId: subnetId.value as SubnetId, // By the pattern.
    subnetCidr: cidr.value,
    localIps: localIps.value,
    prefixes: prefixes.value,
    securityGroups: groups.value,
  });
}

const NUMBER = /^[0-9]{1,3}$/;

async function item(read: Read, path: string, pattern: RegExp): Promise<Result<string, ImdsFailure>> {
  const answer = await read(path);
  if (!answer.ok) return answer;
  if (answer.value === null) return absurd(path, "is missing");
  const text = answer.value.trim();
  return pattern.test(text) ? ok(text) : absurd(path, quote(text));
}

/** One value a line; an item that IMDS does not have is an empty list. */
async function lines<T>(
  read: Read,
  path: string,
  parse: (line: string) => Result<T, string>,
): Promise<Result<readonly T[], ImdsFailure>> {
  const answer = await read(path);
  if (!answer.ok) return answer;
  const values: T[] = [];
  for (const line of (answer.value ?? "").split("\n").map((text) => text.trim())) {
    if (line === "") continue;
    const parsed = parse(line);
    if (!parsed.ok) return absurd(path, `${quote(line)}: ${parsed.error}`);
    values.push(parsed.value);
  }
  return ok(values);
}

function cidrOf(text: string): Result<Cidr4, string> {
  return parseCidr4(text.trim());
}

function prefixOf(line: string): Result<Cidr4, string> {
  const cidr = parseCidr4(line);
  return cidr.ok && cidr.value.prefixLength !== 28 ? err("not a /28") : cidr;
}

function absurd(path: string, detail: string): { readonly ok: false; readonly error: ImdsFailure } {
  return err({ kind: "absurd", path, detail });
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
