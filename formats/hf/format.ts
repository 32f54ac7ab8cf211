/**
 * A Hugging Face folder: `config.json`, safetensors weights in one file or in several, and side files that are copied byte
 * for byte. A single `.safetensors` file without a config is read too.
 */
import type { Checkpoint, Remark, Sidecar, Tensor } from "../../src/core/checkpoint.ts";
import { DTYPES } from "../../src/core/dtype.ts";
import { IsologitError, withLocation } from "../../src/core/errors.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import { parseJsonObject } from "../../src/core/json.ts";
import type { Header } from "../codec/safetensors.ts";
import type { Format } from "../format.ts";
import { checkIndex, type WeightIndex } from "./index-json.ts";
import { INDEX, placeFolder } from "./place.ts";
import { chooseWeightFiles, readWeights } from "./weight-files.ts";

const CONFIG = "config.json";
/** The largest published config, with its lists for quantization, has some 100 kB. */
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;
export const hf: Format = {
  id: "hf",
  title: "Hugging Face folder (safetensors)",

  async detect(store) {
    const paths = (await store.list()).map((file) => file.path);
    const named = chooseWeightFiles(paths);
    const configured = paths.includes(CONFIG);
    if (named === null) return "no";
    // Several files that no index names may belong to another format, which then recognises them.
    if (named.by === "loose" && named.files.length > 1) return configured ? "maybe" : "no";
    return configured ? "yes" : "maybe";
  },

  async read(store): Promise<Checkpoint> {
    const files = await store.list();
    const paths = new Set(files.map((file) => file.path));
    const named = chooseWeightFiles([...paths]);
    if (named === null)
      throw new IsologitError("FORMAT_UNKNOWN", "there are no safetensors weights here", { file: store.url });
    const { headers, index, remarks } = await readWeights(store, named, paths);
    const weights = new Set(headers.map(([path]) => path));
    const { tensors, remarks: odd } = tensorsOf(headers, index);
    const sidecars: Sidecar[] = files
      .filter(({ path }) => !weights.has(path))
      // An index with paths that are valid only in this folder is written again for another folder.
      .filter(({ path }) => path !== INDEX || (index?.rewritten ?? null) === null)
      .map(({ path, size }) => ({ path, span: { file: path, offset: 0, size } }));
    return {
      format: "hf",
      dialect: "hf",
      config: paths.has(CONFIG)
        ? parseJsonObject(await config(store), { file: CONFIG, nonFinite: true })
        : {},
      tensors,
      objects: [],
      sidecars,
      weightFiles: headers.map(([path, { dataOffset }]) => ({
        path,
        header: { file: path, offset: 0, size: dataOffset },
      })),
      recasts: [],
      ...(remarks.length + odd.length > 0 && { remarks: [...remarks, ...odd] }),
      store,
    };
  },

  writes: {
    dialect: "hf",
    software: "hf",
    config: "file",
    prefix: "",
    dtypes: DTYPES,
    container: "folder",
    endings: [],
    place: async (wanted) => placeFolder(wanted),
  },
};

async function config(store: Store): Promise<Uint8Array> {
  try {
    return await readSmall(store, CONFIG, MAX_CONFIG_BYTES);
  } catch (error) {
    throw withLocation(error, { file: CONFIG });
  }
}

/** Tensors of one piece each, in the order of files and of bytes in them. @throws DUPLICATE_NAME, INDEX_MISMATCH */
function tensorsOf(
  headers: readonly (readonly [string, Header])[],
  index: WeightIndex | null,
): { readonly tensors: readonly Tensor[]; readonly remarks: readonly Remark[] } {
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
      tensors.push({ name, dtype, shape, pieces: [{ file, offset: begin, start: origin, shape }] });
    }
  }
  return { tensors, remarks: index === null ? [] : checkIndex(index, found, bytes, INDEX) };
}
