/**
 * Arrays of zarr version 2 as tensors. An array is a folder with `.zarray` and raw chunks. Megatron wrote them until early
 * 2026, with one chunk for each shard, and with the type name `bfloat16` where zarr itself writes `<V2`.
 * (zarr v2 specification: chunks are named by their index, and are full even if the array ends inside a chunk.)
 */
import type { Piece, Tensor } from "../../src/core/checkpoint.ts";
import { bytesOf, countOf, type DType, type Shape, stridesOf } from "../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError, withLocation } from "../../src/core/errors.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import { isJsonObject, type Json, parseJsonObject } from "../../src/core/json.ts";

const ARRAY = ".zarray";
/** A real `.zarray` has some 200 bytes; attributes are in another file. */
const MAX_ARRAY_BYTES = 64 * 1024;
/** Chunks of one tensor: at most one for each rank. */
const MAX_CHUNKS = 1_000_000;
const MAX_RANK = 64;
/** Descriptions read at the same time: enough to hide the latency of the Hub. */
const ARRAYS_AT_ONCE = 16;

/** Names of little-endian types in numpy. */
const DTYPES: ReadonlyMap<string, DType> = new Map<string, DType>(
  Object.entries({
    bfloat16: "BF16",
    "<V2": "BF16",
    "|V2": "BF16",
    "<f2": "F16",
    "<f4": "F32",
    "<f8": "F64",
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    "<u2": "U16",
    "<i2": "I16",
    "<u4": "U32",
    "<i4": "I32",
    "<u8": "U64",
    "<i8": "I64",
  } as const),
);

interface Description {
  readonly dtype: DType;
  readonly shape: Shape;
  readonly chunks: Shape;
  readonly separator: "." | "/";
}

/** Names of the arrays in `folder`: all with a `.zarray`, except the locks that Megatron left beside them. */
export function zarrNames(paths: readonly string[], folder: string): string[] {
  const end = `/${ARRAY}`;
  return paths
    .filter((path) => path.startsWith(folder) && path.endsWith(end))
    .map((path) => path.slice(folder.length, -end.length))
    .filter((name) => !name.endsWith(".sync"));
}

/**
 * The arrays of a folder as tensors, with one piece for each chunk. Only `.zarray` files are read; every chunk must exist with
 * its full size.
 *
 * @param folder "" or a path in the store that ends with `/`
 * @param wanted  names to read; default: all
 * @throws HEADER_INVALID, DTYPE_UNKNOWN, UNSUPPORTED, TENSOR_MISSING, TRUNCATED, TRAILING_BYTES, LIMIT_EXCEEDED, SIZE_UNSAFE
 */
export async function readZarr(
  store: Store,
  folder: string,
  wanted: (name: string) => boolean = () => true,
): Promise<Tensor[]> {
  const files = await store.list();
  const sizes = new Map(files.map(({ path, size }) => [path, size]));
  const names = zarrNames([...sizes.keys()], folder).filter(wanted);
  const tensors: Tensor[] = [];
  for (let i = 0; i < names.length; i += ARRAYS_AT_ONCE) {
    const some = names.slice(i, i + ARRAYS_AT_ONCE);
    const settled = await Promise.allSettled(some.map((name) => tensorOf(store, folder, name, sizes)));
    for (const result of settled) {
      if (result.status === "rejected") throw result.reason;
      tensors.push(result.value);
    }
  }
  return tensors;
}

async function tensorOf(
  store: Store,
  folder: string,
  name: string,
  sizes: ReadonlyMap<string, number>,
): Promise<Tensor> {
  const file = `${folder}${name}/${ARRAY}`;
  const at = { file, tensor: name };
  try {
    const json = parseJsonObject(await readSmall(store, file, MAX_ARRAY_BYTES), {
      code: "HEADER_INVALID",
      file,
    });
    const array = descriptionOf(json, at);
    return {
      name,
      dtype: array.dtype,
      shape: array.shape,
      pieces: piecesOf(array, `${folder}${name}/`, sizes, at),
    };
  } catch (error) {
    throw withLocation(error, at);
  }
}

