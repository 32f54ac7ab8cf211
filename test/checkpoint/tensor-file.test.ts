/** A file of tensors that cannot be put in place. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { writeTensorFile } from "../../src/checkpoint/tensor-file.ts";
import { withoutCalls } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";

it("the first error is reported where the incomplete file cannot be removed", async () => {
  const work = workFolder();
  const path = join(work, "x.safetensors");
  const outcome = await withoutCalls(["rename", "rm"], "EROFS", () =>
    writeTensorFile(path, [], {}, async () => {}),
  );
  expect(outcome).toMatchObject({ reason: { code: "IO_FAILED", at: { file: path } } });
  expect(outcome).toMatchObject({ reason: { message: expect.stringContaining("rename") } });
  expect(readdirSync(work)).toEqual(["x.safetensors.partial"]);
});
