/** Forms in which llama.cpp stores the tensors of several families. */
import { reshape, shapeOf, transpose } from "../../../core/mapping/layout.ts";
import type { Is, Rule } from "../../dialect.ts";
import type { Dims } from "../../structure.ts";

/**
 * A projection of queries or keys with the rows of each head in pairs: rows 2j and 2j + 1 are rows j and j + width / 2 of the
 * role's head. llama.cpp's rotary positions turn neighbours, those of Hugging Face turn halves.
 */
export const inPairs =
  <D extends Dims>(role: string, heads: (d: D) => number): Is<D> =>
  (of, d) => {
    const matrix = of(role);
    const shape = shapeOf(matrix);
    const [rows, ...columns] = shape as [number, ...number[]];
    const halves = [heads(d), 2, rows / heads(d) / 2, ...columns];
    const axes = [0, 2, 1, ...columns.map((_, i) => 3 + i)];
    return reshape(transpose(reshape(matrix, halves), axes), shape);
  };

/** A tensor that llama.cpp reads as F32 only. Published checkpoints have its role in the type of their weights. */
export const asF32 = <D extends Dims>(rule: Rule<D>): Rule<D> => ({ ...rule, onlyDtype: "F32" });
