/** The emulator's own world on the fabric: EC2 calls make links and deliver packets. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { createEmulator, type Emulator } from "../../src/emulator/emulator.ts";
import { attachFabric } from "../../src/emulator/fabric/attach.ts";
import { createFabric, type Fabric } from "../../src/emulator/fabric/fabric.ts";
import type { Launched } from "../../src/emulator/seeder.ts";
import { cidr4 } from "../../src/lib/ip.ts";
import { call, texts } from "../emulator/support.ts";
import { ip, output, pings } from "./fabric-tools.ts";

let emulator: Emulator;
let fabric: Fabric;
let subnetId: string;
let one: Launched;
let two: Launched;
const failures: unknown[] = [];

beforeEach(async () => {
  emulator = createEmulator();
  fabric = await createFabric({ prefix: "w", vpcCidrs: [cidr4("10.0.0.0/16")] });
  attachFabric(emulator, fabric, (failure) => failures.push(failure));
  const { vpcId } = emulator.seed.vpc({ cidrs: ["10.0.0.0/16"] });
  subnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.0.0/24" });
  one = emulator.seed.launch({ type: "m5.large", subnetId });
  two = emulator.seed.launch({ type: "m5.large", subnetId });
  await fabric.addNode({ instanceId: one.instanceId, netns: "wn1" });
  await fabric.addNode({ instanceId: two.instanceId, netns: "wn2" });
});

afterEach(async () => {
  await emulator.close();
  await fabric.close();
  expect(failures).toEqual([]);
});

test("an attached ENI appears in its instance's namespace, receives what is assigned to it, and goes with the detach", async () => {
  expect(pings("wn1", two.primary)).toBe(true);

  const created = await call(emulator, "CreateNetworkInterface", {
    SubnetId: subnetId,
    SecondaryPrivateIpAddressCount: 1,
  });
  const [eniId = ""] = texts(created.body, "networkInterfaceId");
  const [own = ""] = texts(created.body, "privateIpAddress");
  const [mac] = texts(created.body, "macAddress");
  const slot = { NetworkInterfaceId: eniId, InstanceId: one.instanceId, DeviceIndex: 1 };
  const [attachmentId = ""] = texts(
    (await call(emulator, "AttachNetworkInterface", slot)).body,
    "attachmentId",
  );
  await expect.poll(() => linkNames("wn1")).toContain("eth1");
  expect(output("wn1", ["ip", "link", "show", "eth1"])).toContain(String(mac));

  const assigned = await call(emulator, "AssignPrivateIpAddresses", {
    NetworkInterfaceId: eniId,
    Ipv4PrefixCount: 1,
  });
  const [prefix = ""] = texts(assigned.body, "ipv4Prefix");
  const inside = prefix.replace(/\d+\/28$/, (end) => String(Number.parseInt(end, 10) + 7));
  // A link without any address takes nothing in, loose as its rp_filter may be.
  ip("wn1", [
    "link set eth1 up",
    `address add ${own}/24 dev eth1 noprefixroute`,
    `address add ${inside}/32 dev lo`,
  ]);
  output("wn1", ["sh", "-c", "echo 2 >/proc/sys/net/ipv4/conf/all/rp_filter"]);
  await fabric.settled();
  expect(pings("wn2", inside)).toBe(false); // It arrives; the answer (first, its ARP) leaves by the primary ENI, which must not use that address.
  expect(await fabric.spoofedFrames()).toContainEqual(
    expect.objectContaining({ eniId: one.eniId, ip: inside }),
  );

  await call(emulator, "DetachNetworkInterface", { AttachmentId: attachmentId });
  await expect.poll(() => linkNames("wn1")).not.toContain("eth1");
});

function linkNames(netns: string): readonly string[] {
  return (JSON.parse(output(netns, ["ip", "-j", "link"])) as { ifname: string }[]).map(
    ({ ifname }) => ifname,
  );
}
