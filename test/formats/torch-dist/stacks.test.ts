import { describe, expect, it } from "vitest";
import { stackedPlace, unstackLayers } from "../../../formats/torch-dist/stacks.ts";
import type { Piece, Tensor } from "../../../src/core/checkpoint.ts";

const KEY = "module.decoder.layers.mlp.linear_fc2.weight";
const stack = (shape: readonly number[], pieces: readonly Piece[], name = KEY): Tensor => ({
  ...{ name, dtype: "BF16", shape, pieces },
});
const piece = (offset: number, start: readonly number[], shape: readonly number[]): Piece => ({
  ...{ file: "__0_0.distcp", offset, start, shape },
});

describe("a tensor of all layers", () => {
  it("is a tensor for each layer, with the bytes of that layer", () => {
    // layers 0 and 1 in one piece, the two halves of layer 2's rows in two
    const pieces = [
      piece(100, [0, 0, 0], [2, 4, 3]),
      piece(900, [2, 0, 0], [1, 2, 3]),
      piece(700, [2, 2, 0], [1, 2, 3]),
    ];
    const layers = unstackLayers([stack([3, 4, 3], pieces)]);
    expect(layers.map(({ name, shape }) => [name, shape])).toEqual(
      [0, 1, 2].map((layer) => [`module.decoder.layers.${layer}.mlp.linear_fc2.weight`, [4, 3]]),
    );
    expect(layers.map((layer) => layer.pieces)).toEqual([
      [piece(100, [0, 0], [4, 3])],
      [piece(100 + 4 * 3 * 2, [0, 0], [4, 3])],
      [piece(900, [0, 0], [2, 3]), piece(700, [2, 0], [2, 3])],
    ]);
  });

  it("keeps the strides of a piece that is not contiguous", () => {
    const strided = { ...piece(0, [0, 0, 0], [2, 4, 3]), strides: [60, 5, 1] };
    const [, second] = unstackLayers([stack([2, 4, 3], [strided])]);
    expect(second!.pieces).toEqual([{ ...piece(120, [0, 0], [4, 3]), strides: [5, 1] }]);
  });

  it.each([
    ["a tensor of one layer", "decoder.layers.3.mlp.linear_fc2.weight", [4, 3]],
    ["a tensor outside the layers", "embedding.word_embeddings.weight", [4, 3]],
    ["more layers than a model has", KEY, [4097, 3]],
    ["no axis but one", KEY, [4]],
  ])("%s stays as it is", (_, name, shape) => {
    const tensor = stack(
      shape,
      [
        piece(
          0,
          shape.map(() => 0),
          shape,
        ),
      ],
      name,
    );
    expect(unstackLayers([tensor])).toEqual([tensor]);
  });

  it("is written under the key of all layers", () => {
    expect(stackedPlace("decoder.layers.12.mlp.linear_fc1.weight")).toEqual({
      ...{ key: "decoder.layers.mlp.linear_fc1.weight", layer: 12 },
    });
    expect(stackedPlace("decoder.final_layernorm.weight")).toBeNull();
  });
});
