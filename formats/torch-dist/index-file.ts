/**
 * `.metadata` of torch.distributed.checkpoint: which entry of which file contains which box of which tensor. It is a bare
 * pickle, read as data. The additions of Megatron (`mcore_data`, `all_local_plans`: most of the file) repeat the same facts.
 */
import { countOf, type DType, type Shape } from "../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../src/core/errors.ts";
import { safePath } from "../../src/core/safe-path.ts";
import { readPickle } from "../codec/pickle/read.ts";
import { DTYPE_GLOBALS } from "../codec/pickle/torch.ts";
import {
  expectKind,
  expectRecord,
  expectShape,
  expectSize,
  expectText,
  isKind,
  type PickleRecord,
  type PickleValue,
  unexpectedValueError,
} from "../codec/pickle/value.ts";
import { refuseGaps } from "./tiles.ts";

const META = "torch.distributed.checkpoint.metadata";
const ROOTS = [`${META}.Metadata`, "megatron.core.dist_checkpointing.strategies.torch.MCoreMetadata"];

/** One torch.save archive at [offset, offset + length) of a file beside `.metadata`. */
export interface DistEntry {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

export interface DistChunk {
  readonly start: Shape;
  readonly shape: Shape;
  readonly entry: DistEntry;
}

export interface DistTensor {
  readonly key: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** boxes that fill the tensor exactly */
  readonly chunks: readonly DistChunk[];
}

interface DistIndex {
  readonly tensors: readonly DistTensor[];
  readonly objects: readonly { readonly key: string; readonly entry: DistEntry }[];
}

/**
 * @throws PICKLE_REFUSED, PICKLE_INVALID and other errors of reading a pickle; SPAN_INVALID for chunks that do not fill
 *   their tensor, TENSOR_MISSING for a tensor without an entry, PATH_UNSAFE, UNSUPPORTED for compressed entries
 */
export function parseDistIndex(bytes: Uint8Array, at: ErrorLocation): DistIndex {
  const root = expectRecord(
    readPickle(bytes, { file: at.file ?? "" }).value,
    ROOTS,
    "the root of .metadata",
    at,
  );
  const planner = root.fields.get("planner_data");
  if (planner !== null && planner !== undefined) expectKind(planner, "dict", "planner_data", at);
  const entries = entriesOf(root, at);
  const take = (key: string, start: Shape | null): DistEntry => {
    const entry = entries.get(placeKey(key, start));
    if (entry !== undefined) return entry;
    const where = start === null ? "" : ` at [${start.join(", ")}]`;
    throw new IsologitError("TENSOR_MISSING", `no entry stores it${where}`, { ...at, tensor: key });
  };
  const tensors: DistTensor[] = [];
  const objects: DistIndex["objects"][number][] = [];
  for (const [key, value] of dictOf(root, "state_dict_metadata", at)) {
    const name = expectText(key, "a key of state_dict_metadata", at);
    const record = expectRecord(
      value,
      [`${META}.TensorStorageMetadata`, `${META}.BytesStorageMetadata`],
      name,
      at,
    );
    if (record.name.endsWith(".BytesStorageMetadata")) objects.push({ key: name, entry: take(name, null) });
    else tensors.push(tensorOf(name, record, take, { ...at, tensor: name }));
  }
  return { tensors, objects };
}

function tensorOf(
  key: string,
  record: PickleRecord,
  take: (key: string, start: Shape) => DistEntry,
  at: ErrorLocation,
): DistTensor {
  const shape = expectShape(record.fields.get("size"), "its size", at);
  const count = countOf(shape, at);
  const chunks = expectKind(record.fields.get("chunks"), "list", "its chunks", at).items.map((item) => {
    const chunk = expectRecord(item, [`${META}.ChunkStorageMetadata`], "a chunk", at);
    const start = expectShape(chunk.fields.get("offsets"), "a chunk's offsets", at);
    const size = expectShape(chunk.fields.get("sizes"), "a chunk's sizes", at);
    return { start, shape: size, entry: take(key, start) };
  });
  if (count > 0 || chunks.length > 0) refuseGaps(shape, chunks, at);
  return { key, dtype: dtypeOf(record.fields.get("properties"), at), shape, chunks };
}

/** The dtype: the first item of a 5-tuple; before torch 2.1, a field with a name. */
function dtypeOf(value: PickleValue | undefined, at: ErrorLocation): DType {
  const { state, fields } = expectRecord(value, [`${META}.TensorProperties`], "its properties", at);
  const given = isKind(state, "tuple") ? state.items[0] : fields.get("dtype");
  const { name } = expectKind(given, "global", "its dtype", at);
  const dtype = DTYPE_GLOBALS.get(name);
  if (dtype === undefined) throw unexpectedValueError(given, "a dtype of torch", "its dtype", at);
  if (dtype === null) throw new IsologitError("DTYPE_UNKNOWN", `${name} cannot be converted`, at);
  return dtype;
}

/** Every entry, by its key and the start of its chunk. */
function entriesOf(root: PickleRecord, at: ErrorLocation): ReadonlyMap<string, DistEntry> {
  const entries = new Map<string, DistEntry>();
  for (const [key, value] of dictOf(root, "storage_data", at)) {
    const index = expectRecord(key, [`${META}.MetadataIndex`], "a key of storage_data", at);
    const name = expectText(index.fields.get("fqn"), "the name of an entry", at);
    const here = { ...at, tensor: name };
    const offsets = index.fields.get("offset") ?? null; // an attribute that is None may be absent
    const start = offsets === null ? null : expectShape(offsets, "an entry's offset", here);
    const info = expectRecord(
      value,
      ["torch.distributed.checkpoint.filesystem._StorageInfo"],
      "an entry's place",
      here,
    );
    const transforms = info.fields.get("transform_descriptors") ?? null;
    if (transforms !== null && !(isKind(transforms, "list") && transforms.items.length === 0)) {
      throw extensionError(transforms, here);
    }
    const entry = {
      path: safePath(expectText(info.fields.get("relative_path"), "an entry's file", here), here),
      offset: expectSize(info.fields.get("offset"), "an entry's offset in its file", here),
      length: expectSize(info.fields.get("length"), "an entry's length", here),
    };
    if (entries.has(placeKey(name, start))) {
      throw new IsologitError("DUPLICATE_NAME", "two entries store it", here);
    }
    entries.set(placeKey(name, start), entry);
  }
  return entries;
}

/** The error for entries that torch (2.7 and later) wrote through extensions, such as Zstandard. */
function extensionError(transforms: PickleValue, at: ErrorLocation): IsologitError {
  const named = isKind(transforms, "list") ? transforms.items.filter((item) => typeof item === "string") : [];
  const message = `its entry is compressed or otherwise transformed${named.length === 0 ? "" : ` (${named.join(", ")})`}`;
  return new IsologitError("UNSUPPORTED", message, at, {
    next: "write the checkpoint again without extensions, as docs/other-checkpoints.md says (compressed entries)",
  });
}

function placeKey(key: string, start: Shape | null): string {
  return JSON.stringify([key, start]);
}

function dictOf(root: PickleRecord, field: string, at: ErrorLocation) {
  return expectKind(root.fields.get(field), "dict", field, at).entries;
}
