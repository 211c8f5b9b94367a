/**
 * How the API server is reached: a kubeconfig, or the pod's own service account. Credentials come from `@kubernetes/client-node`, made
 * anew whenever the server no longer takes the old ones: a token or an authority may have been rotated earlier than the library looks.
 */
import type { RequestOptions } from "node:https";
import { err, ok, type Result } from "../lib/result.ts";

export type KubeSource =
  | { readonly kind: "kubeconfig"; readonly path: string }
  | { readonly kind: "service-account"; readonly directory: string; readonly server: string };

export type Connection = {
  /** Base of every path, without a slash at its end. */
  readonly server: string;
  /** Agent, certificates and headers of one request. Reads the token's file when it is due. */
  readonly options: () => Promise<RequestOptions>;
};

/** The error is text for the operator: a file that is missing or cannot be read, a server that is no URL. */
export async function connect(source: KubeSource): Promise<Result<Connection, string>> {
  try {
    const { KubeConfig } = await import("./sdk.ts");
    const config = new KubeConfig();
    if (source.kind === "kubeconfig") config.loadFromFile(source.path);
    else
      config.loadFromClusterAndUser(
        {
          name: "cluster",
          server: source.server,
          caFile: `${source.directory}/ca.crt`,
          skipTLSVerify: false,
        },
        {
          name: "berth",
          authProvider: { name: "tokenFile", config: { tokenFile: `${source.directory}/token` } },
        },
      );
    const cluster = config.getCurrentCluster();
    if (cluster === null) return err("no cluster is named");
    const server = new URL(cluster.server);
    if (server.protocol === "http:") {
      // A token on a wire in clear text is everybody's token.
      if (!/^(localhost|127\.[0-9.]+|\[::1\])$/.test(server.hostname))
        return err(`${cluster.server} is not encrypted; only a loopback address may be`);
      // The library refuses plain HTTP unless it is told that nothing is verified.
      config.clusters = config.clusters.map((each) => ({ ...each, skipTLSVerify: true }));
    }
    return ok({
      server: cluster.server.replace(/\/+$/, ""),
      options: async () => {
        const options: RequestOptions = {};
        await config.applyToHTTPSOptions(options);
        return options;
      },
    });
  } catch (cause) {
    return err(cause instanceof Error ? cause.message : String(cause));
  }
}
