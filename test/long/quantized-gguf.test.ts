/**
 * GGUF files that llama.cpp quantised: their logits are those of llama.cpp on the widened weights, their verification tells the
 * loss, and faults in them are found at their layer.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { logits } from "../../src/api/logits.ts";
import { verify } from "../../src/api/verify.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import type { Tensor } from "../../src/core/checkpoint.ts";
import { Distance } from "../../src/core/distance.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { codeOf } from "../support/errors.ts";
import { arraysOf, floatsOf, ggufGolden, golden, idsOf, workFolder } from "../support/goldens.ts";
import { testAdapter } from "../support/kernels/software-gpu.ts";
import { metricsWith } from "../support/rungs.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const work = workFolder();
const recorded = await arraysOf(ggufGolden("logits.safetensors"));
beforeAll(testAdapter);

describe("logits are those of llama.cpp on the same weights widened to F32", () => {
  it.each([
    ["tiny-q8_0", "tiny", "wasm"],
    ["tiny-q4_k_m", "tiny", "wasm"],
    ["moe-q8_0", "moe", "wasm"],
    ["k-q2_k", "k", "wasm"],
    ["k-q4_k_m", "k", "wasm"],
    ["tiny-q4_k_m", "tiny", "webgpu"],
    ["k-q2_k", "k", "webgpu"],
    ["k-q4_k_m", "k", "webgpu"],
  ] as const)("%s (%s) on %s", async (name, model, backend) => {
    const out = join(work, `${name}-${backend}.safetensors`);
    const ids = idsOf(recorded.get(`input_ids.${model}`)!);
    await logits(ggufGolden(`${name}.gguf`), { out, ids, backend });
    const got = floatsOf((await arraysOf(out)).get("logits")!);
    const wanted = floatsOf(recorded.get(`logits_f32.${name}`)!);
    expect(got.length).toBe(wanted.length);
    expect(new Distance().add(wanted, got).relL2).toBeLessThanOrEqual(2e-6); // 8.5e-7 was measured
  });
});

describe("a quantised file is within its source, and the loss is told", () => {
  it.each([
    ["tiny", "tiny-q8_0", 0.0052, 0.002],
    ["tiny", "tiny-q4_k_m", 0.0392, 0.11],
    ["moe", "moe-q8_0", 0.0052, 0.002],
  ])("%s: %s", async (source, name, error, kl) => {
    const report = await verify(golden(source), ggufGolden(`${name}.gguf`), { tokens: 17 });
    expect(report).toMatchObject({ verdict: "within", firstDivergence: null });
    const bytes = metricsWith(report, "bytes", "recast");
    expect(bytes.recast).toBeGreaterThan(50);
    expect(bytes.error!.relL2).toBeCloseTo(error, 3);
    const { klMean, controls } = metricsWith(report, "logits", "controls");
    expect(klMean).toBeGreaterThan(kl / 3);
    expect(klMean).toBeLessThan(kl * 3);
    expect(controls.length).toBeGreaterThan(20);
    expect(controls.filter(({ caught }) => caught === false)).toEqual([]);
  });

  it("a limit of the user is judged", async () => {
    const options = { tokens: 17, kl: 0.01 };
    const report = await verify(golden("tiny"), ggufGolden("tiny-q4_k_m.gguf"), options);
    expect(report.verdict).toBe("different");
  });
});

describe("quantised weights become floats on request only", () => {
  it("bf16 is a recast of the widened values", async () => {
    const out = join(work, "bf16");
    const options = { to: "hf", dtype: "bf16", tokens: 9 } as const;
    const { verification } = await convert(ggufGolden("k-q4_k_m.gguf"), out, options);
    expect(verification).toMatchObject({ verdict: "within" });
    expect(metricsWith(verification!, "bytes", "recast").error!.relL2).toBeCloseTo(0.0017, 3);
  });

  it("each type of a fused tensor is widened, and columns are cut for ranks", async () => {
    const out = join(work, "ranks"); // q and k are Q4_K, v is Q6_K; heads of 64 columns lie inside blocks of 256
    const options = { to: "megatron", dtype: "f32", tp: 2, tokens: 9 } as const;
    const { verification } = await convert(ggufGolden("k-q4_k_m.gguf"), out, options);
    const { error } = metricsWith(verification!, "bytes", "recast");
    expect([verification!.verdict, error!.relL2]).toEqual(["within", 0]);
  });

  it("f32 keeps every value", async () => {
    const out = join(work, "f32");
    const { verification } = await convert(ggufGolden("k-q2_k.gguf"), out, {
      to: "hf",
      dtype: "f32",
      tokens: 9,
    });
    const { error } = metricsWith(verification!, "bytes", "recast");
    expect([verification!.verdict, error!.relL2]).toEqual(["within", 0]);
    expect(metricsWith(verification!, "logits", "controls").maxAbs).toBe(0);
  });

  it("without a dtype the error names the option", async () => {
    const keep = convert(ggufGolden("k-q4_k_m.gguf"), join(work, "keep"), { to: "hf", verify: "off" });
    await expect(keep).rejects.toMatchObject({
      code: "PLAN_IMPOSSIBLE",
      message: expect.stringContaining("Q4_K"),
      next: expect.stringContaining("`dtype`"),
    });
  });
});

it("a fresh conversion is held to the bytes of the encoder, a file of another tool to the bound of a rounding", async () => {
  const out = join(work, "q4_k_m.gguf");
  const { verification } = await convert(ggufGolden("k-bf16.gguf"), out, { dtype: "q4_k_m", tokens: 9 });
  expect(verification).toMatchObject({ verdict: "within" });
  const source = await openCheckpoint(ggufGolden("k-bf16.gguf"));
  const written = await openCheckpoint(out);
  const { pieces } = written.tensors.find(({ name }) => name === "blk.1.ffn_up.weight")!;
  const file = readFileSync(out);
  file[pieces[0]!.offset + 5 * 144 + 20]! ^= 1; // the lowest bit of a code in the sixth block
  writeFileSync(out, file);
  const verdictOf = async (isFresh: boolean) =>
    (await verifyCheckpoints(source, await openCheckpoint(out), { tokens: 9 }, isFresh)).verdict;
  expect([await verdictOf(true), await verdictOf(false)]).toEqual(["different", "within"]);
});

it("keeps the blocks from GGUF to GGUF, bit for bit", async () => {
  const out = join(work, "kept.gguf");
  const { verification } = await convert(ggufGolden("k-q2_k.gguf"), out, { tokens: 9 });
  expect(verification).toMatchObject({ verdict: "same" });
});

/** A copy of a file of llama.cpp with changed bytes. */
async function changed(
  name: string,
  tensor: string,
  change: (bytes: Buffer, tensor: Tensor) => void,
): Promise<string> {
  const { tensors } = await openCheckpoint(ggufGolden(name));
  const found = tensors.find((one) => one.name === tensor)!;
  const file = readFileSync(ggufGolden(name));
  const { offset } = found.pieces[0]!;
  change(file.subarray(offset, offset + bytesOf(found.dtype, found.shape)), found);
  const path = join(work, `changed-${tensor}.gguf`);
  writeFileSync(path, file);
  return path;
}

