/** An EC2 client on a scripted server, with everything a test may want to say of it. */
import type { Ec2CallSeen } from "../../src/aws/caller.ts";
import { createEc2, type Ec2Edge, type Ec2Options } from "../../src/aws/ec2-client.ts";
import { type Environment, readAwsEnvironment } from "../../src/aws/environment.ts";
import { createImds, type ImdsEdge } from "../../src/aws/imds.ts";
import { instant } from "../../src/lib/time.ts";

export type Rig = {
  readonly ec2: Ec2Edge;
  readonly imds: ImdsEdge;
  readonly calls: Ec2CallSeen[];
  readonly close: () => void;
};

export const keys = {
  AWS_ACCESS_KEY_ID: "AKIDTEST",
  AWS_SECRET_ACCESS_KEY: "secret",
  AWS_REGION: "eu-west-1",
};

/** Waits between attempts are skipped: they have a test of their own. */
export function rig(environment: Environment, more: Partial<Ec2Options> = {}): Rig {
  const aws = readAwsEnvironment(environment);
  if (!aws.ok) throw new Error(aws.error.join("; "));
  const imds = createImds({ endpoint: aws.value.imdsEndpoint, random: () => 0, timeoutMs: 500, attempts: 2 });
  const calls: Ec2CallSeen[] = [];
  const ec2 = createEc2({
    environment,
    aws: aws.value,
    imds,
    version: "1.2.3",
    clusterName: "shop",
    additionalTags: new Map([["team", "blue"]]),
    now: () => instant(performance.now()),
    random: () => 0,
    sleep: () => Promise.resolve(),
    onCall: (seen) => calls.push(seen),
    ...more,
  });
  return {
    ec2,
    imds,
    calls,
    close() {
      ec2.close();
      imds.close();
    },
  };
}
