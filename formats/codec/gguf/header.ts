/**
 * The header of a GGUF file: keys, and the name, type, dimensions and place of each tensor. No number of the file is used
 * before it is checked, and no tensor is read.
 *
 * @see ggml's specification of GGUF: versions 2 and 3, little-endian; tensors follow each other in the order of their
 *   entries, each padded to the alignment
 */
import type { TypedValue } from "../../../src/core/checkpoint.ts";
import { blockElements, bytesOf, type DType, type Shape } from "../../../src/core/dtype.ts";
import type { ByteSource } from "../../../src/core/io.ts";
import { HeaderInput } from "./input.ts";
import { MIN_KEY_BYTES, readMetadata } from "./metadata.ts";
import { MAGIC, TENSOR_TYPES } from "./types.ts";

/** magic, version, number of tensors, number of keys */
const HEAD_BYTES = 24;
const VERSIONS: readonly number[] = [2, 3];
const ALIGNMENT = "general.alignment";
const DEFAULT_ALIGNMENT = 32;
/** Files have 32 or 64; a memory page of any system is not larger than this. */
const MAX_ALIGNMENT = 65_536;
/** ggml's limits */
const MAX_NAME_BYTES = 63;
const MAX_DIMS = 4;
/** The largest known mixtures of experts have some 2,000 tensors, because experts are stacked. */
const MAX_TENSORS = 500_000;
/** A tensor is a length, one byte of name, a number of dimensions, one dimension, a type and an offset. */
const MIN_TENSOR_BYTES = 33;

interface GgufTensor {
  readonly name: string;
  readonly dtype: DType;
  /** slowest dimension first: the file has them in the other order */
  readonly shape: Shape;
  /** bytes from the start of the file */
  readonly offset: number;
  readonly size: number;
}

export interface GgufHeader {
  readonly metadata: readonly TypedValue[];
  readonly tensors: readonly GgufTensor[];
  /** where the first tensor begins */
  readonly dataOffset: number;
  /** end of the last tensor and its padding; a file may end with the tensor */
  readonly end: number;
}

/**
 * @throws VERSION_UNSUPPORTED, LIMIT_EXCEEDED, TRUNCATED, HEADER_INVALID, NAME_INVALID, DUPLICATE_NAME, DTYPE_UNKNOWN,
 *   SIZE_UNSAFE, SPAN_INVALID, PADDING_INVALID; each with file, and tensor or key
 */
export async function readGgufHeader(source: ByteSource, file: string): Promise<GgufHeader> {
  const input = new HeaderInput(source, file);
  await input.fill(HEAD_BYTES);
  if (Buffer.from(input.take(MAGIC.length)).toString("latin1") !== MAGIC)
    throw input.fail("HEADER_INVALID", "the file does not begin with GGUF", { offset: 0 });
  refuseOtherVersions(input);
  const [tensorCount, keyCount] = [input.u64(), input.u64()];
  input.claim(tensorCount, MIN_TENSOR_BYTES, "tensors");
  input.claim(keyCount, MIN_KEY_BYTES, "keys");
  const metadata = await readMetadata(input, keyCount);
  const alignment = alignmentIn(metadata, input);
  const entries = await readEntries(input, tensorCount);
  const dataOffset = await readPadding(input, alignment);
  const { tensors, end } = placeTensors(entries, dataOffset, alignment, input);
  return { metadata, tensors, dataOffset, end: alignUp(end, alignment) };
}

function refuseOtherVersions(input: HeaderInput): void {
  const offset = input.at;
  const version = input.u32();
  if (VERSIONS.includes(version)) return;
  const isSwapped = version !== 0 && (version & 0xffff) === 0;
  const what = isSwapped
    ? "the file was written for a big-endian machine"
    : `GGUF version ${version}; this reader knows ${VERSIONS.join(" and ")}`;
  throw input.fail("VERSION_UNSUPPORTED", what, { offset });
}

function alignmentIn(metadata: readonly TypedValue[], input: HeaderInput): number {
  const entry = metadata.find(({ key }) => key === ALIGNMENT);
  if (entry === undefined) return DEFAULT_ALIGNMENT;
  const { type, value, span } = entry;
  const isPower =
    typeof value === "number" && value >= 8 && value <= MAX_ALIGNMENT && (value & (value - 1)) === 0;
  if (type === "u32" && isPower) return value;
  const message = `${ALIGNMENT} is ${String(value)} (${type}); expected a power of two from 8 to ${MAX_ALIGNMENT}, as u32`;
  throw input.fail("HEADER_INVALID", message, { offset: span.offset });
}

