/**
 * The index of a packed file: its tensors and files with their places. The places follow from the contents: the writer takes
 * them from `arrangeIndex`, and the reader compares them with it.
 */
import {
  bytesOf,
  type DType,
  isDType,
  isFp8,
  RECAST_KINDS,
  RECASTS,
  type Shape,
} from "../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";
import {
  type DecodedValue,
  decodeMsgpack,
  type EncodableValue,
  encodableInteger,
  encodeMsgpack,
} from "../codec/msgpack.ts";
import { CHUNK_BYTES, type WantedTensor } from "../format.ts";
import { HEAD_BYTES, type Range, sameBytes } from "./head.ts";

/** 512 experts in 60 layers, two matrices each, are 61,440 tensors; this is four times that. */
const MAX_TENSORS = 262_144;
/** Side files and weight files: a repository has dozens of side files, a model of 1 TB some 300 weight files. */
export const MAX_FILES = 16_384;
/** In known checkpoints, tensors have at most rank 4. */
export const MAX_RANK = 8;
/** Known tensor names have fewer than 120 characters, paths fewer than 260. */
const MAX_NAME_LENGTH = 1024;

/** The index has 4 levels: map, list, tensor, shape. A tensor takes some 20 values. */
const LIMITS = { depth: 4, items: MAX_TENSORS, values: 32 * MAX_TENSORS };

export const CONFIG = "config.json";

type Recast = NonNullable<WantedTensor["recast"]>;

export interface PackedTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** bytes from the start of the file */
  readonly offset: number;
  readonly size: number;
  readonly recast?: Recast;
}

