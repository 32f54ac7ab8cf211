/** The faults of `test/verify/family-faults.test.ts` in all goldens and in right FP8 recasts of them: each is `different`, at its layer. */
import { describe, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { familyGolden, workFolder } from "../support/goldens.ts";
import { copyOfGolden, FAMILY_GOLDENS, faultsIn } from "../support/verify/family-faults.ts";
import { copyOf, Editor, opened } from "../support/verify/planted.ts";
import { expectClean, expectNamed, keepScore } from "../support/verify/score.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const QUICK: VerifyOptions = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024 };
const score = keepScore("faults in families beside Nemotron-H, kept and recast");

describe.each(FAMILY_GOLDENS)("%s", async (name) => {
  const out = `${work}/${name}`;
  await convert(familyGolden(name), out, { to: "hf", dtype: "fp8-e4m3", verify: "off" });
  const [source, recast] = [await copyOfGolden(name), await copyOf(out)];
  const verified = async ({ copy }: Editor, ours: boolean) =>
    verifyCheckpoints(await opened(source), await opened(copy), QUICK, ours);

  describe.each([
    ["kept", source],
    ["recast", recast],
  ] as const)("%s", (_, right) => {
    it.each(Object.entries(faultsIn(name)))("%s", async (_, { layer, plant }) => {
      const editor = new Editor(right);
      plant(editor);
      expectNamed(score, await verified(editor, false), layer);
    });
  });

  it("none: it is within the limits", async () => {
    expectClean(score, await verified(new Editor(recast), true), "within");
  });
});
