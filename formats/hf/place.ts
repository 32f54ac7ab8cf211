/**
 * Places the files of a Hugging Face folder, in one of three ways:
 *
 * - *same headers*: the source's headers describe every tensor, so names, headers and offsets stay the same;
 * - *same files*: element types changed, so headers are new, but each tensor stays in its file;
 * - *new files*: files of at most `maxShardBytes`, in the order of the request, with the names of Transformers.
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

/** 5 GB (decimal), as in the published models. */
const DEFAULT_SHARD_BYTES = 5e9;
/** Older releases of Transformers refuse a file without this. */
const METADATA = { format: "pt" };

/** One weight file: the bytes of its header, and where each tensor starts. */
interface WeightFile {
  readonly path: string;
  readonly header: Uint8Array;
  readonly size: number;
  readonly offsets: ReadonlyMap<string, number>;
}

/** A weight file of the source, with its header. */
interface SourceFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly header: Header;
}

export function placeFolder(wanted: WriteRequest): Placement {
  const files = wanted.options.maxShardBytes === undefined ? sourceFiles(wanted) : [];
  const hadIndex = wanted.sidecars.some(({ path }) => path === INDEX);
  if (files.length > 0 && describes(files, wanted.tensors)) {
    return placement(
      wanted,
      files.map(withSameHeader),
      hadIndex ? "kept" : files.length > 1 ? "new" : "none",
    );
  }
  const weights = files.length > 0 ? placeInSameFiles(wanted, files) : placeInNewFiles(wanted);
  // A single file with a name that Transformers does not look for needs its index.
  const indexed = weights.length > 1 || (weights[0]?.path !== SINGLE && hadIndex);
  return placement(wanted, weights, indexed ? "new" : "none");
}

/**
 * The weight files of the source. None if most of their tensors are not among the wanted tensors: then the files belong to
 * another model, or have other names, and do not tell to which file a tensor belongs.
 */
function sourceFiles(wanted: WriteRequest): SourceFile[] {
  const files = wanted.weightFiles.map(({ path, header: bytes }) => {
    const header = parseHeader(bytes, safePath(path, { file: path }));
    if (header.dataOffset === bytes.byteLength) return { path, bytes, header };
    const message = `the header has ${bytes.byteLength} bytes, but says ${header.dataOffset}`;
    throw new IsologitError("TRAILING_BYTES", message, { file: path, offset: header.dataOffset });
  });
  const names = new Set(wanted.tensors.map(({ name }) => name));
  const stored = files.flatMap(({ header }) => header.tensors);
  return 2 * stored.filter(({ name }) => names.has(name)).length >= stored.length ? files : [];
}

/** Whether these headers describe exactly these tensors, with their types and shapes. */
function describes(files: readonly SourceFile[], tensors: readonly WantedTensor[]): boolean {
  const left = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  for (const { header } of files) {
    for (const { name, dtype, shape } of header.tensors) {
      const tensor = left.get(name);
      if (tensor?.dtype !== dtype || !sameShape(tensor.shape, shape)) return false;
      left.delete(name);
    }
  }
  return left.size === 0;
}

function withSameHeader({ path, bytes, header }: SourceFile): WeightFile {
  const offsets = new Map(header.tensors.map(({ name, begin }) => [name, begin]));
  return { path, header: bytes, size: header.size, offsets };
}

/** Each tensor in its file and in its order; a new tensor (a scale) follows the tensor that is listed before it. */
function placeInSameFiles(wanted: WriteRequest, files: readonly SourceFile[]): WeightFile[] {
  type Rank = readonly [shard: number, position: number];
  const ranks = new Map<string, Rank>();
  files.forEach(({ header }, s) => {
    header.tensors.forEach(({ name }, p) => {
      ranks.set(name, [s, p]);
    });
  });
  let latest: Rank = [0, -1];
  const ranked = wanted.tensors.map((tensor) => {
    latest = ranks.get(tensor.name) ?? latest;
    return { tensor, rank: latest };
  });
  ranked.sort(({ rank: a }, { rank: b }) => a[0] - b[0] || a[1] - b[1]); // the sort is stable: new tensors stay behind
  return files.flatMap(({ path, header }, s) => {
    const tensors = ranked.filter(({ rank }) => rank[0] === s).map(({ tensor }) => tensor);
    return tensors.length === 0 ? [] : [weightFile(path, tensors, header.metadata ?? METADATA)];
  });
}

function placeInNewFiles(wanted: WriteRequest): WeightFile[] {
  const groups = groupByFile(wanted.tensors, wanted.options.maxShardBytes ?? DEFAULT_SHARD_BYTES);
  const of = String(groups.length).padStart(5, "0");
  return groups.map((tensors, i) => {
    const path = `model-${String(i + 1).padStart(5, "0")}-of-${of}.safetensors`;
    return weightFile(groups.length === 1 ? SINGLE : path, tensors, METADATA);
  });
}

/** Groups of tensors whose file, with header, has at most `maxBytes`; a larger tensor has its own file. */
function groupByFile(tensors: readonly WantedTensor[], maxBytes: number): WantedTensor[][] {
  const bare = encodeHeader([], METADATA).byteLength + 8; // 8: padding
  const groups: WantedTensor[][] = [[]];
  let data = 0;
  let header = bare;
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor.dtype, tensor.shape, { tensor: tensor.name });
    const entry = headerBytesOf(tensor, maxBytes); // the longest entry for any offset in such a file
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
  const ordered = alignTensors(tensors);
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
 * The given order if every tensor then starts at a multiple of its element width; else wider elements first, as the
 * reference writer always does. Readers that map files must copy a misaligned tensor, or fail.
 */
function alignTensors(tensors: readonly WantedTensor[]): readonly WantedTensor[] {
  let begin = 0; // data starts at a multiple of 8, the widest element
  for (const { name, dtype, shape } of tensors) {
    if ((begin * 8) % bitsOf(dtype) !== 0) {
      return tensors.toSorted((a, b) => bitsOf(b.dtype) - bitsOf(a.dtype));
    }
    begin += bytesOf(dtype, shape, { tensor: name });
  }
  return tensors;
}

/** Weights, then a new index, then side files; an index that is not `kept` is dropped from the side files. */
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
    const { file, offset } = starts.get(tensor.name)!; // each tensor is in one file
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
  return plan.placement();
}