function descriptionOf(json: Readonly<Record<string, Json>>, at: ErrorLocation): Description {
  if (json.zarr_format !== 2) {
    throw new IsologitError(
      "VERSION_UNSUPPORTED",
      `zarr format ${JSON.stringify(json.zarr_format)}; 2 is read`,
      at,
    );
  }
  if (json.order !== "C") throw unsupported("order", json.order, "the order C", at);
  if (json.filters !== undefined && json.filters !== null) {
    throw unsupported("filters", json.filters, "no filter", at);
  }
  const { compressor } = json;
  if (compressor !== undefined && compressor !== null) {
    throw unsupported(
      "compressor",
      isJsonObject(compressor) ? compressor.id : compressor,
      "no compressor",
      at,
    );
  }
  const separator = json.dimension_separator ?? ".";
  if (separator !== "." && separator !== "/") throw invalid("dimension_separator", at);
  const dtype = typeof json.dtype === "string" ? DTYPES.get(json.dtype) : undefined;
  if (dtype === undefined)
    throw new IsologitError("DTYPE_UNKNOWN", `dtype ${JSON.stringify(json.dtype)}`, at);
  const shape = sizesOf(json.shape, "shape", at);
  const chunks = sizesOf(json.chunks, "chunks", at);
  if (chunks.length !== shape.length || chunks.includes(0)) throw invalid("chunks", at);
  bytesOf(dtype, shape, at);
  return { dtype, shape, chunks, separator };
}

function piecesOf(
  { dtype, shape, chunks, separator }: Description,
  folder: string,
  sizes: ReadonlyMap<string, number>,
  at: ErrorLocation,
): Piece[] {
  const grid = shape.map((n, axis) => Math.ceil(n / chunks[axis]!));
  const count = countOf(grid, at);
  if (count > MAX_CHUNKS) {
    throw new IsologitError("LIMIT_EXCEEDED", `${count} chunks; at most ${MAX_CHUNKS} are read`, at);
  }
  const full = bytesOf(dtype, chunks, at);
  const steps = stridesOf(grid);
  return Array.from({ length: count }, (_, i) => {
    const index = grid.map((n, axis) => Math.floor(i / steps[axis]!) % n);
    const file = folder + (index.length === 0 ? "0" : index.join(separator));
    const size = sizes.get(file);
    if (size === undefined) {
      // zarr would fill a missing chunk with a value from .zarray; weights have no such chunks
      throw new IsologitError("TENSOR_MISSING", "a chunk of the array is missing", { ...at, file });
    }
    if (size !== full) {
      const code = size < full ? "TRUNCATED" : "TRAILING_BYTES";
      throw new IsologitError(code, `the chunk has ${size} bytes, expected ${full}`, { ...at, file });
    }
    const start = index.map((n, axis) => n * chunks[axis]!);
    const box = start.map((from, axis) => Math.min(chunks[axis]!, shape[axis]! - from));
    const cut = box.some((n, axis) => n !== chunks[axis]);
    return { file, offset: 0, start, shape: box, ...(cut && { strides: stridesOf(chunks) }) };
  });
}

function sizesOf(value: Json | undefined, field: string, at: ErrorLocation): Shape {
  if (!Array.isArray(value) || value.length > MAX_RANK) throw invalid(field, at);
  if (!value.every((n): n is number => typeof n === "number" && Number.isSafeInteger(n) && n >= 0)) {
    throw invalid(field, at);
  }
  return value;
}

function invalid(field: string, at: ErrorLocation): IsologitError {
  return new IsologitError("HEADER_INVALID", `${field} is not valid in zarr version 2`, at);
}

function unsupported(
  field: string,
  found: Json | undefined,
  wanted: string,
  at: ErrorLocation,
): IsologitError {
  const message = `${field} is ${JSON.stringify(found)}; only ${wanted} is read, as Megatron writes`;
  return new IsologitError("UNSUPPORTED", message, at, {
    next: "write the checkpoint again without it, or as torch_dist",
  });
}
