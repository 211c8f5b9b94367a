/**
 * The one part of the client library that we use: where the API server is, and how to be let in. By its own file, since the package's
 * index brings every API group with it (65 MB); loaded only where there is an API server.
 */
export { KubeConfig } from "@kubernetes/client-node/dist/config.js";
