/**
 * The only file that calls foreign functions (koffi). Thin: one function a libc call, errno as a value, no policy.
 * Sizes and constants stand with the header that defines them; all are the same on x86-64 and arm64 Linux.
 */
import koffi, { type KoffiFunc } from "koffi";
import { err, ok, type Result } from "../lib/result.ts";

/** errno of a failed call, as a positive number. `netlink/answers.ts` knows their names. */
export type Errno = number;

export const CLONE_NEWNET = 0x4000_0000; // linux/sched.h

export const AF_NETLINK = 16; // bits/socket.h
export const SOCK_RAW = 3; // bits/socket_type.h
export const SOCK_CLOEXEC = 0o2000000;
const MSG_TRUNC = 0x20; // bits/socket.h
const MSG_DONTWAIT = 0x40;

export const SOL_SOCKET = 1; // asm-generic/socket.h
const SO_PEERCRED = 17;
export const SO_RCVBUFFORCE = 33;

export const SOL_NETLINK = 270; // linux/socket.h

const EINTR = 4; // asm-generic/errno-base.h
export const EAGAIN = 11;
export const ENOBUFS = 105; // asm-generic/errno.h

const LOCK_EX = 2; // sys/file.h
const LOCK_NB = 4;

const CLOCK_BOOTTIME = 7; // linux/time.h

const SOCKADDR_NL_SIZE = 12; // linux/netlink.h, struct sockaddr_nl
const UCRED_SIZE = 12; // bits/socket.h, struct ucred

// `null` is the process itself: Node's binary has libc in it, glibc or musl, so no file name needs to be guessed.
const libc = koffi.load(null);

// koffi types every function as `any`; each is given its true shape here, once. koffi knows no ssize_t: intptr_t is as wide.
const call = {
  setns: libc.func("int setns(int fd, int nstype)") as KoffiFunc<(fd: number, type: number) => number>,
  socket: libc.func("int socket(int domain, int type, int protocol)") as KoffiFunc<
    (domain: number, type: number, protocol: number) => number
  >,
  bind: libc.func("int bind(int fd, const void *address, uint32_t length)") as KoffiFunc<
    (fd: number, address: Uint8Array, length: number) => number
  >,
  getsockname: libc.func("int getsockname(int fd, void *address, void *length)") as KoffiFunc<
    (fd: number, address: Uint8Array, length: Uint8Array) => number
  >,
  send: libc.func("intptr_t send(int fd, const void *data, size_t length, int flags)") as KoffiFunc<
    (fd: number, data: Uint8Array, length: number, flags: number) => number
  >,
  recv: libc.func("intptr_t recv(int fd, void *data, size_t length, int flags)") as KoffiFunc<
    (fd: number, data: Uint8Array, length: number, flags: number) => number
  >,
  setsockopt: libc.func(
    "int setsockopt(int fd, int level, int name, const void *value, uint32_t length)",
  ) as KoffiFunc<(fd: number, level: number, name: number, value: Uint8Array, length: number) => number>,
  getsockopt: libc.func(
    "int getsockopt(int fd, int level, int name, void *value, void *length)",
  ) as KoffiFunc<(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array) => number>,
  close: libc.func("int close(int fd)") as KoffiFunc<(fd: number) => number>,
  clock_gettime: libc.func("int clock_gettime(int clock, void *time)") as KoffiFunc<
    (clock: number, time: Uint8Array) => number
  >,
  flock: libc.func("int flock(int fd, int operation)") as KoffiFunc<
    (fd: number, operation: number) => number
  >,
  _exit: libc.func("void _exit(int status)") as KoffiFunc<(status: number) => void>,
};

// Read right after the call: nothing in between may touch errno.
function checked(returned: number): Result<number, Errno> {
  return returned >= 0 ? ok(returned) : err(koffi.errno());
}

/** Moves the calling thread, and no other, into the namespace behind `fd`. setns(2). EINVAL: not that kind of namespace. */
export function setns(fd: number, type: number): Result<number, Errno> {
  return checked(call.setns(fd, type));
}

/** socket(2). The socket belongs to the network namespace of the calling thread for its whole life. */
export function socket(domain: number, type: number, protocol: number): Result<number, Errno> {
  return checked(call.socket(domain, type, protocol));
}

