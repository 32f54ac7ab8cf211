/**
 * The error of a recast: what `plan` measures is what `verify` finds after the conversion, and both are what plain F64 sums
 * over the bytes give. Then planted errors, each of which one of the numbers shows.
 */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type ConvertOptions, convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { scaleOf } from "../../src/cast/cast.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import type { FloatDType } from "../../src/core/dtype.ts";
import { widen } from "../../src/core/float.ts";
import { htmlText } from "../../src/report/html.ts";
import type { ComparedTensor } from "../../src/verify/report.ts";
import { fp8Dialects, golden, type StoredArray, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { type Copy, codesOf, copyOf, Editor, oneF32, opened, written } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const MACHINE = { threads: 1, memoryBytes: 64 * 1024 * 1024 } as const;
const BYTES: VerifyOptions = { verify: "bytes", ...MACHINE };
const tiny = await copyOf(golden("tiny"));
const FP8 = { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", ...MACHINE } as const;

const BLOCKS = { tensor: [1e9, 1e9], row: [1, 1e9], block: [128, 128], mxfp8: [1, 32] } as const;

/** Values of a stored weight as a reader computes them; its scales are F32, or exponents in bytes. */
function valuesOf({ tensors }: Copy, name: string, scaled: keyof typeof BLOCKS): Float32Array {
  const { dtype, bytes, shape } = tensors.get(name)!;
  const values = widen(dtype as FloatDType, bytes); // the weights of these folders are floats
  const scales = tensors.get(`${name}_scale`);
  if (scales === undefined) return values;
  const factors =
    scales.dtype === "U8" ? Float32Array.from(scales.bytes, (e) => 2 ** (e - 127)) : widenF32(scales);
  const columns = shape[1]!;
  const [height, width] = BLOCKS[scaled];
  const across = Math.ceil(columns / width);
  return values.map((value, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return value * factors[Math.floor(row / height) * across + Math.floor(column / width)]!;
  });
}

const widenF32 = ({ bytes }: StoredArray) => widen("F32", bytes);

/** Relative L2 and flushed share in F64. */
function expectedError(
  a: Copy,
  b: Copy,
  { a: from, b: to }: ComparedTensor,
  scaled: keyof typeof BLOCKS = "tensor",
) {
  const [weights, values] = [valuesOf(a, from, "tensor"), valuesOf(b, to, scaled)];
  let [difference, norm, nonzero, zeroed] = [0, 0, 0, 0];
  for (const [i, w] of weights.entries()) {
    difference += (w - values[i]!) ** 2;
    norm += w * w;
    if (w !== 0) nonzero++;
    if (w !== 0 && values[i] === 0) zeroed++;
  }
  return { elements: weights.length, relL2: Math.sqrt(difference / norm), flushed: zeroed / nonzero };
}

const measured = (tensors: readonly ComparedTensor[] | undefined) =>
  (tensors ?? []).filter(({ error }) => error !== undefined);

describe("what `plan` measures", () => {
  const exact = { to: "hf", dtype: "bf16", ...MACHINE } as const;
  const cases: Record<string, readonly [source: string, options: ConvertOptions]> = {
    "one scale a tensor": [golden("tiny"), { ...FP8, quantScales: "tensor" }],
    "a scale a row": [golden("tiny"), { ...FP8, quantScales: "row" }],
    "a scale a block": [golden("tiny"), { ...FP8, quantScales: "block" }],
    MXFP8: [golden("tiny"), { ...FP8, quantScales: "mxfp8" }],
    "scales that q, k and v share": [golden("tiny"), { ...FP8, fuseScales: true }],
    E5M2: [golden("tiny"), { ...FP8, dtype: "fp8-e5m2" }],
    "calibrated scales": [
      golden("tiny"),
      { ...FP8, calibrate: true, quantDialect: "modelopt", ids: [1, 2, 3] },
    ],
    "F16 in a packed file": [golden("tiny"), { dtype: "f16", to: "packed", ...MACHINE }],
    "BF16 as F32": [golden("tiny"), { ...exact, dtype: "f32" }],
    "several ranks": [golden("tiny"), { dtype: "f16", to: "megatron", tp: 2, ...MACHINE }],
    "decoded rows": [fp8Dialects("ct-channel-dynamic"), exact],
  };

  it.each(Object.entries(cases))("is what `verify` finds: %s", async (name, [source, options]) => {
    const out = join(work, name.replaceAll(/\W/g, "-"));
    const { measurement } = await plan(source, out, { ...options, measure: true });
    const { verification } = await convert(source, out, { ...options, verify: "bytes" });
    expect(verification?.verdict).toBe("within");
    const foreign = await verify(source, out, BYTES);
    for (const report of [verification!, foreign]) {
      expect(measurement?.tensors).toEqual(measured(report.tensors));
      expect(measurement?.error).toEqual(metricsWith(report, "bytes", "recast").error);
    }
    expect(measurement?.tensors.length).toBeGreaterThan(0);
    expect(measurement?.differences).toEqual([]);
    if (options.to !== "hf") return;
    const [a, b] = [await copyOf(source), await copyOf(out)];
    if ([...a.tensors.keys()].some((key) => key.endsWith("_scale"))) return; // the expected values are of BF16 sources
    for (const tensor of measurement!.tensors) {
      const { relL2, ...exactly } = expectedError(a, b, tensor, options.quantScales);
      expect(tensor.error, tensor.b).toMatchObject({ ...exactly, clipped: 0, notNearest: 0 });
      expect(Math.abs(tensor.error!.relL2 - relL2), tensor.b).toBeLessThanOrEqual(2e-6 * relL2);
      if (options.dtype === "f32") expect(tensor.error!.relL2).toBe(0);
    }
  });

  it.each(["tensor", "block"] as const)("does not depend on memory or threads: %s", async (quantScales) => {
    const [low, high] = await Promise.all(
      [
        { memoryBytes: 2 * 1024 * 1024, threads: 1 },
        { memoryBytes: 512 * 1024 * 1024, threads: 3 },
      ].map((machine) => {
        const options = { ...FP8, ...machine, quantScales, measure: true };
        return plan(golden("tiny"), join(work, "any"), options);
      }),
    );
    expect(low!.measurement).toEqual(high!.measurement);
  });
});

describe("a planted error", () => {
  const UP = "backbone.layers.4.mixer.up_proj.weight";
  const IN = "backbone.layers.2.mixer.in_proj.weight";
  const HEADS = tiny.tensors.get("backbone.layers.2.mixer.A_log")!.shape[0]!;

  /** As a conversion of these weights with one scale a tensor. */
  async function recastOf(copy: Copy, name: string) {
    const source = written(copy, join(work, `${name}-source`));
    const { measurement } = await plan(source, join(work, name), { ...FP8, measure: true });
    const { verification } = await convert(source, join(work, name), { ...FP8, verify: "bytes" });
    expect(measurement?.tensors).toEqual(measured(verification?.tensors));
    return { measurement: measurement!, verification: verification! };
  }
  const errorIn = (tensors: readonly ComparedTensor[] | undefined, name: string) =>
    tensors!.find(({ b }) => b === name)!.error!;

  it("of one outlier at 1e5 sigma is 17 % of the others flushed, though relative L2 falls", async () => {
    const editor = new Editor(tiny);
    let [state, sum] = [1, 0];
    const uniform = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 2 ** 32;
    };
    editor.values(UP, (_, i) => {
      const value = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
      sum += i === 0 ? 1e10 : value * value;
      return i === 0 ? 1e5 : value;
    });
    const { measurement, verification } = await recastOf(editor.copy, "outlier");
    const { flushed, relL2, clipped } = errorIn(measurement.tensors, UP);
    expect(flushed).toBeGreaterThan(0.15);
    expect(flushed).toBeLessThan(0.19);
    expect(relL2).toBeLessThan(0.01);
    expect(clipped).toBe(0);
    expect(sum).toBeGreaterThan(1e10);
    expect(verification.verdict).toBe("different");
    expect(measurement.differences).toEqual(metricsWith(verification, "bytes", "recast").differences);
    expect(measurement.differences).toEqual([
      expect.objectContaining({ message: expect.stringContaining("became 0 or a subnormal code") }),
    ]);
  });

  it("of a row that vanishes is named, with the part of the fused projection", async () => {
    const { shape } = tiny.tensors.get(IN)!;
    const [rows, columns] = shape as [number, number];
    const editor = new Editor(tiny);
    editor.values(IN, (value, i) => (i >= (rows - HEADS) * columns ? value * 2 ** -30 : value));
    const { measurement, verification } = await recastOf(editor.copy, "row");
    const { relL2, parts } = errorIn(measurement.tensors, IN);
    expect(relL2).toBeLessThan(0.03);
    const lost = { lossyRows: HEADS, lostRows: HEADS, rows: HEADS, first: rows - HEADS, last: rows - 1 };
    expect(parts).toEqual([{ part: "dt", relL2: 1, ...lost }]);
    const text = `${IN}: dt: ${HEADS} of ${HEADS} rows (rows ${rows - HEADS} to ${rows - 1}) became 0`;
    expect(measurement.findings).toContainEqual(expect.stringContaining(text));
    expect(verification.findings).toContainEqual(expect.stringContaining(text));
    const html = htmlText({ command: "verify", a: "a", b: "b", report: verification });
    expect(html).toContain("Number of tensors by their relative L2");
    expect(html).toContain(`dt: ${HEADS} of ${HEADS} rows lost more than rounding`);
  });

  it("of a part that is rounded coarsely is named with its own relative L2", async () => {
    const [rows, columns] = tiny.tensors.get(IN)!.shape as [number, number];
    const editor = new Editor(tiny);
    editor.values(IN, (value, i) => (i >= (rows - HEADS) * columns ? value * 2 ** -15 : value));
    const { measurement } = await recastOf(editor.copy, "coarse");
    const [dt] = errorIn(measurement.tensors, IN).parts;
    expect(dt).toMatchObject({ part: "dt", lossyRows: HEADS, rows: HEADS });
    expect(dt!.relL2).toBeGreaterThan(2 ** -4);
    expect(dt!.relL2).toBeLessThan(1);
    expect(measurement.findings.join("; ")).toMatch(
      /dt: .* lost more than rounding explains, .*relative L2 0\.\d+/,
    );
  });

  const fp8Copy = async (change: (editor: Editor, scale: number) => void) => {
    const folder = join(work, "foreign");
    await convert(golden("tiny"), folder, { ...FP8, verify: "off", overwrite: true });
    const editor = new Editor(await copyOf(folder));
    const amax = widen("BF16", tiny.tensors.get(UP)!.bytes).reduce(
      (most, v) => Math.max(most, Math.abs(v)),
      0,
    );
    change(editor, scaleOf(amax, "F8_E4M3"));
    const report = await verifyCheckpoints(await opened(tiny), await opened(editor.copy), BYTES);
    return { report, copy: editor.copy, error: errorIn(report.tensors, UP) };
  };

  it("of a scale that is too small in another tool's file is clipped", async () => {
    let scale = 0;
    const { error, copy, report } = await fp8Copy((editor, best) => {
      scale = Math.fround(best / 4);
      editor.put(UP, { bytes: codesOf(tiny.tensors.get(UP)!, "F8_E4M3", scale) });
      editor.put(`${UP}_scale`, { bytes: oneF32(scale) });
    });
    const weights = widen("BF16", tiny.tensors.get(UP)!.bytes);
    const clipped = weights.filter((w) => Math.abs(w) / scale > 464).length;
    expect(clipped).toBeGreaterThan(0);
    expect(error.clipped).toBe(clipped / weights.length);
    const { relL2 } = expectedError(tiny, copy, report.tensors!.find(({ b }) => b === UP)!);
    expect(Math.abs(error.relL2 - relL2)).toBeLessThanOrEqual(2e-6 * relL2);
    expect(report.rungs[1]!.verdict).toBe("different");
  });

  it("of one code that is its neighbour is not nearest, and no more", async () => {
    const moved = await fp8Copy((editor) => {
      editor.bytes(UP, (codes) => {
        const i = codes.findIndex((code) => (code & 0x7f) > 0x40 && (code & 0x7f) < 0x70);
        codes[i]! += 1;
      });
    });
    expect(moved.error.notNearest).toBe(1 / moved.error.elements);
    expect(moved.error).toMatchObject({ clipped: 0, flushed: 0 });
    const { relL2 } = expectedError(tiny, moved.copy, moved.report.tensors!.find(({ b }) => b === UP)!);
    expect(Math.abs(moved.error.relL2 - relL2)).toBeLessThanOrEqual(2e-6 * relL2);
  });

  it("of a number that became 0 in another tool's file is flushed", async () => {
    const { error } = await fp8Copy((editor) => {
      editor.bytes(UP, (codes) => {
        const i = codes.findIndex((code) => (code & 0x7f) > 0x40);
        codes[i] = 0;
      });
    });
    expect(error.flushed * error.elements).toBeCloseTo(1, 6);
    expect(error.notNearest).toBe(1 / error.elements);
  });
});

it("names the weight that a conversion would refuse", async () => {
  const editor = new Editor(tiny);
  const name = "backbone.layers.4.mixer.down_proj.weight";
  editor.values(name, (value, i) => (i === 77 ? NaN : value));
  const source = written(editor.copy, join(work, "nan"));
  for (const quantScales of ["tensor", "row"] as const) {
    const refused = await plan(source, join(work, "x"), { ...FP8, quantScales, measure: true }).catch(
      (e) => e,
    );
    expect(refused).toMatchObject({ code: "NON_FINITE", at: { tensor: name, index: 77 } });
  }
});
