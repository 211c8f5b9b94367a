/**
 * Questions that real packets ask: what source address does the other side see, over TCP, UDP and ICMP, in any size. Sockets are opened
 * inside the namespaces by this process, so that a question costs a millisecond; only ping is a program.
 */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, createServer, type Server, type Socket } from "node:net";
import { inNetns, must, run } from "./processes.ts";

export type Protocol = "tcp" | "udp" | "icmp";

/** What came of a question: the source address that the other side saw, or why there was no answer. */
export type Answer =
  | { readonly kind: "seen"; readonly ip: string; readonly port: number } // Port 0 for ICMP.
  | { readonly kind: "silence"; readonly detail: string };

export type Question = {
  readonly netns: string; // A path.
  readonly protocol: Protocol;
  readonly ip: string;
  readonly port: number; // Without meaning for ICMP.
  readonly bytes?: number; // There and back, beside the few that tell the address. ICMP: not to be fragmented.
  readonly watchedIn?: string; // ICMP: the namespace (a path) that `listen` watches, where the request arrives.
  readonly fromPort?: number; // UDP: the asker's port, so that two questions belong to one connection.
  /** ICMP: an address that the asker has no right to. The answer would go to whoever has it, so arriving is as good as being answered. */
  readonly fromIp?: string;
  readonly patienceMs?: number;
};

export type Listener = { readonly close: () => void };

const PATIENCE_MS = 1_000;
/** Node.js resolves even an address in a later turn, when the thread has left the namespace; this resolver answers at once. */
type Lookup = (
  host: string,
  options: unknown,
  done: (cause: null, ip: string, family: number) => void,
) => void;
const addressAtOnce: Lookup = (host, _options, done) => done(null, host, 4);

/** Answers TCP and UDP at the port, on all addresses of the namespace, and notes who pings. */
export async function listen(netns: string, port: number): Promise<Listener> {
  const [tcp, udp] = await Promise.all([listenTcp(netns, port), listenUdp(netns, port), watchPings(netns)]);
  return {
    close: () => {
      tcp.close();
      udp.close();
    },
  };
}

