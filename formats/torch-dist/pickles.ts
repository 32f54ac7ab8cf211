/** Tensors and configs as torch and Megatron pickle them, for archives to write. */
import type { DType, Shape } from "../../src/core/dtype.ts";
import { countOf, stridesOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { WrittenValue } from "../codec/pickle/write.ts";
import { isRecord } from "../codec/yaml.ts";
import { TORCH_NAMES } from "./dtypes.ts";

function namesOf(dtype: DType): readonly [dtype: string, storage: string] {
  const names = TORCH_NAMES[dtype];
  if (names !== undefined) return names;
  throw new IsologitError("INTERNAL", `${dtype} has no storage class in torch`);
}

export function torchDtype(dtype: DType): WrittenValue {
  return { global: `torch.${namesOf(dtype)[0]}` };
}

/** A contiguous tensor that is the whole of the storage `key`. */
export function pickledTensor(dtype: DType, shape: Shape, key: number): WrittenValue {
  const storage = { global: `torch.${namesOf(dtype)[1]}` };
  const count = countOf(shape);
  return {
    reduce: { global: "torch._utils._rebuild_tensor_v2" },
    args: [
      { persid: { tuple: ["storage", storage, String(key), "cpu", count] } },
      0,
      { tuple: shape },
      { tuple: stridesOf(shape) },
      false,
      orderedDict([]),
    ],
  };
}

export function orderedDict(entries: readonly (readonly [string, WrittenValue])[]): WrittenValue {
  const made = { reduce: { global: "collections.OrderedDict" }, args: [] };
  return entries.length === 0 ? made : { ...made, entries };
}

/**
 * A config value: text, numbers, lists, records; `{_target_: "torch.bfloat16", _call_: false}` becomes that name.
 *
 * @throws INTERNAL for any other value
 */
function pickledConfig(value: unknown): WrittenValue {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isSafeInteger(value) ? value : { float: value };
  if (Array.isArray(value)) return { list: value.map(pickledConfig) };
  if (isRecord(value)) {
    const { _target_: target, _call_: call } = value;
    if (typeof target === "string" && call === false) return { global: target };
    return { dict: Object.entries(value).map(([key, item]) => [key, pickledConfig(item)] as const) };
  }
  throw new IsologitError("INTERNAL", `a config contains a ${typeof value}, which cannot be pickled`);
}

/** `argparse.Namespace`, in which Megatron stores its arguments. */
export function namespace(args: Readonly<Record<string, unknown>>): WrittenValue {
  return {
    newobj: { global: "argparse.Namespace" },
    args: [],
    state: pickledConfig(args),
  };
}
