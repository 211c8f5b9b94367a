declare const brand: unique symbol;

/** A plain value that only parsing can make, so that two kinds of string are not taken for one another. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };
