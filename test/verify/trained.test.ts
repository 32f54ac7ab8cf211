/** Weights that were trained: what a recast costs is judged by the default limits, and nothing has to be remarked. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { recast } from "../../src/api/recast.ts";
import type { LogitsMetrics } from "../../src/verify/report.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();

it.each([{ dtype: "f16" }, { dtype: "fp8-e4m3", keepEnds: 0 }, { dtype: "fp8-e5m2", keepEnds: 0 }] as const)(
  "a recast to $dtype is within the default limits",
  async (options) => {
    const report = await recast(golden("trained"), join(work, options.dtype), { ...options, threads: 2 });
    const { verdict, findings, rungs, limits, unjudged } = report.verification!;
    expect({ verdict, findings, unjudged }).toEqual({ verdict: "within", findings: [] });
    const { klMean, klP99, top1 } = rungs.at(-1)!.metrics as unknown as LogitsMetrics;
    expect(klMean).toBeGreaterThan(0);
    expect(klMean).toBeLessThanOrEqual(limits.klMean!);
    expect(klP99).toBeLessThanOrEqual(limits.klP99!);
    expect(top1).toBeGreaterThanOrEqual(limits.top1!);
  },
);
