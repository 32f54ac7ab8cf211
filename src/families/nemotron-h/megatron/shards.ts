/** How Megatron divides a model among ranks: read from a stored checkpoint, or planned for a new one. */
import { type ErrorCode, IsologitError } from "../../../core/errors.ts";
import type { ObservedFacts } from "../../dialect.ts";
import type { Config, Parallelism, Structure } from "../../structure.ts";
import type { NemotronHDims } from "../dims.ts";
import { VOCAB_STEP } from "./record.ts";
import { partsOf } from "./sizes.ts";

const layerCounts = ({ layers }: Structure<NemotronHDims>) => {
  const main = layers.filter(({ stack }) => stack === "main").length;
  return { main, mtp: layers.length - main };
};

/** A distributed checkpoint holds whole tensors. Of the ranks that wrote it, only the padding is visible. */
export function distParallelism(facts: ObservedFacts, model: Structure<NemotronHDims>): Parallelism {
  return { tp: 1, ep: 1, expertTp: 1, stages: [layerCounts(model)], rows: rowsOf(facts, model, 1) };
}

/** @throws TENSOR_MISSING if layers are missing from the stages; UNSUPPORTED if widths do not divide evenly */
export function rankParallelism(
  facts: ObservedFacts,
  model: Structure<NemotronHDims>,
  config: Config,
): Parallelism {
  const tp = partsOf(facts);
  const most = (of: "pp" | "ep") =>
    facts.tensors.reduce((max, { rank }) => Math.max(max, (rank?.[of] ?? 0) + 1), 1);
  const per = model.layers.find(({ stack }) => stack === "mtp")?.of ?? 0;
  const stages = Array.from({ length: most("pp") }, () => ({ main: 0, mtp: 0 }));
  for (const { name, rank } of facts.tensors) {
    const [, stack, index] = /^(decoder|mtp)\.layers\.(\d+)\./.exec(name) ?? [];
    const stage = stages[rank?.pp ?? 0]!;
    if (stack === "decoder") stage.main = Math.max(stage.main, Number(index) + 1);
    if (stack === "mtp") stage.mtp = Math.max(stage.mtp, (Number(index) + 1) * per);
  }
  const { main } = layerCounts(model);
  const found = stages.reduce((sum, stage) => sum + stage.main, 0);
  if (found !== main) {
    const message = `the ${stages.length} pipeline stages hold ${found} layers; the config asks for ${main}`;
    throw new IsologitError("TENSOR_MISSING", message);
  }
  const expertTp = expertParts(facts, model.dims, config, tp);
  refuseUncut("UNSUPPORTED", model, tp, expertTp);
  return { tp, ep: most("ep"), expertTp, stages, rows: rowsOf(facts, model, tp) };
}

/** @throws PLAN_IMPOSSIBLE */
export function planParallelism(
  model: Structure<NemotronHDims>,
  { tp, pp }: { tp: number; pp: number },
  ranked: boolean,
): Parallelism {
  const step = VOCAB_STEP * tp;
  const rows = Math.ceil(model.dims.vocab / step) * step;
  const { main, mtp } = layerCounts(model);
  if (!ranked) return { tp, ep: 1, expertTp: 1, stages: [{ main, mtp }], rows };
  refuseUncut("PLAN_IMPOSSIBLE", model, tp, tp);
  if (pp > main)
    throw new IsologitError("PLAN_IMPOSSIBLE", `${main} layers cannot fill ${pp} pipeline stages`);
  const stages = Array.from({ length: pp }, (_, stage) => ({
    main: Math.floor(((stage + 1) * main) / pp) - Math.floor((stage * main) / pp),
    mtp: stage === pp - 1 ? mtp : 0,
  }));
  return { tp, ep: 1, expertTp: model.dims.experts > 0 ? tp : 1, stages, rows };
}

/** One of the two is enough to show the padding; `matchRoles` reports the other if it is missing. */
const TABLES = ["embedding.word_embeddings.weight", "output_layer.weight"];

/** Rows of the token table over all ranks. @throws SHAPE_MISMATCH where they are fewer than the vocabulary */
function rowsOf({ tensors }: ObservedFacts, { dims }: Structure<NemotronHDims>, tp: number): number {
  const table = TABLES.map((table) => tensors.find(({ name }) => name === table)).find(
    (tensor) => tensor !== undefined,
  );
  if (table === undefined) return dims.vocab;
  const rows = (table.shape[0] ?? 0) * tp;
  if (rows >= dims.vocab) return rows;
  throw new IsologitError("SHAPE_MISMATCH", `it has ${rows} rows; the vocabulary has ${dims.vocab}`, {
    tensor: table.name,
  });
}

/** Number of ranks that share the matrices of an expert: from the config, else from the stored shapes. */
function expertParts({ tensors }: ObservedFacts, d: NemotronHDims, config: Config, tp: number): number {
  const configured = config.expert_tensor_parallel_size;
  const up = tensors.find(({ name }) => /\.mlp\.experts\.(.*\.)?linear_fc1\.weight\d*$/.test(name));
  if (up === undefined || up.shape[0] === d.moeFfn) return 1;
  return typeof configured === "number" && configured > 0 ? configured : tp;
}

/** Checks the sizes that must divide evenly among tensor parallel ranks. Key and value heads need not: only their fused rows must. */
function refuseUncut(
  code: ErrorCode,
  { dims: d, settings }: Structure<NemotronHDims>,
  tp: number,
  expertTp: number,
): void {
  const shared = [
    ["Mamba groups", d.groups, tp],
    ["Mamba heads", d.mambaHeads, tp],
    ["attention heads", d.heads, tp],
    ["rows of queries, keys and values", d.q + 2 * d.kv, tp],
    ["MLP rows", d.ffn, tp],
    ["rows of the shared expert", d.moeShared, tp],
    ["rows of an expert", d.moeFfn, expertTp],
    ["rows of a prediction's projection", settings.mtpSteps === undefined ? 0 : d.hidden, tp],
  ] as const;
  for (const [what, size, parts] of shared) {
    if (size % parts === 0) continue;
    const message = `${size} ${what} cannot be divided among ${parts} tensor parallel ranks`;
    if (code !== "PLAN_IMPOSSIBLE") throw new IsologitError(code, message);
    const fitting = Array.from({ length: tp - 1 }, (_, i) => i + 1).filter((ranks) =>
      shared.every(([, n]) => n % ranks === 0),
    );
    throw new IsologitError(code, message, {}, { next: `use \`tp\` ${fitting.join(" or ")}` });
  }
}
