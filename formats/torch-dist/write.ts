/**
 * Places a folder of torch.distributed.checkpoint, with only what its loaders need: plain torch without Megatron, and Megatron
 * core from 0.13. Each tensor is one box in one entry, so that it loads with any number of ranks. Where the layers are stacked,
 * the box of each layer is a chunk of the tensor of all layers.
 */
import { bytesOf, type Shape } from "../../src/core/dtype.ts";
import { joinCrc32 } from "../codec/crc32-join.ts";
import { type WrittenValue, writePickle } from "../codec/pickle/write.ts";
import { type Archive, archiveOf } from "../codec/torch-zip/write.ts";
import type { FolderPlan } from "../folder-placement.ts";
import { CHUNK_BYTES, type TensorDigests, type WantedTensor, type WriteRequest } from "../format.ts";
import type { DistEntry } from "./index-file.ts";
import { pickledTensor, torchDtype } from "./pickles.ts";
import { type StackedPlace, stackedPlace } from "./stacks.ts";

const META = "torch.distributed.checkpoint.metadata";
/** Loaders read files in parallel; the largest tensors of models are smaller. */
const DEFAULT_FILE_BYTES = 5e9;
/** Value of an empty entry, which loaders require but do not read. */
const EMPTY: WrittenValue = { list: [null] };

/** Adds `.metadata`, data files and `metadata.json` to a placement, with the spans that `sealsOf` fills. */
export function placeDist(plan: FolderPlan, folder: string, prefix: string, wanted: WriteRequest): void {
  const maxBytes = wanted.options.maxShardBytes ?? DEFAULT_FILE_BYTES;
  const stored: Stored[] = [];
  const empty = archiveOf({ root: "archive", pickle: writePickle(EMPTY), storages: [] });
  let file = { path: "__0_0.distcp", size: 0 };
  let files = 1;
  const take = (size: number): DistEntry => {
    if (file.size > 0 && file.size + size > maxBytes) {
      plan.file(folder + file.path, file.size);
      file = { path: `__0_${files++}.distcp`, size: 0 };
    }
    const entry = { path: file.path, offset: file.size, length: size };
    file.size += size;
    return entry;
  };
  for (const name of wanted.objects) {
    const entry = take(empty.size);
    plan.inline(folder + entry.path, entry.offset, empty.gaps[0]!.bytes);
    stored.push({ key: prefix + name, entry });
  }
  const layers = new Map<string, number>();
  for (const tensor of wanted.tensors) {
    const place = wanted.stackLayers === true ? stackedPlace(tensor.name) : null;
    const box = boxOf(tensor, place);
    const archive = entryOf(box);
    const entry = take(archive.size);
    const path = folder + entry.path;
    const [front, tail] = archive.gaps;
    plan.inline(path, entry.offset, front!.bytes);
    plan.tensor(tensor, path, entry.offset + archive.storages[0]!);
    plan.seal({ file: path, offset: entry.offset + tail!.offset, size: tail!.bytes.byteLength });
    if (place === null) stored.push({ key: prefix + tensor.name, entry, box });
    else {
      const key = prefix + place.key;
      layers.set(key, Math.max(layers.get(key) ?? 0, place.layer + 1));
      stored.push({ key, entry, box, layer: place.layer });
    }
  }
  plan.file(folder + file.path, file.size);
  plan.bytes(`${folder}.metadata`, writePickle(metadataOf(stored, layers)));
  plan.bytes(`${folder}metadata.json`, Buffer.from(JSON.stringify(BACKEND)));
}

/** The file that Megatron core reads first in a folder. */
const BACKEND = {
  sharded_backend: "torch_dist",
  sharded_backend_version: 1,
  common_backend: "torch",
  common_backend_version: 1,
};

/** The bytes of the spans that `placeDist` added as seals, in their order: those after each tensor. */
export function sealsOf(wanted: WriteRequest, sealed: ReadonlyMap<string, TensorDigests>): Uint8Array[] {
  return wanted.tensors.map((tensor) => {
    const { crc32 } = sealed.get(tensor.name)!; // every tensor is written before the seals
    const box = boxOf(tensor, wanted.stackLayers === true ? stackedPlace(tensor.name) : null);
    return entryOf(box, joinCrc32(crc32, bytesOf(tensor.dtype, tensor.shape), CHUNK_BYTES)).gaps[1]!.bytes;
  });
}

