/** createEmulator(): the engine with a real clock unless one is given, behind HTTP listeners. What lab, fabric, tests and CLI use. */
import type { RequestListener, Server } from "node:http";
import type { AddressInfo } from "node:net";
import { wallTime } from "../lib/time.ts";
import { createEc2Server } from "./ec2-server.ts";
import { printAnswer, printFailure } from "./ec2-xml.ts";
import { type CallRequest, type Clock, createEngine, type Engine, type EngineOptions } from "./engine.ts";
import { createImdsListener, createImdsServer, type InstanceOf } from "./imds-server.ts";
import { createRealClock } from "./real-clock.ts";
import { type Profile, type ProfileName, PROFILES, type Timing } from "./timings.ts";

export type EmulatorOptions = Partial<Omit<EngineOptions, "profile" | "clock" | "quotas" | "imds">> & {
  /** `instant` when not given. */
  readonly profile?: ProfileName;
  /** Over those of the profile: by action (`AttachNetworkInterface`), `call` for all other actions, or by process (`link-up`). */
  readonly timings?: Readonly<Record<string, Timing>>;
  /** Token buckets whatever the profile says; null: none. */
  readonly buckets?: Profile["buckets"];
  /** The machine's clock when not given. */
  readonly clock?: Clock;
  readonly quotas?: Partial<EngineOptions["quotas"]>;
  readonly imds?: Partial<EngineOptions["imds"]>;
};

export type Listening = { readonly url: string; readonly close: () => Promise<void> };

export type Emulator = Omit<Engine, "close"> & {
  /** EC2 at `url`, with `/metrics` and `/_emulator/...`. Port 0: any free one. */
  readonly listen: (port?: number, host?: string) => Promise<Listening>;
  /** IMDS of one instance, or of whichever instance the request is found to come from. */
  readonly listenImds: (
    instance: string | InstanceOf,
    at?: { readonly host?: string; readonly port?: number },
  ) => Promise<Listening>;
  /** The same as a request listener, for a server that somebody else binds (in a network namespace). */
  readonly imdsHandler: (instance: string | InstanceOf) => RequestListener;
  /** One call as EC2 would answer it over HTTP. Status 0: the connection was lost. */
  readonly handle: (request: CallRequest) => Promise<{ readonly status: number; readonly body: string }>;
  /** Closes all listeners and forgets what was still to happen. */
  readonly close: () => Promise<void>;
};

export function createEmulator(options: EmulatorOptions = {}): Emulator {
  const { profile: name = "instant", timings = {}, buckets, quotas, imds, clock: given, ...rest } = options;
  const real = createRealClock();
  const clock = given ?? real;
  const base: Profile = PROFILES[name];
  const { call = base.call, ...named } = timings;
  const profile: Profile = {
    ...base,
    call,
    timings: { ...base.timings, ...named },
    buckets: buckets === undefined ? base.buckets : buckets,
  };
  const engine = createEngine({
    epoch: wallTime(Date.now() - clock.now()),
    seed: "berth",
    region: "eu-west-1",
    accountId: "123456789012",
    handOut: "random",
    accessKeys: "any",
    credentialsLifetimeMs: 6 * 3_600_000,
    ...rest,
    clock,
    profile,
    quotas: { enisPerRegion: 5_000, groupsPerEni: 5, unpagedResults: 1_000, ...quotas },
    imds: { tokenRequired: true, enabled: true, ...imds },
  });
  const open = new Set<Listening>();

  async function start(server: Server, port: number, host: string): Promise<Listening> {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, host, resolve);
    });
    const bound = server.address() as AddressInfo; // A TCP server that listens has one.
    const listening: Listening = {
      url: `http://${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`,
      close: () =>
        new Promise((resolve) => {
          open.delete(listening);
          server.close(() => resolve());
          server.closeAllConnections();
        }),
    };
    open.add(listening);
    return listening;
  }
  const instanceOf = (instance: string | InstanceOf): InstanceOf =>
    typeof instance === "string" ? () => instance : instance;

  return {
    ...engine,
    listen: (port = 0, host = "127.0.0.1") => start(createEc2Server(engine), port, host),
    listenImds: (instance, { port = 0, host = "127.0.0.1" } = {}) =>
      start(createImdsServer(engine, instanceOf(instance)), port, host),
    imdsHandler: (instance) => createImdsListener(engine, instanceOf(instance)),
    async handle(request) {
      const reply = await engine.call(request);
      if (reply.kind === "lost") return { status: 0, body: "" };
      return reply.kind === "answer"
        ? { status: 200, body: printAnswer(request.action, reply.requestId, reply.answer) }
        : { status: reply.failure.status, body: printFailure(reply.requestId, reply.failure) };
    },
    async close() {
      engine.close();
      real.close();
      await Promise.all([...open].map((listening) => listening.close()));
    },
  };
}
