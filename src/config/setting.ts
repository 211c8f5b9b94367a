/** What a row of the settings table is, and the kinds of value that rows share. The rows themselves stand in settings-*.ts. */
import * as v from "valibot";
import { type Cidr4, parseCidr4 } from "../lib/ip.ts";

/** Reads one environment text; its issues are not shown, `allowed` of the row is. */
export type TextSchema = v.GenericSchema<string, unknown>;

/** One setting. The reference page, the loader and the command line read the same rows. */
export type Setting<S extends TextSchema = TextSchema> = {
  readonly name: string; // The environment variable.
  readonly unit: string; // "seconds", "addresses", "boolean", …
  readonly default: string; // As it would be written; "" is for "not set".
  readonly allowed: string; // What an operator may write, in words.
  readonly meaning: string;
  readonly schema: S;
  /**
   * What a text that `schema` refuses does. `refuse` stops the daemon (all BERTH_ names, and those of the incumbent that
   * stopped it too); `default` is the incumbent's manner: the default is used, and we say so once.
   */
  readonly onBad: "refuse" | "default";
  /** `core` acts now; `later` is known and has no feature behind it yet; `warned` is no longer read by anyone. */
  readonly stage: "core" | "later" | "warned";
  /** Of a later setting: which texts ask for what is not there, and whether going on without it would be a broken promise. */
  readonly later?: {
    readonly asks: (text: string) => boolean;
    readonly onUse: "refuse" | "warn";
    readonly instead: string;
  };
  /** Takes what the incumbent takes and cleans it, with one warning. Null: nothing to clean. */
  readonly tolerate?: (text: string) => { readonly text: string; readonly warning: string } | null;
};

/** Keeps the row's own schema type, from which the type of `Config` is made. */
export function setting<S extends TextSchema>(row: Setting<S>): Setting<S> {
  return row;
}

/** A text that `parse` reads, or refuses with undefined. */
export function parsed<T>(parse: (text: string) => T | undefined): v.GenericSchema<string, T> {
  return v.pipe(
    v.string(),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const value = parse(dataset.value);
      if (value !== undefined) return value;
      addIssue();
      return NEVER;
    }),
  );
}

/** "" is null: not set. */
export function optional<T>(schema: v.GenericSchema<string, T>): v.GenericSchema<string, T | null> {
  return parsed((text) => {
    if (text === "") return null;
    const value = v.safeParse(schema, text);
    return value.success ? value.output : undefined;
  });
}

const GO_TRUE = ["1", "t", "T", "TRUE", "true", "True"];
const GO_FALSE = ["0", "f", "F", "FALSE", "false", "False"];
export const GO_BOOLEAN_ALLOWED = "true or false (also 1, t, T, TRUE, True, 0, f, F, FALSE, False)";

/** Go's strconv.ParseBool, which reads the incumbent's booleans. */
export const goBoolean = parsed((text) =>
  GO_TRUE.includes(text) ? true : GO_FALSE.includes(text) ? false : undefined,
);

/** The opposite of a `DISABLE_…` setting: Config says what is on. */
export const goBooleanInverted = v.pipe(
  goBoolean,
  v.transform((value) => !value),
);

/** For BERTH_ names. */
export const strictBoolean = parsed((text) =>
  text === "true" ? true : text === "false" ? false : undefined,
);

/** A decimal integer in [low, high]. Signs are read, as Go's Atoi reads them. */
export function integer(low: number, high: number): v.GenericSchema<string, number> {
  return parsed((text) => {
    if (!/^[+-]?[0-9]{1,15}$/.test(text)) return undefined;
    const value = Number(text);
    return value >= low && value <= high ? value : undefined;
  });
}

/** A count where everything below 1 means "no such limit or target". */
export function positiveOrNull(low: number, high: number): v.GenericSchema<string, number | null> {
  return v.pipe(
    integer(low, high),
    v.transform((value) => (value < 1 ? null : value)),
  );
}

/** Whole seconds in [low, high], given on in milliseconds. */
export function seconds(low: number, high: number): v.GenericSchema<string, number> {
  return v.pipe(
    integer(low, high),
    v.transform((value) => value * 1_000),
  );
}

/** One of the words, in any case when `anyCase` says so; given on as listed. */
export function oneOf<const Word extends string>(
  words: readonly Word[],
  options: { anyCase: boolean } = { anyCase: false },
): v.GenericSchema<string, Word> {
  return parsed((text) =>
    words.find((word) => word === text || (options.anyCase && word.toLowerCase() === text.toLowerCase())),
  );
}

export const anyText: v.GenericSchema<string, string> = v.string();

/** An absolute path without `.`, `..`, doubled slashes or control characters. */
export const absolutePath = parsed((text) =>
  /^(\/[^/\p{Cc}]+)+$/u.test(text) && !text.split("/").some((part) => part === "." || part === "..")
    ? text
    : undefined,
);

export const ipv4Cidrs = parsed((text): readonly Cidr4[] | undefined => {
  const cidrs: Cidr4[] = [];
  for (const part of splitList(text)) {
    const cidr = parseCidr4(part);
    if (!cidr.ok) return undefined;
    cidrs.push(cidr.value);
  }
  return cidrs;
});

/** Drops what is no IPv4 block, as the incumbent does; we say which. */
export function dropBadCidrs(text: string): { readonly text: string; readonly warning: string } | null {
  const parts = splitList(text);
  const bad = parts.filter((part) => !parseCidr4(part).ok);
  if (bad.length === 0) return null;
  return {
    text: parts.filter((part) => !bad.includes(part)).join(","),
    warning: `left out, since they are not IPv4 CIDRs: ${bad.map((part) => JSON.stringify(part.slice(0, 60))).join(", ")}`,
  };
}

/** Comma-separated; spaces around and empty parts are dropped. */
export function splitList(text: string): readonly string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

/** Where a server listens. `host` is an address, never a name but `localhost`; port 0 lets the kernel choose. */
export type BindAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** `host:port`, `:port` for all addresses, `[v6]:port`; with `unix:<absolute path>` when `unix` says so. */
export function bindAddress(allow: {
  unix: boolean;
  loopbackOnly: boolean;
}): v.GenericSchema<string, BindAddress> {
  return parsed((text): BindAddress | undefined => {
    if (text.startsWith("unix:")) {
      const path = text.slice("unix:".length);
      // A Unix socket's path holds 107 bytes (sys/un.h); ours are first bound under a name that is 8 longer.
      return allow.unix && path.length <= 99 && v.is(absolutePath, path) ? { kind: "unix", path } : undefined;
    }
    const match = /^(?<host>localhost|[0-9.]*|\[[0-9A-Fa-f:.]+\]):(?<port>[0-9]{1,5})$/.exec(text);
    const port = Number(match?.groups?.["port"]);
    if (match === null || port > 65_535) return undefined;
    const given = match.groups?.["host"] ?? "";
    const host = given === "" ? "0.0.0.0" : given.replace(/^\[|\]$/g, "");
    if (/^[0-9.]+$/.test(host) && !parseCidr4(`${host}/32`).ok) return undefined;
    if (allow.loopbackOnly && !/^(localhost|127\.[0-9.]+|::1)$/.test(host)) return undefined;
    return { kind: "tcp", host, port };
  });
}

export function printBindAddress(bind: BindAddress): string {
  if (bind.kind === "unix") return `unix:${bind.path}`;
  return bind.host.includes(":") ? `[${bind.host}]:${bind.port}` : `${bind.host}:${bind.port}`;
}
