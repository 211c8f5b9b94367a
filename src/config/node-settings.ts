/**
 * Settings that one node has otherwise than the others: by a pool of nodes in a mounted ConfigMap, and by labels of the node itself. The
 * environment is the base; a pool goes over it, a label over both. What is wrong is left out and told, and never stops a node.
 */
import * as v from "valibot";
import { err, ok, type Result } from "../lib/result.ts";
import { type Environment, loadConfig, type LoadedConfig, printNotice } from "./load.ts";
import { rowOf, type SettingKey, settingKeys } from "./settings.ts";

/** What the planner reads anew at each step. Others are read once, when the daemon starts. */
export const NODE_SETTING_KEYS: readonly SettingKey[] = [
  "warmEniTarget",
  "warmIpTarget",
  "minimumIpTarget",
  "warmPrefixTarget",
  "prefixDelegation",
  "maxEni",
  "manageNonSchedulable",
  "prefixFallback",
  "maxPods",
  "eniLifeMinMs",
];

/** Label keys of ours begin with it: `…/pool` names the pool, `…/WARM_IP_TARGET` is a setting. `.internal` is no one's domain. */
export const LABEL_PREFIX = "berth.internal/";

export type NodePool = {
  readonly name: string;
  /** All of them must be on the node. Null: only nodes that name the pool are in it. */
  readonly nodeLabels: Readonly<Record<string, string>> | null;
  readonly settings: Readonly<Record<string, string>>;
};

const text = v.pipe(
  v.union([v.string(), v.number(), v.boolean()]), // `WARM_IP_TARGET: 5` is what people write.
  v.transform(String),
);
const poolsSchema = v.object({
  pools: v.pipe(
    v.array(
      v.object({
        name: v.pipe(v.string(), v.regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/)),
        nodeLabels: v.optional(v.nullable(v.record(v.string(), v.string())), null),
        settings: v.record(v.string(), text),
      }),
    ),
    v.maxLength(200),
  ),
});

/** The ConfigMap's file, JSON: `{"pools":[{"name":"batch","nodeLabels":{"role":"batch"},"settings":{"WARM_IP_TARGET":"20"}}]}`. */
export function parseNodePools(content: string): Result<readonly NodePool[], string> {
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (cause) {
    return err(`no JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  const parsed = v.safeParse(poolsSchema, value);
  if (parsed.success) return ok(parsed.output.pools);
  const issue = parsed.issues[0];
  return err(`${v.getDotPath(issue) ?? "the file"}: ${issue.message}`);
}

/** The pool that the node names; else the first whose labels it has. */
export function poolOf(
  pools: readonly NodePool[],
  labels: Readonly<Record<string, string>>,
): NodePool | null {
  const named = labels[`${LABEL_PREFIX}pool`];
  if (named !== undefined) return pools.find((pool) => pool.name === named) ?? null;
  const has = ({ nodeLabels }: NodePool): boolean =>
    nodeLabels !== null && Object.entries(nodeLabels).every(([key, value]) => labels[key] === value);
  return pools.find(has) ?? null;
}

export type NodeConfig = {
  readonly loaded: LoadedConfig;
  /** By environment name: "default", "environment", "pool batch", "node label". */
  readonly origins: Readonly<Record<string, string>>;
  readonly pool: string | null;
  readonly problems: readonly string[];
};

/** `base` is what the environment alone gives, and what stands when the node's own settings contradict one another. */
export function configOfNode(
  environment: Environment,
  base: LoadedConfig,
  pools: readonly NodePool[],
  labels: Readonly<Record<string, string>>,
): NodeConfig {
  const problems: string[] = [];
  const pool = poolOf(pools, labels);
  const named = labels[`${LABEL_PREFIX}pool`];
  if (named !== undefined && pool === null)
    problems.push(`the node names the pool ${named}, and there is none of that name`);
  const overrides = new Map<string, { readonly text: string; readonly origin: string }>();
  const take = (name: string, value: string, origin: string): void => {
    const key = NODE_SETTING_KEYS.find((each) => rowOf(each).name === name);
    if (key === undefined) problems.push(`${origin}: ${name} cannot be set for one node`);
    else if (!v.is(rowOf(key).schema, value))
      problems.push(`${origin}: ${name} is ${JSON.stringify(value)}, allowed is ${rowOf(key).allowed}`);
    else overrides.set(name, { text: value, origin });
  };
  if (pool !== null)
    for (const [name, value] of Object.entries(pool.settings)) take(name, value, `pool ${pool.name}`);
  for (const [key, value] of Object.entries(labels))
    if (key.startsWith(LABEL_PREFIX) && key !== `${LABEL_PREFIX}pool`)
      take(key.slice(LABEL_PREFIX.length), value, "node label");

  const merged = {
    ...environment,
    ...Object.fromEntries([...overrides].map(([name, { text }]) => [name, text])),
  };
  const loaded = overrides.size === 0 ? ok(base) : loadConfig(merged);
  if (!loaded.ok) {
    problems.push(
      ...loaded.error.map((notice) => `the node's own settings are left out: ${printNotice(notice)}`),
    );
    overrides.clear();
  }
  const origins: Record<string, string> = {};
  for (const key of settingKeys()) {
    const { name } = rowOf(key);
    const given = (environment[name] ?? "") === "" ? "default" : "environment";
    origins[name] = overrides.get(name)?.origin ?? given;
  }
  return { loaded: loaded.ok ? loaded.value : base, origins, pool: pool?.name ?? null, problems };
}
