/** Every setting of the daemon, and the type of what they make together. A row carries its name, unit, default, meaning and schema. */
import type * as v from "valibot";
import type { Setting } from "./setting.ts";
import { INCUMBENT_SETTINGS } from "./settings-incumbent.ts";
import { LATER_SETTINGS } from "./settings-later.ts";
import { OWN_SETTINGS } from "./settings-own.ts";

/** By the key that the value has in `Config`. */
export const SETTINGS = { ...INCUMBENT_SETTINGS, ...LATER_SETTINGS, ...OWN_SETTINGS } as const;

export type SettingKey = keyof typeof SETTINGS;

/** The values as the rows give them, before what follows from several of them. */
export type ReadSettings = {
  readonly [Key in SettingKey]: v.InferOutput<(typeof SETTINGS)[Key]["schema"]>;
};

/** What the daemon runs by: plain values, durations in milliseconds (`…Ms`), sizes in bytes (`…Bytes`). */
export type Config = Omit<ReadSettings, DerivedKey> & {
  readonly podMtu: number; // That of the ENIs where POD_MTU is not set.
  readonly cniSocketPath: string;
  readonly stateSocketPath: string;
  readonly cordonFilePath: string;
  readonly checkpointPath: string;
  readonly logFile: string | null; // BERTH_LOG_FILE, or else AWS_VPC_K8S_CNI_LOG_FILE; null: stdout alone.
};

type DerivedKey =
  | "podMtu"
  | "cniSocketPath"
  | "stateSocketPath"
  | "cordonFilePath"
  | "checkpointPath"
  | "ownLogFile"
  | "incumbentLogFile";

/** The rows as a list, in the order of the reference page. */
export function settingRows(): readonly (Setting & { readonly key: SettingKey })[] {
  return settingKeys().map((key) => ({ ...rowOf(key), key }));
}

export function settingKeys(): readonly SettingKey[] {
  return Object.keys(SETTINGS) as SettingKey[]; // Object.keys forgets the keys' type; SETTINGS has no others.
}

export function rowOf(key: SettingKey): Setting {
  return SETTINGS[key];
}
