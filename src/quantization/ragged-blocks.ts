/** Blocks of 128 x 128 that end inside a weight's last block: some engines refuse or misread such weights. */
import type { QuantizedModel } from "../plugins/quantization-dialect.ts";

/** @param who engines of the dialect that need whole blocks, as a sentence about "them" */
export function raggedWarnings(
  { scales, ragged }: Pick<QuantizedModel, "scales" | "ragged">,
  who: string,
): readonly string[] {
  const [first, ...others] = ragged;
  if (scales !== "block" || first === undefined) return [];
  const named = others.length === 0 ? `${first} has` : `${first} and ${others.length} more have`;
  return [`${named} rows or columns that 128 does not divide: ${who}`];
}
