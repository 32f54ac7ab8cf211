/** Forms in which llama.cpp stores the tensors of several families. */
import { concat, reshape, shapeOf, slice, transpose } from "../../../core/mapping/layout.ts";
import type { Is, Rule } from "../../dialect.ts";
import type { Dims } from "../../structure.ts";

/**
 * A projection of queries or keys with the rows of each head in pairs: rows 2j and 2j + 1 are rows j and j + turned / 2 of the
 * role's head. llama.cpp's rotary positions turn neighbours, those of Hugging Face turn halves.
 *
 * @param turned the first elements of each head, which are in pairs; the others keep their places; default all
 */
export const inPairs =
  <D extends Dims>(role: string, heads: (d: D) => number, turned?: (d: D) => number): Is<D> =>
  (of, d) => {
    const matrix = of(role);
    const shape = shapeOf(matrix);
    const [rows, ...columns] = shape as [number, ...number[]];
    const width = rows / heads(d);
    const [paired, kept] = [turned?.(d) ?? width, [heads(d), width, ...columns]];
    const halves = [heads(d), 2, paired / 2, ...columns];
    const axes = [0, 2, 1, ...columns.map((_, i) => 3 + i)];
    if (paired === width) return reshape(transpose(reshape(matrix, halves), axes), shape);
    const inHeads = reshape(matrix, kept);
    const pairs = transpose(reshape(slice(inHeads, 1, 0, paired), halves), axes);
    const others = slice(inHeads, 1, paired, width);
    return reshape(concat(1, [reshape(pairs, kept.with(1, paired)), others]), shape);
  };

/** A tensor that llama.cpp reads as F32 only. Published checkpoints have its role in the type of their weights. */
export const asF32 = <D extends Dims>(rule: Rule<D>): Rule<D> => ({ ...rule, onlyDtype: "F32" });
