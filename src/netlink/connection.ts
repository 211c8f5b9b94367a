/**
 * One rtnetlink socket, in the network namespace that its thread was in when it was opened. Everything is synchronous:
 * rtnetlink carries a request out inside the send, so its answer is there when the send returns, and nothing can come in between.
 */
import * as structs from "netlink/dist/structs.js";
import { assert } from "../lib/assert.ts";
import { err, ok, type Result } from "../lib/result.ts";
import * as libc from "../libc/libc.ts";
import { errnoName, NO_ANSWER, type NetlinkError, parseAck, parseDone } from "./answers.ts";
import { encodeRequest, NLM_F_ACK, NLM_F_REQUEST, type NetlinkRequest } from "./messages.ts";

export const NETLINK_ROUTE = 0; // linux/netlink.h
export const NETLINK_NETFILTER = 12;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_DUMP_INTR = 0x10;

/** So many requests in one send: their acks fit the receive buffer with room to spare, however the kernel accounts for them. */
const BATCH_MAX = 64;
const RECEIVE_BUFFER_BYTES = 1 << 20;
/** Torn dumps are repeated so often; the last one counts, torn or not: on a node where links come and go, none may be whole. */
const DUMP_ATTEMPTS = 5;

// Shared by all connections: nothing of it is kept across calls, and calls do not overlap. The kernel sends at most 32 KiB at a time.
const receiveBuffer = Buffer.alloc(64 * 1024);

/** What came of one request: the messages it answered with (a GET has one, others none), or the kernel's refusal. */
export type Answer = Result<readonly structs.NetlinkMessage[], NetlinkError>;

/** `torn`: the kernel said each time that the table changed under the dump, so an object may be missing or doubled. */
export type Dump<T> = { readonly objects: readonly T[]; readonly unreadable: number; readonly torn: boolean };

type Open = { readonly what: string; readonly messages: structs.NetlinkMessage[] };

export class Connection {
  readonly #fd: number;
  readonly port: number; // nl_pid: stands in the events that our requests cause.
  #sequence = 0;
  #closed = false;
  #awaiting = false;

  private constructor(fd: number, port: number) {
    this.#fd = fd;
    this.port = port;
  }

