/**
 * Prints objects as YAML, once as plain values and once as a Helm template of them: the places that values fill are holes, which know both.
 * Only what our manifests need.
 */
import type { Values } from "./values.ts";

/** A place that a value fills. `template` is what stands there in the chart. */
export type Hole = {
  readonly hole: "scalar" | "block";
  readonly template: string;
  readonly of: (values: Values) => unknown;
};
/** A part that is there only where `of` is true; `template` is the condition in the chart. */
export type When = { readonly when: string; readonly of: (values: Values) => boolean; readonly tree: Tree };
export type Tree =
  | string
  | number
  | boolean
  | Hole
  | When
  | readonly Tree[]
  | { readonly [key: string]: Tree };
export type Target = { readonly kind: "chart" } | { readonly kind: "manifest"; readonly values: Values };

/** A scalar of the values at a dotted path. */
export function value(path: string): Hole {
  return { hole: "scalar", template: `{{ .Values.${path} | quote }}`, of: (values) => at(values, path) };
}

/** A list or an object of the values at a dotted path. */
export function block(path: string): Hole {
  return { hole: "block", template: `.Values.${path}`, of: (values) => at(values, path) };
}

export function scalar(template: string, of: (values: Values) => string): Hole {
  return { hole: "scalar", template, of };
}

export function when(condition: string, of: (values: Values) => boolean, tree: Tree): When {
  return { when: condition, of, tree };
}

export function printYaml(tree: Tree, target: Target): string {
  return `${lines(tree, 0, target).join("\n")}\n`;
}

function lines(tree: Tree, indent: number, target: Target): readonly string[] {
  const pad = " ".repeat(indent);
  if (isWhen(tree)) {
    if (target.kind === "manifest") return tree.of(target.values) ? lines(tree.tree, indent, target) : [];
    return [`${pad}{{- if ${tree.when} }}`, ...lines(tree.tree, indent, target), `${pad}{{- end }}`];
  }
  if (isList(tree)) {
    return tree.flatMap((item) => {
      if (isWhen(item)) {
        const inner = lines([item.tree], indent, target);
        if (target.kind === "manifest") return item.of(target.values) ? inner : [];
        return [`${pad}{{- if ${item.when} }}`, ...inner, `${pad}{{- end }}`];
      }
      if (isHole(item) && item.hole === "block") return blockLines(item, indent, target);
      if (isScalar(item)) return [`${pad}- ${scalarText(item, target)}`];
      const [first = "", ...rest] = lines(item, indent + 2, target);
      return [`${pad}- ${first.trimStart()}`, ...rest];
    });
  }
  if (isScalar(tree)) return [`${pad}${scalarText(tree, target)}`];
  return Object.entries(tree).flatMap(([key, item]) => entryLines(key, item, indent, target));
}

function entryLines(key: string, item: Tree, indent: number, target: Target): readonly string[] {
  const pad = " ".repeat(indent);
  const name = plainText(key);
  if (isWhen(item)) {
    const inner = entryLines(key, item.tree, indent, target);
    if (target.kind === "manifest") return item.of(target.values) ? inner : [];
    return [`${pad}{{- if ${item.when} }}`, ...inner, `${pad}{{- end }}`];
  }
  if (isHole(item) && item.hole === "block") {
    if (target.kind === "manifest") return entryLines(key, item.of(target.values) as Tree, indent, target);
    return [`${pad}${name}:`, ...blockLines(item, indent + 2, target)];
  }
  if (isScalar(item)) return [`${pad}${name}: ${scalarText(item, target)}`];
  if (isList(item) && item.length === 0) return [`${pad}${name}: []`];
  if (!isList(item) && Object.keys(item).length === 0) return [`${pad}${name}: {}`];
  return [`${pad}${name}:`, ...lines(item, indent + 2, target)];
}

function blockLines(hole: Hole, indent: number, target: Target): readonly string[] {
  if (target.kind === "chart")
    return [`${" ".repeat(indent)}{{- toYaml ${hole.template} | nindent ${indent} }}`];
  // Values are plain JSON, which is a Tree without holes.
  return lines(hole.of(target.values) as Tree, indent, target);
}

function scalarText(item: string | number | boolean | Hole, target: Target): string {
  if (typeof item === "string") return plainText(item);
  if (typeof item !== "object") return `${item}`;
  return target.kind === "chart" ? item.template : JSON.stringify(item.of(target.values));
}

/** Quoted where YAML would read something else than this text. */
function plainText(text: string): string {
  const plain =
    /^[A-Za-z/._][A-Za-z0-9/._:-]*$/.test(text) &&
    !/^(true|false|yes|no|on|off|null|~|y|n|\.inf|\.nan)$/i.test(text) &&
    !text.endsWith(":");
  return plain ? text : JSON.stringify(text);
}

function isHole(tree: Tree): tree is Hole {
  return typeof tree === "object" && "hole" in tree;
}

function isWhen(tree: Tree): tree is When {
  return typeof tree === "object" && "when" in tree;
}

function isList(tree: Tree): tree is readonly Tree[] {
  return Array.isArray(tree);
}

function isScalar(tree: Tree): tree is string | number | boolean | Hole {
  return typeof tree !== "object" || (isHole(tree) && tree.hole === "scalar");
}

function at(values: Values, path: string): unknown {
  let here: unknown = values;
  for (const key of path.split(".")) here = (here as Readonly<Record<string, unknown>>)[key]; // The path is one of ours; a test renders all.
  return here;
}