/** A tensor as an entry holds it: a layer of a stack has a first axis of one layer. */
type Box = Pick<WantedTensor, "name" | "dtype" | "shape">;

function boxOf({ name, dtype, shape }: WantedTensor, place: StackedPlace | null): Box {
  return { name, dtype, shape: place === null ? shape : [1, ...shape] };
}

/** The archive of one box: gap 0, its elements, gap 1. */
function entryOf({ name, dtype, shape }: Box, crc?: number): Archive {
  const pickle = writePickle(pickledTensor(dtype, shape, 0));
  const storages = [bytesOf(dtype, shape, { tensor: name })];
  return archiveOf({ root: "archive", pickle, storages }, crc === undefined ? undefined : [crc]);
}

interface Stored {
  readonly key: string;
  readonly entry: DistEntry;
  /** absent for an empty entry */
  readonly box?: Box;
  /** the layer of the box in a tensor of all layers */
  readonly layer?: number;
}

/** `.metadata` with classes of torch only, and with fields that every version since 2.0 knows. */
function metadataOf(stored: readonly Stored[], layers: ReadonlyMap<string, number>): WrittenValue {
  const chunks = new Map<string, Stored[]>();
  for (const one of stored) {
    const known = chunks.get(one.key);
    if (known === undefined) chunks.set(one.key, [one]);
    else known.push(one);
  }
  const keys = [...chunks];
  return object(`${META}.Metadata`, [
    [
      "state_dict_metadata",
      { dict: keys.map(([key, parts]) => [key, described(parts, layers.get(key))] as const) },
    ],
    ["planner_data", null],
    [
      "storage_data",
      {
        dict: keys.flatMap(([, parts]) => parts.map((part, i) => [indexOf(part, i), placeOf(part)] as const)),
      },
    ],
    ["storage_meta", null],
    ["version", "1.0.0"],
  ]);
}

/** @param layers layers of a stack; absent for a tensor of one box */
function described(parts: readonly Stored[], layers: number | undefined): WrittenValue {
  const box = parts[0]!.box;
  if (box === undefined) return object(`${META}.BytesStorageMetadata`);
  const properties: WrittenValue = {
    newobj: { global: `${META}.TensorProperties` },
    args: [],
    state: {
      tuple: [
        torchDtype(box.dtype),
        { reduce: { global: "torch.serialization._get_layout" }, args: ["torch.strided"] },
        false, // requires_grad
        { reduce: { global: `${META}._MEM_FORMAT_ENCODING` }, args: [0] }, // contiguous
        false, // pin_memory
      ],
    },
  };
  const chunks = parts.map((part) =>
    object(`${META}.ChunkStorageMetadata`, [
      ["offsets", sizes(originOf(part))],
      ["sizes", sizes(part.box!.shape)],
    ]),
  );
  return object(`${META}.TensorStorageMetadata`, [
    ["properties", properties],
    ["size", sizes(layers === undefined ? box.shape : box.shape.with(0, layers))],
    ["chunks", { list: chunks }],
  ]);
}

function indexOf(part: Stored, index: number): WrittenValue {
  const hasBox = part.box !== undefined;
  return object(`${META}.MetadataIndex`, [
    ["fqn", part.key],
    ["index", hasBox ? index : null],
    ...(hasBox ? [["offset", sizes(originOf(part))] as const] : []),
  ]);
}

/** Where the box is in its tensor. */
function originOf({ box, layer = 0 }: Stored): Shape {
  return box!.shape.map((_, axis) => (axis === 0 ? layer : 0));
}

function placeOf({ entry: { path, offset, length } }: Stored): WrittenValue {
  return object("torch.distributed.checkpoint.filesystem._StorageInfo", [
    ["relative_path", path],
    ["offset", offset],
    ["length", length],
  ]);
}

function sizes(shape: Shape): WrittenValue {
  return { reduce: { global: "torch.Size" }, args: [{ tuple: shape }] };
}

function object(name: string, fields: readonly (readonly [string, WrittenValue])[] = []): WrittenValue {
  const made = { newobj: { global: name }, args: [] };
  return fields.length === 0 ? made : { ...made, state: { dict: fields } };
}