/** An entry of the list of tensors, whose place is not checked yet. */
interface Entry extends Omit<GgufTensor, "offset"> {
  /** bytes from the start of the data */
  readonly offset: bigint;
}

async function readEntries(input: HeaderInput, tensorCount: bigint): Promise<readonly Entry[]> {
  const count = input.claim(tensorCount, MIN_TENSOR_BYTES, "tensors");
  if (count > MAX_TENSORS)
    throw input.fail("LIMIT_EXCEEDED", `${count} tensors; at most ${MAX_TENSORS} are read`);
  const entries = new Map<string, Entry>();
  for (let i = 0; i < count; i++) {
    const offset = input.at;
    const name = await input.name(`the name of tensor ${i}`, MAX_NAME_BYTES);
    if (entries.has(name))
      throw input.fail("DUPLICATE_NAME", "two tensors have one name", { tensor: name, offset });
    entries.set(name, await readEntry(input, name));
  }
  return [...entries.values()];
}

async function readEntry(input: HeaderInput, name: string): Promise<Entry> {
  const at = { tensor: name, offset: input.at };
  if (!input.has(4)) await input.fill(4);
  const rank = input.u32();
  if (rank < 1 || rank > MAX_DIMS)
    throw input.fail("LIMIT_EXCEEDED", `${rank} dimensions; 1 to ${MAX_DIMS} are read`, at);
  const rest = 8 * rank + 12;
  if (!input.has(rest)) await input.fill(rest);
  const dims = Array.from({ length: rank }, () => input.u64());
  const type = input.u32();
  const offset = input.u64();
  const product = dims.reduce((elements, n) => elements * n, 1n);
  if (product < 1n || product > Number.MAX_SAFE_INTEGER)
    throw input.fail("SIZE_UNSAFE", `[${dims.join(", ")}] has ${product} elements; 1 to 2^53 are read`, at);
  const dtype = TENSOR_TYPES.get(type);
  if (dtype === undefined) throw input.fail("DTYPE_UNKNOWN", `tensor type ${type} is in no file of ggml`, at);
  const shape = dims.map(Number).reverse();
  const [row, block] = [shape.at(-1)!, blockElements(dtype)];
  if (row % block !== 0) {
    const message = `rows of ${row} elements are not whole blocks of ${dtype}, which have ${block}`;
    throw input.fail("HEADER_INVALID", message, at);
  }
  return { name, dtype, shape, size: bytesOf(dtype, shape, { file: input.file, ...at }), offset };
}

/** Passes over the zeros before the data. @returns where the data begin */
async function readPadding(input: HeaderInput, alignment: number): Promise<number> {
  const dataOffset = alignUp(input.at, alignment);
  const size = Math.min(dataOffset, input.size) - input.at;
  if (!input.has(size)) await input.fill(size);
  const at = input.at;
  const odd = input.take(size).findIndex((byte) => byte !== 0);
  if (odd < 0) return dataOffset;
  throw input.fail("PADDING_INVALID", "bytes between header and data are not zero", { offset: at + odd });
}

/** Gives tensors their places. They follow each other without gaps and overlaps. @returns also the end of the last one */
function placeTensors(
  entries: readonly Entry[],
  dataOffset: number,
  alignment: number,
  input: HeaderInput,
): { readonly tensors: readonly GgufTensor[]; readonly end: number } {
  let end = dataOffset;
  let before = "the header";
  const tensors = entries.map((entry): GgufTensor => {
    const { name, size } = entry;
    const begin = alignUp(end, alignment);
    const stated = BigInt(dataOffset) + entry.offset;
    if (stated !== BigInt(begin)) {
      const message = `its data begin at byte ${stated}; those of ${before} end at byte ${begin}, padding included`;
      throw input.fail("SPAN_INVALID", message, { tensor: name, offset: begin });
    }
    end = begin + size;
    if (!Number.isSafeInteger(end))
      throw input.fail("SIZE_UNSAFE", `it ends at byte ${end}`, { tensor: name });
    if (end > input.size) {
      const message = `its data end at byte ${end}; the file has ${input.size} bytes`;
      throw input.fail("TRUNCATED", message, { tensor: name, offset: input.size });
    }
    before = name;
    return { ...entry, offset: begin };
  });
  return { tensors, end };
}

const alignUp = (offset: number, alignment: number): number => Math.ceil(offset / alignment) * alignment;
