/** Reads the headers of a model in GGUF. */
import type { Checkpoint, Remark, Span, Tensor, TypedValue } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { formatBytes } from "../../src/core/figures.ts";
import { widen } from "../../src/core/float.ts";
import type { ByteSource, Store } from "../../src/core/io.ts";
import { endsWithTrailer, trailerOf } from "../codec/certificate-trailer.ts";
import { type GgufHeader, readGgufHeader } from "../codec/gguf/header.ts";
import type { ReadOptions } from "../format.ts";
import { isTokenizerFile } from "../tokenizer-files.ts";
import { ggufNamed, partsAmong } from "./files.ts";
import { carriedIn } from "./origin-keys.ts";
import { widenedIn } from "./source-types.ts";

/** llama.cpp's limit. It ends with a failed assertion beyond it. */
const MAX_LAYERS = 512;

/** The file with the settings of a generation, which is used with the tokenizer. */
const GENERATION = "generation_config.json";

type Part = GgufHeader & {
  readonly file: string;
  /** bytes after the last tensor, without a certificate */
  readonly trailingBytes: number;
};

/** @throws codes of exit status 3 */
export async function readGguf(store: Store, { makeFiles = false }: ReadOptions = {}): Promise<Checkpoint> {
  const files = await store.list();
  const named = ggufNamed(files.map(({ path }) => path));
  if (named.length === 0)
    throw new IsologitError("FORMAT_UNKNOWN", "there is no GGUF file here", { file: store.url });
  const paths = partsAmong(named);
  const parts: Part[] = [];
  for (const file of paths) {
    await using source = await store.open(file);
    const header = await readGgufHeader(source, file);
    const hasTrailer =
      source.size > header.end && (await certificateAfter(source, header, file)) !== undefined;
    const trailingBytes = hasTrailer ? 0 : Math.max(0, source.size - header.end);
    parts.push({ file, ...header, trailingBytes });
  }
  refuseOtherParts(parts);
  refuseLayers(parts[0]!);
  const remarks = parts.flatMap(trailingRemark);
  const { metadata } = parts[0]!;
  const tensors = tensorsOf(parts);
  const constants = await constantsAmong(tensors, store);
  const carried = carriedIn(metadata, store);
  const widened = widenedIn(metadata, tensors);
  const beside = files.filter(({ path }) => !paths.includes(path));
  const made = makeFiles && carried === undefined ? await madeFiles(metadata, beside, store) : undefined;
  return {
    format: "gguf",
    dialect: "gguf",
    config: Object.fromEntries(
      metadata.flatMap(({ key, value }) => (value === undefined ? [] : [[key, value] as const])),
    ),
    metadata,
    tensors,
    ...(widened !== undefined && { widened }),
    ...(constants.size > 0 && { constants }),
    objects: [],
    sidecars: [
      ...(carried?.files.sidecars.filter(({ path }) => isTokenizerFile(path) || path === GENERATION) ?? []),
      ...(made?.sidecars ?? []),
      ...beside.map(({ path, size }) => ({ path, span: { file: path, offset: 0, size } })),
    ],
    ...(carried !== undefined && { carriedFiles: carried.files }),
    weightFiles: [],
    recasts: [],
    ...(remarks.length > 0 && { remarks }),
    store: made?.store ?? carried?.store ?? store,
  };
}

/** Factors of rotary frequencies: llama.cpp reads them from tensors, and has no keys for the settings that they follow from. */
const FACTORS = "rope_freqs.weight";

/** More pairs than any head has. */
const MAX_FACTORS = 4096;

/** @throws HEADER_INVALID for factors that are no list of F32, which llama.cpp does not read */
async function constantsAmong(
  tensors: readonly Tensor[],
  store: Store,
): Promise<ReadonlyMap<string, Float32Array>> {
  const found = tensors.find(({ name }) => name === FACTORS);
  if (found === undefined) return new Map();
  const { dtype, shape, pieces } = found;
  const [{ file, offset }] = pieces as [Tensor["pieces"][number]];
  if (dtype !== "F32" || shape.length !== 1 || shape[0]! > MAX_FACTORS) {
    const message = `it is ${dtype} [${shape.join(", ")}]; expected a list of at most ${MAX_FACTORS} F32 numbers`;
    throw new IsologitError("HEADER_INVALID", message, { file, tensor: FACTORS });
  }
  const bytes = new Uint8Array(4 * shape[0]!);
  await using source = await store.open(file);
  await source.readInto(bytes, offset);
  return new Map([[FACTORS, widen("F32", bytes)]]);
}

