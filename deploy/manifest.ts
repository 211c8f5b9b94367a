/** The installation, as objects. Each mount, capability and right stands with its reason, and with nothing that has none. */
import { createHash } from "node:crypto";
import { LABEL_PREFIX } from "../src/config/node-settings.ts";
import { POD_IPS_ANNOTATION } from "../src/core/model/cluster.ts";
import { block, scalar, type Tree, value, when } from "./yaml.ts";

const NAME = "berth";
const NAMESPACE = scalar("{{ .Release.Namespace | quote }}", () => "kube-system");
const LABELS = { "app.kubernetes.io/name": NAME };
const NODE_POOLS_FOLDER = "/etc/berth";

/** Node's flags and the environment that keeps the daemon small; measured in docs/performance.md. */
export const NODE_FLAGS = [
  "--max-semi-space-size=1",
  "--max-old-space-size=48",
  "--optimize-for-size",
  "--v8-pool-size=1",
] as const;
export const IMAGE_ENVIRONMENT = {
  MALLOC_ARENA_MAX: "1",
  UV_THREADPOOL_SIZE: "8",
  PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
} as const;

type Mount = {
  readonly name: string;
  readonly host: string;
  readonly path: string;
  readonly why: string;
  readonly type: "Directory" | "DirectoryOrCreate";
  readonly readOnly: boolean;
  readonly propagation?: "HostToContainer";
  readonly init: boolean; // The init step needs it, too.
};

/** Folders of the host. docs/operating/install.md has this table; a test holds the two equal. */
export const MOUNTS: readonly Mount[] = [
  {
    name: "cni-bin",
    host: "/opt/cni/bin",
    path: "/host/opt/cni/bin",
    why: "the plugin is put here, and reference plugins that the node lacks",
    type: "DirectoryOrCreate",
    readOnly: false,
    init: true,
  },
  {
    name: "cni-conf",
    host: "/etc/cni/net.d",
    path: "/host/etc/cni/net.d",
    why: "the network configuration is put here when ADDs can be served",
    type: "DirectoryOrCreate",
    readOnly: false,
    init: false,
  },
  {
    name: "run",
    host: "/run/berth",
    path: "/run/berth",
    why: "sockets, lock and checkpoint; the plugin on the host opens the socket by the same path",
    type: "DirectoryOrCreate",
    readOnly: false,
    init: false,
  },
  {
    name: "journal",
    host: "/var/lib/berth",
    path: "/var/lib/berth",
    why: "DELs that came while the daemon was down outlive a reboot",
    type: "DirectoryOrCreate",
    readOnly: false,
    init: false,
  },
  {
    name: "cni-cache",
    host: "/var/lib/cni",
    path: "/var/lib/cni",
    why: "libcni's cache tells which sandboxes live",
    type: "DirectoryOrCreate",
    readOnly: true,
    init: false,
  },
  {
    name: "netns",
    host: "/run/netns",
    path: "/run/netns",
    why: "pods' network namespaces, also those that are made while the daemon runs",
    type: "DirectoryOrCreate",
    readOnly: true,
    propagation: "HostToContainer",
    init: false,
  },
  {
    name: "sysctls",
    host: "/proc/sys/net",
    path: "/host/proc/sys/net",
    why: "the container's own /proc/sys is read-only; rp_filter of ENIs must be set",
    type: "Directory",
    readOnly: false,
    init: false,
  },
];

export const CAPABILITIES = [
  { name: "NET_ADMIN", why: "links, addresses, routes, rules and nftables on the host and in pods" },
  { name: "SYS_ADMIN", why: "setns into a pod's network namespace" },
] as const;

export const RIGHTS = [
  {
    groups: [""],
    resources: ["pods"],
    verbs: ["list", "watch"],
    why: "pods of this node: demand before their ADDs come",
  },
  {
    groups: [""],
    resources: ["nodes"],
    verbs: ["list", "watch"],
    why: "our Node: cordon, labels, kubelet's max-pods",
  },
  {
    groups: [""],
    resources: ["events"],
    verbs: ["create"],
    why: "why pods wait, and which right is missing",
  },
  {
    groups: ["crd.k8s.amazonaws.com"],
    resources: ["eniconfigs"],
    verbs: ["list", "watch"],
    why: "custom networking, where its objects are",
  },
  {
    groups: ["vpcresources.k8s.aws"],
    resources: ["cninodes"],
    verbs: ["list", "watch"],
    why: "features of the node",
  },
] as const;

function mountOf(mount: Mount): Tree {
  return {
    name: mount.name,
    mountPath: mount.path,
    ...(mount.readOnly ? { readOnly: true } : {}),
    ...(mount.propagation === undefined ? {} : { mountPropagation: mount.propagation }),
  };
}

