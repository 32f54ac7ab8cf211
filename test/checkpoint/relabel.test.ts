import { describe, expect, it } from "vitest";
import { relabelFnuz } from "../../src/checkpoint/scales/relabel.ts";
import type { Checkpoint, Tensor } from "../../src/core/checkpoint.ts";
import { bytesOf, type DType, type Fnuz, OCP_TYPES, type Shape } from "../../src/core/dtype.ts";
import { encode, tableOf, widen } from "../../src/core/float.ts";
import { extentsOf, Sources } from "../../src/core/read.ts";
import { memoryStore } from "../support/memory-store.ts";

const UP = "backbone.layers.1.mixer.up_proj.weight";
const BESIDE = "backbone.layers.1.mixer.up_proj.input_scale";

interface Stored {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly bytes: Uint8Array;
}

/** A checkpoint of tensors, each in its own file. */
function checkpointOf(tensors: Readonly<Record<string, Stored>>): Checkpoint {
  const files = new Map(Object.entries(tensors).map(([name, { bytes }]) => [name, bytes]));
  return {
    ...{ format: "hf", dialect: "hf", config: {}, objects: [], sidecars: [], weightFiles: [], recasts: [] },
    tensors: Object.entries(tensors).map(([name, { dtype, shape }]): Tensor => {
      const pieces = [{ file: name, offset: 0, start: shape.map(() => 0), shape }];
      return { name, dtype, shape, pieces };
    }),
    store: memoryStore("memory", files),
  };
}

const f32 = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);

async function read(checkpoint: Checkpoint, name: string, lo = 0, hi?: number) {
  const tensor = checkpoint.tensors.find((candidate) => candidate.name === name)!;
  const end = hi ?? tensor.shape.reduce((a, b) => a * b, 1);
  const bytes = new Uint8Array(bytesOf(tensor.dtype, [end - lo]));
  await using sources = new Sources(checkpoint.store);
  await sources.read(extentsOf(tensor, lo, end), bytes);
  return { dtype: tensor.dtype, bytes };
}

describe.each(["F8_E4M3FNUZ", "F8_E5M2FNUZ"] as const satisfies readonly Fnuz[])("%s", (dtype) => {
  const scale = Math.fround(0.00123);
  const ocp = OCP_TYPES[dtype];
  const of = (codes: readonly number[]) => ({
    [UP]: { dtype, shape: [1, codes.length], bytes: Uint8Array.from(codes) },
    [`${UP}_scale`]: { dtype: "F32" as const, shape: [1], bytes: f32(scale) },
  });

  it("each code keeps its value, or is refused by tensor and index", async () => {
    let refused = 0;
    for (let code = 0; code < 256; code++) {
      const relabelled = relabelFnuz(checkpointOf(of([1, 2, code])));
      const value = Math.fround(tableOf(dtype)[code]! * scale);
      const codes = await read(relabelled, UP).catch((error: unknown) => error);
      if (codes instanceof Error) {
        refused++;
        expect(codes).toMatchObject({
          code: code === 0x80 ? "NON_FINITE" : "OVERFLOW",
          at: { tensor: UP, index: 2 },
        });
        expect(Number.isFinite(tableOf(ocp)[code]!) && code !== 0x80).toBe(false);
        continue;
      }
      const stored = codes as Awaited<ReturnType<typeof read>>;
      const [half] = widen("F32", (await read(relabelled, `${UP}_scale`)).bytes);
      expect(stored.dtype).toBe(ocp);
      expect(Object.is(Math.fround(tableOf(ocp)[stored.bytes[2]!]! * half!), value), `${code}`).toBe(true);
    }
    expect(refused).toBe(dtype === "F8_E4M3FNUZ" ? 3 : 9);
  });

  it("a code in a later band is refused by its index in the tensor", async () => {
    const relabelled = relabelFnuz(checkpointOf(of([0x7f, 1, 2, 3, 0xff, 5])));
    expect((await read(relabelled, UP, 1, 4)).bytes).toEqual(Uint8Array.of(1, 2, 3));
    await expect(read(relabelled, UP, 2, 6)).rejects.toMatchObject({ at: { tensor: UP, index: 4 } });
  });
});

const codes: Stored = { dtype: "F8_E4M3FNUZ", shape: [2, 2], bytes: Uint8Array.of(1, 2, 3, 4) };
const bf16 = (...values: number[]) =>
  new Uint8Array(Uint16Array.from(values, (value) => encode("BF16", value)).buffer);

it.each([
  ["F32", f32(0.5, 3e-39), f32(0.25, 1.5e-39)],
  ["BF16", bf16(0.5, 2 ** -120), bf16(0.25, 2 ** -121)],
  ["U8", Uint8Array.of(120, 1), Uint8Array.of(119, 0)],
] as const)(
  "scales of %s are halved in their own type, those of activations stay",
  async (dtype, bytes, half) => {
    const beside = f32(0.75);
    const relabelled = relabelFnuz(
      checkpointOf({
        [UP]: codes,
        [`${UP}_scale`]: { dtype, shape: [2, 1], bytes },
        [BESIDE]: { dtype: "F32", shape: [1], bytes: beside },
      }),
    );
    expect(await read(relabelled, `${UP}_scale`)).toEqual({ dtype, bytes: half });
    expect((await read(relabelled, BESIDE)).bytes).toEqual(beside);
  },
);

it.each([
  ["F32", f32(1, 3 * 2 ** -149)],
  ["U8", Uint8Array.of(120, 0)],
] as const)("a scale of %s whose half its type cannot hold is refused", async (dtype, bytes) => {
  const relabelled = relabelFnuz(
    checkpointOf({ [UP]: codes, [`${UP}_scale`]: { dtype, shape: [2, 1], bytes } }),
  );
  await expect(read(relabelled, `${UP}_scale`)).rejects.toMatchObject({
    code: "SCALE_INVALID",
    at: { tensor: `${UP}_scale`, index: 1 },
  });
});

it("a checkpoint without such weights stays as it is", () => {
  const checkpoint = checkpointOf({ a: { dtype: "BF16", shape: [1], bytes: bf16(1) } });
  expect(relabelFnuz(checkpoint)).toBe(checkpoint);
});
