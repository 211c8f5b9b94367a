/** Real packets between namespaces: pings, and TCP connections that tell what source address the other side saw. */
import { createServer, type Server } from "node:net";
import { inNetns, run, start } from "./processes.ts";

export type PingCount = { readonly sent: number; readonly received: number };

const TALLY = /(\d+) packets transmitted, (\d+) received/;

/** `count` echo requests, one each `intervalMs`. A destination that cannot be reached gives what was received: 0. */
export async function ping(
  netns: string,
  ip: string,
  options: { count: number; intervalMs?: number; size?: number },
): Promise<PingCount> {
  const { count, intervalMs = 200, size = 56 } = options;
  const flags = ["-n", "-q", "-c", `${count}`, "-i", `${intervalMs / 1_000}`, "-W", "1", "-s", `${size}`];
  const done = await run(["ping", ...flags, ip], { netns, timeoutMs: count * intervalMs + 10_000 });
  return tally(done.stdout) ?? { sent: count, received: 0 };
}

export type RunningPing = { readonly stop: () => Promise<PingCount> };

/** Pings until stopped. */
export function startPing(netns: string, ip: string, intervalMs: number): RunningPing {
  const child = start(
    ["ping", "-n", "-i", `${intervalMs / 1_000}`, "-W", "1", ip],
    { stdio: ["ignore", "pipe", "ignore"] },
    netns,
  );
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (output += text));
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  return {
    stop: async () => {
      child.kill("SIGINT"); // It tells its tally on the way out.
      await ended;
      const { sent, received } = tally(output) ?? { sent: 1, received: 0 };
      // An answer that was on its way when we stopped is not lost: the last one, and no other.
      const last = Number(/icmp_seq=(\d+) .*\n(?![^]*icmp_seq)/.exec(output)?.[1] ?? 0);
      return { sent: last === sent - 1 ? last : sent, received };
    },
  };
}

function tally(output: string): PingCount | null {
  const found = TALLY.exec(output);
  return found === null ? null : { sent: Number(found[1]), received: Number(found[2]) };
}

/** A TCP server in the namespace that tells each caller the source address it saw. */
export async function serveTcp(netns: string, port: number): Promise<{ readonly close: () => void }> {
  const server: Server = createServer((socket) => {
    socket.on("error", () => {}); // The caller may be killed.
    socket.end(`${(socket.remoteAddress ?? "").replace(/^::ffff:/, "")}\n`);
  });
  const listening = new Promise<void>((resolve, reject) => {
    server.once("listening", resolve).once("error", reject);
  });
  inNetns(netns, () => server.listen(port)); // Without a host, so that the socket is made before we leave the namespace.
  await listening;
  return { close: () => server.close() };
}

/** The source address that the server saw, or why there is none. */
export async function askTcp(netns: string, ip: string, port: number): Promise<string> {
  const script = 'exec 3<>"/dev/tcp/$0/$1" && cat <&3';
  const done = await run(["bash", "-c", script, ip, `${port}`], { netns, timeoutMs: 5_000 });
  return done.exitCode === 0
    ? done.stdout.trim()
    : `no answer: ${done.stderr.trim().split("\n").at(-1) ?? ""}`;
}
