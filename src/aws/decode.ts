/**
 * EC2's answers, as the SDK hands them over, into values of the model. Strict: what is missing or absurd is an error that names its
 * path, since a wrong belief about addresses is worse than no belief. What is unknown and extra is let through.
 */
import type { EniSeen, SubnetSeen } from "../core/model/ec2.ts";
import type { AttachmentId, EniId, EniSlot, Mac, SecurityGroupId, SubnetId } from "../core/model/eni.ts";
import type { InstanceId, InstanceLimits } from "../core/model/instance.ts";
import { type Cidr4, type Ipv4, parseCidr4, parseIpv4, printCidr4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";

/** Where the answer is wrong, and how: `NetworkInterfaces[0].MacAddress`. */
export type Absurdity = { readonly path: string; readonly problem: string };
export type Decoded<T> = Result<T, Absurdity>;

/** Thrown inside this file only, so that a decoder reads top down; `decoding` turns it into a value. */
class AbsurdAnswer extends Error {
  readonly path: string;
  constructor(path: string, problem: string) {
    super(problem);
    this.path = path;
  }
}

function decoding<T>(read: () => T): Decoded<T> {
  try {
    return ok(read());
  } catch (error) {
    if (error instanceof AbsurdAnswer) return err({ path: error.path, problem: error.message });
    throw error;
  }
}

/** One page of DescribeNetworkInterfaces, and the token of the next. */
export function decodeEniPage(answer: unknown): Decoded<Page<EniSeen>> {
  return decoding(() => page(answer, "NetworkInterfaces", eniSeen));
}

/** CreateNetworkInterface. */
export function decodeCreatedEni(answer: unknown): Decoded<EniSeen> {
  return decoding(() => eniSeen(field(object(answer, ""), "", "NetworkInterface"), "NetworkInterface"));
}

export type Page<T> = { readonly items: readonly T[]; readonly nextToken: string | null };

/** One page of DescribeSubnets. */
export function decodeSubnetPage(answer: unknown): Decoded<Page<SubnetSeen>> {
  return decoding(() => page(answer, "Subnets", subnetSeen));
}

/** The IPv4 ranges of the one VPC that DescribeVpcs was asked for; those being taken away are left out. */
export function decodeVpcCidrs(answer: unknown, vpcId: string): Decoded<readonly Cidr4[]> {
  return decoding(() => {
    const vpc = only(answer, "Vpcs", "VpcId", vpcId);
    const main = cidr(field(vpc.value, vpc.path, "CidrBlock"), `${vpc.path}.CidrBlock`);
    const found = new Map([[printCidr4(main), main]]);
    for (const [value, path] of optionalList(vpc.value, vpc.path, "CidrBlockAssociationSet")) {
      const association = object(value, path);
      const state = association["CidrBlockState"];
      const stateName = state === undefined ? "associated" : object(state, `${path}.CidrBlockState`)["State"];
      if (stateName !== "associated" && stateName !== "associating") continue;
      const block = cidr(field(association, path, "CidrBlock"), `${path}.CidrBlock`);
      found.set(printCidr4(block), block);
    }
    return [...found.values()];
  });
}

/** What DescribeInstanceTypes says of the one type that it was asked for. */
export function decodeInstanceLimits(answer: unknown, type: string): Decoded<InstanceLimits> {
  return decoding(() => {
    const { value, path } = only(answer, "InstanceTypes", "InstanceType", type);
    const networkPath = `${path}.NetworkInfo`;
    const network = object(field(value, path, "NetworkInfo"), networkPath);
    const addressesPerEni = integer(network, networkPath, "Ipv4AddressesPerInterface", {
      low: 1,
      high: 1_000,
    });
    const hypervisor = value["Hypervisor"];
    const bareMetal = value["BareMetal"] === true;
    return {
      addressesPerEni,
      networkCards: networkCards(network, networkPath),
      nitro: hypervisor === "nitro" || bareMetal, // Bare metal has no hypervisor; all of it is of the Nitro system.
    };
  });
}

function networkCards(network: Fields, path: string): readonly { readonly enis: number }[] {
  const whole = integer(network, path, "MaximumNetworkInterfaces", { low: 1, high: 1_000 });
  const listed = optionalList(network, path, "NetworkCards").map(([value, cardPath]) => {
    const card = object(value, cardPath);
    return {
      index: integer(card, cardPath, "NetworkCardIndex", { low: 0, high: 63 }),
      enis: integer(card, cardPath, "MaximumNetworkInterfaces", { low: 0, high: 1_000 }),
    };
  });
  if (listed.length === 0) return [{ enis: whole }];
  listed.sort((left, right) => left.index - right.index);
  listed.forEach((card, index) => {
    if (card.index !== index) throw new AbsurdAnswer(`${path}.NetworkCards`, "indexes are not 0, 1, 2, …");
  });
  return listed.map((card) => ({ enis: card.enis }));
}

/** AttachNetworkInterface. */
export function decodeAttachmentId(answer: unknown): Decoded<AttachmentId> {
  return decoding(() => id(object(answer, ""), "", "AttachmentId", "attachment"));
}

/**
 * AssignPrivateIpAddresses with a count of addresses: those that EC2 lists, which are the new ones only. LocalStack lists all that the ENI
 * has, its own address first; `withoutOwnAddress` takes that one out, as it must never become a pod's.
 */
export function decodeAssignedAddresses(answer: unknown, eni: EniId): Decoded<readonly Ipv4[]> {
  return decoding(() => {
    const ips = list(answerAbout(answer, eni), "", "AssignedPrivateIpAddresses").map(([value, path]) =>
      ip(field(object(value, path), path, "PrivateIpAddress"), `${path}.PrivateIpAddress`),
    );
    return unique(ips, (one) => one, "AssignedPrivateIpAddresses");
  });
}

/** AssignPrivateIpAddresses with a count of prefixes. */
export function decodeAssignedPrefixes(answer: unknown, eni: EniId): Decoded<readonly Cidr4[]> {
  return decoding(() => prefixes(answerAbout(answer, eni), "", "AssignedIpv4Prefixes", list));
}

function answerAbout(answer: unknown, eni: EniId): Fields {
  const fields = object(answer, "");
  const about = id(fields, "", "NetworkInterfaceId", "eni");
  if (about !== eni) throw new AbsurdAnswer("NetworkInterfaceId", `is ${about}, but ${eni} was asked about`);
  return fields;
}

function eniSeen(value: unknown, path: string): EniSeen {
  const fields = object(value, path);
  const ips = privateIps(fields, path);
  return {
    id: id(fields, path, "NetworkInterfaceId", "eni"),
    mac: mac(fields, path, "MacAddress"),
    status: oneOf(fields, path, "Status", eniStatuses),
    subnetId: id(fields, path, "SubnetId", "subnet"),
    description: optionalText(fields, path, "Description") ?? "",
    interfaceType: text(fields, path, "InterfaceType"),
    requesterManaged: optionalBoolean(fields, path, "RequesterManaged") ?? false,
    securityGroups: optionalList(fields, path, "Groups").map(([group, groupPath]) =>
      id(object(group, groupPath), groupPath, "GroupId", "group"),
    ),
    tags: tags(fields, path),
    primaryIp: ips.primary,
    secondaryIps: ips.secondary,
    prefixes: prefixes(fields, path, "Ipv4Prefixes", optionalList),
    attachment: attachment(fields, path),
  };
}

const eniStatuses = ["pending", "available", "associated", "attaching", "in-use", "detaching"] as const;
const attachmentStatuses = ["attaching", "attached", "detaching", "detached"] as const;

/** Exactly one address is the ENI's own, or there is none at all (an ENI of an IPv6-only subnet). */
function privateIps(fields: Fields, path: string): { primary: Ipv4 | null; secondary: readonly Ipv4[] } {
  const listPath = `${path}.PrivateIpAddresses`;
  const rows = optionalList(fields, path, "PrivateIpAddresses").map(([value, rowPath]) => {
    const row = object(value, rowPath);
    return {
      ip: ip(field(row, rowPath, "PrivateIpAddress"), `${rowPath}.PrivateIpAddress`),
      primary: boolean(row, rowPath, "Primary"),
    };
  });
  unique(rows, (row) => row.ip, listPath);
  const primaries = rows.filter((row) => row.primary);
  const primary = primaries[0]?.ip ?? null;
  const named = optionalText(fields, path, "PrivateIpAddress");
  if (primaries.length > 1) throw new AbsurdAnswer(listPath, "more than one address is primary");
  if (primary === null && rows.length > 0) throw new AbsurdAnswer(listPath, "no address is primary");
  if (named !== null && named !== "" && named !== primary) {
    throw new AbsurdAnswer(
      `${path}.PrivateIpAddress`,
      `is ${quote(named)}, but ${quote(primary)} is listed as primary`,
    );
  }
  return { primary, secondary: rows.filter((row) => !row.primary).map((row) => row.ip) };
}

function attachment(fields: Fields, path: string): EniSeen["attachment"] {
  const value = fields["Attachment"];
  if (value === undefined || value === null) return null;
  const attachmentPath = `${path}.Attachment`;
  const inner = object(value, attachmentPath);
  if (Object.keys(inner).length === 0) return null; // An empty element: the ENI hangs on nothing.
  const instance = optionalText(inner, attachmentPath, "InstanceId");
  return {
    id: id(inner, attachmentPath, "AttachmentId", "attachment"),
    // A service's attachment (a load balancer's, say) has an owner and no instance of ours to see.
    instanceId:
      instance === null || instance === "" ? null : id(inner, attachmentPath, "InstanceId", "instance"),
    slot: slot(inner, attachmentPath),
    status: oneOf(inner, attachmentPath, "Status", attachmentStatuses),
    deleteOnTermination: boolean(inner, attachmentPath, "DeleteOnTermination"),
  };
}

function slot(fields: Fields, path: string): EniSlot {
  return {
    deviceIndex: integer(fields, path, "DeviceIndex", { low: 0, high: 1_000 }),
    // Absent where an endpoint knows only instances with one card.
    networkCard:
      fields["NetworkCardIndex"] === undefined
        ? 0
        : integer(fields, path, "NetworkCardIndex", { low: 0, high: 63 }),
  };
}

function subnetSeen(value: unknown, path: string): SubnetSeen {
  const fields = object(value, path);
  return {
    id: id(fields, path, "SubnetId", "subnet"),
    cidr: cidr(field(fields, path, "CidrBlock"), `${path}.CidrBlock`),
    // LocalStack lets it go below zero; a subnet with less than nothing has nothing.
    availableAddressCount: Math.max(
      0,
      integer(fields, path, "AvailableIpAddressCount", { low: -65_536, high: 65_536 }),
    ),
    availabilityZone: text(fields, path, "AvailabilityZone"),
    tags: tags(fields, path, "Tags"),
  };
}

function tags(fields: Fields, path: string, name: "TagSet" | "Tags" = "TagSet"): ReadonlyMap<string, string> {
  return new Map(
    optionalList(fields, path, name).map(([value, tagPath]) => {
      const tag = object(value, tagPath);
      return [text(tag, tagPath, "Key"), optionalText(tag, tagPath, "Value") ?? ""];
    }),
  );
}

/** A delegated prefix of IPv4 is a /28; any other length would make us give out addresses that nobody delegated. */
function prefixes(fields: Fields, path: string, name: string, read: typeof list): readonly Cidr4[] {
  const listPath = path === "" ? name : `${path}.${name}`;
  const found = read(fields, path, name).map(([value, rowPath]) => {
    const prefixPath = `${rowPath}.Ipv4Prefix`;
    const prefix = cidr(field(object(value, rowPath), rowPath, "Ipv4Prefix"), prefixPath);
    if (prefix.prefixLength !== 28) throw new AbsurdAnswer(prefixPath, `is ${printCidr4(prefix)}, not a /28`);
    return prefix;
  });
  return unique(found, printCidr4, listPath);
}

// The readers below know nothing of EC2.

type Fields = Readonly<Record<string, unknown>>;

function object(value: unknown, path: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new AbsurdAnswer(path === "" ? "answer" : path, `is ${quote(value)}, not an object`);
  }
  return value as Fields; // Checked in the line above: any object can be read by name.
}