/** First the address that was seen, then all that comes is sent back. */
async function listenTcp(netns: string, port: number): Promise<Server> {
  const server = createServer((socket) => {
    socket.on("error", () => {}); // The asker may go away.
    socket.write(`${(socket.remoteAddress ?? "").replace(/^::ffff:/, "")} ${socket.remotePort}\n`);
    socket.pipe(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("listening", resolve).once("error", reject);
    inNetns(netns, () => server.listen(port)); // Without a host, so that the socket is made before we leave the namespace.
  });
  return server;
}

/** The answer is as long as the question. */
async function listenUdp(netns: string, port: number): Promise<UdpSocket> {
  const socket = udpSocket();
  socket.on("message", (message, from) => {
    const answer = Buffer.alloc(Math.max(message.length, 32));
    answer.write(`${from.address} ${from.port}\n`);
    socket.send(answer, from.port, from.address);
  });
  socket.on("error", () => {}); // ICMP errors of answers that nobody waits for.
  const bound = new Promise<void>((resolve) => socket.once("listening", () => resolve()));
  inNetns(netns, () => socket.bind(port));
  await bound;
  return socket;
}

function udpSocket(): UdpSocket {
  return createSocket({ type: "udp4", lookup: addressAtOnce, recvBufferSize: 1 << 18 });
}

const WATCH = `table inet watch
delete table inet watch
table inet watch {
  set pinged { type ipv4_addr; flags dynamic; size 64; }
  chain enter {
    type filter hook prerouting priority -400;
    icmp type echo-request update @pinged { ip saddr }
  }
}
`;

async function watchPings(netns: string): Promise<void> {
  await must(["nft", "-f", "-"], { netns, input: WATCH });
}

export async function ask(question: Question): Promise<Answer> {
  switch (question.protocol) {
    case "tcp":
      return await askTcp(question);
    case "udp":
      return await askUdp(question);
    case "icmp":
      return await askIcmp(question);
  }
}

async function askTcp({ netns, ip, port, bytes = 0, patienceMs = PATIENCE_MS }: Question): Promise<Answer> {
  return await new Promise<Answer>((resolve) => {
    const lookup: Lookup = (_name, _options, done) => done(null, ip, 4); // An address as host would be resolved in a later turn, whatever the resolver.
    const socket: Socket = inNetns(netns, () =>
      connect({ host: "peer", port, family: 4, autoSelectFamily: false, lookup: lookup }),
    );
    let head = "";
    let left = bytes;
    const end = (answer: Answer): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(
      () =>
        end({
          kind: "silence",
          detail: head === "" ? "no connection" : `${left} of ${bytes} bytes did not come back`,
        }),
      patienceMs,
    );
    socket.once("error", (cause) => end({ kind: "silence", detail: cause.message }));
    socket.once("connect", () => {
      if (bytes > 0) socket.write(Buffer.alloc(bytes, "x"));
    });
    socket.on("data", (chunk: Buffer) => {
      const text = chunk.toString("latin1");
      if (!head.includes("\n")) {
        head += text;
        if (!head.includes("\n")) return;
        left -= head.length - head.indexOf("\n") - 1;
        head = head.slice(0, head.indexOf("\n") + 1);
      } else left -= chunk.length;
      if (left <= 0) end(seenIn(head));
    });
  });
}

/** The first line of an answer: address and port of the asker, as the other side saw them. */
function seenIn(answer: string): Answer {
  const [ip = "", port = ""] = (answer.split("\n")[0] ?? "").split(" ");
  return { kind: "seen", ip, port: Number(port) };
}

/** Asked up to three times: the first big datagram may be what discovers the path's MTU. */
async function askUdp({
  netns,
  ip,
  port,
  bytes = 0,
  fromPort = 0,
  patienceMs = PATIENCE_MS,
}: Question): Promise<Answer> {
  const socket = udpSocket();
  return await new Promise<Answer>((resolve) => {
    const message = Buffer.alloc(bytes, "x");
    const send = (): void => socket.send(message, port, ip, () => {}); // An ICMP error of the last one is not this one's.
    const end = (answer: Answer): void => {
      clearTimeout(timer);
      clearInterval(again);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => end({ kind: "silence", detail: "no answer" }), patienceMs);
    const again = setInterval(send, patienceMs / 3);
    socket.on("error", () => {});
    socket.once("message", (answer) => {
      if (answer.length < bytes)
        end({ kind: "silence", detail: `${answer.length} of ${bytes} bytes came back` });
      else end(seenIn(answer.toString("latin1")));
    });
    socket.once("listening", send);
    inNetns(netns, () => socket.bind(fromPort));
  });
}

async function askIcmp({
  netns,
  ip,
  bytes,
  watchedIn,
  fromIp,
  patienceMs = PATIENCE_MS,
}: Question): Promise<Answer> {
  if (watchedIn !== undefined)
    await must(["nft", "flush", "set", "inet", "watch", "pinged"], { netns: watchedIn });
  const size = bytes === undefined ? [] : ["-M", "do", "-s", `${bytes}`];
  const from = fromIp === undefined ? [] : ["-I", fromIp];
  const wait = `${patienceMs / 1_000}`;
  const done = await run(["ping", "-n", "-q", "-c", "1", "-W", wait, ...size, ...from, ip], {
    netns,
    timeoutMs: patienceMs + 2_000,
  });
  if (
    done.exitCode !== 0 &&
    !(fromIp !== undefined && watchedIn !== undefined && (await pingedBy(watchedIn)) !== null)
  ) {
    const said = done.stderr.trim() || (done.stdout.trim().split("\n").at(-1) ?? "");
    return { kind: "silence", detail: said.slice(0, 200) || "no answer" };
  }
  if (watchedIn === undefined) return { kind: "seen", ip: "", port: 0 };
  return { kind: "seen", ip: (await pingedBy(watchedIn)) ?? "nobody", port: 0 };
}

/** Who has pinged the namespace since it was last asked to forget. */
async function pingedBy(netns: string): Promise<string | null> {
  const listed = await must(["nft", "list", "set", "inet", "watch", "pinged"], { netns });
  return /elements = \{ ([0-9.]+)/.exec(listed)?.[1] ?? null;
}
