import { expect, test } from "vitest";
import { wireHeader } from "../../src/cni/wire.ts";

test("the shim's header is the one that the wire's tables print", async () => {
  await expect(wireHeader()).toMatchFileSnapshot("../../src/cni/shim/berth-wire.h");
});
