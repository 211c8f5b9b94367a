/** EC2's token buckets: one an action, lazily refilled; a refused call costs nothing. */
import { expect, test } from "vitest";
import { fullBucket, takeToken } from "../../src/emulator/token-bucket.ts";
import { instant } from "../../src/lib/time.ts";
import { call, oneNode } from "./support.ts";

const throttledOptions = { buckets: { scale: 1, drained: 0 } };

test("the 101st assign at once is throttled with 503, and 5 a second go on", async () => {
  const { emulator, clock, eniId } = oneNode({ options: throttledOptions });
  const assign = () =>
    call(emulator, "AssignPrivateIpAddresses", {
      NetworkInterfaceId: eniId,
      "PrivateIpAddress.1": "10.0.0.40",
    });
  for (let i = 0; i < 100; i += 1) expect((await assign()).status).toBe(200);
  const refused = await assign();
  expect(refused).toMatchObject({
    code: "RequestLimitExceeded",
    status: 503,
    message: "Request limit exceeded.",
  });
  for (let i = 0; i < 50; i += 1) await assign(); // Refused calls take no token.
  await clock.advance(1_000);
  const statuses: number[] = [];
  for (let i = 0; i < 6; i += 1) statuses.push((await assign()).status);
  expect(statuses).toEqual([200, 200, 200, 200, 200, 503]);
});

test("actions have their own buckets, and an unfiltered describe has a smaller one", async () => {
  const { emulator, instanceId } = oneNode({ options: throttledOptions });
  const until = async (action: string, parameters: Record<string, string>): Promise<number> => {
    for (let calls = 0; ; calls += 1)
      if ((await call(emulator, action, parameters)).status === 503) return calls;
  };
  const detach = { AttachmentId: "eni-attach-0123456789abcdef0" };
  expect(await until("DescribeInstances", {})).toBe(50);
  expect(await until("DescribeInstances", { "InstanceId.1": instanceId })).toBe(100);
  expect(await until("DetachNetworkInterface", detach)).toBe(50); // A throttled bad request says throttled.
  expect(await until("CreateTags", {})).toBe(100);
  expect(await until("DescribeSubnets", {})).toBe(100);
});

test("scale and other tenants change every bucket", async () => {
  const { emulator } = oneNode({ options: { buckets: { scale: 2, drained: 0.6 } } });
  let calls = 0;
  while ((await call(emulator, "DetachNetworkInterface", { AttachmentId: "eni-attach-0" })).status !== 503)
    calls += 1;
  expect(calls).toBe(40);
});

test("a fraction of a second refills a fraction of a token, not more than the bucket holds", () => {
  let bucket = fullBucket({ capacity: 1, refillPerSecond: 0.3 }, instant(0));
  bucket = takeToken(bucket, instant(0)) ?? bucket;
  expect(takeToken(bucket, instant(3_300))).toBeNull();
  expect(takeToken(bucket, instant(3_334))).not.toBeNull();
  const late = takeToken(bucket, instant(1_000_000));
  expect(late?.tokens).toBe(0);
});

test("metrics count calls, refusals by code, faults, and show bucket levels", async () => {
  const { emulator, eniId } = oneNode({ options: throttledOptions });
  emulator.fault({ kind: "throttle", action: "DescribeVpcs" });
  await call(emulator, "DescribeVpcs");
  await call(emulator, "DeleteNetworkInterface", { NetworkInterfaceId: eniId });
  await call(emulator, "NoSuchAction");
  const text = emulator.metricsText();
  expect(text).toContain('emulator_calls_total{action="DescribeVpcs"} 1\n');
  expect(text).toContain('emulator_refusals_total{action="DescribeVpcs",code="RequestLimitExceeded"} 1\n');
  expect(text).toContain(
    'emulator_refusals_total{action="DeleteNetworkInterface",code="InvalidParameterValue"} 1\n',
  );
  expect(text).toContain('emulator_refusals_total{action="unknown",code="InvalidAction"} 1\n');
  expect(text).toContain('emulator_faults_total{kind="throttle"} 1\n');
  expect(text).toContain('emulator_bucket_tokens{bucket="DeleteNetworkInterface"} 99\n');
});
