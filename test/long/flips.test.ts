/** 204 bits that flip in a packed file of three shards, each refused by name or harmless. */
import { join } from "node:path";
import { it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { expectHandled, flipsIn, outcomeOf } from "../support/verify/flips.ts";

const work = workFolder();
const file = join(work, "whole.isologit");
await convert(golden("sharded"), file, { verify: "bytes" });

it.each(await flipsIn(file, 34, 200))("$part: bit $bit of byte $at", async (flip) => {
  expectHandled(flip, await outcomeOf(file, golden("sharded"), flip, work));
});