function field(fields: Fields, path: string, name: string): unknown {
  const value = fields[name];
  if (value === undefined || value === null) throw new AbsurdAnswer(join(path, name), "is missing");
  return value;
}

function text(fields: Fields, path: string, name: string): string {
  const value = field(fields, path, name);
  if (typeof value !== "string" || value === "") {
    throw new AbsurdAnswer(join(path, name), `is ${quote(value)}, not a text`);
  }
  return value;
}

function optionalText(fields: Fields, path: string, name: string): string | null {
  const value = fields[name];
  if (value === undefined || value === null) return null;
  if (typeof value !== "string") throw new AbsurdAnswer(join(path, name), `is ${quote(value)}, not a text`);
  return value;
}

function boolean(fields: Fields, path: string, name: string): boolean {
  const value = field(fields, path, name);
  if (typeof value !== "boolean")
    throw new AbsurdAnswer(join(path, name), `is ${quote(value)}, neither true nor false`);
  return value;
}

function optionalBoolean(fields: Fields, path: string, name: string): boolean | null {
  return fields[name] === undefined || fields[name] === null ? null : boolean(fields, path, name);
}

function integer(fields: Fields, path: string, name: string, range: { low: number; high: number }): number {
  const value = field(fields, path, name);
  if (typeof value !== "number" || !Number.isInteger(value) || value < range.low || value > range.high) {
    throw new AbsurdAnswer(
      join(path, name),
      `is ${quote(value)}, not a whole number in ${range.low}..${range.high}`,
    );
  }
  return value;
}

