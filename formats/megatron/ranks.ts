/** Which rank each file of `mp_rank_TT[_PPP][_EEE]/` belongs to, and whether all ranks are there. */
import type { Rank } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { ConfigRecord } from "../codec/yaml.ts";

export interface Ranks {
  /** of each file, in their order */
  readonly ranks: readonly Rank[];
  /** of the pipeline */
  readonly stages: number;
}

/**
 * A second number counts pipeline stages, or, where there is one stage, expert ranks: the names do not tell, the
 * config does.
 *
 * @param paths  files in folders with one to three numbers in their names; one or more
 * @throws TENSOR_MISSING where a rank has no file, INDEX_MISMATCH where the names cannot be those of one run
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
    throw new IsologitError("INDEX_MISMATCH", "files of the ranks of two runs lie together", at);
  }
  if (tp * pp * ep !== distinct) {
    const message = `${distinct} files of ranks; ${tp} tensor x ${pp} pipeline x ${ep} expert ranks make ${tp * pp * ep}`;
    throw new IsologitError("TENSOR_MISSING", message, at);
  }
  return { ranks, stages: pp };
}

/** `iter_0000100/mp_rank_01_002/x.pt` -> [1, 2]; `tp_rank_01_pp_rank_002/x.ckpt` the same. */
function numbersIn(path: string): number[] {
  return (path.split("/").at(-2) ?? "").match(/\d+/g)?.map(Number) ?? [];
}
