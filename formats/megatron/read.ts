/** Reads a legacy checkpoint of Megatron-LM: the state dict, the arguments and the training state in the file of each rank. */

import { readCarriedFiles } from "../../src/core/carried-files.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { canonicalJson } from "../../src/core/hash.ts";
import type { Store } from "../../src/core/io.ts";
import { entryOf, plainRecord } from "../codec/pickle/plain.ts";
import { isKind } from "../codec/pickle/value.ts";
import { nameSeals, type TorchArchive } from "../codec/torch-zip/read.ts";
import type { ConfigRecord } from "../codec/yaml.ts";
import type { ReadOptions } from "../format.ts";
import { chooseIterationFolder, foldersWith, RANK_FILE } from "./iterations.ts";
import { foundIn, modulesOf, readArchives } from "./modules.ts";
import { ranksOf } from "./ranks.ts";

/** Before version 3, rows of fused projections had another order. */
const CHECKPOINT_VERSION = 3;

/** @throws codes of exit status 3; NOT_FOUND for an iteration that does not exist */
export async function readMegatron(store: Store, options: ReadOptions = {}): Promise<Checkpoint> {
  const paths = (await store.list()).map(({ path }) => path);
  const folders = foldersWith(paths, RANK_FILE);
  if (folders.length === 0) {
    throw new IsologitError("FORMAT_UNKNOWN", "there is no mp_rank_* of a Megatron checkpoint here", {
      file: store.url,
    });
  }
  const folder = await chooseIterationFolder(store, folders, options);
  const files = paths.filter((path) => path.startsWith(folder) && RANK_FILE.test(path.slice(folder.length)));
  const archives = await readArchives(store, files);
  const config = argumentsOf(archives[0]!); // each folder that was found contains at least one file
  const other = otherArguments(archives, config);
  const { ranks, stages } = ranksOf(files, config);
  const modules = archives.flatMap((archive, i) => modulesOf(archive, ranks[i]!, stages));
  const tensors = modules.flatMap(({ tensors }) => tensors);
  const origin = await readCarriedFiles(store);
  return {
    format: "megatron",
    dialect: "megatron-ranks",
    config,
    ...(other !== undefined && { loadedConfig: other }),
    tensors,
    objects: [
      ...new Set([...archives.flatMap(statesIn), ...modules.flatMap(({ objects }) => objects)]),
    ].sort(),
    sidecars: [],
    weightFiles: [],
    recasts: [],
    seals: nameSeals(
      archives.flatMap(({ seals }) => seals),
      tensors,
    ),
    ...(origin !== undefined && { carriedFiles: origin }),
    ...foundIn(modules, store),
  };
}

/** Names of training state beside the model: optimizer, random numbers and the like. */
function statesIn({ value }: TorchArchive): string[] {
  if (!isKind(value, "dict")) return [];
  return value.entries.flatMap(([key, held]) => {
    const isState = typeof held === "object" && held !== null;
    return typeof key === "string" && isState && !/^(model\d*|args)$/.test(key) ? [key] : [];
  });
}

/** Finds a rank whose file has other arguments than the first file: each process loads the arguments of its own file. */
function otherArguments(
  [, ...others]: readonly TorchArchive[],
  config: ConfigRecord,
): { readonly file: string; readonly config: ConfigRecord } | undefined {
  const shared = (args: ConfigRecord) =>
    canonicalJson(Object.fromEntries(Object.entries(args).filter(([key]) => !OF_A_PROCESS.test(key))));
  const first = shared(config);
  for (const { file, value } of others) {
    const args = entryOf(value, "args");
    if (args === undefined) continue;
    const own = plainRecord(args, { file });
    if (shared(own) !== first) return { file, config: own };
  }
  return undefined;
}

/** Arguments that differ between processes. */
const OF_A_PROCESS = /(^|_)rank$/;

/** @throws UNSUPPORTED for a version with another order of fused rows */
function argumentsOf({ file, value }: TorchArchive): ConfigRecord {
  const version = entryOf(value, "checkpoint_version") ?? CHECKPOINT_VERSION;
  if (version !== CHECKPOINT_VERSION) {
    const message = `checkpoint_version is ${String(version)}; only ${CHECKPOINT_VERSION}, in use since 2021, is read`;
    throw new IsologitError("UNSUPPORTED", message, { file });
  }
  return plainRecord(entryOf(value, "args"), { file });
}