/** Exchanges bytes [a, a + size) and [b, b + size). */
function exchange(bytes: Buffer, a: number, b: number, size: number): void {
  const kept = Buffer.from(bytes.subarray(a, a + size));
  bytes.copyWithin(a, b, b + size);
  kept.copy(bytes, b);
}

describe("a fault in a quantised file is different, at its layer", () => {
  const firstHalf = (bytes: Buffer) => exchange(bytes, 0, bytes.byteLength / 2, bytes.byteLength / 2);
  const faults: Record<
    string,
    readonly [source: string, name: string, tensor: string, (bytes: Buffer, tensor: Tensor) => void]
  > = {
    "experts exchanged": [
      ...(["moe", "moe-q8_0.gguf", "blk.1.ffn_up_exps.weight"] as const),
      (bytes, { shape }) => exchange(bytes, 0, bytes.byteLength / shape[0]!, bytes.byteLength / shape[0]!),
    ],
    "groups of the norm exchanged": ["tiny", "tiny-q4_k_m.gguf", "blk.0.ssm_norm.weight", firstHalf],
    "taps of the convolution reversed": [
      ...(["tiny", "tiny-q4_k_m.gguf", "blk.2.ssm_conv1d.weight"] as const),
      (bytes) => {
        for (let at = 0; at < bytes.byteLength; at += 16) {
          exchange(bytes, at, at + 12, 4);
          exchange(bytes, at + 4, at + 8, 4);
        }
      },
    ],
    "biases of two heads exchanged": [
      ...(["tiny", "tiny-q4_k_m.gguf", "blk.0.ssm_dt.bias"] as const),
      (bytes) => exchange(bytes, 0, 4, 4),
    ],
    "z and x exchanged": [
      ...(["tiny", "tiny-q4_k_m.gguf", "blk.0.ssm_in.weight"] as const),
      (bytes, { shape }) => {
        const row = bytes.byteLength / shape[0]!;
        exchange(bytes, 0, 128 * row, 128 * row);
      },
    ],
    "rows of q not in pairs": [
      ...(["tiny", "tiny-q4_k_m.gguf", "blk.3.attn_q.weight"] as const),
      (bytes, { shape }) =>
        exchange(
          bytes,
          bytes.byteLength / shape[0]!,
          2 * (bytes.byteLength / shape[0]!),
          bytes.byteLength / shape[0]!,
        ),
    ],
    "the scale of a block doubled": [
      ...(["tiny", "tiny-q8_0.gguf", "blk.1.ffn_down.weight"] as const),
      (bytes) => bytes.writeUInt16LE(bytes.readUInt16LE(340) + 0x400, 340), // the exponent of the eleventh block
    ],
    "nibbles of a block exchanged": [
      ...(["tiny", "tiny-q4_k_m.gguf", "blk.0.ssm_out.weight"] as const),
      (bytes) => {
        for (let i = 6; i < 22; i++) bytes[i] = ((bytes[i]! & 15) << 4) | (bytes[i]! >> 4);
      },
    ],
  };

  it.each(Object.entries(faults))("%s", async (_, [source, name, tensor, change]) => {
    const report = await verify(golden(source), await changed(name, tensor, change), { tokens: 17 });
    expect(report.verdict).toBe("different");
    expect(report.firstDivergence).toMatchObject({ layer: Number(/\d+/.exec(tensor)![0]) });
  });

  it("a scale that is no number is damage", async () => {
    const nan = await changed("tiny-q8_0.gguf", "blk.1.ffn_up.weight", (bytes) =>
      bytes.writeUInt16LE(0x7e00, 34),
    );
    expect(await codeOf(() => verify(golden("tiny"), nan, { tokens: 17 }))).toBe("NON_FINITE");
    const out = join(work, "nan");
    const options = { to: "hf", dtype: "bf16", verify: "off" } as const;
    expect(await codeOf(() => convert(nan, out, options))).toBe("NON_FINITE");
  });
});
