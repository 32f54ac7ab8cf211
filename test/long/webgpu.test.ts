/** Each golden on the GPU of the tests, as Transformers ran it: prompts of one token and of 17. */
import { beforeAll, describe, it } from "vitest";
import { FAMILIES, familyGolden, golden, workFolder } from "../support/goldens.ts";
import { testAdapter } from "../support/kernels/software-gpu.ts";
import { expectAsRecorded } from "../support/verify/gpu-golden.ts";

const work = workFolder();
beforeAll(testAdapter);

/** tiny-t5 holds tiny's weights under the other config style; its reference is tiny's. */
it.each([
  ["tiny", "tiny", "len1"],
  ["tiny", "tiny", "len17"],
  ["tiny-t5", "tiny", "len17"],
  ["sharded", "sharded", "len17"],
  ["moe", "moe", "len1"],
  ["moe", "moe", "len17"],
  ["latent-moe", "latent-moe", "len17"],
])("%s as %s, %s", async (name, reference, key) => {
  await expectAsRecorded(golden(name), golden(reference), key, work);
});

/** One token and several run other kernels. */
describe.each(FAMILIES)("%s", (name) => {
  it.each(["len1", "len17"])("%s", async (key) => {
    await expectAsRecorded(familyGolden(name), familyGolden(name), key, work);
  });
});
