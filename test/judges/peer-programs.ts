/** Everything that the incumbent needs to run in a lab. Run as a program it builds what is missing, one build at a time. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { err, ok, type Result } from "../../src/lib/result.ts";
import { AWS_CNI_DAEMON, AWS_CNI_PLUGIN } from "./aws-vpc-cni.ts";
import { buildProgram, findProgram, goProgram } from "./go-program.ts";
import { ETCD, KUBE_APISERVER } from "./kubernetes.ts";

/** Paths. */
export type PeerPrograms = {
  readonly daemon: string;
  readonly plugin: string;
  readonly kubeApiserver: string;
  readonly etcd: string;
};

/** All of them, or what is missing. The daemon drives iptables by its command, so that must be there too. */
export function findPeerPrograms(): Result<PeerPrograms, string> {
  return collect(findProgram);
}

/** Builds what is not built yet: seven minutes and the Go module proxy the first time. */
export function buildPeerPrograms(): Result<PeerPrograms, string> {
  return collect(buildProgram);
}

function collect(look: typeof findProgram): Result<PeerPrograms, string> {
  if (spawnSync("iptables", ["--version"], { stdio: "ignore" }).status !== 0)
    return err("the AWS VPC CNI needs iptables: apt-get install -y iptables");
  const plugin = look(AWS_CNI_PLUGIN);
  if (!plugin.ok) return plugin;
  const daemon = look(AWS_CNI_DAEMON);
  if (!daemon.ok) return daemon;
  const kubeApiserver = look(KUBE_APISERVER);
  if (!kubeApiserver.ok) return kubeApiserver;
  const etcd = look(ETCD);
  if (!etcd.ok) return etcd;
  return ok({
    plugin: plugin.value,
    daemon: daemon.value,
    kubeApiserver: kubeApiserver.value,
    etcd: etcd.value,
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const built = buildPeerPrograms();
  if (!built.ok) process.stderr.write(`judges: ${built.error}\n`);
  // Without Go the tests say so aloud, and in CI that is a failure; with Go, not to be able to build is one at once.
  if (!built.ok && goProgram() !== null) process.exitCode = 1;
}
