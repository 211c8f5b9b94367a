/**
 * `npm run peer`: the incumbent, the AWS VPC CNI, on a node of an emulated VPC with a real API server, to be looked at and played with.
 * It lives in namespaces of its own that go with this command, however it ends.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createCluster } from "../../src/lab/cluster.ts";
import { isInside, runInside } from "../../src/lab/enter.ts";
import { endProcess } from "../../src/libc/libc.ts";
import { startApiServer } from "./api-server.ts";
import { type AwsNode, createAwsNode } from "./aws-node.ts";
import { AWS_VPC_CNI_VERSION } from "./aws-vpc-cni.ts";
import { findJudges } from "./build.ts";
import { findPeerPrograms } from "./peer-programs.ts";

const USAGE = `usage: npm run peer [-- OPTIONS]
  --type TYPE        the node's instance type; m5.xlarge
  --pods COUNT       pods that are there at the start; 3
  --set NAME=VALUE   a setting of the daemon, like WARM_IP_TARGET=5; may be repeated
  --once             end when the pods have their addresses
`;
const FOLDER = "/run/berth-peer";
const NODE = "peer-n";

type Options = {
  readonly type: string;
  readonly pods: number;
  readonly settings: Readonly<Record<string, string>>;
  readonly once: boolean;
};

function parse(args: readonly string[]): Options | string {
  let [type, pods, once] = ["m5.xlarge", 3, false];
  const settings: Record<string, string> = {};
  for (let at = 0; at < args.length; at += 1) {
    const value = args[at + 1];
    if (args[at] === "--once") {
      once = true;
      continue;
    }
    if (value === undefined) return `${args[at]} wants a value, or is not known`;
    if (args[at] === "--type") type = value;
    else if (args[at] === "--pods" && /^\d{1,3}$/.test(value)) pods = Number(value);
    else if (args[at] === "--set" && /^\w+=/.test(value))
      settings[value.slice(0, value.indexOf("="))] = value.slice(value.indexOf("=") + 1);
    else return `peer does not know ${args[at]} ${value}`;
    at += 1;
  }
  return { type, pods, settings, once };
}

async function peer(options: Options): Promise<number> {
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  const programs = findPeerPrograms();
  const judges = findJudges();
  for (const each of [programs, judges]) if (!each.ok) process.stderr.write(`peer: ${each.error}\n`);
  if (!programs.ok || !judges.ok) return 1;

  say(`a VPC of emulated EC2, one ${options.type}; kube-apiserver and etcd`);
  const cluster = await createCluster({
    prefix: "peer-",
    folder: FOLDER,
    nodes: [{ name: "n", type: options.type }],
    emulator: { timings: { call: 10, "link-up": 100 } },
  });
  const [node] = cluster.nodes;
  if (node === undefined) throw new Error("the cluster has no node");
  const { vpc, client } = cluster.fabric;
  const apiServer = await startApiServer({
    ...programs.value,
    folder: join(FOLDER, "api-server"),
    netns: `/run/netns/${vpc.netns}`,
    address: vpc.ec2Address,
    nodeNames: [],
  });
  await apiServer.addNode(NODE);
  const aws = await createAwsNode({
    programs: programs.value,
    node,
    folder: join(FOLDER, "aws-node"),
    ec2Url: `http://${vpc.ec2Address}`,
    imdsUrl: `http://${vpc.imdsAddress}`,
    kubeconfig: apiServer.kubeconfig,
    settings: options.settings,
  });
  const began = performance.now();
  await aws.startDaemon();
  say(`aws-vpc-cni ${AWS_VPC_CNI_VERSION} serves after ${Math.round(performance.now() - began)} ms`);

  const pods = await node.runtime.makeSandboxes(Array.from({ length: options.pods }, (_, at) => `pod-${at}`));
  let failed = 0;
  for (const pod of pods) {
    const answer = await aws.cnitool(judges.value, "add", pod);
    if (!answer.ok) failed += 1;
    say(
      `  ${pod.name}  ${answer.ip ?? answer.finished.stderr.trim()}  ip netns exec ${pod.netns.slice(11)} …`,
    );
  }
  const pool = await aws.pool();
  say(`its pool: ${pool.enis} ENIs, ${pool.total} addresses, ${pool.assigned} assigned`);
  if (!options.once) {
    say(
      lookText({
        aws,
        cnitool: join(judges.value, "cnitool"),
        plugin: programs.value.plugin,
        client: client?.netns ?? "",
      }),
    );
    await new Promise<never>(() => {}); // Until a signal comes.
  }
  await aws.close();
  await apiServer.close();
  await cluster.close();
  return failed === 0 ? 0 : 1;
}

/** What to type in another terminal, as root: the place is that of the newest process with this file's name. */
function lookText(what: {
  readonly aws: AwsNode;
  readonly cnitool: string;
  readonly plugin: string;
  readonly client: string;
}): string {
  const { aws, cnitool, plugin, client } = what;
  return `
In another terminal, as root:
  IN="nsenter --target $(pgrep --newest --full 'node.*judges/peer.ts') --mount --pid"
  $IN ip netns                                                  # node, pods, router, a client
  $IN ip netns exec ${NODE} ip -brief address                    # the node's links; ip rule, ip route show table all
  $IN ip netns exec ${NODE} iptables-save -t nat
  $IN tail -f ${FOLDER}/aws-node/ipamd.log                # its daemon; plugin.log and ipam.json are in run/ beside it
  $IN curl -s --unix-socket ${FOLDER}/aws-node/run/introspection.sock http://_/v1/enis
  $IN ip netns exec ${client} ping -c 3 ADDRESS                  # from a host of the VPC
  $IN ip netns add more; $IN env NETCONFPATH=${FOLDER}/aws-node/net.d CNI_PATH=${dirname(plugin)}:${dirname(cnitool)} \\
    ${aws.enter.join(" ")} ${cnitool} add aws-cni /run/netns/more
Ctrl-C ends it all.`;
}

async function main(args: readonly string[]): Promise<number> {
  const options = parse(args);
  if (typeof options === "string") {
    process.stderr.write(`peer: ${options}\n${USAGE}`);
    return 2;
  }
  if (isInside()) return await peer(options);
  return await runInside([fileURLToPath(import.meta.url), ...args]);
}

// As process 1 of its own namespace Node ignores these signals unless it is told not to; with that process everything goes.
if (isInside())
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(0));
const code = await main(process.argv.slice(2));
if (isInside()) process.once("exit", endProcess);
process.exit(code);
