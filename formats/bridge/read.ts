/** Reads a distributed checkpoint of Megatron: its index, its config and its tokenizer. */

import { readCarriedFiles } from "../../src/core/carried-files.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import { entryOf, plainRecord } from "../codec/pickle/plain.ts";
import { isKind, type PickleValue } from "../codec/pickle/value.ts";
import { readTorch } from "../codec/torch-zip/read.ts";
import { type ConfigRecord, isRecord, MAX_YAML_BYTES, parseYaml } from "../codec/yaml.ts";
import type { ReadOptions } from "../format.ts";
import { chooseIterationFolder, foldersWith } from "../megatron/iterations.ts";
import { dropTokenizerFiles, sidecarsBelow } from "../tokenizer-files.ts";
import { DIST_MARKER } from "../torch-dist/marker.ts";
import { type DistWeights, readWeights } from "../torch-dist/weights.ts";

/** @throws codes of exit status 3; NOT_FOUND for an iteration that does not exist */
export async function readBridge(store: Store, options: ReadOptions = {}): Promise<Checkpoint> {
  const files = await store.list();
  const folders = foldersWith(
    files.map(({ path }) => path),
    DIST_MARKER,
  );
  if (folders.length === 0) {
    throw new IsologitError("FORMAT_UNKNOWN", "there is no distributed checkpoint of Megatron here", {
      file: store.url,
    });
  }
  const folder = await chooseIterationFolder(store, folders, options);
  const dist = await readWeights(store, folder);
  const origin = dropTokenizerFiles(await readCarriedFiles(store));
  return {
    format: "bridge",
    dialect: "megatron",
    config: await configOf(
      store,
      folder,
      files.map(({ path }) => path),
      dist,
    ),
    tensors: dist.tensors,
    objects: dist.objects,
    moduleStates: dist.moduleStates,
    sidecars: sidecarsBelow(files, `${folder}tokenizer/`),
    weightFiles: [],
    recasts: [],
    seals: dist.seals,
    ...(origin !== undefined && { carriedFiles: origin }),
    store,
  };
}

/** The section `model` of Bridge's config; else the arguments of Megatron-LM, in `common.pt` or, since a later version, in an entry. */
async function configOf(
  store: Store,
  folder: string,
  paths: readonly string[],
  { entries }: DistWeights,
): Promise<ConfigRecord> {
  const file = `${folder}run_config.yaml`;
  if (paths.includes(file)) {
    const { model } = parseYaml(await readSmall(store, file, MAX_YAML_BYTES), { file });
    if (isRecord(model)) return model;
    throw new IsologitError("CONFIG_INVALID", "it has no section named model", { file });
  }
  const common = `${folder}common.pt`;
  const entry = entries.get("common_state/shard_0_1");
  const at = { file: paths.includes(common) ? common : entry?.file };
  if (at.file === undefined) return {};
  await using source = await store.open(at.file);
  const { value } = await readTorch(source, {
    file: at.file,
    ...(at.file !== common && { part: entry! }), // without common.pt, the file is that of the entry
  });
  return plainRecord(entryOf(single(value), "args"), { file: at.file });
}

/** The value of an entry, which is pickled as a list with one item. */
function single(value: PickleValue): PickleValue | undefined {
  return isKind(value, "list") ? value.items[0] : value;
}
