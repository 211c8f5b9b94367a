/**
 * One ADD and one DEL at a time, as a runtime sees them: ours, ptp's and the floor's, in the same namespace, by turns. And whether
 * an ADD costs more where the pool is large.
 */
import type { Pod } from "../../src/lab/runtime.ts";
import { floor, ours, peer, timeOne } from "./contestants.ts";
import { type Bench, poolIsFull, sleep, withStage } from "./stage.ts";
import { type Summary, summarize } from "./statistics.ts";

export type AddDel = {
  readonly add: { readonly ours: Summary; readonly floor: Summary; readonly peer: Summary | null };
  readonly del: { readonly ours: Summary; readonly floor: Summary; readonly peer: Summary | null };
};

/** Every ENI full and kept so: nothing but the calls themselves goes on while they are measured. */
const FULL_POOL = { WARM_ENI_TARGET: "8", IP_COOLDOWN_PERIOD: "1" };
/** A deletion goes on in the kernel when its DEL has answered; the next one to be measured shall not pay for it. */
const SETTLE_MS = 25;
const WARM_UP_ROUNDS = 20;

export async function measureAddDel(bench: Bench): Promise<AddDel> {
  const rounds = bench.quick ? 40 : 150;
  return await withStage(
    bench,
    { name: "pair", type: "m5.4xlarge", settings: FULL_POOL },
    async ({ node, launcher }) => {
      await node.startDaemon();
      await poolIsFull(node, 200);
      const plugins = [ours(node), ...(bench.tools.peers === null ? [] : [peer(node, bench.tools.peers)])];
      const [host] = await node.runtime.makeSandboxes(["floor"]);
      const ground = floor(launcher, bench.tools.empty, host?.netns ?? "");
      const runners = [
        ...plugins.map((plugin) => ({
          name: plugin.name,
          add: async (pod: Pod) => await timeOne(launcher, plugin, "ADD", pod),
          del: async (pod: Pod) => await timeOne(launcher, plugin, "DEL", pod),
        })),
        { name: "floor", add: ground.add, del: ground.del },
      ];
      const pods = await node.runtime.makeSandboxes(runners.map(({ name }) => name));
      const adds = new Map<string, number[]>(runners.map(({ name }) => [name, []]));
      const dels = new Map<string, number[]>(runners.map(({ name }) => [name, []]));
      for (let round = 0; round < WARM_UP_ROUNDS + rounds; round += 1) {
        for (let turn = 0; turn < runners.length; turn += 1) {
          const at = (round + turn) % runners.length; // Nobody always comes after the same one.
          const runner = runners[at];
          const pod = pods[at];
          if (runner === undefined || pod === undefined) continue;
          const addMs = await runner.add(pod);
          await sleep(SETTLE_MS);
          const delMs = await runner.del(pod);
          await sleep(SETTLE_MS);
          if (round < WARM_UP_ROUNDS) continue;
          adds.get(runner.name)?.push(addMs);
          dels.get(runner.name)?.push(delMs);
        }
      }
      ground.close();
      const summaries = (times: ReadonlyMap<string, readonly number[]>): AddDel["add"] => {
        const theirs = times.get("ptp");
        return {
          ours: summarize(times.get("ours") ?? []),
          floor: summarize(times.get("floor") ?? []),
          peer: theirs === undefined ? null : summarize(theirs),
        };
      };
      return { add: summaries(adds), del: summaries(dels) };
    },
  );
}

export type PoolSize = {
  readonly small: { readonly addresses: number; readonly addMs: Summary };
  readonly large: { readonly addresses: number; readonly addMs: Summary };
};

/** The same ADD on a node with one small ENI and on one with 15 full ENIs of 50 addresses, by turns. */
export async function measurePoolSize(bench: Bench): Promise<PoolSize> {
  const rounds = bench.quick ? 30 : 100;
  const small = { name: "small", type: "m5.large", settings: { ...FULL_POOL, WARM_ENI_TARGET: "1" } };
  const large = { name: "large", type: "m5.24xlarge", settings: { ...FULL_POOL, WARM_ENI_TARGET: "15" } };
  return await withStage(bench, small, async (few) => {
    return await withStage(bench, large, async (many) => {
      const stages = [
        { stage: few, warm: 8, times: [] as number[] },
        { stage: many, warm: 700, times: [] as number[] },
      ] as const;
      const pods: Pod[] = [];
      for (const { stage, warm } of stages) {
        await stage.node.startDaemon();
        await poolIsFull(stage.node, warm);
        pods.push(...(await stage.node.runtime.makeSandboxes(["pod"])));
      }
      const addresses = await Promise.all(
        stages.map(async ({ stage }) => (await stage.node.state()).census.total),
      );
      for (let round = 0; round < WARM_UP_ROUNDS + rounds; round += 1) {
        for (const [at, { stage, times }] of stages.entries()) {
          const pod = pods[at];
          if (pod === undefined) continue;
          const plugin = ours(stage.node);
          const ms = await timeOne(stage.launcher, plugin, "ADD", pod);
          await timeOne(stage.launcher, plugin, "DEL", pod);
          await sleep(SETTLE_MS);
          if (round >= WARM_UP_ROUNDS) times.push(ms);
        }
      }
      const [first, second] = stages;
      return {
        small: { addresses: addresses[0] ?? 0, addMs: summarize(first.times) },
        large: { addresses: addresses[1] ?? 0, addMs: summarize(second.times) },
      };
    });
  });
}
