/** Logs: pino, JSON, one line an outcome, on stdout and (when asked) in a rotated file. The message is a constant; the rest is fields. */
import pino from "pino";
import { Repeats } from "./repeats.ts";
import { openRotatedFile } from "./rotated-file.ts";

export type LogFields = Readonly<Record<string, unknown>>;
export type LogLevel = "debug" | "info" | "warn" | "error";

/** `error`: someone must act; `warn`: we carry on less well; `info`: the node's state changed; `debug`: what was seen. */
export type Log = {
  readonly [Level in LogLevel]: (fields: LogFields, message: string) => void;
} & {
  /** A log whose lines carry these fields as well. */
  readonly child: (fields: LogFields) => Log;
  /** Writes an event that carries its own level and message, as the agent makes them. */
  readonly event: (event: LogFields & { readonly level: LogLevel; readonly message: string }) => void;
};

export type RootLog = Log & {
  /** Tells what was kept back as repeated, flushes and closes. The log may still be used; it then writes to stdout alone. */
  readonly close: () => Promise<void>;
};

export type LogOptions = {
  readonly level: "DEBUG" | "INFO" | "WARN" | "ERROR" | "FATAL"; // AWS_VPC_K8S_CNI_LOGLEVEL
  readonly file: { readonly path: string; readonly maxBytes: number; readonly keepCount: number } | null;
  /** Where lines go in place of stdout; tests hand in their own. */
  readonly write?: (line: string) => void;
  /** Monotonic milliseconds. */
  readonly nowMs?: () => number;
  readonly repeatWindowMs?: number;
};

const REPEAT_WINDOW_MS = 60_000;
const REPEAT_LINE_COUNT_MAX = 500;
const STDOUT_BUFFERED_BYTES_MAX = 4_194_304;

/**
 * Fields that differ each time the same thing happens again. All others tell one line from another: a field that nobody thought of
 * makes a line too many, never one too few.
 */
const MEASURED_FIELD = /(Ms|Count|Bytes)$|^(requestId|attempt|count|detail|error|cause)$/;

/** Field names that hold secrets in the libraries we use, at the top and one level down. */
const SECRET_FIELDS = [
  "authorization",
  "Authorization",
  "password",
  "secret",
  "token",
  "accessKeyId",
  "secretAccessKey",
  "sessionToken",
  "credentials",
  "env",
  "environment",
] as const;

export function createLog(options: LogOptions): RootLog {
  const nowMs = options.nowMs ?? (() => performance.now());
  const stdout = options.write === undefined ? openStdout() : null;
  const writeOut = options.write ?? ((line: string) => void stdout?.write(line));
  let toFile: ((line: string) => void) | null = null;
  const root = pino(
    {
      level: options.level.toLowerCase(),
      base: null,
      messageKey: "message",
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: SECRET_FIELDS.flatMap((name) => [name, `*.${name}`]),
        censor: "[secret]",
      },
      serializers: { error: plainError, cause: plainError, err: plainError },
    },
    {
      write(line: string) {
        writeOut(line);
        toFile?.(line);
      },
    },
  );
  const file =
    options.file === null
      ? null
      : openRotatedFile({
          ...options.file,
          onTrouble: (error) => {
            toFile = null;
            root.error({ path: options.file?.path, error }, "log file given up");
          },
        });
  if (file !== null) toFile = file.write;

  const repeats = new Repeats<() => void>({
    windowMs: options.repeatWindowMs ?? REPEAT_WINDOW_MS,
    lineCountMax: REPEAT_LINE_COUNT_MAX,
  });
  let repeated = 0; // Goes into the line that is being written, where it is above 0.
  const tell = (keptBack: ReturnType<typeof repeats.takeAll>): void => {
    for (const { line, count } of keptBack) {
      repeated = count;
      line();
    }
    repeated = 0;
  };

  const logOf = (logger: pino.Logger, context: LogFields): Log => {
    const write = (level: LogLevel, fields: LogFields, message: string): void => {
      if (!logger.isLevelEnabled(level)) return;
      const short = bounded(fields);
      const line = (): void => logger[level](repeated > 0 ? { ...short, repeated } : short, message);
      // Each info line is a change of the node's state of its own, and debug is asked for to see all.
      if (level === "info" || level === "debug") return line();
      const now = nowMs();
      tell(repeats.takeDue(now));
      if (repeats.isNew(identity(level, message, { ...context, ...short }), line, now)) line();
    };
    return {
      debug: (fields, message) => write("debug", fields, message),
      info: (fields, message) => write("info", fields, message),
      warn: (fields, message) => write("warn", fields, message),
      error: (fields, message) => write("error", fields, message),
      event: ({ level, message, ...fields }) => write(level, fields, message),
      child: (fields) => logOf(logger.child(fields), { ...context, ...fields }),
    };
  };
  return {
    ...logOf(root, {}),
    async close() {
      tell(repeats.takeAll());
      toFile = null;
      await file?.close();
      stdout?.flushSync();
    },
  };
}

/** Asynchronous, so that a stalled reader of our stdout does not stall pods; pino writes out what is left when the process exits. */
function openStdout(): ReturnType<typeof pino.destination> {
  const stdout = pino.destination({ dest: 1, sync: false, maxLength: STDOUT_BUFFERED_BYTES_MAX });
  stdout.on("error", () => undefined); // The reader is gone: there is nowhere left to say so.
  return stdout;
}

function identity(level: LogLevel, message: string, fields: LogFields): string {
  const telling = Object.entries(fields).filter(([name]) => !MEASURED_FIELD.test(name));
  return [level, message, ...telling.map(([name, value]) => `${name}=${scalar(value)}`).sort()].join(
    "\u0000",
  );
}

function scalar(value: unknown): string {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? `${value}`
    : "";
}

/** An error without what libraries hang on it: the AWS SDK's carry whole requests and responses. */
function plainError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  return {
    name: error.name,
    message: error.message,
    stack: error.stack,
    ...("code" in error ? { code: error.code } : {}),
    ...(error.cause === undefined ? {} : { cause: plainError(error.cause) }),
  };
}

/** What a line may take of what others say: some fields come from runtimes, EC2 and files, who may send a megabyte. */
const TEXT_LENGTH_MAX = 2_000;
const ITEM_COUNT_MAX = 50;
const DEPTH_MAX = 6;

/** The same fields, with long texts and lists cut short and told so. */
function bounded(fields: LogFields): LogFields {
  return Object.fromEntries(
    Object.entries(fields)
      .slice(0, ITEM_COUNT_MAX)
      .map(([name, value]) => [name, boundedValue(plainError(value), DEPTH_MAX)]),
  );
}

function boundedValue(value: unknown, depth: number): unknown {
  if (typeof value === "string")
    return value.length <= TEXT_LENGTH_MAX
      ? value
      : `${value.slice(0, TEXT_LENGTH_MAX)}… (${value.length} characters)`;
  if (typeof value !== "object" || value === null) return value;
  if (depth === 0) return "…";
  if (value instanceof Map || value instanceof Set) return boundedValue([...value], depth);
  if (Array.isArray(value)) {
    const items = value.slice(0, ITEM_COUNT_MAX).map((item) => boundedValue(item, depth - 1));
    return value.length <= ITEM_COUNT_MAX ? items : [...items, `… (${value.length} in all)`];
  }
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, ITEM_COUNT_MAX)
      .map(([name, inner]) => [name.slice(0, 100), boundedValue(plainError(inner), depth - 1)]),
  );
}
