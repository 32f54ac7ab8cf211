/** Two bits at many places of certified checkpoints, in each of the usual forms: each flip is found. */
import { it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { expectFlipsRed } from "../support/verify/certified-flips.ts";

const work = workFolder();

it.each([
  ["tiny", "folder", { to: "hf" }, 8],
  ["tiny", "file.isologit", { to: "packed" }, 75],
  ["sharded", "shards", { to: "hf" }, 4],
  ["tiny", "fp8", { to: "hf", dtype: "fp8-e4m3", keepEnds: 0 }, 4],
] as const)("%s as %s", async (name, as, options, count) => {
  await convert(golden(name), `${work}/${as}`, { ...options, tokens: 17 });
  await expectFlipsRed(`${work}/${as}`, count, () => [1, 0x20], work);
});