  /** In the calling thread's namespace. EMFILE or ENFILE: no descriptors left. EPROTONOSUPPORT: the kernel has no such protocol. */
  static open(protocol: number = NETLINK_ROUTE): Result<Connection, NetlinkError> {
    const opened = libc.socket(libc.AF_NETLINK, libc.SOCK_RAW | libc.SOCK_CLOEXEC, protocol);
    if (!opened.ok) return err(failure("open a netlink socket", opened.error));
    const fd = opened.value;
    // Errors in the kernel's own words, without the request repeated, and dumps that honour their filters. Kernels before 4.20 lack
    // some of these; all that is lost then is comfort, so a refusal is no error.
    libc.setSocketOption(fd, libc.SOL_NETLINK, NETLINK_EXT_ACK, 1);
    libc.setSocketOption(fd, libc.SOL_NETLINK, NETLINK_CAP_ACK, 1);
    libc.setSocketOption(fd, libc.SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
    libc.setSocketOption(fd, libc.SOL_SOCKET, libc.SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES);
    const bound = libc.bindNetlink(fd, 0);
    const port = bound.ok ? libc.netlinkPort(fd) : bound;
    if (!port.ok) {
      libc.close(fd);
      return err(failure("bind a netlink socket", port.error));
    }
    return ok(new Connection(fd, port.value));
  }

  /**
   * Sends all requests in batches. A later one is carried out even if an earlier one fails. One answer a request, in their order. An
   * answer that never came (the receive buffer ran over) has the code NO_ANSWER: look before repeating.
   *
   * Only the last of a batch asks for an ack: the kernel tells of each refusal without being asked, and carries them out in order, so
   * that ack says that all others are done. Reading one ack for each would take longer than the kernel does.
   */
  request(requests: readonly NetlinkRequest[]): readonly Answer[] {
    const answers: Answer[] = [];
    for (let at = 0; at < requests.length; at += BATCH_MAX) {
      answers.push(...this.#requestBatch(requests.slice(at, at + BATCH_MAX)));
    }
    return answers;
  }

  /** One request alone. */
  requestOne(request: NetlinkRequest): Answer {
    const [answer] = this.request([request]);
    assert(answer !== undefined, "a request has an answer");
    return answer;
  }

  /**
   * An nf_tables transaction: its first and last request are the brackets, which the kernel does not answer. All of it is carried out, or
   * nothing; the error is that of the first request that was refused.
   */
  transaction(requests: readonly NetlinkRequest[]): Result<null, NetlinkError> {
    const answers = this.#requestBatch(requests, requests.length - 2);
    for (const answer of answers) if (!answer.ok) return answer;
    return ok(null);
  }

  /** All objects of a kind; `parse` gives null for what it cannot read. Repeated while the kernel says that it was torn. */
  dump<T>(
    request: NetlinkRequest,
    parse: (message: structs.NetlinkMessage) => T | null,
  ): Result<Dump<T>, NetlinkError> {
    let last: Result<Dump<T>, NetlinkError> = err({
      errno: 0,
      code: NO_ANSWER,
      detail: "",
      what: request.what,
    });
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt += 1) {
      last = this.#dumpOnce(request, parse);
      if (last.ok ? !last.value.torn : last.error.code !== NO_ANSWER && last.error.code !== "EBUSY")
        return last;
    }
    return last;
  }

  /**
   * One request whose send happens on a pool thread, for what the kernel carries out slowly. Until it resolves, this connection is
   * used for nothing else: another read could take its answer. The socket keeps its namespace, whichever thread sends.
   */
  async requestOffThread(request: NetlinkRequest): Promise<Answer> {
    this.#drain();
    const sequence = this.#nextSequence();
    const bytes = encodeRequest(request, sequence, NLM_F_REQUEST | NLM_F_ACK);
    this.#awaiting = true;
    try {
      await libc.sendOffThread(this.#fd, bytes);
    } finally {
      this.#awaiting = false;
    }
    const open = new Map<number, Open>([[sequence, { what: request.what, messages: [] }]]);
    const done = new Map<number, Answer>();
    this.#collect(open, done, sequence);
    return done.get(sequence) ?? noAnswer(request.what);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    libc.close(this.#fd);
  }

  #requestBatch(requests: readonly NetlinkRequest[], last = requests.length - 1): readonly Answer[] {
    this.#drain();
    const open = new Map<number, Open>();
    const sequences: number[] = [];
    const bytes: Buffer[] = [];
    for (const [at, request] of requests.entries()) {
      const sequence = this.#nextSequence();
      sequences.push(sequence);
      open.set(sequence, { what: request.what, messages: [] });
      const acked = at === last ? NLM_F_ACK : 0;
      const encoded = encodeRequest(request, sequence, NLM_F_REQUEST | acked);
      bytes.push(encoded);
      if (encoded.length % 4 !== 0) bytes.push(Buffer.alloc(4 - (encoded.length % 4))); // NLMSG_ALIGN between messages.
    }
    const sent = libc.send(this.#fd, Buffer.concat(bytes));
    const done = new Map<number, Answer>();
    if (sent.ok) this.#collect(open, done, sequences[last] ?? 0);
    return requests.map(({ what }, i) => {
      if (!sent.ok) return err(failure(what, sent.error));
      return done.get(sequences[i] ?? 0) ?? noAnswer(what);
    });
  }

  /** Reads until the last request is answered: by then each other one was refused, or is done. Or until nothing is left to read. */
  #collect(open: Map<number, Open>, done: Map<number, Answer>, last: number): void {
    let lost = false;
    while (open.has(last)) {
      const got = this.#receive();
      if (got === "empty") return;
      if (got === "overflow") {
        lost = true; // Some answers are lost; those that came are still behind it.
        continue;
      }
      for (const message of got) {
        const request = open.get(message.seq);
        if (request === undefined) continue; // Of an earlier request that we gave up on.
        if (message.type !== NLMSG_ERROR) {
          request.messages.push({ ...message, data: Buffer.from(message.data) }); // The buffer is used again.
          continue;
        }
        open.delete(message.seq);
        const { errno, detail } = parseAck(message);
        done.set(message.seq, errno === 0 ? ok(request.messages) : err(failure(request.what, errno, detail)));
      }
    }
    if (lost) return; // A refusal may be among what was lost.
    for (const [sequence, { messages }] of open) done.set(sequence, ok(messages));
  }

  #dumpOnce<T>(
    request: NetlinkRequest,
    parse: (message: structs.NetlinkMessage) => T | null,
  ): Result<Dump<T>, NetlinkError> {
    this.#drain();
    const sequence = this.#nextSequence();
    const sent = libc.send(this.#fd, encodeRequest(request, sequence, NLM_F_REQUEST));
    if (!sent.ok) return err(failure(request.what, sent.error));
    const objects: T[] = [];
    let unreadable = 0;
    let torn = false;
    for (;;) {
      const got = this.#receive();
      if (got === "overflow" || got === "empty") return noAnswer(request.what);
      for (const message of got) {
        if (message.seq !== sequence) continue;
        torn ||= (message.flags & NLM_F_DUMP_INTR) !== 0;
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          const { errno, detail } = message.type === NLMSG_DONE ? parseDone(message) : parseAck(message);
          if (errno !== 0) return err(failure(request.what, errno, detail));
          return ok({ objects, unreadable, torn });
        }
        const object = parse(message);
        if (object === null) unreadable += 1;
        else objects.push(object);
      }
    }
  }

  /** Throws away what is left of requests that were given up, so that it cannot fill the buffer of the next ones. */
  #drain(): void {
    while (this.#receive() !== "empty");
  }

  #receive(): readonly structs.NetlinkMessage[] | "empty" | "overflow" {
    assert(
      !this.#closed && !this.#awaiting,
      "a connection is not used when closed, nor while it waits for a pool thread",
    );
    return receiveMessages(this.#fd);
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0 || 1; // 0 is the kernel's own, in events.
    return this.#sequence;
  }
}

/** One read of a netlink socket, without waiting. The messages lie in a shared buffer: use them before the next read. */
export function receiveMessages(fd: number): readonly structs.NetlinkMessage[] | "empty" | "overflow" {
  const got = libc.receive(fd, receiveBuffer);
  if (!got.ok) {
    if (got.error === libc.EAGAIN) return "empty";
    if (got.error === libc.ENOBUFS) return "overflow";
    throw new Error(`recv on a netlink socket failed with ${errnoName(got.error)}`); // Our own mistake: EBADF, EFAULT and the like.
  }
  if (got.value > receiveBuffer.length) return "overflow"; // Cut off: what is missing counts as lost.
  try {
    return structs.parseMessages(receiveBuffer.subarray(0, got.value));
  } catch (cause) {
    throw new Error("the kernel sent what is not a netlink message", { cause });
  }
}

function failure(what: string, errno: number, detail = ""): NetlinkError {
  return { errno, code: errnoName(errno), detail, what };
}

function noAnswer(what: string): { readonly ok: false; readonly error: NetlinkError } {
  return err({ errno: 0, code: NO_ANSWER, detail: "the kernel's answer was lost", what });
}
