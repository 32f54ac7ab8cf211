/** State dicts of a rank's modules, as `torch.save` keeps them: tensors, and states of modules that stay unread. */
import type { Rank, Tensor } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { Store } from "../../src/core/io.ts";
import { entryOf } from "../codec/pickle/plain.ts";
import { expectKind, isKind, type PickleValue } from "../codec/pickle/value.ts";
import { readTorch, type TorchArchive, tensorOf } from "../codec/torch-zip/read.ts";

export interface Module {
  readonly tensors: readonly Tensor[];
  /** names of what is no weight */
  readonly objects: readonly string[];
}

/** Directory and pickle of each file, in their order. @throws as `readTorch` */
export async function readArchives(store: Store, paths: readonly string[]): Promise<TorchArchive[]> {
  const archives: TorchArchive[] = [];
  for (const file of paths) {
    await using source = await store.open(file);
    archives.push(await readTorch(source, { file }));
  }
  return archives;
}

/**
 * `model`, or, where a rank holds several stages of a virtual pipeline, `model0`, `model1` …: stage v of rank p comes
 * v pipelines of `stages` later in depth.
 *
 * @throws TENSOR_MISSING where there is neither
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
 * A tensor saved by itself is named by its file.
 *
 * @param prefix  what is taken off names that start so
 */
export function moduleOf(archive: TorchArchive, model: PickleValue, rank: Rank, prefix = /^/): Module {
  const at = { file: archive.file };
  if (isKind(model, "tensor")) {
    return { tensors: [{ ...tensorOf(archive, archive.file.split("/").at(-1)!, model), rank }], objects: [] };
  }
  const tensors: Tensor[] = [];
  const objects: string[] = [];
  for (const [key, value] of expectKind(model, "dict", "the model", at).entries) {
    if (typeof key !== "string") throw new IsologitError("PICKLE_INVALID", "a module's name is no text", at);
    const name = key.replace(prefix, "");
    // Transformer Engine's state is bytes in a tensor, or an object
    if (isKind(value, "tensor") && !name.endsWith("_extra_state")) {
      tensors.push({ ...tensorOf(archive, name, value), rank });
    } else objects.push(name);
  }
  return { tensors, objects };
}
