/** The rank of each file in `mp_rank_TT[_PPP][_EEE]/`, and whether all ranks exist. */
import type { Rank } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { ConfigRecord } from "../codec/yaml.ts";

export interface Ranks {
  /** rank of each file, in the order of files */
  readonly ranks: readonly Rank[];
  /** number of pipeline stages */
  readonly stages: number;
}

/**
 * The second number is a pipeline stage, or, in a pipeline of one stage, an expert rank. Only the config tells which.
 *
 * @param paths  files in folders with one to three numbers in their names; not empty
 * @throws TENSOR_MISSING if a rank has no file, INDEX_MISMATCH if the names cannot come from one run
 */
export function ranksOf(paths: readonly string[], config: ConfigRecord): Ranks {
  const numbers = paths.map(numbersIn);
  const stagesSaid = Number(config.pipeline_model_parallel_size ?? 1);
  const ofExperts = stagesSaid <= 1 && Number(config.expert_model_parallel_size ?? 1) > 1;
  const ranks = numbers.map(([tp = 0, second = 0, third]) =>
    ofExperts && third === undefined ? { tp, pp: 0, ep: second } : { tp, pp: second, ep: third ?? 0 },
  );
  const sizeOf = (axis: keyof Rank) => 1 + Math.max(...ranks.map((rank) => rank[axis]));
  const [tp, pp, ep] = [sizeOf("tp"), sizeOf("pp"), sizeOf("ep")];
  const at = { file: paths[0]! };
  const distinct = new Set(ranks.map((rank) => `${rank.tp}.${rank.pp}.${rank.ep}`)).size;
  if (distinct !== ranks.length || new Set(numbers.map(({ length }) => length)).size > 1) {
    throw new IsologitError("INDEX_MISMATCH", "the files belong to the ranks of two runs", at);
  }
  if (tp * pp * ep !== distinct) {
    const message = `${distinct} files of ranks; ${tp} tensor x ${pp} pipeline x ${ep} expert ranks make ${tp * pp * ep}`;
    throw new IsologitError("TENSOR_MISSING", message, at);
  }
  return { ranks, stages: pp };
}

/** `iter_0000100/mp_rank_01_002/x.pt` -> [1, 2]; the same for `tp_rank_01_pp_rank_002/x.ckpt`. */
function numbersIn(path: string): number[] {
  return (path.split("/").at(-2) ?? "").match(/\d+/g)?.map(Number) ?? [];
}
