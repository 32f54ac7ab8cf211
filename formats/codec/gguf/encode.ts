/** Encodes the header of a GGUF file, version 3: keys with typed values, then name, dimensions, type and place of each tensor. */
import { bytesOf, type DType, type Shape } from "../../../src/core/dtype.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import { MAGIC, TENSOR_TYPES, VALUE_TYPES } from "./types.ts";

const VERSION = 3;
/** The default of the format; a file with another alignment says so. */
const ALIGNMENT = 32;

type ScalarType = Exclude<(typeof VALUE_TYPES)[number]["name"], "array">;
type Scalar = number | bigint | boolean | string;

/** A key and its value. `type` is that of a scalar, or that of the elements of a list with `[]`. */
export interface WrittenKey {
  readonly key: string;
  readonly type: ScalarType | `${ScalarType}[]`;
  /** numbers of a list may be bytes that are encoded already */
  readonly value: Scalar | readonly Scalar[] | Uint8Array;
}

/** A header, and where the parts of the file lie in bytes from its start. */
interface EncodedHeader {
  readonly bytes: Uint8Array;
  /** where each tensor starts, in the order of the tensors */
  readonly offsets: readonly number[];
  /** end of the last tensor, with its padding */
  readonly size: number;
  /** by key: where the value starts, without its type and length */
  readonly valueAt: ReadonlyMap<string, number>;
}

/** @throws PLAN_IMPOSSIBLE for a type of tensor that no GGUF holds, or a name of 64 bytes and more */
export function encodeGgufHeader(
  keys: readonly WrittenKey[],
  tensors: readonly { readonly name: string; readonly dtype: DType; readonly shape: Shape }[],
): EncodedHeader {
  const output = new HeaderOutput();
  output.bytes(Buffer.from(MAGIC, "latin1"));
  output.u32(VERSION);
  output.u64(tensors.length);
  output.u64(keys.length);
  const valueAt = new Map<string, number>();
  for (const { key, type, value } of keys) {
    output.text(key);
    valueAt.set(key, writeValue(output, type, value));
  }
  const relative = placesOf(tensors);
  for (const [i, { name, dtype, shape }] of tensors.entries()) {
    if (Buffer.byteLength(name) > 63)
      throw new IsologitError("PLAN_IMPOSSIBLE", "a name has at most 63 bytes in GGUF", { tensor: name });
    output.text(name);
    output.u32(shape.length);
    for (const size of shape.toReversed()) output.u64(size);
    output.u32(numberOfType(dtype, name));
    output.u64(relative.offsets[i]!);
  }
  const dataOffset = align(output.length);
  output.bytes(new Uint8Array(dataOffset - output.length));
  return {
    bytes: output.whole(),
    offsets: relative.offsets.map((offset) => dataOffset + offset),
    size: dataOffset + relative.end,
    valueAt,
  };
}

/** @returns where the value starts */
function writeValue(output: HeaderOutput, type: WrittenKey["type"], value: WrittenKey["value"]): number {
  const element = type.replace("[]", "") as ScalarType; // a type is that of a scalar with or without brackets
  if (!type.endsWith("[]")) {
    output.u32(valueNumber(element));
    const at = output.length + (element === "string" ? 8 : 0);
    output.scalar(element, value as Scalar);
    return at;
  }
  output.u32(valueNumber("array"));
  output.u32(valueNumber(element));
  if (value instanceof Uint8Array) {
    const { bytes } = VALUE_TYPES[valueNumber(element)]!;
    output.u64(value.byteLength / bytes);
    output.bytes(value);
    return output.length - value.byteLength;
  }
  const list = value as readonly Scalar[];
  output.u64(list.length);
  const at = output.length;
  for (const item of list) output.scalar(element, item);
  return at;
}

const valueNumber = (name: string): number => VALUE_TYPES.findIndex((type) => type.name === name);

function numberOfType(dtype: DType, tensor: string): number {
  for (const [number, name] of TENSOR_TYPES) if (name === dtype) return number;
  throw new IsologitError("PLAN_IMPOSSIBLE", `GGUF has no type ${dtype}`, { tensor });
}

/** Tensors follow each other, each padded to the alignment. Offsets count from the start of the data. */
function placesOf(
  tensors: readonly { readonly name: string; readonly dtype: DType; readonly shape: Shape }[],
) {
  let end = 0;
  const offsets = tensors.map(({ name, dtype, shape }) => {
    const offset = end;
    end = align(end + bytesOf(dtype, shape, { tensor: name }));
    return offset;
  });
  return { offsets, end };
}

const align = (offset: number): number => Math.ceil(offset / ALIGNMENT) * ALIGNMENT;

/** A growing buffer: a header with a vocabulary has several megabytes. */
class HeaderOutput {
  #buffer = Buffer.alloc(64 * 1024);
  length = 0;

  #grow(count: number): Buffer {
    if (this.length + count > this.#buffer.byteLength) {
      const larger = Buffer.alloc(2 * Math.max(this.#buffer.byteLength, this.length + count));
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    return this.#buffer;
  }

  bytes(bytes: Uint8Array): void {
    this.#grow(bytes.byteLength).set(bytes, this.length);
    this.length += bytes.byteLength;
  }

  u32(value: number): void {
    this.length = this.#grow(4).writeUInt32LE(value, this.length);
  }

  u64(value: number | bigint): void {
    this.length = this.#grow(8).writeBigUInt64LE(BigInt(value), this.length);
  }

  text(text: string): void {
    const bytes = Buffer.from(text, "utf8");
    this.u64(bytes.byteLength);
    this.bytes(bytes);
  }

  scalar(kind: ScalarType, value: Scalar): void {
    if (kind === "string") {
      this.text(String(value));
      return;
    }
    const buffer = this.#grow(8);
    const at = this.length;
    switch (kind) {
      case "u8":
      case "bool":
        this.length = buffer.writeUInt8(Number(value), at);
        return;
      case "i8":
        this.length = buffer.writeInt8(Number(value), at);
        return;
      case "u16":
        this.length = buffer.writeUInt16LE(Number(value), at);
        return;
      case "i16":
        this.length = buffer.writeInt16LE(Number(value), at);
        return;
      case "u32":
        this.length = buffer.writeUInt32LE(Number(value), at);
        return;
      case "i32":
        this.length = buffer.writeInt32LE(Number(value), at);
        return;
      case "f32":
        this.length = buffer.writeFloatLE(Number(value), at);
        return;
      case "f64":
        this.length = buffer.writeDoubleLE(Number(value), at);
        return;
      case "u64":
        this.length = buffer.writeBigUInt64LE(BigInt(value), at);
        return;
      case "i64":
        this.length = buffer.writeBigInt64LE(BigInt(value), at);
        return;
      default: {
        kind satisfies never;
      }
    }
  }

  whole(): Uint8Array {
    return new Uint8Array(this.#buffer.buffer, this.#buffer.byteOffset, this.length);
  }
}
