/** State dicts in the file of a rank: tensors, and states of modules that are not read. */
import type { Rank, Tensor } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { Store } from "../../src/core/io.ts";
import { entryOf } from "../codec/pickle/plain.ts";
import { expectKind, isKind, type PickleValue } from "../codec/pickle/value.ts";
import { readTorch, type TorchArchive, tensorOf } from "../codec/torch-zip/read.ts";

export interface Module {
  readonly tensors: readonly Tensor[];
  /** names of entries that are not weights */
  readonly objects: readonly string[];
}

/** Directory and pickle of each file, in the order of files. @throws like `readTorch` */
export async function readArchives(store: Store, paths: readonly string[]): Promise<TorchArchive[]> {
  const archives: TorchArchive[] = [];
  for (const file of paths) {
    await using source = await store.open(file);
    archives.push(await readTorch(source, { file }));
  }
  return archives;
}

/**
 * `model`, or `model0`, `model1` … if a rank holds several stages of a virtual pipeline: part v of rank p is stage
 * v * `stages` + p of the model.
 *
 * @throws TENSOR_MISSING if there is neither
 */
export function modulesOf(archive: TorchArchive, rank: Rank, stages: number): Module[] {
  const whole = entryOf(archive.value, "model");
  if (whole !== undefined) return [moduleOf(archive, whole, rank)];
  const modules: Module[] = [];
  for (let v = 0; ; v++) {
    const part = entryOf(archive.value, `model${v}`);
    if (part === undefined) break;
    modules.push(moduleOf(archive, part, { ...rank, pp: v * stages + rank.pp }));
  }
  if (modules.length > 0) return modules;
  throw new IsologitError("TENSOR_MISSING", "the file holds no model", { file: archive.file });
}

/**
 * The tensors of a module. A tensor that was saved alone has the name of its file.
 *
 * @param prefix  removed from names that start with it
 */
export function moduleOf(archive: TorchArchive, model: PickleValue, rank: Rank, prefix = /^/): Module {
  const at = { file: archive.file };
  if (isKind(model, "tensor")) {
    return { tensors: [{ ...tensorOf(archive, archive.file.split("/").at(-1)!, model), rank }], objects: [] };
  }
  const tensors: Tensor[] = [];
  const objects: string[] = [];
  for (const [key, value] of expectKind(model, "dict", "the model", at).entries) {
    if (typeof key !== "string")
      throw new IsologitError("PICKLE_INVALID", "the name of a module is not text", at);
    const name = key.replace(prefix, "");
    // the state of Transformer Engine is bytes in a tensor, or an object
    if (isKind(value, "tensor") && !name.endsWith("_extra_state")) {
      tensors.push({ ...tensorOf(archive, name, value), rank });
    } else objects.push(name);
  }
  return { tensors, objects };
}
