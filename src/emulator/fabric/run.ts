/**
 * Runs `ip`, `nft` and writes to /proc/sys inside named namespaces, many steps by one shell. The fabric judges our own netlink code, so
 * it shares none of it. `nsenter` and not `ip netns exec`, which mounts a sysfs and so fails for some unprivileged users.
 */
import { spawn } from "node:child_process";
import { assert, unreachable } from "../../lib/assert.ts";

export type Act =
  | { readonly kind: "ip"; readonly lines: readonly string[] } // For `ip -batch`.
  | { readonly kind: "ip-if-there"; readonly line: string } // Failing is as good: the object is gone already.
  | { readonly kind: "nft"; readonly text: string } // One transaction.
  | { readonly kind: "sysctl"; readonly values: Readonly<Record<string, string>> }; // By path under /proc/sys/net.

/** Acts in one namespace, in order; null is the namespace of this process. */
export type Step = { readonly netns: string | null; readonly acts: readonly Act[] };

/** Where `ip netns add` puts the namespace. */
export function netnsPath(netns: string): string {
  assert(/^[\w.-]+$/.test(netns), "a namespace's name needs no quoting");
  return `/run/netns/${netns}`;
}

/** The command line that runs `command` inside the namespace, in the same mount namespace. */
export function inNetns(netns: string, command: readonly string[]): readonly [string, ...string[]] {
  return ["nsenter", `--net=${netnsPath(netns)}`, "--", ...command];
}

/**
 * Runs each change, a list of steps, to its end or to its first failing step; one that fails does not hinder the others.
 * Resolves to a list as long as `changes`: null, or what the tools said on stderr.
 */
export async function runChanges(changes: readonly (readonly Step[])[]): Promise<readonly (string | null)[]> {
  // Each change has a shell of its own, since -e is not obeyed left of `||`.
  const script = changes.map(
    (steps, at) =>
      `sh -e ${here(`CHANGE_${at}`, steps.map(stepScript).join("\n"), ` || echo "${MARK}${at}" >&2`)}`,
  );
  const { stdout: _, stderr } = await execute(["sh"], script.join("\n"));
  const failures: (string | null)[] = changes.map(() => null);
  let said: string[] = [];
  for (const line of stderr.split("\n")) {
    if (line.startsWith(MARK)) {
      failures[Number(line.slice(MARK.length))] = said.join("\n") || "failed without a word";
      said = [];
    } else if (line !== "") said.push(line);
  }
  return failures;
}

/** What the command prints; throws with its stderr when it fails. */
export async function readFrom(netns: string, command: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await execute(inNetns(netns, command), "");
  if (code !== 0) throw new Error(`${command.join(" ")} in ${netns}: ${stderr}`);
  return stdout;
}

const MARK = "@failed ";

function stepScript({ netns, acts }: Step, at: number): string {
  const script = acts.map(actScript).join("\n");
  return netns === null ? script : `nsenter --net=${netnsPath(netns)} -- sh -e ${here(`STEP_${at}`, script)}`;
}

function actScript(act: Act, at: number): string {
  switch (act.kind) {
    case "ip":
      return `ip -batch - ${here(`IP_${at}`, act.lines.join("\n"))}`;
    case "ip-if-there":
      return `ip ${act.line} 2>/dev/null || :`;
    case "nft":
      return `nft -f - ${here(`NFT_${at}`, act.text)}`;
    case "sysctl":
      return Object.entries(act.values)
        .map(([path, value]) => `echo ${value} >/proc/sys/net/${path}`)
        .join("\n");
    default:
      return unreachable(act);
  }
}

/** A here-document; `after` goes on the command's own line. */
function here(tag: string, text: string, after = ""): string {
  return `<<'${tag}'${after}\n${text}\n${tag}`;
}

async function execute(
  [file, ...args]: readonly [string, ...string[]],
  input: string,
): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> {
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"] });
  const read = async (stream: NodeJS.ReadableStream): Promise<string> => {
    let text = "";
    for await (const chunk of stream.setEncoding("utf8")) text += String(chunk);
    return text;
  };
  const ended = new Promise<number | null>((resolve, reject) =>
    child.once("error", reject).once("close", resolve),
  );
  child.stdin.on("error", () => undefined); // It ended before it had read everything; its exit code tells.
  child.stdin.end(input);
  const [code, stdout, stderr] = await Promise.all([ended, read(child.stdout), read(child.stderr)]);
  return { code, stdout, stderr };
}
