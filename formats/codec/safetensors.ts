/**
 * The safetensors container: 8 bytes of length, that many bytes of JSON, then the tensors' bytes.
 *
 * Reading is as strict as the reference reader (huggingface/safetensors, `tensor.rs`), and stricter if another parser might
 * read another file: no repeated keys, no numbers written as fractions, no unknown fields.
 */
import { bytesOf, type DType, isDType, type Shape } from "../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";
import { type ByteSource, readRange } from "../../src/core/io.ts";
import { isJsonObject, type Json, parseJsonObject } from "../../src/core/json.ts";

/** The limit of the reference reader; 100 MB of JSON describe a million tensors. */
const MAX_HEADER_BYTES = 100_000_000;
/** Torch and numpy have at most 64 dimensions. */
const MAX_RANK = 64;
const LENGTH_BYTES = 8;

export interface StoredTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** bytes from the start of the file; `end` is not included */
  readonly begin: number;
  readonly end: number;
}

export interface Header {
  readonly metadata: Readonly<Record<string, string>> | null;
  /** in the order of their bytes, which fill the file from `dataOffset` to `size` */
  readonly tensors: readonly StoredTensor[];
  /** where the first tensor starts: size of the length field and the JSON, bytes */
  readonly dataOffset: number;
  /** bytes of the whole file */
  readonly size: number;
}

/**
 * Reads the header of a file, in two reads; no bytes of tensors are read.
 *
 * @param file name of the file in errors
 * @throws codes of exit status 3, each with file, tensor and offset as far as they are known
 */
export async function readHeader(source: ByteSource, file: string = source.url): Promise<Header> {
  if (source.size < LENGTH_BYTES) throw truncated(file, source.size, LENGTH_BYTES);
  const length = lengthOf(await readRange(source, 0, LENGTH_BYTES), file);
  const dataOffset = LENGTH_BYTES + length;
  if (dataOffset > source.size) throw truncated(file, source.size, dataOffset);
  const header = parseHeader(await readRange(source, 0, dataOffset), file);
  if (header.size > source.size) throw truncated(file, source.size, header.size, header.tensors);
  if (header.size < source.size) {
    throw new IsologitError(
      "TRAILING_BYTES",
      `the file has ${source.size} bytes; its tensors end at byte ${header.size}`,
      { file, offset: header.size },
    );
  }
  return header;
}

/** Like `readHeader`, from the bytes before the first tensor; the file itself need not exist. */
export function parseHeader(bytes: Uint8Array, file: string): Header {
  if (bytes.byteLength < LENGTH_BYTES) throw truncated(file, bytes.byteLength, LENGTH_BYTES);
  const dataOffset = LENGTH_BYTES + lengthOf(bytes, file);
  if (dataOffset > bytes.byteLength) throw truncated(file, bytes.byteLength, dataOffset);
  let end = dataOffset;
  while (bytes[end - 1] === 0x20) end--; // the format allows spaces after the JSON as padding
  const code = "HEADER_INVALID";
  if (bytes[LENGTH_BYTES] !== 0x7b || bytes[end - 1] !== 0x7d) {
    throw new IsologitError(code, "the header is not { … } and spaces", { file, offset: LENGTH_BYTES });
  }
  const json = parseJsonObject(bytes.subarray(LENGTH_BYTES, end), { code, file, digitsOnly: true });
  const tensors = Object.entries(json)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => tensorOf(name, entry, dataOffset, file))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  const size = checkTiling(tensors, dataOffset, file);
  return { metadata: metadataOf(json.__metadata__, file), tensors, dataOffset, size };
}

function lengthOf(bytes: Uint8Array, file: string): number {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length <= MAX_HEADER_BYTES) return Number(length);
  const message = `the header claims ${length} bytes; at most ${MAX_HEADER_BYTES} are read`;
  throw new IsologitError("LIMIT_EXCEEDED", message, { file, offset: 0 });
}

function tensorOf(name: string, entry: Json, dataOffset: number, file: string): StoredTensor {
  const at = { file, tensor: name };
  checkName(name, at);
  if (!isJsonObject(entry) || Object.keys(entry).sort().join() !== "data_offsets,dtype,shape") {
    throw new IsologitError("HEADER_INVALID", "expected dtype, shape and data_offsets, and no more", at);
  }
  const { dtype } = entry;
  if (!isDType(dtype)) throw new IsologitError("DTYPE_UNKNOWN", `dtype ${JSON.stringify(dtype)}`, at);
  const shape = integersOf(entry.shape!, "shape", at);
  if (shape.length > MAX_RANK) {
    throw new IsologitError("LIMIT_EXCEEDED", `${shape.length} dimensions; at most ${MAX_RANK} are read`, at);
  }
  const [from, to, ...more] = integersOf(entry.data_offsets!, "data_offsets", at);
  if (from === undefined || to === undefined || more.length > 0) {
    throw new IsologitError("HEADER_INVALID", "data_offsets are not two numbers", at);
  }
  const bytes = bytesOf(dtype, shape, at);
  const begin = dataOffset + from;
  const end = dataOffset + to;
  if (!Number.isSafeInteger(end)) throw new IsologitError("SIZE_UNSAFE", `it ends at byte ${end}`, at);
  if (to - from !== bytes) {
    const message = `${dtype} [${shape.join(", ")}] takes ${bytes} bytes; its data_offsets span ${to - from}`;
    throw new IsologitError("SPAN_INVALID", message, { ...at, offset: begin });
  }
  return { name, dtype, shape, begin, end };
}

