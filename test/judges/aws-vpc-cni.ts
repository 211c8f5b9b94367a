/** The AWS VPC CNI, the incumbent, built from its published source: daemon and plugin, unchanged. Their versions must be equal, or calls are refused. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { GoProgram } from "./go-program.ts";

export const AWS_VPC_CNI_VERSION = "1.23.2";

const MODULE = join(dirname(fileURLToPath(import.meta.url)), "aws-vpc-cni");
const SOURCE = "github.com/aws/amazon-vpc-cni-k8s";

/** Two and a half minutes for both where Go's caches are empty; the plugin is one of them. */
export const AWS_CNI_PLUGIN: GoProgram = {
  name: "aws-cni",
  module: MODULE,
  package: `${SOURCE}/cmd/routed-eni-cni-plugin`,
  stamps: { "main.version": `v${AWS_VPC_CNI_VERSION}` },
};

export const AWS_CNI_DAEMON: GoProgram = {
  name: "aws-k8s-agent",
  module: MODULE,
  package: `${SOURCE}/cmd/aws-k8s-agent`,
  stamps: { [`${SOURCE}/pkg/version.Version`]: `v${AWS_VPC_CNI_VERSION}` },
};
