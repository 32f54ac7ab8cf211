/**
 * Tensors of all layers as one. Megatron's models of equal layers write each module once, with the layers along a first axis:
 * `decoder.layers.mlp.linear_fc2.weight` [layers, …]. Everything outside this folder sees a tensor for each layer.
 *
 * @see megatron/core/transformer/transformer_block.py, `sharded_state_dict`
 */
import type { Piece, Tensor } from "../../src/core/checkpoint.ts";
import { stridesOf, widthOf } from "../../src/core/dtype.ts";

const LAYERS = "decoder.layers.";
/** A key without the number of a layer, with any prefix before it. */
const STACKED = /^((?:.*\.)?decoder\.layers\.)(?!\d+\.)(.+)$/;
const OF_LAYER = /^decoder\.layers\.(\d+)\.(.+)$/;

/** A longer first axis is not one of layers: published models have up to 126. */
const MAX_LAYERS = 4096;

/** The tensors of each layer in place of those of all layers. */
export function unstackLayers(tensors: readonly Tensor[]): readonly Tensor[] {
  return tensors.flatMap((tensor) => {
    const { name, shape } = tensor;
    const [, before, module] = STACKED.exec(name) ?? [];
    const [layers, ...rest] = shape;
    if (module === undefined || rest.length === 0 || layers! > MAX_LAYERS) return [tensor];
    const pieces = Array.from({ length: layers! }, (): Piece[] => []);
    for (const piece of tensor.pieces)
      for (const [layer, part] of partsOf(piece, widthOf(tensor.dtype))) pieces[layer]!.push(part);
    return pieces.map((own, layer) => ({
      ...tensor,
      name: `${before}${layer}.${module}`,
      shape: rest,
      pieces: own,
    }));
  });
}

/** The parts of a piece that belong to one layer each. */
function partsOf({ start, shape, strides, ...place }: Piece, width: number): (readonly [number, Piece])[] {
  const [first, ...restStart] = start;
  const [layers, ...restShape] = shape;
  const [step, ...restStrides] = strides ?? stridesOf(shape);
  return Array.from({ length: layers! }, (_, i) => {
    const part = { ...place, offset: place.offset + i * step! * width, start: restStart, shape: restShape };
    return [first! + i, strides === undefined ? part : { ...part, strides: restStrides }] as const;
  });
}

/** Where the tensor of a layer is in the tensor of all layers. */
export interface StackedPlace {
  readonly key: string;
  readonly layer: number;
}

/** @returns null for a tensor outside the layers */
export function stackedPlace(name: string): StackedPlace | null {
  const [, layer, module] = OF_LAYER.exec(name) ?? [];
  return module === undefined ? null : { key: LAYERS + module, layer: Number(layer) };
}
