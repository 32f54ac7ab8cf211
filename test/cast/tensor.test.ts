import { beforeAll, describe, expect, it } from "vitest";
import { fp8Code } from "../../src/cast/table.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { bitsOfF32, encode, f32OfBits, widen } from "../../src/core/float.ts";
import { arenaOf, golden, seeded, u16, u32 } from "../support/cast/arena.ts";
import { type Arena, recastTensor } from "../support/cast/tensor.ts";

let arena: Arena;
beforeAll(async () => {
  arena = await arenaOf(64 * 1024);
});

const bf16 = (values: Iterable<number>) =>
  new Uint8Array(Uint16Array.from(values, (value) => encode("BF16", Math.fround(value))).buffer);

/** The error that `run` throws. */
function refusal(run: () => unknown): IsologitError {
  try {
    run();
  } catch (error) {
    if (error instanceof IsologitError) return error;
    throw error;
  }
  return expect.fail("nothing was refused");
}

describe("per-tensor FP8 is what torch makes of the rule, code for code and scale bit for scale bit", () => {
  const files = [
    ["fp8-hf/src/model.safetensors", "fp8-hf/expected/model.safetensors"],
    ["fp8-hf/edge/src.safetensors", "fp8-hf/edge/expected.safetensors"],
  ] as const;
  const tensors = files.flatMap(([source, expected]) =>
    [...golden(source)].map(([name, tensor]) => ({ name, tensor, expected: golden(expected) })),
  );

  it.each(tensors)("$name", ({ name, tensor, expected }) => {
    const want = expected.get(name)!;
    const wantScale = u32(expected.get(`${name}_scale`)!.bytes)[0]!;
    const found = recastTensor(arena, { name, ...tensor }, "F8_E4M3");
    expect(bitsOfF32(found.scale!).toString(16)).toBe(wantScale.toString(16));
    expect(Buffer.compare(found.bytes, want.bytes)).toBe(0);
  });

  it("at any band size", () => {
    const [name, tensor] = [...golden(files[0][0])][0]!;
    const whole = recastTensor(arena, { name, ...tensor }, "F8_E4M3");
    for (const size of [3, 100, 1000]) {
      expect(recastTensor({ ...arena, size }, { name, ...tensor }, "F8_E4M3")).toEqual(whole);
    }
  });

  it("would not be met by the three near-misses it names, so equality means something", () => {
    const weights = golden(files[0][0]);
    const expected = golden(files[0][1]);
    const misses = [...weights].map(([name, { bytes }]) => {
      const want = expected.get(name)!.bytes;
      const scale = f32OfBits(u32(expected.get(`${name}_scale`)!.bytes)[0]!);
      const toBf16 = (value: number) => f32OfBits(encode("BF16", Math.fround(value)) << 16);
      const wrong = (code: (bits: number) => number) =>
        u16(bytes).reduce((n, bits, i) => n + Number(code((bits << 16) >>> 0) !== want[i]), 0);
      return [
        wrong((bits) => fp8Code("F8_E4M3", bitsOfF32(toBf16(f32OfBits(bits) / toBf16(scale))), 1)),
        wrong((bits) => fp8Code("F8_E4M3", bitsOfF32(toBf16(f32OfBits(bits) / scale)), 1)),
        wrong((bits) => fp8Code("F8_E4M3", bitsOfF32(f32OfBits(bits) * Math.fround(1 / scale)), 1)),
        wrong((bits) => fp8Code("F8_E4M3", bits, scale)),
      ];
    });
    const [down, up] = misses; // the counts of the goldens' README; a BF16 scale makes a BF16 quotient
    expect({ up, down }).toEqual({ up: [391, 438, 61, 0], down: [337, 423, 0, 0] });
  });
});

