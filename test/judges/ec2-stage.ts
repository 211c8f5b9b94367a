/**
 * Our emulator as a foreign EC2 client meets it: over HTTP, in a world with all that the clients ask for. Everything that it answers is
 * written down, so that the answers can be walked beside botocore's model afterwards.
 */
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEmulator, type Emulator, type EmulatorOptions } from "../../src/emulator/emulator.ts";

export type Ec2Stage = {
  readonly emulator: Emulator;
  /** What a client is told of the world, in its environment as JUDGE_SEED. */
  readonly seed: Readonly<Record<string, string>>;
  /** One JSON object a line: action, status, body. */
  readonly recordFile: string;
  readonly close: () => Promise<void>;
};

export async function createEc2Stage(options: EmulatorOptions = {}): Promise<Ec2Stage> {
  const folder = mkdtempSync(join(tmpdir(), "berth-judges-"));
  const recordFile = join(folder, "answers");
  const emulator = createEmulator(options);
  const { vpcId, groupId } = emulator.seed.vpc({
    cidrs: ["10.0.0.0/16", "10.1.0.0/16"],
    tags: { Name: "judged" },
  });
  const subnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.0.0/20", tags: { role: "pods" } });
  const spareSubnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.32.0/24" });
  const lastSubnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.48.0/28" }); // To be deleted.
  const lastGroupId = emulator.seed.securityGroup({ vpcId, name: "last" });
  const strange = emulator.seed.vpc({ cidrs: ["10.9.0.0/16"] });
  const { instanceId } = emulator.seed.launch({
    type: "m5.large",
    subnetId,
    primary: "10.0.2.10",
    prefixCount: 1,
  });
  const { url } = await emulator.listen();
  const target = new URL(url);

  const recorder = createServer((asked, answer) => {
    const body: Buffer[] = [];
    asked.on("data", (chunk: Buffer) => body.push(chunk));
    asked.on("end", () => {
      const text = Buffer.concat(body);
      const { method, url: path, headers } = asked;
      const onward = httpRequest(
        { host: target.hostname, port: target.port, method, path, headers },
        (incoming) => {
          const chunks: Buffer[] = [];
          incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
          incoming.on("end", () => {
            const whole = Buffer.concat(chunks);
            const action = new URLSearchParams(text.toString("utf8")).get("Action") ?? "";
            const status = incoming.statusCode ?? 0;
            appendFileSync(
              recordFile,
              `${JSON.stringify({ action, status, body: whole.toString("utf8") })}\n`,
            );
            answer.writeHead(status, incoming.headers).end(whole);
          });
        },
      );
      onward.on("error", () => answer.destroy()); // A lost answer is lost here, too.
      onward.end(text);
    });
  });
  await new Promise<void>((resolve) => recorder.listen(0, "127.0.0.1", resolve));
  const { port } = recorder.address() as AddressInfo; // A TCP server that listens has one.
  return {
    emulator,
    seed: {
      url: `http://127.0.0.1:${port}`,
      vpcId,
      groupId,
      subnetId,
      spareSubnetId,
      lastSubnetId,
      lastGroupId,
      strangeGroupId: strange.groupId,
      instanceId,
    },
    recordFile,
    close: async () => {
      recorder.closeAllConnections();
      recorder.close();
      await emulator.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
