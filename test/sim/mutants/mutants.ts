// Deliberate defects, as edits of the production files. Each names the checkers that may be the first to see it: a defect can show in more than
// one way, and the run ends with the first. A `find` must be there exactly once: code that moves takes its mutants along, or this fails aloud.
import type { CheckerName } from "../../../src/sim/checkers.ts";

export type Edit = { readonly file: string; readonly find: string; readonly replace: string };
export type Mutant = {
  readonly name: string;
  readonly expects: readonly CheckerName[];
  readonly edits: readonly Edit[];
};

const edit = (file: string, find: string, replace: string): Edit => ({ file: `src/${file}`, find, replace });

const NO_HELD_CANNOT_LEAVE = edit(
  "core/state/transitions.ts",
  'assert(address.kind !== "allocated", `${address.ip} is held by a sandbox and cannot leave`);',
  "",
);
const NO_ALLOCATED_WAS_FREE = edit(
  "core/state/transitions.ts",
  "assert(free, `${allocation.ip} is ${address.kind}, and was given to ${allocation.id}`);",
  "void free;",
);

export const MUTANTS: readonly Mutant[] = [
  {
    name: "start empty when there is no checkpoint",
    expects: ["one-sandbox-an-address", "pods-keep-plumbing", "cooldown-kept"],
    edits: [
      edit(
        "core/reconcile/recover.ts",
        "if (remembered === null) return { alive: found, older: false };",
        "if (remembered === null) return { alive: [], older: false };",
      ),
    ],
  },
  {
    name: "believe a checkpoint that is older than the kernel",
    expects: ["one-sandbox-an-address", "pods-keep-plumbing", "cooldown-kept"],
    edits: [
      edit(
        "core/reconcile/recover.ts",
        "alive: [...kept, ...unknown.filter(({ ip }) => !held.has(ip))]",
        "alive: [...kept, ...unknown.filter(({ ip }) => held.has(ip))]",
      ),
    ],
  },
  {
    name: "believe another node's checkpoint",
    expects: [
      "address-on-its-eni",
      "foreign-untouched",
      "no-broken-promise",
      "pods-keep-plumbing",
      "cooldown-kept",
      "one-creation",
      "belief-meets-truth",
      "nothing-leaks",
    ],
    edits: [
      edit(
        "core/reconcile/recover.ts",
        "return owner === null || owner === instance.id ? remembered : null;",
        "return owner !== instance.id ? remembered : remembered;",
      ),
    ],
  },
  {
    name: "give out an address that a sandbox holds",
    expects: ["one-sandbox-an-address", "state-sound", "no-broken-promise"],
    edits: [
      edit(
        "core/pool/cooldown.ts",
        'return address.kind === "warm" || (',
        'return address.kind === "warm" || address.kind === "allocated" || (',
      ),
      NO_ALLOCATED_WAS_FREE,
    ],
  },
  {
    name: "undo an unassign whose answer was lost",
    expects: ["address-on-its-eni", "never-taken-back-in-use", "belief-meets-truth", "one-creation"],
    edits: [
      edit(
        "agent/perform.ts",
        "cell.set(callInDoubt(obstacleMet(before, failing), { operation, eni, since: now }));\n      break;\n    // Our view",
        "cell.set(undo(obstacleMet(before, failing)));\n      break;\n    // Our view",
      ),
    ],
  },
  {
    name: "let every pod leave by the primary ENI",
    expects: ["address-on-its-eni"],
    edits: [
      edit(
        "core/plumbing/routed.ts",
        "const group = eniGroup(number);",
        "const group = eniGroup(0 as typeof number);",
      ),
    ],
  },
  {
    name: "take for new what a late call may yet take away",
    expects: ["address-on-its-eni", "never-taken-back-in-use"],
    edits: [
      edit(
        "core/state/transitions.ts",
        "return ips.reduce((next, ip) => withRest(next, id, ip, until), state);",
        "return ips.reduce((next, ip) => withRest(next, id, ip, until), state) === state ? state : state;",
      ),
    ],
  },
  {
    name: "unassign what a sandbox holds",
    expects: ["never-taken-back-in-use", "state-sound", "leaving-before-call"],
    edits: [
      edit(
        "core/pool/parts.ts",
        'address.by === "secondary" && isFree(address, now)',
        'address.by === "secondary" && (isFree(address, now) || address.kind === "allocated")',
      ),
      NO_HELD_CANNOT_LEAVE,
    ],
  },
  {
    name: "give out an address that is leaving",
    expects: ["never-taken-back-in-use", "leaving-before-call", "address-on-its-eni"],
    edits: [
      edit(
        "core/pool/cooldown.ts",
        'return address.kind === "warm" || (',
        'return address.kind === "warm" || address.kind === "leaving" || (',
      ),
      NO_ALLOCATED_WAS_FREE,
    ],
  },
  {
    name: "count cooling as free",
    expects: ["cooldown-kept"],
    edits: [
      edit(
        "core/pool/cooldown.ts",
        '(address.kind === "cooling" && address.until <= now)',
        'address.kind === "cooling"',
      ),
      edit(
        "core/state/census.ts",
        "tally.cooling.filter((each) => each.until <= now)",
        "tally.cooling.filter(() => true)",
      ),
      NO_ALLOCATED_WAS_FREE,
    ],
  },
  {
    name: "forget over a restart what rests",
    expects: ["cooldown-kept"],
    edits: [
      edit(
        "core/reconcile/recover.ts",
        "for (const { eni, ip, until } of remembered.cooling) {",
        "for (const { eni, ip, until } of remembered.cooling.slice(0, 0)) {",
      ),
    ],
  },
  {
    name: "let nothing rest after a start without checkpoint",
    expects: ["cooldown-kept"],
    edits: [
      edit(
        "core/reconcile/recover.ts",
        "return cached.length > 0 || host.links.some(isOurs)",
        "return cached.length < 0 && host.links.some(isOurs)",
      ),
      edit(
        "core/reconcile/recover.ts",
        "else if (remembered?.sameBoot !== true)",
        "else if (state.waiting > 0)",
      ),
    ],
  },
  {
    name: "detach an ENI that a few pods use",
    expects: ["in-use-eni-stays", "state-sound"],
    edits: [
      edit("core/pool/shrink.ts", "each.allocated === 0 && each.cooling === 0", "each.allocated <= 3"),
      NO_HELD_CANNOT_LEAVE,
    ],
  },
  {
    name: "detach the ENI with the most pods when there are too many",
    expects: ["in-use-eni-stays", "state-sound"],
    edits: [
      edit(
        "core/pool/shrink.ts",
        "each.allocated === 0 && each.cooling === 0",
        "each.allocated >= 1 || each.cooling === 0",
      ),
      NO_HELD_CANNOT_LEAVE,
    ],
  },
  {
    name: "manage what is tagged no_manage",
    expects: ["foreign-untouched", "belief-meets-truth"],
    edits: [
      edit(
        "core/reconcile/classify.ts",
        'if (seen.tags.get(NO_MANAGE_TAG) === "true") return { kind: "foreign", reason: "no-manage" };',
        "",
      ),
    ],
  },
  {
    name: "take rules of others for our own",
    expects: ["foreign-untouched"],
    edits: [edit("core/plumbing/diff.ts", "if (!isOurs(rule)) return false;", "")],
  },
  {
    name: "delete an ENI without asking whether its node lives",
    expects: ["foreign-untouched"],
    edits: [
      edit(
        "agent/leaks.ts",
        "if (onIt.ok && onIt.value.length === 0) dead.add(owner);",
        "if (onIt.ok) dead.add(owner);",
      ),
      edit(
        "agent/leaks.ts",
        "() => settings.leakGraceMs,\n  );\n  memory.deadNodes",
        "() => 0,\n  );\n  memory.deadNodes",
      ),
      edit("agent/leaks.ts", "const TURN_MS = HOUR_MS;", "const TURN_MS = MINUTE_MS;"),
      edit("agent/leaks.ts", "import { after, HOUR_MS, type Instant", "import { after, type Instant"),
    ],
  },
  {
    name: "never forget an address that EC2 does not list",
    expects: ["belief-meets-truth", "address-on-its-eni"],
    edits: [
      edit(
        "core/reconcile/drift.ts",
        'if (address.by === "prefix" || ips.has(address.ip)) continue;',
        'if (address.by === "prefix" || ips.has(address.ip) || eni.mac !== "") continue;',
      ),
    ],
  },
  {
    name: "never learn of an address that EC2 lists",
    expects: ["belief-meets-truth", "pool-reaches-target", "ec2-calls-bounded"],
    edits: [
      edit(
        "core/reconcile/drift.ts",
        "if (!eni.addresses.has(ip))\n",
        'if (!eni.addresses.has(ip) && eni.mac === "")\n',
      ),
    ],
  },
  {
    name: "never look for ENIs that were left over",
    expects: ["nothing-leaks"],
    edits: [
      edit("agent/look.ts", "if (settings.deleteLeakedEnis) await lookForLeaks(agent, memory.leaks);", ""),
    ],
  },
  {
    name: "never look for the ENIs of dead nodes",
    expects: ["nothing-leaks"],
    edits: [
      edit(
        "agent/leaks.ts",
        "if (agent.ports.time.now() >= memory.nextTurn) await lookForDeadNodes(agent, memory);",
        "if (agent.ports.time.now() < 0) await lookForDeadNodes(agent, memory);",
      ),
    ],
  },
  {
    name: "never free a sandbox that ended without DEL",
    expects: ["nothing-leaks", "belief-meets-truth", "pool-reaches-target"],
    edits: [
      edit(
        "agent/sweep-sandboxes.ts",
        "for (const { allocation, sinceMs } of ripe) await free(agent, allocation, sinceMs);",
        "for (const { allocation, sinceMs } of ripe.slice(0, 0)) await free(agent, allocation, sinceMs);",
      ),
    ],
  },
  {
    name: "leave links behind whose sandbox is gone",
    expects: ["nothing-leaks", "never-taken-back-in-use", "cooldown-kept"],
    edits: [
      edit(
        "core/plumbing/diff.ts",
        "if (!isOurGroup(group)) return false;",
        "if (isOurGroup(group) || group === 0) return false;",
      ),
      edit(
        "agent/delete-sandbox.ts",
        "const linkGone = ours ? removeLink(agent, allocation) : Promise.resolve();",
        "const linkGone = ours && agent.ports.random() >= 2 ? removeLink(agent, allocation) : Promise.resolve();",
      ),
    ],
  },
  {
    name: "hold an ADD for ever",
    expects: ["add-ends"],
    edits: [
      edit(
        "agent/waiting-room.ts",
        '.then(() => leave({ kind: "ended", by: "deadline" }));',
        ".then(() => undefined);",
      ),
    ],
  },
  {
    name: "hold an ADD a minute too long",
    expects: ["add-ends"],
    edits: [
      edit(
        "agent/waiting-room.ts",
        ".sleep(Math.max(0, deadline - this.#time.now()), alarm)",
        ".sleep(Math.max(0, deadline - this.#time.now()) + 60_000, alarm)",
      ),
    ],
  },
  {
    name: "never try again what was refused once",
    expects: ["pool-reaches-target", "belief-meets-truth", "nothing-leaks"],
    edits: [
      edit(
        "core/pool/obstacles.ts",
        "state.obstacles.filter((obstacle) => obstacle.until > now)",
        "state.obstacles.filter((obstacle) => obstacle.until > 0 || now < 0)",
      ),
    ],
  },
  {
    name: "count on an ENI whose link never comes",
    expects: ["pool-reaches-target", "belief-meets-truth", "add-ends"],
    edits: [
      edit(
        "agent/repair.ts",
        'if (there && eni.phase.kind === "awaiting-link") {',
        'if (there && eni.phase.kind === "awaiting-link" && eni.role === "primary") {',
      ),
    ],
  },
  {
    name: "ask EC2 again at once when it refuses",
    expects: ["ec2-calls-bounded"],
    edits: [
      edit(
        "agent/perform.ts",
        "const soon = after(now, backoffMs(attempt, ports.random(), { baseMs: SECOND_MS, maxMs: MINUTE_MS }));",
        "const soon = after(now, 0 * backoffMs(attempt, ports.random(), { baseMs: SECOND_MS, maxMs: MINUTE_MS }));",
      ),
    ],
  },
  {
    name: "look at EC2 all the time",
    expects: ["ec2-calls-bounded"],
    edits: [
      edit(
        "agent/looks.ts",
        "settings.sweepIntervalMs * (0.8 + 0.4 * ports.random())",
        "2_000 * (0.8 + 0.4 * ports.random())",
      ),
    ],
  },
  {
    name: "release a record and not its address",
    expects: ["state-sound", "no-broken-promise"],
    edits: [
      edit(
        "core/state/transitions.ts",
        'return withAddress(next, allocation.eni, { ip: address.ip, by: address.by, kind: "cooling", until });',
        "return next;",
      ),
    ],
  },
  {
    name: "keep a prefix whose addresses are gone",
    expects: ["state-sound", "no-broken-promise"],
    edits: [
      edit(
        "core/state/transitions.ts",
        "prefixes: eni.prefixes.filter((prefix) => !gone.has(printCidr4(prefix)))",
        'prefixes: eni.prefixes.filter((prefix) => gone.size > 0 || printCidr4(prefix) === "")',
      ),
    ],
  },
  {
    name: "never put a pod's link back",
    expects: ["pods-keep-plumbing"],
    edits: [
      edit(
        "agent/repair.ts",
        "  replumbLost(agent, seen.value.links);\n",
        "  if (seen.value.links.length === 0) replumbLost(agent, seen.value.links);\n",
      ),
    ],
  },
  {
    name: "never put a route or rule back",
    expects: ["pods-keep-plumbing", "nothing-leaks"],
    edits: [
      edit(
        "agent/repair.ts",
        'const failures = ports.kernel.apply(ops.filter((op) => op.verb !== "delete-link"));',
        'const failures = ports.kernel.apply(ops.filter((op) => op.verb === "delete"));',
      ),
    ],
  },
  {
    name: "free with GC whatever the runtime does not list",
    expects: ["pods-keep-plumbing", "belief-meets-truth", "one-sandbox-an-address"],
    edits: [
      edit(
        "agent/check-sandbox.ts",
        "if (mayRun(agent, allocation)) {",
        'if (mayRun(agent, allocation) && allocation.hostLink === "") {',
      ),
    ],
  },
  {
    name: "plumb before it is written down",
    expects: ["written-before-real", "one-sandbox-an-address", "cooldown-kept"],
    edits: [
      edit(
        "agent/add-sandbox.ts",
        "const saved = await ports.save(cell.state); // Written down before",
        "const saved = { ok: true, error: cancelled() } as const; // Written down before",
      ),
    ],
  },
  {
    name: "plumb although it could not be written down",
    expects: ["written-before-real"],
    edits: [
      edit(
        "agent/add-sandbox.ts",
        "const saved = await ports.save(cell.state); // Written down before",
        "await ports.save(cell.state);\n  const saved = { ok: true, error: cancelled() } as const; // Written down before",
      ),
    ],
  },
  {
    name: "tell the disk of leaving addresses later",
    expects: ["leaving-before-call"],
    edits: [
      edit(
        "agent/perform.ts",
        "const saved = await agent.ports.save(agent.cell.state);\n  // A full disk",
        "const saved = { ok: true, error: null } as const;\n  // A full disk",
      ),
    ],
  },
  {
    name: "ask EC2 to take addresses before they are leaving",
    expects: ["leaving-before-call", "never-taken-back-in-use"],
    edits: [
      edit(
        "agent/perform.ts",
        "await announce(agent, (state) => addressesLeaving(state, action.eni, action.ips));",
        "",
      ),
    ],
  },
  {
    name: "detach before marking leaving",
    expects: ["leaving-before-call", "in-use-eni-stays"],
    edits: [
      edit(
        "agent/perform.ts",
        "await announce(agent, (state) => eniLeaving(state, action.eni, agent.ports.time.now()));",
        "",
      ),
    ],
  },
  {
    name: "repeat an in-doubt create with a new token",
    expects: ["one-creation"],
    edits: [
      edit(
        "agent/perform.ts",
        "    prefixCount,\n    clientToken,\n",
        "    prefixCount,\n    clientToken: repeated ? ports.newToken() : clientToken,\n",
      ),
    ],
  },
  {
    name: "forget an in-doubt create",
    expects: ["one-creation"],
    edits: [
      edit(
        "agent/look.ts",
        "if (settings.provisioning) await finishCreation(agent, creation, { repeated: true });\n  else cell.set(eniCreationFailed(cell.state));",
        "cell.set(eniCreationFailed(cell.state));\n  if (settings.leakGraceMs < 0) await finishCreation(agent, creation, { repeated: true });",
      ),
    ],
  },
  {
    name: "take addresses away without a word",
    expects: ["removal-is-told"],
    edits: [
      edit(
        "agent/pool-log.ts",
        'ports.log({ level: "info", message: DONE[action.kind], ...action, reason, durationMs });',
        'if (action.kind !== "unassign-addresses" && action.kind !== "unassign-prefixes") ports.log({ level: "info", message: DONE[action.kind], ...action, reason, durationMs });',
      ),
    ],
  },
  {
    name: "say that something was done, and not to which ENI",
    expects: ["removal-is-told"],
    edits: [
      edit(
        "agent/pool-log.ts",
        "message: DONE[action.kind], ...action, reason,",
        "message: DONE[action.kind], reason,",
      ),
    ],
  },
  {
    name: "wait for EC2 at start as long as it takes",
    expects: ["start-serves"],
    edits: [
      edit(
        "agent/recover.ts",
        "const EC2_WAIT_AT_START_MS = 10 * SECOND_MS;",
        "const EC2_WAIT_AT_START_MS = 10_000 * SECOND_MS;",
      ),
      edit("agent/recover.ts", "const EC2_TRIES_AT_START = 3;", "const EC2_TRIES_AT_START = 300;"),
    ],
  },
  {
    name: "wait long for IMDS when it was away once",
    expects: ["start-serves"],
    edits: [
      edit(
        "agent/recover.ts",
        "const waitMs = backoffMs(attempt, ports.random(), { baseMs: 200, maxMs: 10_000 });",
        "const waitMs = backoffMs(attempt, ports.random(), { baseMs: 900_000, maxMs: 900_000 });",
      ),
    ],
  },
  {
    name: "settle what is said of an ENI that was just forgotten",
    expects: ["no-broken-promise"],
    edits: [edit("agent/look.ts", 'if ("eni" in drift && !cell.state.enis.has(drift.eni)) continue;', "")],
  },
  {
    name: "plan while a creation is open",
    expects: ["no-broken-promise", "one-creation"],
    edits: [
      edit(
        "core/pool/plan.ts",
        "if (state.inDoubt !== null || state.creation !== null) {",
        "if (state.inDoubt !== null && state.creation === null) {",
      ),
      edit(
        "agent/refill.ts",
        "if (inDoubt !== null) {",
        "if (inDoubt !== null && cell.state.creation === null) {",
      ),
    ],
  },
  {
    name: "let a new ENI outlive its instance, and never repair it",
    expects: ["ends-with-instance"],
    edits: [
      edit(
        "core/reconcile/drift.ts",
        "if (each.attachment?.deleteOnTermination === false) {",
        "if (each.attachment?.deleteOnTermination === null) {",
      ),
    ],
  },
  {
    name: "say that an ENI ends with its instance, and do not ask EC2 for it",
    expects: ["ends-with-instance"],
    edits: [
      edit(
        "agent/look.ts",
        "const set = await ports.ec2.setDeleteOnTermination(drift.eni, drift.attachment);",
        "const set = { ok: drift.attachment !== undefined };",
      ),
      edit(
        "agent/perform.ts",
        "const kept = await ports.ec2.setDeleteOnTermination(seen.id, attached.value);",
        "const kept = { ok: true, error: null } as const;",
      ),
    ],
  },
];
