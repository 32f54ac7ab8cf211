/** Scales below amax / max, as rules of least squared error choose them, and scales that no rule chooses. */
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { encode, tableOf, widen } from "../../src/core/float.ts";
import { floatsOf, golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { type Copy, copyOf, Editor, oneF32, opened } from "../support/verify/planted.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const BYTES: VerifyOptions = { verify: "bytes", threads: 1, memoryBytes: 64 * 1024 * 1024 };
const tiny = await copyOf(golden("tiny"));
const cast = { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", verify: "off" } as const;
await convert(golden("tiny"), `${work}/tensor`, cast);
await convert(golden("tiny"), `${work}/row`, { ...cast, quantScales: "row" });
const [tensors, rows] = [await copyOf(`${work}/tensor`), await copyOf(`${work}/row`)];
const UP = "backbone.layers.1.mixer.up_proj.weight";

const codeOf = (weight: number, scale: number) =>
  encode("F8_E4M3", Math.max(-448, Math.min(448, Math.fround(weight / scale))));
const decodedOf = (code: number, scale: number) => Math.fround(tableOf("F8_E4M3")[code]! * scale);
const weightsOf = (copy: Copy, name: string) => widen("BF16", copy.tensors.get(name)!.bytes);

async function judged(a: Copy, b: Copy, strict = false) {
  const report = await verifyCheckpoints(await opened(a), await opened(b), BYTES, strict);
  const { differences } = metricsWith(report, "bytes", "recast");
  return {
    verdict: report.rungs[1]!.verdict,
    messages: differences.map(({ message }) => message),
    told: report.findingDetails!.filter(({ rule }) => rule === "scale-smaller"),
  };
}

/** Codes and scale of a weight under `factor` times its scale. */
function shrunk(editor: Editor, source: Copy, name: string, factor: number): void {
  const scale = Math.fround(floatsOf(editor.get(`${name}_scale`))[0]! * factor);
  editor.put(name, { bytes: Uint8Array.from(weightsOf(source, name), (w) => codeOf(w, scale)) });
  editor.put(`${name}_scale`, { bytes: oneF32(scale) });
}

/** The factor from 1, 0.99, … 0.80 with the least squared error, as the observer `mse` of llm-compressor tries them. */
function bestFactor(weights: Float32Array, scale: number): number {
  let [best, least] = [1, Infinity];
  for (let i = 0; i <= 20; i++) {
    const tried = Math.fround(scale * (1 - i / 100));
    let error = 0;
    for (const w of weights) error += (w - decodedOf(codeOf(w, tried), tried)) ** 2;
    if (error < least) [best, least] = [1 - i / 100, error];
  }
  return best;
}

describe("one scale a tensor", () => {
  it("by least squared error is another tool's right, and told with the share of clipped elements", async () => {
    const editor = new Editor(tensors);
    const names = [...tensors.tensors.keys()].filter((name) => tensors.tensors.has(`${name}_scale`));
    const smaller = names.filter((name) => {
      const factor = bestFactor(weightsOf(tiny, name), floatsOf(editor.get(`${name}_scale`))[0]!);
      if (factor < 1) shrunk(editor, tiny, name, factor);
      return factor < 1;
    });
    expect(smaller.length).toBeGreaterThan(3);
    const { verdict, told } = await judged(tiny, editor.copy);
    expect(verdict).toBe("within");
    expect(told.map(({ at }) => at.tensor).sort()).toEqual([...smaller].sort());
    expect(told[0]!.message).toMatch(
      /times amax\/max = .*: \d+ of \d+ elements are clipped, relative L2 0\.0/,
    );
    expect((await judged(tiny, editor.copy, true)).verdict).toBe("different");
  });

  it.each([
    ["0.78 times, which no rule tries", 0.78],
    ["half", 0.5],
    ["0.997 times, between 1 and the first step of a rule", 0.997],
    ["1 - 2^-12 times", 1 - 2 ** -12],
  ])("of %s amax / max is different", async (_, factor) => {
    const editor = new Editor(tensors);
    shrunk(editor, tiny, UP, factor);
    const { verdict, messages } = await judged(tiny, editor.copy);
    expect(verdict).toBe("different");
    expect(messages).toEqual([expect.stringContaining("values are clipped")]);
  });

  it.each([0.99, 0.95, 0.9, 0.8])(
    "%f times as large beside the codes of the old one is different",
    async (factor) => {
      const editor = new Editor(tensors);
      editor.put(`${UP}_scale`, { bytes: oneF32(floatsOf(editor.get(`${UP}_scale`))[0]! * factor) });
      expect((await judged(tiny, editor.copy)).verdict).toBe("different");
    },
  );

  const sourceWith = (change: (value: number, index: number) => number) => {
    const source = new Editor(tiny);
    source.values(UP, change);
    const codes = new Editor(tensors);
    const amax = weightsOf(source.copy, UP).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    codes.put(`${UP}_scale`, { bytes: oneF32(Math.fround(amax / 448)) });
    return { source: source.copy, codes };
  };

  it("beside codes that were exact under the old one, all within the bound, is different", async () => {
    const step = 2 ** -9;
    const { source, codes } = sourceWith((value, i) =>
      i === 0 ? 448 * step : decodedOf(codeOf(value, step), step),
    );
    shrunk(codes, source, UP, 1);
    expect((await judged(source, codes.copy)).verdict).toBe("within");
    codes.put(`${UP}_scale`, { bytes: oneF32(Math.fround(0.95 * step)) });
    const { verdict, messages } = await judged(source, codes.copy);
    expect(verdict).toBe("different");
    expect(messages).toEqual([expect.stringContaining("values are clipped")]);
  });

  it("that takes a tenth from one weight which holds most of the tensor is different", async () => {
    const { source, codes } = sourceWith((value, i) => (i === 77 ? 40 : value));
    shrunk(codes, source, UP, 1);
    expect((await judged(source, codes.copy)).verdict).toBe("within");
    shrunk(codes, source, UP, 0.9);
    const { verdict, messages } = await judged(source, codes.copy);
    expect(verdict).toBe("different");
    expect(messages).toEqual([expect.stringMatching(/1 of 6144 elements are clipped/)]);
  });

  it("that clips more than one element in a hundred is different", async () => {
    const { source, codes } = sourceWith((_, i) => ((i * 7919) % 1000) / 1000);
    shrunk(codes, source, UP, 0.9);
    const { verdict, messages } = await judged(source, codes.copy);
    expect(verdict).toBe("different");
    expect(messages).toEqual([expect.stringContaining("elements are clipped")]);
  });
});

describe("one scale a row", () => {
  const columns = tiny.tensors.get(UP)!.shape[1]!;
  /** The third row under `factor` times its scale; `codes`: its codes are made anew. */
  const row = (factor: number, codes = true) => {
    const editor = new Editor(rows);
    const scales = Float32Array.from(floatsOf(editor.get(`${UP}_scale`)));
    scales[2] = scales[2]! * factor;
    editor.put(`${UP}_scale`, { bytes: new Uint8Array(scales.buffer) });
    const weights = weightsOf(tiny, UP);
    if (codes)
      editor.bytes(UP, (bytes) => {
        for (let i = 2 * columns; i < 3 * columns; i++) bytes[i] = codeOf(weights[i]!, scales[2]!);
      });
    return editor.copy;
  };

  it("0.85 times as large is another tool's right, and told", async () => {
    const { verdict, told } = await judged(tiny, row(0.85));
    expect(verdict).toBe("within");
    expect(told).toEqual([
      expect.objectContaining({ message: expect.stringContaining("elements are clipped") }),
    ]);
    expect((await judged(tiny, row(0.85), true)).verdict).toBe("different");
  });

  it("0.7 times as large, or beside the codes of the old one, is different", async () => {
    expect((await judged(tiny, row(0.7))).verdict).toBe("different");
    expect((await judged(tiny, row(0.85, false))).verdict).toBe("different");
  });
});
