/** Starts plugins through native/launcher.c, inside a node's namespace, and tells how long each took. */
import type { Readable } from "node:stream";
import { assert } from "../../src/lib/assert.ts";
import { cpuMsOf } from "./proc.ts";
import { start } from "../../src/lab/processes.ts";

export type Job = {
  readonly program: string;
  readonly args?: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly input: string;
};

export type Finished = { readonly ms: number; readonly exitCode: number; readonly stdout: string };

export type Launcher = {
  /** All at once; one batch at a time. `wallMs` is from the first start to the last end. */
  readonly run: (
    jobs: readonly Job[],
  ) => Promise<{ readonly finished: readonly Finished[]; readonly wallMs: number }>;
  /** Processor time of all that it has started and seen end, milliseconds in steps of ten. */
  readonly childrenCpuMs: () => number;
  readonly close: () => Promise<void>;
};

/** `enter`, put before the launcher, takes it to a mount namespace other than ours. */
export function createLauncher(program: string, netns: string, enter: readonly string[] = []): Launcher {
  const child = start([...enter, program], { stdio: ["pipe", "pipe", "inherit"] }, netns);
  const { stdin, stdout } = child;
  assert(stdin !== null && stdout !== null, "the launcher has pipes");
  const read = createReader(stdout);
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  return {
    run: async (jobs) => {
      stdin.write(Buffer.concat([u32(jobs.length), ...jobs.flatMap(encode)]));
      const finished: Finished[] = [];
      for (const _ of jobs) {
        const head = await read(16);
        const text = await read(head.readUInt32LE(12));
        finished.push({
          ms: Number(head.readBigUInt64LE(0)) / 1e6,
          exitCode: head.readInt32LE(8),
          stdout: text.toString("utf8"),
        });
      }
      return { finished, wallMs: Number((await read(8)).readBigUInt64LE(0)) / 1e6 };
    },
    childrenCpuMs: () => cpuMsOf(child.pid ?? 0, "children"),
    close: async () => {
      stdin.end();
      await ended;
    },
  };
}

function encode({ program, args = [], env, input }: Job): readonly Buffer[] {
  const strings = (texts: readonly string[]): string => texts.map((text) => `${text}\0`).join("");
  const environment = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  return [strings([program, ...args]), strings(environment), input].flatMap((text) => {
    const bytes = Buffer.from(text);
    return [u32(bytes.length), bytes];
  });
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value); // Native order: both of our architectures are little-endian.
  return bytes;
}

/** Reads exactly so many bytes. Throws when the launcher ends before; its words are on stderr. */
function createReader(stream: Readable): (size: number) => Promise<Buffer> {
  let have = Buffer.alloc(0);
  let over = false;
  let wake = (): void => {};
  stream.on("data", (chunk: Buffer) => {
    have = Buffer.concat([have, chunk]);
    wake();
  });
  stream.once("close", () => {
    over = true;
    wake();
  });
  return async (size) => {
    while (have.length < size) {
      if (over) throw new Error("the launcher ended");
      await new Promise<void>((resolve) => (wake = resolve));
    }
    const taken = have.subarray(0, size);
    have = have.subarray(size);
    return taken;
  };
}
