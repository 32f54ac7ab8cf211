/** `fuseScales`: q, k and v of a layer get the scale of the largest of them, and nothing else changes. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { encode, widen } from "../../src/core/float.ts";
import { errorOf } from "../support/errors.ts";
import { arraysOf, familyGolden, floatsOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const TINY = golden("tiny");
const FP8 = { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", keepEnds: 0, verify: "bytes" } as const;

async function written(name: string, fuseScales: boolean) {
  const out = join(work, name);
  const { verification } = await convert(TINY, out, { ...FP8, fuseScales });
  return { out, verdict: verification?.verdict, arrays: await arraysOf(join(out, "model.safetensors")) };
}

const source = await arraysOf(join(TINY, "model.safetensors"));
const isFused = (name: string) => /\.[qkv]_proj\.weight(_scale)?$/.test(name);
const fused = await written("fused", true);
const separate = await written("separate", false);

it("gives q, k and v of a layer the scale of the largest of them", () => {
  for (const layer of [3, 6]) {
    const names = ["q", "k", "v"].map((part) => `backbone.layers.${layer}.mixer.${part}_proj.weight`);
    const amax = names.map((name) =>
      widen("BF16", source.get(name)!.bytes).reduce((most, value) => Math.max(most, Math.abs(value)), 0),
    );
    expect(new Set(amax).size).toBeGreaterThan(1);
    const scale = Math.fround(Math.max(...amax) / 448);
    for (const name of names) {
      const { arrays } = fused;
      expect(floatsOf(arrays.get(`${name}_scale`)!)).toEqual(Float32Array.of(scale));
      const codes = widen("BF16", source.get(name)!.bytes);
      const expected = Uint8Array.from(codes, (value) => encode("F8_E4M3", Math.fround(value / scale)));
      expect(Buffer.compare(arrays.get(name)!.bytes, expected), name).toBe(0);
    }
    expect(new Set(names.map((name) => floatsOf(separate.arrays.get(`${name}_scale`)!)[0])).size).toBe(3);
  }
});

it("changes no other tensor, and the verdict stays `within`", async () => {
  expect([fused.verdict, separate.verdict]).toEqual(["within", "within"]);
  const others = [...separate.arrays].filter(([name]) => !isFused(name));
  for (const [name, array] of others) expect(fused.arrays.get(name), name).toEqual(array);
  expect((await verify(TINY, fused.out, { verify: "bytes" })).verdict).toBe("within");
});

it("is read in the plan: q, k and v for each amax and for the cast, and not once", async () => {
  const read = async (fuseScales: boolean) =>
    (await plan(TINY, join(work, "planned"), { ...FP8, fuseScales })).bytesRead;
  const bytes = [...source]
    .filter(([name]) => isFused(name))
    .reduce((sum, [, array]) => sum + array.bytes.length, 0);
  expect((await read(true)) - (await read(false))).toBe(3 * bytes);
});

it("gives gate and up of an expert one scale, and each expert its own", async () => {
  const out = join(work, "experts");
  const options = { ...FP8, recipe: "experts-only", fuseScales: true } as const;
  const { verification } = await convert(familyGolden("mixtral"), out, options);
  expect(verification!.verdict).toBe("within");
  const arrays = await arraysOf(join(out, "model.safetensors"));
  const scales = Array.from({ length: 4 }, (_, expert) =>
    ["w1", "w3", "w2"].map(
      (part) =>
        floatsOf(arrays.get(`model.layers.0.block_sparse_moe.experts.${expert}.${part}.weight_scale`)!)[0]!,
    ),
  );
  for (const [gate, up, down] of scales) {
    expect(gate).toBe(up);
    expect(down).not.toBe(up);
  }
  expect(new Set(scales.map(([gate]) => gate)).size).toBe(4);
});

it("is refused where q, k and v are not cast", async () => {
  const options = { ...FP8, recipe: "nemotron-h", fuseScales: true } as const;
  const error = await errorOf(() => plan(TINY, join(work, "refused"), options));
  expect(error).toMatchObject({ code: "USAGE", message: expect.stringContaining("`fuseScales`") });
});
