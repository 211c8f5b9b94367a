/**
 * Makes kernel objects so, in order, and goes on after a refusal. What is asked for and already true is done, not failed;
 * so a list of ops can be applied again after a crash at any point.
 */
import type { KernelObject, KernelOp, LinkSeen } from "../core/plumbing/object.ts";
import { assert } from "../lib/assert.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { parseLink } from "../netlink/answers.ts";
import type { Answer, Connection } from "../netlink/connection.ts";
import { deleteRequest, linkGetRequest, type NetlinkRequest, putRequest } from "../netlink/messages.ts";
import { failureOf, type KernelFailure } from "./failure.ts";

/** Ours is there already: rules have no replace. */
const PUT_DONE = new Set(["EEXIST"]);
/** There is nothing to delete: ESRCH routes, ENOENT rules and neighbours, EADDRNOTAVAIL addresses, ENODEV links. */
const DELETE_DONE = new Set(["ENOENT", "ESRCH", "ENODEV", "EADDRNOTAVAIL"]);

/** One op that is not true afterwards. Every op that is not in the list is. */
export type FailedOp = KernelFailure & { readonly op: KernelOp };

/**
 * `deleteLink` is called for the ops that delete a link, and does not wait: the kernel needs some 20 ms for each. What comes before
 * such an op in the list is true when it is called.
 */
export function applyOps(
  connection: Connection,
  ops: readonly KernelOp[],
  deleteLink: (name: string) => void,
): readonly FailedOp[] {
  const failed: FailedOp[] = [];
  let run: Exclude<KernelOp, { verb: "delete-link" }>[] = [];
  const perform = (): void => {
    if (run.length > 0) failed.push(...applyRun(connection, run).failed);
    run = [];
  };
  for (const op of ops) {
    if (op.verb !== "delete-link") {
      run.push(op);
      continue;
    }
    perform();
    deleteLink(op.name);
  }
  perform();
  return failed;
}

/**
 * Puts all objects in one namespace, stopping nowhere; the first failure, or null. `known` spares looking links up; `before` goes
 * first, in the same batch.
 */
export function putAll(
  connection: Connection,
  objects: readonly KernelObject[],
  known: ReadonlyMap<string, number> = new Map(),
  before: readonly NetlinkRequest[] = [],
): KernelFailure | null {
  const ops = objects.map((object) => ({ verb: "put", object }) as const);
  const { failed, failedBefore } = applyRun(connection, ops, known, before);
  const first = failedBefore ?? failed[0];
  if (first === undefined) return null;
  const { step, errno, detail } = first;
  return { step, errno, detail };
}

/** A link by its name: null when there is none. */
export function linkByName(connection: Connection, name: string): Result<LinkSeen | null, KernelFailure> {
  const answer = connection.requestOne(linkGetRequest({ name }));
  if (!answer.ok) return answer.error.code === "ENODEV" ? ok(null) : err(failureOf(answer.error));
  return ok(linkOf(answer));
}

/** The link that a GETLINK answered with. */
export function linkOf(answer: Answer): LinkSeen | null {
  const message = answer.ok ? answer.value[0] : undefined;
  return message === undefined ? null : parseLink(message);
}

function applyRun(
  connection: Connection,
  run: readonly Exclude<KernelOp, { verb: "delete-link" }>[],
  known: ReadonlyMap<string, number> = new Map(),
  before: readonly NetlinkRequest[] = [],
): { readonly failed: readonly FailedOp[]; readonly failedBefore: KernelFailure | undefined } {
  const indexes = new Map(known);
  const names = new Set(
    run.flatMap(({ object }) => ("link" in object && !indexes.has(object.link) ? [object.link] : [])),
  );
  const looked = connection.request([...names].map((name) => linkGetRequest({ name })));
  for (const [i, name] of [...names].entries()) {
    const link = looked[i] === undefined ? null : linkOf(looked[i]);
    if (link !== null) indexes.set(name, link.index);
  }

  const failed: FailedOp[] = [];
  const asked: { readonly op: (typeof run)[number]; readonly request: NetlinkRequest }[] = [];
  for (const op of run) {
    const { object } = op;
    const index = "link" in object ? indexes.get(object.link) : 0;
    if (index !== undefined) {
      asked.push({ op, request: requestOf(op, index) });
    } else if (op.verb === "put") {
      failed.push({
        op,
        step: requestOf(op, 0).what,
        errno: "ENODEV",
        detail: `there is no link ${linkNameOf(object)}`,
      });
    } // Else it went with its link.
  }
  const answers = connection.request([...before, ...asked.map(({ request }) => request)]);
  const refusedBefore = answers.slice(0, before.length).find((answer) => !answer.ok);
  for (const [i, { op }] of asked.entries()) {
    const answer = answers[before.length + i];
    assert(answer !== undefined, "each request has an answer");
    if (answer.ok || (op.verb === "put" ? PUT_DONE : DELETE_DONE).has(answer.error.code)) continue;
    failed.push({ op, ...failureOf(answer.error) });
  }
  const failedBefore = refusedBefore?.ok === false ? failureOf(refusedBefore.error) : undefined;
  return { failed, failedBefore };
}

function requestOf(op: Exclude<KernelOp, { verb: "delete-link" }>, index: number): NetlinkRequest {
  if (op.verb === "put") return putRequest(op.object, index);
  assert(op.object.kind !== "link", "a link is deleted by delete-link: other links are the machine's");
  return deleteRequest(op.object, index);
}

function linkNameOf(object: KernelObject): string {
  return "link" in object ? object.link : "";
}
