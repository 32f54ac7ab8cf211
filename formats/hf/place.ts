/**
 * Where everything of a Hugging Face folder goes. Three ways, by what is known and asked:
 *
 * - *as spelt*: the source's headers still describe every tensor, so names, headers and offsets stay its own;
 * - *as sharded*: element types changed, so headers are new, but each tensor stays in the file it was in;
 * - *anew*: files of at most `maxShardBytes`, in the manifest's order, as Transformers names them.
 */
import { bitsOf, bytesOf, sameShape } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { safePath } from "../../src/core/safe-path.ts";
import { encodeHeader, type Header, headerBytesOf, parseHeader } from "../codec/safetensors.ts";
import { folderPlan } from "../folder-placement.ts";
import type { Placement, WantedTensor, WriteRequest } from "../format.ts";
import { encodeIndex } from "./index-json.ts";

export const SINGLE = "model.safetensors";
export const INDEX = "model.safetensors.index.json";

/** 5 GB, decimal: how the published models are cut. */
const DEFAULT_SHARD_BYTES = 5e9;
/** Older releases of Transformers refuse a file without it. */
const METADATA = { format: "pt" };

/** One weight file: its header's bytes, and where each tensor starts. */
interface WeightFile {
  readonly path: string;
  readonly header: Uint8Array;
  readonly size: number;
  readonly offsets: ReadonlyMap<string, number>;
}

/** A weight file as the source had it. */
interface Spelt {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly header: Header;
}

export function placeFolder(wanted: WriteRequest): Placement {
  const spelt = wanted.options.maxShardBytes === undefined ? speltShards(wanted) : [];
  const hadIndex = wanted.sidecars.some(({ path }) => path === INDEX);
  if (spelt.length > 0 && describes(spelt, wanted.tensors)) {
    return placement(wanted, spelt.map(asSpelt), hadIndex ? "kept" : spelt.length > 1 ? "new" : "none");
  }
  const weights = spelt.length > 0 ? asSharded(wanted, spelt) : anew(wanted);
  // One file under a name that is not Transformers' own is found through an index, if it had one.
  const indexed = weights.length > 1 || (weights[0]?.path !== SINGLE && hadIndex);
  return placement(wanted, weights, indexed ? "new" : "none");
}

/**
 * The source's files, or none where most of what they hold is not among these tensors: then they are of another model, or
 * in another spelling, and do not say which file a tensor belongs to.
 */
function speltShards(wanted: WriteRequest): Spelt[] {
  const spelt = wanted.weightFiles.map(({ path, header: bytes }) => {
    const header = parseHeader(bytes, safePath(path, { file: path }));
    if (header.dataOffset === bytes.byteLength) return { path, bytes, header };
    const message = `${bytes.byteLength} bytes of header, of which it claims ${header.dataOffset}`;
    throw new IsologitError("TRAILING_BYTES", message, { file: path, offset: header.dataOffset });
  });
  const names = new Set(wanted.tensors.map(({ name }) => name));
  const held = spelt.flatMap(({ header }) => header.tensors);
  return 2 * held.filter(({ name }) => names.has(name)).length >= held.length ? spelt : [];
}

/** Do these headers hold exactly these tensors, with these types and shapes? */
function describes(spelt: readonly Spelt[], tensors: readonly WantedTensor[]): boolean {
  const left = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  for (const { header } of spelt) {
    for (const { name, dtype, shape } of header.tensors) {
      const tensor = left.get(name);
      if (tensor?.dtype !== dtype || !sameShape(tensor.shape, shape)) return false;
      left.delete(name);
    }
  }
  return left.size === 0;
}

function asSpelt({ path, bytes, header }: Spelt): WeightFile {
  const offsets = new Map(header.tensors.map(({ name, begin }) => [name, begin]));
  return { path, header: bytes, size: header.size, offsets };
}

