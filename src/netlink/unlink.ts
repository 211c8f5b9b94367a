/**
 * Deletes links without holding up the main thread. The kernel waits some 20 ms for its readers inside each RTM_DELLINK, but
 * only once for all links of a group. So a link to be deleted is moved to the group of the doomed at once, on the main thread,
 * and that group is deleted from a pool thread; links that come meanwhile share the next deletion. One thread is all it takes.
 */
import { assert } from "../lib/assert.ts";
import { err, ok, type Result } from "../lib/result.ts";
import type { NetlinkError } from "./answers.ts";
import { Connection } from "./connection.ts";
import {
  linkDeleteRequest,
  linkGroupDeleteRequest,
  linkSetRequest,
  type NetlinkRequest,
} from "./messages.ts";

export type Unlinker = {
  /** Resolves once the link is gone; a link that was not there is no error. From the call on, its name must not be used anew. */
  readonly unlink: (name: string) => Promise<Result<null, NetlinkError>>;
  /** The port of its socket, in the events that it causes. */
  readonly ports: readonly number[];
  /** After the deletion that is under way; what waits is left in the group of the doomed. */
  readonly close: () => Promise<void>;
};

type Waiting = { readonly name: string; readonly resolve: (outcome: Result<null, NetlinkError>) => void };

/**
 * `doomedGroup`: a link group that nothing else uses; all links in it are deleted, whoever put them there.
 * `host`: a connection in the same namespace as the thread is in now, where the unlinker opens its own socket.
 */
export function createUnlinker(options: {
  readonly host: Connection;
  readonly doomedGroup: number;
}): Result<Unlinker, NetlinkError> {
  const { host, doomedGroup } = options;
  const opened = Connection.open();
  if (!opened.ok) return opened;
  const spare = opened.value;

  let waiting: Waiting[] = [];
  let working: Promise<void> | null = null;
  let closed = false;

  const carryOut = async (request: NetlinkRequest): Promise<Result<null, NetlinkError>> => {
    const answer = await spare.requestOffThread(request);
    if (!answer.ok && answer.error.code !== "ENODEV") return answer;
    return ok(null);
  };

  const deleteAll = async (batch: readonly Waiting[]): Promise<void> => {
    const together = await carryOut(linkGroupDeleteRequest(doomedGroup));
    for (const { name, resolve } of batch) {
      if (together.ok) {
        resolve(together);
        continue;
      }
      // A group is refused whole when one link in it cannot be deleted (EOPNOTSUPP, hardware): then each for itself, and the one
      // that stays leaves the group, or it would spoil every later deletion.
      const alone = await carryOut(linkDeleteRequest({ name }));
      if (!alone.ok) host.requestOne(linkSetRequest({ name }, { group: 0 }));
      resolve(alone);
    }
  };

  const work = async (): Promise<void> => {
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      await deleteAll(batch);
    }
    working = null;
  };

  const unlink = (name: string): Promise<Result<null, NetlinkError>> => {
    assert(!closed, "a closed unlinker is not used");
    const doomed = host.requestOne(linkSetRequest({ name }, { group: doomedGroup }));
    if (!doomed.ok) return Promise.resolve(doomed.error.code === "ENODEV" ? ok(null) : err(doomed.error));
    return new Promise((resolve) => {
      waiting.push({ name, resolve });
      working ??= work();
    });
  };

  const close = async (): Promise<void> => {
    closed = true;
    const abandoned = waiting;
    waiting = [];
    for (const { name, resolve } of abandoned) {
      resolve(
        err({ errno: 0, code: "ECANCELED", detail: "the unlinker was closed", what: `link delete ${name}` }),
      );
    }
    await working;
    spare.close();
  };

  return ok({ unlink, ports: [spare.port], close });
}
