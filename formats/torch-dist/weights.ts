/**
 * A model in a distributed checkpoint of Megatron, with one of two backends: `torch_dist`, an index and files of entries, or
 * `zarr`, a folder for each tensor.
 */
import type { ModuleState, SealedSpan, Span, Tensor } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { Store } from "../../src/core/io.ts";
import { readZarr, zarrNames } from "../codec/zarr.ts";
import { METADATA, readDist } from "./read.ts";
import { unstackLayers } from "./stacks.ts";

/**
 * A tensor that every Megatron model has. The text before it is the prefix of the checkpoint: `module.` in NeMo 2, `model.`
 * in NeMo 1, none in Megatron, any text in a bare folder.
 */
const ANCHOR = "embedding.word_embeddings.weight";
/** Key of the state of a module, with the number of a matrix among grouped ones. */
const STATE = /^(.+)\._extra_state\d*\/shard_/;
/** State of the optimizer, one entry for each part of each moment. It is not read, like objects. */
const OPTIMIZER = "optimizer.";

export interface DistWeights {
  /** names without the prefix */
  readonly tensors: readonly Tensor[];
  /** names of other entries, which are not read; without the prefix */
  readonly objects: readonly string[];
  /** the archive of each pickled entry, by its key */
  readonly entries: ReadonlyMap<string, Span>;
  readonly moduleStates: readonly ModuleState[];
  /** empty for zarr, which has no digests */
  readonly seals: readonly SealedSpan[];
}

/** @throws codes of exit status 3, each naming file and tensor */
export async function readWeights(store: Store, folder: string): Promise<DistWeights> {
  const files = await store.list();
  const paths = files.map(({ path }) => path);
  const wanted = (key: string) => !key.startsWith(OPTIMIZER);
  const found = paths.includes(folder + METADATA)
    ? await readDist(store, folder, wanted)
    : await readArrays(store, folder, files, wanted);
  const prefix = prefixOf(found.tensors.map(({ name }) => name));
  const bare = (key: string) => (key.startsWith(prefix) ? key.slice(prefix.length) : key);
  return {
    tensors: found.tensors.map((tensor) => ({ ...tensor, name: bare(tensor.name) })),
    objects: found.objects.map(bare).sort(),
    entries: found.entries,
    moduleStates: [...found.entries].flatMap(([key, { file, ...archive }]) => {
      const module = STATE.exec(bare(key))?.[1];
      return module === undefined ? [] : [{ module, file, stored: { archive } }];
    }),
    seals: found.seals.map(({ tensor, ...seal }) => ({
      ...seal,
      ...(tensor !== undefined && { tensor: bare(tensor) }),
    })),
  };
}

/** Arrays of zarr. Objects are beside them as `KEY/shard_0_1.pt`. */
async function readArrays(
  store: Store,
  folder: string,
  files: readonly { readonly path: string; readonly size: number }[],
  wanted: (key: string) => boolean,
): Promise<Omit<DistWeights, "moduleStates">> {
  const paths = files.map(({ path }) => path);
  const pickled = new Map(
    files.flatMap(({ path, size }) => {
      const key = path.startsWith(folder)
        ? /^(.+\/shard_[\d._]+)\.pt$/.exec(path.slice(folder.length))?.[1]
        : undefined;
      return key === undefined ? [] : [[key, { file: path, offset: 0, size }] as const];
    }),
  );
  return {
    tensors: unstackLayers(await readZarr(store, folder, wanted)),
    objects: [...pickled.keys(), ...zarrNames(paths, folder).filter((key) => !wanted(key))],
    entries: pickled,
    seals: [],
  };
}

/** @throws UNSUPPORTED if two tensors could be the embedding of the model */
function prefixOf(keys: readonly string[]): string {
  const prefixes = keys.filter((key) => key.endsWith(ANCHOR)).map((key) => key.slice(0, -ANCHOR.length));
  if (prefixes.length > 1) {
    const message = `${prefixes.length} tensors are named …${ANCHOR}: there is more than one model`;
    throw new IsologitError("UNSUPPORTED", message, { tensor: prefixes[0] + ANCHOR });
  }
  return prefixes[0] ?? "";
}
