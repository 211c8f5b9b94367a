/** What the daemon loads of this room, in one piece and only where there is an API server. */
export { createKubeClient } from "./client.ts";
export { printKubeError } from "./errors.ts";
export { watchCluster } from "./watch-cluster.ts";
export { createClusterWriter } from "./writes.ts";
