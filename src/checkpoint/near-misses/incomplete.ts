/** Incomplete checkpoints: values that were not gathered, ranks without a file. */
import { IsologitError } from "../../core/errors.ts";
import type { Scene } from "./scene.ts";

/** ZeRO stage 3 divides every parameter among the ranks. If the ranks are not gathered, the saved tensors are empty. */
export function emptyMatrices({ checkpoint, files, error }: Scene): IsologitError | null {
  if (checkpoint === undefined || error.code !== "SHAPE_MISMATCH") return null;
  const empty = checkpoint.tensors.filter(({ shape }) => shape.includes(0));
  const [first] = empty;
  if (first === undefined) return null;
  const message = `${empty.length} of ${checkpoint.tensors.length} tensors are empty, [${first.shape.join(", ")}]: ZeRO stage 3 writes empty tensors if the ranks are not gathered`;
  const file = first.pieces[0]?.file;
  const script = files.find(({ path }) => path.endsWith("zero_to_fp32.py"));
  const from =
    script === undefined
      ? "the training run's global_step*/ folder with DeepSpeed's zero_to_fp32.py"
      : `the global_step*/ folder here with ${script.path}`;
  return new IsologitError(
    "TENSOR_MISSING",
    message,
    { tensor: first.name, ...(file !== undefined && { file }) },
    {
      next: `the values are not in this file: take them from ${from}, or save again with stage3_gather_16bit_weights_on_model_save`,
    },
  );
}

const RANK = /(?:^|\/)(?:mp_rank_(\d+)(?:_(\d+))?(?:_(\d+))?|tp_rank_(\d+)_pp_rank_(\d+))\//;

/** Finds missing files of ranks, by the arguments of the run and the numbers of the ranks that exist. */
export function missingRanks({ checkpoint, files, error }: Scene): IsologitError | null {
  if (error.exit !== 3) return null;
  const ranks = files.flatMap(({ path }) => {
    const [, tp, second, third, tpOf, ppOf] = RANK.exec(path) ?? [];
    return tp === undefined && tpOf === undefined
      ? []
      : [
          {
            path,
            tp: Number(tp ?? tpOf),
            more: [second ?? ppOf, third].flatMap((n) => (n === undefined ? [] : [Number(n)])),
          },
        ];
  });
  const [first] = ranks;
  if (first === undefined) return null;
  const config = checkpoint?.config ?? {};
  const declaredTps = Number(config.tensor_model_parallel_size ?? 0);
  const stages = Number(config.pipeline_model_parallel_size ?? 0);
  const seen = new Set(ranks.map(({ tp, more }) => [tp, ...more].join("_")));
  const tps = Math.max(declaredTps, ...ranks.map(({ tp }) => tp + 1));
  const seconds = Math.max(stages > 1 ? stages : 1, ...ranks.map(({ more }) => (more[0] ?? 0) + 1));
  const numbered = ranks.some(({ more }) => more.length > 0) || seconds > 1;
  if (ranks.some(({ more }) => more.length > 1)) return null; // expert ranks: not every cell is a process
  const lost: string[] = [];
  for (let tp = 0; tp < tps; tp++) {
    for (let second = 0; second < seconds; second++) {
      if (!seen.has(numbered ? `${tp}_${second}` : String(tp)))
        lost.push(nameOf(first.path, tp, numbered ? second : undefined));
    }
  }
  if (lost.length === 0 || lost.length > 10_000) return null;
  const why = declaredTps > 0 ? `: its arguments give ${tps} tensor x ${seconds} pipeline ranks` : "";
  const shown = `${lost.slice(0, 3).join(", ")}${lost.length > 3 ? ` and ${lost.length - 3} more` : ""}`;
  const message = `${shown} ${lost.length === 1 ? "is" : "are"} missing; ${seen.size} of ${tps * seconds} ranks have a file here${why}`;
  return new IsologitError(
    "TENSOR_MISSING",
    message,
    { file: first.path },
    {
      next: `copy ${lost.length === 1 ? lost[0]! : "the folders of all ranks"} here too, from where the run saved its checkpoint`,
    },
  );
}

/** Name of the missing rank, spelled as the rank that exists. */
function nameOf(path: string, tp: number, second: number | undefined): string {
  const two = String(tp).padStart(2, "0");
  if (path.includes("tp_rank_")) return `tp_rank_${two}_pp_rank_${String(second ?? 0).padStart(3, "0")}`;
  return second === undefined ? `mp_rank_${two}` : `mp_rank_${two}_${String(second).padStart(3, "0")}`;
}

/** Weights without a config. */
export function missingConfig({ checkpoint, address, error }: Scene): IsologitError | null {
  if (
    checkpoint === undefined ||
    error.code !== "FAMILY_UNKNOWN" ||
    Object.keys(checkpoint.config).length > 0
  )
    return null;
  if (checkpoint.hints?.like !== undefined) return null;
  const isHf = checkpoint.dialect === "hf";
  const message = isHf
    ? "config.json is missing beside the weights: the architecture is not known"
    : "the checkpoint has weights and no config: the architecture is not known";
  return new IsologitError(
    "FAMILY_UNKNOWN",
    message,
    { file: address },
    {
      next: isHf
        ? "put the model's config.json into the folder, and give the folder"
        : "name a checkpoint of the same architecture with `like`",
    },
  );
}
