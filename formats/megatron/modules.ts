/** State dicts in the file of a rank: tensors, and states of modules that are not read. */
import type { ModuleState, Rank, Tensor } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { formatQuantity } from "../../src/core/figures.ts";
import type { Store } from "../../src/core/io.ts";
import { entryOf } from "../codec/pickle/plain.ts";
import { expectKind, isKind, type PickleValue } from "../codec/pickle/value.ts";
import { readTorch, type TorchArchive, tensorOf } from "../codec/torch-zip/read.ts";
import { payloadOf } from "../codec/transformer-engine/extra-state.ts";
import {
  decodedWeight,
  type Float8Weight,
  float8Store,
  float8WeightOf,
} from "../codec/transformer-engine/float8-tensor.ts";
import { engineMeaning } from "../codec/transformer-engine/names.ts";

export interface Module {
  readonly tensors: readonly Tensor[];
  /** names of entries that are not weights */
  readonly objects: readonly string[];
  readonly states: readonly ModuleState[];
  /** FP8 weights, which `float8Store` decodes */
  readonly float8: readonly { readonly file: string; readonly weight: Float8Weight }[];
}

/** Name of the state of a module, with the number of a matrix among grouped ones. */
const STATE = /^(.+)\._extra_state\d*$/;

/** Directory and pickle of each file, in the order of files. @throws like `readTorch` */
export async function readArchives(store: Store, paths: readonly string[]): Promise<TorchArchive[]> {
  const archives: TorchArchive[] = [];
  for (const file of paths) {
    await using source = await store.open(file);
    archives.push(await readTorch(source, { file, moreMeanings: engineMeaning }));
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
    return {
      tensors: [{ ...tensorOf(archive, archive.file.split("/").at(-1)!, model), rank }],
      objects: [],
      states: [],
      float8: [],
    };
  }
  const tensors: Tensor[] = [];
  const objects: string[] = [];
  const states: ModuleState[] = [];
  const float8: Module["float8"][number][] = [];
  const { file } = archive;
  for (const [key, value] of expectKind(model, "dict", "the model", at).entries) {
    if (typeof key !== "string")
      throw new IsologitError("PICKLE_INVALID", "the name of a module is not text", at);
    const name = key.replace(prefix, "");
    const here = { ...at, tensor: name };
    // the state of Transformer Engine is bytes in a tensor, or an object
    const module = STATE.exec(name)?.[1];
    const weight = module === undefined ? float8WeightOf(archive, name, value, here) : undefined;
    if (weight !== undefined) {
      tensors.push({ ...decodedWeight(file, weight), rank });
      float8.push({ file, weight });
    } else if (isKind(value, "tensor") && module === undefined) {
      tensors.push({ ...tensorOf(archive, name, value), rank });
    } else objects.push(name);
    const payload = module === undefined || isKind(value, "opaque") ? null : payloadOf(archive, value, here);
    if (payload !== null) states.push({ module: module!, file, stored: { payload } });
  }
  return { tensors, objects, states, float8 };
}

/** What the modules add to a checkpoint. */
export function foundIn(modules: readonly Module[], store: Store) {
  const float8 = modules.flatMap((module) => module.float8);
  const [first] = float8;
  const message = `${formatQuantity(float8.length, "weight")} in FP8 of Transformer Engine: decoded to F32, code * scale_inv`;
  const remark = { rule: "float8-decoded", severity: "warning", message } as const;
  return {
    moduleStates: modules.flatMap(({ states }) => states),
    store: float8Store(store, float8),
    ...(first !== undefined && {
      remarks: [{ ...remark, at: { file: first.file, tensor: first.weight.codes.name } }],
    }),
  };
}
