/**
 * Megatron-LM's legacy checkpoint: a torch file for each rank of tensor, pipeline and expert parallelism, in which
 * modules have the names and the slabs that the rank's own model had.
 */
import type { Checkpoint, Rank, Tensor } from "../src/core/checkpoint.ts";
import { IsologitError, type Place } from "../src/core/errors.ts";
import { originIn } from "../src/core/origin.ts";
import { chosenFolder, foldersWith } from "./codec/iterations.ts";
import { type RankFile, rankFilesIn, ranksOf } from "./codec/megatron-ranks.ts";
import { megatronWriter } from "./codec/megatron-write.ts";
import { entryOf, plainRecord } from "./codec/pickle-plain.ts";
import { isKind, type PickleValue } from "./codec/pickle-value.ts";
import { readTorch, type TorchArchive, tensorOf } from "./codec/torch-zip.ts";
import type { ConfigRecord } from "./codec/yaml-config.ts";
import type { Format } from "./define.ts";

const MARKER = /^mp_rank_\d+(_\d+){0,2}\/model_(optim_)?rng\.pt$/;
/** Before version 3 the rows of fused projections had another order. */
const CHECKPOINT_VERSION = 3;

export const megatron: Format = {
  id: "megatron",
  title: "Megatron-LM ranks (mp_rank_*)",

  async detect(store) {
    const paths = (await store.list()).map(({ path }) => path);
    return foldersWith(paths, MARKER).length > 0 ? "yes" : "no";
  },

  async read(store, options = {}): Promise<Checkpoint> {
    const paths = (await store.list()).map(({ path }) => path);
    const folders = foldersWith(paths, MARKER);
    if (folders.length === 0) {
      throw new IsologitError("FORMAT_UNKNOWN", "no mp_rank_* of a Megatron checkpoint", { file: store.url });
    }
    const folder = await chosenFolder(store, folders, options);
    const archives: { file: RankFile; archive: TorchArchive }[] = [];
    for (const file of rankFilesIn(paths, folder, MARKER)) {
      await using source = await store.open(file.path);
      archives.push({ file, archive: await readTorch(source, { file: file.path }) });
    }
    const config = argumentsOf(archives[0]!.archive); // each folder found holds a file or more
    const ranks = ranksOf(
      archives.map(({ file }) => file),
      config,
    );
    const modules = archives.flatMap(({ file, archive }) =>
      modulesOf(archive, ranks.get(file)!, ranks.stages),
    );
    const origin = await originIn(store);
    return {
      format: "megatron",
      dialect: "megatron-ranks",
      config,
      tensors: modules.flatMap(({ tensors }) => tensors),
      objects: [...new Set(modules.flatMap(({ objects }) => objects))].sort(),
      sidecars: [],
      shards: [],
      recasts: [],
      ...(origin !== undefined && { origin }),
      store,
    };
  },

  writes: megatronWriter,
};

/** @throws UNSUPPORTED for a version that fused otherwise */
function argumentsOf({ file, value }: TorchArchive): ConfigRecord {
  const version = entryOf(value, "checkpoint_version") ?? CHECKPOINT_VERSION;
  if (version !== CHECKPOINT_VERSION) {
    const message = `checkpoint_version is ${String(version)}; ${CHECKPOINT_VERSION} is read, since 2021`;
    throw new IsologitError("UNSUPPORTED", message, { file });
  }
  return plainRecord(entryOf(value, "args"), { file });
}

interface Module {
  readonly tensors: readonly Tensor[];
  readonly objects: readonly string[];
}

/**
 * `model`, or, where a rank holds several stages of a virtual pipeline, `model0`, `model1` …: stage v of rank p comes
 * v pipelines of `stages` later in depth.
 */
function modulesOf(archive: TorchArchive, rank: Rank, stages: number): Module[] {
  const at = { file: archive.file };
  const whole = entryOf(archive.value, "model");
  if (whole !== undefined) return [moduleOf(archive, whole, rank, at)];
  const modules: Module[] = [];
  for (let v = 0; ; v++) {
    const part = entryOf(archive.value, `model${v}`);
    if (part === undefined) break;
    modules.push(moduleOf(archive, part, { ...rank, pp: v * stages + rank.pp }, at));
  }
  if (modules.length > 0) return modules;
  throw new IsologitError("TENSOR_MISSING", "the file holds no model", at);
}

function moduleOf(archive: TorchArchive, model: PickleValue, rank: Rank, at: Place): Module {
  if (!isKind(model, "dict")) throw new IsologitError("PICKLE_INVALID", "the model is no dict", at);
  const tensors: Tensor[] = [];
  const objects: string[] = [];
  for (const [name, value] of model.entries) {
    if (typeof name !== "string") throw new IsologitError("PICKLE_INVALID", "a module's name is no text", at);
    // state of Transformer Engine: bytes in a tensor, or an object
    if (isKind(value, "tensor") && !name.endsWith("_extra_state"))
      tensors.push({ ...tensorOf(archive, name, value), rank });
    else objects.push(name);
  }
  return { tensors, objects };
}
