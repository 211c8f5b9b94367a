/**
 * Kubernetes' own programs, built from source: what suites with a real API server share. One that needs more of them (kubelet, a
 * scheduler) adds a main.go beside the others and a line here; what is built already stays, but for go.sum's sake.
 */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { GoProgram } from "./go-program.ts";

export const KUBERNETES_VERSION = "1.35.4";

const MODULE = join(dirname(fileURLToPath(import.meta.url)), "kubernetes");
/** Clients look at it: some refuse a server that names no version. */
const STAMPS = {
  "k8s.io/component-base/version.gitVersion": `v${KUBERNETES_VERSION}`,
  "k8s.io/component-base/version.gitMajor": "1",
  "k8s.io/component-base/version.gitMinor": "35",
};

/** Four minutes where Go's caches are empty. */
export const KUBE_APISERVER: GoProgram = {
  name: "kube-apiserver",
  module: MODULE,
  package: "./kube-apiserver",
  stamps: STAMPS,
};

/** Ten seconds after the API server, whose module graph it shares. */
export const ETCD: GoProgram = { name: "etcd", module: MODULE, package: "./etcd", stamps: {} };
