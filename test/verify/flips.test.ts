/** A bit that flips anywhere in a packed file is refused by name, or harms nothing. `npm run test:long` tries more. */
import { join } from "node:path";
import { it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { expectHandled, flipsIn, outcomeOf } from "../support/verify/flips.ts";

const work = workFolder();
const file = join(work, "whole.isologit");
await convert(golden("tiny"), file, { verify: "bytes" });

it.each(await flipsIn(file, 7, 12))("$part: bit $bit of byte $at", async (flip) => {
  expectHandled(flip, await outcomeOf(file, golden("tiny"), flip, work));
});
