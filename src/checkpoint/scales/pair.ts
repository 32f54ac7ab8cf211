/**
 * Pairs the codes of quantised weights with their scales. The names of ModelOpt, compressed-tensors, DeepSeek and
 * Transformers are read.
 */
import type { Checkpoint, Tensor } from "../../core/checkpoint.ts";
import { isFloat, isFnuz, isFp8 } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { isJsonObject } from "../../core/json.ts";
import { blocksOf, type ScaleBlocks } from "./extent.ts";
import { moduleOf } from "./names.ts";
import { areExponents } from "./values.ts";

/** The scales of a weight: real value = code * scale, in F32. */
export interface WeightScale extends ScaleBlocks {
  /** stored tensor of the scales */
  readonly tensor: string;
  /** NVFP4: one scale for the whole tensor, by which the scale of each block is multiplied or divided */
  readonly second?: { readonly tensor: string; readonly op: "multiply" | "divide" };
}

export interface ScaleTable {
  /** name of a weight of codes -> its scales */
  readonly scaleOf: ReadonlyMap<string, WeightScale>;
  /** every tensor that is a scale and not a role, with the unused scales */
  readonly scaleTensors: ReadonlySet<string>;
  /** scale tensor -> the weight that it belongs to */
  readonly ownerOf: ReadonlyMap<string, string>;
  /** scales of activations and caches: a conversion copies them, and no verdict covers them */
  readonly unusedScales: readonly string[];
}

/** Two names of one factor: DeepSeek's `_inv` is the inverse of the quantizer's factor, so it is a multiplier too. */
const ENDINGS = ["_scale", "_scale_inv"] as const;

/** The second scale of NVFP4: ModelOpt's is a factor, that of compressed-tensors is a divisor. */
const SECOND_SCALES = { _scale_2: "multiply", _global_scale: "divide" } as const;

const UNUSED_SCALE = /\.((input|activation|k|v|q|kv|output)_scale|input_global_scale)$/;

/**
 * Pairs scales with their weights, by name and shape.
 *
 * @param config names the sides of blocks; without it usual sides are tried
 * @throws SCALE_INVALID when a weight of codes has no scale or two, a scale no weight, or a weight that is not quantised
 * @throws UNSUPPORTED   for scales of other shapes or types
 */
export function pairScales(tensors: readonly Tensor[], config: Checkpoint["config"] = {}): ScaleTable {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const declared = declaredBlock(config.quantization_config);
  const scaleOf = new Map<string, WeightScale>();
  const ownerOf = new Map<string, string>();
  const scaleTensors = new Set<string>();
  const unusedScales: string[] = [];
  for (const tensor of tensors) {
    const { name } = tensor;
    const weight = weightOf(name, ENDINGS, byName);
    const owner = weight ?? weightOf(name, Object.keys(SECOND_SCALES), byName);
    if (weight !== undefined) {
      const other = scaleOf.get(weight.name);
      if (other !== undefined) {
        throw invalid(name, `${weight.name} already has the scale ${other.tensor}`);
      }
      const second = secondScaleOf(weight.name, byName);
      scaleOf.set(weight.name, {
        tensor: name,
        ...scaleBlocks(tensor, weight, declared),
        ...(second !== undefined && { second }),
      });
    }
    if (owner !== undefined) {
      ownerOf.set(name, owner.name);
      scaleTensors.add(name);
    } else if (UNUSED_SCALE.test(name)) {
      const module = `${moduleOf(name)}.weight`;
      if (byName.has(module)) ownerOf.set(name, module);
      scaleTensors.add(name);
      unusedScales.push(name);
    } else if (/\.weight_(scale(_inv|_2)?|global_scale)$/.test(name)) {
      throw invalid(name, "the weight that it scales is not in the checkpoint");
    }
  }
  for (const { name, dtype } of tensors) {
    if (!(isFp8(dtype) || isFnuz(dtype) || dtype === "F4") || scaleOf.has(name) || scaleTensors.has(name))
      continue;
    const message = `${dtype} has no scale: expected ${name}_scale or ${name}_scale_inv`;
    throw invalid(
      name,
      message,
      "fetch the checkpoint again, all of it; without the scale its codes mean nothing",
    );
  }
  return { scaleOf, scaleTensors, ownerOf, unusedScales };
}

/** The weight of a scale tensor: its name without one of these endings. */
function weightOf(
  name: string,
  endings: readonly string[],
  byName: ReadonlyMap<string, Tensor>,
): Tensor | undefined {
  const ending = endings.find((candidate) => name.endsWith(candidate));
  return ending === undefined ? undefined : byName.get(name.slice(0, -ending.length));
}

function secondScaleOf(weight: string, byName: ReadonlyMap<string, Tensor>): WeightScale["second"] {
  for (const [ending, op] of Object.entries(SECOND_SCALES)) {
    if (byName.has(weight + ending)) return { tensor: weight + ending, op };
  }
  return undefined;
}

function scaleBlocks(scale: Tensor, weight: Tensor, declared: DeclaredBlock): ScaleBlocks {
  const isPacked = weight.dtype === "F4";
  if (!isFp8(weight.dtype) && !isFnuz(weight.dtype) && !isPacked) {
    if (isFloat(weight.dtype))
      throw invalid(scale.name, `${weight.name} is ${weight.dtype}, which takes no scale`);
    const message = `${weight.name} is ${weight.dtype}; of quantised weights FP8, MXFP8 and NVFP4 are read`;
    throw unsupported(scale.name, message);
  }
  if (!areExponents(scale) && (!isFloat(scale.dtype) || (isFp8(scale.dtype) && !isPacked))) {
    throw unsupported(scale.name, `its scales are ${scale.dtype}; F32, BF16, F16 and E8M0 are read`);
  }
  const blocks = blocksOf(weight.shape, scale.shape, declared);
  if (blocks !== undefined) return blocks;
  const [found, of] = [scale.shape.join(", "), weight.shape.join(", ")];
  throw unsupported(scale.name, `[${found}] does not scale [${of}] by tensor, row or equal blocks`);
}

type DeclaredBlock = readonly [rows: number, columns: number] | undefined;

/** The sides of blocks that a `quantization_config` names, if all its groups agree. */
function declaredBlock(quantization: unknown): DeclaredBlock {
  if (!isJsonObject(quantization)) return undefined;
  const groups = isJsonObject(quantization.config_groups) ? Object.values(quantization.config_groups) : [];
  const named = groups.map((group) =>
    isJsonObject(group) && isJsonObject(group.weights) ? group.weights.block_structure : undefined,
  );
  const [block, ...others] = [quantization.weight_block_size, ...named].filter(isBlock);
  return others.every(([rows, columns]) => rows === block?.[0] && columns === block[1]) ? block : undefined;
}

function isBlock(value: unknown): value is readonly [number, number] {
  return (
    Array.isArray(value) &&
    value.length === 2 &&
    value.every((side) => Number.isSafeInteger(side) && side > 0)
  );
}

function invalid(tensor: string, message: string, next?: string): IsologitError {
  return new IsologitError("SCALE_INVALID", message, { tensor }, next === undefined ? {} : { next });
}

function unsupported(tensor: string, message: string): IsologitError {
  const next = "quantise the original checkpoint anew, with one scale a tensor: `dtype` fp8-e4m3";
  return new IsologitError("UNSUPPORTED", message, { tensor }, { next });
}
