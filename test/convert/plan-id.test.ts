/** The id of a plan enters certificates and resumes: a change of names in the code must not change it. */
import { expect, it } from "vitest";
import { hf } from "../../formats/hf/format.ts";
import { matchModel } from "../../src/checkpoint/load.ts";
import { planConversion } from "../../src/convert/plan.ts";
import { fileStore } from "../../src/io/file.ts";
import { golden } from "../support/goldens.ts";

it("a plan keeps the id that the first version gave it", async () => {
  const model = matchModel(await hf.read(await fileStore(golden("sharded"))), {});
  const target = { writer: hf.writes!, options: { dtype: "fp8-e4m3" } as const, version: "test" };
  expect((await planConversion(model, target)).id).toBe(
    "5f40cf30c3dd693130d066450d8f7458feca0e24928b50e35a7ae2f2467c9d17",
  );
});