/** Span of the certificate after the last tensor of a model in one file; undefined without one. */
export async function certificateSpan(store: Store): Promise<Span | undefined> {
  const [only, ...more] = ggufNamed((await store.list()).map(({ path }) => path));
  if (only === undefined || more.length > 0) return undefined;
  await using source = await store.open(only);
  return await certificateAfter(source, await readGgufHeader(source, only), only);
}

async function certificateAfter(
  source: ByteSource,
  { end }: GgufHeader,
  file: string,
): Promise<Span | undefined> {
  return (await endsWithTrailer(source)) ? await trailerOf(source, end, file) : undefined;
}

/** Begins the names of the files that are made; no path of a store begins with it. */
const MADE = "/made:";

/** Files of the tokenizer in the keys, unless some are beside the file, and a store that has them too. */
async function madeFiles(
  metadata: readonly TypedValue[],
  beside: readonly { readonly path: string }[],
  store: Store,
): Promise<Pick<Checkpoint, "sidecars" | "store"> | undefined> {
  if (beside.some(({ path }) => isTokenizerFile(path))) return undefined;
  const made = await (await import("./tokenizer/files.ts")).tokenizerFiles(metadata, store);
  const sidecars = [...made].map(([path, { byteLength: size }]) => ({
    path,
    span: { file: MADE + path, offset: 0, size },
  }));
  const open = async (path: string): Promise<ByteSource> => {
    const bytes = path.startsWith(MADE) ? made.get(path.slice(MADE.length)) : undefined;
    if (bytes === undefined) return await store.open(path);
    return {
      url: store.url,
      size: bytes.byteLength,
      readInto: async (target, offset) => target.set(bytes.subarray(offset, offset + target.byteLength)),
      [Symbol.asyncDispose]: async () => {},
    };
  };
  return { sidecars, store: { ...store, open } };
}

function tensorsOf(parts: readonly Part[]): readonly Tensor[] {
  const found = new Map<string, string>();
  return parts.flatMap(({ file, tensors }) =>
    tensors.map(({ name, dtype, shape, offset }): Tensor => {
      const other = found.get(name);
      if (other !== undefined)
        throw new IsologitError("DUPLICATE_NAME", `it lies in ${other} too`, { file, tensor: name });
      found.set(name, file);
      return { name, dtype, shape, pieces: [{ file, offset, start: shape.map(() => 0), shape }] };
    }),
  );
}

/**
 * Compares what each part says of itself with its name. A file without a number in its name must be whole.
 *
 * @throws TENSOR_MISSING, INDEX_MISMATCH
 */
function refuseOtherParts(parts: readonly Part[]): void {
  for (const [i, { file, metadata }] of parts.entries()) {
    const [count, number] = [numberAt(metadata, "split.count"), numberAt(metadata, "split.no")];
    if (parts.length === 1 && (count ?? 1) > 1) {
      const message = `the file is part ${(number ?? 0) + 1} of ${count} by its own keys, and its name does not say so`;
      const next = "put all parts into one folder, with the names that llama-gguf-split gave them";
      throw new IsologitError("TENSOR_MISSING", message, { file }, { next });
    }
    if (parts.length === 1 || (count === parts.length && number === i)) continue;
    const message = `the file is named as part ${i + 1} of ${parts.length}; its keys say split.no ${number}, split.count ${count}`;
    throw new IsologitError("INDEX_MISMATCH", message, { file });
  }
  const stated = numberAt(parts[0]!.metadata, "split.tensors.count");
  const tensors = parts.reduce((sum, part) => sum + part.tensors.length, 0);
  if (stated === undefined || stated === tensors) return;
  const message = `split.tensors.count is ${stated}; the parts have ${tensors} tensors`;
  throw new IsologitError("INDEX_MISMATCH", message, { file: parts[0]!.file });
}

/** @throws LIMIT_EXCEEDED for a number of layers that would make readers allocate without bounds */
function refuseLayers({ file, metadata }: Part): void {
  for (const { key, value, span } of metadata) {
    if (!key.endsWith(".block_count") || typeof value === "string") continue;
    if (typeof value === "number" && value >= 0 && value <= MAX_LAYERS) continue;
    const message = `${key} is ${String(value)}; at most ${MAX_LAYERS} layers are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, { file, offset: span.offset });
  }
}

function numberAt(metadata: readonly TypedValue[], key: string): number | undefined {
  const value = metadata.find((entry) => entry.key === key)?.value;
  return typeof value === "number" ? value : undefined;
}

function trailingRemark({ file, trailingBytes }: Part): readonly Remark[] {
  if (trailingBytes === 0) return [];
  const message = `${formatBytes(trailingBytes)} follow the last tensor; no reader looks at them`;
  return [{ rule: "trailing-bytes", severity: "warning", at: { file }, message }];
}
