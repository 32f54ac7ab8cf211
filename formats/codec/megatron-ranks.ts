/** Which rank each file of `mp_rank_TT[_PPP][_EEE]/` belongs to, and whether all ranks are there. */
import type { Rank } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import type { ConfigRecord } from "./yaml-config.ts";

export interface RankFile {
  readonly path: string;
  /** as the folder is called: one to three numbers */
  readonly numbers: readonly number[];
}

export interface Ranks {
  get(file: RankFile): Rank | undefined;
  /** ranks of the pipeline */
  readonly stages: number;
}

/** @param marker  matches the path below `folder` */
export function rankFilesIn(paths: readonly string[], folder: string, marker: RegExp): RankFile[] {
  return paths
    .filter((path) => path.startsWith(folder) && marker.test(path.slice(folder.length)))
    .map((path) => ({ path, numbers: (/mp_rank_([\d_]+)/.exec(path)?.[1] ?? "").split("_").map(Number) }));
}

/**
 * A second number counts pipeline stages, or, where there is one stage, expert ranks: the names do not tell, the
 * arguments do.
 *
 * @throws TENSOR_MISSING where a rank has no file, INDEX_MISMATCH where the names cannot be those of one run
 */
export function ranksOf(files: readonly RankFile[], args: ConfigRecord): Ranks {
  const ofExperts =
    Number(args.pipeline_model_parallel_size ?? 1) <= 1 && Number(args.expert_model_parallel_size ?? 1) > 1;
  const ranks = new Map<RankFile, Rank>();
  for (const file of files) {
    const [tp = 0, second = 0, third] = file.numbers;
    const rank =
      ofExperts && third === undefined ? { tp, pp: 0, ep: second } : { tp, pp: second, ep: third ?? 0 };
    ranks.set(file, rank);
  }
  const all = [...ranks.values()];
  const counts = (["tp", "pp", "ep"] as const).map((axis) => 1 + Math.max(...all.map((rank) => rank[axis])));
  const [tp, pp, ep] = counts as [number, number, number]; // one for each axis
  const keys = new Set(all.map((rank) => `${rank.tp}.${rank.pp}.${rank.ep}`));
  if (keys.size !== all.length || new Set(files.map(({ numbers }) => numbers.length)).size > 1) {
    throw new IsologitError("INDEX_MISMATCH", "files of ranks of two runs lie together", {
      file: files[0]!.path,
    });
  }
  if (tp * pp * ep !== keys.size) {
    const message = `${keys.size} files of ranks, where ${tp} tensor x ${pp} pipeline x ${ep} expert ranks make ${tp * pp * ep}`;
    throw new IsologitError("TENSOR_MISSING", message, { file: files[0]!.path });
  }
  return { get: (file) => ranks.get(file), stages: pp };
}
