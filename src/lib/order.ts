/** Stable orders, so that two runs over equal values do equal things. */

export type Compare<T> = (left: T, right: T) => number;

export function byNumber<T>(read: (value: T) => number): Compare<T> {
  return (left, right) => read(left) - read(right);
}

/** Code-unit order: the same on every machine, whatever its locale. */
export function byText<T>(read: (value: T) => string): Compare<T> {
  return (left, right) => {
    const a = read(left);
    const b = read(right);
    return a < b ? -1 : a > b ? 1 : 0;
  };
}

/** Compares by the first that tells a difference. */
export function inTurn<T>(...compares: readonly Compare<T>[]): Compare<T> {
  return (left, right) => {
    for (const compare of compares) {
      const order = compare(left, right);
      if (order !== 0) return order;
    }
    return 0;
  };
}

export function sorted<T>(values: Iterable<T>, compare: Compare<T>): T[] {
  return [...values].sort(compare);
}
