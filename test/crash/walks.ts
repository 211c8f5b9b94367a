/** The walks of a node's life, each from a node at rest: two steady pods on the primary ENI, and one warm address beside them. */
import { waitUntil } from "../../src/lab/node.ts";
import type { Stage } from "./stage.ts";

export type Walk = {
  readonly name: string;
  /** "start": the walk is the daemon's own start, and `prepare` leaves no daemon. */
  readonly begins: "serving" | "start";
  /** True where a shim waits meanwhile: then it is killed with the daemon, too, in a walk of its own. */
  readonly hasShim: boolean;
  readonly prepare: (stage: Stage) => Promise<void>;
  /** Ends whether the daemon lives or not. */
  readonly run: (stage: Stage) => Promise<void>;
};

/** Beside seven other daemons on two processors. */
const REPAIRED_WITHIN_MS = 25_000;

async function nothing(): Promise<void> {}

async function addSome(stage: Stage, count: number): Promise<void> {
  const pods = await Promise.all(Array.from({ length: count }, async () => await stage.makePod()));
  await Promise.all(pods.map(async (pod) => await stage.add(pod)));
}

async function havingSome(stage: Stage, count: number): Promise<void> {
  await addSome(stage, count);
  await stage.waitForRest("pods come before the walk");
}

function lastIp(stage: Stage): string {
  const name = stage.extras.at(-1)?.containerId;
  return [...stage.findings.held].find(([, holder]) => holder === name)?.[0] ?? "";
}

async function deleteOne(stage: Stage): Promise<void> {
  const pod = stage.extras.at(-1);
  if (pod !== undefined) await stage.del(pod);
}

/** A DEL while nobody is there: the shim writes it into the journal. */
async function leaveInJournal(stage: Stage): Promise<void> {
  await havingSome(stage, 1);
  await stage.node.stopDaemon("SIGKILL");
  await deleteOne(stage);
}

export const WALKS: readonly Walk[] = [
  // The warm address is taken; the primary ENI is full, so the pool grows by an ENI.
  {
    name: "ADD, new ENI",
    begins: "serving",
    hasShim: true,
    prepare: nothing,
    run: (stage) => addSome(stage, 1),
  },
  {
    name: "held ADD, new ENI",
    begins: "serving",
    hasShim: true,
    prepare: nothing,
    run: (stage) => addSome(stage, 2),
  },
  {
    name: "held ADD, assign",
    begins: "serving",
    hasShim: true,
    prepare: (stage) => havingSome(stage, 1),
    run: (stage) => addSome(stage, 2),
  },
  // The address rests, and then one is too many.
  {
    name: "DEL, unassign",
    begins: "serving",
    hasShim: true,
    prepare: (stage) => havingSome(stage, 2),
    run: deleteOne,
  },
  {
    name: "DEL, detach, delete",
    begins: "serving",
    hasShim: false,
    prepare: (stage) => havingSome(stage, 1),
    run: deleteOne,
  },
  {
    name: "repair",
    begins: "serving",
    hasShim: false,
    prepare: (stage) => havingSome(stage, 1),
    run: async (stage) => {
      const ip = lastIp(stage);
      await stage.spoil(ip);
      await waitUntil(
        "the kernel is repaired",
        REPAIRED_WITHIN_MS,
        async () => stage.isDead() || (await stage.isRepaired(ip)),
      );
    },
  },
  {
    name: "sweep of a sandbox without DEL",
    begins: "serving",
    hasShim: false,
    prepare: (stage) => havingSome(stage, 1),
    run: async (stage) => {
      const pod = stage.extras.at(-1);
      if (pod === undefined) return;
      await stage.endWithoutDel(pod);
      await waitUntil("it is swept", REPAIRED_WITHIN_MS, async () => {
        if (stage.isDead()) return true;
        const state = await stage.node.state().catch(() => null);
        // A daemon on its way up says no more than that it is not ready.
        return state?.ready === true && state.allocations.every(({ id }) => !id.includes(pod.containerId));
      });
    },
  },
  {
    name: "sweep of a leaked ENI",
    begins: "serving",
    hasShim: false,
    prepare: nothing,
    run: async (stage) => {
      const { emulator, subnetId } = stage.cluster;
      const { instanceId } = stage.node;
      const before = new Set(emulator.world().enis.keys());
      const tags = {
        "node.k8s.amazonaws.com/instance_id": instanceId,
        "node.k8s.amazonaws.com/createdAt": "2020-01-01T00:00:00Z",
      };
      emulator.fault({ kind: "foreign-eni", subnetId, description: `aws-K8S-${instanceId}`, tags });
      const planted = [...emulator.world().enis.keys()].filter((id) => !before.has(id));
      await waitUntil(
        "it is deleted",
        REPAIRED_WITHIN_MS,
        () => stage.isDead() || !planted.some((id) => emulator.world().enis.has(id)),
      );
    },
  },
  {
    name: "recover",
    begins: "start",
    hasShim: false,
    prepare: async (stage) => {
      await havingSome(stage, 1);
      await stage.node.stopDaemon("SIGKILL");
      await stage.spoil(lastIp(stage));
    },
    run: nothing,
  },
  { name: "journal", begins: "start", hasShim: false, prepare: leaveInJournal, run: nothing },
  {
    name: "shutdown with an ADD under way",
    begins: "serving",
    hasShim: true,
    prepare: nothing,
    run: async (stage) => {
      const adding = addSome(stage, 2);
      await new Promise((resolve) => setTimeout(resolve, 8));
      await stage.node.stopDaemon("SIGTERM");
      await adding;
    },
  },
];
