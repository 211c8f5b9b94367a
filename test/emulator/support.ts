/** A clock that tests move, and an emulator with one VPC, one subnet and one node. */
import { createEmulator, type Emulator, type EmulatorOptions } from "../../src/emulator/emulator.ts";
import type { Clock } from "../../src/emulator/engine.ts";
import { type Instant, instant, wallTime } from "../../src/lib/time.ts";

export type VirtualClock = Clock & {
  /** Moves time on, waking every sleeper in order. */
  readonly advance: (ms: number) => Promise<void>;
};

export function virtualClock(): VirtualClock {
  let now = 0;
  let sleepers: { readonly at: number; readonly wake: () => void }[] = [];
  const settle = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));
  return {
    now: (): Instant => instant(now),
    sleep: (ms) => new Promise((wake) => void sleepers.push({ at: now + ms, wake })),
    async advance(ms) {
      const end = now + ms;
      await settle();
      for (;;) {
        sleepers.sort((left, right) => left.at - right.at);
        const next = sleepers[0];
        if (next === undefined || next.at > end) break;
        sleepers = sleepers.slice(1);
        now = Math.max(now, next.at);
        next.wake();
        await settle();
      }
      now = end;
    },
  };
}

export type World1 = {
  readonly emulator: Emulator;
  readonly clock: VirtualClock;
  readonly vpcId: string;
  readonly groupId: string;
  readonly subnetId: string;
  readonly instanceId: string;
  readonly eniId: string;
  readonly attachmentId: string;
  readonly mac: string;
  readonly primary: string;
};

type Shape = { readonly cidr?: string; readonly type?: string; readonly options?: EmulatorOptions };

/** A VPC 10.0.0.0/16, one subnet in it, one m5.large unless said otherwise; virtual time. */
export function oneNode({ cidr = "10.0.0.0/24", type = "m5.large", options = {} }: Shape = {}): World1 {
  const clock = virtualClock();
  const emulator = createEmulator({ clock, epoch: wallTime(1_700_000_000_000), ...options });
  const { vpcId, groupId } = emulator.seed.vpc({ cidrs: ["10.0.0.0/16"] });
  const subnetId = emulator.seed.subnet({ vpcId, cidr });
  return { emulator, clock, vpcId, groupId, subnetId, ...emulator.seed.launch({ type, subnetId }) };
}

export type Outcome = {
  readonly status: number;
  readonly code: string | null;
  readonly message: string | null;
  readonly body: string;
};

/** One call in the query protocol, answered as over HTTP. Parameters are given flat, as they are on the wire. */
export async function call(
  emulator: Emulator,
  action: string,
  parameters: Readonly<Record<string, string | number | boolean>> = {},
  accessKeyId: string | null = "AKIATEST",
): Promise<Outcome> {
  const given = Object.entries(parameters).map(([name, value]) => [name, String(value)] as const);
  const caller = { accessKeyId, userAgent: "test" };
  const { status, body } = await emulator.handle({ action, parameters: new Map(given), caller });
  const text = (tag: string): string | null =>
    unescape(new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(body)?.[1]);
  return {
    status,
    body,
    code: status === 200 ? null : text("Code"),
    message: status === 200 ? null : text("Message"),
  };
}

/** The text of every element called `tag`, in order. */
export function texts(body: string, tag: string): readonly string[] {
  return [...body.matchAll(new RegExp(`<${tag}>([^<]*)</${tag}>`, "g"))].map((match) => match[1] ?? "");
}

/** Creates an ENI and gives its id. */
export async function createEni(
  world: World1,
  parameters: Readonly<Record<string, string | number>> = {},
): Promise<string> {
  const { body } = await call(world.emulator, "CreateNetworkInterface", {
    SubnetId: world.subnetId,
    ...parameters,
  });
  const [id] = texts(body, "networkInterfaceId");
  if (id === undefined) throw new Error(`no ENI: ${body}`);
  return id;
}

/** Creates an ENI and attaches it. */
export async function attachEni(
  world: World1,
  deviceIndex: number,
  parameters: Readonly<Record<string, string | number>> = {},
): Promise<{ readonly eniId: string; readonly attachmentId: string }> {
  const eniId = await createEni(world, parameters);
  const { body } = await call(world.emulator, "AttachNetworkInterface", {
    NetworkInterfaceId: eniId,
    InstanceId: world.instanceId,
    DeviceIndex: deviceIndex,
  });
  const [attachmentId] = texts(body, "attachmentId");
  if (attachmentId === undefined) throw new Error(`not attached: ${body}`);
  return { eniId, attachmentId };
}

function unescape(text: string | undefined): string | null {
  return (
    text
      ?.replaceAll("&quot;", '"')
      .replaceAll("&lt;", "<")
      .replaceAll("&gt;", ">")
      .replaceAll("&amp;", "&") ?? null
  );
}
