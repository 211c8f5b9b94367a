/** Bundled and run by credentials.test.ts: describes the node's ENIs twice by what its environment says, and prints both answers as JSON. */
import { createEc2 } from "../../src/aws/ec2-client.ts";
import { readAwsEnvironment } from "../../src/aws/environment.ts";
import { createImds } from "../../src/aws/imds.ts";
import type { InstanceId } from "../../src/core/model/instance.ts";
import { instant } from "../../src/lib/time.ts";

export type ProbeAnswer = {
  readonly source: string;
  readonly first: unknown;
  readonly second: unknown;
  readonly loadedMs: number;
};

const aws = readAwsEnvironment(process.env);
if (!aws.ok) throw new Error(aws.error.join("; "));
const imds = createImds({ endpoint: aws.value.imdsEndpoint, random: Math.random });
const ec2 = createEc2({
  environment: process.env,
  aws: aws.value,
  imds,
  version: "0.0.0",
  clusterName: null,
  additionalTags: new Map(),
  now: () => instant(performance.now()),
  random: Math.random,
});
const before = performance.now();
await ec2.warmUp();
const loadedMs = performance.now() - before;
const instance = "i-0123456789abcdef0" as InstanceId; // The scripted server takes any.
const first = await ec2.describeInstanceEnis(instance);
const second = await ec2.describeInstanceEnis(instance);
ec2.close();
imds.close();
const answer: ProbeAnswer = { source: ec2.credentialsSource, first, second, loadedMs };
process.stdout.write(JSON.stringify(answer));