function integersOf(value: Json, field: string, at: ErrorLocation): number[] {
  if (!Array.isArray(value) || !value.every((n) => typeof n === "number")) {
    throw new IsologitError("HEADER_INVALID", `${field} is not a list of whole numbers`, at);
  }
  const unsafe = value.find((n) => !Number.isSafeInteger(n));
  if (unsafe === undefined) return value;
  throw new IsologitError("SIZE_UNSAFE", `${field} holds ${unsafe}, beyond 2^53`, at);
}

function metadataOf(value: Json | undefined, file: string): Readonly<Record<string, string>> | null {
  if (value === undefined) return null;
  if (!isJsonObject(value) || !Object.values(value).every((text) => typeof text === "string")) {
    throw new IsologitError("HEADER_INVALID", "__metadata__ is not a map from text to text", { file });
  }
  if (Object.hasOwn(value, "__proto__")) {
    throw new IsologitError("NAME_INVALID", "__metadata__ has a key __proto__", { file });
  }
  return value as Record<string, string>; // every value is a string, checked above
}

/** @throws NAME_INVALID for a name that some reader would take for another */
function checkName(name: string, at: ErrorLocation): void {
  const why =
    name === ""
      ? "is empty"
      : name === "__proto__" || name === "__metadata__"
        ? "has a meaning of its own"
        : /\p{Cc}/u.test(name)
          ? "holds a control character"
          : /\p{Surrogate}/u.test(name)
            ? "holds half a surrogate pair"
            : null;
  if (why) throw new IsologitError("NAME_INVALID", `the tensor name ${JSON.stringify(name)} ${why}`, at);
}

/** Checks that tensors fill the data without holes and overlaps. @returns where they end */
function checkTiling(tensors: readonly StoredTensor[], dataOffset: number, file: string): number {
  let end = dataOffset;
  let before = "the header";
  for (const { name, begin, end: next } of tensors) {
    if (begin !== end) {
      const what = begin < end ? `overlaps ${before}` : `leaves a hole behind ${before}`;
      const message = `it starts at byte ${begin} and ${what}, which ends at byte ${end}`;
      throw new IsologitError("SPAN_INVALID", message, { file, tensor: name, offset: begin });
    }
    end = next;
    before = name;
  }
  return end;
}

function truncated(
  file: string,
  size: number,
  wanted: number,
  tensors: readonly StoredTensor[] = [],
): IsologitError {
  const cut = tensors.find((t) => t.end > size);
  const message = `the file has ${size} bytes; its header asks for ${wanted}`;
  return new IsologitError("TRUNCATED", message, { file, offset: size, ...(cut && { tensor: cut.name }) });
}

/** A tensor in a header, without its place, which follows from the order. */
type HeaderTensor = Pick<StoredTensor, "name" | "dtype" | "shape">;

/**
 * The header of a file with `tensors` in this order: 8 bytes of length, JSON, spaces up to a multiple of 8. Keys keep the
 * given order; `__metadata__` is the first.
 *
 * @throws NAME_INVALID, DUPLICATE_NAME, SIZE_UNSAFE; LIMIT_EXCEEDED above 100 MB
 */
export function encodeHeader(
  tensors: readonly HeaderTensor[],
  metadata: Readonly<Record<string, string>> | null,
): Uint8Array {
  const entries = metadata === null ? [] : [`"__metadata__":${JSON.stringify(metadata)}`];
  const names = new Set<string>();
  let begin = 0;
  for (const tensor of tensors) {
    if (names.has(tensor.name)) {
      throw new IsologitError("DUPLICATE_NAME", "two tensors have one name", { tensor: tensor.name });
    }
    names.add(tensor.name);
    entries.push(entryOf(tensor, begin));
    begin += bytesOf(tensor.dtype, tensor.shape, { tensor: tensor.name });
  }
  const json = new TextEncoder().encode(`{${entries.join()}}`);
  const length = Math.ceil(json.byteLength / 8) * 8;
  if (length > MAX_HEADER_BYTES) {
    throw new IsologitError("LIMIT_EXCEEDED", `a header of ${length} bytes; at most ${MAX_HEADER_BYTES}`);
  }
  const bytes = new Uint8Array(LENGTH_BYTES + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, LENGTH_BYTES);
  return bytes;
}

/** The bytes that a tensor at data byte `begin` adds to a header, with its comma. */
export function headerBytesOf(tensor: HeaderTensor, begin: number): number {
  return new TextEncoder().encode(entryOf(tensor, begin)).byteLength + 1;
}

function entryOf(tensor: HeaderTensor, begin: number): string {
  const { name, dtype, shape } = tensor;
  checkName(name, { tensor: name });
  const end = begin + bytesOf(dtype, shape, { tensor: name });
  return `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`;
}
