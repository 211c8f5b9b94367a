/** What an operator may set of an installation: the chart's values, their schema and their defaults. One list for chart and manifest. */
import { settingRows } from "../src/config/settings.ts";
import { VERSION } from "../src/daemon/version.ts";

export type Values = {
  readonly image: {
    readonly repository: string;
    readonly tag: string;
    readonly digest: string;
    readonly pullPolicy: string;
  };
  readonly imagePullSecrets: readonly { readonly name: string }[];
  readonly clusterName: string;
  readonly annotatePodIp: boolean;
  readonly admissionPolicy: boolean;
  readonly settings: Readonly<Record<string, string>>;
  readonly nodePools: readonly object[];
  readonly serviceAccount: { readonly annotations: Readonly<Record<string, string>> };
  readonly resources: object;
  readonly priorityClassName: string;
  readonly tolerations: readonly object[];
  readonly maxUnavailable: string;
};

/** Set by the manifest itself: what an operator writes here would break it. */
const OF_THE_MANIFEST = new Set([
  "MY_NODE_NAME",
  "MY_POD_NAME",
  "HOST_CNI_BIN_PATH",
  "HOST_CNI_CONFDIR_PATH",
  "BERTH_PROC_SYS_DIRECTORY",
  "BERTH_NODE_POOLS_FILE",
  "BERTH_PROBE_BIND_ADDRESS",
  "ANNOTATE_POD_IP",
  "CLUSTER_NAME",
]);

export const VALUES: Values = {
  image: { repository: "berth", tag: VERSION, digest: "", pullPolicy: "IfNotPresent" },
  imagePullSecrets: [],
  clusterName: "",
  annotatePodIp: false,
  admissionPolicy: true,
  settings: {},
  nodePools: [],
  serviceAccount: { annotations: {} },
  resources: { requests: { cpu: "25m", memory: "192Mi" }, limits: { memory: "192Mi" } },
  priorityClassName: "system-node-critical",
  tolerations: [{ operator: "Exists" }],
  maxUnavailable: "10%",
};

type Schema = Readonly<Record<string, unknown>>;

const text = (description: string, more: Schema = {}): Schema => ({ type: "string", description, ...more });
const object = (description: string, properties: Readonly<Record<string, Schema>>): Schema => ({
  type: "object",
  description,
  additionalProperties: false,
  properties,
});

/** JSON Schema draft 7, as Helm reads it. A misspelt value is refused before anything is installed. */
export function valuesSchema(): Schema {
  const settable = settingRows().filter((row) => !OF_THE_MANIFEST.has(row.name) && row.stage !== "warned");
  const settings = Object.fromEntries(
    settable.map((row) => [
      row.name,
      text(`${row.meaning} Default: ${row.default === "" ? "not set" : row.default}.`),
    ]),
  );
  const ofNodes = object("Settings of the nodes in the pool.", settings);
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Berth",
    ...object("Values of the chart.", {
      image: object("The daemon's image.", {
        repository: text("Registry and name.", { minLength: 1 }),
        tag: text("Used where no digest is given."),
        digest: text("sha256:…; wins over the tag.", { pattern: "^(sha256:[0-9a-f]{64})?$" }),
        pullPolicy: text("When kubelet pulls.", { enum: ["Always", "IfNotPresent", "Never"] }),
      }),
      imagePullSecrets: {
        type: "array",
        description: "Secrets with which kubelet pulls.",
        items: object("One secret.", { name: text("Its name.") }),
      },
      clusterName: text("Tags ENIs, and keeps the search for leaked ones within the cluster (CLUSTER_NAME)."),
      annotatePodIp: {
        type: "boolean",
        description:
          "Write pods' addresses into their annotations (ANNOTATE_POD_IP); adds the right to patch pods.",
      },
      admissionPolicy: {
        type: "boolean",
        description:
          "With annotatePodIp: bind the daemon's writes to pods of its own node and to that annotation. Kubernetes 1.30 or newer.",
      },
      settings: object(
        "Settings of the daemon by name, as in docs/reference/settings.md. Values are texts.",
        settings,
      ),
      nodePools: {
        type: "array",
        description: "Settings by pool of nodes; they act without a restart.",
        items: {
          ...object("One pool.", {
            name: text("Nodes may name it by the label berth.internal/pool.", {
              pattern: "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            }),
            nodeLabels: { type: "object", additionalProperties: { type: "string" } },
            settings: ofNodes,
          }),
          required: ["name", "settings"],
        },
      },
      serviceAccount: object("The daemon's account.", {
        annotations: { type: "object", additionalProperties: { type: "string" } },
      }),
      resources: {
        type: "object",
        description: "Memory's request and limit should be equal: then nobody else's hunger ends the daemon.",
      },
      priorityClassName: text("Before whom the daemon is scheduled."),
      tolerations: { type: "array", items: { type: "object" } },
      maxUnavailable: { type: ["string", "integer"], description: "Nodes at once in a rollout." },
    }),
  };
}
