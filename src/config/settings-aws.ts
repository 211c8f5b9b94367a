/**
 * Variables of the AWS SDKs that Berth honours. `aws/environment.ts` and `aws/credentials.ts` read and judge them; they are listed here so
 * that the reference page has every variable, and so that a misspelt one finds its right name. None of them is in `Config`.
 */
export type AwsVariable = { readonly name: string; readonly meaning: string };

export const AWS_VARIABLES: readonly AwsVariable[] = [
  { name: "AWS_ENDPOINT_URL_EC2", meaning: "EC2 is called here and not at the Region's own endpoint." },
  {
    name: "AWS_EC2_ENDPOINT",
    meaning: "The incumbent's name for the same; AWS_ENDPOINT_URL_EC2 goes before it.",
  },
  { name: "AWS_ENDPOINT_URL_STS", meaning: "STS is called here, for web identities." },
  { name: "AWS_ENDPOINT_URL", meaning: "For both, where neither of those is set." },
  {
    name: "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    meaning: "The instance metadata service; default http://169.254.169.254.",
  },
  {
    name: "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    meaning: "IPv4 or IPv6: which of its addresses, where no endpoint is set.",
  },
  { name: "AWS_REGION", meaning: "The Region; not set: the instance metadata service tells it." },
  { name: "AWS_DEFAULT_REGION", meaning: "The same, after AWS_REGION." },
  { name: "AWS_CA_BUNDLE", meaning: "A PEM file of certificate authorities, trusted beside the usual ones." },
  { name: "NODE_EXTRA_CA_CERTS", meaning: "The same, by Node.js's name." },
  { name: "HTTPS_PROXY", meaning: "The proxy for https calls to AWS; in lower case too." },
  { name: "HTTP_PROXY", meaning: "The proxy for http calls to AWS; in lower case too." },
  { name: "NO_PROXY", meaning: "Hosts that are called without the proxy; in lower case too." },
  { name: "AWS_ACCESS_KEY_ID", meaning: "Credentials from the environment, first in turn." },
  { name: "AWS_SECRET_ACCESS_KEY", meaning: "Their secret." },
  { name: "AWS_SESSION_TOKEN", meaning: "Their session." },
  { name: "AWS_WEB_IDENTITY_TOKEN_FILE", meaning: "A web identity (IAM roles for service accounts)." },
  { name: "AWS_ROLE_ARN", meaning: "The role that it is exchanged for." },
  { name: "AWS_ROLE_SESSION_NAME", meaning: "The name of that session." },
  {
    name: "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    meaning: "EKS Pod Identity: where credentials are handed out.",
  },
  {
    name: "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    meaning: "The same, below the container service's own address.",
  },
  { name: "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", meaning: "The token that is shown there." },
  { name: "AWS_CONTAINER_AUTHORIZATION_TOKEN", meaning: "The token itself." },
];