describe("what has no honest code is refused by tensor and flat index", () => {
  const damaged = golden("fp8-hf/edge/must_refuse.safetensors");

  it.each([...damaged])("%s", (name, tensor) => {
    for (const to of ["F8_E4M3", "F8_E5M2"] as const) {
      const error = refusal(() => recastTensor(arena, { name, ...tensor }, to));
      expect(error).toMatchObject({ code: "NON_FINITE", exit: 3, at: { tensor: name, index: 1 } });
    }
  });

  it("counts the index over bands", () => {
    const values = new Float32Array(500).fill(1);
    values[321] = NaN;
    const tensor = { name: "w", dtype: "BF16", bytes: bf16(values) } as const;
    const error = refusal(() => recastTensor({ ...arena, size: 64 }, tensor, "F8_E4M3"));
    expect(error.at).toEqual({ tensor: "w", index: 321 });
  });

  it("F16 that a value overflows, unless infinities are allowed", () => {
    const tensor = { name: "w", dtype: "BF16", bytes: bf16([1, 2, -7e4]) } as const;
    const error = refusal(() => recastTensor({ ...arena, size: 8 }, tensor, "F16"));
    expect(error).toMatchObject({ code: "OVERFLOW", exit: 3, at: { tensor: "w", index: 2 } });
    const allowed = recastTensor(arena, tensor, "F16", { allowOverflow: true });
    expect([...widen("F16", allowed.bytes)]).toEqual([1, 2, -Infinity]);
  });
});

describe("there and back", () => {
  it("BF16 to FP8 to BF16 to FP8 gives the same codes and scale, when the scale came from a BF16 amax", () => {
    for (let seed = 0; seed < 40; seed++) {
      const random = seeded(seed);
      const size = 2 ** (random() * 40 - 30);
      const bytes = bf16(Float32Array.from({ length: 4000 }, () => (random() - 0.5) * random() ** 6 * size));
      for (const fp8 of ["F8_E4M3", "F8_E5M2"] as const) {
        const once = recastTensor(arena, { name: "w", dtype: "BF16", bytes }, fp8);
        const back = recastTensor(arena, { name: "w", dtype: fp8, ...once, scale: once.scale! }, "BF16");
        const twice = recastTensor(arena, { name: "w", dtype: "BF16", bytes: back.bytes }, fp8);
        expect(twice, `seed ${seed}`).toEqual(once);
      }
    }
  });

  it("BF16 and F16 widen to F32 and narrow back to the same bits", () => {
    const bytes = new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
    for (const dtype of ["BF16", "F16"] as const) {
      const wide = recastTensor({ ...arena, size: 7777 }, { name: "w", dtype, bytes }, "F32");
      const back = recastTensor(arena, { name: "w", dtype: "F32", bytes: wide.bytes }, dtype);
      const quiet = dtype === "BF16" ? 0x40 : 0x200; // a signalling NaN comes back quiet
      u16(back.bytes).forEach((code, i) => {
        if (code !== i && code !== (i | quiet)) expect.fail(`${dtype} ${i} came back as ${code}`);
      });
    }
  });

  it("an FP8 tensor becomes the other FP8 type through its values, with a scale of its own", () => {
    const random = seeded(1);
    const bytes = bf16(Float32Array.from({ length: 1000 }, () => random() - 0.5));
    const e4m3 = recastTensor(arena, { name: "w", dtype: "BF16", bytes }, "F8_E4M3");
    const e5m2 = recastTensor(arena, { name: "w", dtype: "F8_E4M3", ...e4m3, scale: e4m3.scale! }, "F8_E5M2");
    expect(e5m2.amax).toBe(Math.fround(448 * e4m3.scale!));
    expect(e5m2.scale).toBe(Math.fround(e5m2.amax! / 57344));
    e4m3.bytes.forEach((code, i) => {
      const value = bitsOfF32(widen("F8_E4M3", Uint8Array.of(code))[0]! * e4m3.scale!);
      expect(e5m2.bytes[i]).toBe(fp8Code("F8_E5M2", value, e5m2.scale!));
    });
  });
});