/** Each tensor at its old place among its old neighbours; a new one (a scale) behind the one listed before it. */
function asSharded(wanted: WriteRequest, spelt: readonly Spelt[]): WeightFile[] {
  type Rank = readonly [shard: number, position: number];
  const ranks = new Map<string, Rank>();
  spelt.forEach(({ header }, s) => {
    header.tensors.forEach(({ name }, p) => {
      ranks.set(name, [s, p]);
    });
  });
  let latest: Rank = [0, -1];
  const ranked = wanted.tensors.map((tensor) => {
    latest = ranks.get(tensor.name) ?? latest;
    return { tensor, rank: latest };
  });
  ranked.sort(({ rank: a }, { rank: b }) => a[0] - b[0] || a[1] - b[1]); // stable: newcomers stay behind
  return spelt.flatMap(({ path, header }, s) => {
    const tensors = ranked.filter(({ rank }) => rank[0] === s).map(({ tensor }) => tensor);
    return tensors.length === 0 ? [] : [weightFile(path, tensors, header.metadata ?? METADATA)];
  });
}

function anew(wanted: WriteRequest): WeightFile[] {
  const groups = grouped(wanted.tensors, wanted.options.maxShardBytes ?? DEFAULT_SHARD_BYTES);
  const of = String(groups.length).padStart(5, "0");
  return groups.map((tensors, i) => {
    const path = `model-${String(i + 1).padStart(5, "0")}-of-${of}.safetensors`;
    return weightFile(groups.length === 1 ? SINGLE : path, tensors, METADATA);
  });
}

/** Runs of tensors whose file, header included, stays within `maxBytes`; a tensor beyond it has a file to itself. */
function grouped(tensors: readonly WantedTensor[], maxBytes: number): WantedTensor[][] {
  const bare = encodeHeader([], METADATA).byteLength + 8; // 8: padding
  const groups: WantedTensor[][] = [[]];
  let data = 0;
  let header = bare;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor.dtype, tensor.shape, { tensor: tensor.name });
    const entry = headerBytesOf(tensor, maxBytes); // as long as any offset in such a file can make it
    if (groups.at(-1)!.length > 0 && header + entry + data + bytes > maxBytes) {
      groups.push([]);
      data = 0;
      header = bare;
    }
    groups.at(-1)!.push(tensor);
    header += entry;
    data += bytes;
  }
  return groups;
}

function weightFile(
  path: string,
  tensors: readonly WantedTensor[],
  metadata: Readonly<Record<string, string>>,
): WeightFile {
  const ordered = aligned(tensors);
  const header = encodeHeader(ordered, metadata);
  const offsets = new Map<string, number>();
  let size = header.byteLength;
  for (const { name, dtype, shape } of ordered) {
    offsets.set(name, size);
    size += bytesOf(dtype, shape);
  }
  return { path, header, size, offsets };
}

/**
 * The order given, where it starts every tensor at a multiple of its element's width; else wider elements
 * first, as the reference writer does always. Readers that map files copy, or fail, on a misaligned tensor.
 */
function aligned(tensors: readonly WantedTensor[]): readonly WantedTensor[] {
  let begin = 0; // data starts at a multiple of 8, the widest element
  for (const { name, dtype, shape } of tensors) {
    if ((begin * 8) % bitsOf(dtype) !== 0) {
      return tensors.toSorted((a, b) => bitsOf(b.dtype) - bitsOf(a.dtype));
    }
    begin += bytesOf(dtype, shape, { tensor: name });
  }
  return tensors;
}

/** Weights, then the index if it is new, then side files; an index that is not `kept` is no side file any more. */
function placement(
  wanted: WriteRequest,
  weights: readonly WeightFile[],
  index: "kept" | "new" | "none",
): Placement {
  const plan = folderPlan();
  const starts = new Map<string, { file: string; offset: number }>();
  for (const { path, header, size, offsets } of weights) {
    plan.file(path, size);
    plan.inline(path, 0, header);
    for (const [name, offset] of offsets) starts.set(name, { file: path, offset });
  }
  for (const tensor of wanted.tensors) {
    const { file, offset } = starts.get(tensor.name)!; // each is in one file
    plan.tensor(tensor, file, offset);
  }
  if (index === "new") {
    const total = wanted.tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);
    const fileOf = new Map([...starts].map(([name, { file }]) => [name, file]));
    plan.bytes(INDEX, encodeIndex(fileOf, total));
  }
  for (const sidecar of wanted.sidecars) {
    if (sidecar.path !== INDEX || index === "kept") plan.sidecar(sidecar.path, sidecar);
  }
  return plan.placed();
}
