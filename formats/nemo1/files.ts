/** The files by which a checkpoint of NeMo 1 is known. */
import { DIST_MARKER } from "../torch-dist/marker.ts";

export const CONFIG = "model_config.yaml";
/** of distributed weights */
export const FOLDER = "model_weights/";
const SINGLE = "model_weights.ckpt";
const RANKED = /^(mp_rank_\d+|tp_rank_\d+_pp_rank_\d+)\/model_weights\.ckpt$/;

export type Nemo1Weights = "distributed" | readonly string[];

/** The weights: files of ranks, or one file for a model that was not cut; undefined if there are none. */
export function weightsAmong(paths: readonly string[]): Nemo1Weights | undefined {
  if (paths.includes(SINGLE)) return [SINGLE];
  if (paths.some((path) => path.startsWith(FOLDER) && DIST_MARKER.test(path.slice(FOLDER.length)))) {
    return "distributed";
  }
  const ranked = paths.filter((path) => RANKED.test(path));
  return ranked.length > 0 ? ranked : undefined;
}
