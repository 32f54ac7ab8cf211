/** `isologit recast` of numbers that are hard to round, against torch: every element of every pair of types. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { absent, judge, record, titled } from "./judge.ts";
import { isologit, published } from "./program.ts";

const work = workFolder();
const { ask } = judge();
const FLOATS = { F32: "f32", F16: "f16", BF16: "bf16" } as const;
const ALL = ["f32", "f16", "bf16", "fp8-e4m3", "fp8-e5m2"] as const;
const FP8 = ["--recipe", "all-linear"];

/** Elements cast from one folder to another; each is what torch makes of it, NaN for NaN. */
async function castTo(dtype: string, source: string): Promise<string> {
  const folder = `${source}-${dtype}`;
  const options = [
    ...(dtype.startsWith("fp8") ? FP8 : []),
    ...(/^(f16|bf16)$/.test(dtype) ? ["--allow-overflow"] : []),
  ];
  isologit("recast", source, folder, "--dtype", dtype, "--verify", "off", ...options);
  const { cast, wrong } = await ask<{ cast: number; wrong: object }>("cast", { source, folder });
  expect(wrong).toEqual({});
  expect(cast).toBeGreaterThan(100_000);
  record(`${source.slice(work.length + 1)} to ${dtype}`, `${cast} elements cast, 0 other than torch's`);
  return folder;
}

describe.skipIf(absent !== null)(titled("casts"), () => {
  it.each(Object.entries(FLOATS))("%s to every other type, and from FP8 on", async (dtype, own) => {
    const source = join(work, own);
    await ask("awkward", { source: published("tiny", work), folder: source, dtype });
    for (const to of ALL) {
      if (to === own) continue;
      const folder = await castTo(to, source);
      if (to.startsWith("fp8")) for (const next of ALL) if (next !== to) await castTo(next, folder);
    }
  });
});
