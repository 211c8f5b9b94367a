/** What the environment says about reaching AWS: endpoints, region, proxies, certificates. Read once; all mistakes told at once. */
import { readFileSync } from "node:fs";
import { err, ok, type Result } from "../lib/result.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export type AwsEnvironment = {
  /** Null: EC2's own endpoint of the region. */
  readonly ec2Endpoint: string | null;
  readonly stsEndpoint: string | null;
  readonly imdsEndpoint: string;
  /** Null: ask IMDS. */
  readonly region: string | null;
  /** Given to Node's agents, which understand HTTPS_PROXY, HTTP_PROXY and NO_PROXY in either case. */
  readonly proxies: Readonly<Record<string, string>>;
  /** PEM texts to trust beside the usual authorities. */
  readonly caBundles: readonly string[];
};

const IMDS_IPV4 = "http://169.254.169.254";
const IMDS_IPV6 = "http://[fd00:ec2::254]";

/**
 * The first of these that is set and not empty wins for EC2: AWS_ENDPOINT_URL_EC2, AWS_EC2_ENDPOINT (the incumbent's name), AWS_ENDPOINT_URL.
 * AWS_CA_BUNDLE and NODE_EXTRA_CA_CERTS add to the usual authorities rather than replace them: a node that reaches EC2 through an
 * inspecting proxy may reach a VPC endpoint without it.
 */
export function readAwsEnvironment(environment: Environment): Result<AwsEnvironment, readonly string[]> {
  const problems: string[] = [];
  const firstUrl = (names: readonly string[]): string | null => {
    for (const name of names) {
      const value = environment[name]?.trim() ?? "";
      if (value === "") continue;
      const url = httpUrl(value);
      if (url === null) problems.push(`${name} is ${JSON.stringify(value)}, not an http or https URL`);
      return url;
    }
    return null;
  };
  const read = {
    ec2Endpoint: firstUrl(["AWS_ENDPOINT_URL_EC2", "AWS_EC2_ENDPOINT", "AWS_ENDPOINT_URL"]),
    stsEndpoint: firstUrl(["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]),
    imdsEndpoint: firstUrl(["AWS_EC2_METADATA_SERVICE_ENDPOINT"]) ?? imdsByMode(environment, problems),
    region: nonEmpty(environment["AWS_REGION"]) ?? nonEmpty(environment["AWS_DEFAULT_REGION"]),
    proxies: proxiesOf(environment, problems),
    caBundles: ["AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"].flatMap((name) =>
      bundleOf(environment, name, problems),
    ),
  };
  return problems.length > 0 ? err(problems) : ok(read);
}

function imdsByMode(environment: Environment, problems: string[]): string {
  const mode = nonEmpty(environment["AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"])?.toLowerCase() ?? "ipv4";
  if (mode === "ipv6") return IMDS_IPV6;
  if (mode !== "ipv4") {
    problems.push(`AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is ${JSON.stringify(mode)}, neither IPv4 nor IPv6`);
  }
  return IMDS_IPV4;
}

/** A proxy without a scheme (`proxy:3128`) is common and means http. */
function proxiesOf(environment: Environment, problems: string[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"]) {
    const value = nonEmpty(environment[name.toLowerCase()]) ?? nonEmpty(environment[name]);
    if (value === null) continue;
    const full = name === "NO_PROXY" || value.includes("://") ? value : `http://${value}`;
    if (name !== "NO_PROXY" && httpUrl(full) === null) {
      problems.push(`${name} is ${JSON.stringify(withoutPassword(value))}, not an http or https URL`);
      continue;
    }
    found[name] = full;
  }
  return found;
}

function bundleOf(environment: Environment, name: string, problems: string[]): readonly string[] {
  const path = nonEmpty(environment[name]);
  if (path === null) return [];
  try {
    const pem = readFileSync(path, "utf8");
    if (pem.includes("-----BEGIN CERTIFICATE-----")) return [pem];
    problems.push(`${name}: ${path} holds no certificate`);
  } catch (error) {
    problems.push(
      `${name}: ${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  return [];
}

function httpUrl(text: string): string | null {
  const url = URL.canParse(text) ? new URL(text) : null;
  return url !== null && (url.protocol === "http:" || url.protocol === "https:") && url.hostname !== ""
    ? text.replace(/\/+$/, "")
    : null;
}

function nonEmpty(text: string | undefined): string | null {
  const trimmed = text?.trim() ?? "";
  return trimmed === "" ? null : trimmed;
}

function withoutPassword(text: string): string {
  return text.replace(/\/\/[^@/]*@/, "//…@");
}