function oneOf<T extends string>(fields: Fields, path: string, name: string, known: readonly T[]): T {
  const value = text(fields, path, name);
  const found = known.find((one) => one === value);
  if (found === undefined)
    throw new AbsurdAnswer(join(path, name), `is ${quote(value)}, none of ${known.join(", ")}`);
  return found;
}

type Ids = {
  readonly eni: EniId;
  readonly attachment: AttachmentId;
  readonly subnet: SubnetId;
  readonly group: SecurityGroupId;
  readonly instance: InstanceId;
};

const idPrefixes: Readonly<Record<keyof Ids, RegExp>> = {
  eni: /^eni-/,
  attachment: /^(eni|ela)-attach-/, // A service's attachment is an `ela-attach`.
  subnet: /^subnet-/,
  group: /^sg-/,
  instance: /^i-/,
};

/** An id is opaque but for its kind's prefix; it goes into logs, links' aliases and requests, so odd characters are refused. */
function id<K extends keyof Ids>(fields: Fields, path: string, name: string, kind: K): Ids[K] {
  const value = text(fields, path, name);
  if (!idPrefixes[kind].test(value) || !/^[0-9A-Za-z-]{3,64}$/.test(value)) {
    throw new AbsurdAnswer(join(path, name), `is ${quote(value)}, not an id of that kind`);
  }
  return value as Ids[K]; // The kind's prefix is what makes it one.
}