/** Binds a netlink socket: the kernel chooses the port; `groups` is a bit mask of multicast groups 1 to 32 (bit 0 is group 1). */
export function bindNetlink(fd: number, groups: number): Result<number, Errno> {
  const address = Buffer.alloc(SOCKADDR_NL_SIZE);
  new Uint16Array(address.buffer, address.byteOffset, 1)[0] = AF_NETLINK;
  new Uint32Array(address.buffer, address.byteOffset, 3)[2] = groups;
  return checked(call.bind(fd, address, address.length));
}

/** The port (nl_pid) of a bound netlink socket. It marks the events that our own requests cause. */
export function netlinkPort(fd: number): Result<number, Errno> {
  const words = new Uint32Array([0, 0, 0]);
  const got = checked(call.getsockname(fd, bytesOf(words), bytesOf(new Uint32Array([SOCKADDR_NL_SIZE]))));
  return got.ok ? ok(words[1] ?? 0) : got;
}

/** send(2): the number of bytes taken. A netlink request is carried out inside this call. Interrupted calls are repeated. */
export function send(fd: number, data: Uint8Array): Result<number, Errno> {
  for (;;) {
    const sent = checked(call.send(fd, data, data.length, 0));
    if (sent.ok || sent.error !== EINTR) return sent;
  }
}

/**
 * send(2) on a thread of libuv's pool, for requests that the kernel carries out slowly. `data` must not change meanwhile.
 * -1 on failure: errno does not cross threads, and a netlink request answers by message anyway.
 */
export function sendOffThread(fd: number, data: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    call.send.async(fd, data, data.length, 0, (failure: unknown, sent: number) => {
      // The mention of `data` keeps it alive until the thread is done with it.
      if ((failure === null || failure === undefined) && data.length > 0) resolve(sent);
      else reject(new Error("send off the main thread could not be started", { cause: failure }));
    });
  });
}

/** recv(2), never waiting. With MSG_TRUNC: the true length, which exceeds the buffer's when the message was cut. */
export function receive(fd: number, buffer: Uint8Array): Result<number, Errno> {
  for (;;) {
    const got = checked(call.recv(fd, buffer, buffer.length, MSG_DONTWAIT | MSG_TRUNC));
    if (got.ok || got.error !== EINTR) return got;
  }
}

/** setsockopt(2) with an int. */
export function setSocketOption(
  fd: number,
  level: number,
  name: number,
  value: number,
): Result<number, Errno> {
  const bytes = bytesOf(new Int32Array([value]));
  return checked(call.setsockopt(fd, level, name, bytes, bytes.length));
}

/** Who is at the other end of a connected Unix socket, as of its connect(2). unix(7), SO_PEERCRED. */
export function peerCredentials(
  fd: number,
): Result<{ readonly pid: number; readonly uid: number; readonly gid: number }, Errno> {
  const words = new Uint32Array([0, 0, 0]);
  const got = checked(
    call.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, bytesOf(words), bytesOf(new Uint32Array([UCRED_SIZE]))),
  );
  if (!got.ok) return got;
  return ok({ pid: words[0] ?? 0, uid: words[1] ?? 0, gid: words[2] ?? 0 });
}

/**
 * Milliseconds since boot, time asleep included: the same clock in every process of a boot, so deadlines can be written down.
 * clock_gettime(2), CLOCK_BOOTTIME. (`process.hrtime` is CLOCK_MONOTONIC, which stands still while the machine sleeps.)
 */
export function bootTimeMs(): number {
  const time = new BigInt64Array(2); // struct timespec of 64-bit Linux: seconds, nanoseconds.
  call.clock_gettime(CLOCK_BOOTTIME, new Uint8Array(time.buffer));
  return Number(time[0]) * 1_000 + Number(time[1]) / 1_000_000;
}

/** flock(2), never waiting: EAGAIN when another open file holds the lock. It goes with the descriptor, also when the process dies. */
export function lockFile(fd: number): Result<number, Errno> {
  return checked(call.flock(fd, LOCK_EX | LOCK_NB));
}

/**
 * _exit(2): the process is over, its descriptors and locks are gone, and nothing of Node.js or V8 is taken down first. For the end of an
 * `exit` listener: what V8's threads compile or collect just then can wait for the main thread, which waits for them (nodejs/node#54918),
 * and a daemon that has stopped would then stay for ever.
 */
export function endProcess(status: number): void {
  call._exit(status);
}

/** close(2). Errors are not told: the descriptor is gone either way. */
export function close(fd: number): void {
  call.close(fd);
}

function bytesOf(words: Uint32Array | Int32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
