/**
 * Weights of four-bit codes. Safetensors has such a type (F4), but compressed-tensors and ModelOpt store two codes in each
 * byte of a U8 tensor. Here such a tensor becomes what it means: F4, with the shape and the name of the weight.
 */
import { type Checkpoint, type Piece, type Tensor, tensorKey } from "../../core/checkpoint.ts";

/** Name of packed codes in compressed-tensors; ModelOpt's codes have the name of the weight. */
const PACKED = "_packed";

/** The checkpoint with its weights of four-bit codes as F4 tensors; `stored` then holds the spelling of the file. */
export function unpackCodes(checkpoint: Checkpoint): Checkpoint {
  const names = new Set(checkpoint.tensors.map(({ name }) => name));
  const unpacked = new Map<string, Tensor>();
  for (const tensor of checkpoint.tensors) {
    const name = tensor.name.endsWith(PACKED) ? tensor.name.slice(0, -PACKED.length) : tensor.name;
    const hasSecond = names.has(`${name}_scale_2`) || names.has(`${name}_global_scale`);
    const isWhole = tensor.pieces.every(({ strides }) => strides === undefined);
    if (tensor.dtype === "U8" && isWhole && hasSecond && names.has(`${name}_scale`))
      unpacked.set(tensorKey(tensor), codesOf(tensor, name));
  }
  if (unpacked.size === 0) return checkpoint;
  const seals = checkpoint.seals?.map((seal) => {
    const codes = seal.tensor === undefined ? undefined : unpacked.get(seal.tensor);
    return codes === undefined ? seal : { ...seal, tensor: tensorKey(codes) };
  });
  return {
    ...checkpoint,
    tensors: checkpoint.tensors.map((tensor) => unpacked.get(tensorKey(tensor)) ?? tensor),
    ...(seals !== undefined && { seals }),
  };
}

function codesOf({ name: storedName, dtype, shape, ...tensor }: Tensor, name: string): Tensor {
  const pieces = tensor.pieces.map(
    (piece): Piece => ({ ...piece, start: doubleLast(piece.start), shape: doubleLast(piece.shape) }),
  );
  return {
    ...tensor,
    name,
    dtype: "F4",
    shape: doubleLast(shape),
    pieces,
    stored: { name: storedName, dtype, shape },
  };
}

function doubleLast(shape: readonly number[]): readonly number[] {
  return shape.map((n, axis) => (axis === shape.length - 1 ? 2 * n : n));
}