const image = scalar(
  '"{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}"',
  ({ image }) => `${image.repository}${image.digest === "" ? `:${image.tag}` : `@${image.digest}`}`,
);

const settingsHash = scalar("{{ toJson .Values.settings | sha256sum | quote }}", ({ settings }) => {
  const sorted = Object.entries(settings).sort(([left], [right]) => (left < right ? -1 : 1));
  return createHash("sha256")
    .update(JSON.stringify(Object.fromEntries(sorted)))
    .digest("hex");
});

const fieldRef = (name: string, fieldPath: string): Tree => ({
  name,
  valueFrom: { fieldRef: { fieldPath } },
});

const probe = (path: string, failureThreshold: number): Tree => ({
  // By HTTP and not by exec: a process for each probe starves with its container.
  httpGet: { host: "127.0.0.1", port: 61_680, path, scheme: "HTTP" },
  periodSeconds: 10,
  timeoutSeconds: 5,
  failureThreshold,
});

function daemonSet(): Tree {
  const security = {
    runAsUser: 0,
    readOnlyRootFilesystem: true,
    seccompProfile: { type: "RuntimeDefault" },
  };
  const container = { image, imagePullPolicy: value("image.pullPolicy") };
  return {
    apiVersion: "apps/v1",
    kind: "DaemonSet",
    metadata: { name: NAME, namespace: NAMESPACE, labels: LABELS },
    spec: {
      selector: { matchLabels: LABELS },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: value("maxUnavailable") } },
      template: {
        // Other settings are another daemon: they are rolled out.
        metadata: { labels: LABELS, annotations: { [`${LABEL_PREFIX}settings`]: settingsHash } },
        spec: {
          serviceAccountName: NAME,
          hostNetwork: true,
          dnsPolicy: "Default", // CoreDNS is a pod that needs us first.
          priorityClassName: value("priorityClassName"),
          terminationGracePeriodSeconds: 30,
          imagePullSecrets: when(
            ".Values.imagePullSecrets",
            (values) => values.imagePullSecrets.length > 0,
            block("imagePullSecrets"),
          ),
          tolerations: block("tolerations"),
          affinity: {
            nodeAffinity: {
              requiredDuringSchedulingIgnoredDuringExecution: {
                nodeSelectorTerms: [
                  {
                    matchExpressions: [
                      { key: "kubernetes.io/os", operator: "In", values: ["linux"] },
                      { key: "kubernetes.io/arch", operator: "In", values: ["amd64", "arm64"] },
                      {
                        key: "eks.amazonaws.com/compute-type",
                        operator: "NotIn",
                        values: ["fargate", "hybrid", "auto"],
                      },
                    ],
                  },
                ],
              },
            },
          },
          initContainers: [
            {
              name: "install",
              ...container,
              args: ["install"],
              env: [{ name: "HOST_CNI_BIN_PATH", value: "/host/opt/cni/bin" }],
              resources: block("resources"), // As the daemon's: else the pod would not be Guaranteed in memory.
              securityContext: { ...security, capabilities: { drop: ["ALL"] } },
              volumeMounts: MOUNTS.filter((mount) => mount.init).map(mountOf),
            },
          ],
          containers: [
            {
              name: NAME,
              ...container,
              ports: [{ name: "metrics", containerPort: 61_678, protocol: "TCP" }],
              env: [
                fieldRef("MY_NODE_NAME", "spec.nodeName"),
                fieldRef("MY_POD_NAME", "metadata.name"),
                { name: "HOST_CNI_BIN_PATH", value: "/host/opt/cni/bin" },
                { name: "HOST_CNI_CONFDIR_PATH", value: "/host/etc/cni/net.d" },
                { name: "BERTH_PROC_SYS_DIRECTORY", value: "/host/proc/sys" },
                { name: "BERTH_NODE_POOLS_FILE", value: `${NODE_POOLS_FOLDER}/node-pools.json` },
                when(".Values.clusterName", ({ clusterName }) => clusterName !== "", {
                  name: "CLUSTER_NAME",
                  value: value("clusterName"),
                }),
                when(".Values.annotatePodIp", ({ annotatePodIp }) => annotatePodIp, {
                  name: "ANNOTATE_POD_IP",
                  value: "true",
                }),
              ],
              envFrom: [{ configMapRef: { name: `${NAME}-settings` } }],
              resources: block("resources"),
              securityContext: {
                ...security,
                capabilities: { drop: ["ALL"], add: CAPABILITIES.map((each) => each.name) },
              },
              livenessProbe: probe("/healthz", 6),
              readinessProbe: probe("/readyz", 3),
              volumeMounts: [
                ...MOUNTS.map(mountOf),
                { name: "node-pools", mountPath: NODE_POOLS_FOLDER, readOnly: true },
              ],
            },
          ],
          volumes: [
            ...MOUNTS.map(({ name, host, type }) => ({ name, hostPath: { path: host, type } })),
            { name: "node-pools", configMap: { name: `${NAME}-node-pools` } },
          ],
        },
      },
    },
  };
}