function mac(fields: Fields, path: string, name: string): Mac {
  const value = text(fields, path, name).toLowerCase();
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(value)) {
    throw new AbsurdAnswer(join(path, name), `is ${quote(value)}, not a MAC address`);
  }
  return value as Mac; // Lower case with colons, by the pattern.
}

function ip(value: unknown, path: string): Ipv4 {
  const parsed = parseIpv4(typeof value === "string" ? value : "");
  if (!parsed.ok) throw new AbsurdAnswer(path, `is ${quote(value)}, not an IPv4 address`);
  return parsed.value;
}

function cidr(value: unknown, path: string): Cidr4 {
  const parsed = parseCidr4(typeof value === "string" ? value : "");
  if (!parsed.ok) throw new AbsurdAnswer(path, `is ${quote(value)}: ${parsed.error}`);
  return parsed.value;
}

type Rows = readonly (readonly [value: unknown, path: string])[];

function list(fields: Fields, path: string, name: string): Rows {
  const value = field(fields, path, name);
  if (!Array.isArray(value)) throw new AbsurdAnswer(join(path, name), `is ${quote(value)}, not a list`);
  return value.map((row: unknown, index) => [row, `${join(path, name)}[${index}]`] as const);
}

/** EC2 leaves out a list that is empty. */
function optionalList(fields: Fields, path: string, name: string): Rows {
  return fields[name] === undefined || fields[name] === null ? [] : list(fields, path, name);
}

function page<T>(answer: unknown, name: string, read: (value: unknown, path: string) => T): Page<T> {
  const fields = object(answer, "");
  const items = list(fields, "", name).map(([value, path]) => read(value, path));
  const nextToken = optionalText(fields, "", "NextToken");
  return { items, nextToken: nextToken === "" ? null : nextToken };
}

/** The row of `name` whose `key` is what was asked for. */
function only(answer: unknown, name: string, key: string, wanted: string): { value: Fields; path: string } {
  for (const [value, path] of list(object(answer, ""), "", name)) {
    const fields = object(value, path);
    if (fields[key] === wanted) return { value: fields, path };
  }
  throw new AbsurdAnswer(name, `has no ${key} ${quote(wanted)}`);
}

function unique<T>(values: readonly T[], key: (value: T) => string, path: string): readonly T[] {
  const seen = new Set<string>();
  for (const value of values) {
    if (seen.has(key(value))) throw new AbsurdAnswer(path, `lists ${key(value)} twice`);
    seen.add(key(value));
  }
  return values;
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function quote(value: unknown): string {
  const printed = value === undefined ? "undefined" : JSON.stringify(value);
  return printed.length > 80 ? `${printed.slice(0, 80)}…` : printed;
}
