/** Berth's own version, as in package.json; test/tidy.test.ts holds the two equal. */
export const VERSION = "0.1.0";
