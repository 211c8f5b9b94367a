/** Environment → Config, or the whole list of what is wrong. Reads nothing itself: the environment is handed in. */
import * as v from "valibot";
import { unreachable } from "../lib/assert.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { findContradictions } from "./contradictions.ts";
import { isServiceVariable, kindOfName, nearestName } from "./names.ts";
import { AWS_VARIABLES } from "./settings-aws.ts";
import { type Config, type ReadSettings, rowOf, type SettingKey, settingKeys } from "./settings.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** One thing to tell the operator, as a refusal or as a warning. `read` is what stands in the environment, shortened. */
export type ConfigNotice =
  | {
      readonly kind: "bad-value";
      readonly setting: string;
      readonly read: string;
      readonly allowed: string;
      readonly used: string | null; // The default that is used instead; null where the daemon stops.
    }
  | { readonly kind: "cleaned"; readonly setting: string; readonly read: string; readonly detail: string }
  | { readonly kind: "unknown-name"; readonly setting: string; readonly nearest: string | null }
  | {
      readonly kind: "not-available";
      readonly setting: string;
      readonly read: string;
      readonly instead: string;
    }
  | { readonly kind: "no-longer-read"; readonly setting: string; readonly detail: string }
  | { readonly kind: "contradiction"; readonly settings: readonly string[]; readonly detail: string };

export type LoadedConfig = {
  readonly config: Config;
  readonly warnings: readonly ConfigNotice[];
  /** The texts in force by environment name, defaults included: for the introspection pages and the log. */
  readonly texts: Readonly<Record<string, string>>;
};

/** Never the first mistake only: all that is wrong is in the error, and warnings come with the config. */
export function loadConfig(environment: Environment): Result<LoadedConfig, readonly ConfigNotice[]> {
  const problems: ConfigNotice[] = [];
  const warnings: ConfigNotice[] = [];
  const texts: Record<string, string> = {};
  const values = new Map<SettingKey, unknown>();
  for (const key of settingKeys()) {
    const read = readSetting(key, environment[rowOf(key).name]);
    problems.push(...read.problems);
    warnings.push(...read.warnings);
    texts[rowOf(key).name] = read.text;
    values.set(key, read.value);
  }
  const names = unknownNames(environment);
  problems.push(...names.problems);
  warnings.push(...names.warnings);

  // Each value was made by its own row's schema, which is what ReadSettings says of it.
  const config = derive(Object.fromEntries(values) as ReadSettings);
  const isSet = (key: SettingKey): boolean => (environment[rowOf(key).name] ?? "") !== "";
  const bad = new Set(problems.flatMap((each) => ("setting" in each ? [each.setting] : [])));
  for (const found of findContradictions(config, isSet)) {
    const settings = found.keys.map((key) => rowOf(key).name);
    // A value that is refused anyway stands here as its default, and should not be quarrelled with.
    if (settings.some((name) => bad.has(name))) continue;
    const notice = { kind: "contradiction", settings, detail: found.detail } as const;
    (found.verdict === "refuse" ? problems : warnings).push(notice);
  }
  return problems.length > 0 ? err(problems) : ok({ config, warnings, texts });
}

type Read = {
  readonly text: string;
  readonly value: unknown;
  readonly problems: readonly ConfigNotice[];
  readonly warnings: readonly ConfigNotice[];
};

function readSetting(key: SettingKey, given: string | undefined): Read {
  const row = rowOf(key);
  const fallback = (): unknown => v.parse(row.schema, row.default);
  if (given === undefined) return { text: row.default, value: fallback(), problems: [], warnings: [] };

  const { name: setting, allowed } = row;
  const read = shortened(given);
  if (row.stage === "warned") {
    const warnings = [{ kind: "no-longer-read", setting, detail: row.meaning } as const];
    return { text: row.default, value: fallback(), problems: [], warnings };
  }
  const cleaned = row.tolerate?.(given) ?? null;
  const warnings: ConfigNotice[] = [];
  if (cleaned !== null) warnings.push({ kind: "cleaned", setting, read, detail: cleaned.warning });
  const text = cleaned?.text ?? given;
  const value = v.safeParse(row.schema, text);
  if (!value.success) {
    // Empty stands for "not set" in many a chart. The incumbent stops at an empty MTU; nobody can want that.
    const stops = row.onBad === "refuse" && (given !== "" || isOwn(setting));
    const notice = { kind: "bad-value", setting, read, allowed, used: stops ? null : row.default } as const;
    const notices = stops
      ? { problems: [notice], warnings }
      : { problems: [], warnings: [...warnings, notice] };
    return { text: row.default, value: fallback(), ...notices };
  }
  if (row.later?.asks(text) === true) {
    const notice = { kind: "not-available", setting, read, instead: row.later.instead } as const;
    if (row.later.onUse === "refuse") return { text, value: value.output, problems: [notice], warnings };
    warnings.push(notice);
  }
  return { text, value: value.output, problems: [], warnings };
}

function isOwn(name: string): boolean {
  return name.startsWith("BERTH_");
}

/** What several settings say together. */
function derive(read: ReadSettings): Config {
  const { ownLogFile, incumbentLogFile, ...rest } = read;
  const inRunDirectory = (name: string): string => `${read.runDirectory}/${name}`;
  return {
    ...rest,
    podMtu: read.podMtu ?? read.eniMtu,
    cniSocketPath: read.cniSocketPath ?? inRunDirectory("berth.sock"),
    stateSocketPath: read.stateSocketPath ?? inRunDirectory("state.sock"),
    checkpointPath: read.checkpointPath ?? inRunDirectory("checkpoint.json"),
    cordonFilePath: read.cordonFilePath ?? inRunDirectory("cordoned"),
    logFile: ownLogFile ?? incumbentLogFile,
    deleteLeakedEnis: read.deleteLeakedEnis && read.provisioning, // Nothing is changed in EC2 without provisioning.
  };
}

/**
 * Names of ours that we do not know stop the daemon. The incumbent's are only told: a later version of it may have more, and
 * other programs share its prefixes.
 */
function unknownNames(environment: Environment): { problems: ConfigNotice[]; warnings: ConfigNotice[] } {
  const known = [...settingKeys().map((key) => rowOf(key).name), ...AWS_VARIABLES.map((each) => each.name)];
  const problems: ConfigNotice[] = [];
  const warnings: ConfigNotice[] = [];
  for (const name of Object.keys(environment).sort()) {
    if (environment[name] === undefined || known.includes(name) || isServiceVariable(name)) continue;
    const kind = kindOfName(name);
    if (kind === "other") continue;
    const nearest = nearestName(name, known, kind === "perhaps" ? "sure" : "likely");
    const notice = { kind: "unknown-name", setting: shortened(name), nearest } as const;
    if (kind === "ours") problems.push(notice);
    else if (kind === "theirs" || nearest !== null) warnings.push(notice);
  }
  return { problems, warnings };
}

function shortened(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** One line for people; logs get the notice's fields as well. */
export function printNotice(notice: ConfigNotice): string {
  switch (notice.kind) {
    case "bad-value": {
      const end = notice.used === null ? "" : `; using ${notice.used === "" ? "nothing" : notice.used}`;
      return `${notice.setting} is ${JSON.stringify(notice.read)}, allowed is ${notice.allowed}${end}`;
    }
    case "cleaned":
      return `${notice.setting}: ${notice.detail}`;
    case "unknown-name":
      return notice.nearest === null
        ? `${notice.setting} is no setting of Berth`
        : `${notice.setting} is no setting of Berth; did you mean ${notice.nearest}?`;
    case "not-available":
      return `${notice.setting}=${notice.read} is not available yet: ${notice.instead}`;
    case "no-longer-read":
      return `${notice.setting} has no effect. ${notice.detail}`;
    case "contradiction":
      return `${notice.settings.join(" and ")}: ${notice.detail}`;
    default:
      return unreachable(notice);
  }
}
