/** The WGSL form of every kernel on a WebGPU device, compared with the oracle; test/long/wgsl.test.ts has all cases. */
import { describe, expect, it } from "vitest";
import { kernels } from "../../kernels/index.ts";
import type { Kernel } from "../../kernels/kernel.ts";
import { expectWithinBounds, formsOf } from "../support/kernels/forms.ts";

/** So many cases of a kernel, spread over all of them. */
const CASES = 6;

describe("is within its bound of the float64 oracle", () => {
  it.each(kernels)("$id", async ({ cases, ...kernel }) => {
    const step = Math.ceil(cases.length / CASES);
    await expectWithinBounds(
      { ...kernel, cases },
      cases.filter((_, i) => i % step === 0),
    );
  });
});

it("the adapter of the tests runs both forms of kernels with two forms", () => {
  const two = (kernel: Kernel) => kernel.cases.some((p) => formsOf(kernel, p).length === 3);
  expect(kernels.filter(two).map(({ id }) => id)).toEqual([
    "attention",
    "gated-norm",
    "layer-norm",
    "linear",
    "rms-norm",
  ]);
});
