/** Broken promises between our own parts. They end the process, in production too: the checkpoint and the sweep make a crash cheap. */

export function assert(condition: boolean, promise: string): asserts condition {
  if (!condition) throw new Error(`broken promise: ${promise}`);
}

/** For the branch that the types rule out. */
export function unreachable(value: never): never {
  throw new Error(`broken promise: unreachable value ${JSON.stringify(value)}`);
}
