// What the end-to-end tests of the daemon share: a cluster that ends with its test, pods, and how to hear what the daemon did.
import { afterEach } from "vitest";
import { createCluster, type Cluster, type ClusterOptions } from "../../src/lab/cluster.ts";
import { type LabNode } from "../../src/lab/node.ts";
import type { CniAnswer, Pod } from "../../src/lab/runtime.ts";

export type OneNode = { readonly cluster: Cluster; readonly node: LabNode };

let open: Cluster | null = null;
afterEach(async () => {
  await open?.close();
  open = null;
});

export type NodeWish = {
  readonly type?: string;
  readonly secondaryCount?: number;
  readonly settings?: Readonly<Record<string, string>>;
  readonly emulator?: NonNullable<ClusterOptions["emulator"]>;
  readonly subnetCidr?: string;
};

/** One node with short intervals; its daemon is not started. m5.large: 3 ENIs of 10 addresses. */
export async function oneNode(wish: NodeWish = {}): Promise<OneNode> {
  const { type = "m5.large", secondaryCount = 0, settings = {}, ...rest } = wish;
  open = await createCluster({
    nodes: [{ name: "n1", type, secondaryCount }],
    settings: {
      WARM_IP_TARGET: "3",
      IP_COOLDOWN_PERIOD: "1",
      BERTH_ADD_HOLD_SECONDS: "2",
      BERTH_REFILL_INTERVAL_SECONDS: "1",
      BERTH_SWEEP_INTERVAL_SECONDS: "1",
      BERTH_ENI_LIFE_MIN_SECONDS: "0",
      ...settings,
    },
    ...rest,
  });
  const [node] = open.nodes;
  if (node === undefined) throw new Error("no node");
  return { cluster: open, node };
}

export type Answered = { readonly pod: Pod; readonly answer: CniAnswer };

/** `count` ADDs at once, whatever is answered. */
export async function addPods(node: LabNode, count: number): Promise<readonly Answered[]> {
  const pods = await node.runtime.makeSandboxes(Array.from({ length: count }, (_, at) => `pod-${at}`));
  return await Promise.all(pods.map(async (pod) => ({ pod, answer: await node.runtime.call("ADD", pod) })));
}

/** What a pod's event would say: containerd prints message and details. */
export function eventOf({ finished }: CniAnswer): string {
  const { msg, details } = JSON.parse(finished.stdout) as { msg?: string; details?: string }; // A CNI error.
  return `${msg}; ${details}`;
}

export function failures(answered: readonly Answered[]): readonly string[] {
  return answered.filter(({ answer }) => !answer.ok).map(({ answer }) => eventOf(answer));
}

/** An operator's own call, as from a console. */
export async function askEc2(
  { emulator }: Cluster,
  action: string,
  parameters: Readonly<Record<string, string>>,
): Promise<void> {
  const caller = { accessKeyId: "AKIAOPERATOR", userAgent: "console" };
  const { status, body } = await emulator.handle({
    action,
    parameters: new Map(Object.entries(parameters)),
    caller,
  });
  if (status !== 200) throw new Error(`${action}: ${body}`);
}

/** ENIs on the node as EC2 has them, each as a line that any change of it would change. */
export function enisAsText({ emulator }: Cluster, node: LabNode): ReadonlyMap<string, string> {
  const mine = [...emulator.world().enis.values()].filter(
    (eni) => eni.attachment?.instanceId === node.instanceId,
  );
  return new Map(
    mine.map((eni) => [
      eni.id,
      JSON.stringify([
        eni.attachment,
        eni.primary,
        [...eni.secondaries],
        eni.prefixes,
        eni.groupIds,
        eni.tags,
      ]),
    ]),
  );
}
