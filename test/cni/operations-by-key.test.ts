import { expect, test } from "vitest";
import { OperationsByKey, type AddCall } from "../../src/cni/operations-by-key.ts";
import { sandboxId } from "../../src/core/model/sandbox.ts";

const key = sandboxId({ network: "pods", containerId: "c1", ifName: "eth0" });
const otherKey = sandboxId({ network: "pods", containerId: "c2", ifName: "eth0" });
const settled = Promise.resolve();

function call(arrival: number, id = `request-${arrival}`, ofKey = key): AddCall {
  return { key: ofKey, id, arrival, stop: new AbortController() };
}

/** A gate that a test opens by hand. */
function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { opened: promise, open: resolve };
}

/** Lets everything that can go on go on. */
const rest = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("two ADDs of one sandbox go one after the other, those of two sandboxes side by side", async () => {
  const operations = new OperationsByKey();
  const log: string[] = [];
  const first = gate();
  const run = (name: string, until: Promise<void>) => async () => {
    log.push(`${name} begins`);
    await until;
    log.push(`${name} ends`);
  };
  const all = [
    operations.add(call(1), run("first", first.opened)),
    operations.add(call(2), run("second", settled)),
    operations.add(call(3, "request-3", otherKey), run("other", settled)),
  ];
  await rest();
  expect(log).toEqual(["first begins", "other begins", "other ends"]);
  first.open();
  await Promise.all(all);
  expect(log.slice(3)).toEqual(["first ends", "second begins", "second ends"]);
  expect(operations.busyCount).toBe(0);
});

test("a DEL stops the running ADD, waits for its roll-back, and only then does its own work", async () => {
  const operations = new OperationsByKey();
  const log: string[] = [];
  const rollBack = gate();
  const add = call(1);
  const added = operations.add(add, async () => {
    await new Promise<void>((resolve) => add.stop.signal.addEventListener("abort", () => resolve()));
    log.push(`stopped: ${String(add.stop.signal.reason)}`);
    await rollBack.opened;
    log.push("rolled back");
    return "cancelled";
  });
  await rest();
  const deleted = operations.del(key, 2, async () => {
    log.push("DEL");
    return { answer: "gone", settled };
  });
  await rest();
  expect(log).toEqual(["stopped: deleted"]);
  rollBack.open();
  expect(await added).toBe("cancelled");
  expect(await deleted).toBe("gone");
  expect(log).toEqual(["stopped: deleted", "rolled back", "DEL"]);
});

test("an ADD that came before a DEL never starts after it, also when its shim asks again on a new connection", async () => {
  const operations = new OperationsByKey();
  const began: string[] = [];
  const del = (arrival: number) => operations.del(key, arrival, async () => ({ answer: null, settled }));
  const add = (arrival: number, id: string) => operations.add(call(arrival, id), async () => began.push(id));

  await del(5);
  expect(await add(4, "read late")).toBeNull();
  await add(6, "asks twice");
  await del(7);
  expect(await add(8, "asks twice")).toBeNull();
  await add(9, "later ADD of the same key"); // cnitool reuses its ids: legal.
  expect(began).toEqual(["asks twice", "later ADD of the same key"]);
});

test("an ADD queued behind another is dead when a DEL comes in the meantime", async () => {
  const operations = new OperationsByKey();
  const first = gate();
  const running = operations.add(call(1), () => first.opened);
  const queued = operations.add(call(2), async () => "began");
  await rest();
  const deleted = operations.del(key, 3, async () => ({ answer: null, settled }));
  first.open();
  await Promise.all([running, deleted]);
  expect(await queued).toBeNull();
});

test("a DEL answers before its link is gone; further DELs do not wait for the link, an ADD of the key does", async () => {
  const operations = new OperationsByKey();
  const link = gate();
  const began: string[] = [];
  await operations.del(key, 1, async () => ({ answer: null, settled: link.opened }));
  await operations.del(key, 2, async () => ({ answer: null, settled }));
  const added = operations.add(call(3), async () => began.push("ADD"));
  await rest();
  expect(began).toEqual([]);
  expect(operations.busyCount).toBe(1);
  link.open();
  await added;
  await rest();
  expect(began).toEqual(["ADD"]);
  expect(operations.busyCount).toBe(0);
});

test("a failed DEL frees the key for the runtime's next try", async () => {
  const operations = new OperationsByKey();
  const failing = operations.del(key, 1, async () => {
    throw new Error("broken promise");
  });
  await expect(failing).rejects.toThrow("broken promise");
  expect(await operations.del(key, 2, async () => ({ answer: "gone", settled }))).toBe("gone");
  await rest();
  expect(operations.busyCount).toBe(0);
});