/** A side file, or the header of a weight file of the source, byte for byte. */
export interface PackedFile {
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

export interface PackedIndex {
  readonly dialect: string;
  /** in execution order, which is the order in the file */
  readonly tensors: readonly PackedTensor[];
  /** config.json is the first, if it exists */
  readonly entries: readonly PackedFile[];
  readonly shards: readonly PackedFile[];
}

/** An index without places. */
export interface Contents {
  readonly dialect: string;
  readonly tensors: readonly Omit<PackedTensor, "offset">[];
  readonly entries: readonly Omit<PackedFile, "offset">[];
  readonly shards: readonly Omit<PackedFile, "offset">[];
}

/**
 * Gives each item its place: side files, then headers of weight files, without gaps from `start`; then each tensor at the
 * next multiple of `alignment`.
 */
export function arrangeIndex(contents: Contents, start: number, alignment: number): PackedIndex {
  let end = start;
  const put = <T extends { readonly size: number }>(item: T, step: number): T & { offset: number } => {
    const offset = Math.ceil(end / step) * step;
    end = offset + item.size;
    return { ...item, offset };
  };
  const entries = contents.entries.map((file) => put(file, 1));
  const shards = contents.shards.map((file) => put(file, 1));
  const tensors = contents.tensors.map((tensor) => put(tensor, alignment));
  return { dialect: contents.dialect, tensors, entries, shards };
}

/** Where the last item of the index ends. */
export function endOf(index: PackedIndex, start: number): number {
  const last = index.tensors.at(-1) ?? index.shards.at(-1) ?? index.entries.at(-1);
  return last === undefined ? start : last.offset + last.size;
}

/** Size of config.json, which is read on opening; 0 if there is none. */
export function configBytes(contents: Contents): number {
  const first = contents.entries[0];
  return first?.path === CONFIG ? first.size : 0;
}

/** The canonical bytes: keys in this order, numbers in their shortest form. */
export function encodeIndex(index: PackedIndex): Uint8Array {
  const placed = ({ offset, size }: Range) => ({
    offset: encodableInteger(offset),
    size: encodableInteger(size),
  });
  const file = (item: PackedFile): EncodableValue => ({ path: item.path, ...placed(item) });
  return encodeMsgpack({
    dialect: index.dialect,
    chunkBytes: CHUNK_BYTES,
    tensors: index.tensors.map((item): EncodableValue => {
      const { name, dtype, shape, recast } = item;
      const tensor = { name, dtype, shape: shape.map(encodableInteger), ...placed(item) };
      if (recast === undefined) return tensor;
      const { kind, sourceDtype, scales } = recast;
      return { ...tensor, recast: { kind, sourceDtype, ...(scales !== undefined && { scales }) } };
    }),
    entries: index.entries.map(file),
    shards: index.shards.map(file),
  });
}

/**
 * The index. All rules are checked except those on places.
 *
 * @throws HEADER_INVALID, LIMIT_EXCEEDED, NAME_INVALID, PATH_UNSAFE, DUPLICATE_NAME, DTYPE_UNKNOWN, SIZE_UNSAFE,
 *   SPAN_INVALID (a size that is not the shape's), VERSION_UNSUPPORTED (another chunk size)
 */
export function parseIndex(bytes: Uint8Array, file: string): PackedIndex {
  const at = { file, offset: HEAD_BYTES };
  const { dialect, chunkBytes, tensors, entries, shards } = mapOf(
    decodeMsgpack(bytes, LIMITS, at),
    ["dialect", "chunkBytes", "tensors", "entries", "shards"],
    "the index",
    at,
  );
  if (chunkBytes !== CHUNK_BYTES) {
    const message = `checksums of every ${chunkBytes} bytes; this reader knows ${CHUNK_BYTES}`;
    throw new IsologitError("VERSION_UNSUPPORTED", message, at);
  }
  const names = new Set<string>();
  const paths = new Set<string>();
  const index: PackedIndex = {
    dialect: nameOf(dialect, "the dialect", at),
    tensors: listOf(tensors, MAX_TENSORS, "tensors", at).map((t, i) => tensorOf(t, i, names, file)),
    entries: listOf(entries, MAX_FILES, "entries", at).map((e, i) => fileOf(e, `entries[${i}]`, paths, at)),
    shards: listOf(shards, MAX_FILES, "shards", at).map((s, i) => fileOf(s, `shards[${i}]`, paths, at)),
  };
  refuseAbsentScales(index.tensors, names, file);
  if (paths.has(CONFIG) && index.entries[0]?.path !== CONFIG) {
    throw new IsologitError("HEADER_INVALID", "config.json is not the first entry", at);
  }
  // Another order of keys, repeated keys or long forms of short numbers would give two files for one index.
  if (!sameBytes(bytes, encodeIndex(index))) {
    throw new IsologitError("HEADER_INVALID", "the index is not in canonical form", at);
  }
  return index;
}

/**
 * Checks that each place is that of `arrangeIndex`: no overlap, no gap except padding, nothing after the end.
 *
 * @throws SPAN_INVALID
 */
export function checkPlaces(
  index: PackedIndex,
  start: number,
  alignment: number,
  dataEnd: number,
  file: string,
): void {
  const right = arrangeIndex(index, start, alignment);
  const compare = (what: string, found: Range, expected: number, where: ErrorLocation) => {
    const end = found.offset + found.size;
    if (found.offset === expected && end <= dataEnd) return;
    const why =
      end > dataEnd
        ? `ends at byte ${end}, past the data's end at ${dataEnd}`
        : found.offset < expected
          ? `begins at byte ${found.offset} and overlaps the item that ends before ${expected}`
          : `begins at byte ${found.offset}, expected ${expected}`;
    throw new IsologitError("SPAN_INVALID", `${what} ${why}`, { ...where, offset: found.offset });
  };
  index.entries.forEach((entry, i) => {
    compare(entry.path, entry, right.entries[i]!.offset, { file });
  });
  index.shards.forEach((shard, i) => {
    compare(`the header of ${shard.path}`, shard, right.shards[i]!.offset, { file });
  });
  index.tensors.forEach((tensor, i) => {
    compare(tensor.name, tensor, right.tensors[i]!.offset, { file, tensor: tensor.name });
  });
  const end = endOf(index, start);
  if (end !== dataEnd) {
    const message = `the last tensor ends at byte ${end}, the head says the data ends at ${dataEnd}`;
    throw new IsologitError("SPAN_INVALID", message, { file, offset: end });
  }
}

function tensorOf(value: DecodedValue, i: number, names: Set<string>, file: string): PackedTensor {
  const where = `tensors[${i}]`;
  const at = { file, offset: HEAD_BYTES };
  const keys = ["name", "dtype", "shape", "offset", "size"] as const;
  const fields = mapOf(value, keys, where, at, "recast");
  const name = nameOf(fields.name, where, at);
  const here = { ...at, tensor: name };
  if (names.has(name)) throw new IsologitError("DUPLICATE_NAME", `${name} is in the index twice`, here);
  names.add(name);
  const dtype = dtypeOf(fields.dtype, here);
  const shape = listOf(fields.shape, MAX_RANK, `the shape of ${name}`, here).map((n) =>
    sizeOf(n, where, here),
  );
  const [offset, size] = [sizeOf(fields.offset, where, here), sizeOf(fields.size, where, here)];
  const needs = bytesOf(dtype, shape, here);
  if (size !== needs) {
    const message = `${size} bytes for ${dtype} [${shape.join(", ")}], which takes ${needs}`;
    throw new IsologitError("SPAN_INVALID", message, { ...here, offset });
  }
  const tensor = { name, dtype, shape, offset, size };
  if (fields.recast === undefined) return tensor;
  const recast = mapOf(fields.recast, ["kind", "sourceDtype"], `${where}.recast`, here, "scales");
  const kind = RECAST_KINDS.find((known) => known === recast.kind);
  if (kind === undefined) throw new IsologitError("HEADER_INVALID", `a recast of kind ${recast.kind}`, here);
  const sourceDtype = dtypeOf(recast.sourceDtype, here);
  if (recast.scales === undefined) return { ...tensor, recast: { kind, sourceDtype } };
  if (!isFp8(RECASTS[kind].dtype))
    throw new IsologitError("HEADER_INVALID", `a recast of kind ${kind} has scales`, here);
  return { ...tensor, recast: { kind, sourceDtype, scales: nameOf(recast.scales, where, here) } };
}

/** @throws HEADER_INVALID if the tensor that holds the scales of a recast is not in the index */
function refuseAbsentScales(
  tensors: readonly PackedTensor[],
  names: ReadonlySet<string>,
  file: string,
): void {
  const without = tensors.find(({ recast }) => recast?.scales !== undefined && !names.has(recast.scales));
  if (without === undefined) return;
  const { name, recast } = without;
  const at = { file, offset: HEAD_BYTES, tensor: name };
  throw new IsologitError("HEADER_INVALID", `its scales ${recast!.scales} are not in the index`, at);
}

function fileOf(value: DecodedValue, where: string, paths: Set<string>, at: ErrorLocation): PackedFile {
  const fields = mapOf(value, ["path", "offset", "size"], where, at);
  const path = safeSidePath(nameOf(fields.path, where, at), at);
  if (paths.has(path)) throw new IsologitError("DUPLICATE_NAME", `${path} is in the index twice`, at);
  paths.add(path);
  return { path, offset: sizeOf(fields.offset, where, at), size: sizeOf(fields.size, where, at) };
}

/** @throws NAME_INVALID for a name that is empty, longer than MAX_NAME_LENGTH, or has control characters or half a surrogate pair */
export function checkName(name: string, at: ErrorLocation): string {
  if (name !== "" && name.length <= MAX_NAME_LENGTH && !/[\p{Cc}\p{Cs}]/u.test(name)) return name;
  const message = `${JSON.stringify(name.slice(0, 80))} (${name.length} characters) is not a valid name`;
  throw new IsologitError("NAME_INVALID", message, at);
}

/** A path that stays inside the folder into which it is unpacked, on every system. @throws PATH_UNSAFE */
function safeSidePath(path: string, at: ErrorLocation): string {
  const inside = path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
  if (inside && !/[\\:]/.test(path)) return path;
  throw new IsologitError("PATH_UNSAFE", `the path ${JSON.stringify(path)} may lead outside`, at);
}

function nameOf(value: DecodedValue | undefined, where: string, at: ErrorLocation): string {
  if (typeof value === "string") return checkName(value, at);
  throw new IsologitError("HEADER_INVALID", `${where}: expected text, found ${kindOf(value)}`, at);
}

function sizeOf(value: DecodedValue | undefined, where: string, at: ErrorLocation): number {
  if (typeof value === "number") return value; // the scan of the bytes accepts only safe sizes
  throw new IsologitError("HEADER_INVALID", `${where}: expected a size, found ${kindOf(value)}`, at);
}

function dtypeOf(value: DecodedValue | undefined, at: ErrorLocation): DType {
  if (isDType(value)) return value;
  throw new IsologitError("DTYPE_UNKNOWN", `element type ${JSON.stringify(value)}`, at);
}

function listOf(
  value: DecodedValue | undefined,
  most: number,
  what: string,
  at: ErrorLocation,
): readonly DecodedValue[] {
  if (!Array.isArray(value)) {
    throw new IsologitError("HEADER_INVALID", `${what}: expected a list, found ${kindOf(value)}`, at);
  }
  if (value.length <= most) return value;
  throw new IsologitError("LIMIT_EXCEEDED", `${what}: ${value.length} items, expected at most ${most}`, at);
}

/** The values of a map with exactly these keys, and perhaps `optional`. */
function mapOf<K extends string>(
  value: DecodedValue,
  keys: readonly K[],
  where: string,
  at: ErrorLocation,
  optional?: "recast" | "scales",
): Readonly<Record<K, DecodedValue>> & { readonly recast?: DecodedValue; readonly scales?: DecodedValue } {
  if (typeof value !== "object" || Array.isArray(value)) {
    throw new IsologitError("HEADER_INVALID", `${where}: expected a map, found ${kindOf(value)}`, at);
  }
  const found = Object.keys(value);
  const strange = found.find((key) => key !== optional && !keys.some((k) => k === key));
  if (strange !== undefined) {
    throw new IsologitError("HEADER_INVALID", `${where} has the unknown key ${JSON.stringify(strange)}`, at);
  }
  const missing = keys.find((key) => !Object.hasOwn(value, key));
  if (missing !== undefined) {
    throw new IsologitError("HEADER_INVALID", `${where} has no ${missing}`, at);
  }
  return value as Readonly<Record<K, DecodedValue>>; // exactly these keys, checked above
}

function kindOf(value: DecodedValue | undefined): string {
  if (value === undefined) return "nothing";
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "a map" : `a ${typeof value}`;
}