function rbac(): readonly Tree[] {
  const rules: Tree[] = RIGHTS.map(({ groups, resources, verbs }) => ({
    apiGroups: [...groups],
    resources: [...resources],
    verbs: [...verbs],
  }));
  return [
    {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: {
        name: NAME,
        namespace: NAMESPACE,
        labels: LABELS,
        annotations: when(
          ".Values.serviceAccount.annotations",
          ({ serviceAccount }) => Object.keys(serviceAccount.annotations).length > 0,
          block("serviceAccount.annotations"),
        ),
      },
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRole",
      metadata: { name: NAME, labels: LABELS },
      rules: [
        ...rules,
        when(".Values.annotatePodIp", ({ annotatePodIp }) => annotatePodIp, {
          apiGroups: [""],
          resources: ["pods"],
          verbs: ["patch"],
        }),
      ],
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: NAME, labels: LABELS },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: NAME },
      subjects: [{ kind: "ServiceAccount", name: NAME, namespace: NAMESPACE }],
    },
  ];
}

/** RBAC cannot say "pods of its own node": a stolen token of one node could write to every pod. This says it. */
function admissionPolicy(): readonly Tree[] {
  const wanted = ".Values.annotatePodIp .Values.admissionPolicy";
  const isWanted = ({
    annotatePodIp,
    admissionPolicy,
  }: {
    annotatePodIp: boolean;
    admissionPolicy: boolean;
  }): boolean => annotatePodIp && admissionPolicy;
  const node = "authentication.kubernetes.io/node-name";
  const annotations = (of: string): string =>
    `(has(${of}.metadata.annotations) ? ${of}.metadata.annotations : {})`;
  return [
    when(`and ${wanted}`, isWanted, {
      apiVersion: "admissionregistration.k8s.io/v1",
      kind: "ValidatingAdmissionPolicy",
      metadata: { name: NAME, labels: LABELS },
      spec: {
        failurePolicy: "Fail",
        matchConstraints: {
          resourceRules: [
            { apiGroups: [""], apiVersions: ["v1"], operations: ["UPDATE"], resources: ["pods"] },
          ],
        },
        matchConditions: [
          {
            name: "from-the-daemon",
            expression: scalar(
              `"request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:${NAME}'"`,
              () => `request.userInfo.username == 'system:serviceaccount:kube-system:${NAME}'`,
            ),
          },
        ],
        validations: [
          {
            expression: `'${node}' in request.userInfo.extra && oldObject.spec.nodeName == request.userInfo.extra['${node}'][0]`,
            message: "Berth writes to pods of its own node alone",
          },
          {
            expression:
              "object.spec == oldObject.spec && object.metadata.labels == oldObject.metadata.labels",
            message: "Berth writes one annotation alone",
          },
          {
            expression: `${annotations("object")}.all(k, k == '${POD_IPS_ANNOTATION}' || (k in ${annotations("oldObject")} && ${annotations("object")}[k] == ${annotations("oldObject")}[k]))`,
            message: `Berth writes the annotation ${POD_IPS_ANNOTATION} alone`,
          },
        ],
      },
    }),
    when(`and ${wanted}`, isWanted, {
      apiVersion: "admissionregistration.k8s.io/v1",
      kind: "ValidatingAdmissionPolicyBinding",
      metadata: { name: NAME, labels: LABELS },
      spec: { policyName: NAME, validationActions: ["Deny"] },
    }),
  ];
}

function configMaps(): readonly Tree[] {
  return [
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: `${NAME}-settings`, namespace: NAMESPACE, labels: LABELS },
      data: block("settings"),
    },
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: {
        name: `${NAME}-node-pools`,
        namespace: NAMESPACE,
        labels: LABELS,
        annotations: { [`${LABEL_PREFIX}reading`]: "read again as it changes, without a restart" },
      },
      data: {
        "node-pools.json": scalar('{{ dict "pools" .Values.nodePools | toJson | quote }}', ({ nodePools }) =>
          JSON.stringify({ pools: nodePools }),
        ),
      },
    },
  ];
}

/** By file of the chart, in the order in which they must come. */
export const DOCUMENTS: Readonly<Record<string, readonly Tree[]>> = {
  "rbac.yaml": rbac(),
  "admission-policy.yaml": admissionPolicy(),
  "config-maps.yaml": configMaps(),
  "daemon-set.yaml": [daemonSet()],
};
