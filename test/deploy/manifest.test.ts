// The installation, read without a cluster: what it may, what it mounts, and that chart and manifest are one.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import {
  CAPABILITIES,
  DOCUMENTS,
  IMAGE_ENVIRONMENT,
  MOUNTS,
  NODE_FLAGS,
  RIGHTS,
} from "../../deploy/manifest.ts";
import { renderFiles, renderManifest } from "../../deploy/render.ts";
import { VALUES, type Values, valuesSchema } from "../../deploy/values.ts";
import { printYaml, type Tree } from "../../deploy/yaml.ts";
import { settingRows } from "../../src/config/settings.ts";
import { DAEMON_FLAGS } from "../../src/lab/node.ts";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const FILES = renderFiles();
const MANIFEST = renderManifest(VALUES);

/** All that is set otherwise than by default. */
const OTHERS: Values = {
  ...VALUES,
  image: { ...VALUES.image, digest: `sha256:${"a".repeat(64)}` },
  imagePullSecrets: [{ name: "pull" }],
  clusterName: "blue",
  annotatePodIp: true,
  settings: { WARM_IP_TARGET: "5" },
  nodePools: [{ name: "batch", settings: { WARM_IP_TARGET: "20" } }],
  serviceAccount: { annotations: { "eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x" } },
};

test("the files are what their one source makes", () => {
  for (const [name, text] of FILES) expect(readFileSync(join(ROOT, "deploy", name), "utf8"), name).toBe(text);
});

/** The few constructs of Helm's templates that ours use; anything else fails. */
function fill(template: string, values: Values): string {
  const at = (path: string): unknown =>
    path.split(".").reduce((here: unknown, key) => (here as Record<string, unknown>)[key], values);
  const truth = (value: unknown): boolean =>
    typeof value === "object" && value !== null ? Object.keys(value).length > 0 : Boolean(value);
  const quoted = (value: unknown): string => JSON.stringify(String(value));
  const scalars: Readonly<Record<string, () => string>> = {
    ".Release.Namespace": () => "kube-system",
    ".Release.Namespace | quote": () => quoted("kube-system"),
    'dict "pools" .Values.nodePools | toJson | quote': () =>
      JSON.stringify(JSON.stringify({ pools: values.nodePools })),
    "toJson .Values.settings | sha256sum | quote": () =>
      quoted(createHash("sha256").update(JSON.stringify(values.settings)).digest("hex")),
  };
  const out: string[] = [];
  const shown: boolean[] = [];
  for (const line of template.split("\n")) {
    const condition = /^\s*\{\{- if (?:and )?(.*) \}\}$/.exec(line)?.[1];
    if (condition !== undefined)
      shown.push(condition.split(" ").every((each) => truth(at(each.replace(".Values.", "")))));
    else if (/^\s*\{\{- end \}\}$/.test(line)) shown.pop();
    else if (shown.every(Boolean)) {
      const block = /^\s*\{\{- toYaml \.Values\.(\S+) \| nindent (\d+) \}\}$/.exec(line);
      if (block !== null) {
        const value = at(block[1] ?? "") as Tree; // Values are plain JSON.
        if (!truth(value)) out.push(`${out.pop() ?? ""} ${Array.isArray(value) ? "[]" : "{}"}`);
        else {
          const text = printYaml(value, { kind: "manifest", values }).trimEnd();
          out.push(...text.split("\n").map((each) => " ".repeat(Number(block[2])) + each));
        }
        continue;
      }
      const image = /\{\{ \.Values\.image\.repository \}\}.*\{\{ end \}\}/;
      const { repository, digest, tag } = values.image;
      out.push(
        line
          .replace(image, `${repository}${digest === "" ? `:${tag}` : `@${digest}`}`)
          .replace(/\{\{ (.+?) \}\}/g, (_whole, expression: string) => {
            const path = /^\.Values\.(\S+) \| quote$/.exec(expression)?.[1];
            const made = path === undefined ? scalars[expression]?.() : quoted(at(path));
            if (made === undefined) throw new Error(`the test knows no ${expression}`);
            return made;
          }),
      );
    }
  }
  return out.join("\n");
}

