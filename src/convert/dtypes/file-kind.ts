/** Kinds of files, such as q4_k_m, that choose the type of each tensor: the choice, and what a plan tells about it. */
import type { TypeChoice, Writer } from "../../../formats/format.ts";
import { bitsOf, blockElements, countOf, type FileKind, isFileKind } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { formatQuantity } from "../../core/figures.ts";
import { shapeOf } from "../../core/mapping/layout.ts";
import type { ExpectedTensor } from "../../families/expand.ts";
import type { PluginOptions } from "../../plugins/plugin.ts";
import { registryOf } from "../../plugins/registry.ts";
import type { Policy } from "../../quantization/policy.ts";
import type { PlannedWeight } from "../planned-weights.ts";

/** What a kind of file makes of the weights of a model. */
export interface FileKindReport {
  readonly id: FileKind;
  /** mean of all weights, vectors included */
  readonly bitsPerWeight: number;
  readonly types: readonly { readonly dtype: string; readonly tensors: number; readonly weights: number }[];
  readonly fallbacks: readonly TypeFallback[];
}

/** Tensors whose rows are no whole blocks of the type that the kind of file gives them. */
interface TypeFallback {
  readonly from: string;
  readonly to: string;
  readonly tensors: number;
  /** elements of a block of `from` */
  readonly block: number;
  /** the different lengths of their rows */
  readonly rows: readonly number[];
}

/**
 * The types of a kind of file, by the names of the stored tensors; null if the policy is no such kind.
 *
 * @throws USAGE if the destination has no kinds of files
 */
export async function chooseTypes(
  { kind }: Policy,
  writer: Writer,
  stored: readonly ExpectedTensor[],
  options: PluginOptions,
): Promise<ReadonlyMap<string, TypeChoice> | null> {
  if (!isFileKind(kind)) return null;
  if (writer.tensorTypes !== undefined)
    return await writer.tensorTypes(
      kind,
      stored.map(({ name, layout }) => ({ name, shape: shapeOf(layout) })),
    );
  const able = registryOf(options).formats.filter(({ writes }) => writes?.tensorTypes !== undefined);
  const message = `\`dtype\` ${kind} has no meaning for what ${writer.software} loads`;
  const next = `choose \`to\` ${able.map(({ id }) => id).join(" or ")}, or another \`dtype\``;
  throw new IsologitError("USAGE", message, {}, { next });
}

/** @param choices what `chooseTypes` returned */
export function describeFileKind(
  id: FileKind,
  weights: readonly PlannedWeight[],
  choices: ReadonlyMap<string, TypeChoice>,
): FileKindReport {
  const types = new Map<string, FileKindReport["types"][number]>();
  const fallbacks = new Map<string, TypeFallback>();
  let bits = 0;
  let total = 0;
  for (const { name, dtype, layout } of weights) {
    const shape = shapeOf(layout);
    const count = countOf(shape);
    bits += count * bitsOf(dtype);
    total += count;
    const { tensors, weights: before } = types.get(dtype) ?? { tensors: 0, weights: 0 };
    types.set(dtype, { dtype, tensors: tensors + 1, weights: before + count });
    const { instead: from, dtype: chosen } = choices.get(name)!;
    if (from === undefined || chosen !== dtype) continue;
    const key = `${from} ${dtype}`;
    const known = fallbacks.get(key) ?? { tensors: 0, rows: [] };
    const rows = [...new Set([...known.rows, shape.at(-1)!])];
    fallbacks.set(key, { from, to: dtype, tensors: known.tensors + 1, block: blockElements(from), rows });
  }
  return {
    id,
    bitsPerWeight: bits / total,
    types: [...types.values()],
    fallbacks: [...fallbacks.values()],
  };
}

/** `Q4_K -> Q5_0 for 141 tensors: rows of 2688 are no multiple of 256` */
export function fallbackWarnings({ fallbacks }: FileKindReport): readonly string[] {
  return fallbacks.map(({ from, to, tensors, block, rows }) => {
    const reason = `rows of ${rows.join(", ")} are no multiple of ${block}`;
    return `${from} -> ${to} for ${formatQuantity(tensors, "tensor")}: ${reason}`;
  });
}
