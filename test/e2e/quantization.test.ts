/** The built program writes FP8 folders in every dialect, and says what it cannot write. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { golden, workFolder } from "../support/goldens.ts";
import { isologit } from "../support/program.ts";

const work = workFolder();
const TINY = golden("tiny");
const genuine = (name: string) => new URL(`../../fixtures/fp8-dialects/${name}`, import.meta.url).pathname;
const FP8 = ["--dtype", "fp8-e4m3", "--verify", "bytes", "--threads", "1"] as const;

it.each([
  ["compressed-tensors", "row"],
  ["compressed-tensors", "block"],
  ["modelopt", "mxfp8"],
  ["fp8", "tensor"],
])(
  "recast --quant-dialect %s --quant-scales %s is within, and check finds no error",
  async (dialect, scales) => {
    const out = join(work, `${dialect}-${scales}`);
    const flags = ["--quant-dialect", dialect, "--quant-scales", scales];
    const recast = await isologit("recast", TINY, out, ...FP8, ...flags);
    expect(recast.stdout + recast.stderr).toMatch(/^within: wrote /m);
    expect(recast.status).toBe(0);
    expect((await isologit("check", out)).stdout).toMatch(/none is an error/);
  },
);

it("a translation keeps the model the same, in both directions", async () => {
  const [there, back] = [join(work, "there"), join(work, "back")];
  const to = (dialect: string) => ["--to", "hf", "--quant-dialect", dialect, "--threads", "1"];
  const first = await isologit("convert", genuine("modelopt-fp8"), there, ...to("compressed-tensors"));
  expect(first.stdout).toMatch(/^same: /m);
  const second = await isologit("convert", there, back, ...to("modelopt"));
  expect(second.stdout).toMatch(/^same: /m);
  expect((await isologit("check", back)).stdout).toMatch(/none is an error/);
});

it.each([
  [["--quant-dialect", "modelopt"], "--calibrate"],
  [["--quant-dialect", "fp8", "--quant-scales", "row"], "--quant-dialect compressed-tensors"],
])("recast %j is refused, and the next step names a flag", async (flags, next) => {
  const refused = await isologit("recast", TINY, join(work, "refused"), ...FP8, ...flags);
  expect(refused.status).toBe(2);
  expect(refused.stderr).toMatch(/PLAN_IMPOSSIBLE/);
  expect(refused.stderr).toMatch(next);
});
