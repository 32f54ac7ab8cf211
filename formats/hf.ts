/**
 * A Hugging Face folder: `config.json`, safetensors weights in one file or in shards with an index, and side
 * files that travel byte for byte. A lone `.safetensors` file is read too, with no config.
 */
import type { Checkpoint, Sidecar, Tensor } from "../src/core/checkpoint.ts";
import { DTYPES } from "../src/core/dtype.ts";
import { IsologitError, locate } from "../src/core/errors.ts";
import { readSmall, type Store } from "../src/core/io.ts";
import { parseJsonObject } from "../src/core/json.ts";
import { checkIndex, MAX_INDEX_BYTES, parseIndex, type ShardIndex } from "./codec/hf-index.ts";
import { INDEX, placeFolder, SINGLE } from "./codec/hf-place.ts";
import { type Header, readHeader } from "./codec/safetensors.ts";
import type { Format } from "./define.ts";

const CONFIG = "config.json";
/** The largest published config, with its quantisation lists, has some 100 kB. */
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;
/** Headers asked for at a time: enough to hide the distance to a Hub, few enough for any limit on open files. */
const HEADERS_AT_ONCE = 8;

export const hf: Format = {
  id: "hf",
  title: "Hugging Face folder (safetensors)",

  async detect(store) {
    const paths = (await store.list()).map((file) => file.path);
    if (weightsAmong(paths) === null) return "no";
    return paths.includes(CONFIG) ? "yes" : "maybe";
  },

  async read(store): Promise<Checkpoint> {
    const files = await store.list();
    const paths = files.map((file) => file.path);
    const weights = weightsAmong(paths);
    if (weights === null)
      throw new IsologitError("FORMAT_UNKNOWN", "no safetensors weights", { file: store.url });
    const index = weights === INDEX ? parseIndex(await small(store, INDEX, MAX_INDEX_BYTES), INDEX) : null;
    const shards = index?.files ?? [weights];
    const headers = await readHeaders(store, shards, new Set(paths));
    const tensors = tensorsOf(headers, index);
    const sidecars: Sidecar[] = files
      .filter(({ path }) => !shards.includes(path))
      .map(({ path, size }) => ({ path, span: { file: path, offset: 0, size } }));
    return {
      format: "hf",
      dialect: "hf",
      config: paths.includes(CONFIG)
        ? parseJsonObject(await small(store, CONFIG, MAX_CONFIG_BYTES), { file: CONFIG, nonFinite: true })
        : {},
      tensors,
      objects: [],
      sidecars,
      shards: headers.map(([path, { dataOffset }]) => ({
        path,
        header: { file: path, offset: 0, size: dataOffset },
      })),
      recasts: [],
      store,
    };
  },

  writes: {
    dialect: "hf",
    software: "hf",
    prefix: "",
    dtypes: DTYPES,
    container: "folder",
    endings: [],
    place: placeFolder,
  },
};

/**
 * The weight file, or the index that names several. Where both are there Transformers loads the single file,
 * and so do we: the index and what it names are then side files. Null where there are no weights, or no
 * telling which of several files they are.
 */
function weightsAmong(paths: readonly string[]): string | null {
  if (paths.includes(SINGLE)) return SINGLE;
  if (paths.includes(INDEX)) return INDEX;
  const loose = paths.filter((path) => !path.includes("/") && path.endsWith(".safetensors"));
  return loose.length === 1 ? loose[0]! : null;
}

async function small(store: Store, path: string, maxBytes: number): Promise<Uint8Array> {
  try {
    return await readSmall(store, path, maxBytes);
  } catch (error) {
    throw locate(error, { file: path });
  }
}

/** In the shards' order, and of several faults the first in that order, whichever answer comes first. */
async function readHeaders(
  store: Store,
  shards: readonly string[],
  present: ReadonlySet<string>,
): Promise<[string, Header][]> {
  const lost = shards.find((path) => !present.has(path));
  if (lost !== undefined) {
    throw new IsologitError("NOT_FOUND", `${INDEX} names a weight file that is not there`, { file: lost });
  }
  const headers: [string, Header][] = [];
  for (let i = 0; i < shards.length; i += HEADERS_AT_ONCE) {
    const some = shards.slice(i, i + HEADERS_AT_ONCE);
    const settled = await Promise.allSettled(some.map((path) => headerOf(store, path)));
    for (const [k, result] of settled.entries()) {
      if (result.status === "rejected") throw locate(result.reason, { file: some[k]! });
      headers.push([some[k]!, result.value]);
    }
  }
  return headers;
}

async function headerOf(store: Store, path: string): Promise<Header> {
  await using source = await store.open(path);
  return await readHeader(source, path);
}

/** One piece each, in the order of the files and of the bytes in them. @throws DUPLICATE_NAME, INDEX_MISMATCH */
function tensorsOf(headers: readonly [string, Header][], index: ShardIndex | null): Tensor[] {
  const found = new Map<string, string>();
  const tensors: Tensor[] = [];
  let bytes = 0;
  for (const [file, header] of headers) {
    for (const { name, dtype, shape, begin, end } of header.tensors) {
      if (found.has(name)) {
        throw new IsologitError("DUPLICATE_NAME", `it lies in ${found.get(name)} too`, {
          file,
          tensor: name,
        });
      }
      found.set(name, file);
      bytes += end - begin;
      const origin = shape.map(() => 0);
      tensors.push({ name, dtype, shape, pieces: [{ file, offset: begin, origin, shape }] });
    }
  }
  if (index !== null) checkIndex(index, found, bytes, INDEX);
  return tensors;
}
