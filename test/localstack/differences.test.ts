/** Each difference between LocalStack and EC2, shown: what LocalStack does, and that our emulator does what EC2 does. */
import {
  AssignPrivateIpAddressesCommand,
  CreateNetworkInterfaceCommand,
  EC2Client,
} from "@aws-sdk/client-ec2";
import { describe, expect, inject, test } from "vitest";
import { freshAccount, launch, REGION, said, seedNetwork, seedSubnet } from "../../localstack/seed.ts";
import { startLocalStack } from "../../localstack/start.ts";
import { createEmulator } from "../../src/emulator/emulator.ts";
import type { EniId } from "../../src/core/model/eni.ts";
import { rig } from "../aws/setup.ts";
import { DIFFERENCES, differencesPage, type Stage } from "./differences.ts";
import { localStackUrl } from "./lab.ts";

const missing = "missing" in inject("localstack");

describe.skipIf(missing)("difference", () => {
  for (const { call, asked, observe, localstack, ec2 } of DIFFERENCES) {
    test(`${call}, ${asked}: LocalStack says ${localstack}, EC2 ${ec2}`, async () => {
      expect(localstack, "or it is no difference").not.toBe(ec2);
      expect(await onLocalStack(observe), "LocalStack").toBe(localstack);
      expect(await onEmulator(observe), "our emulator").toBe(ec2);
    });
  }

  test("AssignPrivateIpAddresses, more, where the ENI has every address of its subnet: LocalStack never answers, and the daemon's own deadline cuts the call", async () => {
    const started = await startLocalStack(); // Of its own: it is of no use afterwards.
    if (!started.ok) throw new Error(started.error);
    const account = freshAccount(started.value.url);
    const network = await seedNetwork(account);
    const small = await seedSubnet(account, network, "10.1.0.0/28");
    const made = await account.ec2.send(new CreateNetworkInterfaceCommand({ SubnetId: small }));
    const eni = said(made.NetworkInterface?.NetworkInterfaceId);
    const many = { NetworkInterfaceId: eni, SecondaryPrivateIpAddressCount: 200 }; // All sixteen are among them.
    await account.ec2.send(new AssignPrivateIpAddressesCommand(many));
    const keys = { AWS_ACCESS_KEY_ID: account.id, AWS_SECRET_ACCESS_KEY: "unchecked", AWS_REGION: REGION };
    const { ec2, close } = rig(
      { ...keys, AWS_ENDPOINT_URL_EC2: started.value.url },
      { requestTimeoutMs: 2_000 },
    );
    const assigned = await ec2.assignAddresses(eni as EniId, 3);
    expect(assigned).toMatchObject({ ok: false, error: { kind: "in-doubt", code: "Timeout" } });
    close();
    account.ec2.destroy();
    await started.value.kill();
  });
});

test("localstack/differences.md is what the rows make", async () => {
  await expect(differencesPage()).toMatchFileSnapshot("../../localstack/differences.md");
});

async function onLocalStack(observe: (stage: Stage) => Promise<string>): Promise<string> {
  const account = freshAccount(localStackUrl());
  const network = await seedNetwork(account, "10.0.0.0/20");
  const smallSubnetId = await seedSubnet(account, network, "10.0.64.0/28");
  const { instanceId } = await launch(account, network, { type: "m5.large", primary: "10.0.4.10" });
  const other = await launch(account, network, { type: "m5.large", primary: "10.0.4.11" });
  const { ec2 } = account;
  const stage = {
    ec2,
    subnetId: network.subnetId,
    smallSubnetId,
    instanceId,
    otherInstanceId: other.instanceId,
  };
  const seen = await observe({ ...stage, settle: async () => {} });
  ec2.destroy();
  return seen;
}

async function onEmulator(observe: (stage: Stage) => Promise<string>): Promise<string> {
  const emulator = createEmulator();
  const { vpcId } = emulator.seed.vpc({ cidrs: ["10.0.0.0/16"] });
  const subnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.0.0/20" });
  const smallSubnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.64.0/28" });
  const [one, two] = ["10.0.4.10", "10.0.4.11"].map((primary) =>
    emulator.seed.launch({ type: "m5.large", subnetId, primary }),
  );
  const { url } = await emulator.listen();
  const credentials = { accessKeyId: "AKIATEST", secretAccessKey: "unchecked" };
  const ec2 = new EC2Client({ endpoint: url, region: REGION, maxAttempts: 1, credentials });
  const settle = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 20)); // All its times are zero.
  const ids = { instanceId: one?.instanceId ?? "", otherInstanceId: two?.instanceId ?? "" };
  const seen = await observe({ ec2, subnetId, smallSubnetId, ...ids, settle });
  ec2.destroy();
  await emulator.close();
  return seen;
}