test.each([
  ["the defaults", VALUES],
  ["everything set", OTHERS],
])("with %s the chart's templates make the manifest", (_name, values) => {
  const documents = Object.keys(DOCUMENTS)
    .flatMap((name) =>
      fill(FILES.get(`chart/templates/${name}`) ?? "", values)
        .split(/^---\n/m)
        .slice(1),
    )
    .filter((text) => text.trim() !== "")
    .map((text) => text.trimEnd());
  const wanted = renderManifest(values)
    .split(/^---\n/m)
    .slice(1)
    .map((text) => text.trimEnd());
  expect(documents).toEqual(wanted);
});

describe("the daemon's pod", () => {
  test("has two capabilities, and all others are dropped", () => {
    expect(CAPABILITIES.map((each) => each.name)).toEqual(["NET_ADMIN", "SYS_ADMIN"]);
    expect(MANIFEST).toContain(
      "drop:\n                - ALL\n              add:\n                - NET_ADMIN\n                - SYS_ADMIN\n",
    );
    expect(MANIFEST).not.toMatch(/privileged|hostPID|hostIPC/);
    expect(MANIFEST.match(/readOnlyRootFilesystem: true/g)).toHaveLength(2);
  });

  test("is probed without a process, and asks for as much memory as it may have, in each of its containers", () => {
    expect(MANIFEST).not.toContain("exec:");
    expect(MANIFEST.match(/path: \/(healthz|readyz)/g)).toHaveLength(2);
    expect(MANIFEST.match(/memory: "192Mi"/g)).toHaveLength(4);
    expect(MANIFEST).not.toMatch(/limits:\n\s+cpu/);
  });

  test("mounts what it has a reason for: read-only what it only reads, with propagation the namespaces", () => {
    const mounted = [...MANIFEST.matchAll(/hostPath:\n\s+path: (\S+)/g)].map((match) => match[1]);
    expect(mounted).toEqual(MOUNTS.map((mount) => mount.host));
    expect(MOUNTS.filter((mount) => mount.readOnly).map((mount) => mount.name)).toEqual([
      "cni-cache",
      "netns",
    ]);
    expect(MANIFEST).toContain(
      "mountPath: /run/netns\n              readOnly: true\n              mountPropagation: HostToContainer",
    );
  });

  test("may read four kinds, create events, and write nothing else unless pods are to be annotated", () => {
    const verbs = (text: string): readonly string[] =>
      [...text.matchAll(/verbs:\n((?:\s+- [a-z*]+\n)+)/g)].map((match) =>
        (match[1] ?? "").replace(/[\s-]+/g, " ").trim(),
      );
    expect(verbs(MANIFEST)).toEqual(RIGHTS.map((right) => right.verbs.join(" ")));
    expect(verbs(renderManifest(OTHERS)).at(-1)).toBe("patch");
    expect(MANIFEST).not.toContain("ValidatingAdmissionPolicy");
    expect(renderManifest(OTHERS)).toContain("oldObject.spec.nodeName == request.userInfo.extra");
  });

  test("runs with the flags that the memory was measured with", () => {
    expect([...NODE_FLAGS]).toEqual(DAEMON_FLAGS);
    expect(IMAGE_ENVIRONMENT).toMatchObject({ MALLOC_ARENA_MAX: "1", UV_THREADPOOL_SIZE: "8" });
  });
});

test("the schema names every default, and each setting that an operator may write", () => {
  const properties = valuesSchema()["properties"] as Record<string, { properties?: Record<string, unknown> }>; // As made above.
  expect(Object.keys(properties).sort()).toEqual(Object.keys(VALUES).sort());
  const settings = Object.keys(properties["settings"]?.properties ?? {});
  expect(settings).toContain("WARM_IP_TARGET");
  expect(settings).not.toContain("HOST_CNI_BIN_PATH");
  expect(settings.every((name) => settingRows().some((row) => row.name === name))).toBe(true);
});

test("the operator's page explains each folder, capability and right", () => {
  const page = readFileSync(join(ROOT, "docs/operating/install.md"), "utf8");
  for (const { host, why } of MOUNTS) expect(page).toContain(`| \`${host}\` | ${why}`);
  for (const { name, why } of CAPABILITIES) expect(page).toContain(`| \`${name}\` | ${why}`);
  for (const { resources, verbs, why } of RIGHTS)
    expect(page).toContain(`| ${resources.join(", ")} | ${verbs.join(", ")} | ${why}`);
});
