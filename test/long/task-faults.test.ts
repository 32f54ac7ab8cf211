/** Calls of the file system fail in tasks that write, in tasks that compare, and in the merge: run again, they give the same bytes. */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { failEach } from "../support/fault-loop.ts";
import { EVERY } from "../support/faulty-io.ts";
import { workFolder } from "../support/goldens.ts";
import { smallModel } from "../support/small.ts";
import { divide } from "../support/tasks.ts";

const work = workFolder();
const model = await smallModel(join(work, "model"), "-");

/** Not each call but every so many, and the first of each name. */
const STEP = Number(process.env.ISOLOGIT_CUTS ?? 4);

it.each([
  ["EIO", "x.isologit", { to: "packed" }],
  ["ENOSPC", "hf", { to: "hf", dtype: "fp8-e4m3", keepEnds: 0 }],
] as const)("%s: %s", async (code, name, options) => {
  const folder = join(work, `in-${name}`);
  mkdirSync(folder);
  const { destination: path, ...divided } = await divide(folder, model, name, options);
  const run = async () => {
    if (!existsSync(path)) {
      await divided.task(0, 1, { checkpointBytes: 9_000 });
      await divided.compared(0, 1);
    }
    expect((await divided.merged({ tasks: 1 })).verification).toMatchObject({
      verdict: options.to === "packed" ? "same" : "within",
    });
  };
  const calls = EVERY.filter((call) => call !== (options.to === "packed" ? "rename" : "link"));
  expect(await failEach({ path, run }, calls, code, STEP)).toBeGreaterThan(calls.length);
});
