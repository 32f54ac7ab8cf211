/** A quantised folder as the rules see it: its modules, how each is stored, and what the config declares for each. */
import type { ScaleExtent } from "../../checkpoint/scales/extent.ts";
import { moduleOf } from "../../checkpoint/scales/names.ts";
import type { ScaleTable } from "../../checkpoint/scales/pair.ts";
import { areExponents } from "../../checkpoint/scales/values.ts";
import type { Checkpoint, Tensor } from "../../core/checkpoint.ts";
import { isFnuz, isFp8 } from "../../core/dtype.ts";
import { EXPERT_STACK } from "../fused-modules.ts";
import { createGroupFinder, type Encoding, type Group } from "../groups.ts";
import { ancestorsOf, createExpressions, type Expressions, engineName } from "../module-patterns.ts";
import type { Scheme } from "../scheme.ts";

export interface QuantizedFolder {
  /** config.json without the declared quantisation */
  readonly config: Checkpoint["config"];
  /** the value of `quantization_config`, or that of ModelOpt's file */
  readonly record: Readonly<Record<string, unknown>>;
  readonly scheme: Scheme;
  /** weights of codes, and linear weights that are not quantised */
  readonly modules: readonly StoredModule[];
  readonly scales: ScaleTable;
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** all modules of the checkpoint, for entries of lists */
  readonly names: readonly string[];
  readonly expressions: Expressions;
}

export interface StoredModule {
  readonly name: string;
  readonly weight: Tensor;
  /** null: the weight is not quantised */
  readonly encoding: Encoding | null;
  readonly scale: Tensor | undefined;
  /** which weights share a scale; undefined without a scale, and where it cannot be told because the weight has one row */
  readonly extent: ScaleExtent | undefined;
  /** what the config declares for the module, if it is not ignored; several groups where the config is ambiguous */
  readonly groups: readonly Group[];
  readonly isHead: boolean;
  /** an expert that the router chooses */
  readonly isExpert: boolean;
}

/** Names of linear weights. */
const LINEAR_WEIGHT = /_proj\.weight$/;
const HEAD_WEIGHT = /^lm_head\.weight$/;

export function isQuantised({ dtype, name }: Tensor, { scaleTensors }: ScaleTable): boolean {
  if (scaleTensors.has(name)) return false;
  return isFp8(dtype) || isFnuz(dtype) || dtype === "F4";
}

/** @param scheme what `record` declares */
export function createFolder(
  { config, tensors }: Pick<Checkpoint, "config" | "tensors">,
  scales: ScaleTable,
  record: QuantizedFolder["record"],
  scheme: Scheme,
): QuantizedFolder {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const coded = tensors.filter((tensor) => isQuantised(tensor, scales));
  const plain = tensors.filter(
    (tensor) =>
      !isQuantised(tensor, scales) &&
      (LINEAR_WEIGHT.test(tensor.name) || HEAD_WEIGHT.test(tensor.name)) &&
      tensor.shape.length === 2,
  );
  const stored = tensors.map(({ name }) => moduleOf(name));
  const tiedHead = config.tie_word_embeddings === true ? ["lm_head"] : []; // a module without a tensor of its own
  const names = [...new Set([...stored.flatMap(ancestorsOf), ...tiedHead])];
  const expressions = createExpressions([...new Set(names.flatMap((name) => [name, engineName(name)]))]);
  const groupsFor = createGroupFinder(scheme.groups, namesOf, expressions);
  const modules = [...coded, ...plain].map((weight): StoredModule => {
    const name = moduleNameOf(weight.name);
    const paired = scales.scaleOf.get(weight.name);
    const scale = paired === undefined ? undefined : byName.get(paired.tensor);
    return {
      name,
      weight,
      encoding: isQuantised(weight, scales) ? encodingOf(weight, scale) : null,
      scale,
      extent: paired === undefined ? undefined : extentOf(weight, paired.grid),
      groups: groupsFor(name),
      isHead: HEAD_WEIGHT.test(weight.name),
      isExpert: /\.experts\./.test(name) || EXPERT_STACK.test(name),
    };
  });
  return { config, record, scheme, modules, scales, tensors: byName, names, expressions };
}

/** `a.b` of `a.b.weight`; the tensor of stacked experts has the name of its module. */
function moduleNameOf(weight: string): string {
  return weight.replace(/\.weight$/, "");
}

/** All names of a module in configs. */
function namesOf(module: string): readonly string[] {
  return [...new Set([module, engineName(module)])];
}

/** In one matrix of a stack of experts, as in a single matrix. */
function extentOf(
  { shape }: Tensor,
  [blockRows, blockColumns]: readonly [number, number],
): ScaleExtent | undefined {
  const rows = shape.at(shape.length < 2 ? 0 : -2) ?? 1;
  if (rows === 1) return undefined;
  if (blockColumns > 1) return "block";
  if (blockRows === 1) return "tensor";
  return blockRows === rows ? "row" : "block";
}

function encodingOf({ dtype }: Tensor, scale: Tensor | undefined): Encoding {
  if (!isFp8(dtype) && !isFnuz(dtype)) return "NVFP4";
  return scale !== undefined && areExponents(scale) ? "MXFP8" : "FP8";
}
