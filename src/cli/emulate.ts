/** `npm run emulator`: EC2 and IMDS for clients on this machine, until Ctrl-C. */
import { parseArgs } from "node:util";
import { createEmulator, type Emulator } from "../emulator/emulator.ts";
import { instanceTypes } from "../emulator/instance-types.ts";
import { isProfileName, PROFILES } from "../emulator/timings.ts";

const HELP = `berth emulator: EC2's query protocol and IMDSv2 on loopback

  --port N            EC2's port (4566); the first instance's IMDS has the next one, and so on
  --profile NAME      ${Object.keys(PROFILES).join(", ")} (typical)
  --seed TEXT         equal seeds and calls give equal ids, addresses and waits (berth)
  --instances TYPE…   what to launch, one instance a type (m5.large)
`;

/** Runs until SIGINT or SIGTERM. Exit code 2: the arguments are wrong. */
export async function emulate(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  if (typeof options === "string") {
    process.stderr.write(`${options}\n\n${HELP}`);
    return options === "" ? 0 : 2;
  }
  const emulator = createEmulator({ profile: options.profile, seed: options.seed });
  const { vpcId } = emulator.seed.vpc({ cidrs: ["10.0.0.0/16"], tags: { Name: "emulated" } });
  const subnetId = emulator.seed.subnet({ vpcId, cidr: "10.0.0.0/20", tags: { Name: "emulated-a" } });
  const ec2 = await emulator.listen(options.port);
  for (const [index, type] of options.instances.entries())
    await launch(emulator, { type, subnetId, ec2Url: ec2.url, index });
  await new Promise<void>((resolve) => {
    process.once("SIGINT", resolve);
    process.once("SIGTERM", resolve);
  });
  await emulator.close();
  return 0;
}

async function launch(
  emulator: Emulator,
  node: { readonly type: string; readonly subnetId: string; readonly ec2Url: string; readonly index: number },
): Promise<void> {
  const { instanceId } = emulator.seed.launch({ type: node.type, subnetId: node.subnetId });
  const port = Number(new URL(node.ec2Url).port) + 1 + node.index;
  const imds = await emulator.listenImds(instanceId, { port });
  const settings = `AWS_ENDPOINT_URL_EC2=${node.ec2Url} AWS_EC2_METADATA_SERVICE_ENDPOINT=${imds.url}`;
  process.stdout.write(`${node.ec2Url} is EC2 for ${instanceId} (${node.type}): export ${settings}\n`);
}

type Options = {
  readonly port: number;
  readonly profile: keyof typeof PROFILES;
  readonly seed: string;
  readonly instances: readonly string[];
};

/** Text when they are wrong; empty text when help was asked for. */
function readOptions(args: readonly string[]): Options | string {
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true, // `--instances m5.large c5.large`: all but the first come as positionals.
      options: {
        port: { type: "string", default: "4566" },
        profile: { type: "string", default: "typical" },
        seed: { type: "string", default: "berth" },
        instances: { type: "string", multiple: true, default: [] },
        help: { type: "boolean", default: false },
      },
    });
    if (values.help) return "";
    const named = [...values.instances, ...positionals].flatMap((text) => text.split(","));
    const instances = named.length > 0 ? named : ["m5.large"];
    const strange = instances.find((type) => !instanceTypes().has(type));
    if (strange !== undefined) return `no such instance type: ${strange}`;
    if (!/^\d{1,5}$/.test(values.port) || Number(values.port) > 65_535) return `not a port: ${values.port}`;
    if (!isProfileName(values.profile)) return `no such profile: ${values.profile}`;
    return { port: Number(values.port), profile: values.profile, seed: values.seed, instances };
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}
